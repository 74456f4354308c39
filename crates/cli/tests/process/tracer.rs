//! Watches every call of a real process on the files of one directory, in the order in which the kernel sees
//! them, and what it tells others; can kill it at any such call or let the call fail. It is the kernel's own
//! tracing (`ptrace`), by a library whose interface is safe: the program that is watched is the one we ship.

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace,
        signal::{self, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
};

/// What a process did, once it was done; a sync is seen when it begins and when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// A file that was not there was made.
    Make {
        file: PathBuf,
    },
    MakeDir {
        dir: PathBuf,
    },
    Write {
        file: PathBuf,
        at: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: PathBuf,
        length: u64,
    },
    SyncBegins {
        file: PathBuf,
        by: i32,
    },
    SyncEnded {
        file: PathBuf,
        by: i32,
    },
    Unlink {
        file: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    /// Bytes that it is about to send to somebody else: on its standard output or a socket.
    Say {
        bytes: Vec<u8>,
    },
}

/// What becomes of a call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Go,
    /// `kill -9` of the whole process, before the call.
    Kill,
    /// The call does nothing and gives this error.
    Fail(Errno),
}

/// Asked at each call on a file of the directory, before it is made. A write's bytes are already there.
pub(crate) type Meddle = Box<dyn FnMut(&Call) -> Then + Send>;

/// A process that is watched.
pub(crate) struct Traced {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) pid: Pid,
    thread: JoinHandle<(i32, Vec<Call>)>,
}

impl Traced {
    /// Waits for its end: its exit code (minus the signal that killed it) and everything it did.
    pub(crate) fn ended(mut self) -> (i32, Vec<Call>) {
        drop(self.stdin.take());
        self.thread.join().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal::kill(self.pid, signal).unwrap();
    }
}

/// Lets everything go.
pub(crate) fn watch() -> Meddle {
    Box::new(|_| Then::Go)
}

/// Starts a command and watches what it and its threads do in `dir`.
pub(crate) fn trace(command: &Command, dir: &Path, meddle: Meddle) -> Traced {
    let mut gate = Command::new("/bin/sh");
    // It waits until the tracer is there, and only then becomes the program.
    gate.env_clear().args(["-c", "read -r go; exec \"$0\" \"$@\""]);
    gate.arg(command.get_program()).args(command.get_args());
    gate.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    gate.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let dir = dir.to_owned();
    let (tell, told) = mpsc::channel();
    // The kernel ties a tracee to the thread that traces it: that thread starts it and waits for it.
    #[allow(clippy::zombie_processes, reason = "the tracer waits for it as for all its threads")]
    let thread = thread::spawn(move || {
        let mut child = gate.spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        use ptrace::Options;
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, options).expect("this machine must let a process trace its own child (ptrace)");
        ptrace::interrupt(pid).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "go").unwrap();
        tell.send((stdin, child.stdout.take().unwrap(), pid)).unwrap();
        Tracer { main: pid, dir, meddle, threads: HashMap::new(), calls: Vec::new(), code: 0 }.run()
    });
    let (stdin, stdout, pid) = told.recv().unwrap();
    Traced { stdin: Some(stdin), stdout: Some(stdout), pid, thread }
}

struct Tracer {
    main: Pid,
    dir: PathBuf,
    meddle: Meddle,
    /// The call that each thread is in.
    threads: HashMap<Pid, Entered>,
    calls: Vec<Call>,
    code: i32,
}

/// A call that has been entered and not left.
struct Entered {
    call: Option<Call>,
    fails: Option<Errno>,
}

impl Tracer {
    fn run(mut self) -> (i32, Vec<Call>) {
        // Only children of this thread: other tests of this process have children of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(tid)) => self.stopped(tid),
                Ok(WaitStatus::PtraceEvent(tid, ..)) => goes_on(tid, None),
                Ok(WaitStatus::Stopped(tid, signal)) => goes_on(tid, Some(signal)),
                Ok(WaitStatus::Exited(pid, code)) if pid == self.main => self.code = code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.main => self.code = -(signal as i32),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return (self.code, self.calls),
                Err(error) => panic!("waiting for a traced process: {error}"),
            }
        }
    }

    /// A thread stands before or behind a call.
    fn stopped(&mut self, tid: Pid) {
        let Ok(mut regs) = ptrace::getregs(tid) else { return goes_on(tid, None) };
        match self.threads.remove(&tid) {
            Some(entered) => {
                if let Some(errno) = entered.fails {
                    regs.rax = (-i64::from(errno as i32)).cast_unsigned();
                    let _ = ptrace::setregs(tid, regs);
                } else if regs.rax.cast_signed() >= 0 {
                    self.done(entered.call, regs.rax);
                }
            }
            // Before a call the kernel shows this error as its result.
            None if regs.rax.cast_signed() == -i64::from(libc::ENOSYS) => {
                let call = self.read(tid, &regs);
                let then = match &call {
                    Some(Call::Say { .. }) | None => Then::Go,
                    Some(call) => (self.meddle)(call),
                };
                if let Some(call @ (Call::Say { .. } | Call::SyncBegins { .. })) = &call {
                    self.calls.push(call.clone());
                }
                let fails = match then {
                    Then::Go => None,
                    Then::Kill => {
                        let _ = signal::kill(self.main, Signal::SIGKILL);
                        return;
                    }
                    Then::Fail(errno) => {
                        regs.orig_rax = u64::MAX;
                        let _ = ptrace::setregs(tid, regs);
                        Some(errno)
                    }
                };
                self.threads.insert(tid, Entered { call, fails });
            }
            None => {}
        }
        goes_on(tid, None);
    }

    /// Notes a call that was made.
    fn done(&mut self, call: Option<Call>, result: u64) {
        match call {
            Some(Call::SyncBegins { file, by }) => self.calls.push(Call::SyncEnded { file, by }),
            Some(Call::Write { file, at, mut bytes }) => {
                bytes.truncate(result as usize);
                self.calls.push(Call::Write { file, at, bytes });
            }
            Some(Call::Say { .. }) | None => {}
            Some(call) => self.calls.push(call),
        }
    }

    /// What a thread is about to do.
    fn read(&self, tid: Pid, regs: &libc::user_regs_struct) -> Option<Call> {
        let (first, second, third) = (regs.rdi, regs.rsi, regs.rdx);
        let inside = |path: PathBuf| path.starts_with(&self.dir).then_some(path);
        let of_fd = |fd: u64| inside(fs::read_link(format!("/proc/{tid}/fd/{fd}")).ok()?);
        let named = |at: u64| inside(text(tid, at)?);
        match regs.orig_rax.cast_signed() {
            libc::SYS_pwrite64 => {
                Some(Call::Write { file: of_fd(first)?, at: regs.r10, bytes: memory(tid, second, third)? })
            }
            libc::SYS_write | libc::SYS_sendto => self.said(tid, first, memory(tid, second, third)),
            libc::SYS_writev => self.said(tid, first, vectors(tid, second, third)),
            libc::SYS_ftruncate => Some(Call::Truncate { file: of_fd(first)?, length: second }),
            libc::SYS_fsync | libc::SYS_fdatasync => {
                Some(Call::SyncBegins { file: of_fd(first)?, by: tid.as_raw() })
            }
            libc::SYS_openat => {
                let (file, flags) = (named(second)?, third as i32);
                let is_new = flags & libc::O_CREAT != 0 && !file.exists();
                assert!(flags & libc::O_TRUNC == 0, "the model does not know an emptied file: {file:?}");
                is_new.then_some(Call::Make { file })
            }
            libc::SYS_mkdir => Some(Call::MakeDir { dir: named(first)? }),
            libc::SYS_mkdirat => Some(Call::MakeDir { dir: named(second)? }),
            libc::SYS_unlink => Some(Call::Unlink { file: named(first)? }),
            libc::SYS_unlinkat => Some(Call::Unlink { file: named(second)? }),
            libc::SYS_rename => Some(Call::Rename { from: named(first)?, to: named(second)? }),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                Some(Call::Rename { from: named(second)?, to: named(regs.r10)? })
            }
            libc::SYS_fallocate | libc::SYS_pwritev | libc::SYS_pwritev2 | libc::SYS_copy_file_range => {
                let file = of_fd(first)?;
                panic!("the model of the disk does not know call {} on {file:?}", regs.orig_rax)
            }
            _ => None,
        }
    }

    /// Bytes to somebody else; a write to one of our files at its own position is one that we do not know.
    fn said(&self, tid: Pid, fd: u64, bytes: Option<Vec<u8>>) -> Option<Call> {
        let to = fs::read_link(format!("/proc/{tid}/fd/{fd}")).ok()?;
        assert!(!to.starts_with(&self.dir), "the model of the disk does not know appending to {to:?}");
        let to = to.to_str()?;
        let is_told = to.starts_with("socket:") || (fd == 1 && to.starts_with("pipe:"));
        Some(Call::Say { bytes: bytes.filter(|_| is_told)? })
    }
}

fn goes_on(tid: Pid, signal: Option<Signal>) {
    // It may have been killed meanwhile.
    let _ = ptrace::syscall(tid, signal);
}

fn memory(tid: Pid, at: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    File::open(format!("/proc/{tid}/mem")).ok()?.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn vectors(tid: Pid, at: u64, count: u64) -> Option<Vec<u8>> {
    let list = memory(tid, at, count * 16)?;
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap());
    let pieces = list.chunks_exact(16).map(|v| memory(tid, word(&v[..8]), word(&v[8..])));
    Some(pieces.collect::<Option<Vec<_>>>()?.concat())
}

/// The text at an address, as far as its zero.
fn text(tid: Pid, at: u64) -> Option<PathBuf> {
    let memory = File::open(format!("/proc/{tid}/mem")).ok()?;
    let mut bytes = vec![0; 4096];
    let length = memory.read_at(&mut bytes, at).ok()?;
    let end = bytes[..length].iter().position(|byte| *byte == 0)?;
    Some(Path::new(OsStr::from_bytes(&bytes[..end])).to_owned())
}
