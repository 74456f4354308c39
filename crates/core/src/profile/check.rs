//! Compares what a profile says with itself and compiles it: every name must lead somewhere, every rule
//! must fit its field. Mistakes are noted and compilation goes on, so that all of them are found.

use super::{
    Field, Group, Kind, OnDelete, Profile, Reference, Retry, Role, Rule, Rules, Same, SameField, Views,
    Within, Writes, audience,
    draft::{CollectionDraft, Draft, FieldDraft, GroupDraft, RoleDraft, SameDraft},
    names, normalise, order,
    rule::{RuleDraft, misfit, role_of, type_word, word},
    shared,
    source::{At, Mistakes, unknown},
};
use crate::limits;
use std::collections::BTreeMap;

/// Compiles `draft`. The profile is of use only when no mistake was noted.
pub(super) fn compile(draft: Draft, mistakes: &mut Mistakes) -> Profile {
    names::check(&draft, mistakes);
    roles(&draft, mistakes);
    audience::circles(&draft.collections, mistakes);
    shared::check(&draft, mistakes);
    let known: Vec<&str> = draft.collections.iter().map(|c| c.name.get_ref().as_str()).collect();
    let role_names: Vec<&str> = draft.roles.iter().map(|r| r.name.get_ref().as_str()).collect();
    if let Some(name) = draft.views.numbered.as_ref().filter(|n| !known.contains(&n.get_ref().as_str())) {
        mistakes.at(&name.span(), unknown("collection", name.get_ref(), &known));
    }
    if let Some(name) = &draft.views.mismatch {
        let fields =
            draft.collections.iter().flat_map(|c| c.fields.iter().map(|f| f.name.get_ref().as_str()));
        let fields: Vec<&str> = fields.collect();
        if !fields.contains(&name.get_ref().as_str()) {
            mistakes.at(&name.span(), unknown("field", name.get_ref(), &fields));
        }
    }
    let order = order::parents_first(&draft.collections, mistakes);
    let compiled = draft.collections.iter().map(|collection| {
        let mut rules = Scope { collection, known: &known, roles: &role_names }.rules(mistakes);
        rules.audience = audience::compile(collection, &draft.collections, mistakes);
        rules.kept = shared::is_referred_to(collection, &draft.collections);
        (collection.name.get_ref().clone(), rules)
    });
    let collections: BTreeMap<String, Rules> = compiled.collect();
    Profile {
        audiences: collections.values().any(|rules: &Rules| rules.audience.is_some()),
        shares: collections.values().any(|rules| rules.shared),
        collections,
        order,
        roles: draft.roles.into_iter().map(|r| (r.name.get_ref().clone(), granted(r))).collect(),
        name: draft.name.map(At::into_inner).unwrap_or_default(),
        version: draft.version,
        resolver: draft.resolver,
        retry: Retry { delays: draft.retry },
        sync_every: draft.sync_every,
        views: Views {
            id: draft.views.id.into_inner(),
            local_id: draft.views.local_id.into_inner(),
            reference: draft.views.reference.into_inner(),
            numbered: draft.views.numbered.map(At::into_inner),
            mismatch: draft.views.mismatch.map(At::into_inner),
        },
        words: draft.words,
    }
}

fn granted(role: RoleDraft) -> Role {
    let write = match role.write {
        None => Writes::All,
        Some(list) => Writes::Only(list.into_iter().map(At::into_inner).collect()),
    };
    let choose = role.choose.into_iter().map(At::into_inner).collect();
    Role { write, resolve: role.resolve, sees: role.sees, choose }
}

fn roles(draft: &Draft, mistakes: &mut Mistakes) {
    let settles = draft.resolver != super::Resolver::Upstream || draft.roles.iter().any(|r| r.resolve);
    if let Some(first) = draft.roles.first().filter(|_| !settles) {
        let why = "no role may settle conflicts: give one `resolve = true`, or name another `resolver`";
        mistakes.at(&first.name.span(), why);
    }
    let known: Vec<&str> = draft.collections.iter().map(|c| c.name.get_ref().as_str()).collect();
    for collection in draft.roles.iter().filter_map(|r| r.write.as_ref()).flatten() {
        if !known.contains(&collection.get_ref().as_str()) {
            mistakes.at(&collection.span(), unknown("collection", collection.get_ref(), &known));
        }
    }
    let named = draft.collections.iter().filter_map(|c| c.audience.as_ref()?.key.as_ref());
    let named: Vec<&str> = named.map(|key| key.get_ref().name.as_str()).collect();
    for name in draft.roles.iter().flat_map(|r| &r.choose) {
        if !named.contains(&name.get_ref().as_str()) {
            mistakes.at(&name.span(), unknown("audience", name.get_ref(), &named));
        }
    }
}

/// One collection among the others.
struct Scope<'d> {
    collection: &'d CollectionDraft,
    known: &'d [&'d str],
    roles: &'d [&'d str],
}

impl Scope<'_> {
    fn rules(&self, mistakes: &mut Mistakes) -> Rules {
        let c = self.collection;
        let references = self.references(mistakes);
        let mut fields: BTreeMap<String, Field> = BTreeMap::new();
        for field in &c.fields {
            fields.insert(field.name.get_ref().clone(), self.field(field, mistakes));
        }
        for (name, reference) in &references {
            let required = !reference.optional;
            let field = Field { kind: Kind::Ref, required, server_only: false, default: None, merge: None };
            fields.insert(name.clone(), field);
        }
        if fields.len() > limits::FIELDS_MAX {
            let why =
                format!("a collection may have at most {} fields, not {}", limits::FIELDS_MAX, fields.len());
            mistakes.at(&c.name.span(), why);
        }
        Rules {
            name: c.name.get_ref().clone(),
            table: c.table.as_ref().map(|t| t.get_ref().clone()),
            groups: self.groups(mistakes),
            merge: self.merge(mistakes),
            delete: c.delete,
            stale_replace: c.stale_replace,
            same: c.same.as_ref().map(|same| self.same(same, mistakes)),
            audience: None,
            shared: c.shared.is_some(),
            kept: false,
            fields,
            references,
        }
    }

    fn references(&self, mistakes: &mut Mistakes) -> BTreeMap<String, Reference> {
        let mut references = BTreeMap::new();
        for draft in &self.collection.references {
            let (name, to) = (draft.name.get_ref(), draft.to.get_ref());
            if !self.known.contains(&to.as_str()) {
                mistakes.at(&draft.to.span(), unknown("collection", to, self.known));
            }
            let on_delete = draft.on_delete.as_ref().map_or(OnDelete::Refuse, |o| *o.get_ref());
            if let Some(at) =
                draft.on_delete.as_ref().filter(|_| on_delete == OnDelete::Release && !draft.optional)
            {
                let why = format!("`{name}` is required, so nothing can release it; add `optional = true`");
                mistakes.at(&at.span(), why);
            }
            references
                .insert(name.clone(), Reference { to: to.clone(), optional: draft.optional, on_delete });
        }
        references
    }

    fn field(&self, draft: &FieldDraft, mistakes: &mut Mistakes) -> Field {
        let name = draft.name.get_ref();
        if self.collection.references.iter().any(|r| r.name.get_ref() == name) {
            mistakes.at(
                &draft.name.span(),
                format!("`{name}` is a reference already; a field of it is not declared"),
            );
        }
        let mut default = draft.default.as_ref().map(|d| d.get_ref().clone());
        if let (Some(written), Some(kind)) = (&draft.default, &draft.kind) {
            default = self.value("the default", name, kind, written, mistakes);
        }
        if draft.required && draft.server_only && draft.default.is_none() {
            let why = format!("`{name}` is required, but no client can write it and it has no default");
            mistakes.at(&draft.name.span(), why);
        }
        let mut merge = draft.merge.as_ref().map(|rule| self.rule(rule, name, draft.kind.as_ref(), mistakes));
        if merge.is_none() && draft.kind == Some(Kind::Counter) {
            merge = Some(Rule::Counter);
        }
        if let (Some(Rule::Union), Some(serde_json::Value::Array(items))) = (&merge, &mut default) {
            *items = normalise::set(std::mem::take(items));
        }
        let kind = draft.kind.clone().unwrap_or(Kind::Json);
        Field { kind, required: draft.required, server_only: draft.server_only, default, merge }
    }

    /// A value of the profile itself, canonical.
    fn value(
        &self,
        what: &str,
        field: &str,
        kind: &Kind,
        written: &At<serde_json::Value>,
        mistakes: &mut Mistakes,
    ) -> Option<serde_json::Value> {
        match kind.normalise(written.get_ref()) {
            Ok(value) => Some(value.into_owned()),
            Err(why) => {
                mistakes.at(&written.span(), format!("{what} of `{field}`: {why}"));
                None
            }
        }
    }

    /// A rule with its states, for the field `lead`.
    fn rule(&self, draft: &RuleDraft, lead: &str, kind: Option<&Kind>, mistakes: &mut Mistakes) -> Rule {
        self.role(&draft.rule, draft, mistakes);
        if let Some(why) = kind.and_then(|kind| misfit(&draft.rule, lead, kind)) {
            mistakes.at(&draft.at, why);
        } else if let Rule::Ratchet(_) = draft.rule {
            return Rule::Ratchet(states(draft, kind, mistakes));
        }
        draft.rule.clone()
    }

    fn role(&self, rule: &Rule, draft: &RuleDraft, mistakes: &mut Mistakes) {
        if let Some(role) = role_of(rule).filter(|role| !self.roles.contains(role)) {
            mistakes.at(&draft.at, unknown("role", role, self.roles));
        }
    }

    /// The collection's own rule, which must fit any field, unknown ones too.
    fn merge(&self, mistakes: &mut Mistakes) -> Rule {
        let Some(draft) = &self.collection.merge else { return Rule::Park };
        self.role(&draft.rule, draft, mistakes);
        match &draft.rule {
            Rule::Ratchet(_) | Rule::Max | Rule::Min | Rule::Union | Rule::Counter | Rule::PerKey(_) => {
                let why = format!(
                    "the rule `{}` does not fit every field; give it to a field of its own",
                    word(&draft.rule)
                );
                mistakes.at(&draft.at, why);
                Rule::Park
            }
            rule => rule.clone(),
        }
    }

    fn groups(&self, mistakes: &mut Mistakes) -> Vec<Group> {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        let mut groups = Vec::new();
        for draft in &self.collection.groups {
            let lead = draft.fields.get_ref()[0].get_ref();
            for field in draft.fields.get_ref() {
                self.member(lead, field, mistakes);
                if let Some(other) = taken.insert(field.get_ref(), lead) {
                    let why = format!("`{}` is in the group `{other}` already", field.get_ref());
                    mistakes.at(&field.span(), why);
                }
            }
            groups.push(self.group(draft, lead, mistakes));
        }
        groups
    }

    /// One field of a group.
    fn member(&self, lead: &str, field: &At<String>, mistakes: &mut Mistakes) {
        let name = field.get_ref();
        if !self.has(name) {
            return mistakes.at(&field.span(), unknown("field here", name, &self.field_names()));
        }
        let Some(draft) = self.declared(name) else { return };
        if let Some(own) = &draft.merge {
            let why = format!("`{name}` is in the group `{lead}`, whose rule settles it");
            mistakes.at(&own.at, why);
        }
        if draft.kind == Some(Kind::Counter) {
            mistakes.at(&field.span(), format!("`{name}` is a counter, which is settled alone"));
        }
    }

    fn group(&self, draft: &GroupDraft, lead: &str, mistakes: &mut Mistakes) -> Group {
        let kind = self.kind(lead);
        let rule = match &draft.rule {
            Some(r) if matches!(r.rule, Rule::Union | Rule::Counter | Rule::PerKey(_)) => {
                let why = format!("the rule `{}` settles one field, not a group", word(&r.rule));
                mistakes.at(&r.at, why);
                Rule::Park
            }
            // What is wrong with a counter is said where it stands in the group.
            Some(r) => self.rule(r, lead, kind.filter(|k| **k != Kind::Counter), mistakes),
            None => Rule::Park,
        };
        let unset = draft.unset.as_ref().zip(kind);
        let unset = unset.and_then(|(v, kind)| self.value("`unset`", lead, kind, v, mistakes));
        let fields = draft.fields.get_ref().iter().map(|f| f.get_ref().clone()).collect();
        for role in draft.roles.iter().filter(|role| !self.roles.contains(&role.get_ref().as_str())) {
            mistakes.at(&role.span(), unknown("role", role.get_ref(), self.roles));
        }
        let roles = draft.roles.iter().map(|role| role.get_ref().clone()).collect();
        Group { fields, rule, unset, roles }
    }

    fn same(&self, draft: &SameDraft, mistakes: &mut Mistakes) -> Same {
        let mut on: Vec<SameField> = Vec::new();
        for (field, optional) in &draft.on {
            let name = field.get_ref();
            if !self.has(name) {
                mistakes.at(&field.span(), unknown("field here", name, &self.field_names()));
            } else if on.iter().any(|f| f.name == *name) {
                mistakes.at(&field.span(), format!("`{name}` is compared already"));
            }
            let kind = self.kind(name);
            if let Some(kind) = kind
                .filter(|k| matches!(k, Kind::Object | Kind::List | Kind::Map | Kind::Counter | Kind::Json))
            {
                let why = format!("`same` compares single values; `{name}` is of type {}", type_word(kind));
                mistakes.at(&field.span(), why);
            }
            on.push(SameField { name: name.clone(), optional: *optional });
        }
        let within = draft.within.as_ref().map(|(field, micros)| {
            let name = field.get_ref();
            match self.kind(name) {
                _ if !self.has(name) => {
                    mistakes.at(&field.span(), unknown("field here", name, &self.field_names()));
                }
                Some(Kind::DateTime) | None => {}
                Some(kind) => {
                    let why =
                        format!("a window lies around a datetime; `{name}` is of type {}", type_word(kind));
                    mistakes.at(&field.span(), why);
                }
            }
            Within { field: name.clone(), micros: *micros }
        });
        Same { on, within }
    }

    fn declared(&self, name: &str) -> Option<&FieldDraft> {
        self.collection.fields.iter().find(|f| f.name.get_ref() == name)
    }

    fn is_reference(&self, name: &str) -> bool {
        self.collection.references.iter().any(|r| r.name.get_ref() == name)
    }

    fn has(&self, name: &str) -> bool {
        self.declared(name).is_some() || self.is_reference(name)
    }

    /// The type of a field; `None` where it has none, or a mistaken one.
    fn kind(&self, name: &str) -> Option<&Kind> {
        match self.is_reference(name) {
            true => Some(&Kind::Ref),
            false => self.declared(name)?.kind.as_ref(),
        }
    }

    fn field_names(&self) -> Vec<&str> {
        let fields = self.collection.fields.iter().map(|f| f.name.get_ref().as_str());
        fields.chain(self.collection.references.iter().map(|r| r.name.get_ref().as_str())).collect()
    }
}

/// The states of a ratchet: those beside it, or the values of its enum.
fn states(draft: &RuleDraft, kind: Option<&Kind>, mistakes: &mut Mistakes) -> Vec<String> {
    let values = match kind {
        Some(Kind::Enum(values)) => Some(values),
        _ => None,
    };
    let Some(order) = &draft.order else {
        if values.is_none() && kind.is_some() {
            mistakes.at(&draft.at, "a ratchet needs its states beside it: `order = [\"a\", \"b\"]`");
        }
        return values.cloned().unwrap_or_default();
    };
    if order.get_ref().len() < 2 {
        mistakes.at(&order.span(), "a ratchet needs at least two states");
    }
    let mut states: Vec<String> = Vec::new();
    for state in order.get_ref() {
        let valid: Option<Vec<&str>> = values.map(|v| v.iter().map(String::as_str).collect());
        if let Some(valid) = valid.filter(|v| !v.contains(&state.get_ref().as_str())) {
            mistakes.at(&state.span(), unknown("value of this enum", state.get_ref(), &valid));
        } else if states.contains(state.get_ref()) {
            mistakes.at(&state.span(), format!("the state `{}` is there already", state.get_ref()));
        }
        states.push(state.get_ref().clone());
    }
    states
}
