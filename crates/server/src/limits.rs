//! Every bound of the host in one place. Each can be set down to 1, so that a test can reach it.

use ropeway_core::limits;
use std::time::Duration;

/// The host's bounds. The engine's own (`ropeway_core::limits`) hold besides; the smaller one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a request as it travels, in bytes.
    pub body_wire_bytes: usize,
    /// Largest body of a request after decompression, in bytes.
    pub body_bytes: usize,
    /// Bytes of films and other large content kept beside the database, all together.
    pub blob_bytes: usize,
    /// Most changes in one push.
    pub push_changes: usize,
    /// Most records in one page of a pull; a reader that asks for more gets this many.
    pub page_rows: usize,
    /// Connections open at once; one more is answered with `unavailable` and closed.
    pub connections: usize,
    /// Connections open at once from one address (of IPv6: from one network of /64). A proxy in front of the
    /// host is one address.
    pub connections_per_address: usize,
    /// How long the head of a request may take, how long a connection may wait for the next one, and how long
    /// a TLS handshake may take.
    pub header_timeout: Duration,
    /// How long a body may stand still while it comes in.
    pub body_idle: Duration,
    /// How long a body may take altogether. Long, because slow links are legitimate.
    pub body_total: Duration,
    /// How long a reader may take nothing of an answer that waits for it.
    pub write_stall: Duration,
    /// How long a connection without a request in flight is kept.
    pub connection_idle: Duration,
    /// Requests a second of one device; twice as many at once.
    pub device_rate: u32,
    /// Requests a second without a good token from one address; twice as many at once.
    pub address_rate: u32,
    /// Pushes that are decoded and decided at once; others wait for their turn.
    pub pushes_at_once: usize,
    /// Live streams open at once.
    pub live_streams: usize,
    /// Live streams of one device open at once.
    pub live_streams_per_device: usize,
    /// How often a live stream looks for what another process committed.
    pub live_poll: Duration,
    /// How often a live stream says that it is still there.
    pub live_keep_alive: Duration,
    /// How often the files of the certificate are looked at.
    pub tls_look: Duration,
    /// How long requests in flight may take to end once the host was told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_wire_bytes: limits::PUSH_WIRE_BYTES_MAX,
            body_bytes: limits::PUSH_BYTES_MAX,
            blob_bytes: 16 << 30,
            push_changes: limits::PUSH_CHANGES_MAX,
            page_rows: limits::PAGE_MAX,
            connections: 512,
            connections_per_address: 256,
            header_timeout: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            body_total: Duration::from_secs(30 * 60),
            write_stall: Duration::from_secs(60),
            connection_idle: Duration::from_secs(60),
            device_rate: 1_000,
            address_rate: 200,
            pushes_at_once: 8,
            live_streams: 256,
            live_streams_per_device: 4,
            live_poll: Duration::from_secs(3),
            live_keep_alive: Duration::from_secs(15),
            tls_look: Duration::from_secs(5),
            drain: Duration::from_secs(20),
        }
    }
}
