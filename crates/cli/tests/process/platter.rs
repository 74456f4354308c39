//! The files of a directory as a power cut could leave them: everything up to the last sync of each file is
//! there; of later writes any may be there or not, whole or torn between sectors; a length, a new name or a
//! removed one that was not synced may be there or not.

use crate::{rig::Lot, tracer::Call};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// A write or a new length that no sync has covered yet, with the number of its call.
enum Pending {
    Write { call: usize, at: usize, bytes: Vec<u8> },
    Length { call: usize, length: usize },
}

impl Pending {
    fn call(&self) -> usize {
        match self {
            Self::Write { call, .. } | Self::Length { call, .. } => *call,
        }
    }
}

/// One file, whatever its name is.
#[derive(Default)]
struct Inode {
    /// What is on the disk for sure.
    synced: Vec<u8>,
    pending: Vec<Pending>,
}

/// What a name stands for: a file, a directory (`usize::MAX`), or nothing.
type Entry = Option<usize>;

/// The disk under a directory.
#[derive(Default)]
pub(crate) struct Platter {
    inodes: Vec<Inode>,
    /// The names as the process sees them.
    names: BTreeMap<PathBuf, Entry>,
    /// Every meaning that a name may have after a power cut, the sure one first; the number of the call each.
    entries: BTreeMap<PathBuf, Vec<(usize, Entry)>>,
    /// Syncs that have begun: by whom, and at which call.
    begun: HashMap<i32, usize>,
    calls: usize,
    /// Whether syncs do anything: a disk that only says so is the check of the check.
    pub(crate) is_honest: bool,
}

impl Platter {
    pub(crate) fn new(is_honest: bool) -> Self {
        Self { is_honest, ..Self::default() }
    }

    /// A call that was made.
    pub(crate) fn take(&mut self, call: &Call) {
        self.calls += 1;
        let now = self.calls;
        match call {
            Call::Make { file } => {
                self.inodes.push(Inode::default());
                self.name(file, Some(self.inodes.len() - 1));
            }
            Call::Unlink { file } => self.name(file, None),
            Call::Rename { from, to } => {
                let inode = self.names.get(from).copied().flatten();
                self.name(from, None);
                self.name(to, inode);
            }
            Call::Write { file, at, bytes } => {
                let (at, bytes) = (*at as usize, bytes.clone());
                self.push(file, Pending::Write { call: now, at, bytes });
            }
            Call::Truncate { file, length } => {
                self.push(file, Pending::Length { call: now, length: *length as usize });
            }
            Call::SyncBegins { by, .. } => drop(self.begun.insert(*by, now)),
            Call::SyncEnded { file, by } => {
                let begun = self.begun.remove(by).expect("a sync that ended has begun");
                if self.is_honest {
                    self.sync(file, begun);
                }
            }
            Call::MakeDir { dir } => self.name(dir, Some(usize::MAX)),
            Call::Say { .. } => {}
        }
    }

    fn name(&mut self, file: &Path, entry: Entry) {
        self.names.insert(file.to_owned(), entry);
        let meanings = self.entries.entry(file.to_owned()).or_insert_with(|| vec![(0, None)]);
        meanings.push((self.calls, entry));
    }

    fn push(&mut self, file: &Path, pending: Pending) {
        // A file that has no name any more is nobody's business after a power cut.
        if let Some(inode) = self.names.get(file).copied().flatten() {
            self.inodes[inode].pending.push(pending);
        }
    }

    /// Everything that was done before the sync began is on the disk.
    fn sync(&mut self, file: &Path, begun: usize) {
        if let Some(inode) = self.names.get(file).copied().flatten().filter(|inode| *inode != usize::MAX) {
            let inode = &mut self.inodes[inode];
            let covered = inode.pending.iter().take_while(|p| p.call() < begun).count();
            for pending in inode.pending.drain(..covered) {
                lay(&mut inode.synced, &pending);
            }
            return;
        }
        // A directory: its names.
        for (name, meanings) in &mut self.entries {
            if name.parent() == Some(file) {
                let sure = meanings.iter().rposition(|(call, _)| *call < begun).unwrap_or(0);
                meanings.drain(..sure);
            }
        }
    }

    /// Writes the files of `dir` to `to` as a power cut at this moment may leave them. How much of what was
    /// not synced survives is drawn first: sometimes nothing, sometimes everything.
    pub(crate) fn cut(&self, dir: &Path, to: &Path, lot: &mut Lot) {
        let survives = [0, 30, 50, 90, 100][lot.below(5) as usize];
        let is_lost = |meanings: &Vec<(usize, Entry)>| meanings[0].1.is_none() && survives < 50;
        if self.entries.get(dir).is_none_or(is_lost) {
            return; // The directory itself was not synced in its parent.
        }
        for (name, meanings) in &self.entries {
            let Some(relative) = name.strip_prefix(dir).ok().filter(|name| *name != Path::new("")) else {
                continue;
            };
            let newest = meanings.len() - 1;
            let entry = match lot.below(100) < survives {
                true => meanings[newest].1,
                false => meanings[lot.below(meanings.len() as u64) as usize].1,
            };
            // Shared memory is rebuilt; whatever it holds after a power cut means nothing.
            if let Some(inode) = entry.filter(|_| !relative.to_string_lossy().ends_with("-shm")) {
                fs::write(to.join(relative), self.inodes[inode].cut(survives, lot)).unwrap();
            }
        }
    }
}

impl Inode {
    fn cut(&self, survives: u64, lot: &mut Lot) -> Vec<u8> {
        let mut content = self.synced.clone();
        for pending in &self.pending {
            let Pending::Write { at, bytes, .. } = pending else {
                if lot.below(100) < survives {
                    lay(&mut content, pending);
                }
                continue;
            };
            let is_torn = survives < 100 && lot.below(100) < 30;
            match is_torn {
                true => tear(&mut content, *at, bytes, lot),
                false if lot.below(100) < survives => lay(&mut content, pending),
                // The length may be there without the bytes.
                false if lot.below(4) == 0 && survives > 0 => grow(&mut content, at + bytes.len()),
                false => {}
            }
        }
        content
    }
}

/// Some of its sectors are there and some are not.
fn tear(content: &mut Vec<u8>, at: usize, bytes: &[u8], lot: &mut Lot) {
    let mut from = 0;
    while from < bytes.len() {
        let end = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(bytes.len());
        if lot.below(2) == 0 {
            grow(content, at + end);
            content[at + from..at + end].copy_from_slice(&bytes[from..end]);
        }
        from = end;
    }
}

fn lay(content: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write { at, bytes, .. } => {
            grow(content, at + bytes.len());
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Pending::Length { length, .. } => content.resize(*length, 0),
    }
}

fn grow(content: &mut Vec<u8>, length: usize) {
    if content.len() < length {
        content.resize(length, 0);
    }
}
