//! Hooks: the user's own commands, run on the host when there are news. They are
//! bounded in number and time, and what becomes of them is logged: nothing of it
//! ever reaches a session.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::news::{News, Occasion};
use crate::config::{self, Environment};
use crate::transcript::printable_line;

/// The program that shows a desktop notification.
pub const NOTIFY: &str = "notify-send";

/// News that may wait for a hook; more are dropped, and that is logged.
const WAITING: usize = 64;

/// Commands that may run at once.
const AT_ONCE: usize = 4;

/// What is logged of a failed command's stderr, in bytes.
const STDERR_BYTES: u64 = 4096;

/// How long commands that still run may take once acpbox ends.
const LAST: Duration = Duration::from_secs(2);

/// Characters of a notification's two lines.
const TITLE_CHARACTERS: usize = 100;
const BODY_CHARACTERS: usize = 200;

/// The way to the hooks that are configured.
pub struct Hooks {
    queue: mpsc::Sender<News>,
    tasks: TaskTracker,
    /// Ends when no more news come.
    last: CancellationToken,
    /// Ends when nothing may run any more.
    stop: CancellationToken,
}

/// Who is told what happens in a session.
pub struct Watch {
    /// What logs say of whatever is done for the session.
    pub(super) span: tracing::Span,
    hooks: Option<Arc<Hooks>>,
}

/// One command to run.
struct Call {
    occasion: Occasion,
    command: Vec<String>,
    input: String,
    session: Arc<str>,
}

impl Hooks {
    /// `None` where none is configured. Call within a tokio runtime.
    pub fn start(settings: &config::Hooks, environment: &Environment) -> Option<Arc<Hooks>> {
        if !settings.is_any() {
            return None;
        }
        let (queue, waiting) = mpsc::channel(WAITING);
        let hooks = Arc::new(Hooks {
            queue,
            tasks: TaskTracker::new(),
            last: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let runner = Runner {
            settings: settings.clone(),
            // Not the workspace: what lies there is the agent's, and many programs
            // read their configuration from where they are started.
            folder: environment.home().map_or("/".into(), Path::to_path_buf),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: hooks.tasks.clone(),
            last: hooks.last.clone(),
            stop: hooks.stop.clone(),
        };
        hooks.tasks.spawn(runner.run(waiting));
        Some(hooks)
    }

    /// Has the hooks run for it, soon. Never waits.
    pub(super) fn tell(&self, news: News) {
        if let Err(mpsc::error::TrySendError::Full(news)) = self.queue.try_send(news) {
            let event = news.occasion.name();
            tracing::warn!(
                event,
                "a hook was left out: {WAITING} wait already ([hooks])"
            );
        }
    }

    /// Lets those that run end, for a moment, and kills the rest.
    pub async fn stop(&self) {
        self.last.cancel();
        self.tasks.close();
        if tokio::time::timeout(LAST, self.tasks.wait()).await.is_err() {
            self.stop.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Watch {
    pub fn new(session: &str, hooks: Option<Arc<Hooks>>) -> Watch {
        // The agent outlives whatever it is started for.
        let span = tracing::error_span!(parent: None, "session", id = session);
        Watch { span, hooks }
    }

    /// Logs what somebody may wait for, and has it told to the user's hooks.
    pub(super) fn tell(&self, all: Vec<News>) {
        for news in all {
            let (event, seq) = (news.occasion.name(), news.seq);
            tracing::info!(parent: &self.span, event, seq, agent = news.agent, "the agent {}", news.summary);
            if let Some(hooks) = &self.hooks {
                hooks.tell(news);
            }
        }
    }
}

struct Runner {
    settings: config::Hooks,
    folder: PathBuf,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    last: CancellationToken,
    stop: CancellationToken,
}

impl Runner {
    async fn run(self, mut waiting: mpsc::Receiver<News>) {
        loop {
            let news = tokio::select! {
                biased;
                news = waiting.recv() => news,
                () = self.last.cancelled() => None,
            };
            let Some(news) = news else { return };
            for call in self.calls(&news) {
                let place = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    place = Arc::clone(&self.room).acquire_owned() => place,
                };
                let (timeout, folder) = (self.settings.timeout, self.folder.clone());
                let stop = self.stop.clone();
                let span = tracing::error_span!("session", id = &*call.session);
                let work = async move {
                    perform(&call, &folder, timeout, stop).await;
                    drop(place);
                };
                self.tasks.spawn(work.instrument(span));
            }
        }
    }

    fn calls(&self, news: &News) -> Vec<Call> {
        let own = match news.occasion {
            Occasion::TurnEnded => &self.settings.turn_ended,
            Occasion::PermissionAsked => &self.settings.permission_asked,
            Occasion::AgentExited => &self.settings.agent_exited,
        };
        let call = |command: Vec<String>, input: String| Call {
            occasion: news.occasion,
            command,
            input,
            session: Arc::clone(&news.session),
        };
        let mut calls = Vec::new();
        if !own.is_empty() {
            calls.push(call(own.clone(), format!("{}\n", news.params)));
        }
        if self.settings.notify {
            calls.push(call(notification(news), String::new()));
        }
        calls
    }
}

/// The command that shows a notification. What an agent wrote comes behind `--`,
/// short, on one line, and without what a desktop would take for markup.
fn notification(news: &News) -> Vec<String> {
    let title = cut(
        &format!("{} {}", news.agent, news.summary),
        TITLE_CHARACTERS,
    );
    let body = cut(&news.title, BODY_CHARACTERS);
    let body = body
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    [NOTIFY, "--app-name=acpbox", "--", &title, &body]
        .map(str::to_owned)
        .into()
}

fn cut(text: &str, characters: usize) -> String {
    let line = printable_line(text);
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Runs a command to its end, or kills it and all that it started.
async fn perform(call: &Call, folder: &Path, timeout: Duration, stop: CancellationToken) {
    let event = call.occasion.name();
    let program = call.command.first().map_or("", String::as_str);
    let mut child = match spawn(call, folder) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(event, program, %error, "a hook did not start; `acpbox doctor` checks them");
            return;
        }
    };
    // Of a group of its own, whose number is its own.
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let why = tokio::select! {
        ended = converse(&mut child, &call.input) => {
            match ended {
                Ok((status, _)) if status.success() => {
                    tracing::debug!(event, program, "a hook ran");
                }
                Ok((status, said)) => {
                    tracing::warn!(event, program, %status, said, "a hook failed");
                }
                Err(error) => tracing::warn!(event, program, %error, "a hook was lost"),
            }
            return;
        }
        () = tokio::time::sleep(timeout) => "it ran too long (hooks.timeout)",
        () = stop.cancelled() => "acpbox ends",
    };
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
    tracing::warn!(event, program, why, "a hook was killed");
}

fn spawn(call: &Call, folder: &Path) -> std::io::Result<Child> {
    let [program, arguments @ ..] = call.command.as_slice() else {
        return Err(std::io::Error::other("no program is named"));
    };
    Command::new(program)
        .args(arguments)
        .env("ACPBOX_EVENT", call.occasion.name())
        .env("ACPBOX_SESSION", &*call.session)
        .current_dir(folder)
        .stdin(Stdio::piped())
        // Ours belongs to the protocol.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Feeds a command, and waits for its end and what it said on stderr.
async fn converse(
    child: &mut Child,
    input: &str,
) -> std::io::Result<(std::process::ExitStatus, String)> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // Whoever does not care for it may close it.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let mut said = Vec::new();
    let listen = async {
        if let Some(mut stderr) = stderr {
            let _ = (&mut stderr)
                .take(STDERR_BYTES)
                .read_to_end(&mut said)
                .await;
            // It is not to block on what nobody keeps.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
    };
    let status = {
        let beside = async { tokio::join!(feed, listen) };
        let mut beside = std::pin::pin!(beside);
        let mut is_over = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut beside, if !is_over => is_over = true,
                // What it left running may keep stderr open, and is its own affair.
                status = child.wait() => break status?,
            }
        }
    };
    Ok((status, printable_line(&String::from_utf8_lossy(&said))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_wrote_is_no_option_no_markup_and_short() {
        let news = News {
            occasion: Occasion::PermissionAsked,
            session: "s".into(),
            seq: 1,
            agent: "--help".into(),
            summary: format!("asks: \u{1b}]0;x\u{7}\n{}", "y".repeat(500)),
            title: "<b>&".into(),
            params: serde_json::Value::Null,
        };
        let command = notification(&news);
        assert_eq!(command[..3], [NOTIFY, "--app-name=acpbox", "--"]);
        assert!(
            command[3].chars().count() <= TITLE_CHARACTERS + 1,
            "{command:?}"
        );
        assert!(!command[3].contains(char::is_control), "{command:?}");
        assert_eq!(command[4], "&lt;b&gt;&amp;");
    }
}
