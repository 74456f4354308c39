//! Plays the script of the race day: everybody writes at their own desk, at their time.

use super::{
    cable::Held,
    outcomes,
    show::{Show, short},
    stage::{PATIENCE, Stage},
};
use anyhow::{Context, Result};
use ropeway_core::{
    change::{Change, Op},
    doc::Fields,
    id::{Collection, Key, RecordId},
    outbox::EntryState,
    receipt::{Code, Receipt, Verdict},
    time::Stamp,
};
use ropeway_protocol::ProblemCode;
use ropeway_race_logger::sample::{Action, Actor, Phase, Seat, Specials};
use ropeway_replica::SyncOptions;
use std::collections::BTreeMap;
use tokio::time::timeout;

/// Plays the day on a stage.
pub(super) struct Player<'a> {
    pub(super) stage: &'a Stage,
    pub(super) specials: Specials,
    /// Verdicts of what was decided at the cloud at once, its own desk's and the tablet's, with their stamps.
    pub(super) verdicts: BTreeMap<Key, Vec<(Stamp, Verdict)>>,
    /// Refusals that nobody expected.
    pub(super) refusals: Vec<String>,
    /// The tablet's report, which waits for its incident.
    pub(super) waiting: Option<Change>,
    /// The upload that is held on its way.
    held: Option<Held>,
}

impl<'a> Player<'a> {
    pub(super) fn new(stage: &'a Stage, specials: Specials) -> Self {
        let (verdicts, refusals) = (BTreeMap::new(), Vec::new());
        Self { stage, specials, verdicts, refusals, waiting: None, held: None }
    }

    /// Plays a part of the day.
    pub(super) async fn phase(&mut self, phase: Phase, show: &mut Show<'_>) -> Result<()> {
        for action in self.stage.sample.day.iter().filter(|a| a.phase == phase) {
            self.stage.clock.reach(action.at);
            if action.actor.seat() == Seat::Tablet {
                self.report_without_its_case(action, show).await?;
                continue;
            }
            if phase != Phase::Cut && !self.is_known(action).await? {
                self.stage.caught_up().await?;
            }
            match &action.record.id {
                id if *id == self.specials.edited_in_flight => self.in_flight(action, show).await?,
                id if *id == self.specials.lost_response => self.lose_the_answer(action, show).await?,
                _ => self.write(action).await?,
            }
        }
        Ok(())
    }

    /// Whether what this action is about has arrived where it is done.
    async fn is_known(&self, action: &Action) -> Result<bool> {
        let parent =
            action.record.fields.get("incident").and_then(|v| v.as_str()).map(RecordId::parse).transpose()?;
        let about = match (action.op, parent) {
            (Op::Patch, _) => action.record.id.clone(),
            (_, Some(parent)) => parent,
            _ => return Ok(true),
        };
        let node = self.stage.node(action.actor.seat());
        Ok(self.stage.get(node, "incident", &about).await?.is_some())
    }

    async fn write(&mut self, action: &Action) -> Result<()> {
        let receipt = self.stage.write(action).await?;
        self.note(action, &receipt);
        Ok(())
    }

    fn note(&mut self, action: &Action, receipt: &Receipt) {
        if !receipt.verdict.is_settled() {
            let why = receipt.reason.as_ref().map_or("", |r| &r.text);
            self.refusals.push(format!("{} {}: {why}", receipt.verdict.as_str(), receipt.key));
        } else if matches!(action.actor.seat(), Seat::Cloud | Seat::Tablet) {
            self.verdicts.entry(receipt.key.clone()).or_default().push((receipt.stamp, receipt.verdict));
        }
    }

    /// A report about a case that only the Pi knows: refused where VAR types it in, and waiting where the
    /// tablet sends it.
    async fn report_without_its_case(&mut self, action: &Action, show: &mut Show<'_>) -> Result<()> {
        let (stage, record) = (self.stage, &action.record);
        let (collection, id) = (record.collection.clone(), record.id.clone());
        let at_desk =
            stage.write_as(Actor::VarOperator, Op::Create, collection, id, record.fields.clone()).await?;
        let change = stage.change(record, &stage.tablet.device, action.actor)?;
        let pushed = stage.push(&stage.tablet, &change).await?;
        let missing = |r: &Receipt| r.reason.as_ref().is_some_and(|r| r.code == Code::ParentMissing);
        let there = stage.get(&stage.cloud.node, "report", &record.id).await?.is_some();
        let seen = format!(
            "{} at VAR's desk, {} for the tablet{}; {} on the cloud",
            at_desk.verdict.as_str(),
            pushed.verdict.as_str(),
            if missing(&at_desk) && missing(&pushed) { ", its parent missing" } else { "" },
            if there { "it is" } else { "nothing is" },
        );
        let expected =
            "rejected at VAR's desk, waiting for the tablet, its parent missing; nothing is on the cloud";
        show.outcome("report before its incident", "tablet", expected.into(), seen)?;
        self.waiting = Some(change);
        Ok(())
    }

    /// The upload of a new case is held on its way, and meanwhile the case is edited.
    async fn in_flight(&mut self, action: &Action, show: &mut Show<'_>) -> Result<()> {
        let stage = self.stage;
        if action.creates() {
            stage.caught_up().await?;
            let mut held = stage.cable.hold_next_push();
            self.write(action).await?;
            timeout(PATIENCE, held.on_its_way()).await.context("nothing was uploaded")??;
            self.held = Some(held);
            return Ok(());
        }
        self.write(action).await?;
        let entries = stage.outbox(&stage.pi.node).await?;
        let states = entries.iter().filter(|e| e.change.record == action.record.id);
        let states: Vec<&str> = states.map(|e| e.state.as_str()).collect();
        let there = stage.get(&stage.cloud.node, "incident", &action.record.id).await?.is_some();
        let seen =
            format!("{}; {} on the cloud", states.join(", "), if there { "it is" } else { "nothing is" });
        show.outcome(
            "edit while its upload is on its way",
            "Pi",
            "sealed, pending; nothing is on the cloud".into(),
            seen,
        )?;
        if let Some(held) = self.held.take() {
            held.go();
        }
        stage.caught_up().await?;
        Ok(())
    }

    /// The cloud decides an upload, and its answer never arrives.
    async fn lose_the_answer(&mut self, action: &Action, show: &mut Show<'_>) -> Result<()> {
        let stage = self.stage;
        stage.caught_up().await?;
        let (lost, mut again) = stage.cable.lose_next_answer();
        self.write(action).await?;
        timeout(PATIENCE, lost).await.context("nothing was uploaded")??;
        timeout(PATIENCE, again.on_its_way()).await.context("nothing was sent again")??;
        let id = &action.record.id;
        let there = stage.get(&stage.cloud.node, "incident", id).await?.is_some();
        let entries = stage.outbox(&stage.pi.node).await?;
        let sealed = entries.iter().any(|e| e.change.record == *id && e.state == EntryState::Sealed);
        let seen = format!(
            "cloud: {}; Pi: {}",
            if there { "it is there" } else { "not there" },
            if sealed { "not acknowledged" } else { "acknowledged" },
        );
        show.outcome(
            "answer lost on its way",
            "Pi",
            "cloud: it is there; Pi: not acknowledged".into(),
            seen,
        )?;
        again.go();
        stage.caught_up().await?;
        Ok(())
    }

    /// The second Pi is taken out of service while it still holds work.
    pub(super) async fn revoke(&mut self, show: &mut Show<'_>) -> Result<()> {
        let stage = self.stage;
        stage.cloud.node.revoke(&stage.space, stage.ascent.device()).await?;
        let way = &stage.ascent_way.transport;
        let report = stage.ascent.sync(&stage.space, way, &SyncOptions::default(), &|_| {}).await?;
        let kept = stage.ascent.queue(&stage.space).await?.len();
        let there = stage.get(&stage.cloud.node, "incident", &self.specials.revoked_device).await?.is_some();
        let made = |a: &&Action| a.actor.seat() == Seat::AscentPi;
        let all = stage.sample.day.iter().filter(made).count();
        let seen = format!(
            "{}; {kept} changes kept in its outbox; {} on the cloud",
            report.problem.map_or("no problem", ProblemCode::as_str),
            if there { "they are" } else { "nothing is" },
        );
        let expected = format!("device_revoked; {all} changes kept in its outbox; nothing is on the cloud");
        show.outcome("revoked device", Seat::AscentPi.name(), expected, seen)
    }

    /// The author of words that wait for the jury writes others, and corrects the bib with them.
    pub(super) async fn insist(&mut self, words: &str, show: &mut Show<'_>) -> Result<()> {
        const BIB: u64 = 98;
        let (stage, id) = (self.stage, self.specials.same_id_edit.clone());
        let fields = Fields::from([("description".into(), words.into()), ("bib_number".into(), BIB.into())]);
        let incident = Collection::parse("incident")?;
        stage.write_as(Actor::FinishReferee, Op::Patch, incident, id.clone(), fields).await?;
        stage.caught_up().await?;
        outcomes::insisted(stage, &id, words, BIB, show).await
    }

    /// The tablet sends its report again, unchanged.
    pub(super) async fn report_again(&mut self, show: &mut Show<'_>) -> Result<()> {
        let change = self.waiting.take().context("the tablet has nothing to send")?;
        let (stage, key) = (self.stage, change.key());
        let receipt = stage.push(&stage.tablet, &change).await?;
        self.verdicts.entry(key.clone()).or_default().push((receipt.stamp, receipt.verdict));
        stage.caught_up().await?;
        let mut at = Vec::new();
        for node in [&stage.cloud.node, &stage.pi.node] {
            let report = stage.get(node, "report", &key.id).await?;
            let parent = report.and_then(|r| r.data.str("incident").map(|id| short(id).to_owned()));
            at.push(parent.unwrap_or_else(|| "nothing".into()));
        }
        let seen =
            format!("{}; cloud: report to {}; Pi: report to {}", receipt.verdict.as_str(), at[0], at[1]);
        let parent = short(&self.specials.missing_parent_of).to_owned();
        let expected = format!("created; cloud: report to {parent}; Pi: report to {parent}");
        show.outcome("the same report, sent again", "tablet", expected, seen)
    }
}
