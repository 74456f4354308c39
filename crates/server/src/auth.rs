//! Who asks: a device, known by its token. What it may do is judged here and in ingest, never from what
//! it sends.

use crate::{Failure, Host, body::malformed};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use ropeway_core::{
    id::{DeviceId, SpaceId},
    nonce::{BadPair, Pair},
};
use ropeway_protocol::{DEVICE_HEADER, Problem, ProblemCode, SYNC_HEADER};
use ropeway_replica::{Device, ReplicaError};
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::time::Instant;

/// Longer than any token.
const TOKEN_MAX: usize = 256;
/// The role that manages devices.
const ADMIN: &str = "admin";

/// The address a request came from, as the socket says; what a header claims is not looked at.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The device that asks. Handlers of everything under `/v1` take one; without a good token they are not
/// reached.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The device.
    pub device: Device,
}

impl Caller {
    /// The one space that it may see.
    pub fn space(&self) -> &SpaceId {
        &self.device.space
    }

    /// Refuses everybody but administrators.
    pub fn must_be_admin(&self) -> Result<(), Failure> {
        if self.device.role == ADMIN {
            return Ok(());
        }
        let why = format!(
            "devices are managed by the role `{ADMIN}`, this device has the role `{}`",
            self.device.role
        );
        Err(Failure::new(ProblemCode::Forbidden, why))
    }
}

impl FromRequestParts<Host> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Failure> {
        match identify(&parts.headers, host).await {
            Ok(device) => {
                take_of_device(&device, host)?;
                meet(&parts.headers, &device, host).await?;
                Ok(Self { device })
            }
            Err(failure) if failure.0.status < 500 => {
                take_of_address(parts, host)?;
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// A device that pushes: one that may, or one that was revoked and hands its work in to quarantine (I9).
#[derive(Debug)]
pub enum Pusher {
    /// It may.
    Active(Caller),
    /// It may not any more.
    Revoked(Device),
}

impl FromRequestParts<Host> for Pusher {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Failure> {
        let failure = match Caller::from_request_parts(parts, host).await {
            Ok(caller) => return Ok(Self::Active(caller)),
            Err(failure) => failure,
        };
        let Some(token) = bearer(&parts.headers).filter(|_| failure.0.code == ProblemCode::DeviceRevoked)
        else {
            return Err(failure);
        };
        let device = host.node().revoked(token).await?.ok_or(failure)?;
        take_of_device(&device, host)?;
        Ok(Self::Revoked(device))
    }
}

/// Somebody unknown, who may ask only so often. For what costs something and needs no token.
#[derive(Debug)]
pub(crate) struct Guest;

impl FromRequestParts<Host> for Guest {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, host: &Host) -> Result<Self, Failure> {
        take_of_address(parts, host)?;
        Ok(Self)
    }
}

async fn identify(headers: &HeaderMap, host: &Host) -> Result<Device, Failure> {
    let token = bearer(headers).ok_or_else(|| {
        Failure::new(ProblemCode::Unauthenticated, "the request carries no `Authorization: Bearer` token")
    })?;
    let device = host.node().authenticate(token).await?;
    let mut named = headers.get_all(DEVICE_HEADER).iter();
    let same = |value: &axum::http::HeaderValue| {
        value.to_str().ok().and_then(|text| DeviceId::parse(text.trim()).ok()).as_ref() == Some(&device.id)
    };
    if !named.all(same) {
        let why = format!("the token is not that of the device that `{DEVICE_HEADER}` names");
        return Err(Failure::new(ProblemCode::Unauthenticated, why));
    }
    Ok(device)
}

/// Refuses a copy of a device. A request that names no sync, of an older client say, is let through.
async fn meet(headers: &HeaderMap, device: &Device, host: &Host) -> Result<(), Failure> {
    let mut named = headers.get_all(SYNC_HEADER).iter();
    let Some(value) = named.next() else { return Ok(()) };
    let pair: Option<Pair> = value.to_str().ok().and_then(|text| text.parse().ok());
    let (Some(pair), None) = (pair, named.next()) else {
        return Err(malformed(format!("the header `{SYNC_HEADER}` is not like this: {BadPair}")));
    };
    let met = host.node().meet(device, &pair).await;
    if matches!(met, Err(ReplicaError::Cloned(_))) {
        host.inner.metrics.clones_refused.inc();
    }
    // On a full disk this is the first write to fail, and no push gets as far as its own.
    if met.is_err() {
        host.wrote(&met);
    }
    Ok(met?)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let value = all.next()?.to_str().ok()?;
    if all.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_MAX).then_some(token)
}

/// A device asks only so often.
fn take_of_device(device: &Device, host: &Host) -> Result<(), Failure> {
    let key = (device.space.clone(), device.id.clone());
    host.inner.devices.take(key, Instant::now()).map_err(too_often)
}

fn take_of_address(parts: &Parts, host: &Host) -> Result<(), Failure> {
    let Some(Peer(address)) = parts.extensions.get::<Peer>() else { return Ok(()) };
    host.inner.addresses.take(network(address.ip()), Instant::now()).map_err(too_often)
}

/// An IPv4 address, or the network of an IPv6 one: whoever has one address there has all of them.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

fn too_often(wait: Duration) -> Failure {
    Failure(Problem::new(ProblemCode::RateLimited, "too many requests").after(wait.as_secs() + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_bearer_token_is_read() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer  abc "]).as_deref(), Some("abc"));
        for bad in [&[][..], &["abc"], &["Bearer "], &["Basic abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(read(&[&format!("Bearer {}", "x".repeat(TOKEN_MAX + 1))]), None);
    }

    #[test]
    fn neighbours_in_an_ipv6_network_share_an_allowance() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
