//! What each act does, with no chance in it.

use crate::{
    cable::{Cable, Pause},
    host::{Host, locked},
    ledger::tokens_of,
    shrink::node_of,
    story::{Act, Crash, Edit, Fault, Meanwhile},
    world::{Copied, World},
};
use ropeway_core::{
    conflict::Resolution,
    id::{Collection, Key, RecordId},
    receipt::Receipt,
};
use ropeway_protocol::ProblemCode;
use ropeway_replica::{Desk, Renewal, ReplicaError, Resolve, SyncOptions, SyncReport};
use ropeway_store::Store;
use serde_json::Value;
use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;

/// An edit of which nobody knows yet whether it was made.
type Answered<T> = Option<Result<T, ReplicaError>>;

impl World {
    /// Does one act.
    pub(crate) fn act<'a>(self: &'a Arc<Self>, act: &'a Act) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move {
            if let Act::Elsewhere { act } = act {
                if let Some(second) = self.stage.worlds().get(1) {
                    second.act(act).await;
                }
                return;
            }
            // One that died in this very act is switched on behind it.
            let is_on = |host: &Host| host.is_there() && !host.life().is_over();
            if node_of(act).is_some_and(|node| !is_on(self.host(node))) {
                return;
            }
            match act {
                Act::Wait { ms } => tokio::time::advance(Duration::from_millis(*ms)).await,
                Act::Clock { node, wrong_ms } => self.host(*node).clock.set_wrong(wrong_ms * 1_000),
                Act::Write { node, person, edit, behind } => {
                    self.write(self.host(*node), person, edit, *behind).await;
                }
                Act::Push { node, client, edits, looks } => {
                    self.push(self.host(*node), *client, edits, *looks).await;
                }
                Act::PushAgain { node, client, altered } => {
                    self.push_again(self.host(*node), *client, *altered).await;
                }
                Act::Sync { node, faults, meanwhile, crash } => {
                    let host = self.host(*node);
                    if host.parent.is_some() {
                        self.sync(host, faults, meanwhile.as_ref(), *crash).await;
                    }
                }
                Act::Late { node, back } => self.late(self.host(*node), *back).await,
                Act::Answer { node, which, resolution } => {
                    self.answer(self.host(*node), *which, *resolution).await;
                }
                Act::Discard { node, which } => self.discard(self.host(*node), *which).await,
                Act::Retry { node } => {
                    let host = self.host(*node);
                    let node = host.node();
                    let done = host.alive(node.queue_retry(&self.space, &[])).await;
                    self.done("retry", done);
                }
                Act::Restart { node } => self.host(*node).life().end(),
                Act::Copy => self.copy().await,
                Act::Backup { node } => self.back_up(self.host(*node)),
                Act::Restore { node, restamp } => self.restore(self.host(*node), *restamp).await,
                Act::PutBack { node } => self.put_back(self.host(*node)).await,
                Act::Subscribe { node, audience, on } => {
                    self.subscribe(self.host(*node), audience, *on).await;
                }
                Act::Revoke { node } => self.revoke(self.host(*node)).await,
                Act::Rotate { node, told } => self.rotate(self.host(*node), *told).await,
                Act::Admit { node } => {
                    let host = self.host(*node);
                    let done = host.parent.map(|parent| &self.hosts[parent]);
                    if let Some(upstream) = done {
                        self.done("admit", upstream.alive(self.admit(host)).await);
                    }
                }
                Act::Judge { node, take } => self.judge(self.host(*node), *take).await,
                Act::Purge { node } => self.purge(self.host(*node)).await,
                Act::Elsewhere { .. } => {}
            }
        })
    }

    async fn write(&self, host: &Host, person: &str, edit: &Edit, behind: Option<u64>) {
        let node = host.node();
        let Some(key) = key_of(edit) else { return };
        let version = match behind {
            None => None,
            Some(behind) => {
                let shown = node.get(&self.space, &key).await;
                shown.ok().flatten().map(|record| record.version.saturating_sub(behind).max(1))
            }
        };
        let shown_key = key.clone();
        let edit = &self.addressed(edit);
        self.enters(host, edit, self.person_shares(person));
        let edit = ropeway_replica::Edit {
            change: None,
            collection: key.collection,
            record: Some(key.id),
            op: edit.op,
            fields: edit.fields.clone(),
            version,
        };
        if let Ok(shown) = node.resolve_record(&self.space, &shown_key).await {
            let before = shown.map(|(_, record)| record.data.fields().clone());
            self.sees_at_desk((host.index, &shown_key, person), before, (edit.op, &edit.fields));
        }
        let fields = edit.fields.clone();
        let desk = Desk { person: Some(person.to_owned()), role: self.role_at(host, person) };
        let answered = host.alive(node.write(&self.space, &desk, edit)).await;
        if let Some(Ok(receipt)) = &answered
            && receipt.verdict.is_settled()
        {
            locked(&host.ledger).values.extend(tokens_of(&fields));
        }
        self.say(|| format!("  {}", written(&answered)));
        self.done("write", answered);
    }

    /// The role of a person at a desk.
    fn role_at(&self, host: &Host, person: &str) -> String {
        let roles = self.roles_of(self.person_shares(person));
        if host.parent.is_none() { roles.top.clone() } else { roles.field.clone() }
    }

    /// One whole sync with its upstream, with all that happens to it.
    async fn sync(
        self: &Arc<Self>,
        host: &Host,
        faults: &[Fault],
        meanwhile: Option<&Meanwhile>,
        crash: Option<Crash>,
    ) {
        let dies = crash.map(|crash| (self.host(crash.node).life(), crash));
        if let Some((life, crash)) = &dies {
            life.arm(Some((crash.call, crash.after)));
        }
        let ended = self.sync_with(host, faults, meanwhile).await;
        if let Some((life, _)) = &dies {
            life.arm(None);
        }
        self.say(|| match &ended {
            None => "  died".into(),
            Some(Ok(r)) => format!("  {:?} {:?} pulled {} {:?}", r.outcome, r.verdicts, r.pulled, r.error),
            Some(Err(e)) => format!("  {e}"),
        });
        if let Some(Ok(report)) = &ended {
            self.synced(host, report).await;
        }
        if let Some(Err(error)) = ended
            && !matches!(error, ReplicaError::Busy(_))
        {
            self.fault(&format!("a sync of node {} failed: {error}", host.index));
        }
    }

    fn back_up(&self, host: &Host) {
        if let Err(error) = host.back_up() {
            self.fault(&format!("node {} cannot be backed up: {error}", host.index));
        }
        self.stage.worlds().iter().for_each(|world| world.hosts[host.index].was_backed_up());
    }

    /// The disk of a node is copied into another machine, which runs too.
    async fn copy(&self) {
        let Some(original) = self.setting.copied.map(|node| self.host(node)) else { return };
        let Some(copy) = self.hosts.last().filter(|copy| copy.asleep.load(Ordering::Relaxed)) else { return };
        if let Err(error) = copy.become_copy_of(original).await {
            return self.fault(&format!("the copy does not start: {error}"));
        }
        for world in self.stage.worlds() {
            world.hosts[copy.index].stands_in_for(&world.hosts[original.index]);
            // A machine that has never synced is no installation yet: its copy is simply another one.
            let has_synced =
                matches!(original.image().meta(&format!("nonces.{}", world.space)).await, Ok(Some(_)));
            *locked(&world.copy) = if has_synced { Copied::Unnoticed } else { Copied::Refused };
        }
    }

    /// After a sync: a machine that was refused as a copy becomes an installation of its own.
    pub(crate) async fn synced(&self, host: &Host, report: &SyncReport) {
        if host.parent.is_none() || report.problem != Some(ProblemCode::DeviceCloned) {
            return;
        }
        if locked(&host.put_back).take().is_some() {
            let renewed = async {
                host.node().renew(&self.space, Renewal::Restored).await?;
                host.restart().await
            };
            match renewed.await {
                Ok(()) => self.say(|| format!("  node {} says that it was restored", host.index)),
                Err(error) => self.fault(&format!("a restored device cannot be renewed: {error}")),
            }
            return;
        }
        if std::mem::replace(&mut *locked(&self.copy), Copied::Refused) == Copied::No {
            self.violated("I12", format!("node {} is refused as a copy, and there is none", host.index));
        }
        let renewed = async {
            let device = host.node().renew(&self.space, Renewal::Copy).await?;
            let name = format!("renewed-{}", host.index);
            self.register(host, &name, Some(device)).await?;
            host.restart().await
        };
        match renewed.await {
            Ok(()) => self.say(|| format!("  node {} is its own from now on", host.index)),
            Err(error) => self.fault(&format!("a copy cannot be renewed: {error}")),
        }
    }

    /// A sync through a cable with these faults. `None`: the machine died in it.
    pub(crate) async fn sync_with(
        self: &Arc<Self>,
        host: &Host,
        faults: &[Fault],
        meanwhile: Option<&Meanwhile>,
    ) -> Answered<SyncReport> {
        let (pauses, mut paused) = mpsc::channel::<Pause>(1);
        let cable = Cable {
            world: self.clone(),
            follower: host.index,
            upstream: host.parent?,
            faults: Mutex::new(faults.iter().copied().collect()),
            pause: meanwhile.map(|m| (m.request, m.answered)),
            pauses,
            requests: Mutex::new(0),
            pair: Mutex::new(None),
        };
        let options =
            SyncOptions { batch_changes: self.setting.batch, batch_bytes: 1 << 20, page: self.setting.page };
        let (node, life, main) = (host.node(), host.life(), self.space.clone());
        let mut sync = pin!(node.sync(&main, &cable, &options, &|_| {}));
        loop {
            tokio::select! {
                biased;
                () = life.over() => return None,
                ended = &mut sync => return Some(ended),
                Some(resume) = paused.recv() => {
                    for act in meanwhile.iter().flat_map(|m| &m.acts) {
                        self.say(|| format!("    meanwhile {}", shown(act)));
                        self.act(act).await;
                    }
                    let _ = resume.send(());
                }
            }
        }
    }

    /// A batch that was sent some time ago arrives again; nobody waits for the answer. Every other time it
    /// comes without the nonces of its sync, as an older client would send it.
    async fn late(&self, host: &Host, back: usize) {
        let Some(upstream) = host.parent else { return };
        let (body, pair) = {
            let sent = locked(&host.sent);
            let Some(last) = sent.len().checked_sub(1) else { return };
            sent[last - back % sent.len()].clone()
        };
        let pair = pair.filter(|_| back % 2 == 1);
        let decided = self.serve(upstream, self.decide(host.index, &body, pair.as_ref())).await;
        self.say(|| format!("  {:?}", decided.map(|d| d.receipts.len()).map_err(|e| e.to_string())));
    }

    async fn answer(&self, host: &Host, which: usize, resolution: Resolution) {
        let node = host.node();
        let Ok(open) = node.conflicts(&self.space, resolution != Resolution::Reopen).await else { return };
        if open.is_empty() {
            return;
        }
        let view = &open[which % open.len()];
        let merged = view.conflict.fields.first().and_then(|field| {
            let value = view.conflict.incoming.values.get(field)?;
            Some([(field.clone(), value.clone())].into_iter().collect())
        });
        let resolve = Resolve {
            conflict: view.id.clone(),
            version: None,
            resolution,
            data: merged.filter(|_| resolution == Resolution::Merged),
            notes: None,
            change: None,
        };
        if let Ok(Some((_, record))) = node.resolve_record(&self.space, &view.conflict.about()).await {
            self.chooses(record.data.fields(), &view.conflict.incoming.values);
        }
        // Where something is shared, some settle who may not write it.
        let person = if which % 5 == 4 { "bob" } else { "var" };
        let desk =
            Desk { person: Some("var".into()), role: self.roles_of(self.person_shares(person)).top.clone() };
        let answered = host.alive(node.resolve(&self.space, &desk, resolve)).await;
        let answered = answered.map(|a| a.map(|(receipt, _)| receipt));
        self.say(|| format!("  {} {:?} {}", view.id, view.conflict.kind, written(&answered)));
        self.done("answer", answered);
    }

    async fn discard(&self, host: &Host, which: usize) {
        let node = host.node();
        let Ok(mut queue) = node.queue(&self.space).await else { return };
        queue.retain(|item| item.state.is_unsent());
        if queue.is_empty() {
            return;
        }
        let item = &queue[which % queue.len()];
        self.say(|| format!("  {} {}/{}", item.seq, item.collection, item.record));
        let done = host.alive(node.queue_discard(&self.space, &[item.seq])).await;
        self.done("discard", done);
    }

    /// At the upstream of a node an audience is chosen for it. What the upstream does not get itself it cannot
    /// give.
    async fn subscribe(&self, host: &Host, audience: &str, on: bool) {
        let Some((upstream, device)) = self.known(host).await else { return };
        let done = upstream.alive(upstream.node().subscribe(&device, audience, on)).await;
        self.say(|| match &done {
            Some(Err(error)) => format!("  {error}"),
            done => format!("  {}", done.is_some()),
        });
        self.done("subscribe", done);
    }

    /// Whatever a person does may be refused, but the machine never fails.
    pub(crate) fn done<T>(&self, what: &str, answered: Answered<T>) {
        if let Some(Err(error @ ReplicaError::Store(_))) = answered {
            self.fault(&format!("{what} failed: {error}"));
        }
    }
}

impl Host {
    /// Does something here. `None`: the machine died in it.
    pub(crate) async fn alive<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let life = self.life();
        tokio::select! {
            biased;
            () = life.over() => None,
            answer = work => Some(answer),
        }
    }
}

impl World {
    /// An edit with the devices that it names as their upstreams know them: a seed knows only `node-2`.
    pub(crate) fn addressed(&self, edit: &Edit) -> Edit {
        let mut edit = edit.clone();
        let audience = self.profile.rules(&edit.collection).and_then(|rules| rules.audience.as_ref());
        let named = audience.and_then(|a| edit.fields.get_mut(a.subscribes.as_deref()?));
        if let Some(value) = named
            && let Some(number) = value.as_str().and_then(|text| text.strip_prefix("node-")?.parse().ok())
        {
            let device = locked(&self.host(number).device).clone();
            *value = device.map_or(Value::Null, |id| id.as_str().into());
        }
        edit
    }
}

/// The record that an edit names.
pub(crate) fn key_of(edit: &Edit) -> Option<Key> {
    let collection = Collection::parse(&edit.collection).ok()?;
    Some(Key::new(&collection, &RecordId::parse(&edit.record).ok()?))
}

/// An act in one line.
pub(crate) fn shown(act: &Act) -> String {
    serde_json::to_string(act).unwrap_or_default()
}

fn written(answered: &Answered<Receipt>) -> String {
    match answered {
        None => "died".into(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(receipt)) => {
            let reason = receipt.reason.as_ref().map_or("", |reason| &reason.text);
            format!("{} {} v{} {reason}", receipt.change, receipt.verdict.as_str(), receipt.version)
        }
    }
}
