//! Every bound that can be set: `[limits]` in the configuration file, or `ROPEWAY_LIMIT_…` in the
//! environment. Each goes down to 1, so that a test can reach it.

use crate::{environment::Environment, failure::Failure};
use ropeway_core::retention::Keep;
use ropeway_replica::{FollowOptions, SyncOptions};
use ropeway_server::Limits as ServerLimits;
use std::{collections::BTreeMap, time::Duration};

/// The prefix of the environment's names.
pub(crate) const PREFIX: &str = "ROPEWAY_LIMIT_";

/// The bounds of a node as it is run.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// What it takes from others.
    pub(crate) server: ServerLimits,
    /// How it follows an upstream.
    pub(crate) follow: FollowOptions,
    /// How it reaches one.
    pub(crate) reach: Reach,
    /// What it keeps, and for how long.
    pub(crate) keep: Keep,
    /// How often a serving node purges what it need not keep.
    pub(crate) purge_every: Duration,
    /// How often a serving node looks whether somebody has to be told of something.
    pub(crate) alert_every: Duration,
}

/// The patience of the upstream's client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    pub(crate) connect: Duration,
    pub(crate) idle: Duration,
    pub(crate) hello: Duration,
    pub(crate) answer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let reach = Reach {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            hello: Duration::from_secs(5),
            answer_bytes: 64 << 20,
        };
        Self {
            server: ServerLimits::default(),
            follow: FollowOptions::default(),
            reach,
            keep: Keep::default(),
            purge_every: Duration::from_secs(3_600),
            alert_every: Duration::from_secs(15),
        }
    }
}

/// One bound: its name, what it bounds, and how it is set.
pub(crate) struct Bound {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    set: fn(&mut Limits, u64),
    get: fn(&Limits) -> u64,
}

macro_rules! bounds {
    ($($name:literal, $what:literal, $kind:ident $($path:ident).+;)*) => {
        /// All bounds, in the order of the documentation.
        pub(crate) const ALL: &[Bound] = &[$(Bound {
            name: $name,
            what: $what,
            set: |limits, value| limits.$($path).+ = bounds!(@set $kind value),
            get: |limits| bounds!(@get $kind limits.$($path).+),
        },)*];
    };
    (@set count $value:ident) => { usize::try_from($value).unwrap_or(usize::MAX) };
    (@set rate $value:ident) => { u32::try_from($value).unwrap_or(u32::MAX) };
    (@set millis $value:ident) => { Duration::from_millis($value) };
    (@set seconds $value:ident) => { Duration::from_secs($value) };
    (@set some_seconds $value:ident) => { Some(Duration::from_secs($value)) };
    (@set some_millis $value:ident) => { Some(Duration::from_millis($value)) };
    (@get count $value:expr) => { $value as u64 };
    (@get rate $value:expr) => { u64::from($value) };
    (@get millis $value:expr) => { $value.as_millis() as u64 };
    (@get seconds $value:expr) => { $value.as_secs() };
    (@get some_seconds $value:expr) => { $value.map_or(0, |d: Duration| d.as_secs()) };
    (@get some_millis $value:expr) => { $value.map_or(0, |d: Duration| d.as_millis() as u64) };
}

bounds! {
    "body_wire_bytes", "largest body of a request as it travels", count server.body_wire_bytes;
    "body_bytes", "largest body of a request after decompression", count server.body_bytes;
    "blob_bytes", "films and other large content kept beside the database", count server.blob_bytes;
    "push_changes", "most changes in one push", count server.push_changes;
    "page_rows", "most records in one page of a pull", count server.page_rows;
    "connections", "connections open at once", count server.connections;
    "connections_per_address", "connections open at once from one address", count server.connections_per_address;
    "header_timeout_ms", "time for the head of a request, and for a TLS handshake", millis server.header_timeout;
    "body_idle_ms", "time that a body may stand still", millis server.body_idle;
    "body_total_ms", "time for a whole body", millis server.body_total;
    "write_stall_ms", "time that a reader may take nothing", millis server.write_stall;
    "connection_idle_ms", "time that an idle connection is kept", millis server.connection_idle;
    "device_rate", "requests a second of one device", rate server.device_rate;
    "address_rate", "requests a second of one address without a good token", rate server.address_rate;
    "pushes_at_once", "pushes decided at once", count server.pushes_at_once;
    "live_streams", "live streams open at once", count server.live_streams;
    "live_streams_per_device", "live streams of one device", count server.live_streams_per_device;
    "live_poll_ms", "how often a live stream looks for news of other processes", millis server.live_poll;
    "live_keep_alive_ms", "how often a live stream says that it is there", millis server.live_keep_alive;
    "tls_look_ms", "how often the files of the certificate are looked at", millis server.tls_look;
    "drain_ms", "time for requests in flight after SIGTERM", millis server.drain;
    "sync_batch_changes", "changes that a follower sends at once", count follow.sync.batch_changes;
    "sync_batch_bytes", "bytes that a follower sends at once", count follow.sync.batch_bytes;
    "sync_page", "records that a follower asks for at once", count follow.sync.page;
    "sync_every_ms", "how often a follower syncs on its own (0 here: the profile's word)", some_millis follow.every;
    "sync_debounce_ms", "pause between two syncs that local writes set off", millis follow.debounce;
    "sync_probe_ms", "longest wait between two looks for an upstream out of reach", millis follow.probe;
    "connect_timeout_ms", "time for a connection to the upstream", millis reach.connect;
    "idle_timeout_ms", "time that an exchange with the upstream may stand still", millis reach.idle;
    "hello_timeout_ms", "time for the upstream to say that it is there", millis reach.hello;
    "keep_horizon_s", "a device not seen for longer holds nothing back", seconds keep.horizon;
    "keep_tombstones_s", "how long a tombstone is kept at least", seconds keep.tombstones;
    "keep_history_s", "how long a superseded version is kept (0 here: for ever)", some_seconds keep.history;
    "keep_receipts_s", "how long receipts and settled outbox entries are kept at least", seconds keep.receipts;
    "purge_every_s", "how often a serving node purges what it need not keep", seconds purge_every;
    "alert_every_ms", "how often a serving node looks whether somebody has to be told", millis alert_every;
    "answer_bytes", "largest answer of the upstream", count reach.answer_bytes;
}

impl Limits {
    /// The defaults with what the file and then the environment say.
    pub(crate) fn read(file: &BTreeMap<String, u64>, environment: &Environment) -> Result<Self, Failure> {
        let mut limits = Self::default();
        for (name, value) in file {
            limits.set(name, *value, &format!("limits.{name}"))?;
        }
        for (name, text) in environment.beginning(PREFIX) {
            let shown = format!("{PREFIX}{name}");
            let value =
                text.parse().map_err(|_| Failure::usage(format!("{shown}=`{text}` is no whole number")))?;
            limits.set(&name.to_ascii_lowercase(), value, &shown)?;
        }
        Ok(limits)
    }

    /// Every bound with its value, for people.
    pub(crate) fn listed(&self) -> impl Iterator<Item = (&'static Bound, u64)> {
        ALL.iter().map(|bound| (bound, (bound.get)(self)))
    }

    fn set(&mut self, name: &str, value: u64, shown: &str) -> Result<(), Failure> {
        let Some(bound) = ALL.iter().find(|bound| bound.name == name) else {
            let known = ALL.iter().map(|b| b.name).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("{shown}: there is no such limit; there are {known}")));
        };
        if value == 0 {
            return Err(Failure::usage(format!("{shown} must be at least 1 ({})", bound.what)));
        }
        (bound.set)(self, value);
        Ok(())
    }

    /// The pacing of one sync.
    pub(crate) fn sync(&self) -> &SyncOptions {
        &self.follow.sync
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_can_be_set_down_to_one_by_file_and_by_environment() {
        for bound in ALL {
            let file = BTreeMap::from([(bound.name.to_owned(), 1)]);
            let limits = Limits::read(&file, &Environment::default()).unwrap();
            assert_eq!((bound.get)(&limits), 1, "{}", bound.name);
            let name = format!("{PREFIX}{}", bound.name.to_ascii_uppercase());
            let limits = Limits::read(&file, &Environment::of(&[(&name, "2")])).unwrap();
            assert_eq!((bound.get)(&limits), 2, "the environment comes before the file: {name}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        let read = |name: &str, value: u64| {
            Limits::read(&BTreeMap::from([(name.to_owned(), value)]), &Environment::default())
        };
        assert!(read("page_rows", 0).unwrap_err().to_string().contains("at least 1"));
        assert!(read("pages", 3).unwrap_err().to_string().contains("page_rows"));
        let env = Environment::of(&[("ROPEWAY_LIMIT_PAGE_ROWS", "many")]);
        assert!(Limits::read(&BTreeMap::new(), &env).unwrap_err().to_string().contains("`many`"));
    }
}
