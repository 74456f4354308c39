//! What `cargo metadata` says: our crates, what they declare, and what that resolves to.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::run;

/// The workspace as cargo sees it, for every platform.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    workspace_root: String,
    resolve: Resolve,
}

/// One crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    manifest_path: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a manifest's dependencies.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// None for a normal one, else `dev` or `build`.
    kind: Option<String>,
}

impl Dependency {
    /// Whether only tests use it.
    pub(crate) fn is_dev(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        let json = run::output(&mut run::cargo(&["metadata", "--format-version", "1", "--locked"]))?;
        serde_json::from_str(&json).context("cargo metadata printed something else")
    }

    /// Our own crates with their directories from the root.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Package, &str)> {
        let ours = self.packages.iter().filter(|package| self.workspace_members.contains(&package.id));
        ours.map(|package| (package, self.directory(package)))
    }

    fn directory<'a>(&'a self, package: &'a Package) -> &'a str {
        let path = package.manifest_path.strip_prefix(&self.workspace_root).unwrap_or(&package.manifest_path);
        path.trim_start_matches(['/', '\\']).trim_end_matches("Cargo.toml").trim_end_matches(['/', '\\'])
    }

    fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.id == id)
    }

    /// What this crate may link when it is not tested, near or far, on any platform: each with a chain that leads
    /// there. Cargo errs on the side of too much here, where a feature that nobody turned on names a crate.
    pub(crate) fn reach(&self, from: &Package) -> BTreeMap<&str, Vec<&str>> {
        let nodes: BTreeMap<_, _> = self.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut seen = BTreeSet::from([from.id.as_str()]);
        let mut open = vec![(from.id.as_str(), Vec::new())];
        while let Some((id, chain)) = open.pop() {
            for edge in nodes.get(id).into_iter().flat_map(|node| &node.deps) {
                let normal = edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
                let Some(package) = self.package(&edge.pkg).filter(|_| normal) else { continue };
                if seen.insert(&package.id) {
                    let mut longer = chain.clone();
                    longer.push(package.name.as_str());
                    chains.entry(&package.name).or_insert_with(|| longer.clone());
                    open.push((&package.id, longer));
                }
            }
        }
        chains
    }
}

/// A workspace of `(directory, [dependency])`; `dev:name` and `build:name` are dependencies of that kind.
/// A directory that begins with `*` is a crate of somebody else.
#[cfg(test)]
pub(crate) fn workspace(crates: &[(&str, &[&str])]) -> Metadata {
    let name =
        |directory: &str| directory.trim_start_matches('*').rsplit('/').next().unwrap_or("").to_owned();
    let split = |dependency: &str| match dependency.split_once(':') {
        Some((kind, name)) => (name.to_owned(), Some(kind.to_owned())),
        None => (dependency.to_owned(), None),
    };
    let mut metadata = Metadata {
        packages: Vec::new(),
        workspace_members: BTreeSet::new(),
        workspace_root: "/root".into(),
        resolve: Resolve { nodes: Vec::new() },
    };
    for (directory, uses) in crates {
        let uses: Vec<_> = uses.iter().map(|dependency| split(dependency)).collect();
        let edge = |(pkg, kind): &(String, Option<String>)| Edge {
            pkg: pkg.clone(),
            dep_kinds: vec![EdgeKind { kind: kind.clone() }],
        };
        metadata.resolve.nodes.push(Node { id: name(directory), deps: uses.iter().map(edge).collect() });
        if !directory.starts_with('*') {
            metadata.workspace_members.insert(name(directory));
        }
        metadata.packages.push(Package {
            id: name(directory),
            name: name(directory),
            manifest_path: format!("/root/{directory}/Cargo.toml"),
            dependencies: uses.into_iter().map(|(name, kind)| Dependency { name, kind }).collect(),
        });
    }
    metadata
}
