//! The files of the repository: what git tracks, and what it would track.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;
use crate::source::Source;

/// One file: its path from the root, with `/`, and its text (what is not UTF-8 in it replaced).
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// Whether this is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its text, told apart into code, comments and literals.
    pub(crate) fn source(&self) -> Source<'_> {
        Source::read(&self.text)
    }
}

/// Every file of the repository in path order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// Reads the work tree: tracked files and new ones that nothing ignores, so that a mistake is seen
    /// before it is committed.
    pub(crate) fn load() -> Result<Self> {
        let root = root()?;
        let mut git = Command::new("git");
        git.arg("-C").arg(&root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed =
            run::output(&mut git).context("tidy asks git which files are ours: run it in a clone")?;
        let mut files = Vec::new();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            // A file that was deleted and not yet staged is listed but is no longer there.
            if let Ok(bytes) = std::fs::read(root.join(path)) {
                files.push(File { path: path.into(), text: String::from_utf8_lossy(&bytes).into_owned() });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok(Self { files })
    }

    /// The file at this path.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether a file or a directory is at this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.iter().any(|file| match file.path.strip_prefix(path) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        })
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

/// The directory of the workspace.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest =
        run::output(&mut run::cargo(&["locate-project", "--workspace", "--message-format", "plain"]))?;
    let mut root = PathBuf::from(manifest.trim_end());
    root.pop();
    Ok(root)
}

/// A tree made of (path, text) pairs.
#[cfg(test)]
pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
    let files = files.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() });
    Tree { files: files.collect() }
}
