//! Several servers of one node on one PostgreSQL database, behind one address: they are killed, the database
//! is killed, its transactions meet others, their clocks differ. Nothing is lost and nothing comes twice.

use crate::{
    cluster::Cluster,
    faults::registered_once,
    rig::{Lot, Node, get, incident, pause, put_token, wait_for},
    server::{Database, alone},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// How many devices push and pull.
const DEVICES: usize = 4;
/// How often everybody writes, and somebody is killed.
const ROUNDS: usize = 8;
/// How many incidents a device adds in a round.
const INCIDENTS: usize = 12;

/// Now and then a transaction met another one, says the database.
const MEETINGS: &str = "
CREATE FUNCTION met() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF random() < 0.1 THEN RAISE EXCEPTION 'it met another one' USING ERRCODE = '40001'; END IF;
  RETURN NULL; END $$;
CREATE TRIGGER met AFTER INSERT OR UPDATE ON rw_records FOR EACH STATEMENT EXECUTE FUNCTION met();
CREATE TRIGGER met AFTER INSERT ON rw_receipts FOR EACH STATEMENT EXECUTE FUNCTION met();";
const NO_MEETINGS: &str = "DROP FUNCTION met() CASCADE";
const OPEN: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ropeway'
  AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '1 second'";
const STAMPS: &str = "SELECT count(*), count(DISTINCT stamp), max(stamp) FROM rw_records";

/// An address behind which each new connection goes to the next server that takes it.
struct Balancer {
    url: String,
    /// How many connections each server took.
    taken: Arc<[AtomicUsize; 2]>,
}

impl Balancer {
    fn before(servers: [String; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken: Arc<[AtomicUsize; 2]> = Arc::default();
        let counted = taken.clone();
        thread::spawn(move || {
            for (n, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let order = [n % 2, (n + 1) % 2];
                let found =
                    order.into_iter().find_map(|at| Some((at, TcpStream::connect(&servers[at]).ok()?)));
                let Some((at, server)) = found else { continue };
                counted[at].fetch_add(1, Ordering::Relaxed);
                join(client, server);
            }
        });
        Self { url, taken }
    }
}

/// Passes on what either side says, until either ends.
fn join(a: TcpStream, b: TcpStream) {
    for (mut from, mut to) in [(a.try_clone().unwrap(), b.try_clone().unwrap()), (b, a)] {
        thread::spawn(move || {
            let mut piece = [0; 16_384];
            while let Ok(count @ 1..) = from.read(&mut piece) {
                if to.write_all(&piece[..count]).is_err() {
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            io::Result::Ok(())
        });
    }
}

/// Everything that takes part.
struct Crowd {
    servers: [Node; 2],
    devices: Vec<Node>,
    balancer: Balancer,
    /// What each incident says, and how many changes were made to it.
    expected: BTreeMap<String, (String, u64)>,
    database: String,
    _dir: TempDir,
}

impl Crowd {
    fn gather(database: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut servers = ["a", "b"].map(|name| Node::new(dir.path().join(name)));
        let skewed = dir.path().join("clock");
        fs::write(&skewed, "120000000").unwrap();
        for server in &mut servers {
            server.set("DATABASE_URL", database);
        }
        servers[1].set("ROPEWAY_TEST_CLOCK", skewed.display());
        servers[0].write("race", "race-1", json!({ "name": "Sprint" }));
        let address = |server: &mut Node| server.serve(&[]).strip_prefix("http://").unwrap().to_owned();
        let addresses = servers.each_mut().map(address);
        let balancer = Balancer::before(addresses);
        let device = |n: usize| {
            let mut node = Node::new(dir.path().join(format!("device-{n}")));
            let added = servers[0].ask(&["device", "add", &format!("Pi {n}"), "--role", "device"]);
            put_token(&node.dir, added["api_token"].as_str().unwrap());
            node.set("ROPEWAY_UPSTREAM_URL", &balancer.url);
            node.set("ROPEWAY_LIMIT_SYNC_BATCH_CHANGES", 5);
            node.set("ROPEWAY_LIMIT_SYNC_PAGE", 20);
            node.ask(&["sync"]);
            node.serve(&[]);
            node
        };
        let devices: Vec<Node> = (0..DEVICES).map(device).collect();
        Self {
            servers,
            devices,
            balancer,
            expected: BTreeMap::new(),
            database: database.to_owned(),
            _dir: dir,
        }
    }

    /// Every device writes new incidents and corrects some of its older ones.
    fn write(&mut self, round: usize) {
        for (n, device) in self.devices.iter().enumerate() {
            let mut edits: Vec<Value> = Vec::new();
            for i in 0..INCIDENTS {
                let (id, text) = (format!("d{n}-{round}-{i}"), format!("seen by {n} in {round}"));
                edits.push(incident(&id, &text));
                self.expected.insert(id, (text, 1));
            }
            for i in 0..3.min(round) {
                let id = format!("d{n}-{}-{i}", round - 1);
                let text = format!("corrected by {n} in {round}");
                edits.push(json!({ "collection": "incident", "id": id, "data": { "description": text } }));
                let held = self.expected.get_mut(&id).unwrap();
                *held = (text, held.1 + 1);
            }
            device.write_all(&edits);
        }
    }

    fn ask(&self, sql: &'static str) -> tokio_postgres::Row {
        let url = self.database.clone();
        alone(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.query_one(sql, &[]).await.unwrap()
        })
    }

    fn tell(&self, sql: &'static str) {
        let url = self.database.clone();
        alone(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(sql).await.unwrap();
        });
    }

    /// Everybody holds the same, and it is what was written, each change once.
    fn come_to_rest(&mut self) {
        for (n, device) in self.devices.iter().enumerate() {
            wait_for(&format!("device {n} to be level"), || {
                let report = device.run(&["sync"]).json();
                (report["unsettled"] == 0 && report["digests"]["equal"] == true).then_some(())
            });
        }
        let all = self.servers[0].canonical();
        for (n, device) in self.devices.iter().enumerate() {
            wait_for(&format!("device {n} to hold what all hold"), || {
                let _ = device.run(&["sync"]);
                (device.canonical() == all).then_some(())
            });
        }
        let live = self.servers[1].live("incident");
        assert_eq!(live.len(), self.expected.len());
        for (id, (text, changes)) in &self.expected {
            assert_eq!(live[id]["data"]["description"], **text, "{id}");
            // A correction may have been merged with what was still unsent; nothing is applied twice.
            let version = live[id]["version"].as_u64().unwrap();
            assert!(version <= *changes, "{id} was changed {changes} times and has version {version}");
        }
        assert_eq!(self.servers[0].ask(&["conflicts", "ls", "--all"]), json!([]));
        let stamps = self.ask(STAMPS);
        let (rows, distinct): (i64, i64) = (stamps.get(0), stamps.get(1));
        assert_eq!(rows, distinct, "no two records have one stamp");
        assert_eq!(self.ask(OPEN).get::<_, i64>(0), 0, "a connection stayed in a transaction");
        let doctor = self.servers[0].run(&["doctor"]).exits(0);
        assert!(doctor.stdout.contains("is whole"), "{doctor}");
    }
}

#[test]
fn postgres_servers_killed_with_their_database_under_four_devices_lose_nothing() {
    let cluster = Cluster::start().unwrap();
    let mut crowd = Crowd::gather(&format!("{}/postgres", cluster.url));
    crowd.tell(MEETINGS);
    let mut lot = Lot::new(4);
    for round in 0..ROUNDS {
        crowd.write(round);
        pause(Duration::from_millis(200 + lot.below(900)));
        if matches!(round, 2 | 5) {
            cluster.crash().unwrap();
        }
        let victim = &mut crowd.servers[round % 2];
        victim.kill();
        pause(Duration::from_millis(100 + lot.below(300)));
        victim.serve(&[]);
    }
    crowd.tell(NO_MEETINGS);
    crowd.come_to_rest();
    let taken = crowd.balancer.taken.each_ref_counts();
    assert!(taken.iter().all(|count| *count > 0), "both servers were asked: {taken:?}");
}

/// What a node said and heard of its syncs does not wait for the disk (ADR 0013): with the power goes the last of it,
/// at the cloud and at a device with a database of its own. No honest device is refused for it, nothing is lost, and
/// of a device that became two one is told.
#[test]
fn postgres_that_lost_the_last_nonces_takes_no_honest_device_for_a_copy() {
    let cluster = Cluster::start().unwrap();
    let (cloud_at, device_at) = (format!("{}/postgres", cluster.url), format!("{}/device", cluster.url));
    // Else it brings them to the disk by itself a moment later.
    for order in ["ALTER SYSTEM SET wal_writer_delay = '10s'", "CREATE DATABASE device"] {
        sql(&cloud_at, order);
    }
    cluster.crash().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = Node::new(dir.path().join("cloud"));
    cloud.set("DATABASE_URL", &cloud_at);
    cloud.write("race", "race-1", json!({ "name": "Sprint" }));
    let url = cloud.serve(&[]);
    let mut devices = ["file", "server"].map(|name| Node::new(dir.path().join(name)));
    devices[1].set("DATABASE_URL", &device_at);
    for (n, device) in devices.iter_mut().enumerate() {
        let added = cloud.ask(&["device", "add", &format!("Pi {n}"), "--role", "device"]);
        put_token(&device.dir, added["api_token"].as_str().unwrap());
        device.set("ROPEWAY_UPSTREAM_URL", &url);
        device.ask(&["sync"]);
    }
    let said = |at: &str| {
        sql(at, "SELECT string_agg(value, ' ' ORDER BY name) FROM rw_meta WHERE name LIKE 'nonces.%'")
    };
    let synced = |device: &Node| {
        wait_for("a sync", || Some(device.run(&["sync"])).filter(|ran| ran.code == 0)).json();
    };
    // A checkpoint in between would leave the crash nothing to take.
    let (mut lost, mut rounds) = ([0, 0], 0);
    while lost.contains(&0) {
        assert!(rounds < 12, "the crash took nothing: {lost:?} of {rounds}");
        // Who comes last has nobody behind it who would wait for the disk.
        for n in [(rounds + 1) % 2, rounds % 2] {
            let device = &devices[n];
            device.write_all(&[incident(&format!("i{n}-{rounds}"), "seen")]);
            // A receipt waits for the disk and takes along what was said before. Behind it nothing does.
            synced(device);
            synced(device);
        }
        let before = [said(&cloud_at), said(&device_at)];
        cluster.crash().unwrap();
        for (lost, (before, after)) in
            lost.iter_mut().zip(before.iter().zip([said(&cloud_at), said(&device_at)]))
        {
            *lost += u32::from(*before != after);
        }
        rounds += 1;
    }
    for device in &devices {
        let report = wait_for("a sync", || Some(device.run(&["sync"])).filter(|ran| ran.code == 0)).json();
        assert_eq!(
            (&report["unsettled"], &report["digests"]["equal"]),
            (&json!(0), &json!(true)),
            "{report}"
        );
        assert_eq!(device.ask(&["status"])["cloned_at"], Value::Null);
    }
    assert_eq!(cloud.live("incident").len(), rounds * devices.len());
    let twin = twin(&devices[0], &dir.path().join("twin"), &url);
    let refused = |node: &Node| node.run(&["sync"]).json()["problem"] == json!("device_cloned");
    devices[0].ask(&["sync"]);
    cluster.crash().unwrap();
    let told = wait_for("one of both is told", || {
        let told = [refused(&twin), refused(&devices[0])];
        told.contains(&true).then_some(told)
    });
    assert!(told.contains(&false), "the other one goes on: {told:?}");
}

/// A copy of a device that does not run, with the same upstream.
fn twin(device: &Node, dir: &Path, url: &str) -> Node {
    let mut twin = Node::new(dir.to_owned());
    fs::create_dir_all(dir).unwrap();
    for file in fs::read_dir(&device.dir).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    twin.set("ROPEWAY_UPSTREAM_URL", url);
    twin
}

/// The text that a statement finds, on a connection of its own, as soon as the server answers.
fn sql(url: &str, statement: &'static str) -> Option<String> {
    let url = url.to_owned();
    alone(async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let said = client.simple_query(statement).await.unwrap();
        said.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    })
}

/// F13: one device is registered 32 times at each of two servers at the same moment.
#[test]
fn postgres_servers_register_one_device_once() {
    let (database, dir) = (Database::make(), tempfile::tempdir().unwrap());
    let mut servers = ["a", "b"].map(|name| Node::new(dir.path().join(name)));
    servers.iter_mut().for_each(|server| server.set("DATABASE_URL", database.url()));
    servers[0].write("race", "race-1", json!({ "name": "Sprint" }));
    let admin = servers[0].ask(&["device", "add", "Office", "--role", "admin"]);
    let urls = servers.each_mut().map(|server| server.serve(&[]));
    registered_once(&urls.each_ref().map(String::as_str), admin["api_token"].as_str().unwrap());
    let listed = servers[1].ask(&["device", "ls"]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
}

/// A rolling restart: each server in turn drains, ends with 0 and comes back, while everybody works on.
#[test]
fn postgres_servers_are_restarted_one_after_the_other() {
    let database = Database::make();
    let mut crowd = Crowd::gather(&database.url());
    for round in 0..4 {
        crowd.write(round);
        let server = &mut crowd.servers[round % 2];
        assert_eq!(server.stop(), 0, "{}", server.log());
        server.serve(&[]);
    }
    crowd.come_to_rest();
}

/// A database that vanishes, and one that can only be read: told by name, nothing half done, and gone on with by
/// itself.
#[test]
fn postgres_that_vanishes_or_can_only_be_read_is_told_and_gone_on_with() {
    let database = Database::make();
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path().join("node"));
    node.set("DATABASE_URL", database.url());
    node.write("race", "race-1", json!({ "name": "Sprint" }));
    let url = node.serve(&[]);
    let ready = |word: &str| {
        wait_for(word, || Some(get(&url, "/health/ready")).filter(|answer| answer.contains(word)));
    };
    ready("HTTP/1.1 200");
    database.order("ALTER DATABASE {} ALLOW_CONNECTIONS false");
    ready("not currently accepting connections");
    let told = node.run(&["write", "race", "race-2", "{\"name\":\"Relay\"}"]).exits(1).to_string();
    assert!(told.contains("nothing was written"), "{told}");
    database.order("ALTER DATABASE {} ALLOW_CONNECTIONS true");
    ready("HTTP/1.1 200");
    database.order("ALTER DATABASE {} SET default_transaction_read_only = on");
    let told = node.run(&["write", "race", "race-2", "{\"name\":\"Relay\"}"]).exits(1).to_string();
    assert!(told.contains("can only be read"), "{told}");
    assert_eq!(node.live("race").len(), 1, "and it is read on");
    database.order("ALTER DATABASE {} RESET default_transaction_read_only");
    node.write("race", "race-2", json!({ "name": "Relay" }));
    ready("HTTP/1.1 200");
}

/// The counts of an array of counters.
trait Counts {
    fn each_ref_counts(&self) -> [usize; 2];
}

impl Counts for [AtomicUsize; 2] {
    fn each_ref_counts(&self) -> [usize; 2] {
        self.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}
