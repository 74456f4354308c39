//! The whole profile language, as its reference shows it: every example of `docs/profile.md` together is
//! one profile, and it means what the page says.

use proptest::prelude::*;
use ropeway_core::profile::{
    DeleteRule, Kind, OnDelete, Profile, Reference, Resolver, Role, Rule, SameField, Sees, StaleReplace, Tie,
    Within, Writes, parse,
};
use serde_json::json;
use std::time::Duration;

/// The `toml` blocks of the page, one after the other.
fn examples() -> String {
    let page = include_str!("../../../docs/profile.md");
    let mut source = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```toml" => inside = true,
            "```" => inside = false,
            line if inside => {
                source.push_str(line);
                source.push('\n');
            }
            _ => {}
        }
    }
    source
}

fn profile() -> Profile {
    parse(&examples(), "docs/profile.md").unwrap_or_else(|mistakes| {
        let told: String = mistakes.iter().map(|m| format!("{m}\n")).collect();
        panic!("{told}")
    })
}

fn reference(to: &str, optional: bool, on_delete: OnDelete) -> Reference {
    Reference { to: to.into(), optional, on_delete }
}

#[test]
fn the_head_of_the_reference_compiles() {
    let p = profile();
    assert_eq!((p.name.as_str(), p.version, p.resolver), ("huts", 3, Resolver::Upstream));
    assert_eq!(p.sync_every, Duration::from_secs(300));
    assert_eq!(p.retry.delays, [30, 300, 3_600, 172_800].map(Duration::from_secs));
    assert_eq!((p.views.id.as_str(), p.views.local_id.as_str()), ("uuid", "id"));
    assert_eq!(p.views.reference, "{}_uuid");
    let keeper = &p.roles["keeper"];
    assert_eq!((keeper.sees, &keeper.choose[..]), (Sees::Subscribed, &["hut".to_owned()][..]));
    assert!(p.has_audiences() && p.may_choose("keeper", "hut:7") && !p.may_choose("keeper", "room:7"));
    let shift = p.collections["shift"].audience.as_ref().unwrap();
    assert_eq!((&shift.from[..], shift.subscribes.as_deref()), (&["hut".to_owned()][..], Some("device")));
    assert_eq!(p.collections["guest"].audience, None);
    let clerk = Writes::Only(vec!["booking".into(), "guest".into(), "stock".into()]);
    assert_eq!(
        p.roles["warden"],
        Role { write: Writes::All, resolve: true, sees: Sees::All, choose: vec![] }
    );
    assert_eq!(p.roles["clerk"], Role { write: clerk, resolve: false, sees: Sees::All, choose: vec![] });
    assert_eq!(
        p.roles["visitor"],
        Role { write: Writes::Only(vec![]), resolve: false, sees: Sees::All, choose: vec![] }
    );
    let shared: Vec<&str> = p.order.iter().map(String::as_str).filter(|name| p.is_shared(name)).collect();
    assert_eq!((shared, p.has_shared()), (vec!["dish"], true));
    let roles: Vec<&str> = p.roles.keys().map(String::as_str).collect();
    let writers = |of: &str| roles.iter().filter(|role| p.may_write(role, of)).copied().collect::<Vec<_>>();
    assert_eq!((writers("dish"), writers("order_line")), (vec!["office"], vec!["warden"]));
    assert_eq!(
        p.order,
        ["hut", "room", "guest", "booking", "dish", "order_line", "locker", "shift", "stock"]
    );
}

#[test]
fn the_collections_of_the_reference_compile() {
    let p = profile();
    let hut = &p.collections["hut"];
    assert_eq!((hut.merge.clone(), hut.delete), (Rule::Origin, DeleteRule::Park));
    assert_eq!(hut.table.as_deref(), Some("huts"));
    let room = &p.collections["room"];
    assert_eq!(room.references["hut"], reference("hut", false, OnDelete::Cascade));
    assert_eq!(room.references["annexe_of"], reference("room", true, OnDelete::Release));
    let booking = &p.collections["booking"];
    assert_eq!(booking.references["guest"], reference("guest", true, OnDelete::Refuse));
    assert!(booking.fields["room"].required && booking.fields["room"].kind == Kind::Ref);
    assert!(!booking.fields["guest"].required);
    assert_eq!(booking.merge, Rule::Latest(Tie::Server));
    assert_eq!((booking.delete, booking.stale_replace), (DeleteRule::Latest, StaleReplace::Whole));
    let on = |name: &str, optional| SameField { name: name.into(), optional };
    let same = booking.same.as_ref().unwrap();
    assert_eq!(same.on, [on("room", false), on("name", false), on("guest", true)]);
    assert_eq!(same.within, Some(Within { field: "arrives_at".into(), micros: 3_600_000_000 }));
    let groups: Vec<_> = booking.groups.iter().map(|g| (g.fields.len(), &g.rule, &g.unset)).collect();
    let ratchet = Rule::Ratchet(vec!["asked".into(), "confirmed".into(), "arrived".into()]);
    assert_eq!(groups, [(2, &ratchet, &None), (2, &Rule::Park, &Some(json!("open")))]);
}

#[test]
fn the_fields_of_the_reference_compile() {
    let p = profile();
    let hut = |name: &str| p.collections["hut"].fields[name].clone();
    assert_eq!((hut("name").kind, hut("name").required), (Kind::Text { max: 10_000 }, true));
    assert_eq!((hut("notes").kind, hut("notes").required), (Kind::Text { max: 500 }, false));
    assert_eq!(hut("beds").kind, Kind::Int { min: 0, max: 400 });
    assert_eq!(hut("altitude").kind, Kind::Int { min: i64::MIN, max: i64::MAX });
    assert_eq!((hut("licence").server_only, hut("licence").required), (true, false));
    assert_eq!(hut("open").default, Some(json!(true)));
    assert_eq!(hut("season").kind, Kind::Enum(vec!["summer".into(), "winter".into(), "both".into()]));
    let stock = |name: &str| p.collections["stock"].fields[name].merge.clone();
    assert_eq!(stock("level"), Some(Rule::Max));
    assert_eq!(stock("cheapest"), Some(Rule::Min));
    assert_eq!(stock("labels"), Some(Rule::Union));
    assert_eq!(stock("used"), Some(Rule::Counter), "a counter needs no rule");
    assert_eq!(stock("by_day"), Some(Rule::PerKey(Box::new(Rule::Latest(Tie::Incoming)))));
    assert_eq!(stock("price"), Some(Rule::Role("warden".into(), Tie::Device)));
    let states = ["full", "low", "empty"].map(str::to_owned).to_vec();
    assert_eq!(stock("state"), Some(Rule::Ratchet(states)), "the order of an enum is that of its values");
    assert_eq!(stock("first_seen"), Some(Rule::Earliest(Tie::Device)));
    assert_eq!(stock("supplier"), Some(Rule::Server));
    assert_eq!(stock("remark"), Some(Rule::Incoming));
}

#[test]
fn what_a_profile_leaves_out_is_careful() {
    let p = parse("name = \"x\"\nroles.a = { write = \"*\", resolve = true }\ncollections.b = {}\n", "x")
        .unwrap();
    assert_eq!((p.version, p.resolver, p.sync_every), (1, Resolver::Upstream, Duration::from_secs(300)));
    assert_eq!(p.retry.delays, [60, 300, 900, 3_600, 21_600].map(Duration::from_secs));
    assert_eq!(
        (p.views.id.as_str(), p.views.local_id.as_str(), p.views.reference.as_str()),
        ("id", "local_id", "{}")
    );
    let b = &p.collections["b"];
    assert_eq!((&b.merge, b.delete, b.stale_replace), (&Rule::Park, DeleteRule::Park, StaleReplace::Diff));
    assert_eq!((&b.table, b.same.is_none()), (&None, true));
}

#[test]
fn optional_references_give_way_where_a_circle_leaves_no_order() {
    let source = "name = \"x\"\nroles.a = { write = \"*\", resolve = true }\n\
        [collections.child]\nreferences = { parent = \"parent\", other = \"other?\" }\n\
        [collections.other]\nreferences = { child = \"child?\", up = \"other?\" }\n\
        [collections.parent]\nreferences = { favourite = \"child?\" }\n";
    assert_eq!(parse(source, "x").unwrap().order, ["other", "parent", "child"]);
}

proptest! {
    /// Whatever stands in the file, it is answered: with a profile, or with mistakes that lie in it.
    #[test]
    fn a_damaged_profile_is_told_and_never_worse(
        at in 0_usize..8_000, len in 0_usize..40, with in "[a-z0-9\\[\\]{}=\"'.,?!\\n é-]{0,12}",
    ) {
        let whole: Vec<char> = examples().chars().collect();
        let (at, end) = (at.min(whole.len()), (at + len).min(whole.len()));
        let damaged: String = whole[..at].iter().copied().chain(with.chars()).chain(whole[end..].iter().copied()).collect();
        if let Err(mistakes) = parse(&damaged, "app.toml") {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.is_sorted_by_key(|m| (m.line, m.column)));
            for m in mistakes {
                let line = damaged.split('\n').nth(m.line - 1);
                prop_assert!(line.is_some_and(|l| m.column <= l.chars().count() + 1), "{}", m);
            }
        }
    }
}
