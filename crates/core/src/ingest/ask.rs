//! A person asks whether two records are one: the question that a fingerprint asks by itself, put by hand. The
//! answer is an answer like any other, and so is its undoing (ISMF-152).

use super::{
    Answer, Case,
    sight::Known,
    work::{Step, Work, conflict_id},
};
use crate::{
    change::Change,
    conflict::Kind,
    id::{Collection, Key, RecordId},
    receipt::Code,
};

/// The last part of such a conflict's id.
const TWINS: &str = "twins";

impl Work<'_> {
    /// Opens a conflict of the kind [`Kind::Twins`] about two records, under the id that every conflict
    /// of this change would have. Of the two, `other` would stay.
    pub(crate) fn ask_by_hand(&mut self, change: &Change) -> Step<Answer> {
        let refuse = |code, text: String| Ok(Answer::refused(change, code, None, text));
        if self.snap.follows {
            return refuse(Code::Forbidden, "conflicts are settled at the upstream: ask there".into());
        }
        let Some((about, other)) = named(change).filter(|_| change.record == conflict_id(&change.id, TWINS))
        else {
            let text = "conflicts are written by the engine; answer one with a patch, or ask whether two records \
                        are one with `collection`, `record` and `other`";
            return refuse(Code::Forbidden, text.to_owned());
        };
        let Some(rules) = self.profile.rules(&about.collection) else {
            let text = format!("the profile has no `{}`", about.collection);
            return refuse(Code::UnknownCollection, text);
        };
        if !self.may_write(&about.collection) {
            return refuse(Code::Forbidden, self.may_not_write(&about.collection));
        }
        if about == other {
            return refuse(Code::Invalid, format!("{about} is itself"));
        }
        self.foresee(&[about.clone(), other.clone()]);
        for key in [&about, &other] {
            let found = self.lookup(key)?.filter(|record| record.is_live());
            let seen = match &found {
                Some(record) => self.known(key, record)? == Known::Now,
                None => false,
            };
            if !seen {
                return refuse(Code::NotFound, format!("there is no `{key}` that could be one with another"));
            }
        }
        let asked = self.conflicts_of(&about)?.into_iter().find(|(_, conflict)| {
            conflict.is_open() && conflict.kind == Kind::Twins && conflict.names().contains(&other)
        });
        if let Some((open, _)) = asked {
            return refuse(Code::ConflictOpen, format!("the conflict `{}` asks that already", open.id));
        }
        let Some(record) = self.lookup(&about)? else { return refuse(Code::NotFound, format!("no {about}")) };
        let case = Case { change, at: self.author_time(change), rules };
        let asked = self.ask_twins(&case, about, record, other)?;
        // The change is about the question, not about the record.
        Ok(Answer { over: change.key(), version: self.first_version(), ..asked })
    }
}

/// The two records of a question.
fn named(change: &Change) -> Option<(Key, Key)> {
    let text = |name: &str| change.fields.get(name).and_then(serde_json::Value::as_str);
    if change.fields.len() != 3 {
        return None;
    }
    let collection = Collection::parse(text("collection")?).ok()?;
    let key = |name| Some(Key { collection: collection.clone(), id: RecordId::parse(text(name)?).ok()? });
    Some((key("record")?, key("other")?))
}
