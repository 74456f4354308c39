//! A push whose answer is too large to be taken in, asked again in halves. It was decided, so the batch stays
//! what it is; each half gets the receipts that its changes have already got.

use crate::{Pushed, TransportError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A push, its changes left as they are written.
#[derive(Deserialize, Serialize)]
struct Parts<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(borrow)]
    changes: Vec<&'a RawValue>,
}

/// Both halves of a push. `None`: it is a single change.
pub(super) fn halves(body: &[u8]) -> Option<[Bytes; 2]> {
    let Parts { batch, epoch, changes } = serde_json::from_slice(body).ok()?;
    if changes.len() < 2 {
        return None;
    }
    let (first, second) = changes.split_at(changes.len() / 2);
    let part = |changes: &[&RawValue]| {
        let changes = changes.iter().map(|change| &**change).collect();
        let part = Parts { batch: batch.clone(), epoch: epoch.clone(), changes };
        serde_json::to_vec(&part).map(Bytes::from).ok()
    };
    Some([part(first)?, part(second)?])
}

/// Puts the answer to the next part behind the others.
pub(super) fn join(answered: Option<Pushed>, next: Pushed) -> Result<Pushed, TransportError> {
    let Some(mut whole) = answered else { return Ok(next) };
    if whole.epoch != next.epoch {
        return Err(TransportError::Offline("the upstream was restored while it answered".into()));
    }
    whole.now = next.now;
    whole.receipts.extend(next.receipts);
    Ok(whole)
}
