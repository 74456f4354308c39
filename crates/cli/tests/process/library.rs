//! What an app shares among all its spaces, with real processes: two athletes of one cloud, their phones and a watch.

use crate::{
    backup::{path, restore, verify},
    rig::{Lot, Node, Ran, put_token, wait_for},
};
use serde_json::{Value, json};
use std::{fs, path::Path};

const PROFILE: &str = r#"
name = "gym"
retry = ["1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s", "1s"]
[roles.athlete]
write = "*"
[roles.librarian]
write = ["muscle", "exercise", "workout", "effort"]
resolve = true
[collections.muscle]
shared = true
fields = { name = "text!" }
[collections.exercise]
shared = true
references = { muscle = "muscle?" }
fields = { name = "text!", difficulty = "int" }
[collections.workout]
fields = { day = "date" }
[collections.effort]
references = { workout = { to = "workout", on_delete = "cascade" }, exercise = "exercise" }
fields = { reps = "int" }
"#;

/// A node of the app, in one of its spaces.
fn node(dir: &Path, name: &str, space: &str) -> Node {
    let profile = dir.join("gym.toml");
    fs::write(&profile, PROFILE).unwrap();
    let mut node = Node::new(dir.join(name));
    node.set("ROPEWAY_PROFILE", profile.display());
    node.set("ROPEWAY_SPACE", space);
    node.set("ROPEWAY_LIMIT_SYNC_PAGE", 7);
    node
}

/// What a node holds of a space, canonically.
fn held(node: &Node, space: &str) -> String {
    let ran: Ran = node.command(&["dump", "--canonical", "--space", space]).output().unwrap().into();
    ran.exits(0).stdout
}

fn librarian(node: &Node, what: &str, data: &Value) -> Value {
    let (collection, id) = what.split_once('/').unwrap();
    node.ask(&["write", collection, id, &data.to_string(), "--role", "librarian"])
}

/// One that follows another with a role.
fn follower(dir: &Path, name: &str, space: &str, upstream: &Node, role: &str) -> Node {
    let mut phone = node(dir, name, space);
    let added = upstream.ask(&["device", "add", name, "--role", role, "--space", space]);
    put_token(&phone.dir, added["api_token"].as_str().unwrap());
    phone.set("ROPEWAY_UPSTREAM_URL", upstream.url());
    phone
}

/// Until everything is everywhere: of each follower what the cloud has for its space.
fn settled(cloud: &Node, followers: &[(&Node, &str)]) {
    wait_for("the cloud and everybody who follows it to be equal", || {
        let quiet = |(node, space): &(&Node, &str)| {
            let report = node.run(&["sync"]).json();
            let at_rest = report["unsettled"] == 0 && report["digests"]["equal"] == true;
            at_rest && held(node, space) == held(cloud, space)
        };
        followers.iter().all(quiet).then_some(())
    });
}

/// Athletes work on one library while the cloud and a phone are killed again and again; what a restored cloud lost of
/// it comes back; nobody sees anything of another's own.
#[test]
pub(crate) fn two_athletes_share_a_library_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut cloud = node(dir.path(), "cloud", "main");
    librarian(&cloud, "muscle/quads", &json!({ "name": "Quadriceps" }));
    librarian(&cloud, "exercise/squat", &json!({ "name": "Squat", "muscle": "quads", "difficulty": 5 }));
    cloud.serve(&[]);
    let mut ann = follower(dir.path(), "ann", "ann", &cloud, "athlete");
    let bob = follower(dir.path(), "bob", "bob", &cloud, "librarian");
    ann.serve(&[]);
    let watch = follower(dir.path(), "watch", "ann", &ann, "athlete");
    settled(&cloud, &[(&ann, "ann"), (&bob, "bob"), (&watch, "ann")]);
    assert_eq!(watch.data("exercise", "squat")["difficulty"], 5);

    let mut lot = Lot::new(7);
    for n in 0..12 {
        let id = format!("e{n}");
        librarian(&bob, &format!("exercise/{id}"), &json!({ "name": id, "muscle": "quads" }));
        bob.write_all(&[json!({ "collection": "workout", "id": format!("bob-{n}"), "data": {} })]);
        watch.write("workout", &format!("w{n}"), json!({ "day": "2026-02-14" }));
        let effort = json!({ "workout": format!("w{n}"), "exercise": "squat", "reps": n });
        watch.write("effort", &format!("s{n}"), effort);
        bob.run(&["sync"]);
        watch.run(&["sync"]);
        match lot.below(3) {
            0 => {
                cloud.kill();
                cloud.serve(&[]);
            }
            1 => {
                ann.kill();
                ann.serve(&[]);
            }
            _ => {}
        }
    }
    settled(&cloud, &[(&ann, "ann"), (&bob, "bob"), (&watch, "ann")]);
    assert_eq!((cloud.live("exercise").len(), watch.live("exercise").len()), (13, 13));
    assert!(!held(&watch, "ann").contains("bob-") && !held(&bob, "bob").contains("\"w0\""));
    let refused = ann.run(&["write", "exercise", "mine", r#"{"name":"Mine"}"#, "--role", "athlete"]);
    assert!(refused.code == 1 && refused.to_string().contains("has to name it"), "{refused}");

    // Two librarians contradict each other; everybody is told, and everybody is told how it ended.
    librarian(&cloud, "exercise/squat", &json!({ "difficulty": 6 }));
    librarian(&bob, "exercise/squat", &json!({ "difficulty": 9 }));
    bob.run(&["sync"]);
    settled(&cloud, &[(&ann, "ann"), (&bob, "bob"), (&watch, "ann")]);
    let open = watch.ask(&["conflicts", "ls"]);
    let id = open[0]["id"].as_str().unwrap();
    cloud.ask(&["conflicts", "resolve", id, "--keep", "incoming", "--person", "Jo", "--role", "librarian"]);
    settled(&cloud, &[(&ann, "ann"), (&bob, "bob"), (&watch, "ann")]);
    assert_eq!(watch.data("exercise", "squat")["difficulty"], 9);
    cloud.run(&["doctor", "--space", "ann"]).exits(0);

    // What a restored cloud lost comes back from the librarian's phone, what hangs on it from the athlete's.
    let file = dir.path().join("gym.ropeway");
    cloud.ask(&["backup", path(&file)]);
    verify(&file).exits(0);
    librarian(&bob, "exercise/late", &json!({ "name": "Late" }));
    bob.run(&["sync"]);
    settled(&cloud, &[(&ann, "ann"), (&bob, "bob"), (&watch, "ann")]);
    watch.write("workout", "late", json!({}));
    watch.write("effort", "late", json!({ "workout": "late", "exercise": "late", "reps": 1 }));
    settled(&cloud, &[(&ann, "ann"), (&bob, "bob"), (&watch, "ann")]);
    let whole = held(&cloud, "ann");
    assert_eq!(cloud.stop(), 0);
    cloud.ask(&restore(&file));
    assert!(!held(&cloud, "ann").contains("\"late\""));
    cloud.serve(&[]);
    ann.run(&["sync"]);
    settled(&cloud, &[(&bob, "bob"), (&ann, "ann"), (&watch, "ann")]);
    assert_eq!(held(&cloud, "ann"), whole);
    assert_eq!(cloud.stop(), 0);
}
