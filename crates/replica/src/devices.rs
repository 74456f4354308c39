//! Devices: registered with a token that is shown once and kept as a hash, known by it, revoked for good.

use crate::{Node, ReplicaError, cursor, secret::hex};
use ropeway_core::{
    change::{Door, Grant},
    id::{DeviceId, Epoch, SpaceId},
    time::Stamp,
};
use ropeway_store::{Device, DeviceStatus, SpaceState};

/// A clock that moved by less is not noted anew: a busy device must not cost a commit a request.
const CLOCK_MOVED: i64 = 1_000_000;

/// A device to register (ISMF-144).
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// Its id, when the device already has one; otherwise a new UUID.
    pub id: Option<DeviceId>,
    /// Its name for people.
    pub name: String,
    /// The space it belongs to.
    pub space: SpaceId,
    /// The most that its people may do: a role of the profile.
    pub role: String,
    /// `cloud` or `offline_device` (ISMF-060).
    pub mode: String,
    /// Hardware, operating system, app version.
    pub metadata: serde_json::Value,
}

/// A registered device, with the only sight of its token.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// The device.
    pub device: Device,
    /// 64 hexadecimal characters. Nobody can show it again.
    pub token: String,
}

impl Node {
    /// Registers a device. Errors: an unknown role, mode or space; an id that is taken.
    pub async fn enrol(&self, enrolment: Enrolment) -> Result<Enrolled, ReplicaError> {
        let Enrolment { id, name, space, role, mode, metadata } = enrolment;
        if !self.inner.profile.roles.contains_key(&role) {
            let known = self.inner.profile.roles.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(ReplicaError::Invalid(format!("the profile has no role `{role}`; it has {known}")));
        }
        if !matches!(mode.as_str(), "cloud" | "offline_device") {
            return Err(ReplicaError::Invalid(format!(
                "the mode `{mode}` is neither `cloud` nor `offline_device`"
            )));
        }
        if name.trim().is_empty() || name.len() > 200 {
            return Err(ReplicaError::Invalid("a device needs a name of 1–200 characters".into()));
        }
        self.must_be_a_tenant(&space).await?;
        let id = match id {
            Some(id) => id,
            None => DeviceId::parse(&self.inner.ids.id())?,
        };
        let token = hex(&self.inner.ids.secret());
        let device = Device {
            id,
            space,
            name: name.trim().to_owned(),
            mode,
            role,
            status: DeviceStatus::Active,
            token_hash: token_hash(&token),
            metadata,
            created_at: self.inner.clock.now(),
            last_seen_at: None,
            pulled: None,
            pulled_shared: None,
        };
        if !self.inner.store.add_device(&device).await? {
            return Err(ReplicaError::Invalid(format!("the device id `{}` is taken", device.id)));
        }
        Ok(Enrolled { device, token })
    }

    /// The active device that holds this token; notes that it was seen (ISMF-051).
    ///
    /// Errors: [`ReplicaError::Unauthenticated`], [`ReplicaError::Revoked`].
    pub async fn authenticate(&self, token: &str) -> Result<Device, ReplicaError> {
        let device = self.holder(token).await?.ok_or(ReplicaError::Unauthenticated)?;
        if device.status == DeviceStatus::Decommissioned {
            return Err(ReplicaError::Revoked(device.name));
        }
        // A disk that is full must not keep a device from reading.
        if let Err(error) = self.seen(&device).await {
            tracing::warn!(%error, "when the device was seen could not be noted");
        }
        Ok(device)
    }

    /// Whose token it is, revoked or not.
    pub(crate) async fn holder(&self, token: &str) -> Result<Option<Device>, ReplicaError> {
        // Looked up by hash: how long it takes says nothing about how much of a guess was right.
        Ok(self.inner.store.device_by_token(&token_hash(token)).await?)
    }

    /// Notes how far a device has read: what it sends back as its cursor, it has, and no more: a device that was
    /// restored or begins anew (`None`) holds tombstones back again. The feed has already looked at the cursor's seal.
    pub async fn note_read(&self, device: &Device, cursor: Option<&str>) -> Result<(), ReplicaError> {
        let Some((own, shared)) = cursor.map_or(Some((Stamp(0), None)), cursor::has_read) else {
            return Ok(());
        };
        let shared = self.beside(&device.space).await?.map(|_| shared.unwrap_or(Stamp(0)));
        if device.pulled == Some(own) && (shared.is_none() || device.pulled_shared == shared) {
            return Ok(());
        }
        let (Device { space, id, .. }, now) = (device, self.inner.clock.now());
        Ok(self.inner.store.touch_device(space, id, now, Some(own), shared).await?)
    }

    /// Refuses what was made for another epoch of a space; `None`: it does not say. The space as it is now.
    pub async fn must_be_of(
        &self,
        space: &SpaceId,
        epoch: Option<&Epoch>,
    ) -> Result<SpaceState, ReplicaError> {
        let state = self.inner.store.space(space).await?;
        match epoch.is_some_and(|epoch| *epoch != state.epoch) {
            true => Err(ReplicaError::EpochChanged),
            false => Ok(state),
        }
    }

    /// Whether a device may push what it made for an epoch: not before it has read past every deletion that is no
    /// longer known here, for it may not know that what it changes is gone (I10). Its space as it is now.
    pub async fn may_push(&self, device: &Device, epoch: Option<&Epoch>) -> Result<SpaceState, ReplicaError> {
        let space = self.must_be_of(&device.space, epoch).await?;
        if let Some(read) = device.pulled {
            crate::feed::horizon(read, space.purged)?;
        }
        if let Some(read) = device.pulled_shared
            && let Some(shared) = self.beside(&device.space).await?
        {
            crate::feed::horizon(read, self.inner.store.space(&shared).await?.purged)?;
        }
        Ok(space)
    }

    /// All devices.
    pub async fn devices(&self) -> Result<Vec<Device>, ReplicaError> {
        Ok(self.inner.store.devices().await?)
    }

    /// Takes a device's right to sync away, for good (I9). Its own unsent work stays on it, and
    /// what it sends from now on waits in quarantine ([`Node::quarantined`]).
    pub async fn revoke(&self, space: &SpaceId, id: &DeviceId) -> Result<Device, ReplicaError> {
        let found = self.inner.store.device(space, id).await?;
        let mut device = found.ok_or_else(|| ReplicaError::NotFound(format!("the device `{id}`")))?;
        device.status = DeviceStatus::Decommissioned;
        self.inner.store.put_device(&device).await?;
        Ok(device)
    }

    /// Gives a device a new token; the old one is good for nothing from now on (GP-13).
    ///
    /// Errors: [`ReplicaError::NotFound`], [`ReplicaError::Revoked`].
    pub async fn rotate(&self, space: &SpaceId, id: &DeviceId) -> Result<Enrolled, ReplicaError> {
        let found = self.inner.store.device(space, id).await?;
        let mut device = found.ok_or_else(|| ReplicaError::NotFound(format!("the device `{id}`")))?;
        if device.status == DeviceStatus::Decommissioned {
            return Err(ReplicaError::Revoked(device.name));
        }
        let token = hex(&self.inner.ids.secret());
        device.token_hash = token_hash(&token);
        self.inner.store.put_device(&device).await?;
        Ok(Enrolled { device, token })
    }

    /// Notes how far a device's clock is off by its own word: microseconds to add to its times (TR-21).
    pub async fn note_clock(&self, device: &Device, offset: i64) -> Result<(), ReplicaError> {
        let known = self.clock_of(device).await?;
        if known.is_none_or(|known| (known - offset).abs() >= CLOCK_MOVED) {
            self.inner.store.put_meta(&clock_name(device), &offset.to_string()).await?;
        }
        Ok(())
    }

    /// How far a device's clock was off when it last told, in microseconds; `None` where it never did.
    pub async fn clock_of(&self, device: &Device) -> Result<Option<i64>, ReplicaError> {
        Ok(self.inner.store.meta(&clock_name(device)).await?.and_then(|text| text.parse().ok()))
    }

    /// What the node grants to a device that pushes.
    pub fn grant_of(&self, device: &Device) -> Grant {
        Grant { door: Door::Push, device: device.id.clone(), role: device.role.clone() }
    }

    /// Writes `last_seen_at` at most once in ten seconds: a busy device must not cost a commit a request.
    async fn seen(&self, device: &Device) -> Result<(), ReplicaError> {
        const AT_MOST_EVERY: i64 = 10_000_000;
        let now = self.inner.clock.now();
        if device.last_seen_at.is_none_or(|last| now.since(last).abs() >= AT_MOST_EVERY) {
            self.inner.store.touch_device(&device.space, &device.id, now, None, None).await?;
        }
        Ok(())
    }
}

fn clock_name(device: &Device) -> String {
    format!("device.clock.{}.{}", device.space, device.id)
}

/// Hash of a token. 256 random bits need no slow hash.
fn token_hash(token: &str) -> String {
    blake3::derive_key("ropeway device token v1", token.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
