//! Step e, merge: what is not contested fast-forwards; each contested group goes by its rule.

use super::{
    Answer, Case,
    create::{lacking, too_large},
    refs::Broken,
    same::Late,
    work::{Missing, Step, Work},
};
use crate::{
    change::{Change, Door, Op},
    conflict::{Conflict, Kind, Resolution, Side, Standing},
    doc::{Doc, Fields},
    id::{Key, RecordId},
    merge::{self, Contender, Outcome},
    profile::{GroupOf, Rule},
    receipt::{Code, Detail, Verdict},
    record::{Mark, Record},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// What has been decided of one change so far.
#[derive(Default)]
struct Tally {
    writes: Fields,
    /// Some group was made of both sides, or won against a contest.
    merged: bool,
    /// Some group lost.
    lost: bool,
    parked: Vec<String>,
    conflicts: Vec<RecordId>,
}

/// One touched group of one change.
struct Contest<'a> {
    group: GroupOf<'a>,
    /// The fields of the group that the change names with another value than there is.
    changed: Vec<String>,
    /// Values of the group there and coming in.
    there: Fields,
    wanted: Fields,
    mark: Mark,
}

impl Work<'_> {
    /// Lays a change over a live record.
    pub(crate) fn edit(&mut self, case: &Case<'_>, over: Key, record: Record) -> Step<Answer> {
        let change = case.change;
        let mut after = record.data.fields().clone();
        after.extend(change.fields.clone());
        self.offset = change.at.and_then(|at| at.offset).unwrap_or(0);
        self.foresee_twin(&over, case, &record, &Doc::of(after));
        let broken = self.follow(case, &change.fields)?;
        if let Some(Broken::Missing { field, parent }) = &broken {
            return self.parent_missing(change, field, parent);
        }
        if let Some(answer) = would_not_fit(case, &record) {
            return Ok(answer);
        }
        let open = match record.contested {
            true => self.conflicts_of(&over)?,
            false => Vec::new(),
        };
        let open: Vec<_> = open
            .into_iter()
            .filter(|(_, c)| c.is_open() && c.kind == Kind::Fields && c.about() == over)
            .collect();
        let contests = contests(case, &record);
        if let Some(answer) = self.refuse_at_top(change, &contests, &open) {
            return Ok(answer);
        }
        let gone = match broken {
            Some(Broken::Gone { field, .. }) => Some(field),
            _ => None,
        };
        let sight = self.sight(case, &over, &record);
        let mut tally = Tally::default();
        for contest in &contests {
            let standing = open.iter().filter(|(_, c)| c.fields.iter().any(|f| contest.group.has(f)));
            let standing: Vec<_> = standing.cloned().collect();
            if contest.changed.is_empty() {
                self.withdraw(case, contest, &standing)?;
                self.say_again(case, &over, contest)?;
            } else if !standing.is_empty() {
                self.park_again(case, &over, contest, &standing, &mut tally)?;
            } else if gone.as_deref().is_some_and(|f| contest.group.has(f)) {
                self.park(case, &over, contest, Kind::Orphan, &mut tally)?;
            } else if matches!(contest.group.rule, Rule::Origin) && change.author.device != record.owner {
                self.park(case, &over, contest, Kind::Fields, &mut tally)?;
            } else if sight.contested(contest, &record) {
                self.contest(case, &over, contest, &mut tally)?;
            } else {
                take_as_asked(contest, &change.author.device, &mut tally);
            }
        }
        self.conclude(case, over, record, sight, tally)
    }

    /// Writes what was decided and gives the verdict.
    fn conclude(
        &mut self,
        case: &Case<'_>,
        over: Key,
        before: Record,
        sight: Sight,
        tally: Tally,
    ) -> Step<Answer> {
        let change = case.change;
        let mut version = before.version;
        let mut late = None;
        if !tally.writes.is_empty() {
            let mut data = before.data.fields().clone();
            data.extend(tally.writes.clone());
            // What this very change noted on the record meanwhile stays: an open conflict, a later time.
            let noted = self.lookup(&over)?.unwrap_or_else(|| before.clone());
            let after = Record { data: Doc::of(data), ..noted };
            let changed: Vec<String> = tally.writes.keys().cloned().collect();
            self.offset = change.at.and_then(|at| at.offset).unwrap_or(0);
            let by = self.by(case);
            self.supersede(&over, after, &by, &changed);
            if before.contested {
                self.settle_lost(&over, case)?;
            }
            late = self.matched_late(case, &over, &before)?;
            version = self.lookup(&over)?.map_or(version, |r| r.version);
        }
        let verdict = match &tally {
            _ if matches!(late, Some(Late::Joined(_))) => Verdict::Joined,
            _ if matches!(late, Some(Late::Asked(_))) => Verdict::Parked,
            t if !t.parked.is_empty() => Verdict::Parked,
            t if t.writes.is_empty() && t.lost => Verdict::Overruled,
            t if t.writes.is_empty() => Verdict::Unchanged,
            t if t.merged || t.lost || !sight.exact => Verdict::Merged,
            _ => Verdict::Applied,
        };
        let shown = !sight.exact || !matches!(verdict, Verdict::Applied | Verdict::Unchanged);
        let mut conflicts = tally.conflicts;
        conflicts.extend(late.map(Late::conflict));
        let detail = Detail { parked: tally.parked, conflicts, shown };
        Ok(Answer {
            verdict,
            over,
            version,
            detail,
            reason: None,
            relay: self.snap.follows.then(|| change.clone()),
        })
    }

    /// Whether the author of a change had the record before their eyes as it stands.
    pub(crate) fn saw_exactly(&self, case: &Case<'_>, over: &Key, record: &Record) -> bool {
        self.sight(case, over, record).exact
    }

    /// What the author of a change had before their eyes.
    fn sight(&self, case: &Case<'_>, over: &Key, record: &Record) -> Sight {
        let change = case.change;
        let at_desk = self.grant.door == Door::Desk && change.base.is_none() && change.seen.is_none();
        let base = change.base.as_ref().filter(|b| b.epoch == self.snap.epoch && *over == change.key());
        let base = base.map(|b| b.version).filter(|v| *v <= record.version);
        let exact = at_desk || base == Some(record.version);
        Sight { at_desk, base, seen: change.seen.clone(), op: change.op, exact }
    }

    /// A contested group, by its rule.
    fn contest(&mut self, case: &Case<'_>, over: &Key, contest: &Contest<'_>, tally: &mut Tally) -> Step<()> {
        let lead = contest.group.name;
        let base = case.change.seen.as_ref().and_then(|s| s.get(lead));
        let incoming = Contender {
            values: &contest.wanted,
            at: case.at,
            device: &case.change.author.device,
            role: Some(&self.grant.role),
        };
        let server = merge::contender(&contest.there, &contest.mark);
        let outcome = match contest.settled_by_lead() {
            Some(outcome) => outcome,
            None => merge::settle(contest.group.rule, lead, base, server, incoming),
        };
        match outcome {
            Outcome::Park => return self.park(case, over, contest, Kind::Fields, tally),
            Outcome::Both(value) => {
                tally.merged = true;
                if let Some(kept) = loser_of_a_key(contest, &value) {
                    let conflict = self.conflict(case, over, contest, Kind::Fields, Some(kept));
                    tally.conflicts.push(self.open(lead, &conflict, &case.change.author)?);
                }
                if !contest.there.get(lead).is_some_and(|v| merge::same(v, &value)) {
                    tally.writes.insert(lead.to_owned(), value);
                }
            }
            Outcome::Server => {
                tally.lost = true;
                let conflict = self.conflict(case, over, contest, Kind::Fields, Some(Resolution::Server));
                tally.conflicts.push(self.open(lead, &conflict, &case.change.author)?);
            }
            Outcome::Incoming => {
                tally.merged = true;
                if contest.there.values().any(|v| !v.is_null()) {
                    let conflict =
                        self.conflict(case, over, contest, Kind::Fields, Some(Resolution::Incoming));
                    tally.conflicts.push(self.open(lead, &conflict, &case.change.author)?);
                }
                // Companions that belonged to the losing side go with it, where it lost its leading value.
                let led = contest.wanted.contains_key(lead);
                let required = |f: &String| case.rules.fields.get(f).is_some_and(|f| f.required);
                let goes = |f: &&String| led && contest.there.contains_key(*f) && !required(f);
                for field in contest.group.fields.iter().filter(goes) {
                    tally.writes.insert(field.clone(), Value::Null);
                }
                tally.writes.extend(contest.wanted.clone());
            }
        }
        Ok(())
    }

    /// Leaves a group to a person.
    fn park(
        &mut self,
        case: &Case<'_>,
        over: &Key,
        contest: &Contest<'_>,
        kind: Kind,
        tally: &mut Tally,
    ) -> Step<()> {
        let conflict = self.conflict(case, over, contest, kind, None);
        tally.conflicts.push(self.open(contest.group.name, &conflict, &case.change.author)?);
        tally.parked.extend(contest.wanted.keys().cloned());
        Ok(())
    }

    /// A further change while a conflict is open: by the author of the parked side it replaces that side,
    /// by anybody else it is parked beside it.
    fn park_again(
        &mut self,
        case: &Case<'_>,
        over: &Key,
        contest: &Contest<'_>,
        standing: &[(Key, Conflict)],
        tally: &mut Tally,
    ) -> Step<()> {
        let author = &case.change.author;
        let own =
            standing.iter().find(|(_, c)| c.kind == Kind::Fields && same_author(&c.incoming.by, author));
        let Some((key, conflict)) = own else {
            return self.park(case, over, contest, Kind::Fields, tally);
        };
        let mut replaced = conflict.clone();
        replaced.incoming.values.extend(contest.wanted.clone());
        replaced.incoming.at = case.at;
        replaced.incoming.by = author.clone();
        replaced.unmeasured = self.unmeasured;
        for field in contest.wanted.keys().filter(|f| !conflict.fields.contains(f)) {
            replaced.fields.push(field.clone());
            replaced.server.values.extend(contest.there.get(field).map(|v| (field.clone(), v.clone())));
        }
        self.rewrite(key, &replaced, case)?;
        tally.parked.extend(contest.wanted.keys().cloned());
        tally.conflicts.push(key.id.clone());
        Ok(())
    }

    /// The author of a parked side now wants what is there: nothing is left to decide.
    fn withdraw(&mut self, case: &Case<'_>, contest: &Contest<'_>, standing: &[(Key, Conflict)]) -> Step<()> {
        let change = case.change;
        for (key, conflict) in standing {
            let takes_back = contest.wanted.contains_key(contest.group.name)
                || conflict.incoming.values.keys().all(|f| contest.wanted.contains_key(f));
            if !takes_back || !same_author(&conflict.incoming.by, &change.author) {
                continue;
            }
            let mut settled = conflict.clone();
            settled.state = Standing::Resolved;
            settled.resolution = Some(Resolution::Server);
            settled.resolved_by = Some(change.author.clone());
            settled.resolved_at = Some(case.at);
            self.rewrite(key, &settled, case)?;
            self.recount(&conflict.about())?;
        }
        Ok(())
    }

    /// Somebody says what is there already. Under a rule that asks for times theirs counts from now on,
    /// or the order of arrival would decide (I8). No reader has to know.
    fn say_again(&mut self, case: &Case<'_>, over: &Key, contest: &Contest<'_>) -> Step<()> {
        let (rule, lead) = (contest.group.rule, contest.group.name);
        if !contest.group.fields.is_empty() || !matches!(rule, Rule::Latest(_) | Rule::Earliest(_)) {
            return Ok(());
        }
        let Some(record) = self.lookup(over)? else { return Ok(()) };
        let incoming = Contender {
            values: &contest.wanted,
            at: case.at,
            device: &case.change.author.device,
            role: None,
        };
        let server = merge::contender(&contest.there, &contest.mark);
        if merge::settle(rule, lead, None, server, incoming) == Outcome::Incoming {
            let mut marks = record.marks.clone();
            marks.entry(String::new()).or_insert_with(|| record.mark(""));
            let mark =
                Mark { at: case.at, device: case.change.author.device.clone(), ..contest.mark.clone() };
            marks.insert(lead.to_owned(), mark);
            self.touch(over.clone(), Record { marks, ..record }, false);
        }
        Ok(())
    }

    /// Writes the next version of a conflict.
    pub(crate) fn rewrite(&mut self, key: &Key, conflict: &Conflict, case: &Case<'_>) -> Step<()> {
        if let Some(record) = self.lookup(key)? {
            let by = super::work::By { author: &case.change.author, at: case.at, role: None };
            self.supersede(key, Record { data: conflict.write(), ..record }, &by, &["state".to_owned()]);
        }
        Ok(())
    }

    /// Notes anew whether an open conflict names a record.
    pub(crate) fn recount(&mut self, about: &Key) -> Step<()> {
        let open = self.conflicts_of(about)?.iter().any(|(_, c)| c.is_open());
        self.note_contested(about, open)
    }

    /// Does so for several records, each with what its recount asks for, in as few rounds as for one.
    pub(crate) fn recount_each(&mut self, about: &[Key]) -> Step<()> {
        self.foresee(about);
        let counted: Vec<bool> = about.iter().map(|key| self.recount(key).is_ok()).collect();
        if counted.contains(&false) { Err(Missing) } else { Ok(()) }
    }

    /// Asks for records and for what links to them, in one round.
    pub(crate) fn foresee(&mut self, keys: &[Key]) {
        for key in keys {
            let _ = self.lookup(key);
            let _ = self.links_to(key);
        }
    }

    /// At the desk of the node that decides, an open conflict is answered, not typed over.
    fn refuse_at_top(
        &self,
        change: &Change,
        contests: &[Contest<'_>],
        open: &[(Key, Conflict)],
    ) -> Option<Answer> {
        if self.grant.door != Door::Desk || self.snap.follows {
            return None;
        }
        let blocked = contests.iter().filter(|c| !c.changed.is_empty()).find_map(|contest| {
            open.iter()
                .find(|(_, c)| c.fields.iter().any(|f| contest.group.has(f)))
                .map(|(key, _)| (contest, key))
        });
        blocked.map(|(contest, key)| {
            let field = contest.group.name;
            let text =
                format!("`{field}` waits for an answer in the conflict `{}`: resolve that one", key.id);
            Answer::refused(change, Code::ConflictOpen, Some(field), text)
        })
    }

    /// The record of a contest; with a resolution it was settled by its rule at once.
    fn conflict(
        &self,
        case: &Case<'_>,
        over: &Key,
        contest: &Contest<'_>,
        kind: Kind,
        settled: Option<Resolution>,
    ) -> Conflict {
        let change = case.change;
        let person = self.touched.get(over).map(|t| &t.now).or_else(|| self.snap.records.get(over));
        let person =
            person.filter(|r| r.author.device == contest.mark.device).and_then(|r| r.author.person.clone());
        let seen = change.seen.as_ref();
        let base = seen.map(|s| {
            s.iter().filter(|(f, _)| contest.group.has(f)).map(|(f, v)| (f.clone(), v.clone())).collect()
        });
        let named = contest.wanted.keys().chain(contest.there.keys()).cloned();
        let mut fields: Vec<String> = named.collect();
        fields.sort_by_key(|f| (f != contest.group.name, f.clone()));
        fields.dedup();
        Conflict {
            collection: over.collection.clone(),
            record: over.id.clone(),
            other: None,
            lost: None,
            change: change.id.clone(),
            kind,
            fields,
            rule: merge::rule_name(contest.group.rule),
            base,
            server: Side {
                values: contest.there.clone(),
                by: crate::change::Author { device: contest.mark.device.clone(), person },
                at: contest.mark.at,
                deleted: false,
            },
            incoming: Side {
                values: contest.wanted.clone(),
                by: change.author.clone(),
                at: case.at,
                deleted: false,
            },
            state: if settled.is_some() { Standing::Automatic } else { Standing::Open },
            opened_at: self.snap.now,
            unmeasured: self.unmeasured,
            resolution: settled,
            merged: None,
            resolved_by: None,
            resolved_at: settled.map(|_| self.snap.now),
            notes: None,
        }
    }
}

/// What an author had before their eyes when they made a change.
pub(crate) struct Sight {
    /// They stand at this desk and see what is stored.
    at_desk: bool,
    /// The version they saw, where it is one of this node and epoch.
    base: Option<u64>,
    seen: Option<Fields>,
    op: Op,
    /// Whether the record is exactly what they saw.
    pub(crate) exact: bool,
}

impl Sight {
    /// Whether the deciding node changed the group after what the author saw.
    fn contested(&self, contest: &Contest<'_>, record: &Record) -> bool {
        if self.at_desk {
            return false;
        }
        if let Some(base) = self.base {
            let since = |field: &str| record.mark(field).version > base;
            return contest.changed.iter().any(|f| since(f)) || contest.group.fields.iter().any(|f| since(f));
        }
        contest.changed.iter().any(|field| {
            let there = contest.there.get(field);
            let before = match (&self.seen, self.op) {
                (Some(seen), _) => seen.get(field),
                // Whoever creates a record has seen nothing in it.
                (None, _) => None,
            };
            let both_blank = merge::is_blank(before) && merge::is_blank(there);
            !both_blank && !before.zip(there).is_some_and(|(a, b)| merge::same(a, b))
        })
    }
}

impl Contest<'_> {
    /// A group whose leading value counts as not set on one side, or is equal on both, needs no rule.
    fn settled_by_lead(&self) -> Option<Outcome> {
        let lead = self.group.name;
        let (there, wanted) = (self.there.get(lead), self.wanted.get(lead));
        let is_unset = |v: Option<&Value>| match self.group.unset {
            Some(unset) => merge::is_blank(v) || v.is_some_and(|v| merge::same(v, unset)),
            None => false,
        };
        if is_unset(there) && !is_unset(wanted) {
            return Some(Outcome::Incoming);
        }
        if is_unset(wanted) && self.wanted.contains_key(lead) {
            return Some(Outcome::Server);
        }
        let agree = there.zip(wanted).is_some_and(|(a, b)| merge::same(a, b));
        (agree && !self.group.fields.is_empty()).then_some(Outcome::Server)
    }
}

impl GroupOf<'_> {
    /// Whether a field belongs to the group.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.name == field || self.fields.iter().any(|f| f == field)
    }
}

/// Limits and required fields are checked before anything is decided, on everything that could result.
fn would_not_fit(case: &Case<'_>, record: &Record) -> Option<Answer> {
    let mut most = record.data.fields().clone();
    most.extend(case.change.fields.clone());
    lacking(case, &most).or_else(|| too_large(case.change, &Doc::of(most)))
}

fn contests<'a>(case: &Case<'a>, record: &Record) -> Vec<Contest<'a>> {
    let mut groups: BTreeMap<&str, Contest<'a>> = BTreeMap::new();
    for (field, value) in &case.change.fields {
        let group = case.rules.group_of(field);
        let contest = groups.entry(group.name).or_insert_with(|| {
            let members = if group.fields.is_empty() { std::slice::from_ref(field) } else { group.fields };
            let there =
                members.iter().filter_map(|f| record.data.get(f).map(|v| (f.clone(), v.clone()))).collect();
            let marks = members.iter().map(|f| record.mark(f));
            let mark = marks.max_by_key(|m| m.version).unwrap_or_else(|| record.mark(field));
            Contest { group, changed: Vec::new(), there, wanted: Fields::new(), mark }
        });
        let value = match contest.group.rule {
            // Beside the others' totals, so that a total said again is no change.
            Rule::Counter => merge::counter(record.data.get(field), Some(value), &case.change.author.device),
            _ => value.clone(),
        };
        let is_there = record.data.get(field).is_some_and(|there| merge::same(there, &value));
        contest.wanted.insert(field.clone(), value);
        if !is_there {
            contest.changed.push(field.clone());
        }
    }
    groups.into_values().collect()
}

fn take_as_asked(contest: &Contest<'_>, device: &crate::id::DeviceId, tally: &mut Tally) {
    if matches!(contest.group.rule, Rule::Counter) {
        // Only the author device's own total, contested or not: a replay cannot count twice.
        let lead = contest.group.name;
        let (values, mark) = (&contest.there, &contest.mark);
        let incoming = Contender { values: &contest.wanted, at: mark.at, device, role: None };
        if let Outcome::Both(v) =
            merge::settle(&Rule::Counter, lead, None, merge::contender(values, mark), incoming)
        {
            tally.writes.insert(lead.to_owned(), v);
        }
        return;
    }
    for field in &contest.changed {
        tally.writes.extend(contest.wanted.get(field).map(|v| (field.clone(), v.clone())));
    }
}

/// Where each key of a map is settled by itself, a key's losing value would be in no record: whose side
/// lost one.
fn loser_of_a_key(contest: &Contest<'_>, settled: &Value) -> Option<Resolution> {
    if !matches!(contest.group.rule, Rule::PerKey(_)) {
        return None;
    }
    let lost = |side: &Fields| {
        let keys = side.get(contest.group.name).and_then(Value::as_object).into_iter().flatten();
        let mut gone =
            keys.filter(|(key, value)| !settled.get(*key).is_some_and(|now| merge::same(now, value)));
        gone.next().is_some()
    };
    let (ours, theirs) = (lost(&contest.there), lost(&contest.wanted));
    (ours || theirs).then_some(if theirs { Resolution::Server } else { Resolution::Incoming })
}

/// Whether two changes are by the same author: the person where both name one, else the device.
pub(crate) fn same_author(a: &crate::change::Author, b: &crate::change::Author) -> bool {
    match (&a.person, &b.person) {
        (Some(x), Some(y)) => x == y,
        _ => a.device == b.device,
    }
}
