//! A wall clock that is as wrong as a file says, in builds for tests with real processes only.

use std::{fs, path::PathBuf, sync::OnceLock};

/// Names the file: a whole number of microseconds, read again whenever somebody asks for the time.
const NAMED_BY: &str = "ROPEWAY_TEST_CLOCK";

/// By how many microseconds the clock is wrong now: 0 without a file.
pub(crate) fn by() -> i64 {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    #[allow(clippy::disallowed_methods, reason = "a test tells a whole process, whoever asks in it")]
    let file = FILE.get_or_init(|| std::env::var_os(NAMED_BY).map(PathBuf::from));
    let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
