//! The top's clock, measured at a contact and kept for each boot (TR-21, DESIGN §6 "Time").

use crate::{Node, ReplicaError};
use ropeway_core::{
    measured::{Boots, Measured},
    time::AuthorTime,
};
use ropeway_protocol::{Transport, TransportError};
use std::sync::PoisonError;

/// The setting that holds the measurements.
pub(crate) const NAME: &str = "clock.measured";

impl Node {
    /// What an edit made now notes about its time.
    pub(crate) fn author_time(&self) -> AuthorTime {
        let clock = &self.inner.clock;
        let (boot, mono) = (Some(clock.boot()), Some(clock.mono()));
        let at = AuthorTime { wall: clock.now(), boot, mono, offset: None };
        let offset = self.inner.follows.then(|| self.boots().offset(&at)).flatten();
        AuthorTime { offset, ..at }
    }

    /// Microseconds to add to this node's clock to get the time at the top: 0 there; `None` where this node
    /// has not measured it in this boot, so that nobody measures by a clock that nobody measured.
    pub fn offset_to_top(&self) -> Option<i64> {
        match self.inner.follows {
            false => Some(0),
            true => self.author_time().offset,
        }
    }

    pub(crate) fn boots(&self) -> Boots {
        self.inner.boots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Measures the top's clock, where it is time to. The inner error is an upstream out of reach; any other
    /// failure is told by what follows.
    pub(crate) async fn measure(
        &self,
        transport: &dyn Transport,
    ) -> Result<Result<(), TransportError>, ReplicaError> {
        let clock = &self.inner.clock;
        let (boot, sent) = (clock.boot(), clock.mono());
        if !self.boots().wants(boot, sent) {
            return Ok(Ok(()));
        }
        let hello = match transport.hello().await {
            Ok(hello) => hello,
            Err(error @ TransportError::Offline(_)) => return Ok(Err(error)),
            Err(_) => return Ok(Ok(())),
        };
        let top = hello.offset.map(|offset| hello.now.plus(offset));
        let measured = top.and_then(|top| Measured::by(boot, sent, clock.mono(), top));
        let Some(measured) = measured else { return Ok(Ok(())) };
        let taken = {
            let mut boots = self.inner.boots.lock().unwrap_or_else(PoisonError::into_inner);
            boots.take(measured).then(|| boots.clone())
        };
        if let Some(boots) = taken {
            let text = serde_json::to_string(&boots).unwrap_or_default();
            self.inner.store.put_meta(NAME, &text).await?;
        }
        Ok(Ok(()))
    }
}

/// Reads the measurements of earlier runs; what cannot be read is measured again.
pub(crate) async fn read(store: &ropeway_store::Stored) -> Result<Boots, ReplicaError> {
    let text = store.meta(NAME).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}
