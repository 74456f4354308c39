//! Step d, layer 2: two records that are the same by their fingerprint become one, and how that is undone.

use super::{
    Answer, Case,
    sight::Known,
    work::{By, Missing, Step, Work},
};
use crate::{
    conflict::{Conflict, Kind, Resolution, Side, Standing},
    doc::{Doc, Fields},
    id::{Key, RecordId},
    merge::{self, Outcome},
    plan::{APART, Probe},
    profile::{self, GroupOf, Rule, Rules},
    receipt::{Detail, Verdict},
    record::{Record, State},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// A record found to be the same.
pub(crate) enum Twin {
    /// They become one.
    Same(Key),
    /// Both sides have settled a group that only a person may settle: a person says whether they are one.
    Asks(Key),
    /// The other is for readers among whom its author is not: neither is told of the other.
    Hidden(Key),
}

/// What an edit that changed a fingerprint led to, with its conflict.
pub(crate) enum Late {
    /// The two became one.
    Joined(RecordId),
    /// A person is asked.
    Asked(RecordId),
    /// The two are only flagged.
    Flagged(RecordId),
}

impl Late {
    pub(crate) fn conflict(self) -> RecordId {
        match self {
            Self::Joined(id) | Self::Asked(id) | Self::Flagged(id) => id,
        }
    }
}

/// What a join makes of the survivor.
struct Brought {
    /// Values that it takes over from the other record.
    values: Fields,
    /// Fields in which the two differ, for the conflict's record.
    differ: BTreeSet<String>,
    /// A group that both have settled, differently, and that only a person may settle.
    asks: Option<String>,
}

/// The fingerprint of a live record and its corrected time.
pub(crate) fn print(rules: &Rules, record: &Record, offset: i64) -> Option<(String, i64)> {
    if !record.is_live() || rules.same.is_none() {
        return None;
    }
    let (text, at) = profile::print_of(rules, record.data.fields())?;
    let windowed = rules.same.as_ref().is_some_and(|s| s.within.is_some());
    Some((text, if windowed { at.saturating_add(offset) } else { 0 }))
}

impl Work<'_> {
    /// Looks for a live record that is the same: the nearest in time, then the earliest, then the lowest id.
    pub(crate) fn twin(&mut self, key: &Key, rules: &Rules, record: &Record) -> Step<Option<Twin>> {
        let Some((text, at)) = print(rules, record, self.offset) else { return Ok(None) };
        let width = rules.same.as_ref().and_then(|s| s.within.as_ref()).map_or(0, |w| w.micros);
        let probe = Probe {
            collection: key.collection.clone(),
            print: text,
            from: at.saturating_sub(width),
            to: at.saturating_add(width),
        };
        let mut found = self.candidates(&probe)?;
        found.retain(|(other, _)| other != key);
        if found.is_empty() {
            return Ok(None);
        }
        // All that may be asked next is asked for in one round: what is apart, and each candidate.
        let links = self.links_to(key);
        let known: Vec<bool> = found.iter().map(|(other, _)| self.lookup(other).is_ok()).collect();
        let links = links?;
        if known.contains(&false) {
            return Err(Missing);
        }
        let apart: BTreeSet<Key> = links.into_iter().filter(|l| l.field == APART).map(|l| l.child).collect();
        found.retain(|(other, _)| !apart.contains(other));
        found.sort_by_key(|(other, there)| (there.abs_diff(at), *there, other.clone()));
        let Some((nearest, _)) = found.into_iter().next() else { return Ok(None) };
        let survivor = self.lookup(&nearest)?.ok_or(Missing)?;
        if self.known(&nearest, &survivor)? != Known::Now {
            return Ok(Some(Twin::Hidden(nearest)));
        }
        let asks = brought(rules, &survivor, record).asks.is_some();
        Ok(Some(if asks { Twin::Asks(nearest) } else { Twin::Same(nearest) }))
    }

    /// Asks for the candidates of a fingerprint that an edit is about to change, in the round of its other
    /// questions.
    pub(crate) fn foresee_twin(&mut self, key: &Key, case: &Case<'_>, record: &Record, data: &Doc) {
        let after = Record { data: data.clone(), state: State::Live, ..record.clone() };
        let now = print(case.rules, &after, 0);
        if now.is_some() && now != print(case.rules, record, 0) {
            let _ = self.twin(key, case.rules, &after);
        }
    }

    /// Makes one record of two: writes two rows and touches no child. `chosen` are a person's values for
    /// groups that only a person may settle.
    pub(crate) fn join(
        &mut self,
        case: &Case<'_>,
        over: Key,
        joined: Record,
        survivor_key: Key,
        chosen: Option<Fields>,
    ) -> Step<Answer> {
        let change = case.change;
        let survivor = self.lookup(&survivor_key)?.ok_or(Missing)?;
        let mut brought = brought(case.rules, &survivor, &joined);
        let chosen = chosen.unwrap_or_default();
        brought.differ.extend(chosen.keys().cloned());
        brought.values.extend(chosen);
        let by = By { author: &change.author, at: case.at, role: None };
        let id =
            self.write_join(&over, &joined, &survivor_key, &survivor, brought, &by, change.id.clone())?;
        let (there, here) = (self.show_now(&survivor_key, None, &by), self.show_now(&over, None, &by));
        there.and(here)?;
        let version = self.lookup(&over)?.map_or(1, |r| r.version);
        let detail = Detail { parked: Vec::new(), conflicts: vec![id], shown: true };
        Ok(Answer {
            verdict: Verdict::Joined,
            over,
            version,
            detail,
            reason: None,
            relay: Some(change.clone()),
        })
    }

    /// The two rows of a join and its record, from which it can be undone.
    #[allow(clippy::too_many_arguments)] // two records with their names, and who joins them
    fn write_join(
        &mut self,
        over: &Key,
        joined: &Record,
        survivor_key: &Key,
        survivor: &Record,
        brought: Brought,
        by: &By<'_>,
        change: crate::id::ChangeId,
    ) -> Step<RecordId> {
        let before: Fields = brought
            .differ
            .iter()
            .filter_map(|f| survivor.data.get(f).map(|v| (f.clone(), v.clone())))
            .collect();
        if !brought.values.is_empty() {
            let mut data = survivor.data.fields().clone();
            data.extend(brought.values.clone());
            let changed: Vec<String> = brought.values.keys().cloned().collect();
            self.supersede(survivor_key, Record { data: Doc::of(data), ..survivor.clone() }, by, &changed);
        }
        let state = State::Joined(survivor_key.id.clone());
        match self.lookup(over)? {
            Some(there) if there.state != State::Deleted => {
                self.supersede(over, Record { state, ..joined.clone() }, by, &[]);
            }
            // Not here, or a tombstone that only says that it was lost.
            _ => self.insert(over.clone(), Record { state, ..joined.clone() }),
        }
        let conflict = Conflict {
            collection: over.collection.clone(),
            record: over.id.clone(),
            other: Some(survivor_key.id.clone()),
            lost: None,
            change,
            kind: Kind::Join,
            fields: brought.differ.into_iter().collect(),
            rule: "same".into(),
            base: None,
            server: Side {
                values: before,
                by: survivor.author.clone(),
                at: survivor.modified_at,
                deleted: false,
            },
            incoming: Side {
                values: joined.data.fields().clone(),
                by: joined.author.clone(),
                at: joined.modified_at,
                deleted: false,
            },
            state: Standing::Automatic,
            opened_at: self.snap.now,
            unmeasured: self.unmeasured,
            resolution: Some(Resolution::Server),
            merged: Some(brought.values),
            resolved_by: None,
            resolved_at: Some(self.snap.now),
            notes: Some("two records were found to be the same and joined; the earlier one stays".into()),
        };
        self.open("join", &conflict, by.author)
    }

    /// Twins whose decisions differ both stay, and a person says whether they are one (CT-15).
    pub(crate) fn ask_twins(
        &mut self,
        case: &Case<'_>,
        over: Key,
        record: Record,
        twin: Key,
    ) -> Step<Answer> {
        let change = case.change;
        let other = self.lookup(&twin)?.ok_or(Missing)?;
        let differ = brought(case.rules, &other, &record).differ;
        let values = |r: &Record| -> Fields {
            differ.iter().filter_map(|f| r.data.get(f).map(|v| (f.clone(), v.clone()))).collect()
        };
        let conflict = Conflict {
            collection: over.collection.clone(),
            record: over.id.clone(),
            other: Some(twin.id.clone()),
            lost: None,
            change: change.id.clone(),
            kind: Kind::Twins,
            fields: differ.iter().cloned().collect(),
            rule: "same".into(),
            base: None,
            server: Side {
                values: values(&other),
                by: other.author.clone(),
                at: other.modified_at,
                deleted: false,
            },
            incoming: Side {
                values: values(&record),
                by: record.author.clone(),
                at: record.modified_at,
                deleted: false,
            },
            state: Standing::Open,
            opened_at: self.snap.now,
            unmeasured: self.unmeasured,
            resolution: None,
            merged: None,
            resolved_by: None,
            resolved_at: None,
            notes: None,
        };
        if self.lookup(&over)?.is_none() {
            self.insert(over.clone(), record);
        }
        let id = self.open("twins", &conflict, &change.author)?;
        let detail = Detail { parked: Vec::new(), conflicts: vec![id], shown: true };
        let relay = Some(change.clone());
        Ok(Answer {
            verdict: Verdict::Parked,
            over,
            version: self.first_version(),
            detail,
            reason: None,
            relay,
        })
    }

    /// After an edit: a rule's field filled for the first time may join; a correction that makes two
    /// records alike only flags them. Returns the conflict written.
    pub(crate) fn matched_late(
        &mut self,
        case: &Case<'_>,
        over: &Key,
        before: &Record,
    ) -> Step<Option<Late>> {
        let Some(after) = self.lookup(over)? else { return Ok(None) };
        let (now, then) = (print(case.rules, &after, 0), print(case.rules, before, 0));
        if now.is_none() || now == then {
            return Ok(None);
        }
        let Some(found) = self.twin(over, case.rules, &after)? else { return Ok(None) };
        let filled_first = then.is_none() && before.is_live();
        match found {
            Twin::Same(twin) if filled_first => {
                let answer = self.join(case, over.clone(), after, twin, None)?;
                Ok(answer.detail.conflicts.into_iter().next().map(Late::Joined))
            }
            Twin::Asks(twin) if filled_first => {
                let answer = self.ask_twins(case, over.clone(), after, twin)?;
                Ok(answer.detail.conflicts.into_iter().next().map(Late::Asked))
            }
            Twin::Hidden(twin) => self.flag_alike(case, over, &after, &twin).map(|_| None),
            Twin::Same(twin) | Twin::Asks(twin) => {
                self.flag_alike(case, over, &after, &twin).map(|id| Some(Late::Flagged(id)))
            }
        }
    }

    /// Flags two records that are the same, of which whoever wrote the one may not know of the other: only
    /// those who see both find out (I5).
    pub(crate) fn flag_hidden(&mut self, case: &Case<'_>, over: &Key, twin: &Key) -> Step<()> {
        let Some(record) = self.lookup(over)? else { return Ok(()) };
        self.flag_alike(case, over, &record, twin).map(drop)
    }

    /// Flags a record that somebody's word made alike with another; it joins nothing.
    pub(crate) fn flag_likeness(&mut self, case: &Case<'_>, over: &Key, before: &Record) -> Step<()> {
        let Some(after) = self.lookup(over)? else { return Ok(()) };
        let now = print(case.rules, &after, 0);
        if now.is_none() || now == print(case.rules, before, 0) {
            return Ok(());
        }
        if let Some(Twin::Same(twin) | Twin::Asks(twin) | Twin::Hidden(twin)) =
            self.twin(over, case.rules, &after)?
        {
            self.flag_alike(case, over, &after, &twin)?;
        }
        Ok(())
    }

    fn flag_alike(&mut self, case: &Case<'_>, over: &Key, record: &Record, twin: &Key) -> Step<RecordId> {
        let other = self.lookup(twin)?.ok_or(Missing)?;
        let side = |r: &Record| Side {
            values: r.data.fields().clone(),
            by: r.author.clone(),
            at: r.modified_at,
            deleted: false,
        };
        let conflict = Conflict {
            collection: over.collection.clone(),
            record: over.id.clone(),
            other: Some(twin.id.clone()),
            lost: None,
            change: case.change.id.clone(),
            kind: Kind::Alike,
            fields: case.rules.same.iter().flat_map(|s| &s.on).map(|f| f.name.clone()).collect(),
            rule: "same".into(),
            base: None,
            server: side(&other),
            incoming: side(record),
            state: Standing::Automatic,
            opened_at: self.snap.now,
            unmeasured: self.unmeasured,
            resolution: None,
            merged: None,
            resolved_by: None,
            resolved_at: None,
            notes: Some("a correction made these two records alike; both stay".into()),
        };
        self.open("alike", &conflict, &case.change.author)
    }

    /// Undoes a join: the joined record lives again, and the survivor gives back those values that the
    /// join brought and nobody has changed since. The pair is remembered as apart.
    pub(crate) fn undo_join(&mut self, conflict: &Conflict, by: &By<'_>) -> Step<Result<(), String>> {
        let joined_key = conflict.about();
        let Some(other) = &conflict.other else {
            return Ok(Err("the conflict names no other record".into()));
        };
        let survivor_key = Key::new(&conflict.collection, other);
        let Some(joined) = self.lookup(&joined_key)? else { return Ok(Err(format!("{joined_key} is gone"))) };
        if joined.state != State::Joined(other.clone()) {
            return Ok(Err(format!("{joined_key} is no longer joined into {survivor_key}")));
        }
        if let (Some(survivor), Some(brought)) = (self.lookup(&survivor_key)?, &conflict.merged) {
            let mut data = survivor.data.fields().clone();
            let mut changed = Vec::new();
            let rules = self.profile.rules(&conflict.collection);
            for (field, value) in brought {
                let earlier = conflict.server.values.get(field);
                let is_counter = rules.is_some_and(|r| matches!(r.group_of(field).rule, Rule::Counter));
                if let Some(now) = data.get(field).filter(|_| is_counter) {
                    let totals = merge::parted(now, value, earlier);
                    if !merge::same(now, &totals) {
                        data.insert(field.clone(), totals);
                        changed.push(field.clone());
                    }
                    continue;
                }
                if !data.get(field).is_some_and(|now| merge::same(now, value)) {
                    continue;
                }
                match earlier {
                    Some(earlier) => data.insert(field.clone(), earlier.clone()),
                    None => data.remove(field),
                };
                changed.push(field.clone());
            }
            if !changed.is_empty() {
                self.supersede(&survivor_key, Record { data: Doc::of(data), ..survivor }, by, &changed);
            }
        }
        self.supersede(&joined_key, Record { state: State::Live, ..joined }, by, &[]);
        self.show_now(&survivor_key, None, by)?;
        self.show_now(&joined_key, None, by)?;
        self.set_apart(&joined_key, &survivor_key);
        Ok(Ok(()))
    }

    /// Remembers that two records are two, in both directions.
    pub(crate) fn set_apart(&mut self, a: &Key, b: &Key) {
        for (parent, child) in [(a, b), (b, a)] {
            self.links.insert(crate::plan::Link {
                parent: parent.clone(),
                child: child.clone(),
                field: APART.into(),
            });
        }
    }
}

/// Compares a record with the one that it may be joined into, group by group.
fn brought(rules: &Rules, survivor: &Record, joined: &Record) -> Brought {
    let mut out = Brought { values: Fields::new(), differ: BTreeSet::new(), asks: None };
    let same = rules.same.as_ref();
    let is_print = |f: &str| {
        same.is_some_and(|s| {
            s.on.iter().any(|o| o.name == f) || s.within.as_ref().is_some_and(|w| w.field == f)
        })
    };
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (field, value) in joined.data.fields() {
        let there = survivor.data.get(field);
        if is_print(field) || value.is_null() || there.is_some_and(|t| merge::same(t, value)) {
            continue;
        }
        let group = rules.group_of(field);
        out.differ.insert(field.clone());
        if !seen.insert(group.name) {
            continue;
        }
        bring_group(group, field, survivor, joined, &mut out);
    }
    out
}

/// One differing group: what the survivor takes over.
fn bring_group(group: GroupOf<'_>, field: &str, survivor: &Record, joined: &Record, out: &mut Brought) {
    let lone = [field.to_owned()];
    let members: &[String] = if group.fields.is_empty() { &lone } else { group.fields };
    let values = |r: &Record| -> Fields {
        members.iter().filter_map(|f| r.data.get(f).map(|v| (f.clone(), v.clone()))).collect()
    };
    let (ours, theirs) = (values(survivor), values(joined));
    let lead = &members[0];
    let unset = |v: Option<&Value>| {
        merge::is_blank(v) || group.unset.zip(v).is_some_and(|(unset, v)| merge::same(unset, v))
    };
    if unset(theirs.get(lead)) {
        return;
    }
    if unset(ours.get(lead)) {
        out.differ.extend(theirs.keys().cloned());
        out.values.extend(theirs);
        return;
    }
    if ours.get(lead).zip(theirs.get(lead)).is_some_and(|(a, b)| merge::same(a, b)) {
        return;
    }
    if matches!(group.rule, Rule::Counter) {
        out.values.insert(lead.clone(), merge::united(ours.get(lead), theirs.get(lead)));
        return;
    }
    let declared_park = matches!(group.rule, Rule::Park) && !group.fields.is_empty();
    if declared_park {
        out.asks = Some(lead.clone());
        return;
    }
    let combines = matches!(
        group.rule,
        Rule::Ratchet(_)
            | Rule::Max
            | Rule::Min
            | Rule::Union
            | Rule::PerKey(_)
            | Rule::Latest(_)
            | Rule::Earliest(_)
    );
    if !combines {
        return;
    }
    let (our_mark, their_mark) = (survivor.mark(lead), joined.mark(lead));
    let server = merge::contender(&ours, &our_mark);
    let incoming = merge::contender(&theirs, &their_mark);
    match merge::settle(group.rule, lead, None, server, incoming) {
        Outcome::Incoming => {
            out.differ.extend(theirs.keys().cloned());
            out.values.extend(theirs);
        }
        Outcome::Both(value) => {
            out.values.insert(lead.clone(), value);
        }
        Outcome::Server | Outcome::Park => {}
    }
}
