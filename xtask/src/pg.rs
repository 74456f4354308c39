//! `cargo xtask pg`: a throw-away PostgreSQL cluster, for tests and for trying things out. It is made
//! anew, belongs to an ordinary user, listens on loopback only, and is gone when it is dropped.

use crate::run;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian and its like keep the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// What tells the tests where the server is.
pub(crate) const VARIABLE: &str = "ROPEWAY_TEST_POSTGRES";

/// A running cluster.
pub(crate) struct Cluster {
    bin: PathBuf,
    home: PathBuf,
    user: Option<&'static str>,
    /// `postgresql://postgres@127.0.0.1:PORT`, to which a database's name is added.
    pub(crate) url: String,
}

/// Starts a cluster, tells where it is, and keeps it until a line or the end of the input comes in.
pub(crate) fn run() -> Result<bool> {
    let cluster = Cluster::start()?;
    println!("pg: {VARIABLE}={}", cluster.url);
    println!("pg: press Enter to stop it; nothing of it stays");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(true)
}

impl Cluster {
    /// Makes and starts one. Installs PostgreSQL where it is missing and this user may.
    pub(crate) fn start() -> Result<Self> {
        let bin = programs()?;
        let home = roomy_memory().unwrap_or_else(std::env::temp_dir);
        let home = home.join(format!("ropeway-pg-{}", std::process::id()));
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let user = ordinary_user()?;
        if let Some(user) = user {
            must(Command::new("chown").arg(user).arg(&home))?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("postgresql://postgres@127.0.0.1:{port}");
        let cluster = Self { bin, home, user, url };
        let data = cluster.home.join("data");
        let made = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"];
        must(cluster.command("initdb").args(made).arg(&data))?;
        let settings = format!(
            "-p {port} -k {} -c listen_addresses=127.0.0.1 -c max_connections=200 -c shared_buffers=64MB",
            cluster.home.display()
        );
        let log = cluster.home.join("log");
        let started = must(
            cluster
                .command("pg_ctl")
                .arg("-D")
                .arg(&data)
                .args(["-w", "-o", &settings, "-l"])
                .arg(&log)
                .arg("start"),
        );
        started.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(cluster)
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
        let data = self.home.join("data");
        let stopped =
            must(self.command("pg_ctl").arg("-D").arg(&data).args(["-m", "immediate", "-w", "stop"]));
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
    println!("pg: PostgreSQL is not installed; asking apt-get for it");
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", "postgresql"]] {
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        if !run::succeeds(&mut install).unwrap_or(false) {
            bail!("PostgreSQL could not be installed: install it by hand, or type `--skip postgres`");
        }
    }
    installed(Path::new(VERSIONS)).with_context(|| format!("there are no programs under {VERSIONS}"))
}

/// A cluster that is thrown away need not wait for a disk, where memory has room for it.
fn roomy_memory() -> Option<PathBuf> {
    const ROOM: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    let free = run::output(Command::new("df").args(["--output=avail", "-B1"]).arg(memory)).ok()?;
    let free: u64 = free.lines().last()?.trim().parse().ok()?;
    (free > ROOM).then(|| memory.to_owned())
}

fn installed(versions: &Path) -> Option<PathBuf> {
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
    let shown = run::shown(command);
    // Not captured by a pipe: the server inherits it and would keep it open.
    let said = tempfile()?;
    let status = command.stdout(said.1.try_clone()?).stderr(said.1).status();
    let text = fs::read_to_string(&said.0).unwrap_or_default();
    let _ = fs::remove_file(&said.0);
    match status.with_context(|| format!("cannot run {shown}"))?.success() {
        true => Ok(()),
        false => bail!("{shown} failed: {}", text.trim()),
    }
}

fn tempfile() -> Result<(PathBuf, fs::File)> {
    let path = std::env::temp_dir().join(format!("ropeway-pg-{}.said", std::process::id()));
    let file = fs::File::create(&path)?;
    Ok((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_with_a_server_is_taken() {
        let root = std::env::temp_dir().join(format!("ropeway-pg-versions-{}", std::process::id()));
        for version in ["9", "15", "16"] {
            fs::create_dir_all(root.join(version).join("bin")).unwrap();
        }
        for version in ["9", "15"] {
            fs::write(root.join(version).join("bin/initdb"), "").unwrap();
        }
        assert_eq!(installed(&root), Some(root.join("15/bin")));
        assert_eq!(installed(&root.join("nowhere")), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
