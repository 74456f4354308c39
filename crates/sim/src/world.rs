//! One space of a story: its machines, its devices without a replica, and what was seen.

use crate::{
    host::{Host, locked},
    past::Awaited,
    stage::Stage,
    story::Setting,
};
use ropeway_core::{
    change::Change,
    doc::Fields,
    id::{DeviceId, Epoch, Key, SpaceId},
    profile::{self, Profile, Sees, Writes},
    receipt::{Code, Receipt},
};
use ropeway_replica::{Enrolment, ReplicaError};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: `I3`.
    pub rule: &'static str,
    /// What was found.
    pub text: String,
}

/// A device without a replica of its own.
pub(crate) struct Client {
    pub(crate) device: ropeway_store::Device,
    /// What it saw of each record last: at which version, and the values.
    pub(crate) seen: BTreeMap<Key, (Epoch, u64, Fields)>,
    /// The last batch that it sent.
    pub(crate) last: Vec<Change>,
    pub(crate) count: u64,
}

/// What became of a copied machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Copied {
    /// There is no copy.
    #[default]
    No,
    /// There are two, and nobody has noticed.
    Unnoticed,
    /// One of them was refused as a copy.
    Refused,
}

/// The roles that people and devices of a profile get.
pub(crate) struct Roles {
    /// At the node without an upstream: may settle conflicts.
    pub(crate) top: String,
    /// Everywhere else, and for every device that sees everything.
    pub(crate) field: String,
    /// For a device that gets only what it is subscribed to.
    pub(crate) scout: String,
}

/// Where somebody writes: the machine, the record, the field, and who.
pub(crate) type Place = (usize, Key, String, String);

/// One space on the machines of a stage.
pub(crate) struct World {
    pub(crate) stage: Arc<Stage>,
    pub(crate) space: SpaceId,
    /// Which of the spaces it is.
    pub(crate) number: usize,
    pub(crate) setting: Setting,
    pub(crate) profile: Arc<Profile>,
    pub(crate) roles: Roles,
    /// Those of whoever may write what is shared; none where nothing is.
    pub(crate) keepers: Roles,
    pub(crate) hosts: Vec<Host>,
    pub(crate) clients: Mutex<BTreeMap<(usize, usize), Client>>,
    /// Values that somebody emptied at a desk, by the machine, the record, the field and the person.
    pub(crate) emptied: Mutex<BTreeMap<Place, Value>>,
    /// What followers of a restored node still hold of what it lost.
    pub(crate) awaited: Mutex<Vec<Awaited>>,
    /// Whether a machine was copied, and whether one of the two was told so.
    pub(crate) copy: Mutex<Copied>,
}

const WORLD: &str = include_str!("../profiles/world.toml");
const PARTS: &str = include_str!("../profiles/parts.toml");
const LIBRARY: &str = include_str!("../profiles/library.toml");
/// A reader of parts of the world who may write what is shared.
const PATHFINDER: &str = r#"
[roles.pathfinder]
write = ["shelf", "label", "book", "reading", NAMES]
sees = "subscribed"
choose = ["area"]
"#;
const RACE_LOGGER: &str = include_str!("../../../apps/race-logger/profile.toml");

/// The profile that a setting names.
pub(crate) fn profile_of(setting: &Setting) -> Result<Profile, String> {
    let chosen = |text: &str| text.replace("DELETE", &setting.delete).replace("RESOLVER", &setting.resolver);
    let source = match setting.profile.as_str() {
        "world" => chosen(WORLD),
        "parts" => chosen(PARTS),
        "race-logger" => RACE_LOGGER.to_owned(),
        other => return Err(format!("there is no profile `{other}` here")),
    };
    let parsed =
        |source: &str| profile::parse(source, &setting.profile).map_err(|mistakes| format!("{mistakes:?}"));
    if setting.shared.is_empty() {
        return parsed(&source);
    }
    let names: Vec<String> = parsed(&source)?.order.iter().map(|name| format!("\"{name}\"")).collect();
    let pathfinder = if setting.profile == "parts" { PATHFINDER } else { "" };
    let joined = format!("{source}\n{}\n{pathfinder}", chosen(LIBRARY));
    parsed(&joined.replace("NAMES", &names.join(", ")))
}

/// The roles that may write what is shared, or those that may not.
fn roles_of(profile: &Profile, shared: bool) -> Roles {
    let writes_shared = |role: &profile::Role| match &role.write {
        Writes::All => false,
        Writes::Only(names) => names.iter().any(|name| profile.is_shared(name)),
    };
    let named = |resolve: bool, sees: Sees| {
        let breadth = |role: &profile::Role| match &role.write {
            Writes::All => usize::MAX,
            Writes::Only(names) => names.len(),
        };
        let fit = profile.roles.iter().filter(|(_, role)| role.resolve == resolve && role.sees == sees);
        let fit = fit.filter(|(_, role)| writes_shared(role) == shared);
        fit.max_by_key(|(_, role)| breadth(role)).map(|(name, _)| name.clone()).unwrap_or_default()
    };
    Roles {
        top: named(true, Sees::All),
        field: named(false, Sees::All),
        scout: named(false, Sees::Subscribed),
    }
}

impl World {
    /// Sets a space up on the machines of a stage.
    pub(crate) async fn build(
        setting: &Setting,
        profile: &Arc<Profile>,
        stage: &Arc<Stage>,
        number: usize,
        space: SpaceId,
    ) -> Result<Arc<Self>, ReplicaError> {
        let takes_part = |index: usize| {
            let stands_for = if index < setting.parents.len() { Some(index) } else { setting.copied };
            number == 0 || stands_for.is_some_and(|node| setting.second.contains(&node))
        };
        let machines = stage.machines.iter();
        let hosts = machines.map(|m| Host::new(m.clone(), takes_part(m.index))).collect();
        let world = Arc::new(Self {
            stage: stage.clone(),
            space,
            number,
            roles: roles_of(profile, false),
            keepers: roles_of(profile, true),
            setting: setting.clone(),
            profile: profile.clone(),
            hosts,
            clients: Mutex::default(),
            emptied: Mutex::default(),
            awaited: Mutex::default(),
            copy: Mutex::default(),
        });
        for host in world.hosts.iter().filter(|host| host.parent.is_some() && host.is_there()) {
            // Some are registered by an administrator, and some register themselves.
            let by_itself = world.profile.has_audiences() && host.index % 2 == 1;
            let id = by_itself.then(|| host.node().device().clone());
            let name = format!("node-{}", host.index);
            world.register(host, &name, id).await?;
        }
        Ok(world)
    }

    /// Registers a machine at its upstream, as a new device there.
    pub(crate) async fn register(
        &self,
        host: &Host,
        name: &str,
        id: Option<DeviceId>,
    ) -> Result<(), ReplicaError> {
        let upstream = self.hosts[host.parent.unwrap_or(0)].node();
        let roles = self.roles_of(self.machine_shares(host.index));
        let role = if self.is_scout(host.index) { &roles.scout } else { &roles.field };
        let enrolled = upstream.enrol(self.enrolment(name, id, role)).await?;
        *locked(&host.token) = enrolled.token;
        *locked(&host.device) = Some(enrolled.device.id);
        Ok(())
    }

    /// The registration of a device.
    pub(crate) fn enrolment(&self, name: &str, id: Option<DeviceId>, role: &str) -> Enrolment {
        Enrolment {
            id,
            name: name.into(),
            space: self.space.clone(),
            role: role.to_owned(),
            mode: "offline_device".into(),
            metadata: serde_json::json!({}),
        }
    }

    /// The node that an act means, whatever number it says.
    pub(crate) fn host(&self, number: usize) -> &Host {
        &self.hosts[number % self.hosts.len()]
    }

    /// Takes receipts into the ledger of the node that gave them.
    pub(crate) fn note(&self, at: usize, changes: &[Change], receipts: &[Receipt]) {
        if changes.len() != receipts.len() {
            self.violated("I1", format!("{} receipts for {} changes", receipts.len(), changes.len()));
        }
        let mut ledger = locked(&self.hosts[at].ledger);
        for (change, receipt) in changes.iter().zip(receipts) {
            if receipt.reason.as_ref().is_some_and(|reason| reason.code == Code::Fault) {
                let text = receipt.reason.as_ref().map_or(String::new(), |reason| reason.text.clone());
                self.fault(&format!("node {at} failed over {}: {text}", change.id));
            }
            let answer = (receipt.verdict, receipt.version);
            // Of what is handed in only the newest version counts, see `came_back`.
            let fields = if change.lost.is_some() { Fields::new() } else { change.fields.clone() };
            if let Some(wrong) = ledger.note(&change.id, &fields, answer) {
                self.violated("I1", format!("node {at}: {wrong}"));
            }
        }
    }

    /// The engine failed, which nothing in a story makes it do.
    pub(crate) fn fault(&self, text: &str) {
        self.violated("fault", text.to_owned());
    }

    /// Notes a broken invariant.
    pub(crate) fn violated(&self, rule: &'static str, text: String) {
        let text = if self.number == 0 { text } else { format!("in the space `{}`: {text}", self.space) };
        self.stage.violated(rule, text);
    }

    /// The first broken invariant.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.stage.violation()
    }

    /// Writes a line of the trace.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        self.stage.say(&line());
    }
}
