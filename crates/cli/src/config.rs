//! The configuration of a node: flag before environment before `ropeway.toml` before default.

use crate::{alert, database::Database, environment::Environment, failure::Failure, limits::Limits};
use ropeway_core::id::SpaceId;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The name of the configuration file, looked for in the data directory and then in the current one.
pub(crate) const FILE: &str = "ropeway.toml";
/// Where data is kept when nobody says otherwise.
const DATA_DIR: &str = "ropeway-data";
/// Where a node listens when nobody says otherwise: only this machine can reach it.
const LISTEN: &str = "127.0.0.1:8080";

/// Flags that every command of a node takes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Node")]
pub(crate) struct NodeArgs {
    /// Configuration file [default: ropeway.toml in the data directory, then in the current one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where data is kept [default: ropeway-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Database: sqlite:FILE or postgresql://USER@HOST/DATABASE [default: sqlite:ropeway.db in the data directory]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// App profile: a built-in one by name, or a file [default: what the database was made with, or race-logger]
    #[arg(long, global = true, value_name = "NAME|FILE")]
    pub(crate) profile: Option<String>,
    /// Space [default: main]
    #[arg(long, global = true, value_name = "SPACE")]
    pub(crate) space: Option<String>,
    /// Certificates of the upstream or of its authority, in the PEM format: nobody else's are believed
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) upstream_ca: Option<PathBuf>,
    /// A host that may be followed without encryption, because its network is yours alone; may be repeated
    #[arg(long, global = true, value_name = "HOST")]
    pub(crate) trusted_host: Vec<String>,
    /// Print JSON: one document, or one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to log to standard error, like `debug` or `ropeway_server=debug,warn` [env: RUST_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// What a node is mostly for. It chooses defaults and never code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Others follow it.
    Cloud,
    /// It follows, and works for days without network.
    OfflineDevice,
}

/// Flags that only some commands take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// Where to listen.
    pub(crate) listen: Option<String>,
    /// Whom to follow.
    pub(crate) upstream: Option<String>,
    /// The certificate to show.
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key.
    pub(crate) tls_key: Option<PathBuf>,
}

/// The files of the certificate that a node shows.
#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    /// The certificates, the node's own first.
    pub(crate) cert: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

/// The first administrator.
pub(crate) struct Admin {
    pub(crate) email: String,
    pub(crate) password: String,
}

/// A node's configuration.
pub(crate) struct Config {
    pub(crate) mode: Mode,
    pub(crate) data_dir: PathBuf,
    pub(crate) database: Database,
    /// A built-in profile's name or a file. `None`: what the database remembers.
    pub(crate) profile: Option<String>,
    pub(crate) space: SpaceId,
    pub(crate) listen: String,
    /// With which certificate it serves; without one it serves plain HTTP.
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) upstream: Option<String>,
    /// The only certificates believed of the upstream, where it is named.
    pub(crate) upstream_ca: Option<PathBuf>,
    /// Hosts that may be followed without encryption.
    pub(crate) trusted_hosts: Vec<String>,
    /// Whether a follower syncs on its own.
    pub(crate) sync_enabled: bool,
    pub(crate) conflict_email: Option<String>,
    /// How alerts are sent.
    pub(crate) alerts: alert::Settings,
    pub(crate) admin: Option<Admin>,
    pub(crate) limits: Limits,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    token: Option<String>,
    token_file: Option<PathBuf>,
}

/// `ropeway.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    mode: Option<String>,
    listen: Option<String>,
    database: Option<String>,
    data_dir: Option<PathBuf>,
    profile: Option<String>,
    space: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    upstream: Option<String>,
    upstream_token_file: Option<PathBuf>,
    upstream_ca: Option<PathBuf>,
    trusted_hosts: Vec<String>,
    sync_enabled: Option<bool>,
    conflict_email: Option<String>,
    smtp_url: Option<String>,
    alert_from: Option<String>,
    alert_webhook: Option<String>,
    limits: BTreeMap<String, u64>,
}

impl Config {
    /// Puts the configuration together.
    pub(crate) fn load(args: &NodeArgs, over: Overrides, environment: &Environment) -> Result<Self, Failure> {
        let env = |name: &str| environment.get(name).map(str::to_owned);
        let named_dir = args.data_dir.clone().or_else(|| env("ROPEWAY_DATA_DIR").map(PathBuf::from));
        let (file, written) = find(args, named_dir.as_deref(), environment)?;
        let near =
            |path: PathBuf| file.as_deref().and_then(Path::parent).map_or(path.clone(), |dir| dir.join(path));
        let data_dir =
            named_dir.or_else(|| written.data_dir.clone().map(near)).unwrap_or_else(|| DATA_DIR.into());
        let mode = mode(env("SYSTEM_MODE"), written.mode)?;
        let url =
            args.database.clone().or_else(|| env("ROPEWAY_DATABASE_URL")).or_else(|| env("DATABASE_URL"));
        let url = url.or(written.database);
        let database =
            url.map_or_else(|| Ok(Database::File(data_dir.join("ropeway.db"))), |url| Database::parse(&url))?;
        let profile_near =
            |name: String| if is_file(&name) { near(name.into()).display().to_string() } else { name };
        let profile = args.profile.clone().or_else(|| env("ROPEWAY_PROFILE"));
        let profile = profile.or_else(|| written.profile.map(profile_near));
        let space = args.space.clone().or_else(|| env("ROPEWAY_SPACE")).or(written.space);
        let space =
            SpaceId::parse(space.as_deref().unwrap_or("main")).map_err(|e| Failure::usage(e.to_string()))?;
        let upstream =
            over.upstream.or_else(|| env("ROPEWAY_UPSTREAM_URL")).or_else(|| env("SYNC_SERVER_URL"));
        let enabled = env("SYNC_ENABLED").map(|text| switch("SYNC_ENABLED", &text)).transpose()?;
        let token_file = env("ROPEWAY_UPSTREAM_TOKEN_FILE").map(PathBuf::from);
        let path = |flag: Option<PathBuf>, name: &str, written: Option<PathBuf>| {
            flag.or_else(|| env(name).map(PathBuf::from)).or_else(|| written.map(near))
        };
        let cert = path(over.tls_cert, "ROPEWAY_TLS_CERT", written.tls_cert);
        let key = path(over.tls_key, "ROPEWAY_TLS_KEY", written.tls_key);
        Ok(Self {
            mode,
            database,
            profile,
            space,
            listen: over
                .listen
                .or_else(|| env("ROPEWAY_LISTEN"))
                .or(written.listen)
                .unwrap_or_else(|| LISTEN.into()),
            tls: tls(cert, key)?,
            upstream: upstream.or(written.upstream),
            upstream_ca: path(args.upstream_ca.clone(), "ROPEWAY_UPSTREAM_CA", written.upstream_ca),
            trusted_hosts: trusted(&args.trusted_host, env("ROPEWAY_TRUSTED_HOSTS"), written.trusted_hosts),
            sync_enabled: enabled.or(written.sync_enabled).unwrap_or(true),
            conflict_email: env("SYNC_CONFLICT_EMAIL").or(written.conflict_email),
            alerts: alert::Settings {
                smtp: secret(environment, "ROPEWAY_SMTP_URL")?.or(written.smtp_url),
                from: env("ROPEWAY_ALERT_FROM").or(written.alert_from),
                webhook: env("ROPEWAY_ALERT_WEBHOOK").or(written.alert_webhook),
            },
            admin: admin(environment)?,
            limits: Limits::read(&written.limits, environment)?,
            token: secret(environment, "ROPEWAY_UPSTREAM_TOKEN")?,
            token_file: token_file.or_else(|| written.upstream_token_file.map(near)),
            data_dir,
            file,
        })
    }

    /// The file that may hold the token for the upstream.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.token_file.clone().unwrap_or_else(|| self.data_dir.join("upstream.token"))
    }

    /// The token for the upstream, read anew each time: it may be put there while the node runs.
    pub(crate) fn token(&self) -> Result<Option<String>, Failure> {
        if self.token.is_some() {
            return Ok(self.token.clone());
        }
        let path = self.token_file();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(Failure::new(format!("the token in {} cannot be read: {error}", path.display())))
            }
        }
    }
}

/// Reads the file that counts: the one named, else the first that is there.
fn find(
    args: &NodeArgs,
    data_dir: Option<&Path>,
    environment: &Environment,
) -> Result<(Option<PathBuf>, Written), Failure> {
    let named = args.config.clone().or_else(|| environment.get("ROPEWAY_CONFIG").map(PathBuf::from));
    let beside = data_dir.unwrap_or(Path::new(DATA_DIR)).join(FILE);
    let found = named.or_else(|| [beside, FILE.into()].into_iter().find(|path| path.is_file()));
    let Some(path) = found else { return Ok((None, Written::default())) };
    let text = fs::read_to_string(&path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let written = parse(&text, &path.display().to_string()).map_err(Failure::usage)?;
    Ok((Some(path), written))
}

/// Reads a configuration file's text. The error has file, line and column.
fn parse(text: &str, name: &str) -> Result<Written, String> {
    toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{name}:{line}:{column}: {}", error.message())
    })
}

/// Checks a configuration file by itself.
pub(crate) fn check(text: &str, name: &str) -> Result<(), String> {
    let written = parse(text, name)?;
    let nothing = Environment::default();
    let checked = mode(None, written.mode).and_then(|_| Limits::read(&written.limits, &nothing));
    let checked =
        checked.and_then(|_| written.database.map_or(Ok(()), |url| Database::parse(&url).map(drop)));
    checked.map_err(|failure| format!("{name}: {failure}"))
}

fn mode(from_environment: Option<String>, from_file: Option<String>) -> Result<Mode, Failure> {
    let (name, word) = match (from_environment, from_file) {
        (Some(word), _) => ("SYSTEM_MODE", word),
        (None, Some(word)) => ("mode", word),
        (None, None) => return Ok(Mode::Cloud),
    };
    match word.as_str() {
        "cloud" => Ok(Mode::Cloud),
        "offline_device" => Ok(Mode::OfflineDevice),
        other => {
            Err(Failure::usage(format!("{name}=`{other}` is no mode: it is `cloud` or `offline_device`"))
                .next("set one of the two, or leave it unset for `cloud`; nothing was started or changed"))
        }
    }
}

/// Both files of a certificate, or neither.
fn tls(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<TlsFiles>, Failure> {
    let missing = |what: &str, name: &str| {
        Failure::usage(format!("TLS needs a certificate and its private key: the {what} is missing"))
            .next(format!("give --{name} FILE as well; nothing was started or changed"))
    };
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(missing("key", "tls-key")),
        (None, Some(_)) => Err(missing("certificate", "tls-cert")),
    }
}

/// The trusted hosts of the first place that names any.
fn trusted(flags: &[String], environment: Option<String>, file: Vec<String>) -> Vec<String> {
    if !flags.is_empty() {
        return flags.to_vec();
    }
    environment.map_or(file, |list| {
        list.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect()
    })
}

/// Whether a profile is named by its file.
pub(crate) fn is_file(profile: &str) -> bool {
    profile.contains(['/', '\\']) || profile.ends_with(".toml")
}

fn switch(name: &str, text: &str) -> Result<bool, Failure> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        other => Err(Failure::usage(format!("{name}=`{other}` is neither `true` nor `false`"))),
    }
}

/// A secret, from its variable or from the file that `<NAME>_FILE` names.
fn secret(environment: &Environment, name: &str) -> Result<Option<String>, Failure> {
    let in_file = format!("{name}_FILE");
    match (environment.get(name), environment.get(&in_file)) {
        (Some(_), Some(_)) => Err(Failure::usage(format!("{name} and {in_file} are both set: keep one"))),
        (Some(value), None) => Ok(Some(value.trim().to_owned())),
        (None, Some(path)) => match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            // The token may come later; `Config::token` looks again.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with("TOKEN") => Ok(None),
            Err(error) => Err(Failure::usage(format!("{in_file}: {path}: {error}"))),
        },
        (None, None) => Ok(None),
    }
}

fn admin(environment: &Environment) -> Result<Option<Admin>, Failure> {
    let Some(email) = environment.get("ROPEWAY_ADMIN_EMAIL") else { return Ok(None) };
    let password = secret(environment, "ROPEWAY_ADMIN_PASSWORD")?;
    let missing =
        || Failure::usage("ROPEWAY_ADMIN_EMAIL is set, but neither ROPEWAY_ADMIN_PASSWORD nor its _FILE");
    Ok(Some(Admin { email: email.to_owned(), password: password.ok_or_else(missing)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: NodeArgs, env: &[(&str, &str)]) -> Result<Config, Failure> {
        Config::load(&args, Overrides::default(), &Environment::of(env))
    }

    #[test]
    fn flag_before_environment_before_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ropeway.toml");
        fs::write(&file, "listen = '1.1.1.1:1'\nspace = 'infile'\nprofile = 'p.toml'\n").unwrap();
        let args = NodeArgs { data_dir: Some(dir.path().into()), ..NodeArgs::default() };
        let config = load(args.clone(), &[]).unwrap();
        assert_eq!((config.listen.as_str(), config.space.as_str()), ("1.1.1.1:1", "infile"));
        assert_eq!(
            config.profile,
            Some(dir.path().join("p.toml").display().to_string()),
            "relative to the file"
        );
        let config =
            load(args.clone(), &[("ROPEWAY_LISTEN", "2.2.2.2:2"), ("ROPEWAY_SPACE", "inenv")]).unwrap();
        assert_eq!((config.listen.as_str(), config.space.as_str()), ("2.2.2.2:2", "inenv"));
        let over = Overrides { listen: Some("3.3.3.3:3".into()), ..Overrides::default() };
        let config = Config::load(&args, over, &Environment::of(&[("ROPEWAY_LISTEN", "2.2.2.2:2")])).unwrap();
        assert_eq!(config.listen, "3.3.3.3:3");
    }

    #[test]
    fn documented_names_work_and_ours_come_first() {
        let documented =
            [("SYNC_SERVER_URL", "https://a"), ("DATABASE_URL", "sqlite:x.db"), ("SYNC_ENABLED", "false")];
        let config = load(NodeArgs::default(), &documented).unwrap();
        assert_eq!(config.upstream.as_deref(), Some("https://a"));
        assert_eq!((config.database, config.sync_enabled), (Database::File("x.db".into()), false));
        let ours = [&documented[..], &[("ROPEWAY_UPSTREAM_URL", "https://b")]].concat();
        assert_eq!(load(NodeArgs::default(), &ours).unwrap().upstream.as_deref(), Some("https://b"));
    }

    #[test]
    fn a_certificate_has_a_key_and_files_are_near_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            "tls_cert = 'a.pem'\ntls_key = 'a.key'\nupstream_ca = 'ca.pem'\ntrusted_hosts = ['a', 'b']\n";
        fs::write(dir.path().join("ropeway.toml"), file).unwrap();
        let args = NodeArgs { data_dir: Some(dir.path().into()), ..NodeArgs::default() };
        let config = load(args.clone(), &[("ROPEWAY_TLS_KEY", "/b.key")]).unwrap();
        let tls = config.tls.unwrap();
        assert_eq!((tls.cert, tls.key), (dir.path().join("a.pem"), PathBuf::from("/b.key")));
        assert_eq!(config.upstream_ca, Some(dir.path().join("ca.pem")));
        assert_eq!(config.trusted_hosts, ["a", "b"]);
        let config = load(args.clone(), &[("ROPEWAY_TRUSTED_HOSTS", "c, d,")]).unwrap();
        assert_eq!(config.trusted_hosts, ["c", "d"]);
        let flags = NodeArgs { trusted_host: vec!["e".into()], ..args };
        assert_eq!(load(flags, &[("ROPEWAY_TRUSTED_HOSTS", "c")]).unwrap().trusted_hosts, ["e"]);
        let why = load(NodeArgs::default(), &[("ROPEWAY_TLS_CERT", "a")]).err().unwrap().to_string();
        assert!(why.contains("key is missing"), "{why}");
        assert!(load(NodeArgs::default(), &[("ROPEWAY_TLS_KEY", "a")]).is_err());
    }

    #[test]
    fn unknown_modes_and_stores_are_refused_by_name() {
        let why = load(NodeArgs::default(), &[("SYSTEM_MODE", "foo")]).err().unwrap().to_string();
        assert!(why.contains("`cloud`") && why.contains("`offline_device`") && why.contains("foo"), "{why}");
        assert_eq!(load(NodeArgs::default(), &[]).unwrap().mode, Mode::Cloud);
        let config = load(NodeArgs::default(), &[("DATABASE_URL", "postgres://x/y")]).unwrap();
        assert_eq!(config.database, Database::Server("postgres://x/y".into()));
        assert!(load(NodeArgs::default(), &[("DATABASE_URL", "mysql://x/y")]).is_err());
    }

    #[test]
    fn mistakes_in_the_file_have_a_place() {
        assert_eq!(parse("listen = 1", "f").unwrap_err().split(' ').next(), Some("f:1:10:"));
        let why = parse("space = 'a'\nlisten_on = 'x'\n", "f").unwrap_err();
        assert!(why.starts_with("f:2:1:") && why.contains("listen_on"), "{why}");
        assert!(check("[limits]\npages = 1\n", "f").unwrap_err().contains("page_rows"));
    }

    #[test]
    fn secrets_come_from_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        fs::write(&file, "abc\n").unwrap();
        let file = file.display().to_string();
        let token = |env: &[(&str, &str)]| load(NodeArgs::default(), env).and_then(|c| c.token());
        assert_eq!(token(&[("ROPEWAY_UPSTREAM_TOKEN_FILE", &file)]).unwrap().as_deref(), Some("abc"));
        assert!(token(&[("ROPEWAY_UPSTREAM_TOKEN_FILE", &file), ("ROPEWAY_UPSTREAM_TOKEN", "x")]).is_err());
        assert!(load(NodeArgs::default(), &[("ROPEWAY_ADMIN_EMAIL", "a@b.c")]).is_err());
    }
}
