//! A profile that gained audiences: the records that are there already get the keys that they would have had.

use super::{
    sight::write_subscriptions,
    work::{Step, Work},
};
use crate::{
    absorb,
    audience::{EVERYBODY, Worn},
    digest::{Digest, contribution},
    id::Key,
    plan::{Decision, Keys, Plan, Snapshot},
    profile::Profile,
    time::Stamp,
};

/// Gives all records of a space, `keys`, their audiences, in one plan that changes nothing else; what a record has
/// already stays. They were listed when the head was `listed`: where it is not any more, others may have come, and
/// the plan is empty and does not say [`Plan::sights_anew`].
pub fn fill(snapshot: &Snapshot, keys: &[Key], listed: Stamp, profile: &Profile) -> Decision {
    if snapshot.head != listed {
        return Decision::Plan(Box::new(Plan { head: snapshot.head, ..Plan::default() }));
    }
    let grant = absorb::nobody();
    let mut work = Work::new(snapshot, profile, &grant);
    match work.filled(keys) {
        Ok(plan) => Decision::Plan(Box::new(plan)),
        Err(_) => Decision::from(work.need),
    }
}

impl Work<'_> {
    fn filled(&mut self, keys: &[Key]) -> Step<Plan> {
        let mut plan = Plan { head: self.snap.head, ..Plan::default() };
        // Asked for together: a space may be large.
        let (all, restricted) =
            (keys.iter().cloned(), keys.iter().filter(|k| self.is_restricted(&k.collection)));
        let asked =
            Keys { records: all.collect(), audiences: restricted.cloned().collect(), ..Keys::default() };
        self.need.extend(asked);
        let flow = self.flow_of(keys)?;
        let subscriptions = self.subscribe(&flow)?;
        self.write_flow(&flow, &mut plan);
        write_subscriptions(subscriptions, self.snap.now, &mut plan);
        // What was written since the profile has audiences is counted, and nothing else: all are counted anew.
        (plan.sights, plan.sights_anew) = (Default::default(), true);
        for (key, record) in keys.iter().filter_map(|key| Some((key, self.snap.records.get(key)?))) {
            let sight = match self.is_restricted(&key.collection) {
                true => flow.worn(key).map(Worn::sight).unwrap_or_default(),
                false => EVERYBODY.to_owned(),
            };
            let digest = plan.sights.entry(sight).or_default();
            *digest = digest.moved(0, contribution(&key.collection, &key.id, record));
        }
        plan.sights.retain(|_, digest| *digest != Digest::default());
        Ok(plan)
    }
}
