//! Peers that abuse HTTP/2 or take more places than they may (S8, S9): raw frames, as no client sends them.

use crate::rig::{Rig, quick, rest};
use ropeway_protocol::ProblemCode as P;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(5);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// Flags.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Codes.
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of `GET path` over http, for the host `x`.
fn get(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x41, 1, b'x']].concat()
}

/// A connection that speaks HTTP/2, with these settings.
async fn http2(rig: &Rig, settings: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await.unwrap();
    socket
}

/// Every frame until the connection ends: kind, stream and payload.
async fn frames(socket: &mut TcpStream) -> Vec<(u8, u32, Vec<u8>)> {
    let mut bytes = Vec::new();
    let _ = timeout(SOON, socket.read_to_end(&mut bytes)).await.expect("the connection was left open");
    let (mut frames, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = after.get(..length).unwrap_or(after);
        frames.push((head[3], stream, payload.to_vec()));
        rest = &after[payload.len()..];
    }
    frames
}

fn code(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}

/// CVE-2023-44487: streams that are opened and taken back at once cost the peer nothing and the host much.
#[tokio::test]
async fn streams_opened_and_taken_back_end_the_connection() {
    let rig = Rig::new().await;
    let mut socket = http2(&rig, &[]).await;
    let mut flood = Vec::new();
    for n in 0..2_000 {
        let stream = 2 * n + 1;
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/health/live")));
        flood.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    let _ = socket.write_all(&flood).await;
    let frames = frames(&mut socket).await;
    let goaway = frames.iter().find(|(kind, ..)| *kind == GOAWAY).expect("no word of the end");
    assert_eq!(code(&goaway.2, 4), ENHANCE_YOUR_CALM);
    rig.is_up_and_empty().await;
}

/// CVE-2024-24549 and its kind: a head that goes on for ever is ended before it fills the memory.
#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let rig = Rig::new().await;
    let mut socket = http2(&rig, &[]).await;
    socket.write_all(&frame(HEADERS, END_STREAM, 1, &get("/health/live"))).await.unwrap();
    // A header that was never seen before, again and again.
    let header = [&[0x00, 3][..], b"x-a", &[100], &[b'y'; 100]].concat();
    let piece = frame(CONTINUATION, 0, 1, &header.repeat(100));
    let mut sent = 0;
    let flooding = async {
        while socket.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
    };
    timeout(SOON, flooding).await.expect("it was taken for ever");
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_over_http2_too() {
    let rig = Rig::new().await;
    let mut socket = http2(&rig, &[]).await;
    let header = [&[0x00, 3][..], b"x-a", &[100], &[b'y'; 100]].concat();
    let head = [get("/health/live"), header.repeat(120)].concat();
    socket.write_all(&frame(HEADERS, END_STREAM, 1, &head)).await.unwrap();
    socket.write_all(&frame(CONTINUATION, END_HEADERS, 1, &header.repeat(300))).await.unwrap();
    let mut answer = vec![0; 4_096];
    let read = async {
        let mut told = Vec::new();
        // 431 is spelt out, since the table of known statuses does not have it.
        while !told.windows(3).any(|w| w == b"431") && !told.windows(2).any(|w| w == [RST_STREAM, 0]) {
            match socket.read(&mut answer).await {
                Ok(n) if n > 0 => told.extend_from_slice(&answer[..n]),
                _ => return,
            }
        }
    };
    timeout(SOON, read).await.expect("nobody refused it");
    rig.is_up_and_empty().await;
}

/// What a proxy adds to a request may be long: as much is taken over HTTP/2 as over HTTP/1.
#[tokio::test]
async fn a_long_head_is_taken_over_http2_as_over_http1() {
    let mut limits = quick();
    limits.connection_idle = Duration::from_millis(300);
    let rig = Rig::with(limits, Vec::new()).await;
    let mut socket = http2(&rig, &[]).await;
    // A value of 1,000 bytes, twenty times.
    let header = [&[0x00, 3][..], b"x-a", &[0x7f, 0xe9, 0x06], &[b'y'; 1_000]].concat();
    let head = [get("/health/live"), header.repeat(10)].concat();
    socket.write_all(&frame(HEADERS, END_STREAM, 1, &head)).await.unwrap();
    socket.write_all(&frame(CONTINUATION, END_HEADERS, 1, &header.repeat(10))).await.unwrap();
    let frames = frames(&mut socket).await;
    let answer = frames.iter().find(|(kind, stream, _)| (*kind, *stream) == (HEADERS, 1));
    // `:status: 200` as the table of known headers has it.
    assert_eq!(answer.expect("no answer").2[0], 0x88);
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn one_connection_has_only_so_many_streams() {
    let mut limits = quick();
    limits.connection_idle = Duration::from_millis(300);
    let rig = Rig::with(limits, Vec::new()).await;
    let mut socket = http2(&rig, &[]).await;
    // Pushes whose bodies never come.
    let mut flood = Vec::new();
    let mut head = get("/v1/push");
    head[0] = 0x83;
    let token = format!("Bearer {}", rig.referee);
    head.extend([&[0x0f, 8, u8::try_from(token.len()).unwrap()], token.as_bytes()].concat());
    for n in 0..100 {
        flood.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &head));
    }
    let _ = socket.write_all(&flood).await;
    let refused = frames(&mut socket)
        .await
        .into_iter()
        .filter(|(kind, _, payload)| *kind == RST_STREAM && code(payload, 0) == REFUSED_STREAM)
        .count();
    assert_eq!(refused, 100 - 64);
    rig.is_up_and_empty().await;
}

/// A reader that gives no window takes nothing of its answer, and the socket itself never waits: it is
/// ended all the same.
#[tokio::test]
async fn an_http2_reader_that_takes_nothing_is_ended() {
    let rig = Rig::new().await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    let mut socket = http2(&rig, &[0, 4, 0, 0, 0, 0]).await;
    socket.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/openapi.json"))).await.unwrap();
    let frames = frames(&mut socket).await;
    assert!(frames.iter().any(|(kind, stream, _)| (*kind, *stream) == (HEADERS, 1)), "it was answered");
    rig.is_up_and_empty().await;
}

/// Whoever asks for answers for ever and takes none of them is ended.
#[tokio::test]
async fn pings_whose_answers_nobody_takes_end_the_connection() {
    let rig = Rig::new().await;
    let mut socket = http2(&rig, &[]).await;
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(4_000);
    let flooding = async { while socket.write_all(&pings).await.is_ok() {} };
    timeout(SOON * 3, flooding).await.expect("it went on for ever");
    rig.is_up_and_empty().await;
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let mut limits = quick();
    (limits.connections_per_address, limits.header_timeout) = (2, Duration::from_secs(30));
    let rig = Rig::with(limits, Vec::new()).await;
    let half = "GET /health/live HTTP/1.1\r\n";
    let (first, _second) = (rig.raw(half).await, rig.raw(half).await);
    // The host has them when it answers a third one with a refusal.
    let answer = rig.get("/health/live", "").await;
    assert_eq!(answer.is(P::Unavailable)["retry_after"], 1);
    // A neighbour is not concerned.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut neighbour = socket.connect(rig.address).await.unwrap();
    let ask = format!("{half}host: x\r\nconnection: close\r\n\r\n");
    neighbour.write_all(ask.as_bytes()).await.unwrap();
    let answer = timeout(SOON, rest(&mut neighbour)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(first);
    let again = async { while rig.get("/health/live", "").await.status != 200 {} };
    timeout(SOON, again).await.expect("the place was not given back");
}
