//! The same on PostgreSQL: every node of these tests has a database on the server that the tests start.

use crate::{
    backup::{path, verify},
    cluster::Cluster,
    rig::{self, Node, PATIENCE, Pair, Place, put_token, wait_for},
    server::{Database, alone},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::mpsc, thread::JoinHandle};

macro_rules! also {
    ($($room:ident: $($test:ident),+;)+) => {
        $($(
            #[test]
            fn $test() {
                rig::on_postgres(crate::$room::$test);
            }
        )+)+
    };
}

also! {
    crash: kill_9_of_either_side_during_an_upload_loses_nothing_and_doubles_nothing, what_write_printed_is_there_after_kill_9_of_the_writer_and_of_the_node, two_writers_beside_a_serving_node_lose_nothing;
    network: whatever_the_network_does_everything_arrives_once, an_edit_made_during_its_upload_stays_pending_and_arrives, a_batch_over_the_servers_limit_is_halved, without_a_good_token_nothing_goes_and_nothing_is_lost, a_node_without_a_token_works_on_and_follows_when_it_is_there, an_upstream_out_of_reach_uses_up_no_retry, a_live_stream_that_is_cut_again_and_again_sets_off_no_storm;
    backup: a_backup_of_a_serving_node_is_verified_restored_and_never_put_under_one_that_runs, kill_9_during_a_backup_leaves_the_backup_that_was_there, kill_9_during_a_restore_leaves_the_old_node_or_the_new_one, a_restored_cloud_gets_back_what_its_followers_hold, a_head_a_year_ahead_is_cured_and_its_followers_go_on;
    horizon: a_sleeping_device_holds_tombstones_back_and_is_named, a_device_from_beyond_the_horizon_loses_nothing_and_brings_nothing_back;
    people: a_refused_record_holds_back_its_children_only_and_goes_once_corrected, a_refused_change_can_be_given_up_and_stays_in_history, what_the_devices_role_may_not_write_is_refused_by_the_cloud, what_two_sides_wrote_is_settled_by_the_jury_and_none_of_it_is_lost, unknown_fields_are_kept_and_travel_and_unknown_collections_are_refused;
    faults: eight_copies_of_one_push_at_once_and_one_after_a_restart_take_effect_once, copies_of_one_push_at_two_nodes_take_effect_once, many_first_starts_at_once_make_one_node_and_lose_nothing, a_first_pull_killed_again_and_again_goes_on_where_it_was;
    commands: every_command_speaks_json_whether_or_not_a_node_serves, watching_prints_a_line_for_each_sync, the_first_administrator_is_added_once_and_a_change_can_be_repeated;
    audiences: a_competition_is_taken_along_and_given_back;
    documented: the_documented_uploads, the_documented_layers, the_documented_download, the_documented_decisions;
    dialect: which_two_incidents_are_one, twins_at_the_same_instant_are_one, fifty_incidents_are_cut_after_thirty, bad_items_do_not_spoil_their_neighbours, changes_edits_twins_and_merges_come_to_a_device, a_report_brings_the_bib_and_the_match, a_parent_that_never_comes_is_put_to_a_person_at_the_last_retry, what_a_device_takes_back_is_not_taken_for_a_repetition;
    dialect_far: a_device_that_was_away_for_long_is_told_and_loses_nothing, of_two_copies_of_a_device_the_second_is_told;
    library: two_athletes_share_a_library_and_nothing_else;
    race_day: a_race_day_on_a_pi_without_a_network, a_race_day_over_the_documented_api, numbers_are_each_sides_own_and_references_hold;
    dialect_people: the_door_knows_who_asks_and_what_they_may, competitions_of_one_name_are_merged_by_a_person, a_download_is_resumed_and_shows_nothing_else, uploads_are_measured, every_record_type_is_uploaded_and_downloaded, a_revoked_device_hands_its_work_in, a_clock_years_ahead_is_corrected;
}

/// A race day on a cloud on the server, with a Pi on a file and with a Pi on the server.
#[test]
fn the_race_day_is_played_on_the_server() {
    for pi in [None, Some(Database::make())] {
        let cloud = Database::make();
        let mut demo = rig::ropeway();
        demo.args(["demo", "--once", "--json", "--database", &cloud.url()]);
        demo.args(pi.iter().flat_map(|pi| ["--pi-database".to_owned(), pi.url()]));
        let ran: rig::Ran = demo.output().unwrap().into();
        let end = ran.exits(0).lines().pop().unwrap();
        assert_eq!((&end["event"], &end["ok"]), (&json!("end"), &json!(true)));
        // The same databases hold a node now, and are not played on again.
        let again: rig::Ran = demo.output().unwrap().into();
        assert!(again.exits(1).stdout.contains("holds a node already"));
    }
}

/// What is wrong with an address, a database or a command is told, with no password in it.
#[test]
fn what_is_wrong_with_a_database_on_a_server_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::make();
    let told = |url: &str, args: &[&str], code: i32| {
        let mut command = rig::ropeway();
        command.args(args).args(["--data-dir", dir.path().to_str().unwrap(), "--database", url, "--json"]);
        rig::Ran::from(command.output().unwrap()).exits(code).to_string()
    };
    assert!(told(&database.url(), &["status"], 1).contains("there is no node in the database"));
    let nowhere = format!("{}_nowhere", database.url());
    assert!(told(&nowhere, &["status"], 1).contains("no such database"));
    let refused = told("postgresql://me:secret@127.0.0.1:1/x", &["serve"], 1);
    assert!(refused.contains("Connection refused") && !refused.contains("secret"), "{refused}");
    let garbage = told("postgresql://me:secret@h:port/x", &["status"], 2);
    assert!(garbage.contains("cannot be understood") && !garbage.contains("secret"), "{garbage}");
    told(&database.url(), &["write", "race", "race-1", "{\"name\":\"Sprint\"}"], 0);
    assert!(told(&database.url(), &["get", "race"], 0).contains("Sprint"));
}

/// A cloud moves to a database of the other kind and back. Who follows it follows on, and nothing changes.
#[test]
fn a_node_moves_to_the_other_kind_of_database_and_back() {
    let mut pair = Pair::new();
    pair.up();
    pair.settle();
    pair.pi.write_all(&(0..10).map(|n| rig::incident(&format!("i-{n}"), "before")).collect::<Vec<_>>());
    pair.settle();
    for (n, to) in [Place::Server, Place::File].into_iter().enumerate() {
        let file = pair.dir.path().join(format!("move-{n}.ropeway"));
        pair.cloud.write("race", &format!("race-of-{n}"), json!({ "name": "Sprint" }));
        let before = pair.cloud.canonical();
        assert_eq!(pair.cloud.stop(), 0);
        let made = pair.cloud.ask(&["backup", path(&file)]);
        assert_eq!(verify(&file).exits(0).json()["manifest"], made["manifest"]);
        let moved = rig::on(to, || Node::new(pair.dir.path().join(format!("cloud-{n}"))));
        let foreseen = moved.ask(&["restore", path(&file), "--dry-run"]);
        assert_eq!(foreseen["replaces"], Value::Null);
        let restored = moved.ask(&["restore", path(&file)]);
        assert_eq!((&restored["kept"], &restored["backup"]), (&Value::Null, &made["manifest"]));
        let status = moved.ask(&["status"]);
        assert_eq!(status["epoch"], restored["epoch"]);
        assert_eq!(moved.canonical(), before);
        pair.cloud = moved;
        pair.up();
        // The Pi notices the new epoch, and the token it has is good here too.
        pair.pi.write("incident", &format!("after-{n}"), json!({ "race": "race-1", "description": "after" }));
        pair.settle();
        assert_eq!(pair.cloud.live("incident").len(), 11 + n);
        assert_eq!(pair.cloud.ask(&["conflicts", "ls"]), json!([]));
        pair.cloud.run(&["doctor"]).exits(0);
    }
}

/// A cloud on the server, followed by a device on a file and a device on the server, all of them at work.
#[test]
fn a_cloud_on_the_server_is_followed_by_devices_on_both_kinds_of_database() {
    let mut pair = rig::on(Place::Server, Pair::new);
    let url = pair.up();
    let mut other = rig::on(Place::File, || Node::new(pair.dir.path().join("other")));
    let added = pair.cloud.ask(&["device", "add", "Finish Line Pi", "--role", "device"]);
    put_token(&other.dir, added["api_token"].as_str().unwrap());
    other.set("ROPEWAY_UPSTREAM_URL", &url);
    pair.pi.serve(&[]);
    other.serve(&[]);
    // A device begins with what its cloud holds, and refers to that.
    wait_for("both to hold the race", || {
        [&pair.pi, &other].iter().all(|node| node.live("race").contains_key("race-1")).then_some(())
    });
    for n in 0..10 {
        for (name, node) in [("start", &pair.pi), ("finish", &other), ("cloud", &pair.cloud)] {
            node.write_all(&[rig::incident(&format!("{name}-{n}"), name)]);
        }
    }
    pair.pi.write("incident", "finish-0", json!({ "description": "corrected at the start" }));
    wait_for("all three to be equal", || {
        let all = [&pair.cloud, &pair.pi, &other].map(Node::canonical);
        let is_corrected = all[0].contains("corrected at the start");
        (is_corrected && all[0] == all[1] && all[1] == all[2]).then_some(())
    });
    assert_eq!(pair.cloud.live("incident").len(), 30);
    for node in [&pair.cloud, &pair.pi, &other] {
        node.run(&["doctor"]).exits(0);
    }
}

/// Ten servers start at the same moment on a database in which nothing is: they are one node.
#[test]
fn ten_servers_start_at_once_on_an_empty_database() {
    let (dir, database) = (tempfile::tempdir().unwrap(), Database::make());
    let mut servers: Vec<Node> = (0..10).map(|n| Node::new(dir.path().join(n.to_string()))).collect();
    let let_go = hold_up(database.url(), servers.len());
    std::thread::scope(|scope| {
        for server in &mut servers {
            server.set("DATABASE_URL", database.url());
            scope.spawn(|| server.serve(&[]));
        }
    });
    let_go.join().unwrap();
    servers[0].write("race", "race-1", json!({ "name": "Sprint" }));
    let epochs: BTreeSet<String> = servers.iter().map(|s| s.ask(&["status"])["epoch"].to_string()).collect();
    assert_eq!(epochs.len(), 1);
    assert!(servers.iter().all(|server| server.live("race").len() == 1));
    assert!(servers.iter_mut().all(|server| server.stop() == 0));
}

/// Whoever makes the first table of a database waits until so many do: then all go on at the same moment.
fn hold_up(url: String, servers: usize) -> JoinHandle<()> {
    const WAIT: &str = "SELECT count(*) FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let (begun, begins) = mpsc::channel();
    let holding = async move {
        let connect = async || {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        };
        let (holds, looks) = (connect().await, connect().await);
        holds.batch_execute("BEGIN; CREATE TABLE rw_schema (version int)").await.unwrap();
        begun.send(()).unwrap();
        let all_wait =
            async { while looks.query_one(WAIT, &[]).await.unwrap().get::<_, i64>(0) < servers as i64 {} };
        tokio::time::timeout(PATIENCE, all_wait).await.unwrap();
        holds.batch_execute("ROLLBACK").await.unwrap();
    };
    let holding = std::thread::spawn(|| alone(holding));
    begins.recv().unwrap();
    holding
}

/// A wrong password, a database that is not there and one of a newer program: each is told in a sentence, with
/// exit code 1, and no password stands in it or in the log.
#[test]
fn a_database_that_cannot_be_used_says_why_and_tells_no_secret() {
    const RULES: &str = "COPY (VALUES ('host all postgres 127.0.0.1/32 trust'),
      ('host all ropeway 127.0.0.1/32 scram-sha-256')) TO PROGRAM 'cat > pg_hba.conf'";
    let (dir, cluster) = (tempfile::tempdir().unwrap(), Cluster::start().unwrap());
    let admin = format!("{}/postgres", cluster.url);
    let order = |sql: &'static str| {
        let admin = admin.clone();
        alone(async move {
            let (client, connection) = tokio_postgres::connect(&admin, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(sql).await.unwrap();
        });
    };
    order("CREATE ROLE ropeway LOGIN PASSWORD 's3cret'");
    order("CREATE DATABASE node OWNER ropeway");
    order(RULES);
    // Read anew when the server starts.
    cluster.crash().unwrap();
    let url = |password: &str, database: &str| {
        let with = cluster.url.replace("postgres@", &format!("ropeway:{password}@"));
        format!("{with}/{database}")
    };
    let told = |url: &str| {
        ["serve", "status"].map(|command| {
            let mut ropeway = rig::ropeway();
            ropeway.args([command, "--data-dir", dir.path().to_str().unwrap(), "--database", url, "--json"]);
            let ran = rig::Ran::from(ropeway.env("RUST_LOG", "debug").output().unwrap()).exits(1);
            let all = ran.to_string();
            assert!(!all.contains("s3cret") && !all.contains("wr0ng"), "{all}");
            ran.json()["error"].to_string()
        })
    };
    for error in told(&url("wr0ng", "node")) {
        assert!(error.contains("user or password is not accepted"), "{error}");
    }
    for error in told(&url("s3cret", "nowhere")) {
        assert!(error.contains("there is no such database"), "{error}");
    }
    let node = Node::new(dir.path().join("node"));
    let mut write = node.command(&["write", "race", "race-1", "{\"name\":\"Sprint\"}"]);
    rig::Ran::from(write.env("DATABASE_URL", url("s3cret", "node")).output().unwrap()).exits(0);
    let newer = format!("{}/node", cluster.url);
    alone(async move {
        let (client, connection) = tokio_postgres::connect(&newer, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("INSERT INTO rw_schema VALUES (2, 0, 0)").await.unwrap();
    });
    for error in told(&url("s3cret", "node")) {
        assert!(error.contains("install the newer version"), "{error}");
    }
}

/// A device's own database fails over to a replica that lacks its last transactions: what it last said to the
/// cloud is among them. It is no copy, nobody has to do anything, and what it had sent comes back.
#[test]
fn a_device_whose_own_database_fails_over_is_not_taken_for_a_copy() {
    let cluster = Cluster::start().unwrap();
    let mut pair = Pair::with(|_, pi| pi.set("DATABASE_URL", format!("{}/postgres", cluster.url)), "device");
    pair.up();
    pair.settle();
    let before = pair.pi.ask(&["status"])["epoch"].clone();
    cluster.keep().unwrap();
    for n in 0..3 {
        let lost = json!({ "race": "race-1", "description": "sent, and lost here" });
        pair.pi.write("incident", &format!("lost-{n}"), lost);
        pair.settle();
    }
    cluster.fail_over().unwrap();
    assert_eq!(pair.pi.live("incident").len(), 0, "the replica lacks it");
    pair.pi.write("incident", "after", json!({ "race": "race-1", "description": "after" }));
    pair.settle();
    assert_ne!(pair.pi.ask(&["status"])["epoch"], before, "who follows this device notices");
    assert_eq!(pair.cloud.live("incident").len(), 4);
    assert_eq!(pair.pi.ask(&["status"])["cloned_at"], Value::Null);
    let seen = &pair.cloud.ask(&["device", "ls"])[0];
    assert_eq!((&seen["cloned_at"], &seen["installations"]), (&Value::Null, &json!(2)));
    // The next sync is one of the same installation.
    pair.pi.write("incident", "later", json!({ "race": "race-1", "description": "later" }));
    pair.settle();
    assert_eq!(pair.cloud.ask(&["device", "ls"])[0]["installations"], 2);
    assert_eq!(pair.cloud.ask(&["conflicts", "ls", "--all"]), json!([]));
}
