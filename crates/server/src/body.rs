//! A request's body, read within its bounds: bytes as they travel, bytes after decompression, standing
//! still, and altogether.
//!
//! The body is decompressed here and not by a layer: into a buffer that is bounded, so that a bomb never goes
//! off, with a bound on the zstd window, which the usual layer does not have, and with every way to fail
//! answered as the problem that it is.

use crate::{Failure, Host};
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, header::CONTENT_ENCODING},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use ropeway_protocol::{Problem, ProblemCode};
use serde::de::DeserializeOwned;
use std::io::{self, Read};
use tokio::time::{Instant, timeout_at};

/// Largest window of a zstd body, as a power of two: RFC 9659 bounds what a receiver must set aside.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bodies larger than this are decompressed beside the workers that serve connections.
const UNPACK_APART: usize = 16 << 10;

/// How a body travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Zstd,
}

/// Reads a request's body and decompresses it.
pub async fn read_body(host: &Host, request: Request) -> Result<Bytes, Failure> {
    let coding = coding(request.headers())?;
    let most = host.limits().body_bytes;
    let packed = arrived(host, request.into_body()).await?;
    if coding == Coding::Plain {
        return if packed.len() > most { Err(beyond(most)) } else { Ok(packed) };
    }
    let unpacked = if packed.len() > UNPACK_APART {
        let apart = tokio::task::spawn_blocking(move || unpack(coding, &packed, most)).await;
        apart.unwrap_or_else(|_| Err(io::Error::other("the decoder is at fault")))
    } else {
        unpack(coding, &packed, most)
    };
    match unpacked {
        Ok(Some(body)) => Ok(body.into()),
        Ok(None) => Err(beyond(most)),
        Err(_) => Err(malformed("the compressed body is damaged or was cut; nothing was taken in")),
    }
}

/// Reads a small JSON body.
pub(crate) async fn read_json<T: DeserializeOwned>(host: &Host, request: Request) -> Result<T, Failure> {
    let body = read_body(host, request).await?;
    serde_json::from_slice(&body).map_err(|e| malformed(format!("the body cannot be read: {e}")))
}

/// A body or a parameter that cannot be read.
pub(crate) fn malformed(why: impl Into<String>) -> Failure {
    Failure::new(ProblemCode::Malformed, why)
}

/// Something beyond a limit.
pub(crate) fn too_large(why: impl Into<String>) -> Failure {
    Failure::new(ProblemCode::TooLarge, why)
}

fn beyond(most: usize) -> Failure {
    too_large(format!("the body is larger than {most} bytes"))
}

fn coding(headers: &HeaderMap) -> Result<Coding, Failure> {
    let mut named = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match named.next().map(|value| value.as_bytes().to_ascii_lowercase()) {
        None => Some(Coding::Plain),
        Some(name) => match name.as_slice() {
            b"gzip" => Some(Coding::Gzip),
            b"zstd" => Some(Coding::Zstd),
            b"identity" => Some(Coding::Plain),
            _ => None,
        },
    };
    coding.filter(|_| named.next().is_none()).ok_or_else(|| {
        let why = "the body must come as it is, or with the content encoding gzip or zstd, once";
        let mut problem = Problem::new(ProblemCode::Malformed, why);
        problem.status = 415;
        Failure(problem)
    })
}

/// The body as it travels.
async fn arrived(host: &Host, body: Body) -> Result<Bytes, Failure> {
    let limits = host.limits();
    let most = limits.body_wire_bytes;
    if body.size_hint().lower() > most as u64 {
        return Err(beyond(most));
    }
    let mut body = std::pin::pin!(body);
    let mut whole = BytesMut::new();
    let end = Instant::now() + limits.body_total;
    loop {
        let next = (Instant::now() + limits.body_idle).min(end);
        let frame = timeout_at(next, body.frame()).await.map_err(|_| stopped())?;
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let frame = frame.map_err(|_| malformed("the body was cut; nothing was taken in"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > most {
            return Err(beyond(most));
        }
        whole.extend_from_slice(&data);
    }
}

fn stopped() -> Failure {
    let why = "the body stopped arriving; nothing was taken in";
    Failure(Problem::new(ProblemCode::Unavailable, why).after(1))
}

/// Decompresses at most `most` bytes. `None`: there are more.
fn unpack(coding: Coding, packed: &[u8], most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut source: Box<dyn Read + '_> = match coding {
        Coding::Plain => Box::new(packed),
        Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        Coding::Zstd => {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(packed)?;
            zstd.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(zstd)
        }
    };
    let mut unpacked = Vec::with_capacity((packed.len() * 4).min(most + 1));
    source.by_ref().take(most as u64 + 1).read_to_end(&mut unpacked)?;
    Ok((unpacked.len() <= most).then_some(unpacked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn both_codings_are_read_in_one_piece_or_several() {
        let text = b"twins, 21 seconds apart".repeat(100);
        let zstd = zstd::bulk::compress(&text, 3).unwrap();
        for (coding, packed) in [(Coding::Gzip, gzip(&text)), (Coding::Zstd, zstd)] {
            let twice = packed.repeat(2);
            assert_eq!(unpack(coding, &packed, text.len()).unwrap().unwrap(), text);
            assert_eq!(unpack(coding, &twice, 2 * text.len()).unwrap().unwrap(), text.repeat(2));
            assert_eq!(unpack(coding, &twice, 2 * text.len() - 1).unwrap(), None);
            assert!(unpack(coding, &[&packed[..], b"more"].concat(), 10_000).is_err());
            for upto in 1..packed.len() {
                assert!(unpack(coding, &packed[..upto], 10_000).is_err(), "{coding:?} cut at {upto}");
            }
        }
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let text = br#"{"changes":[{"author":{"device":"referee-main"},"collection":"incident","id":"c1"}]}"#;
        let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
        zstd.include_checksum(true).unwrap();
        // Bytes 4 to 9 of gzip are a time and a system, which mean nothing here.
        for (coding, packed, from) in
            [(Coding::Gzip, gzip(text), 10), (Coding::Zstd, zstd.compress(text).unwrap(), 0)]
        {
            for at in from..packed.len() {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x55;
                if let Ok(Some(read)) = unpack(coding, &damaged, 10_000) {
                    panic!("{coding:?} at {at}: {}", String::from_utf8_lossy(&read));
                }
            }
        }
    }

    #[test]
    fn a_window_that_would_cost_too_much_is_refused() {
        let mut wide = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        wide.window_log(24).unwrap();
        wide.write_all(b"x").unwrap();
        wide.flush().unwrap();
        let wide = wide.finish().unwrap();
        assert!(unpack(Coding::Zstd, &wide, 100).is_err());
    }

    #[test]
    fn only_one_coding_is_taken() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            coding(&headers).ok()
        };
        assert_eq!(read(&[]), Some(Coding::Plain));
        assert_eq!(read(&["identity"]), Some(Coding::Plain));
        assert_eq!(read(&["GZip"]), Some(Coding::Gzip));
        assert_eq!(read(&["zstd"]), Some(Coding::Zstd));
        for bad in [&["gzip", "zstd"][..], &["gzip, gzip"], &["br"], &[""], &["gzip", "gzip"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
