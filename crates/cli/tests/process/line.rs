//! A poor line, as TCP shows it to whoever uses it: segments take their time, some come a retransmission later,
//! some connections end.

use crate::rig::{Lot, pause};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// What one segment carries on Ethernet.
const SEGMENT: usize = 1_448;
/// Segments on their way in one direction of a connection before its sender has to wait.
const WINDOW: usize = 32;
/// After so long a lost segment is sent again, and after twice as long if that one is lost too: the least that
/// Linux waits. A line never does better here by hearing of a loss from what comes behind it.
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// The same for the first segment of a connection.
const FIRST_RETRANSMISSION: Duration = Duration::from_secs(1);

/// How poor it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quality {
    /// One segment in so many is lost, each way.
    pub(crate) lost: Option<u64>,
    /// One segment in so many takes its connection with it.
    pub(crate) cut: Option<u64>,
    /// Bits a second, each way, for all connections together.
    pub(crate) rate: Option<u64>,
    /// How long a segment takes, each way.
    pub(crate) delay: Duration,
}

/// A line to one server.
pub(crate) struct Line {
    pub(crate) url: String,
    wire: Arc<Wire>,
}

struct Wire {
    quality: Quality,
    lot: Mutex<Lot>,
    carried: AtomicU64,
    lost: AtomicU64,
    cut: AtomicU64,
}

/// One direction: until when it is busy.
type Busy = Arc<Mutex<Instant>>;

impl Line {
    /// A line to the server at `url`.
    pub(crate) fn to(url: &str, quality: Quality) -> Self {
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let wire = Arc::new(Wire {
            quality,
            lot: Mutex::new(Lot::new(5)),
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        });
        let shared = Arc::clone(&wire);
        let (up, down) = (Arc::new(Mutex::new(now())), Arc::new(Mutex::new(now())));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (wire, target) = (Arc::clone(&shared), target.clone());
                let (up, down) = (Arc::clone(&up), Arc::clone(&down));
                thread::spawn(move || wire.connect(&client, &target, &up, &down));
            }
        });
        Self { url, wire }
    }

    /// Bytes carried, both ways.
    pub(crate) fn carried(&self) -> u64 {
        self.wire.carried.load(Ordering::Relaxed)
    }

    /// Segments lost and connections cut.
    pub(crate) fn hurt(&self) -> (u64, u64) {
        (self.wire.lost.load(Ordering::Relaxed), self.wire.cut.load(Ordering::Relaxed))
    }
}

impl Wire {
    /// Carries one connection, both ways.
    fn connect(self: &Arc<Self>, client: &TcpStream, target: &str, up: &Busy, down: &Busy) -> Option<()> {
        pause(self.stalls(FIRST_RETRANSMISSION) + self.quality.delay);
        let server = TcpStream::connect(target).ok()?;
        for stream in [client, &server] {
            stream.set_nodelay(true).ok()?;
        }
        let (back_from, back_to) = (server.try_clone().ok()?, client.try_clone().ok()?);
        let (wire, down) = (Arc::clone(self), Arc::clone(down));
        let back = thread::spawn(move || wire.carry(&back_from, back_to, &down));
        self.carry(client, server, up);
        let _ = back.join();
        Some(())
    }

    /// Carries one direction.
    fn carry(&self, mut from: &TcpStream, mut to: TcpStream, busy: &Busy) {
        let (sender, under_way) = mpsc::sync_channel::<(Instant, Vec<u8>)>(WINDOW);
        let writer = to.try_clone();
        let writing = thread::spawn(move || {
            for (due, segment) in under_way {
                pause(due.saturating_duration_since(now()));
                if to.write_all(&segment).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let (mut segment, mut last) = ([0; SEGMENT], now());
        while let Ok(length @ 1..) = from.read(&mut segment) {
            if self.one_in(self.quality.cut) {
                self.cut.fetch_add(1, Ordering::Relaxed);
                let _ = from.shutdown(Shutdown::Both);
                let _ = writer.as_ref().map(|to| to.shutdown(Shutdown::Both));
                break;
            }
            self.carried.fetch_add(length as u64, Ordering::Relaxed);
            // What is lost keeps waiting what comes behind it in this connection, and nobody else.
            last = last.max(self.through(busy, length) + self.stalls(RETRANSMISSION));
            if sender.send((last, segment[..length].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
        let _ = writing.join();
    }

    /// When a segment is at the other end, once all that went before it is through.
    fn through(&self, busy: &Busy, length: usize) -> Instant {
        let mut busy = busy.lock().unwrap();
        let bits = Duration::from_secs(8 * length as u64);
        let takes = self.quality.rate.map_or(Duration::ZERO, |rate| bits / u32::try_from(rate).unwrap());
        *busy = now().max(*busy) + takes;
        *busy + self.quality.delay
    }

    /// How long one segment is sent again and again.
    fn stalls(&self, first: Duration) -> Duration {
        let (mut waited, mut next) = (Duration::ZERO, first);
        while self.one_in(self.quality.lost) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            waited += next;
            next *= 2;
        }
        waited
    }

    fn one_in(&self, many: Option<u64>) -> bool {
        many.is_some_and(|many| self.below(many) == 0)
    }

    fn below(&self, bound: u64) -> u64 {
        self.lot.lock().unwrap().below(bound)
    }
}

#[allow(clippy::disallowed_methods, reason = "a line takes real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
