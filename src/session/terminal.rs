//! `terminal/*`: commands that the agent runs through its client. acpbox runs
//! them itself, inside the session's VM and never on the host.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_client_protocol_schema::v1::{
    CreateTerminalRequest, TerminalExitStatus, TerminalOutputResponse,
};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::embedded::{Embedded, SHOWN_BYTES};
use super::live::Live;
use crate::acp::failure::{METHOD_NOT_FOUND, RESOURCE_NOT_FOUND};
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};
use crate::store::Direction;
use crate::transcript::terminal_content;
use crate::vm::{Exit, Io, Process, ProcessControl, ProcessSpec};

/// Terminals that one session may have open.
const OPEN_TERMINALS: usize = 128;

/// What requests for terminals may take while they are served, in bytes, and the
/// least that one counts for: 1024 may wait for the end of their commands.
const SERVED_BYTES: usize = 64 * 1024 * 1024;
const SERVED_LEAST: usize = 64 * 1024;

/// How long output may still come once a command has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// A session's terminals by id.
#[derive(Debug)]
pub struct Terminals {
    open: Mutex<HashMap<String, (Arc<Terminal>, OwnedSemaphorePermit)>>,
    /// Places for open terminals, also those that are being started.
    places: Arc<Semaphore>,
    /// What requests take that wait for a command's end, and what the others do,
    /// with which an agent can still end it.
    waited: Arc<Semaphore>,
    served: Arc<Semaphore>,
    first: u64,
    next: AtomicU64,
    pub(super) embedded: Mutex<Embedded>,
    /// The most output that is kept per terminal, in bytes.
    output_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Terminal {
    output: Mutex<Output>,
    /// Set once the process ended and its output was read to the end.
    pub(super) exit: watch::Receiver<Option<Exit>>,
    control: Arc<dyn ProcessControl>,
    is_followed: AtomicBool,
}

/// The newest output, cut at the front.
#[derive(Debug)]
struct Output {
    bytes: Vec<u8>,
    limit: usize,
    truncated: bool,
}

impl Terminals {
    /// `first` is the number of the first one: above those that the session had
    /// before, which its transcript names.
    pub(super) fn new(output_bytes: usize, first: u64) -> Terminals {
        Terminals {
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(OPEN_TERMINALS)),
            waited: Arc::new(Semaphore::new(SERVED_BYTES)),
            served: Arc::new(Semaphore::new(SERVED_BYTES)),
            first,
            next: first.into(),
            embedded: Mutex::default(),
            output_bytes,
        }
    }

    /// Room to serve a request with so many bytes of params, while it is held.
    pub(super) fn room(&self, method: &str, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let all = match method {
            methods::TERMINAL_WAIT => &self.waited,
            _ => &self.served,
        };
        let weight = bytes.clamp(SERVED_LEAST, SERVED_BYTES) as u32;
        Arc::clone(all).try_acquire_many_owned(weight).ok()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, (Arc<Terminal>, OwnedSemaphorePermit)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there ever was one.
    pub(super) fn is_used(&self) -> bool {
        self.next.load(Ordering::Relaxed) > self.first
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Terminal>> {
        self.open()
            .get(id)
            .map(|(terminal, _)| Arc::clone(terminal))
    }

    fn get(&self, params: &str) -> Result<(String, Arc<Terminal>), Failure> {
        let id = splice::member(params, "terminalId").and_then(message::string);
        let Some(id) = id else {
            return Err(Failure::invalid_params("`terminalId` is missing, a string"));
        };
        match self.open().get(&*id) {
            Some((terminal, _)) => Ok((id.into_owned(), Arc::clone(terminal))),
            None => Err(Failure::new(
                Phase::Request,
                RESOURCE_NOT_FOUND,
                format!("Resource not found: there is no terminal `{id}` in this session"),
            )),
        }
    }

    /// Whether a command still runs.
    pub(super) fn is_running(&self) -> bool {
        let open = self.open();
        (open.values()).any(|(terminal, _)| terminal.exit.borrow().is_none())
    }

    fn release(&self, id: &str, terminal: &Terminal) {
        let mut embedded = self.embedded.lock().unwrap_or_else(PoisonError::into_inner);
        embedded.remember(id, terminal.text());
        self.open().remove(id);
    }

    /// Ends all, as the agent is gone.
    pub(super) fn end_all(&self) {
        for (_, (terminal, _)) in self.open().drain() {
            terminal.control.kill();
        }
    }
}

impl Live {
    /// Serves one request and answers it.
    pub(super) async fn serve_terminal(self: Arc<Self>, id: &str, method: &str, params: &str) {
        let served = self.terminal(method, params).await;
        let (line, is_error) = match served {
            Ok(result) => (message::result(id, &result), false),
            Err(failure) => (message::error(id, &failure.to_error_object()), true),
        };
        self.answer_agent(method, &line, Direction::Acpbox, is_error)
            .await;
    }

    async fn terminal(&self, method: &str, params: &str) -> Result<String, Failure> {
        match method {
            methods::TERMINAL_CREATE => self.create_terminal(params).await,
            methods::TERMINAL_OUTPUT => {
                let (_, terminal) = self.terminals.get(params)?;
                Ok(terminal.output())
            }
            methods::TERMINAL_WAIT => {
                let (_, terminal) = self.terminals.get(params)?;
                let mut exit = terminal.exit.clone();
                let ended = exit.wait_for(Option::is_some).await;
                let ended = ended.ok().and_then(|ended| ended.clone());
                let status = status(&ended.unwrap_or(Exit::Lost("the VM ended".into())));
                Ok(serde_json::to_string(&status).unwrap_or_else(|_| "{}".into()))
            }
            methods::TERMINAL_KILL => {
                let (_, terminal) = self.terminals.get(params)?;
                terminal.control.kill();
                Ok("{}".into())
            }
            methods::TERMINAL_RELEASE => {
                let (id, terminal) = self.terminals.get(params)?;
                self.terminals.release(&id, &terminal);
                terminal.control.kill();
                Ok("{}".into())
            }
            other => Err(Failure::new(
                Phase::Request,
                METHOD_NOT_FOUND,
                format!("Method not found: `{other}`"),
            )),
        }
    }

    async fn create_terminal(&self, params: &str) -> Result<String, Failure> {
        let request: CreateTerminalRequest = serde_json::from_str(params)
            .map_err(|error| Failure::invalid_params(format!("terminal/create: {error}")))?;
        let Ok(place) = Arc::clone(&self.terminals.places).try_acquire_owned() else {
            return Err(Failure::internal(
                Phase::Request,
                format!(
                    "{OPEN_TERMINALS} terminals are open in this session already; release some"
                ),
            ));
        };
        let cwd = self.state().row.cwd.clone();
        let mut env = self.base_environment.clone();
        env.extend(
            request
                .env
                .iter()
                .map(|variable| (variable.name.clone(), variable.value.clone())),
        );
        let spec = command_line(&request, env, request.cwd.clone().unwrap_or(cwd));
        let process = self.vm.spawn(spec).await.map_err(|error| {
            Failure::invalid_params(format!("`command` could not be started: {error}"))
        })?;
        let limit = request
            .output_byte_limit
            .map_or(self.terminals.output_bytes, |limit| {
                usize::try_from(limit)
                    .unwrap_or(usize::MAX)
                    .min(self.terminals.output_bytes)
            });
        let terminal = Terminal::start(process, limit).map_err(|error| {
            Failure::internal(Phase::Spawn, format!("the terminal's pipe: {error}"))
        })?;
        let number = self.terminals.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("term_{number}");
        self.terminals.open().insert(id.clone(), (terminal, place));
        if self.is_over() {
            // The others were ended with the agent; this one only started then.
            self.terminals.end_all();
        }
        Ok(serde_json::json!({ "terminalId": id }).to_string())
    }
}

/// Agents give a program and its arguments, or a whole command line without any.
fn command_line(
    request: &CreateTerminalRequest,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
) -> ProcessSpec {
    let is_line = request.args.is_empty()
        && request
            .command
            .contains(|c: char| c.is_whitespace() || "|&;<>()$`\"'*".contains(c));
    let (command, args) = if is_line {
        (
            "/bin/sh".to_owned(),
            vec!["-c".to_owned(), request.command.clone()],
        )
    } else {
        (request.command.clone(), request.args.clone())
    };
    ProcessSpec {
        command,
        args,
        env,
        cwd,
        io: Io::Merged,
        ..ProcessSpec::default()
    }
}

impl Terminal {
    fn start(process: Process, limit: usize) -> std::io::Result<Arc<Terminal>> {
        let stdout = pipe::Receiver::from_owned_fd(process.stdout)?;
        let (ended, exit) = watch::channel(None);
        let terminal = Arc::new(Terminal {
            output: Mutex::new(Output {
                bytes: Vec::new(),
                limit,
                truncated: false,
            }),
            exit,
            control: process.control,
            is_followed: AtomicBool::new(false),
        });
        let reading = Arc::clone(&terminal);
        let mut process_exit = process.exit;
        tokio::spawn(async move {
            let mut read = tokio::spawn(async move { reading.read(stdout).await });
            let _ = process_exit.wait_for(Option::is_some).await;
            // What it wrote before its end; a daemon it left may hold the pipe for ever.
            let _ = tokio::time::timeout(LAST_OUTPUT, &mut read).await;
            let exit = process_exit.borrow().clone();
            ended.send_replace(Some(exit.unwrap_or(Exit::Lost("the VM ended".into()))));
        });
        Ok(terminal)
    }

    async fn read(&self, mut stdout: pipe::Receiver) {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = stdout.read(&mut chunk).await {
            self.lock().add(&chunk[..count]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody follows it yet. Somebody does from now on.
    pub(super) fn begin_to_follow(&self) -> bool {
        !self.is_followed.swap(true, Ordering::Relaxed)
    }

    /// What it has printed and how it ended, as a client is shown it.
    pub(super) fn text(&self) -> String {
        let (output, truncated) = {
            let output = self.lock();
            (output.text(), output.truncated)
        };
        let from = output.ceil_char_boundary(output.len().saturating_sub(SHOWN_BYTES));
        let ending = match &*self.exit.borrow() {
            None | Some(Exit::Code(0)) => None,
            Some(Exit::Code(code)) => Some(format!("exit code {code}")),
            Some(Exit::Signal(signal)) => Some(format!("ended by {}", signal_name(*signal))),
            Some(Exit::Lost(why)) => Some(why.clone()),
        };
        terminal_content::text(&output[from..], truncated || from > 0, ending.as_deref())
    }

    fn output(&self) -> String {
        let (text, truncated) = {
            let output = self.lock();
            (output.text(), output.truncated)
        };
        let exit = self.exit.borrow().as_ref().map(status);
        let response = TerminalOutputResponse::new(text, truncated).exit_status(exit);
        serde_json::to_string(&response).unwrap_or_else(|_| "{}".into())
    }
}

impl Output {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        if self.bytes.len() > self.limit {
            self.truncated = true;
            // Cut in steps, so that a flood is not moved byte by byte.
            if self.bytes.len() > self.limit.saturating_mul(2).max(self.limit + 64 * 1024) {
                let over = self.bytes.len() - self.limit;
                self.bytes.drain(..over);
            }
        }
    }

    /// The newest bytes within the limit, cut at a character's border as ACP asks.
    fn text(&self) -> String {
        let mut from = self.bytes.len().saturating_sub(self.limit);
        while from > 0 && from < self.bytes.len() && self.bytes[from] & 0xC0 == 0x80 {
            from += 1;
        }
        String::from_utf8_lossy(&self.bytes[from..]).into_owned()
    }
}

fn status(exit: &Exit) -> TerminalExitStatus {
    match exit {
        Exit::Code(code) => TerminalExitStatus::new().exit_code(u32::try_from(*code).ok()),
        Exit::Signal(signal) => TerminalExitStatus::new().signal(signal_name(*signal)),
        Exit::Lost(why) => TerminalExitStatus::new().signal(why.clone()),
    }
}

/// `SIGKILL` and the like, for signals that end a process.
fn signal_name(signal: i32) -> String {
    let named = NAMES.iter().find(|(number, _)| *number == signal);
    named.map_or_else(|| format!("SIG{signal}"), |(_, name)| (*name).to_owned())
}

const NAMES: [(i32, &str); 19] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGSTOP, "SIGSTOP"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGSYS, "SIGSYS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_usual_names() {
        let names = [9, 15, 6, 11, 34].map(signal_name);
        assert_eq!(names, ["SIGKILL", "SIGTERM", "SIGABRT", "SIGSEGV", "SIG34"]);
    }

    #[test]
    fn output_keeps_its_end_and_whole_characters() {
        let mut output = Output {
            bytes: Vec::new(),
            limit: 4,
            truncated: false,
        };
        output.add("abcd".as_bytes());
        assert_eq!((output.text().as_str(), output.truncated), ("abcd", false));
        output.add("é!".as_bytes());
        assert_eq!((output.text().as_str(), output.truncated), ("dé!", true));
        output.add("é".as_bytes());
        assert_eq!(output.text(), "!é", "half a character is left out");
    }
}
