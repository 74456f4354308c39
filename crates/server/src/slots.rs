//! A bounded number of things at once, altogether and for each key: live streams.

use std::{collections::HashMap, hash::Hash, sync::Arc, sync::Mutex};

/// Counts what is taken, by key.
#[derive(Debug)]
pub(crate) struct Slots<K> {
    most: usize,
    most_each: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// A taken slot; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot<K: Hash + Eq> {
    slots: Arc<Slots<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Slots<K> {
    /// `most` altogether, `most_each` for one key.
    pub(crate) fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self { most, most_each, taken: Mutex::default() })
    }

    /// Takes a slot. `None` where there is none left.
    pub(crate) fn take(self: &Arc<Self>, key: &K) -> Option<Slot<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(key).copied().unwrap_or(0);
        if all >= self.most || own >= self.most_each {
            return None;
        }
        taken.insert(key.clone(), own + 1);
        Some(Slot { slots: self.clone(), key: key.clone() })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner).values().sum()
    }
}

impl<K: Hash + Eq> Drop for Slot<K> {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match taken.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back_when_they_are_dropped() {
        let slots = Slots::new(3, 2);
        let (first, second) = (slots.take(&"a"), slots.take(&"a"));
        assert!(first.is_some() && second.is_some() && slots.take(&"a").is_none());
        let other = slots.take(&"b");
        assert!(other.is_some() && slots.take(&"c").is_none() && slots.taken() == 3);
        drop((first, second));
        assert!(slots.take(&"c").is_some());
        drop(other);
        assert_eq!(slots.taken(), 0);
        assert!(slots.taken.lock().unwrap().is_empty());
    }
}
