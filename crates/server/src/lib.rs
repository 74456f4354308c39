//! # ropeway-server: the host
//!
//! What stands between a node and the network: our own accept loop with its timers and bounds, the
//! layers that every request passes, authentication, the native API of PROTOCOL.md, the live stream,
//! metrics, and the orderly end. It decides nothing about records: every verb is the replica's.

mod allowance;
mod auth;
mod body;
mod connection;
mod door;
mod edge;
mod failure;
mod heads;
mod host;
mod intake;
mod limits;
mod metrics;
mod routes;
mod serve;
mod slots;
mod socket;
mod tls;

pub use auth::{Caller, Peer, Pusher};
pub use body::read_body;
pub use failure::{Failure, problem_of};
pub use host::Host;
pub use intake::Decided;
pub use limits::Limits;
pub use metrics::{Rate, Rates};
pub use routes::document;
pub use serve::{Drained, ServeError, Server, ServerOptions};
pub use tls::{Tls, TlsError};
pub use utoipa_axum::router::OpenApiRouter;
