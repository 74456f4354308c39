//! Quarantine in memory.

use super::{Done, MemoryStore};
use crate::{Quarantine, QuarantineEnd, Quarantined, Room, StoreError};
use async_trait::async_trait;
use ropeway_core::{
    change::Change,
    id::{DeviceId, SpaceId},
    time::Time,
};

#[async_trait]
impl Quarantine for MemoryStore {
    async fn quarantine(
        &self,
        space: &SpaceId,
        device: &DeviceId,
        now: Time,
        changes: Vec<Change>,
        room: Room,
    ) -> Result<u64, StoreError> {
        let mut all = self.all();
        let kept = &mut all.space_mut(space)?.quarantine;
        let size = |change: &Change| serde_json::to_vec(change).map_or(0, |text| text.len() as u64);
        let waiting = kept.iter().filter(|q| q.device == *device && q.ended.is_none());
        let (mut count, mut bytes) = waiting.fold((0, 0), |(n, b), q| (n + 1, b + size(&q.change)));
        let mut there = 0;
        for change in changes {
            if !kept.iter().any(|q| q.device == *device && q.change.id == change.id) {
                (count, bytes) = (count + 1, bytes + size(&change));
                if count > room.changes || bytes > room.bytes {
                    break;
                }
                let no = kept.last().map_or(1, |last| last.no + 1);
                kept.push(Quarantined { no, device: device.clone(), change, received_at: now, ended: None });
            }
            there += 1;
        }
        all.generation += 1;
        Ok(there)
    }

    async fn quarantined(&self, space: &SpaceId, after: i64, limit: usize) -> Done<Vec<Quarantined>> {
        let all = self.all();
        let newer = all.space(space)?.quarantine.iter().filter(|q| q.no > after);
        Ok(newer.take(limit).cloned().collect())
    }

    async fn end_quarantine(&self, space: &SpaceId, ended: Vec<(i64, QuarantineEnd)>) -> Done<u64> {
        let mut all = self.all();
        let mut done = 0;
        for (no, end) in ended {
            let waiting = all.space_mut(space)?.quarantine.iter_mut();
            if let Some(found) = waiting.filter(|q| q.ended.is_none()).find(|q| q.no == no) {
                found.ended = Some(end);
                done += 1;
            }
        }
        all.generation += 1;
        Ok(done)
    }

    async fn purge_quarantine(&self, space: &SpaceId, before: Time) -> Done<u64> {
        let mut all = self.all();
        let kept = &mut all.space_mut(space)?.quarantine;
        let held = kept.len();
        kept.retain(|q| q.ended.as_ref().is_none_or(|end| end.at >= before));
        let gone = (held - kept.len()) as u64;
        all.generation += i64::from(gone > 0);
        Ok(gone)
    }
}
