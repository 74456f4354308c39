//! Problems: `application/problem+json` with a closed list of codes, each saying what the caller does next.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $next:literal;)*) => {
        /// The closed list of codes. A caller acts on the code; the sentence is for people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ProblemCode {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }
        impl ProblemCode {
            /// All of them, for the OpenAPI document and PROTOCOL.md.
            pub const ALL: &'static [ProblemCode] = &[$(ProblemCode::$name,)*];
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
            /// The HTTP status it travels with.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
            /// What the caller does next.
            pub fn next(self) -> &'static str {
                match self { $(Self::$name => $next,)* }
            }
        }
    };
}

codes! {
    /// The body or a parameter cannot be read.
    Malformed = "malformed", 400, "mend the request; nothing was taken in";
    /// No token, or one that nobody has.
    Unauthenticated = "unauthenticated", 401, "send the device's token; keep the outbox";
    /// The device was revoked.
    DeviceRevoked = "device_revoked", 403, "stop syncing and keep the outbox: its work can be handed in";
    /// The device was copied (DESIGN §7).
    DeviceCloned = "device_cloned", 409, "register this copy as a new device; both outboxes are kept";
    /// The role may not do this.
    Forbidden = "forbidden", 403, "ask somebody with the role";
    /// There is nothing here that the caller may see.
    NotFound = "not_found", 404, "check the address";
    /// The same change id came with another content.
    ChangeReused = "change_reused", 409, "give the change a new id";
    /// The record or conflict moved since it was shown.
    Moved = "moved", 409, "show what is there now and ask again";
    /// The cursor is not one that this node gave to this space.
    CursorInvalid = "cursor_invalid", 400, "pull from the beginning; keep the outbox";
    /// The node's data is of another generation.
    EpochChanged = "epoch_changed", 409, "pull from the beginning and hand in what was lost";
    /// The device was away for longer than tombstones are kept.
    ResyncRequired = "resync_required", 409, "pull from the beginning before pushing";
    /// The caller is too old for this node, or too new.
    UpgradeRequired = "upgrade_required", 426, "install the matching version; keep the outbox";
    /// The body, a batch or a record passes a limit.
    TooLarge = "too_large", 413, "send half of it";
    /// Too many requests.
    RateLimited = "rate_limited", 429, "wait for Retry-After seconds";
    /// The node cannot work now.
    Unavailable = "unavailable", 503, "wait for Retry-After seconds and send the same again";
    /// The node is at fault.
    Internal = "internal", 500, "send the same again later and tell the operator";
}

/// An error answer (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The code.
    pub code: ProblemCode,
    /// The code's name for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, in a sentence that names the thing.
    pub detail: String,
    /// What to do next.
    pub next: String,
    /// Seconds to wait, where waiting helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// How many changes of a refused push are kept in quarantine until an administrator decides, where the
    /// device is revoked (I9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<u64>,
}

impl Problem {
    /// A problem with its sentence.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            title: code.as_str().replace('_', " "),
            status: code.status(),
            detail: detail.into(),
            next: code.next().to_owned(),
            retry_after: None,
            quarantined: None,
        }
    }
    /// Says how long to wait.
    pub fn after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.code.as_str(), self.detail, self.next)
    }
}

impl std::error::Error for Problem {}
