//! A connection's socket with the two timers that hyper does not have: for the first bytes, by which the
//! HTTP version is told, and for a peer that takes nothing of what is written to it.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// The first bytes of HTTP/2. Until a connection has sent something else, or all of it, it is not known
/// which HTTP it speaks, and no other timer runs.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket under both timers.
pub(crate) struct Socket<S> {
    inner: S,
    /// Runs until the version is told.
    opening: Option<Pin<Box<Sleep>>>,
    told: usize,
    stall: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Socket<S> {
    /// A socket whose first bytes must come within `opening` and whose peer must not stall a write for
    /// longer than `stall`.
    pub(crate) fn new(inner: S, opening: Duration, stall: Duration) -> Self {
        Self { inner, opening: Some(Box::pin(sleep(opening))), told: 0, stall, stalled: None }
    }

    fn listen(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let as_expected = PREFACE.get(self.told) == Some(byte);
            self.told += 1;
            if !as_expected || self.told == PREFACE.len() {
                self.opening = None;
                return;
            }
        }
    }

    /// What came of a write: a waiting one starts the timer, any other stops it.
    fn watched<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall = self.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.opening.is_none() {
            return read;
        }
        match read {
            Poll::Ready(done) => {
                self.listen(&buf.filled()[before..]);
                Poll::Ready(done)
            }
            Poll::Pending => match self.opening.as_mut().map(|timer| timer.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer says nothing")))
                }
                _ => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watched(cx, written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watched(cx, written)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watched(cx, flushed)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watched(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const TICK: Duration = Duration::from_millis(60);

    #[tokio::test]
    async fn silence_and_half_a_preface_are_ended() {
        for first in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
            let (mut peer, socket) = duplex(1_000);
            let mut socket = Socket::new(socket, TICK, TICK);
            peer.write_all(first).await.unwrap();
            let mut bytes = [0; 100];
            let error = loop {
                match socket.read(&mut bytes).await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{first:?}");
        }
    }

    #[tokio::test]
    async fn what_is_told_may_take_its_time() {
        for first in [&b"GET / HTTP/1.1\r\n"[..], b"PUT", PREFACE] {
            let (mut peer, socket) = duplex(1_000);
            let mut socket = Socket::new(socket, TICK, TICK);
            let mut bytes = [0; 100];
            for byte in first {
                peer.write_all(&[*byte]).await.unwrap();
                assert_eq!(socket.read(&mut bytes).await.unwrap(), 1);
            }
            let late = tokio::spawn(async move {
                tokio::time::sleep(TICK * 10).await;
                peer.write_all(b"x").await.unwrap();
                peer
            });
            assert_eq!(socket.read(&mut bytes).await.unwrap(), 1);
            drop(late.await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_ended_and_a_slow_one_is_not() {
        let (mut peer, socket) = duplex(10);
        let mut socket = Socket::new(socket, TICK, TICK);
        let reader = tokio::spawn(async move {
            let mut byte = [0; 10];
            for _ in 0..5 {
                tokio::time::sleep(TICK / 2).await;
                peer.read_exact(&mut byte).await.unwrap();
            }
            tokio::time::sleep(TICK * 100).await;
        });
        assert!(socket.write_all(&[0; 50]).await.is_ok());
        assert_eq!(socket.write_all(&[0; 50]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        reader.abort();
    }
}
