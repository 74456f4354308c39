//! Starts, asks, kills and compares nodes that are real processes.

use crate::server::Database;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longer than anything here may take, so that a hang is a failure and not a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `found` finds something. The one place that sleeps: processes can only be asked again.
#[allow(clippy::disallowed_methods, reason = "another process can only be asked again and again")]
pub(crate) fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number that `cargo xtask soak` or `cargo xtask power` hands to its test.
#[allow(clippy::disallowed_methods, reason = "a test has no arguments of its own")]
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// Lets a moment pass: the moment at which a process is killed is a part of the experiment.
#[allow(clippy::disallowed_methods, reason = "the moment of the kill is what is drawn by lot")]
pub(crate) fn pause(moment: Duration) {
    std::thread::sleep(moment);
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Its one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self}"))
    }
    /// Its JSON documents, one a line.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program with an environment of its own.
pub(crate) fn ropeway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ropeway"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Where the databases of new nodes are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each in its data directory.
    File,
    /// On the server that the tests start.
    Server,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place::File) };
}

/// Where the databases of this thread's nodes are.
pub(crate) fn place() -> Place {
    PLACE.get()
}

/// Runs something whose nodes have their databases there.
pub(crate) fn on<T>(place: Place, work: impl FnOnce() -> T) -> T {
    PLACE.set(place);
    work()
}

/// Runs a test on PostgreSQL.
pub(crate) fn on_postgres(test: fn()) {
    on(Place::Server, test);
}

/// One node: a data directory and, while it serves, a process.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    /// Its database on the server, where it has one there: gone after its processes.
    _database: Option<Database>,
    env: BTreeMap<String, String>,
    serving: Option<Serving>,
    /// The address it has once it served; kept over a restart.
    port: u16,
}

struct Serving {
    child: Child,
    /// Kept open: a node must not fail because nobody reads what it prints.
    _stdout: BufReader<ChildStdout>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    /// A node that is not there yet.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let quick = [
            ("ROPEWAY_LIMIT_SYNC_DEBOUNCE_MS", "1"),
            ("ROPEWAY_LIMIT_SYNC_PROBE_MS", "20"),
            ("ROPEWAY_LIMIT_IDLE_TIMEOUT_MS", "5000"),
        ];
        let mut env: BTreeMap<String, String> =
            quick.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let database = match place() {
            Place::File => None,
            Place::Server => Some(Database::make()),
        };
        env.extend(database.as_ref().map(|database| ("DATABASE_URL".to_owned(), database.url())));
        Self { dir, _database: database, env, serving: None, port: 0 }
    }

    /// Sets a variable for every process of this node that is started from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.env.insert(name.to_owned(), value.to_string());
    }
    /// Takes a variable away.
    pub(crate) fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// A command on its data directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = ropeway();
        command.args(args).arg("--data-dir").arg(&self.dir).envs(&self.env);
        command
    }

    /// Runs a command with `--json`.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).arg("--json").output().unwrap().into()
    }

    /// Runs a command that must exit 0 and print one document.
    #[track_caller]
    pub(crate) fn ask(&self, args: &[&str]) -> Value {
        self.run(args).exits(0).json()
    }

    /// Writes one record; it must be taken in.
    #[track_caller]
    pub(crate) fn write(&self, collection: &str, id: &str, data: Value) -> Value {
        self.ask(&["write", collection, id, &data.to_string()])
    }

    /// Writes many records by one process.
    #[track_caller]
    pub(crate) fn write_all(&self, edits: &[Value]) {
        let mut child = self.writer();
        let mut stdin = child.stdin.take().unwrap();
        let text: String = edits.iter().map(|edit| format!("{edit}\n")).collect();
        let feeding = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let ran: Ran = child.wait_with_output().unwrap().into();
        feeding.join().unwrap().unwrap();
        let ran = ran.exits(0);
        assert_eq!(ran.lines().len(), edits.len());
    }

    /// A process that writes what comes on its standard input and prints a receipt for each line.
    pub(crate) fn writer(&self) -> Child {
        let mut command = self.command(&["write", "--from", "-", "--json"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Serves, on the port it had before; returns its address.
    #[track_caller]
    pub(crate) fn serve(&mut self, args: &[&str]) -> String {
        let command = self.command(&["serve"]);
        self.serve_by(command, args)
    }

    /// Serves by a command that was prepared.
    #[track_caller]
    pub(crate) fn serve_by(&mut self, mut command: Command, args: &[&str]) -> String {
        assert!(self.serving.is_none(), "it serves already");
        fs::create_dir_all(&self.dir).unwrap();
        let log = File::options().create(true).append(true).open(self.dir.join("serve.log")).unwrap();
        let listen = format!("127.0.0.1:{}", self.port);
        command.args(["--listen", &listen]).args(args).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let url = first.strip_prefix("listening on ").unwrap_or_else(|| panic!("{first:?}: {}", self.log()));
        let url = url.trim_end().to_owned();
        self.port = url.rsplit_once(':').unwrap().1.parse().unwrap();
        self.serving = Some(Serving { child, _stdout: stdout });
        url
    }

    /// The address at which it serves, or served last.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("serve.log")).unwrap_or_default()
    }

    /// The serving process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.serving.as_ref().unwrap().child)
    }

    /// Whether it still serves.
    pub(crate) fn is_up(&mut self) -> bool {
        self.serving.as_mut().is_some_and(|serving| serving.child.try_wait().unwrap().is_none())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            let _ = serving.child.kill();
            let _ = serving.child.wait();
        }
    }

    /// SIGTERM; returns the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        let mut serving = self.serving.take().unwrap();
        kill_process(Pid::from_child(&serving.child), Signal::TERM).unwrap();
        serving.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Every live record, joined row and open conflict, canonically.
    #[track_caller]
    pub(crate) fn canonical(&self) -> String {
        let output = self.command(&["dump", "--canonical"]).output().unwrap();
        Ran::from(output).exits(0).stdout
    }

    /// The live records of a collection: id → the whole record.
    #[track_caller]
    pub(crate) fn live(&self, collection: &str) -> BTreeMap<String, Value> {
        let rows = self.run(&["get", collection]).exits(0).lines();
        rows.into_iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row)).collect()
    }

    /// One record's data.
    #[track_caller]
    pub(crate) fn data(&self, collection: &str, id: &str) -> Value {
        self.ask(&["get", collection, id])["data"].clone()
    }
}

/// A cloud node and a Pi that may sync with it, in one directory.
pub(crate) struct Pair {
    pub(crate) cloud: Node,
    pub(crate) pi: Node,
    pub(crate) token: String,
    pub(crate) device: String,
    pub(crate) dir: TempDir,
}

impl Pair {
    /// Two directories in which nothing is yet.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (cloud, pi) = (Node::new(dir.path().join("cloud")), Node::new(dir.path().join("pi")));
        Self { cloud, pi, token: String::new(), device: String::new(), dir }
    }

    /// Both nodes: the cloud has a race, and a token for the Pi that the Pi has too. None serves yet.
    pub(crate) fn new() -> Self {
        Self::with(|_, _| {}, "device")
    }

    /// The same with settings for each and the Pi's role.
    pub(crate) fn with(settings: impl FnOnce(&mut Node, &mut Node), role: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut cloud, mut pi) = (Node::new(dir.path().join("cloud")), Node::new(dir.path().join("pi")));
        settings(&mut cloud, &mut pi);
        cloud.write("race", "race-1", json!({ "name": "Sprint" }));
        let added = cloud.ask(&["device", "add", "Start Line Pi", "--role", role]);
        let text = |name: &str| added[name].as_str().unwrap().to_owned();
        let (token, device) = (text("api_token"), text("device_uuid"));
        put_token(&pi.dir, &token);
        Self { cloud, pi, token, device, dir }
    }

    /// Serves the cloud and tells the Pi whom to follow; returns the cloud's address.
    #[track_caller]
    pub(crate) fn up(&mut self) -> String {
        let url = self.cloud.serve(&[]);
        self.pi.set("ROPEWAY_UPSTREAM_URL", &url);
        url
    }

    /// Syncs the Pi until nothing waits there; both sides must then be equal, byte for byte.
    #[track_caller]
    pub(crate) fn settle(&self) -> Value {
        let report = wait_for("the outbox to drain and the digests to be equal", || {
            let ran = self.pi.run(&["sync"]);
            let report = ran.json();
            let quiet = report["unsettled"] == 0 && report["digests"]["equal"] == true;
            (quiet && matches!(ran.code, 0 | 3)).then_some(report)
        });
        self.assert_equal();
        report
    }

    /// Both dumps are equal, byte for byte.
    #[track_caller]
    pub(crate) fn assert_equal(&self) {
        let (cloud, pi) = (self.cloud.canonical(), self.pi.canonical());
        if cloud != pi {
            let only = |a: &str, b: &str| {
                let b: std::collections::BTreeSet<&str> = b.lines().collect();
                a.lines().filter(|line| !b.contains(line)).take(5).collect::<Vec<_>>().join("\n")
            };
            panic!("only in the cloud:\n{}\nonly on the Pi:\n{}", only(&cloud, &pi), only(&pi, &cloud));
        }
    }
}

/// Sends a body without any client of ours in between; the status and the JSON that came back.
pub(crate) fn post(url: &str, path: &str, token: &str, body: &str) -> std::io::Result<(u16, Value)> {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    Ok((status, serde_json::from_str(body).map_err(|_| cut())?))
}

/// Asks a node once, over plain HTTP; the whole answer.
#[track_caller]
pub(crate) fn get(url: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Sends a request without any client of ours in between; the status and the body that came back.
#[track_caller]
pub(crate) fn call(
    url: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String) {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let named: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{named}content-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap(), body.to_owned())
}

/// Puts a token where a node looks for it.
pub(crate) fn put_token(dir: &Path, token: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("upstream.token"), token).unwrap();
}

/// One incident as a line of `write --from`. Without a bib nothing is ever taken for the same incident.
pub(crate) fn incident(id: &str, description: &str) -> Value {
    json!({ "collection": "incident", "id": id, "data": { "race": "race-1", "description": description } })
}

/// Numbers by lot, the same for the same seed.
pub(crate) struct Lot(u64);

impl Lot {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}
