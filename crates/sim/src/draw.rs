//! A seed becomes a story: which nodes there are, who writes what, and what goes wrong.

use crate::{
    chance::Chance,
    ledger::{ELSEWHERE, SHARED, token},
    story::{Act, Crash, Edit, Fault, Kept, Meanwhile, Setting, Story},
    world::profile_of,
};
use ropeway_core::{
    change::Op,
    conflict::Resolution,
    doc::Fields,
    profile::{Field, Kind, Profile, Rules},
};
use serde_json::{Value, json};

const HOUR: u64 = 3_600_000;
const YEAR: i64 = 365 * 24 * 3_600_000;

/// Writes the story of a seed.
///
/// # Panics
/// When the profile of this crate is broken.
#[allow(clippy::expect_used, reason = "the profiles are part of this crate")]
pub fn draw(seed: u64) -> Story {
    let setting = setting(&mut Chance::new(seed, "setting"));
    let shared = shared(&mut Chance::new(seed, "shared"), &setting);
    let setting = Setting { shared, ..setting };
    let profile = profile_of(&setting).expect("the profile reads");
    let mut place = Chance::new(seed, "where");
    let setting = Setting { second: second(&mut place, &setting), ..setting };
    let mut pen = Pen::new(seed, "", &profile, &setting, 0);
    let mut acts = pen.beginning();
    let count = 15 + pen.work.index(45);
    if setting.second.is_empty() {
        acts.extend((0..count).map(|_| pen.act(true)));
        return Story { seed, setting, acts };
    }
    let there = |act| Act::Elsewhere { act: Box::new(act) };
    let scouts = setting.scouts.iter().copied().filter(|node| setting.second.contains(node)).collect();
    let mut other = Pen::new(seed, " elsewhere", &profile, &Setting { scouts, ..setting.clone() }, ELSEWHERE);
    other.nodes.retain(|node| {
        let stands_for = if *node < setting.parents.len() { Some(*node) } else { setting.copied };
        stands_for.is_some_and(|node| setting.second.contains(&node))
    });
    acts.extend(other.beginning().into_iter().map(there));
    for _ in 0..count + 15 {
        if place.happens(45) {
            acts.push(there(other.act(true)));
            continue;
        }
        let mut act = pen.act(true);
        if let Act::Sync { meanwhile: Some(between), .. } = &mut act
            && place.happens(40)
        {
            between.acts.push(there(other.act(false)));
        }
        acts.push(act);
    }
    Story { seed, setting, acts }
}

/// The nodes that have to do with a second space: in one story of five, and then some of them. Where something is
/// shared, in three of five.
fn second(chance: &mut Chance, setting: &Setting) -> Vec<usize> {
    if !chance.happens(if setting.shared.is_empty() { 20 } else { 60 }) {
        return Vec::new();
    }
    let mut second = vec![0];
    for (node, parent) in setting.parents.iter().enumerate() {
        if parent.is_some_and(|parent| second.contains(&parent)) && (node == 1 || chance.happens(70)) {
            second.push(node);
        }
    }
    second
}

/// The nodes whose devices may write what is shared: in one story of four something is, and then most of them may.
fn shared(chance: &mut Chance, setting: &Setting) -> Vec<usize> {
    if setting.profile == "race-logger" || !chance.happens(30) {
        return Vec::new();
    }
    (0..setting.parents.len()).filter(|node| *node == 0 || chance.happens(75)).collect()
}

fn setting(chance: &mut Chance) -> Setting {
    let trees: &[&[Option<usize>]] = &[
        &[None, Some(0)],
        &[None, Some(0), Some(0)],
        &[None, Some(0), Some(1)],
        &[None, Some(0), Some(1), Some(1)],
        &[None, Some(0), Some(0), Some(1), Some(2)],
        &[None, Some(0), Some(0), Some(1), Some(1), Some(2)],
    ];
    let profile = chance.weighted(&[(3, "world"), (1, "race-logger"), (2, "parts")]);
    let parents = chance.one(trees).to_vec();
    let scouts = match profile {
        "world" => Vec::new(),
        "parts" => (1..parents.len()).filter(|_| chance.happens(60)).collect(),
        _ => (1..parents.len()).filter(|_| chance.happens(20)).collect(),
    };
    // Only a machine that nobody follows is copied: a card, a phone.
    let leaf = (0..parents.len()).rev().find(|node| !parents.contains(&Some(*node)));
    Setting {
        copied: leaf.filter(|_| chance.happens(15)),
        scouts,
        profile: profile.into(),
        delete: (*chance.one(&["latest", "delete", "edit", "park"])).into(),
        resolver: chance.weighted(&[(3, "upstream"), (1, "author"), (1, "anyone")]).into(),
        parents,
        batch: chance.weighted(&[(1, 1), (2, 3), (2, 500)]),
        page: chance.weighted(&[(1, 1), (2, 3), (2, 5_000)]),
        kept: Kept {
            horizon_ms: *chance.one(&[HOUR, 8 * HOUR, 180 * 24 * HOUR]),
            tombstones_ms: *chance.one(&[1_000, HOUR / 6]),
        },
        second: Vec::new(),
        shared: Vec::new(),
    }
}

/// What one story does often, seldom or never.
struct Taste {
    collections: Vec<String>,
    pool: usize,
    kinds: Vec<(u64, What)>,
    faults: u64,
    crashes: u64,
    clocks: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Wait,
    Clock,
    Write,
    Push,
    PushAgain,
    Sync,
    Late,
    Answer,
    Discard,
    Retry,
    Restart,
    Subscribe,
    Revoke,
    Rotate,
    Admit,
    Judge,
    Copy,
    Backup,
    Restore,
    PutBack,
    Purge,
}

impl Taste {
    fn new(chance: &mut Chance, profile: &Profile, setting: &Setting) -> Self {
        let copies = setting.copied.is_some();
        let clocks = chance.happens(30);
        let mut some = |often: u64| if chance.happens(60) { often } else { 0 };
        // A copy beside a backup would be two stories in one.
        let backups = if copies { 0 } else { some(4) };
        // Registered anew, a copy would be a device of its own before anybody saw that it is one.
        let revokes = if copies { 0 } else { some(2) / 2 };
        let kinds = vec![
            (8, What::Wait),
            (if clocks { 3 } else { 0 }, What::Clock),
            (30, What::Write),
            (some(10), What::Push),
            (some(3), What::PushAgain),
            (22, What::Sync),
            (some(4), What::Late),
            (some(6), What::Answer),
            (some(2), What::Discard),
            (some(2), What::Retry),
            (some(2), What::Restart),
            (if setting.scouts.is_empty() { 0 } else { 6 }, What::Subscribe),
            (revokes, What::Revoke),
            (revokes, What::Rotate),
            (3 * revokes, What::Admit),
            (2 * revokes, What::Judge),
            (if copies { 4 } else { 0 }, What::Copy),
            (backups, What::Backup),
            (backups / 2, What::Restore),
            (backups / 2, What::PutBack),
            (if profile.has_shared() { 8 } else { some(4) }, What::Purge),
        ];
        let pool = 2 + chance.index(4);
        let faults = *chance.one(&[0, 15, 40]);
        let crashes = *chance.one(&[0, 0, 12]);
        Self { collections: collections(chance, profile), pool, kinds, faults, crashes, clocks }
    }
}

/// Up to four collections, with all that their records must refer to.
fn collections(chance: &mut Chance, profile: &Profile) -> Vec<String> {
    let likely = |name: &&String| match profile.rules(name) {
        Some(rules) => rules.same.is_some() || !rules.groups.is_empty() || !rules.references.is_empty(),
        None => false,
    };
    let rich: Vec<&String> = profile.order.iter().filter(likely).collect();
    let mut wanted: Vec<String> = (0..1 + chance.index(3)).map(|_| (*chance.one(&rich)).clone()).collect();
    if profile.has_shared() {
        wanted.truncate(1);
        wanted.push("reading".into());
        wanted.push(if chance.happens(60) { "label" } else { "shelf" }.into());
    }
    let mut at = 0;
    while at < wanted.len() {
        let rules = profile.rules(&wanted[at]);
        let parents = rules.into_iter().flat_map(|r| r.references.values());
        let needed: Vec<String> = parents.filter(|r| !r.optional).map(|r| r.to.clone()).collect();
        for name in needed {
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        at += 1;
    }
    profile.order.iter().filter(|name| wanted.contains(name)).cloned().collect()
}

/// The names of audiences that a role may choose, with the collection after whose records they are named.
fn audiences(profile: &Profile) -> Vec<(String, String)> {
    let named = |name: &String| {
        let of = profile.rules(name)?.audience.as_ref()?.key.as_ref().filter(|of| of.field.is_none())?;
        let is_chosen = profile.roles.values().any(|role| role.choose.contains(&of.name));
        is_chosen.then(|| (of.name.clone(), name.clone()))
    };
    profile.order.iter().filter_map(named).collect()
}

struct Pen<'a> {
    audiences: Vec<(String, String)>,
    scouts: Vec<usize>,
    /// The top first.
    nodes: Vec<usize>,
    work: Chance,
    net: Chance,
    taste: Taste,
    profile: &'a Profile,
    written: u64,
    /// Whether what is written now is shared among the spaces.
    of_app: bool,
}

impl<'a> Pen<'a> {
    /// A pen with streams of chance of its own; what it writes is told from what others write.
    fn new(seed: u64, name: &str, profile: &'a Profile, setting: &Setting, written: u64) -> Self {
        Self {
            work: Chance::new(seed, &format!("work{name}")),
            net: Chance::new(seed, &format!("net{name}")),
            taste: Taste::new(&mut Chance::new(seed, "taste"), profile, setting),
            audiences: audiences(profile),
            scouts: setting.scouts.clone(),
            nodes: (0..setting.parents.len() + usize::from(setting.copied.is_some())).collect(),
            profile,
            written,
            of_app: false,
        }
    }

    /// Some records at the top, and everybody has them.
    fn beginning(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        for name in self.taste.collections.clone() {
            for number in 0..1 + self.work.index(2) {
                let edit = self.edit_of(&name, number, Op::Create);
                acts.push(Act::Write { node: 0, person: "var".into(), edit, behind: None });
            }
        }
        for node in self.scouts.clone() {
            if self.work.happens(70) {
                acts.push(self.subscribe(node, true));
            }
        }
        if self.work.happens(80) {
            acts.extend(self.nodes[1..].iter().map(|node| self.plain_sync(*node)));
        }
        acts
    }

    fn subscribe(&mut self, node: usize, on: bool) -> Act {
        let (name, of) = self.work.one(&self.audiences).clone();
        let number = self.work.index(self.taste.pool.min(3));
        Act::Subscribe { node, audience: format!("{name}:{of}-{number}"), on }
    }

    fn plain_sync(&self, node: usize) -> Act {
        Act::Sync { node, faults: Vec::new(), meanwhile: None, crash: None }
    }

    fn act(&mut self, outermost: bool) -> Act {
        let node = *self.work.one(&self.nodes);
        let kinds = self.taste.kinds.clone();
        match self.work.weighted(&kinds) {
            What::Wait => Act::Wait { ms: self.pause() },
            What::Clock => Act::Clock { node, wrong_ms: self.wrong() },
            What::Push => {
                let edits = (0..1 + self.work.index(3)).map(|_| self.edit()).collect();
                Act::Push { node, client: self.work.index(2), edits, looks: self.work.happens(60) }
            }
            What::PushAgain => {
                Act::PushAgain { node, client: self.work.index(2), altered: self.work.happens(20) }
            }
            What::Sync if outermost => self.sync(),
            What::Late => Act::Late { node: self.follower(), back: self.net.index(4) },
            What::Answer => {
                use Resolution::*;
                let resolution = *self.work.one(&[Server, Incoming, Merged, Apart, Reopen]);
                let node = if self.work.happens(80) { 0 } else { node };
                Act::Answer { node, which: self.work.index(5), resolution }
            }
            What::Discard => Act::Discard { node: self.follower(), which: self.work.index(4) },
            What::Retry => Act::Retry { node: self.follower() },
            What::Subscribe => {
                let (node, on) = (*self.work.one(&self.scouts), self.work.happens(70));
                self.subscribe(node, on)
            }
            What::Revoke => Act::Revoke { node: self.follower() },
            What::Rotate => Act::Rotate { node: self.follower(), told: self.work.happens(60) },
            What::Admit => Act::Admit { node: self.follower() },
            What::Judge => Act::Judge { node: self.follower(), take: self.work.happens(70) },
            What::Copy if outermost => Act::Copy,
            What::Backup => Act::Backup { node },
            What::Restore => Act::Restore { node, restamp: self.work.happens(20) },
            What::PutBack if outermost => Act::PutBack { node: self.follower() },
            What::Purge => {
                // What is shared is forgotten at the top alone.
                let at_top = self.profile.has_shared() && self.work.happens(60);
                Act::Purge { node: if at_top { 0 } else { node } }
            }
            What::Restart if outermost => Act::Restart { node },
            _ => {
                let behind = self.work.happens(15).then(|| self.work.below(3));
                let person = (*self.work.one(&["ann", "bob"])).into();
                Act::Write { node, person, edit: self.edit(), behind }
            }
        }
    }

    fn follower(&mut self) -> usize {
        *self.work.one(&self.nodes[1..])
    }

    fn sync(&mut self) -> Act {
        let node = self.follower();
        let faults = (0..self.net.index(5)).map(|_| self.fault()).collect();
        let meanwhile = self.net.happens(self.taste.faults / 2).then(|| Meanwhile {
            request: self.net.index(4),
            answered: self.net.happens(50),
            acts: (0..1 + self.work.index(2)).map(|_| self.act(false)).collect(),
        });
        let crash = self.net.happens(self.taste.crashes).then(|| Crash {
            node: *self.net.one(&self.nodes),
            call: self.net.below(12),
            after: self.net.happens(50),
        });
        Act::Sync { node, faults, meanwhile, crash }
    }

    fn fault(&mut self) -> Fault {
        if !self.net.happens(self.taste.faults) {
            return Fault::None;
        }
        let slow = Fault::Slow(1 + self.net.below(5_000));
        let kinds =
            [Fault::LoseRequest, Fault::LoseAnswer, Fault::LoseAnswer, Fault::Twice, Fault::Unwell, slow];
        *self.net.one(&kinds)
    }

    /// From a millisecond to eight hours, short ones as often as long ones.
    fn pause(&mut self) -> u64 {
        let longest = 1 << self.work.index(25);
        (1 + self.work.below(longest)).min(8 * HOUR)
    }

    fn wrong(&mut self) -> i64 {
        if !self.taste.clocks {
            return 0;
        }
        *self.work.one(&[0, 0, YEAR, -YEAR, 3_600_000, -3_600_000, 10_000, -10_000])
    }

    fn edit(&mut self) -> Edit {
        let name = self.work.one(&self.taste.collections).clone();
        let number = self.work.index(self.taste.pool);
        // Of what is shared only this is ever deleted.
        let goes = matches!(name.as_str(), "shelf" | "label");
        let deletes = if goes { 7 } else { 2 };
        let op = self.work.weighted(&[(3, Op::Create), (6, Op::Patch), (deletes, Op::Delete)]);
        self.edit_of(&name, number, op)
    }

    fn edit_of(&mut self, name: &str, number: usize, op: Op) -> Edit {
        let mut fields = Fields::new();
        self.of_app = self.profile.is_shared(name);
        if let Some(rules) = self.profile.rules(name).filter(|_| op != Op::Delete) {
            let wanted = self.named(rules, op);
            for field in wanted {
                let Some(declared) = rules.fields.get(&field) else { continue };
                let value = self.value(rules, &field, declared);
                fields.insert(field, value);
            }
            if self.work.happens(3) {
                fields.insert("extra".into(), self.fresh());
            }
        }
        Edit { collection: name.into(), record: format!("{name}-{number}"), op, fields }
    }

    /// Which fields an edit names.
    fn named(&mut self, rules: &Rules, op: Op) -> Vec<String> {
        let writable = rules.fields.iter().filter(|(_, field)| !field.server_only);
        let all: Vec<String> = writable.map(|(name, _)| name.clone()).collect();
        let mut wanted: Vec<String> =
            (0..1 + self.work.index(3)).map(|_| self.work.one(&all).clone()).collect();
        if op == Op::Create && self.work.happens(90) {
            wanted.extend(all.iter().filter(|name| rules.fields[*name].required).cloned());
        }
        // Half of the time all that makes a fingerprint is there.
        if let Some(same) = rules.same.as_ref().filter(|_| op == Op::Create && self.work.happens(60)) {
            wanted.extend(same.on.iter().map(|on| on.name.clone()));
            wanted.extend(same.within.iter().map(|within| within.field.clone()));
        }
        wanted.sort();
        wanted.dedup();
        wanted
    }

    fn fresh(&mut self) -> Value {
        self.written += 1;
        token(if self.of_app { SHARED + self.written } else { self.written }).into()
    }

    fn value(&mut self, rules: &Rules, name: &str, field: &Field) -> Value {
        if self.work.happens(4) {
            return Value::Null;
        }
        if self.work.happens(1) {
            return json!({"no": ["such", "value"]});
        }
        if rules.audience.as_ref().is_some_and(|audience| audience.subscribes.as_deref() == Some(name)) {
            return format!("node-{}", self.work.one(&self.nodes[1..])).into();
        }
        let matched = rules.same.as_ref().is_some_and(|same| same.on.iter().any(|on| on.name == name));
        if let Some(reference) = rules.references.get(name) {
            let pool = if matched { 2 } else { self.taste.pool };
            return format!("{}-{}", reference.to, self.work.index(pool)).into();
        }
        match &field.kind {
            Kind::Text { .. } | Kind::Json | Kind::Ref => self.fresh(),
            Kind::Int { .. } if matched => (1 + self.work.below(2)).into(),
            Kind::Int { min, max } => {
                self.written += 1;
                let width = max.saturating_sub(*min).clamp(1, 100_000);
                min.max(&0).saturating_add(i64::try_from(self.written).unwrap_or(0) % width).into()
            }
            Kind::Number => self.work.below(100).into(),
            Kind::Bool => self.work.happens(50).into(),
            Kind::Date => format!("2026-02-{:02}", 10 + self.work.below(9)).into(),
            Kind::DateTime => format!("2026-02-14T09:00:{:02}Z", 20 * self.work.below(3)).into(),
            Kind::Enum(words) => self.work.one(words).clone().into(),
            Kind::Object => json!({"of": self.fresh()}),
            Kind::List => json!([self.fresh()]),
            Kind::Map => {
                let key = format!("d{}", self.work.below(2));
                json!({ key: {"of": self.fresh()} })
            }
            Kind::Counter => self.work.below(50).into(),
        }
    }
}
