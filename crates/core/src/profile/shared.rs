//! What a profile says of collections that are shared: their records are the app's, the same ones for every space,
//! and so nothing of a single space may be said of them.

use super::{
    OnDelete,
    draft::{CollectionDraft, Draft, ReferenceDraft},
    source::Mistakes,
};

/// Whether records of the spaces refer to a collection that is shared.
pub(super) fn is_referred_to(collection: &CollectionDraft, all: &[CollectionDraft]) -> bool {
    let refers = |r: &ReferenceDraft| r.to.get_ref() == collection.name.get_ref();
    let of_a_space = |other: &&CollectionDraft| other.shared.is_none();
    collection.shared.is_some()
        && all.iter().filter(of_a_space).flat_map(|other| &other.references).any(refers)
}

/// Notes what does not go with being shared.
pub(super) fn check(draft: &Draft, mistakes: &mut Mistakes) {
    let all = &draft.collections;
    let is_named = |name: &String| {
        draft.roles.iter().flat_map(|r| r.write.iter().flatten()).any(|w| w.get_ref() == name)
    };
    let is_shared = |name: &str| all.iter().any(|c| c.name.get_ref() == name && c.shared.is_some());
    for collection in all {
        let name = collection.name.get_ref();
        if let Some(at) = collection.shared.as_ref().filter(|_| collection.audience.is_some()) {
            let why = format!("`{name}` is shared with everybody and can have no audience");
            mistakes.at(at, why);
        }
        if let Some(at) = collection.shared.as_ref().filter(|_| !is_named(name)) {
            mistakes.at(
                at,
                format!("`{name}` is shared, and nobody may write it: a role has to name it in `write`"),
            );
        }
        for reference in &collection.references {
            let to = reference.to.get_ref();
            let known = all.iter().any(|c| c.name.get_ref() == to);
            if collection.shared.is_some() && known && !is_shared(to) {
                let why = format!(
                    "`{name}` is shared, but `{to}` is each space's own: nobody else could follow this"
                );
                mistakes.at(&reference.to.span(), why);
            }
            let word = reference.on_delete.as_ref().filter(|word| *word.get_ref() != OnDelete::Refuse);
            if let Some(word) = word.filter(|_| collection.shared.is_none() && is_shared(to)) {
                let why =
                    format!("`{to}` is shared and its records are never deleted while others refer to it");
                mistakes.at(&word.span(), why);
            }
        }
    }
}
