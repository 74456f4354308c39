//! Rules as a profile writes them: `latest`, `role("manager")`, `per_key(max)`.

use super::{
    Kind, Rule, Tie,
    source::{At, Mistakes, Span, Table, unknown},
};

/// The words of rules, for suggestions.
const WORDS: [&str; 13] = [
    "server", "incoming", "latest", "earliest", "role", "ratchet", "max", "min", "union", "counter",
    "per_key", "origin", "park",
];
/// The words of ties.
const TIES: [(&str, Tie); 3] =
    [("device", Tie::Device), ("server", Tie::Server), ("incoming", Tie::Incoming)];

/// A rule as written: where, what, and the states named beside a ratchet.
#[derive(Debug, Clone)]
pub(super) struct RuleDraft {
    /// Where the rule's text is.
    pub(super) at: Span,
    /// The rule; a ratchet has no states yet.
    pub(super) rule: Rule,
    /// The states beside it.
    pub(super) order: Option<At<Vec<At<String>>>>,
}

/// Reads the rule at `key` with the `order` and the tie beside it. `None` when there is no rule, or none
/// that can be read; then a mistake is noted.
pub(super) fn read(
    table: &Table<'_>,
    key: &str,
    tie_key: &str,
    mistakes: &mut Mistakes,
) -> Option<RuleDraft> {
    let order = table.texts("order", mistakes);
    let tie = table.choice(tie_key, &TIES, mistakes);
    if table.get(key).is_none() {
        let beside = [(order.as_ref().map(At::span), "order"), (tie.as_ref().map(At::span), tie_key)];
        for (span, beside) in beside {
            if let Some(span) = span {
                mistakes.at(&span, format!("`{beside}` says nothing without `{key}`"));
            }
        }
        return None;
    }
    let text = table.text(key, mistakes)?;
    let rule = match rule(text.get_ref(), tie.as_ref().map(|t| *t.get_ref()).unwrap_or_default()) {
        Ok(rule) => rule,
        Err(why) => {
            mistakes.at(&text.span(), why);
            return None;
        }
    };
    if let Some(tie) = tie.filter(|_| !asks_time(&rule)) {
        let why = format!("`{tie_key}` is for equal times, and the rule `{}` compares none", word(&rule));
        mistakes.at(&tie.span(), why);
    }
    if let Some(order) = order.as_ref().filter(|_| !matches!(rule, Rule::Ratchet(_))) {
        mistakes
            .at(&order.span(), format!("`order` goes with the rule `ratchet`, not with `{}`", word(&rule)));
    }
    Some(RuleDraft { at: text.span(), rule, order })
}

fn rule(text: &str, tie: Tie) -> Result<Rule, String> {
    let text = text.trim();
    let (word, argument) = match text.split_once('(') {
        Some((word, rest)) => match rest.strip_suffix(')') {
            Some(argument) => (word, Some(argument.trim())),
            None => return Err(format!("the rule `{text}` lacks its closing bracket")),
        },
        None => (text, None),
    };
    let plain = match word {
        "role" => return role(argument, tie),
        "per_key" => return per_key(argument, tie),
        "server" => Rule::Server,
        "incoming" => Rule::Incoming,
        "latest" => Rule::Latest(tie),
        "earliest" => Rule::Earliest(tie),
        "ratchet" => Rule::Ratchet(Vec::new()),
        "max" => Rule::Max,
        "min" => Rule::Min,
        "union" => Rule::Union,
        "counter" => Rule::Counter,
        "origin" => Rule::Origin,
        "park" => Rule::Park,
        _ => return Err(unknown("rule", word, &WORDS)),
    };
    match (argument, word) {
        (None, _) => Ok(plain),
        (Some(_), "ratchet") => {
            Err("the states of a ratchet stand beside it: `order = [\"a\", \"b\"]`".into())
        }
        (Some(_), _) => Err(format!("the rule `{word}` takes nothing in brackets")),
    }
}

fn role(argument: Option<&str>, tie: Tie) -> Result<Rule, String> {
    let quoted = argument.and_then(|a| {
        let quote = |q: char| a.strip_prefix(q)?.strip_suffix(q);
        quote('"').or_else(|| quote('\''))
    });
    match quoted {
        Some(role) => Ok(Rule::Role(role.to_owned(), tie)),
        None => Err("the rule `role` names a role: `role(\"manager\")`".into()),
    }
}

fn per_key(argument: Option<&str>, tie: Tie) -> Result<Rule, String> {
    let Some(argument) = argument else {
        return Err("the rule `per_key` names the rule of each key: `per_key(latest)`".into());
    };
    match rule(argument, tie)? {
        inner @ (Rule::Ratchet(_) | Rule::PerKey(_) | Rule::Origin) => {
            Err(format!("the rule `{}` cannot settle a single key", word(&inner)))
        }
        inner => Ok(Rule::PerKey(Box::new(inner))),
    }
}

/// Whether a tie can come up.
fn asks_time(rule: &Rule) -> bool {
    match rule {
        Rule::Latest(_) | Rule::Earliest(_) | Rule::Role(..) => true,
        Rule::PerKey(inner) => asks_time(inner),
        _ => false,
    }
}

/// The role that a rule names.
pub(super) fn role_of(rule: &Rule) -> Option<&str> {
    match rule {
        Rule::Role(role, _) => Some(role),
        Rule::PerKey(inner) => role_of(inner),
        _ => None,
    }
}

/// A rule's word.
pub(super) fn word(rule: &Rule) -> &'static str {
    match rule {
        Rule::Server => "server",
        Rule::Incoming => "incoming",
        Rule::Latest(_) => "latest",
        Rule::Earliest(_) => "earliest",
        Rule::Role(..) => "role",
        Rule::Ratchet(_) => "ratchet",
        Rule::Max => "max",
        Rule::Min => "min",
        Rule::Union => "union",
        Rule::Counter => "counter",
        Rule::PerKey(_) => "per_key",
        Rule::Origin => "origin",
        Rule::Park => "park",
    }
}

/// A type's word.
pub(super) fn type_word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text { .. } => "text",
        Kind::Int { .. } => "int",
        Kind::Number => "number",
        Kind::Bool => "bool",
        Kind::Date => "date",
        Kind::DateTime => "datetime",
        Kind::Enum(_) => "enum",
        Kind::Ref => "ref",
        Kind::Object => "object",
        Kind::List => "list",
        Kind::Map => "map",
        Kind::Counter => "counter",
        Kind::Json => "json",
    }
}

/// Why `rule` cannot settle the field `name` of this type.
pub(super) fn misfit(rule: &Rule, name: &str, kind: &Kind) -> Option<String> {
    let needs = match (rule, kind) {
        (Rule::Counter, Kind::Counter) => return None,
        (_, Kind::Counter) => {
            return Some(format!("`{name}` is a counter, which the rule `counter` alone settles"));
        }
        (Rule::Max | Rule::Min, Kind::Int { .. } | Kind::Number) => return None,
        (Rule::Max | Rule::Min, _) => "numbers",
        (Rule::Union, Kind::List) => return None,
        (Rule::Union, _) => "lists",
        (Rule::Counter, _) => "counters",
        (Rule::PerKey(_), Kind::Map) => return None,
        (Rule::PerKey(_), _) => "maps",
        (Rule::Ratchet(_), Kind::Enum(_) | Kind::Text { .. }) => return None,
        (Rule::Ratchet(_), _) => "enums and texts",
        _ => return None,
    };
    Some(format!("the rule `{}` settles {needs}; `{name}` is of type {}", word(rule), type_word(kind)))
}
