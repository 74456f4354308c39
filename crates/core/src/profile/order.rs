//! The order of collections, parents before children, and the circles that have none.

use super::{
    draft::{CollectionDraft, ReferenceDraft},
    source::Mistakes,
};

/// The names of `collections`, parents first and otherwise as written. An optional reference gives way
/// where a circle leaves no other order; a circle of required references is a mistake, since none of its
/// records could ever be the first.
pub(super) fn parents_first(collections: &[CollectionDraft], mistakes: &mut Mistakes) -> Vec<String> {
    let mut placed: Vec<&str> = Vec::new();
    let mut waiting: Vec<&CollectionDraft> = collections.iter().collect();
    while !waiting.is_empty() {
        let ready = |optional_too| waiting.iter().position(|c| missing(c, &waiting, optional_too).is_none());
        let next = ready(true).or_else(|| ready(false)).unwrap_or_else(|| {
            let (index, why) = circle(&waiting);
            if let Some(edge) = missing(waiting[index], &waiting, false) {
                mistakes.at(&edge.to.span(), why);
            }
            index
        });
        placed.push(waiting.remove(next).name.get_ref());
    }
    placed.into_iter().map(str::to_owned).collect()
}

/// A reference of `collection` to another that is not placed yet, or a required one to itself.
fn missing<'c>(
    collection: &'c CollectionDraft,
    waiting: &[&CollectionDraft],
    optional_too: bool,
) -> Option<&'c ReferenceDraft> {
    let own = collection.name.get_ref();
    collection.references.iter().find(|r| {
        let to = r.to.get_ref();
        let counts = if to == own { !r.optional } else { optional_too || !r.optional };
        counts && waiting.iter().any(|c| c.name.get_ref() == to)
    })
}

/// A circle among `waiting`, each of which requires another: its first collection and the sentence.
fn circle(waiting: &[&CollectionDraft]) -> (usize, String) {
    let mut path: Vec<usize> = vec![0];
    loop {
        let last = path[path.len() - 1];
        let to = missing(waiting[last], waiting, false).map(|edge| edge.to.get_ref());
        let Some(next) = waiting.iter().position(|c| Some(c.name.get_ref()) == to) else {
            return (0, String::new());
        };
        if let Some(start) = path.iter().position(|i| *i == next) {
            let mut circle: Vec<usize> = path.split_off(start);
            // Told from the collection that is written first.
            let first = circle.iter().enumerate().min_by_key(|(_, i)| **i).map_or(0, |(at, _)| at);
            circle.rotate_left(first);
            let names =
                circle.iter().chain(circle.first()).map(|i| format!("`{}`", waiting[*i].name.get_ref()));
            let names: Vec<String> = names.collect();
            let why = format!(
                "{} is a circle of required references; one of them must be optional",
                names.join(" → ")
            );
            return (circle[0], why);
        }
        path.push(next);
    }
}
