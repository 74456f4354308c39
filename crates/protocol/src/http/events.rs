//! The live stream as it is read: server-sent events, of which only the heads matter.

use crate::TransportError;
use ropeway_core::time::Stamp;
use serde::Deserialize;

/// The content type of the live stream.
pub(super) const TYPE: &str = "text/event-stream";

/// Longest line taken in.
const LINE_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct Head {
    head: Stamp,
}

/// Reads the stream as it arrives. Events of other names, other fields and comments are passed over.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    name: String,
    data: String,
}

impl Events {
    /// Takes the bytes that arrived and returns the heads that they announced.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Stamp>, TransportError> {
        let mut heads = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take(String::from_utf8_lossy(&line).trim_end_matches('\r'), &mut heads)?;
                }
                _ if self.line.len() >= LINE_MAX => {
                    return Err(TransportError::Garbled("a line of the live stream has no end".into()));
                }
                byte => self.line.push(*byte),
            }
        }
        Ok(heads)
    }

    fn take(&mut self, line: &str, heads: &mut Vec<Stamp>) -> Result<(), TransportError> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            if name == "head" {
                let head: Head = serde_json::from_str(&data)
                    .map_err(|e| TransportError::Garbled(format!("a head of the live stream: {e}")))?;
                heads.push(head.head);
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" if self.data.len() + value.len() <= LINE_MAX => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "data" => return Err(TransportError::Garbled("an event of the live stream is too large".into())),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_however_they_arrive() {
        let stream =
            b": hello\r\n\r\nevent: head\r\nid: 5\r\ndata: {\"head\":5}\r\n\r\nevent: other\ndata: x\n\n\
            event: head\ndata: {\"head\":7,\"more\":1}\n\nevent: head\ndata: {\"head\":9";
        for size in 1..stream.len() {
            let mut events = Events::default();
            let heads: Vec<Stamp> =
                stream.chunks(size).flat_map(|piece| events.feed(piece).unwrap()).collect();
            assert_eq!(heads, [Stamp(5), Stamp(7)], "in pieces of {size}");
        }
    }

    #[test]
    fn a_stream_of_something_else_is_garbled() {
        assert!(Events::default().feed(b"event: head\ndata: <html>\n\n").is_err());
        assert!(Events::default().feed(&[b'x'; LINE_MAX + 1]).is_err());
        let mut events = Events::default();
        let line = [b"data: ".as_slice(), &[b'x'; LINE_MAX / 2], b"\n"].concat();
        assert!((0..10).any(|_| events.feed(&line).is_err()));
    }
}
