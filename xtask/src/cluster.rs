//! A throw-away PostgreSQL cluster: made anew, of an ordinary user, on loopback only, gone when it is dropped.
//! The tests of processes include this file too: some of them kill a server of their own.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Where Debian and its like keep the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How many clusters this process has made.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A running cluster.
pub(crate) struct Cluster {
    bin: PathBuf,
    home: PathBuf,
    user: Option<&'static str>,
    settings: String,
    /// `postgresql://postgres@127.0.0.1:PORT`, to which a database's name is added.
    pub(crate) url: String,
}

impl Cluster {
    /// Makes and starts one. Installs PostgreSQL where it is missing and this user may.
    pub(crate) fn start() -> Result<Self> {
        let bin = programs()?;
        let home = roomy_memory().unwrap_or_else(std::env::temp_dir);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let home = home.join(format!("ropeway-pg-{}-{made}", std::process::id()));
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let user = ordinary_user()?;
        if let Some(user) = user {
            must(Command::new("chown").arg(user).arg(&home))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("postgresql://postgres@127.0.0.1:{port}");
        let settings = format!(
            "-p {port} -k {} -c listen_addresses=127.0.0.1 -c max_connections=200 -c shared_buffers=64MB",
            home.display()
        );
        let cluster = Self { bin, home, user, settings, url };
        let made = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"];
        must(cluster.command("initdb").args(made).arg(cluster.data()))?;
        cluster.run()?;
        Ok(cluster)
    }

    /// Kills it with everything that is under way, and starts it again.
    #[allow(dead_code, reason = "only the tests that include this file do")]
    pub(crate) fn crash(&self) -> Result<()> {
        self.control(&["-m", "immediate", "-w"], "restart")
    }

    /// Keeps everything as it is now, as a replica would that hears nothing more.
    #[allow(dead_code, reason = "only the tests that include this file do")]
    pub(crate) fn keep(&self) -> Result<()> {
        self.control(&["-m", "fast", "-w"], "stop")?;
        must(Command::new("cp").arg("-a").args([self.data(), self.kept()]))?;
        self.run()
    }

    /// Loses the server, and promotes what was kept in its place: the same address, another timeline, without
    /// anything that was written since.
    #[allow(dead_code, reason = "only the tests that include this file do")]
    pub(crate) fn fail_over(&self) -> Result<()> {
        self.control(&["-m", "immediate", "-w"], "stop")?;
        fs::remove_dir_all(self.data())?;
        fs::rename(self.kept(), self.data())?;
        fs::write(self.data().join("standby.signal"), "")?;
        self.run()?;
        self.control(&["-w"], "promote")
    }

    fn run(&self) -> Result<()> {
        self.control(&["-w", "-o", &self.settings], "start")
    }

    fn kept(&self) -> PathBuf {
        self.home.join("kept")
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Runs `pg_ctl`; what the server logged stands in the error.
    fn control(&self, arguments: &[&str], what: &str) -> Result<()> {
        let log = self.home.join("log");
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.data()).args(arguments).arg("-l").arg(&log).arg(what);
        must(&mut command).with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }

    /// A program of the cluster's version, run by whom the cluster belongs to.
    fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        let mut command = match self.user {
            None => Command::new(path),
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(path);
                command
            }
        };
        command.current_dir(&self.home);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = self.control(&["-m", "immediate", "-w"], "stop");
        if let Err(error) = stopped.and_then(|()| Ok(fs::remove_dir_all(&self.home)?)) {
            eprintln!("pg: the throw-away cluster in {} is still there: {error:#}", self.home.display());
        }
    }
}

/// The newest version's programs; installed where there are none.
fn programs() -> Result<PathBuf> {
    if let Some(found) = installed(Path::new(VERSIONS)) {
        return Ok(found);
    }
    eprintln!("pg: PostgreSQL is not installed; asking apt-get for it");
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "postgresql"]] {
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        if !install.status().is_ok_and(|status| status.success()) {
            bail!("PostgreSQL could not be installed: install it by hand, or type `--skip postgres`");
        }
    }
    installed(Path::new(VERSIONS)).with_context(|| format!("there are no programs under {VERSIONS}"))
}

/// A cluster that is thrown away need not wait for a disk, where memory has room for it.
fn roomy_memory() -> Option<PathBuf> {
    const ROOM: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    let free = Command::new("df").args(["--output=avail", "-B1"]).arg(memory).output().ok()?;
    let free: u64 = String::from_utf8(free.stdout).ok()?.lines().last()?.trim().parse().ok()?;
    (free > ROOM).then(|| memory.to_owned())
}

/// The programs of the newest version that has a server.
pub(crate) fn installed(versions: &Path) -> Option<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<PathBuf> =
        fs::read_dir(versions).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort_by_key(number);
    found.into_iter().rev().map(|version| version.join("bin")).find(|bin| bin.join("initdb").exists())
}

/// PostgreSQL does not run as root: then it runs as the user that its package brings.
fn ordinary_user() -> Result<Option<&'static str>> {
    let id = |arguments: &[&str]| -> Result<String> {
        Ok(String::from_utf8_lossy(&Command::new("id").args(arguments).output()?.stdout).trim().to_owned())
    };
    match id(&["-u"])?.as_str() {
        "0" => match id(&["-u", "postgres"])?.is_empty() {
            true => Ok(Some("nobody")),
            false => Ok(Some("postgres")),
        },
        _ => Ok(None),
    }
}

/// Runs a command quietly; what it said stands in the error.
fn must(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    // Not captured by a pipe: the server inherits it and would keep it open.
    let path = std::env::temp_dir().join(format!(
        "ropeway-pg-{}-{}.said",
        std::process::id(),
        MADE.fetch_add(1, Ordering::Relaxed)
    ));
    let said = fs::File::create(&path)?;
    let status = command.stdout(said.try_clone()?).stderr(said).status();
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    match status.with_context(|| format!("cannot run {shown}"))?.success() {
        true => Ok(()),
        false => bail!("{shown} failed: {}", text.trim()),
    }
}
