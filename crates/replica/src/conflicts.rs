//! Conflicts as people meet them: listed, shown, resolved, reopened.

use crate::{Desk, Node, ReplicaError};
use ropeway_core::{
    change::{Author, Base, Change, Door, Grant, Op},
    conflict::{Conflict, Resolution, Standing},
    doc::{Doc, Fields},
    id::{CONFLICT, ChangeId, Collection, Key, RecordId, SpaceId},
    limits,
    receipt::{Code, Receipt, Verdict},
    record::State,
    time::{Stamp, Time},
};
use ropeway_store::Device;

/// Conflicts in an hour that are still no reason to wake anybody (ISMF-146).
pub const CONFLICTS_AN_HOUR: usize = 10;
const HOUR: i64 = 3_600_000_000;

/// A conflict with the record that it is about.
#[derive(Debug, Clone)]
pub struct ConflictView {
    /// Its id.
    pub id: RecordId,
    /// The number by which some dialects name it.
    pub local_id: i64,
    /// Its version, to name when it is resolved.
    pub version: u64,
    /// What it says.
    pub conflict: Conflict,
    /// The record's data as it stands now; `None` where there is no such record.
    pub now: Option<Doc>,
}

/// A person's answer to a conflict.
#[derive(Debug, Clone)]
pub struct Resolve {
    /// Which conflict.
    pub conflict: RecordId,
    /// The conflict's version that the person had on the screen. `None`: the one stored now.
    pub version: Option<u64>,
    /// The answer.
    pub resolution: Resolution,
    /// The values to write, for [`Resolution::Merged`].
    pub data: Option<Fields>,
    /// Why.
    pub notes: Option<String>,
    /// The change's id where the caller has one, so that the caller may repeat itself safely.
    pub change: Option<ChangeId>,
}

impl Node {
    /// Conflicts of a space, oldest first; only the open ones or all.
    pub async fn conflicts(
        &self,
        space: &SpaceId,
        only_open: bool,
    ) -> Result<Vec<ConflictView>, ReplicaError> {
        let mut found = Vec::new();
        self.each_conflict(space, |view| {
            if view.conflict.is_open() || !only_open {
                found.push(view);
            }
        })
        .await?;
        found.sort_by(|a, b| (a.conflict.opened_at, &a.id).cmp(&(b.conflict.opened_at, &b.id)));
        Ok(found)
    }

    /// Shows the conflicts of a space one after the other, by id: for counting, without keeping them.
    pub async fn each_conflict(
        &self,
        space: &SpaceId,
        mut visit: impl FnMut(ConflictView) + Send,
    ) -> Result<(), ReplicaError> {
        self.each_record(space, &Collection::trusted(CONFLICT), |id, record| {
            let Some(conflict) = Conflict::read(&record.data).filter(|_| record.is_live()) else { return };
            let (version, local_id) = (record.version, record.local_id);
            visit(ConflictView { id, local_id, version, conflict, now: None });
        })
        .await
    }

    /// How many conflicts are open.
    pub async fn conflicts_open(&self, space: &SpaceId) -> Result<u64, ReplicaError> {
        let mut open = 0;
        for home in self.homes(space, CONFLICT).await? {
            open += self.inner.store.contested(&home, &Collection::trusted(CONFLICT)).await?;
        }
        Ok(open)
    }

    /// How many conflicts of the last hour a person has or had to settle: what a rule settled and what was merged
    /// does not count (CT-04).
    pub async fn conflicts_of_the_last_hour(&self, space: &SpaceId) -> Result<usize, ReplicaError> {
        let mut found = 0;
        for home in self.homes(space, CONFLICT).await? {
            found += self.opened_within_the_hour(&home).await?;
        }
        Ok(found)
    }

    async fn opened_within_the_hour(&self, space: &SpaceId) -> Result<usize, ReplicaError> {
        let now = self.inner.clock.now();
        let of = [Collection::trusted(CONFLICT)];
        // None was opened after it was last written.
        let (mut after, mut found) = (Stamp(now.0.saturating_sub(HOUR)), 0);
        loop {
            let page = self.inner.store.feed(space, after, limits::PAGE_DEFAULT, &of).await?;
            after = page.rows.last().map_or(after, |row| row.stamp);
            let live = page.rows.iter().filter(|row| row.state == State::Live);
            let said = live.filter_map(|row| Conflict::read(&row.data));
            found += said.filter(|conflict| counts(conflict.state, conflict.opened_at, now)).count();
            if page.complete {
                return Ok(found);
            }
        }
    }

    /// One conflict with the record it is about.
    pub async fn conflict(&self, space: &SpaceId, id: &RecordId) -> Result<ConflictView, ReplicaError> {
        let missing = || ReplicaError::NotFound(format!("the conflict `{id}`"));
        let key = Key::new(&Collection::trusted(CONFLICT), id);
        let record = self.get(space, &key).await?.ok_or_else(missing)?;
        let conflict = Conflict::read(&record.data).ok_or_else(missing)?;
        let now = self.get(space, &conflict.about()).await?.map(|record| record.data);
        let (version, local_id) = (record.version, record.local_id);
        Ok(ConflictView { id: id.clone(), local_id, version, conflict, now })
    }

    /// Answers a conflict at this node's desk. The answer is a change like any other and writes the
    /// conflict and its record in one plan. Errors: [`ReplicaError::Moved`] when either moved since it was
    /// shown, [`ReplicaError::Forbidden`], [`ReplicaError::NotFound`], [`ReplicaError::Invalid`].
    pub async fn resolve(
        &self,
        space: &SpaceId,
        desk: &Desk,
        answer: Resolve,
    ) -> Result<(Receipt, ConflictView), ReplicaError> {
        let device = self.inner.device.clone();
        let grant = Grant { door: Door::Desk, device: device.clone(), role: desk.role.clone() };
        let author = Author { device, person: desk.person.clone() };
        self.answer(space, author, grant, answer).await
    }

    /// Conflicts as a device sees them: only those about records that it sees.
    pub async fn conflicts_for(
        &self,
        device: &Device,
        only_open: bool,
    ) -> Result<Vec<ConflictView>, ReplicaError> {
        let mut found = Vec::new();
        for view in self.conflicts(&device.space, only_open).await? {
            if self.sees(device, &Key::new(&Collection::trusted(CONFLICT), &view.id)).await? {
                found.push(view);
            }
        }
        Ok(found)
    }

    /// One conflict as a device sees it; one that it may not see is not there.
    pub async fn conflict_for(&self, device: &Device, id: &RecordId) -> Result<ConflictView, ReplicaError> {
        if !self.sees(device, &Key::new(&Collection::trusted(CONFLICT), id)).await? {
            return Err(ReplicaError::NotFound(format!("the conflict `{id}`")));
        }
        self.conflict(&device.space, id).await
    }

    /// Answers a conflict in the name of somebody at a device that may.
    pub async fn resolve_for(
        &self,
        device: &Device,
        person: Option<String>,
        answer: Resolve,
    ) -> Result<(Receipt, ConflictView), ReplicaError> {
        self.conflict_for(device, &answer.conflict).await?;
        let author = Author { device: device.id.clone(), person };
        self.answer(&device.space, author, self.grant_of(device), answer).await
    }

    /// Asks in the name of somebody at a device whether two records are one, of which `stays` would stay.
    /// Returns the open conflict that is answered to join them. Errors as [`Node::resolve`], and
    /// [`ReplicaError::Moved`] where that is asked already.
    pub async fn ask_for(
        &self,
        device: &Device,
        person: Option<String>,
        about: &Key,
        stays: &RecordId,
    ) -> Result<ConflictView, ReplicaError> {
        let id = ChangeId::parse(&self.inner.ids.id())?;
        let named = [("collection", &*about.collection), ("record", &*about.id), ("other", &**stays)];
        let change = Change {
            record: RecordId::parse(&format!("{id}:twins"))?,
            id,
            collection: Collection::trusted(CONFLICT),
            op: Op::Create,
            fields: named.map(|(name, value)| (name.to_owned(), value.into())).into(),
            seen: None,
            base: None,
            lost: None,
            author: Author { device: device.id.clone(), person },
            at: Some(self.author_time()),
        };
        let receipt = self.ingest(&device.space, self.grant_of(device), vec![change]).await?.pop();
        let receipt = receipt.ok_or_else(|| ReplicaError::Invalid("the question was empty".into()))?;
        match receipt.detail.conflicts.first() {
            Some(conflict) => self.conflict(&device.space, conflict).await,
            None => Err(refusal(&receipt)),
        }
    }

    async fn answer(
        &self,
        space: &SpaceId,
        author: Author,
        grant: Grant,
        answer: Resolve,
    ) -> Result<(Receipt, ConflictView), ReplicaError> {
        let shown = self.conflict(space, &answer.conflict).await?;
        let id = match answer.change {
            Some(id) => id,
            None => ChangeId::parse(&self.inner.ids.id())?,
        };
        let change = Change {
            id,
            collection: Collection::trusted(CONFLICT),
            record: answer.conflict.clone(),
            op: Op::Patch,
            fields: Conflict::answer(answer.resolution, answer.data, answer.notes),
            seen: None,
            base: Some(Base {
                epoch: self.inner.store.space(space).await?.epoch,
                version: answer.version.unwrap_or(shown.version),
            }),
            lost: None,
            author,
            at: Some(self.author_time()),
        };
        let receipt = self.ingest(space, grant, vec![change]).await?.pop();
        let receipt = receipt.ok_or_else(|| ReplicaError::Invalid("the answer was empty".into()))?;
        if receipt.verdict == Verdict::Rejected {
            return Err(refusal(&receipt));
        }
        let view = self.conflict(space, &answer.conflict).await?;
        Ok((receipt, view))
    }
}

fn refusal(receipt: &Receipt) -> ReplicaError {
    let Some(reason) = &receipt.reason else { return ReplicaError::Invalid("refused".into()) };
    let text = reason.text.clone();
    match reason.code {
        Code::Moved | Code::ConflictOpen => ReplicaError::Moved(text),
        Code::Forbidden => ReplicaError::Forbidden(text),
        Code::NotFound => ReplicaError::NotFound(text),
        Code::TooLarge => ReplicaError::TooLarge(text),
        _ => ReplicaError::Invalid(text),
    }
}

fn counts(state: Standing, opened_at: Time, now: Time) -> bool {
    state != Standing::Automatic && now.since(opened_at) < HOUR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_an_hour_and_what_nobody_was_asked_does_not_count() {
        let now = Time(5 * HOUR);
        let ago = |micros: i64| Time(now.0 - micros);
        for state in [Standing::Open, Standing::Resolved] {
            assert_eq!([0, HOUR - 1, HOUR].map(|back| counts(state, ago(back), now)), [true, true, false]);
        }
        assert!(!counts(Standing::Automatic, now, now), "nobody was asked");
    }
}
