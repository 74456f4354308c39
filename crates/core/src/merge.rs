//! Room 3e, the rules themselves: one contested field or group, two sides, an outcome. Pure and total.

use crate::{
    doc::Fields,
    id::DeviceId,
    profile::{Rule, Tie},
    record::Mark,
    time::Time,
};
use serde_json::{Map, Number, Value};
use std::cmp::Ordering;

/// One side of a contest over one group, as a rule sees it.
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    /// Values of the group's fields on this side; absent fields are missing.
    pub values: &'a Fields,
    /// When, by the author's corrected clock.
    pub at: Time,
    /// Who.
    pub device: &'a DeviceId,
    /// The role under which it was or would be accepted.
    pub role: Option<&'a str>,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// What is there stays.
    Server,
    /// What comes in replaces it, companions included.
    Incoming,
    /// A value made of both for the leading field; nothing is lost.
    Both(Value),
    /// A person decides.
    Park,
}

/// Asks a rule. `lead` is the group's leading field; `base` is what both sides began from, where known.
pub fn settle(
    rule: &Rule,
    lead: &str,
    base: Option<&Value>,
    server: Contender<'_>,
    incoming: Contender<'_>,
) -> Outcome {
    let (ours, theirs) = (server.values.get(lead), incoming.values.get(lead));
    match rule {
        Rule::Server => Outcome::Server,
        Rule::Incoming => Outcome::Incoming,
        Rule::Park | Rule::Origin => Outcome::Park,
        Rule::Latest(tie) => by_time(server, incoming, *tie, false),
        Rule::Earliest(tie) => by_time(server, incoming, *tie, true),
        Rule::Role(role, tie) => match (server.role == Some(role), incoming.role == Some(role)) {
            (true, true) => by_time(server, incoming, *tie, false),
            (false, true) => Outcome::Incoming,
            _ => Outcome::Server,
        },
        Rule::Ratchet(order) => {
            let rank =
                |v: Option<&Value>| v.and_then(Value::as_str).and_then(|s| order.iter().position(|o| o == s));
            if rank(theirs) > rank(ours) { Outcome::Incoming } else { Outcome::Server }
        }
        Rule::Max => greater(ours, theirs, Ordering::Greater),
        Rule::Min => greater(ours, theirs, Ordering::Less),
        Rule::Union => Outcome::Both(union(base, ours, theirs)),
        Rule::Counter => Outcome::Both(counter(ours, theirs, incoming.device)),
        Rule::PerKey(inner) => per_key(inner, base, server, incoming, ours, theirs),
    }
}

/// Whether two values are the same: canonical spellings are compared (ADR 0007).
pub fn same(a: &Value, b: &Value) -> bool {
    a == b
        || match (a.as_f64(), b.as_f64()) {
            (Some(x), Some(y)) if a.is_f64() || b.is_f64() => x == y,
            _ => false,
        }
}

/// Whether there is nothing in it: absent or null.
pub fn is_blank(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

fn by_time(server: Contender<'_>, incoming: Contender<'_>, tie: Tie, earliest: bool) -> Outcome {
    let order = match earliest {
        false => incoming.at.cmp(&server.at),
        true => server.at.cmp(&incoming.at),
    };
    match order {
        Ordering::Greater => Outcome::Incoming,
        Ordering::Less => Outcome::Server,
        Ordering::Equal => match tie {
            Tie::Incoming => Outcome::Incoming,
            Tie::Server => Outcome::Server,
            // The same two changes give the same record in either order of arrival (I8).
            Tie::Device if rank(incoming) > rank(server) => Outcome::Incoming,
            Tie::Device => Outcome::Server,
        },
    }
}

/// Breaks a tie: by device, then by what it says, so that one device's two changes have an order too.
fn rank(side: Contender<'_>) -> (&DeviceId, &str) {
    (side.device, side.values.text())
}

fn greater(ours: Option<&Value>, theirs: Option<&Value>, wanted: Ordering) -> Outcome {
    let number = |v: Option<&Value>| v.and_then(Value::as_f64);
    // Whole numbers beyond 2^53 differ where their fractions do not.
    let whole = ours.and_then(Value::as_i64).zip(theirs.and_then(Value::as_i64)).map(|(a, b)| b.cmp(&a));
    match (number(ours), number(theirs)) {
        (Some(a), Some(b)) if whole.or_else(|| b.partial_cmp(&a)) == Some(wanted) => Outcome::Incoming,
        (None, Some(_)) => Outcome::Incoming,
        _ => Outcome::Server,
    }
}

/// A set: what is there and what comes in, less what the author took away from what they had seen.
fn union(base: Option<&Value>, ours: Option<&Value>, theirs: Option<&Value>) -> Value {
    let list = |v: Option<&Value>| v.and_then(Value::as_array).cloned().unwrap_or_default();
    let (base, ours, theirs) = (list(base), list(ours), list(theirs));
    let has = |list: &[Value], v: &Value| list.iter().any(|x| same(x, v));
    let mut out: Vec<Value> = Vec::new();
    for value in ours.iter().chain(&theirs) {
        let removed = has(&base, value) && !(has(&ours, value) && has(&theirs, value));
        if !removed && !has(&out, value) {
            out.push(value.clone());
        }
    }
    // One order, whichever side came first (I8).
    out.sort_by_cached_key(Value::to_string);
    Value::Array(out)
}

/// Device → its own total. A change sets the totals of its author's device only, so a replay cannot
/// count twice.
pub(crate) fn counter(ours: Option<&Value>, theirs: Option<&Value>, device: &DeviceId) -> Value {
    let mut totals = ours.and_then(Value::as_object).cloned().unwrap_or_default();
    let own = match theirs {
        Some(Value::Object(map)) => map.get(device.as_str()).cloned(),
        Some(Value::Number(n)) => Some(Value::Number(n.clone())),
        _ => None,
    };
    if let Some(own) = own {
        totals.insert(device.as_str().to_owned(), own);
    }
    Value::Object(totals)
}

/// The totals of two records that are one: each device's own, and of two of one device the greater, so that
/// nothing is counted twice whichever side came first (I8).
pub(crate) fn united(ours: Option<&Value>, theirs: Option<&Value>) -> Value {
    let mut totals = ours.and_then(Value::as_object).cloned().unwrap_or_default();
    for (device, total) in theirs.and_then(Value::as_object).into_iter().flatten() {
        let there = totals.get(device).and_then(Value::as_f64);
        if there.is_none_or(|there| total.as_f64().is_some_and(|total| total > there)) {
            totals.insert(device.clone(), total.clone());
        }
    }
    Value::Object(totals)
}

/// The totals after two records are two again: what the join brought and the device has not changed since is
/// as it was before.
pub(crate) fn parted(now: &Value, brought: &Value, before: Option<&Value>) -> Value {
    let mut totals = now.as_object().cloned().unwrap_or_default();
    for (device, total) in brought.as_object().into_iter().flatten() {
        if totals.get(device).is_some_and(|now| same(now, total)) {
            match before.and_then(|before| before.get(device)) {
                Some(earlier) => totals.insert(device.clone(), earlier.clone()),
                None => totals.remove(device),
            };
        }
    }
    Value::Object(totals)
}

/// The sum of a counter's totals, for people and views.
pub fn counted(value: &Value) -> f64 {
    value.as_object().map_or(0.0, |m| m.values().filter_map(Value::as_f64).sum())
}

fn per_key(
    inner: &Rule,
    base: Option<&Value>,
    server: Contender<'_>,
    incoming: Contender<'_>,
    ours: Option<&Value>,
    theirs: Option<&Value>,
) -> Outcome {
    let empty = Map::new();
    let map = |v: Option<&'_ Value>| v.and_then(Value::as_object).cloned();
    let (base, ours) = (map(base).unwrap_or_default(), map(ours).unwrap_or_default());
    let theirs = map(theirs).unwrap_or_else(|| empty.clone());
    let mut out = ours.clone();
    for (key, value) in &theirs {
        let (there, before) = (ours.get(key), base.get(key));
        let untouched = before.is_some_and(|b| same(b, value));
        if there.is_some_and(|v| same(v, value)) || untouched {
            continue;
        }
        let contested = there.is_some() && !before.zip(there).is_some_and(|(b, s)| same(b, s));
        if !contested {
            out.insert(key.clone(), value.clone());
            continue;
        }
        let at = |v: Option<&Value>, or: Time| {
            let own = v.and_then(|v| v.get("updated_at")).and_then(Value::as_str).and_then(Time::parse);
            own.unwrap_or(or)
        };
        let side =
            |v: Option<&Value>| -> Fields { v.map(|v| (key.clone(), v.clone())).into_iter().collect() };
        let (s, i) = (side(there), side(Some(value)));
        // The field's mark does not say whose this key is: a tie goes by what it says, in any order (I8).
        let s = Contender { values: &s, at: at(there, server.at), device: incoming.device, ..server };
        let i = Contender { values: &i, at: at(Some(value), incoming.at), ..incoming };
        match settle(inner, key, before, s, i) {
            Outcome::Server => {}
            Outcome::Incoming => {
                out.insert(key.clone(), value.clone());
            }
            Outcome::Both(both) => {
                out.insert(key.clone(), both);
            }
            Outcome::Park => return Outcome::Park,
        }
    }
    for key in base.keys().filter(|k| !theirs.contains_key(*k)) {
        // The author took the key away; it goes unless the other side changed it meanwhile.
        if ours.get(key).zip(base.get(key)).is_some_and(|(s, b)| same(s, b)) {
            out.remove(key);
        }
    }
    Outcome::Both(Value::Object(out))
}

/// The name of a rule as the profile writes it.
pub fn rule_name(rule: &Rule) -> String {
    match rule {
        Rule::Server => "server".into(),
        Rule::Incoming => "incoming".into(),
        Rule::Latest(_) => "latest".into(),
        Rule::Earliest(_) => "earliest".into(),
        Rule::Role(role, _) => format!("role(\"{role}\")"),
        Rule::Ratchet(_) => "ratchet".into(),
        Rule::Max => "max".into(),
        Rule::Min => "min".into(),
        Rule::Union => "union".into(),
        Rule::Counter => "counter".into(),
        Rule::PerKey(inner) => format!("per_key({})", rule_name(inner)),
        Rule::Origin => "origin".into(),
        Rule::Park => "park".into(),
    }
}

/// The side that a mark speaks for.
pub fn contender<'a>(values: &'a Fields, mark: &'a Mark) -> Contender<'a> {
    Contender { values, at: mark.at, device: &mark.device, role: mark.role.as_deref() }
}

/// A whole number as a value.
pub fn int(n: i64) -> Value {
    Value::Number(Number::from(n))
}
