//! Opens the node of a data directory or of a database on a server. The database remembers which app it belongs to and whether it
//! follows an upstream, so that every command treats it alike, whoever starts it.

use crate::{
    apps::{self, APPS},
    config::{Config, Mode, is_file},
    database::Opening,
    failure::Failure,
    output::Output,
};
use anyhow::{Context, Result};
use ropeway_core::{
    id::{Epoch, SpaceId},
    profile::{self, Profile, Role, Writes},
};
use ropeway_replica::{Clock, Desk, Ids, Node, NodeOptions, RandomIds, SystemClock};
use ropeway_store::{Store, StoreError};
use std::{fs, path::Path, sync::Arc};

/// Settings that the command line keeps in the database.
const APP: &str = "cli.app";
const PROFILE: &str = "cli.profile";
const FOLLOWS: &str = "cli.follows";
const UPSTREAM: &str = "cli.upstream";

/// Whether a command may begin a new node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// A new database is made.
    Make,
    /// A missing database is an error: probably the wrong directory.
    Refuse,
}

/// A node, opened, and the space that the command is about.
pub(crate) struct Opened {
    pub(crate) node: Node,
    pub(crate) space: SpaceId,
    pub(crate) config: Config,
    /// The upstream that it follows: as configured, or as the database remembers it.
    pub(crate) upstream: Option<String>,
}

impl Opened {
    /// Who sits at the desk: the person and role named, or a role of the profile that may write everything. For a
    /// collection that is shared, one that names it.
    pub(crate) fn desk(
        &self,
        person: Option<String>,
        role: Option<String>,
        about: Option<&str>,
    ) -> Result<Desk> {
        let (profile, roles) = (self.node.profile(), &self.node.profile().roles);
        let shared = about.filter(|collection| profile.is_shared(collection));
        let may = |name: &str, role: &Role| match shared {
            Some(collection) => profile.may_write(name, collection),
            None => role.write == Writes::All,
        };
        let all = || roles.iter().find(|(name, role)| may(name, role)).map(|(name, _)| name.clone());
        let none = || {
            Failure::usage("the profile has no role that may write everything").next("name one with --role")
        };
        let role = role.or_else(all).ok_or_else(none)?;
        if !roles.contains_key(&role) {
            let known = roles.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("the profile has no role `{role}`; it has {known}")).into());
        }
        Ok(Desk { person, role })
    }
}

/// Opens the node that the configuration names.
pub(crate) async fn open(config: Config, absent: Absent, output: Output) -> Result<Opened> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(RandomIds);
    let wants = config.upstream.is_some() || config.mode == Mode::OfflineDevice;
    let begin = absent == Absent::Make;
    if begin {
        make_directory(&config.data_dir)?;
    }
    let opening = |follows, begin| -> Result<Opening> {
        Ok(Opening { epoch: Epoch::parse(&ids.id())?, now: clock.now(), follows, begin })
    };
    let (mut store, is_new) = config.database.open(opening(wants, begin)?).await?;
    if is_new {
        output.note(&format!("a new node begins at {}", config.database));
    }
    let followed = store.meta(FOLLOWS).await?.is_some();
    if followed && !wants {
        drop(store);
        (store, _) = config.database.open(opening(true, false)?).await?;
    }
    let upstream = remember_upstream(&*store, &config, wants && !followed).await?;
    let profile = choose_profile(&*store, config.profile.as_deref()).await?;
    let follows = wants || followed;
    let options = NodeOptions { store, profile: Arc::new(profile), clock, ids, follows };
    let node = Node::open(options)
        .await
        .with_context(|| format!("the node at {} cannot be opened", config.database))?;
    let space = config.space.clone();
    match absent {
        Absent::Make => node.open_space(&space).await.map(drop)?,
        Absent::Refuse => node.store().space(&space).await.map(drop)?,
    }
    Ok(Opened { node, space, config, upstream })
}

/// Notes that this node follows, and whom. A node that already holds records made without an upstream
/// may not begin to: they never entered an outbox and would stay behind in silence.
async fn remember_upstream(store: &dyn Store, config: &Config, begins: bool) -> Result<Option<String>> {
    let remembered = store.meta(UPSTREAM).await?;
    if begins {
        let shared = match store.space(&SpaceId::shared()).await {
            Ok(shared) => shared.digest.count,
            Err(StoreError::NoSpace(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        let count = shared + store.open_space(&config.space).await?.digest.count;
        if count > 0 {
            let dir = config.data_dir.display();
            let what = format!(
                "{dir} holds {count} records that were made without an upstream: they would never be sent"
            );
            let next = format!(
                "nothing was changed; begin the follower in a new data directory and hand them over: \
                 `ropeway dump --data-dir {dir} | ropeway write --data-dir NEW --upstream URL --from -`"
            );
            return Err(Failure::new(what).next(next).into());
        }
        store.put_meta(FOLLOWS, "yes").await?;
    }
    match &config.upstream {
        Some(url) if remembered.as_deref() != Some(url) => {
            store.put_meta(UPSTREAM, url).await?;
            Ok(Some(url.clone()))
        }
        _ => Ok(remembered),
    }
}

/// The profile named or remembered. A database belongs to one app for good.
async fn choose_profile(store: &dyn Store, named: Option<&str>) -> Result<Profile> {
    let remembered = store.meta(PROFILE).await?;
    let chosen = named.or(remembered.as_deref()).unwrap_or(APPS[0].name);
    let profile = load_profile(chosen)?;
    match store.meta(APP).await? {
        None => store.put_meta(APP, &profile.name).await?,
        Some(app) if app != profile.name => {
            let what = format!(
                "this database belongs to the app `{app}`, the profile {chosen} is of `{}`",
                profile.name
            );
            return Err(Failure::new(what)
                .next("nothing was changed: name the right profile, or another data directory")
                .into());
        }
        Some(_) => {}
    }
    let stored = match is_file(chosen) {
        true => fs::canonicalize(chosen)?.display().to_string(),
        false => chosen.to_owned(),
    };
    if remembered.as_deref() != Some(&stored) {
        store.put_meta(PROFILE, &stored).await?;
    }
    Ok(profile)
}

/// Reads a built-in profile or one in a file.
fn load_profile(name: &str) -> Result<Profile> {
    if !is_file(name) {
        let known = APPS.map(|app| app.name).join(", ");
        let none = || Failure::usage(format!("there is no built-in profile `{name}`; there is {known}"));
        let app =
            apps::of(name).ok_or_else(|| none().next("a profile in a file is named like ./app.toml"))?;
        return parse_profile(app.profile, name);
    }
    let missing = |e| Failure::usage(format!("the profile {name}: {e}")).next("name it with --profile");
    let text = fs::read_to_string(name).map_err(missing)?;
    parse_profile(&text, name)
}

fn parse_profile(text: &str, name: &str) -> Result<Profile> {
    profile::parse(text, name).map_err(|mistakes| {
        let list = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n       ");
        Failure::usage(list)
            .next("mend the profile; `ropeway check FILE` shows its mistakes; nothing was changed")
            .into()
    })
}

/// Makes a directory that only its owner may enter, and what is missing above it. Its name is synced where it
/// stands: otherwise a power cut could take it away with everything that was synced inside.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    let above = match path.parent() {
        None => return Ok(()),
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    };
    if !path.exists() {
        if !above.exists() {
            make_directory(above)?;
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(path)
            .map_err(|e| Failure::new(format!("the directory {} cannot be made: {e}", path.display())))?;
    }
    #[cfg(unix)]
    if let Err(error) = fs::File::open(above).and_then(|above| above.sync_all()) {
        tracing::warn!(%error, directory = %above.display(), "a power cut may take a new directory away");
    }
    Ok(())
}

/// Whether anybody but a file's owner may read it.
#[cfg(unix)]
pub(crate) fn others_may_read(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

/// Not told on this system.
#[cfg(not(unix))]
pub(crate) fn others_may_read(_: &Path) -> bool {
    false
}
