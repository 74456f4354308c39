//! A network that misbehaves as it is told: it loses requests and answers, doubles, delays and reorders.

use crate::rig::PATIENCE;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// What happens to one request.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It goes through, and so does the answer.
    Pass,
    /// It never arrives.
    LoseRequest,
    /// It arrives and is answered; the answer never comes back.
    LoseAnswer,
    /// It arrives twice; the second answer comes back.
    Double,
    /// The caller loses it, and it arrives all the same: after the next request has been answered.
    Late,
    /// It arrives; the first piece of the answer comes back, then the connection ends.
    CutAnswer,
    /// It arrives; the answer waits until the gate opens.
    HoldAnswer(Gate),
}

/// Something that is waited for by one and opened by another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, bool)>, Condvar)>);

impl Gate {
    /// Opens it.
    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }
    /// Waits until somebody stands before it.
    pub(crate) fn reached(&self) {
        let state = self.0.0.lock().unwrap();
        let (state, late) = self.0.1.wait_timeout_while(state, PATIENCE, |(_, reached)| !*reached).unwrap();
        assert!(!late.timed_out(), "nobody came to the gate");
        drop(state);
    }
    fn wait(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 = true;
        self.0.1.notify_all();
        drop(self.0.1.wait_timeout_while(state, PATIENCE, |(open, _)| !*open).unwrap());
    }
}

type Choose = Box<dyn FnMut(&str) -> Fate + Send>;

/// A proxy in front of one server.
pub(crate) struct Proxy {
    pub(crate) url: String,
    inner: Arc<Inner>,
}

struct Inner {
    target: String,
    choose: Mutex<Choose>,
    late: Mutex<Vec<Vec<u8>>>,
    /// What happened to each request: its first line and its fate.
    seen: Mutex<Vec<String>>,
}

impl Proxy {
    /// Stands before the server at `url`; `choose` is asked about each request by its path.
    pub(crate) fn before(url: &str, choose: impl FnMut(&str) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            target: url.strip_prefix("http://").unwrap().to_owned(),
            choose: Mutex::new(Box::new(choose)),
            late: Mutex::default(),
            seen: Mutex::default(),
        });
        let shared = Arc::clone(&inner);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { url: own, inner }
    }

    /// What happened so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.inner.seen.lock().unwrap().clone()
    }
}

impl Inner {
    /// One request a connection: what comes after is a connection of its own.
    fn serve(&self, client: TcpStream) -> Option<()> {
        let (path, request) = read_request(&client).ok()?;
        let fate = (self.choose.lock().unwrap())(&path);
        self.seen.lock().unwrap().push(format!("{path} {fate:?}"));
        match fate {
            Fate::Pass => self.stream(&request, &client),
            Fate::LoseRequest => {}
            Fate::LoseAnswer => drop(self.answer(&request)),
            Fate::CutAnswer => drop(self.first_piece(&request, &client)),
            Fate::Double => {
                let _ = self.answer(&request);
                self.stream(&request, &client);
            }
            Fate::Late => self.late.lock().unwrap().push(request),
            Fate::HoldAnswer(gate) => {
                let answer = self.answer(&request).ok()?;
                gate.wait();
                let _ = (&client).write_all(&answer);
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        Some(())
    }

    /// Sends the request on and the answer back as it comes, then whatever was late.
    fn stream(&self, request: &[u8], client: &TcpStream) {
        let Ok(mut server) = self.send(request) else { return };
        let mut client = client;
        let _ = io::copy(&mut server, &mut client);
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for request in late {
            let _ = self.answer(&request);
        }
    }

    /// Sends the request on and the beginning of the answer back: as far as the first event of a stream.
    fn first_piece(&self, request: &[u8], mut client: &TcpStream) -> io::Result<()> {
        let (mut server, mut piece, mut passed) = (self.send(request)?, [0; 1 << 12], Vec::new());
        while !passed.ends_with(b"\n\n\r\n") {
            let length = server.read(&mut piece)?;
            if length == 0 {
                break;
            }
            passed.extend_from_slice(&piece[..length]);
            client.write_all(&piece[..length])?;
        }
        Ok(())
    }

    /// Sends the request on and waits for the whole answer.
    fn answer(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        self.send(request)?.read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn send(&self, request: &[u8]) -> io::Result<TcpStream> {
        let mut server = TcpStream::connect(&self.target)?;
        server.write_all(request)?;
        Ok(server)
    }
}

/// Reads one whole request and asks the server to close behind it. Returns its path and its bytes.
fn read_request(client: &TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(client);
    let (mut head, mut length, mut chunked) = (Vec::new(), 0, false);
    let mut path = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_ascii_lowercase();
        if path.is_empty() {
            let target = line.split(' ').nth(1).unwrap_or("/");
            path = target.split('?').next().unwrap_or(target).to_owned();
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        } else if lower.starts_with("transfer-encoding:") {
            chunked = true;
        } else if lower.starts_with("connection:") {
            continue;
        } else if line == "\r\n" {
            head.extend_from_slice(b"connection: close\r\n\r\n");
            break;
        }
        head.extend_from_slice(line.as_bytes());
    }
    if chunked {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let mut piece = vec![0; size + 2];
            reader.read_exact(&mut piece)?;
            head.extend_from_slice(line.as_bytes());
            head.extend_from_slice(&piece);
            if size == 0 {
                return Ok((path, head));
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    head.extend_from_slice(&body);
    Ok((path, head))
}
