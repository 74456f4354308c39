//! One decision and its plan, in a transaction that waiting ones may share.

use super::{apply::apply, conn::Conn, errors::Done, load::load, pool::Shared, space::Space};
use crate::{
    Decide,
    asking::{Asked, Asking, fault},
};
use ropeway_core::{
    id::SpaceId,
    plan::{Keys, Plan},
    time::Time,
};
use tokio::sync::oneshot::{self, Receiver, Sender};

/// A decision that waits to be made and written.
pub(super) struct Transact {
    space: SpaceId,
    now: Time,
    keys: Keys,
    decide: Decide,
    plan: Option<Box<Plan>>,
    tell: Sender<Done<Plan>>,
}

impl Transact {
    /// The decision and where its durable plan will be told.
    pub(super) fn new(space: SpaceId, now: Time, keys: Keys, decide: Decide) -> (Self, Receiver<Done<Plan>>) {
        let (tell, told) = oneshot::channel();
        (Self { space, now, keys, decide, plan: None, tell }, told)
    }
}

impl Shared for Transact {
    fn run(&mut self, conn: &mut Conn) -> Done<()> {
        self.plan = None;
        let mut space = Space::read(conn, &self.space)?;
        let mut asking = Asking::new(space.snapshot(conn.follows, self.now), self.keys.clone());
        let mut plan = loop {
            match asking.next(&mut *self.decide)? {
                Asked::Load(keys) => {
                    load(conn, space.no, &keys, &mut asking.snapshot)?;
                    asking.loaded(*keys);
                }
                Asked::Plan(plan) => break plan,
            }
        };
        if apply(conn, &mut space, &mut plan)? {
            space.save(conn)?;
        }
        self.plan = Some(plan);
        Ok(())
    }

    fn tell(self: Box<Self>, ended: Done<()>) {
        let Self { plan, tell, .. } = *self;
        let planned = || plan.map(|p| *p).ok_or_else(|| fault("a transaction ended without a plan".into()));
        let _ = tell.send(ended.and_then(|()| planned()));
    }
}
