//! Values at the door: one spelling each (ADR 0007), and what a fingerprint takes for the same.

use proptest::prelude::*;
use ropeway_core::{
    doc::Fields,
    limits,
    profile::{Kind, Rules, admit, normalise, parse, print_of, same_text},
};
use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

const INT: Kind = Kind::Int { min: i64::MIN, max: i64::MAX };
const BIB: Kind = Kind::Int { min: 1, max: 9999 };
const TEXT: Kind = Kind::Text { max: 5 };

fn words() -> Kind {
    Kind::Enum(vec!["open".into(), "closed".into()])
}

#[test]
fn values_get_their_one_spelling() {
    let cases = [
        (INT, json!(42), json!(42)),
        (INT, json!(42.0), json!(42)),
        (INT, json!("42"), json!(42)),
        (INT, json!("-7"), json!(-7)),
        (INT, json!("042"), json!(42)),
        (INT, json!(i64::MIN), json!(i64::MIN)),
        (INT, json!("9223372036854775807"), json!(i64::MAX)),
        (Kind::Number, json!(1.0), json!(1)),
        (Kind::Number, json!(-0.0), json!(0)),
        (Kind::Number, json!(2.5), json!(2.5)),
        (Kind::Number, json!("18500.00"), json!(18500)),
        (Kind::Number, json!("4210.50"), json!(4210.5)),
        (Kind::Number, json!("-22.41123400"), json!(-22.411234)),
        (Kind::Number, json!(1e19), json!(1e19)),
        (Kind::Number, json!(10_000_000_000_000_000_000_u64), json!(1e19)),
        (Kind::Bool, json!(true), json!(true)),
        (Kind::Date, json!("2026-02-14"), json!("2026-02-14")),
        (Kind::DateTime, json!("2026-02-14T10:41:29Z"), json!("2026-02-14T10:41:29Z")),
        (Kind::DateTime, json!("2026-02-14T11:41:29.000+01:00"), json!("2026-02-14T10:41:29Z")),
        (Kind::DateTime, json!("2026-02-14 10:41:29Z"), json!("2026-02-14T10:41:29Z")),
        (Kind::DateTime, json!("2026-02-14T10:41:29.1234567Z"), json!("2026-02-14T10:41:29.123456Z")),
        (words(), json!("open"), json!("open")),
        (TEXT, json!("né  e"), json!("né  e")),
        (
            Kind::Ref,
            json!("01984F10-0000-7000-8000-000000000127"),
            json!("01984f10-0000-7000-8000-000000000127"),
        ),
        (Kind::Ref, json!("Incident-123"), json!("Incident-123")),
        (Kind::Object, json!({"b": [1.0], "a": null}), json!({"a": null, "b": [1]})),
        (Kind::Map, json!({"mon": 1.0}), json!({"mon": 1})),
        (Kind::List, json!([2.0, 1, 2]), json!([2, 1, 2])),
        (Kind::Counter, json!({"pi-start": 3.0}), json!({"pi-start": 3})),
        (Kind::Json, json!([{"x": 1.0}]), json!([{"x": 1}])),
        (Kind::Bool, Value::Null, Value::Null),
    ];
    for (kind, given, wanted) in cases {
        let normal = kind.normalise(&given).unwrap_or_else(|why| panic!("{kind:?} {given}: {why}"));
        assert_eq!(normal.to_string(), wanted.to_string(), "{kind:?} {given}");
    }
}

#[test]
fn other_values_are_refused_with_a_reason() {
    let long = "x".repeat(500);
    let cut = format!("a date, written YYYY-MM-DD, is expected, not \"{}…\"", "x".repeat(59));
    let cases = [
        (INT, json!(1.5), "a whole number is expected, not 1.5"),
        (INT, json!(u64::MAX), "a whole number is expected, not 18446744073709551615"),
        (INT, json!(9_007_199_254_740_992.0), "a whole number is expected, not 9007199254740992.0"),
        (INT, json!("9223372036854775808"), "a whole number is expected, not \"9223372036854775808\""),
        (INT, json!("4 2"), "a whole number is expected, not \"4 2\""),
        (INT, json!(""), "a whole number is expected, not \"\""),
        (INT, json!("+1"), "a whole number is expected, not \"+1\""),
        (INT, json!([1]), "a whole number is expected, not a list"),
        (BIB, json!(0), "a whole number from 1 to 9999 is expected, not 0"),
        (BIB, json!("10000"), "a whole number from 1 to 9999 is expected, not \"10000\""),
        (Kind::Int { min: 0, max: i64::MAX }, json!(-1), "a whole number of at least 0 is expected, not -1"),
        (Kind::Number, json!("1e3"), "a number of at most 15 digits is expected, not \"1e3\""),
        (
            Kind::Number,
            json!("0.12345678901234567"),
            "a number of at most 15 digits is expected, not \"0.12345678901234567\"",
        ),
        (Kind::Number, json!(true), "a number is expected, not true"),
        (Kind::Bool, json!(1), "true or false is expected, not 1"),
        (Kind::Bool, json!("true"), "true or false is expected, not \"true\""),
        (Kind::Date, json!("2026-02-30"), "a date, written YYYY-MM-DD, is expected, not \"2026-02-30\""),
        (Kind::Date, json!("20260214"), "a date, written YYYY-MM-DD, is expected, not \"20260214\""),
        (Kind::Date, json!("0000-01-01"), "a date, written YYYY-MM-DD, is expected, not \"0000-01-01\""),
        (Kind::Date, json!(long), cut.as_str()),
        (
            Kind::DateTime,
            json!("2026-02-14T10:41:29"),
            "an instant with its offset, such as 2026-02-14T10:41:29Z, is expected, not \"2026-02-14T10:41:29\"",
        ),
        (
            Kind::DateTime,
            json!(1_771_065_689),
            "an instant with its offset, such as 2026-02-14T10:41:29Z, is expected, not 1771065689",
        ),
        (words(), json!("Open"), "one of open, closed is expected, not \"Open\""),
        (words(), json!({}), "one of open, closed is expected, not an object"),
        (TEXT, json!("ééééééé"), "a text of at most 5 characters is expected, not of 7"),
        (TEXT, json!("a\0b"), "a text may not hold the character NUL"),
        (TEXT, json!(42), "a text is expected, not 42"),
        (Kind::Ref, json!(12), "a record's id is expected, not 12"),
        (
            Kind::Ref,
            json!("a b"),
            "a record's id is expected, but the record id must be 1–128 characters of A–Z, a–z, 0–9 . _ : -",
        ),
        (Kind::Object, json!([]), "an object is expected, not a list"),
        (Kind::Map, json!("x"), "an object, read as a map, is expected, not \"x\""),
        (Kind::List, json!({}), "a list is expected, not an object"),
        (Kind::Counter, json!(3), "an object of totals by device is expected, not 3"),
        (Kind::Counter, json!({"pi": "3"}), "a number as each device's total is expected, not \"3\""),
        (Kind::Json, json!({"a\0": 1}), "a text may not hold the character NUL"),
        (Kind::Json, nested(33), "lists and objects may be nested 32 deep at most"),
    ];
    for (kind, given, why) in cases {
        assert_eq!(kind.normalise(&given), Err(why.to_owned()), "{kind:?} {given}");
    }
    assert!(Kind::Json.normalise(&nested(limits::JSON_DEPTH_MAX)).is_ok());
}

/// `depth` lists within each other.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(0), |inner, _| json!([inner]))
}

fn rules(collection: &str) -> Rules {
    let source = format!(
        "name = \"app\"\nroles.boss = {{ write = \"*\", resolve = true }}\n[collections.place]\n{collection}"
    );
    let profile = parse(&source, "app.toml").unwrap_or_else(|m| panic!("{m:?}"));
    profile.collections.values().find(|r| r.name == "note").expect("the note").clone()
}

const NOTE: &str = r#"
[collections.note]
references = { place = "place?" }
[collections.note.fields]
title = { type = "text!", max = 2000 }
bib = "int"
size = "number"
at = "datetime"
tags = { type = "list", merge = "union" }
[collections.note.same]
on = ["title", "size?", "place?"]
within = { field = "at", seconds = 30 }
"#;

fn fields(value: Value) -> Fields {
    serde_json::from_value(value).expect("an object")
}

#[test]
fn known_fields_are_typed_and_unknown_ones_kept() {
    let rules = rules(NOTE);
    let given = json!({"title": "Öse", "bib": "7", "place": null, "x y": [1.0, {"b": 2.0}], "é": "1.0",
        "tags": ["b", "a", "b", 1.0, 1]});
    let wanted = json!({"title": "Öse", "bib": 7, "place": null, "x y": [1, {"b": 2}], "é": "1.0",
        "tags": ["a", "b", 1]});
    assert_eq!(admit(&rules, fields(given)), Ok(fields(wanted)));
}

#[test]
fn a_change_is_refused_with_the_field_and_the_reason() {
    let rules = rules(NOTE);
    let control = "a\nb".to_owned();
    let long = "x".repeat(129);
    let shown = format!("{}…", "x".repeat(59));
    let cases: [(String, Value, &str, &str); 5] = [
        ("title".into(), Value::Null, "title", "a value is required here, not null"),
        ("bib".into(), json!("x"), "bib", "a whole number is expected, not \"x\""),
        (String::new(), json!(1), "", "the name of a field may not be empty"),
        (control.clone(), json!(1), &control, "the name of a field may not hold control characters"),
        (long, json!(1), &shown, "the name of a field may have at most 128 bytes, not 129"),
    ];
    for (name, value, field, why) in cases {
        let refused = admit(&rules, Fields::from([(name, value)]));
        assert_eq!(refused, Err((field.to_owned(), why.to_owned())));
    }
    let many: Fields = (0..=limits::FIELDS_MAX).map(|i| (format!("f{i}"), json!(i))).collect();
    assert_eq!(
        admit(&rules, many),
        Err((String::new(), "at most 512 fields are allowed, not 513".to_owned()))
    );
}

#[test]
fn a_default_has_its_one_spelling_too() {
    let rules = rules(
        "[collections.note.fields]\n\
         tags = { type = \"list\", merge = \"union\", default = [\"b\", \"a\", \"b\"] }\n\
         at = { type = \"datetime\", default = 2026-02-14T11:41:29+01:00 }\n\
         day = { type = \"date\", default = 2026-02-14 }\n\
         size = { type = \"number\", default = 1.0 }\n",
    );
    let wanted = json!({"tags": ["a", "b"], "at": "2026-02-14T10:41:29Z", "day": "2026-02-14", "size": 1});
    assert_eq!(rules.with_defaults(Fields::new()), fields(wanted));
}

#[test]
fn texts_that_read_the_same_are_the_same() {
    for (a, b) in [
        ("Léa  Pralong ", "le\u{301}a pralong"),
        ("STRASSE", "Straße"),
        ("ΟΔΟΣ", "οδος"),
        ("a\u{a0}b\t\nc", "A B C"),
        ("ﬁnish", "FINISH"),
    ] {
        assert_eq!(same_text(a), same_text(b), "{a:?} {b:?}");
    }
    for (a, b) in [("Lea", "Léa"), ("ab", "a b"), ("42", "42.0")] {
        assert_ne!(same_text(a), same_text(b), "{a:?} {b:?}");
    }
}

#[test]
fn a_print_is_unambiguous_and_missing_parts_match_nothing() {
    let rules = rules(NOTE);
    let print = |value: Value| print_of(&rules, &fields(value));
    let at = "2026-02-15T10:32:15Z";
    let (text, time) = print(json!({"title": " Ab\"C ", "size": 1.0, "at": at})).unwrap();
    assert_eq!((text.as_str(), time), (r#"["ab\"c",1,null]"#, 1_771_151_535_000_000));
    for missing in [
        json!({"title": null, "at": at}),
        json!({"title": "  ", "at": at}),
        json!({"at": at}),
        json!({"title": "x"}),
        json!({"title": "x", "at": null}),
        json!({"title": "x", "at": "yesterday"}),
    ] {
        assert_eq!(print(missing.clone()), None, "{missing}");
    }
    let null_text = print(json!({"title": "x", "size": "null", "at": at}));
    assert_ne!(null_text, print(json!({"title": "x", "at": at})), "a text null is not an absent value");
    let plain = without_window();
    assert_eq!(print_of(&plain, &fields(json!({"title": "X"}))), Some((r#"["x"]"#.to_owned(), 0)));
}

/// A rule `same` without a window.
fn without_window() -> Rules {
    rules("[collections.note]\nfields = { title = \"text\" }\nsame = { on = [\"title\"] }\n")
}

/// Any JSON value, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-1e6_f64..1e6).prop_map(|x| Value::from(x.round())),
        ".{0,12}".prop_map(Value::from),
        "-?[0-9]{1,20}(\\.[0-9]{1,20})?".prop_map(Value::from),
        "[0-9]{4}-[01][0-9]-[0-3][0-9]".prop_map(Value::from),
        "[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5]0)"
            .prop_map(Value::from),
        "[0-9A-Fa-f]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-zé-]{1,4}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Text { max: 8 }),
        Just(INT),
        Just(BIB),
        Just(Kind::Number),
        Just(Kind::Bool),
        Just(Kind::Date),
        Just(Kind::DateTime),
        Just(Kind::Ref),
        Just(Kind::Object),
        Just(Kind::List),
        Just(Kind::Map),
        Just(Kind::Counter),
        Just(Kind::Json),
    ]
}

proptest! {
    #[test]
    fn a_spelling_is_final(kind in any_kind(), value in any_json()) {
        if let Ok(once) = kind.normalise(&value) {
            let twice = kind.normalise(&once);
            prop_assert_eq!(twice.map(|v| v.to_string()), Ok(once.to_string()));
        }
    }

    #[test]
    fn a_spelling_survives_the_wire(value in any_json()) {
        if let Ok(once) = normalise::plain(&value) {
            let back: Value = serde_json::from_str(&once.to_string()).unwrap();
            prop_assert_eq!(normalise::plain(&back).map(|v| v.to_string()), Ok(once.to_string()));
        }
    }

    #[test]
    fn reasons_are_short(kind in any_kind(), value in ".{0,300}") {
        if let Err(why) = kind.normalise(&Value::from(value)) {
            prop_assert!(why.chars().count() < 800, "{}", why);
        }
    }

    #[test]
    fn admission_is_final(value in any_json()) {
        let rules = rules(NOTE);
        let given = Fields::from([("tags".to_owned(), value.clone()), ("free".to_owned(), value)]);
        if let Ok(once) = admit(&rules, given) {
            prop_assert_eq!(admit(&rules, once.clone()), Ok(once));
        }
    }

    #[test]
    fn a_text_is_the_same_in_every_composition_case_and_spacing(text in "(\\PC| ){0,20}") {
        let same = same_text(&text);
        prop_assert_eq!(same_text(&same), same.clone(), "again");
        prop_assert_eq!(same_text(&text.nfd().collect::<String>()), same.clone(), "NFD");
        prop_assert_eq!(same_text(&text.nfc().collect::<String>()), same.clone(), "NFC");
        prop_assert_eq!(same_text(&text.to_uppercase()), same.clone(), "upper");
        prop_assert_eq!(same_text(&text.to_uppercase().to_lowercase()), same.clone(), "lower");
        prop_assert_eq!(same_text(&format!("  {} \t", text.replace(' ', " \u{a0} "))), same, "spaces");
    }

    #[test]
    fn a_print_asks_for_the_value_not_for_its_spelling(title in "[a-zA-Zéß ]{0,9}", size in -1000_i64..1000) {
        let rules = rules(NOTE);
        let at = "2026-02-15T10:32:15Z";
        let one = fields(json!({"title": title, "size": size, "at": at}));
        let two = fields(json!({"title": title.to_uppercase().nfd().collect::<String>() + " ",
            "size": size as f64, "at": "2026-02-15T11:32:15.0+01:00"}));
        prop_assert_eq!(print_of(&rules, &one), print_of(&rules, &two));
    }
}
