//! Secrets: drawn once, shown once, kept only as hashes; and compared in constant time.

use crate::ReplicaError;
use ropeway_store::{Durability, Stored};

/// Reads a setting of the node, or draws it on the first day; two processes that start at once agree.
pub(crate) async fn own(
    store: &Stored,
    name: &str,
    draw: impl Fn() -> String,
) -> Result<String, ReplicaError> {
    if let Some(value) = store.meta(name).await? {
        return Ok(value);
    }
    let drawn = draw();
    if store.swap_meta(name, None, &drawn, Durability::Full).await? {
        return Ok(drawn);
    }
    store.meta(name).await?.ok_or_else(|| ReplicaError::NotFound(format!("the setting {name}")))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
