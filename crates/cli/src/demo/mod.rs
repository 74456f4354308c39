//! `ropeway demo`: a cloud node and a Pi node in one process live through a race day, with a switch that
//! cuts the cable between them.
//!
//! Everything is real: two HTTP servers, two databases, the follower that a Pi runs. The race day is the
//! sample set M of the race logger, and every outcome shown is read back from both nodes.

mod cable;
mod clock;
mod keys;
mod outcomes;
mod play;
mod show;
mod stage;

use crate::database::Database;
use anyhow::{Context, Result};
use play::Player;
use ropeway_core::{
    conflict::{Kind, Resolution},
    doc::Fields,
    id::SpaceId,
};
use ropeway_race_logger::sample::{Actor, Phase, Set, generate};
use ropeway_replica::{Clock, Desk, Node, Resolve};
use serde_json::{Value, json};
use show::{Show, digest_word, in_verbier};
use stage::{Ground, Stage};
use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
};

/// The words in which the jury settles a description that two people wrote.
const SETTLED: &str = "both poles upright, the left one first";
/// What the referee at the Pi writes while their first words still wait for the jury.
const AGAIN: &str = "both poles upright, and the pack open";

/// How to run the demo.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoOptions {
    /// Play the race day and end: exit 0 only if every expected outcome was seen
    #[arg(long)]
    pub(crate) once: bool,
    /// One JSON object a line. Set by whoever reads the command line.
    #[arg(skip)]
    pub(crate) json: bool,
    /// Where the databases are kept; a temporary directory, removed at the end, where it is not named. Set
    /// by whoever reads the command line.
    #[arg(skip)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The cloud node's database, empty before: `postgresql://…`; a file where it is not named. Set by
    /// whoever reads the command line.
    #[arg(skip)]
    pub(crate) database: Option<String>,
    /// The Pi node's database, empty before [default: a file]
    #[arg(long, value_name = "URL")]
    pub(crate) pi_database: Option<String>,
    /// Another seed is another race day, with the same special cases
    #[arg(long, default_value_t = 2026)]
    pub(crate) seed: u64,
    /// Address of the cloud node
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) cloud_listen: SocketAddr,
    /// Address of the Pi node
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) pi_listen: SocketAddr,
}

/// Plays the race day; then, without `once`, keeps both nodes up until somebody ends it. Returns whether
/// every expected outcome was seen.
///
/// Errors: an address that is taken, a data directory that is not empty, a node that failed.
pub(crate) async fn run(options: DemoOptions) -> Result<bool> {
    run_to(options, &mut io::stdout()).await
}

async fn run_to(options: DemoOptions, out: &mut (dyn Write + Send)) -> Result<bool> {
    // Kept until the end: dropping it removes the databases.
    let temporary = match &options.data_dir {
        None => Some(tempfile::Builder::new().prefix("ropeway-demo-").tempdir()?),
        Some(_) => None,
    };
    let named = options.data_dir.clone();
    let dir = named.or(temporary.as_ref().map(|t| t.path().to_owned())).context("there is no directory")?;
    std::fs::create_dir_all(&dir)
        .with_context(|| format!("the directory {} cannot be made", dir.display()))?;
    let database = |url: Option<&String>, file: &str| match url {
        Some(url) => Database::parse(url),
        None => Ok(Database::File(dir.join(file))),
    };
    let ground = Ground {
        cloud: database(options.database.as_ref(), "cloud.db")?,
        pi: database(options.pi_database.as_ref(), "pi.db")?,
        ascent: database(None, "ascent-pi.db")?,
        cloud_listen: options.cloud_listen,
        pi_listen: options.pi_listen,
    };
    let mut show = Show::new(out, options.json);
    let mut stage = Stage::build(generate(Set::M, options.seed), &ground).await?;
    let played = tokio::select! {
        played = day(&mut stage, &mut show) => played,
        () = keys::signalled() => Err(anyhow::anyhow!("the demo was ended before the race day was over")),
    };
    let good = match played {
        Ok(()) => show.outcomes.iter().all(show::Outcome::is_good),
        Err(error) => {
            stage.close().await;
            return Err(error);
        }
    };
    if !options.once {
        keys::hold(&stage, &mut show).await?;
    }
    stage.close().await;
    Ok(good)
}

/// The race day from the first entry to the last comparison.
async fn day(stage: &mut Stage, show: &mut Show<'_>) -> Result<()> {
    let specials = stage.sample.specials.clone().context("the set has no special cases")?;
    let text = format!(
        "cloud node at {} on {}; {} at {} on {}",
        stage.cloud.url,
        stage.cloud.database,
        ropeway_race_logger::sample::Seat::Pi.name(),
        stage.pi.url,
        stage.pi.database
    );
    show.step(stage.clock.now(), &text)?;
    let prepared = stage.prepare().await?;
    show.step(stage.clock.now(), &format!("the cloud holds “Verbier 2026”: {prepared} records"))?;
    download(stage, show).await?;
    let stage = &*stage;
    let mut player = Player::new(stage, specials.clone());
    player.phase(Phase::Together, show).await?;
    stage.caught_up().await?;
    show.step(stage.clock.now(), "qualifications are over; the Pi and the cloud hold the same 12 cases")?;
    apart(&mut player, show).await?;
    let began = stage.clock.mono();
    stage.cable.join();
    show.step(stage.clock.now(), "the cable is joined")?;
    outcomes::set_off(stage.caught_up().await?, show)?;
    let took = (stage.clock.mono() - began) / 1_000;
    show.step(
        stage.clock.now(),
        &format!("the Pi and the cloud have met, {took} ms after the cable was joined"),
    )?;
    outcomes::met(stage, &specials, show).await?;
    player.report_again(show).await?;
    player.insist(AGAIN, show).await?;
    jury(stage, show).await?;
    stage.caught_up().await?;
    outcomes::answered(stage, &specials, [AGAIN, SETTLED], show).await?;
    player.phase(Phase::Rejoined, show).await?;
    stage.caught_up().await?;
    show.step(stage.clock.now(), "the finals are over; nothing is on its way any more")?;
    outcomes::afterwards(stage, &specials, show).await?;
    outcomes::whole(&player, show).await?;
    summary(&player, show).await
}

/// The Pi's first sync, with counts and time.
async fn download(stage: &mut Stage, show: &mut Show<'_>) -> Result<()> {
    let began = stage.clock.mono();
    stage.follow();
    stage.caught_up().await?;
    let took = (stage.clock.mono() - began) / 1_000;
    let way = &stage.ascent_way.transport;
    stage.ascent.sync(&stage.space, way, &ropeway_replica::SyncOptions::default(), &|_| {}).await?;
    let counts = outcomes::downloaded(stage, show).await?;
    let total: usize = counts.values().sum();
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let text = format!("the Pi has downloaded {total} records in {took} ms: {}", each.join(", "));
    show.step(stage.clock.now(), &text)
}

/// The part of the day in which nobody sees what the others do.
async fn apart(player: &mut Player<'_>, show: &mut Show<'_>) -> Result<()> {
    let stage = player.stage;
    let cut_at = stage.clock.now();
    stage.cable.cut();
    show.step(stage.clock.now(), "the cable is cut; referees go on at the Pi, VAR and jury at the cloud")?;
    player.phase(Phase::Cut, show).await?;
    player.revoke(show).await?;
    stage.alone().await?;
    outcomes::alone(stage, stage.clock.now().since(cut_at) / 60_000_000, show).await?;
    let (cloud, pi) =
        (stage.cloud.node.status(&stage.space).await?, stage.pi.node.status(&stage.space).await?);
    let waiting: u64 = pi.outbox.iter().filter(|(s, _)| s.is_unsettled()).map(|(_, n)| n).sum();
    let alike = if cloud.digest == pi.digest { "are equal" } else { "differ" };
    show.step(stage.clock.now(), &format!("{waiting} changes wait on the Pi; the digests {alike}"))
}

/// The jury looks at what waits for it and answers.
async fn jury(stage: &Stage, show: &mut Show<'_>) -> Result<()> {
    let specials = stage.sample.specials.as_ref().context("the set has no special cases")?;
    let node = &stage.cloud.node;
    for conflict in node.conflicts(&stage.space, false).await? {
        let about = &conflict.conflict.record;
        let open = conflict.conflict.is_open() && conflict.conflict.kind == Kind::Fields;
        let merged = || Fields::from([("description".to_owned(), Value::from(SETTLED))]);
        let (resolution, data, why) = if open && *about == specials.decision_mismatch {
            (Resolution::Incoming, None, "the referee stood beside it")
        } else if open && *about == specials.same_id_edit {
            (Resolution::Merged, Some(merged()), "both saw a part of it")
        } else if conflict.conflict.kind == Kind::Join && *about == specials.two_offences.pi {
            (Resolution::Apart, None, "poles and skins are two offences")
        } else {
            continue;
        };
        let actor = Actor::JuryPresident;
        let desk = Desk { person: Some(actor.name().into()), role: actor.role().into() };
        let notes = Some(why.to_owned());
        let answer = Resolve {
            conflict: conflict.id,
            version: Some(conflict.version),
            resolution,
            data,
            notes,
            change: None,
        };
        node.resolve(&stage.space, &desk, answer).await?;
    }
    show.step(stage.clock.now(), "the jury has answered what waited for it")
}

/// Tables, counts, digests and dumps.
async fn summary(player: &Player<'_>, show: &mut Show<'_>) -> Result<()> {
    let stage = player.stage;
    let lines = outcomes::cases(player).await?;
    show.cases(&lines)?;
    let (cloud, pi) =
        (stage.cloud.node.status(&stage.space).await?, stage.pi.node.status(&stage.space).await?);
    let (theirs, ours) =
        (dump(&stage.cloud.node, &stage.space).await?, dump(&stage.pi.node, &stage.space).await?);
    let words = |equal: bool| if equal { "equal" } else { "different" }.to_owned();
    show.outcome("digests", "both nodes", words(true), words(cloud.digest == pi.digest))?;
    show.outcome("canonical dumps, byte for byte", "both nodes", words(true), words(theirs == ours))?;
    show.outcomes()?;
    let counts = outcomes::verdict_counts(stage).await?;
    let each: Vec<String> = counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let text = format!("\nverdicts of the cloud on what the Pi sent: {}", each.join(", "));
    show.say(&text, &json!({ "event": "verdicts", "counts": counts }))?;
    let open = [cloud.conflicts_open, pi.conflicts_open];
    let text = format!("open conflicts: {} on the cloud, {} on the Pi", open[0], open[1]);
    show.say(&text, &json!({ "event": "conflicts", "cloud": open[0], "pi": open[1] }))?;
    let text =
        format!("canonical dumps: {} and {} bytes, {}", theirs.len(), ours.len(), words(theirs == ours));
    let object =
        json!({ "event": "dumps", "cloud": theirs.len(), "pi": ours.len(), "equal": theirs == ours });
    show.say(&text, &object)?;
    let digests = [cloud.digest, pi.digest].map(digest_word);
    let verdict = if cloud.digest == pi.digest { "digests equal" } else { "digests differ" };
    let text = format!("cloud digest {}\nPi digest    {}\n{verdict}", digests[0], digests[1]);
    show.say(&text, &json!({ "event": "digests", "cloud": digests[0], "pi": digests[1], "equal": cloud.digest == pi.digest }))?;
    let (good, all) = (show.outcomes.iter().filter(|o| o.is_good()).count(), show.outcomes.len());
    let text =
        format!("{good} of {all} expected outcomes seen, at {} in Verbier", in_verbier(stage.clock.now()));
    show.say(&text, &json!({ "event": "end", "expected": all, "seen": good, "ok": good == all }))
}

/// Everything that a node holds, in canonical form.
async fn dump(node: &Node, space: &SpaceId) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    node.dump_canonical(space, |line| writeln!(bytes, "{line}")).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_expected_outcome_is_seen() {
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let options = DemoOptions {
            once: true,
            json: true,
            data_dir: None,
            database: None,
            pi_database: None,
            seed: 7,
            cloud_listen: listen,
            pi_listen: listen,
        };
        let mut out = Vec::new();
        let good = run_to(options, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |event: &str| lines.iter().filter(|l| l["event"] == event).collect::<Vec<_>>();
        let outcomes = of("outcome");
        let missed: Vec<&&Value> = outcomes.iter().filter(|o| o["ok"] != true).collect();
        assert!(good, "{missed:#?}");
        assert_eq!(of("record").len(), 30);
        assert_eq!(of("end")[0]["ok"], true);
    }
}
