//! Two nodes over https (IRON-073, REP-089): a private authority, renewal under load, and everything that a
//! follower must not follow.

use crate::{
    certs::{Authority, Certificate, self_signed},
    rig::{Pair, Ran, incident, wait_for},
};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio};

/// Two nodes that have synced once, and whose cloud shows a certificate.
struct Secured {
    pair: Pair,
    authority: Authority,
    cert: PathBuf,
    key: PathBuf,
}

impl Secured {
    fn new() -> Self {
        let authority = Authority::new("the club");
        let pair = Pair::with(|_, _| {}, "device");
        let file = |name: &str| pair.dir.path().join(name);
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        let mut secured = Self { pair, authority, cert, key };
        secured.put(&secured.authority.sign(&["127.0.0.1"]));
        secured.believe(&secured.authority.cert.clone());
        secured.up();
        secured.pair.settle();
        secured.pair.cloud.kill();
        secured
    }

    /// Puts a certificate where the cloud looks for it.
    fn put(&self, certificate: &Certificate) {
        fs::write(&self.cert, &certificate.cert).unwrap();
        fs::write(&self.key, &certificate.key).unwrap();
        fs::set_permissions(&self.key, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Names whom the Pi believes.
    fn believe(&mut self, pem: &str) {
        let path = self.pair.dir.path().join("ca.pem");
        fs::write(&path, pem).unwrap();
        self.pair.pi.set("ROPEWAY_UPSTREAM_CA", path.display());
    }

    fn up(&mut self) -> String {
        let (cert, key) = (self.cert.display().to_string(), self.key.display().to_string());
        let url = self.pair.cloud.serve(&["--tls-cert", &cert, "--tls-key", &key]);
        self.pair.pi.set("ROPEWAY_UPSTREAM_URL", &url);
        url
    }
}

#[test]
fn two_nodes_sync_over_https_with_an_authority_of_their_own() {
    let mut secured = Secured::new();
    let url = secured.up();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    secured.pair.pi.write_all(&[incident("i-1", "missed a gate")]);
    let report = secured.pair.settle();
    assert_eq!(report["outcome"], "done");
    // The same by a node that follows all the time, live stream and all.
    secured.pair.pi.serve(&[]);
    secured.pair.cloud.write_all(&[incident("c-1", "from the cloud")]);
    wait_for("news over https", || secured.pair.pi.live("incident").contains_key("c-1").then_some(()));
    let checks = secured.pair.pi.run(&["doctor"]).lines();
    let upstream = checks.iter().find(|check| check["check"] == "upstream").unwrap();
    assert_eq!(upstream["found"], "ok", "{upstream}");
    assert_eq!((secured.pair.pi.stop(), secured.pair.cloud.stop()), (0, 0));
}

/// Renewed again and again while a thousand changes go in small batches, once by nonsense: nothing is lost,
/// nothing twice, and the last good certificate is shown in the end.
#[test]
fn certificates_are_renewed_while_a_sync_runs() {
    let mut secured = Secured::new();
    secured.pair.cloud.set("ROPEWAY_LIMIT_TLS_LOOK_MS", 10);
    secured.pair.pi.set("ROPEWAY_LIMIT_SYNC_BATCH_CHANGES", 10);
    secured.up();
    let many: Vec<Value> = (0..1_000).map(|n| incident(&format!("i-{n}"), "missed a gate")).collect();
    secured.pair.pi.write_all(&many);
    let mut sync = secured.pair.pi.command(&["sync", "--json"]);
    let mut syncing = sync.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut renewed = 0;
    while syncing.try_wait().unwrap().is_none() {
        let until = 2060 + renewed % 20;
        match renewed % 3 {
            2 => fs::write(&secured.cert, "nonsense").unwrap(),
            _ => secured.put(&secured.authority.sign_for(&["127.0.0.1"], 2020, until)),
        }
        kill_process(secured.pair.cloud.pid(), Signal::HUP).unwrap();
        renewed += 1;
    }
    let ran: Ran = syncing.wait_with_output().unwrap().into();
    let report = ran.exits(0).json();
    assert_eq!(report["pushed"], 1_000, "{report}");
    assert!(renewed > 2, "the sync was over before anything was renewed");
    assert!(secured.pair.cloud.is_up(), "SIGHUP does not end a node with a certificate");
    // Its own work done, the node takes up the last one.
    secured.put(&secured.authority.sign_for(&["127.0.0.1"], 2020, 2081));
    wait_for("the last certificate", || {
        let log = secured.pair.cloud.log();
        log.contains("2081-01-01").then_some(())
    });
    let log = secured.pair.cloud.log();
    assert!(log.contains("is shown on"), "the nonsense was told of: {log}");
    secured.pair.settle();
}

/// What must not be followed is a failure to mend and not being offline: exit 1, the reason in `sync`,
/// `status` and `doctor`, and no change loses a try. Once mended, everything goes.
#[test]
fn what_must_not_be_followed_is_shown_and_costs_no_retry() {
    let mut secured = Secured::new();
    secured.pair.pi.write_all(&[incident("i-1", "missed a gate")]);
    let others = Authority::new("somebody");
    let here = ["127.0.0.1"];
    for (shown, said) in [
        (secured.authority.sign(&["cloud.example"]), "not for 127.0.0.1"),
        (secured.authority.sign_for(&here, 2001, 2002), "ran out"),
        (others.sign(&here), "--upstream-ca"),
        (self_signed(&here, 2080, true), "--upstream-ca"),
    ] {
        secured.put(&shown);
        secured.up();
        let ran = secured.pair.pi.run(&["sync"]).exits(1);
        let report = ran.json();
        assert_eq!(report["outcome"], "failed", "{report}");
        assert!(report["error"].as_str().unwrap().contains(said), "{report}");
        let told: Ran = secured.pair.pi.command(&["sync"]).output().unwrap().into();
        assert!(told.stderr.contains(said) && told.stderr.contains("next:"), "{told}");
        let status = secured.pair.pi.ask(&["status"]);
        assert!(status["last_sync"]["error"].as_str().unwrap().contains(said), "{status}");
        let doctor = secured.pair.pi.run(&["doctor"]).exits(1);
        assert!(doctor.stdout.contains(said), "{doctor}");
        let entry = secured.pair.pi.ask(&["queue", "ls"])[0].clone();
        assert_eq!((&entry["attempts"], &entry["status"]), (&0.into(), &"pending".into()), "{entry}");
        secured.pair.cloud.kill();
    }
    // One that signed itself is believed where a person gave it.
    let own = self_signed(&here, 2080, true);
    secured.put(&own);
    secured.believe(&own.cert);
    secured.up();
    secured.pair.settle();
}

/// A node that follows all the time says what is wrong, works on, and follows again once it is mended.
#[test]
fn a_running_follower_tells_of_a_bad_certificate_and_recovers() {
    let mut secured = Secured::new();
    secured.put(&secured.authority.sign_for(&["127.0.0.1"], 2001, 2002));
    secured.pair.cloud.set("ROPEWAY_LIMIT_TLS_LOOK_MS", 10);
    secured.up();
    assert!(secured.pair.cloud.log().contains("followers will refuse it"), "{}", secured.pair.cloud.log());
    // First nobody is there, then somebody with an old certificate.
    secured.pair.cloud.kill();
    secured.pair.pi.serve(&[]);
    wait_for("being offline", || secured.pair.pi.log().contains("out of reach").then_some(()));
    secured.up();
    wait_for("the reason in the log", || secured.pair.pi.log().contains("ran out").then_some(()));
    wait_for("the reason in the status", || {
        let status = secured.pair.pi.ask(&["status"]);
        status["last_sync"]["error"].as_str()?.contains("ran out").then_some(())
    });
    secured.pair.pi.write_all(&[incident("i-1", "work goes on")]);
    secured.put(&secured.authority.sign(&["127.0.0.1"]));
    wait_for("everything to go", || secured.pair.cloud.live("incident").contains_key("i-1").then_some(()));
}

#[test]
fn plain_http_beyond_this_machine_needs_a_persons_word() {
    let pair = Pair::new();
    let url = "http://upstream.invalid:8080";
    let ran = pair.pi.run(&["sync", "--upstream", url]).exits(1);
    let said = ran.json()["error"].as_str().unwrap().to_owned();
    assert!(said.contains("https://") && said.contains("`upstream.invalid`"), "{said}");
    let status = pair.pi.ask(&["status"]);
    assert_eq!(status["last_sync"]["error"], said.as_str(), "{status}");
    // Listed, it is only a host that cannot be reached.
    pair.pi.run(&["sync", "--trusted-host", "upstream.invalid"]).exits(4);
}

#[test]
fn a_certificate_that_cannot_be_served_ends_the_start_with_a_sentence() {
    let mut secured = Secured::new();
    let (cert, key) = (secured.cert.display().to_string(), secured.key.display().to_string());
    let serve =
        |args: &[&str]| secured.pair.cloud.run(&[&["serve", "--listen", "127.0.0.1:0"], args].concat());
    let alone = serve(&["--tls-cert", &cert]).exits(2);
    assert!(alone.stdout.contains("--tls-key"), "{alone}");
    fs::write(&secured.key, "nonsense").unwrap();
    let bad = serve(&["--tls-cert", &cert, "--tls-key", &key]).exits(2);
    assert!(bad.stdout.contains("key.pem"), "{bad}");
    // Good ones again, but for everybody to read and soon over.
    secured.put(&secured.authority.sign(&["127.0.0.1"]));
    fs::set_permissions(&secured.key, fs::Permissions::from_mode(0o644)).unwrap();
    secured.up();
    let log = secured.pair.cloud.log();
    assert!(log.contains("may read the private key") && log.contains("chmod 600"), "{log}");
    secured.pair.cloud.set("ROPEWAY_TLS_CERT", &cert);
    secured.pair.cloud.set("ROPEWAY_TLS_KEY", &key);
    let doctor = secured.pair.cloud.run(&["doctor"]);
    let check = |ran: &Ran, name: &str| {
        ran.lines().into_iter().filter(|check| check["check"] == name).collect::<Vec<_>>()
    };
    assert_eq!(check(&doctor, "certificate")[0]["found"], "ok", "{doctor}");
    assert!(check(&doctor, "permissions").iter().any(|c| c["text"].as_str().unwrap().contains("key.pem")));
    secured.put(&secured.authority.sign_for(&["127.0.0.1"], 2001, 2002));
    let doctor = secured.pair.cloud.run(&["doctor"]).exits(1);
    assert_eq!(check(&doctor, "certificate")[0]["found"], "fail", "{doctor}");
}
