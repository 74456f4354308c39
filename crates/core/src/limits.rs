//! Every bound of the engine in one place, with the reason for its size.

use std::time::Duration;

/// Longest record id, in bytes (CT-08: opaque strings of 1–128 characters).
pub const RECORD_ID_MAX: usize = 128;
/// Longest change id: a conflict's id is `<change id>:<group>` and must itself fit a record id.
pub const CHANGE_ID_MAX: usize = 64;
/// Longest name of a collection, a field, a role or a space: they become SQL names.
pub const NAME_MAX: usize = 63;
/// Largest document of one record, in bytes of canonical JSON.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of a field's value; deeper JSON is refused at the door.
pub const JSON_DEPTH_MAX: usize = 32;
/// Most fields one record may carry, the unknown ones included.
pub const FIELDS_MAX: usize = 512;
/// Longest person's name or role carried as evidence with a change, in bytes.
pub const PERSON_MAX: usize = 256;
/// Most changes in one push, and so in one transaction (DESIGN §5: about 1,000).
pub const PUSH_CHANGES_MAX: usize = 1_000;
/// Largest body of one push after decompression.
pub const PUSH_BYTES_MAX: usize = 8 << 20;
/// Largest body of one push as it travels, before decompression.
pub const PUSH_WIRE_BYTES_MAX: usize = 8 << 20;
/// Records in one page of a pull when the reader names no number.
pub const PAGE_DEFAULT: usize = 5_000;
/// Most records in one page of a pull.
pub const PAGE_MAX: usize = 50_000;
/// How often `decide` may ask for more under the same lock before the plan is refused as a fault (ADR 0011): a
/// chain of joins is walked down a record a round.
pub const NEED_ROUNDS_MAX: usize = 12 + JOIN_CHAIN_MAX;
/// Links a chain of `joined_into` may have before it is taken for a fault.
pub const JOIN_CHAIN_MAX: usize = 64;
/// Levels of children one deletion may cascade to: each is one more round of loading, of which there are
/// [`NEED_ROUNDS_MAX`].
pub const CASCADE_DEPTH_MAX: usize = 3;
/// Children one deletion may cascade to in one transaction.
pub const CASCADE_MAX: usize = 10_000;
/// Records that one push may move to another audience; above it a move is refused.
pub const AUDIENCE_MOVES_MAX: usize = 10_000;
/// How old a backup may be for its followers to bring back by themselves what they had sent since: for so
/// long settled changes and receipts are kept at least. What is older is put to a person.
pub const BACKUP_WINDOW: Duration = Duration::from_secs(7 * 86_400);
/// Most changes of one revoked device that wait in quarantine.
pub const QUARANTINE_CHANGES_MAX: u64 = 10_000;
/// Most bytes of their JSON.
pub const QUARANTINE_BYTES_MAX: u64 = 16 << 20;
/// A head further ahead of the clock than this is an alarm.
pub const HEAD_AHEAD_ALARM: Duration = Duration::from_secs(300);
/// Author times further ahead than this of their arrival are clamped by the node without an upstream.
pub const FUTURE_SLACK: Duration = Duration::from_secs(0);
/// A page of a pull ends early when it holds this many bytes of data, so that memory stays bounded.
pub const PAGE_BYTES_MAX: usize = 8 << 20;
