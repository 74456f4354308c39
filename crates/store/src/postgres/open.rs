//! Opening: the connections, what the server must promise, and the newest schema.

use super::{
    address::Address,
    conn::{Data, Db},
    errors::{Done, corrupt},
    schema,
};
use crate::StoreError;
use deadpool_postgres::{Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts};
use ropeway_core::{id::Epoch, time::Time};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// How a database is opened.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Where: `postgresql://user@host/database`.
    pub url: String,
    /// The epoch to give to a database that has none yet.
    pub epoch: Epoch,
    /// The clock when it is opened.
    pub now: Time,
    /// Whether the node has an upstream.
    pub follows: bool,
    /// Most connections at the same time.
    pub connections: usize,
    /// How long a caller waits for a free connection before it is told to come again.
    pub patience: Duration,
}

impl PostgresOptions {
    /// The usual ones: few connections, because waiting writes share transactions.
    pub fn new(url: impl Into<String>, epoch: Epoch, now: Time) -> Self {
        let (connections, patience) = (12, Duration::from_secs(5));
        Self { url: url.into(), epoch, now, follows: false, connections, patience }
    }

    /// The same for a node with an upstream.
    pub fn following(self, follows: bool) -> Self {
        Self { follows, ..self }
    }
}

/// Connects and brings the schema up to date. With the connections: whether a node was begun here. `None`
/// where nothing is there and nothing may be begun.
pub(super) async fn open(options: &PostgresOptions, begin: bool) -> Done<Option<(Db, bool)>> {
    let address = Address::read(&options.url)?;
    let recycling_method = RecyclingMethod::Fast;
    let Address { config, .. } = &address;
    let manager = Manager::from_config(config.clone(), address.tls()?, ManagerConfig { recycling_method });
    let wait = Some(options.patience);
    let pool = Pool::builder(manager)
        .max_size(options.connections.max(2))
        .timeouts(Timeouts { wait, create: Some(Duration::from_secs(10)), recycle: wait })
        .runtime(Runtime::Tokio1)
        // The connection that was used last knows the most by heart.
        .queue_mode(QueueMode::Lifo)
        .build()
        .map_err(|e| corrupt(format!("no pool of connections: {e}")))?;
    let mut client = pool.get().await?;
    let fsync: String = client.query_one("SHOW fsync", &[]).await?.try_get(0)?;
    if fsync != "on" {
        return Err(StoreError::Unavailable {
            what: "the server runs with fsync=off and would lose what it acknowledged: switch it on".into(),
            source: None,
        });
    }
    let is_there = schema::is_there(&client).await?;
    if !is_there && !begin {
        return Ok(None);
    }
    let made = schema::migrate(&mut client, options.now, &options.epoch).await?;
    let data = Arc::new(Data { known: Mutex::default(), seed: options.epoch.to_string() });
    let db = Db { pool, follows: options.follows, data };
    drop(db.heed(client).await?);
    Ok(Some((db, made)))
}
