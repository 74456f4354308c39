//! Step b for groups that only some roles write: a decision is the jury's word, whoever may write the rest.

use super::{Answer, Case, work::Work};
use crate::{merge, receipt::Code, record::Record};

impl Work<'_> {
    /// Refuses a change that sets a field of a group which the granted role may not write. Saying what is there
    /// already, or nothing, is harmless.
    pub(crate) fn guard_writers(&self, case: &Case<'_>, existing: Option<&Record>) -> Option<Answer> {
        let allowed = |roles: &[String]| roles.is_empty() || roles.contains(&self.grant.role);
        let guarded = case.rules.groups.iter().filter(|group| !allowed(&group.roles));
        let fields = guarded.flat_map(|group| &group.fields);
        let mut named = fields.filter_map(|field| Some((field, case.change.fields.get(field)?)));
        let (field, _) = named.find(|(field, value)| {
            let there = existing.and_then(|record| record.data.get(field));
            let default = case.rules.fields.get(*field).and_then(|f| f.default.as_ref());
            let same =
                |other: Option<&serde_json::Value>| other.is_some_and(|other| merge::same(other, value));
            !same(there) && !(existing.is_none() && (value.is_null() || same(default)))
        })?;
        let text = format!("the role `{}` may not set `{field}`", self.grant.role);
        Some(Answer::refused(case.change, Code::Forbidden, Some(field), text))
    }
}
