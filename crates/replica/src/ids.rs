//! Where new ids come from: randomness as an argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes ids and secrets.
pub trait Ids: Send + Sync + 'static {
    /// A new id, unique everywhere. Ordered roughly by time, but nobody relies on that.
    fn id(&self) -> String;
    /// 32 random bytes.
    fn secret(&self) -> [u8; 32];
}

/// UUIDv7 and the operating system's randomness.
#[derive(Debug, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[allow(clippy::disallowed_methods)] // the one place that draws ids
    fn id(&self) -> String {
        uuid::Uuid::now_v7().to_string()
    }
    #[allow(clippy::expect_used)] // a machine without randomness cannot keep a secret at all
    fn secret(&self) -> [u8; 32] {
        let mut out = [0; 32];
        getrandom::fill(&mut out).expect("the operating system gives randomness");
        out
    }
}

/// Counted ids under a prefix: for tests and the demo, where the same run must give the same ids.
#[derive(Debug)]
pub struct SequentialIds {
    prefix: String,
    next: AtomicU64,
}

impl SequentialIds {
    /// Ids `prefix-1`, `prefix-2`, …
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), next: AtomicU64::new(1) }
    }
}

impl Ids for SequentialIds {
    fn id(&self) -> String {
        format!("{}-{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
    fn secret(&self) -> [u8; 32] {
        *blake3::hash(self.id().as_bytes()).as_bytes()
    }
}
