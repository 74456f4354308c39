//! `openapi`: the document of the native protocol, as a node of this version serves it.

use crate::{failure::Exit, open, output::Output};
use anyhow::Result;
use ropeway_core::id::{Epoch, SpaceId};
use ropeway_replica::{Clock, Ids, Node, NodeOptions, RandomIds, SystemClock};
use ropeway_server::{Server, ServerOptions};
use ropeway_store::{Options, SqliteStore};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Prints the document. A node in a directory of its own is asked for it, so that it cannot differ.
pub(crate) async fn run(output: Output) -> Result<Exit> {
    let dir = tempfile::tempdir()?;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock::new()), Arc::new(RandomIds));
    let store = Arc::new(SqliteStore::open(
        dir.path().join("node.db"),
        Options::new(Epoch::parse(&ids.id())?, clock.now()),
    )?);
    let profile = Arc::new(open::default_profile()?);
    let node = Node::open(NodeOptions { store, profile, clock, ids, follows: false }).await?;
    let server =
        Server::bind(ServerOptions::new(([127, 0, 0, 1], 0).into(), node, SpaceId::parse("main")?)).await?;
    let url = format!("http://{}/openapi.json", server.local_addr());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        server
            .serve(async {
                let _ = stopped.await;
            })
            .await
    });
    let document: Value =
        reqwest::Client::builder().no_proxy().build()?.get(url).send().await?.json().await?;
    let _ = stop.send(());
    serving.await?;
    output.either(&document, || serde_json::to_string_pretty(&document).unwrap_or_default())?;
    Ok(Exit::Done)
}
