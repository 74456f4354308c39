//! Numbered nonces: how a copy of a device is told from the device itself (DESIGN §7, reliability F16, F17).
//!
//! A device begins each sync with a pair of its own choice: the nonce that was taken last, and the next.
//! Whoever serves it remembers the newest pair. Two copies of one device choose different next ones, and
//! the second shows.

use crate::{
    id::{BadId, DeviceId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest word of a nonce.
const WORD_MAX: usize = 64;
/// Installations remembered of one device; the oldest is forgotten first.
const INSTALLATIONS_MAX: usize = 32;

/// A number that grows by one with each sync, and a word that nobody else would choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce {
    /// Counts the syncs of an installation, from 1.
    pub number: u64,
    /// 1–64 letters, digits and `-`.
    pub word: String,
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.word)
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.to_string()
    }
}

impl TryFrom<String> for Nonce {
    type Error = BadPair;
    fn try_from(text: String) -> Result<Self, BadPair> {
        text.parse()
    }
}

impl FromStr for Nonce {
    type Err = BadPair;

    fn from_str(text: &str) -> Result<Self, BadPair> {
        let (number, word) = text.split_once('.').ok_or(BadPair)?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let is_word = (1..=WORD_MAX).contains(&word.len())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match number.parse() {
            Ok(number @ 1..) if is_number && is_word => Ok(Self { number, word: word.to_owned() }),
            _ => Err(BadPair),
        }
    }
}

/// A text that is no pair of nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPair;

impl fmt::Display for BadPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a sync is named `<installation> <number>.<word> <number + 1>.<word>`, or `-` for the first",
        )
    }
}

impl std::error::Error for BadPair {}

impl From<BadId> for BadPair {
    fn from(_: BadId) -> Self {
        Self
    }
}

/// What a device says at the beginning of a sync, and with each of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Which life of the device's data this is: drawn with a new data directory, copied with an old one.
    pub installation: DeviceId,
    /// The nonce that was taken last; `None` for an installation's first sync.
    pub last: Option<Nonce>,
    /// The nonce of this sync.
    pub next: Nonce,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last {
            Some(last) => write!(f, "{} {last} {}", self.installation, self.next),
            None => write!(f, "{} - {}", self.installation, self.next),
        }
    }
}

impl FromStr for Pair {
    type Err = BadPair;

    fn from_str(text: &str) -> Result<Self, BadPair> {
        let mut words = text.split(' ');
        let (Some(installation), Some(last), Some(next), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(BadPair);
        };
        let last = if last == "-" { None } else { Some(last.parse::<Nonce>()?) };
        let next: Nonce = next.parse()?;
        let follows = last.as_ref().map_or(0, |last| last.number).checked_add(1) == Some(next.number);
        match follows {
            true => Ok(Self { installation: DeviceId::parse(installation)?, last, next }),
            false => Err(BadPair),
        }
    }
}

/// What a device keeps of its own nonces: on disk before anything of it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Its installation.
    pub installation: DeviceId,
    /// The nonce that was taken last.
    pub last: Option<Nonce>,
    /// The one on its way: `None` once it was taken.
    pub next: Option<Nonce>,
    /// Since when the upstream has refused it as a copy.
    pub cloned_at: Option<Time>,
    /// Behind which promotion of its database it began: what the database lost with that may be the newest
    /// nonces, and nobody else has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<String>,
}

impl Own {
    /// A new installation.
    pub fn new(installation: DeviceId) -> Self {
        Self { installation, last: None, next: None, cloned_at: None, promoted: None }
    }

    /// A device whose database was promoted from a replica of itself is a new installation, drawn by `draw`: it
    /// may lack what it last said, and is no copy. `promoted` names the latest promotion, if there was one.
    pub fn heed(&mut self, promoted: Option<&str>, draw: impl FnOnce() -> DeviceId) {
        if promoted.is_some() && promoted != self.promoted.as_deref() {
            *self = Self { promoted: promoted.map(str::to_owned), ..Self::new(draw()) };
        }
    }

    /// The pair to begin a sync with. One that was not taken, as far as is known, is said again: `draw`
    /// makes the word of a new one.
    pub fn begin(&mut self, draw: impl FnOnce() -> String) -> Pair {
        let number = self.last.as_ref().map_or(1, |last| last.number + 1);
        let next = self.next.get_or_insert_with(|| Nonce { number, word: draw() }).clone();
        Pair { installation: self.installation.clone(), last: self.last.clone(), next }
    }

    /// The upstream answered to this pair: the next sync begins with another.
    pub fn taken(&mut self, pair: &Pair) {
        if self.next.as_ref() == Some(&pair.next) && self.installation == pair.installation {
            self.last = self.next.take();
            self.cloned_at = None;
        }
    }
}

/// What a node remembers of the syncs of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The newest pair of each installation; the device's present installation stands last.
    pub installations: Vec<Newest>,
    /// When a copy was refused last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_at: Option<Time>,
    /// When a device knew more than this node does: the node's data is an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_at: Option<Time>,
}

/// The newest pair of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    /// The installation.
    pub id: DeviceId,
    /// The pair's first nonce.
    pub last: Option<Nonce>,
    /// The pair's second nonce.
    pub next: Nonce,
    /// When the installation was first seen.
    pub since: Time,
}

/// What a pair means to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meeting {
    /// The newest pair again: a further request of the same sync, or an answer was lost.
    Repeat,
    /// A new sync, or a new installation: this is to be remembered.
    Taken(Chain),
    /// The device is ahead of what this node remembers, so this node went back in time: the same, noted.
    Behind(Chain),
    /// Another has followed this `last` already: a copy, an old backup of the device, or a request that was
    /// late. It alone is refused.
    Fork(Fork),
}

/// How a pair came to be a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The installation went on without whoever holds this pair.
    Passed,
    /// The device has been installed anew since.
    Replaced,
}

impl Chain {
    /// Judges a pair. A pair of an installation never seen begins that one and ends the one before: an app
    /// was installed anew.
    pub fn meet(&self, pair: &Pair, now: Time) -> Meeting {
        let Some(at) = self.installations.iter().position(|i| i.id == pair.installation) else {
            let mut installations = self.installations.clone();
            if installations.len() >= INSTALLATIONS_MAX {
                installations.remove(0);
            }
            installations.push(Newest::of(pair, now));
            return Meeting::Taken(Self { installations, ..self.clone() });
        };
        if at + 1 != self.installations.len() {
            return Meeting::Fork(Fork::Replaced);
        }
        let newest = &self.installations[at];
        let number = pair.last.as_ref().map_or(0, |last| last.number);
        let mut after = self.clone();
        after.installations[at] = Newest::of(pair, newest.since);
        match () {
            () if pair.last == newest.last && pair.next == newest.next => Meeting::Repeat,
            () if pair.last.as_ref() == Some(&newest.next) => Meeting::Taken(after),
            () if number > newest.next.number => Meeting::Behind(Self { behind_at: Some(now), ..after }),
            () => Meeting::Fork(Fork::Passed),
        }
    }
}

impl Newest {
    fn of(pair: &Pair, since: Time) -> Self {
        Self { id: pair.installation.clone(), last: pair.last.clone(), next: pair.next.clone(), since }
    }
}
