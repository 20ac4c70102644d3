//! The turn's tools, each told as a tool call from its start to its end.
//!
//! Files and commands go through the client when it offers to, and through the
//! operating system otherwise.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use agent_client_protocol_schema::v1::{
    CreateTerminalRequest, CreateTerminalResponse, Diff, PermissionOption, PermissionOptionKind,
    ReadTextFileRequest, ReadTextFileResponse, ReleaseTerminalRequest, RequestPermissionOutcome,
    RequestPermissionRequest, RequestPermissionResponse, SessionUpdate, Terminal,
    TerminalOutputRequest, TerminalOutputResponse, ToolCall, ToolCallContent, ToolCallLocation,
    ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields, ToolKind, WaitForTerminalExitRequest,
    WaitForTerminalExitResponse, WriteTextFileRequest,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::shell;
use super::turn::{Stop, Turn};
use super::wire::lock;

/// Output that a client's terminal keeps, in bytes.
const OUTPUT_LIMIT: u64 = 64 << 10;
/// Entries of a folder that a listing shows.
const LISTING_LIMIT: usize = 200;

/// How a tool ended: what it found, or why it failed.
type Outcome<T> = Result<T, String>;

/// What a command printed, and how it ended in words.
pub(super) struct Ran {
    pub(super) output: String,
    pub(super) status: String,
}

impl Turn {
    /// Names of what is in the session's cwd, sorted, folders with a `/`.
    pub(super) fn list_workspace(&mut self) -> Result<Outcome<Vec<String>>, Stop> {
        let cwd = self.session.cwd.clone();
        let id = self.start(format!("List {}", cwd.display()), |call| {
            call.kind(ToolKind::Search)
                .locations(vec![ToolCallLocation::new(&cwd)])
                .raw_input(json!({"path": cwd}))
        });
        let names = list(&cwd).map_err(|error| format!("{}: {error}", cwd.display()));
        let fields = match &names {
            Ok(names) => completed(names.join("\n")),
            Err(error) => failed(error),
        };
        self.end(&id, fields);
        self.cancel.check()?;
        Ok(names)
    }

    pub(super) fn read(&mut self, path: &Path) -> Result<Outcome<String>, Stop> {
        let id = self.start(format!("Read {}", self.short(path)), |call| {
            call.kind(ToolKind::Read)
                .locations(vec![ToolCallLocation::new(path)])
                .raw_input(json!({"path": path}))
        });
        let text = self.read_text(path)?;
        let fields = match &text {
            Ok(text) => completed(text.clone()),
            Err(error) => failed(error),
        };
        self.end(&id, fields);
        Ok(text)
    }

    pub(super) fn write(&mut self, path: &Path, content: &str) -> Result<Outcome<()>, Stop> {
        let old = self.read_text(path)?.ok();
        self.change(path, "Write", old, content)
    }

    pub(super) fn edit(&mut self, path: &Path, old: &str, new: &str) -> Result<Outcome<()>, Stop> {
        let changed = self.read_text(path)?.and_then(|text| {
            if text.contains(old) {
                Ok((text.replacen(old, new, 1), text))
            } else {
                Err(format!("{} does not contain `{old}`", path.display()))
            }
        });
        match changed {
            Ok((new, old)) => self.change(path, "Edit", Some(old), &new),
            Err(error) => {
                let id = self.start(format!("Edit {}", self.short(path)), |call| {
                    call.kind(ToolKind::Edit)
                        .locations(vec![ToolCallLocation::new(path)])
                });
                self.end(&id, failed(&error));
                Ok(Err(error))
            }
        }
    }

    pub(super) fn shell(&mut self, command: &str) -> Result<Outcome<Ran>, Stop> {
        let id = self.start(format!("`{command}`"), |call| {
            call.kind(ToolKind::Execute)
                .raw_input(json!({"command": command}))
        });
        let ran = if self.client.terminal {
            self.shell_in_terminal(&id, command)?
        } else {
            self.shell_here(command)?
        };
        let fields = match &ran {
            // With a terminal in its content, the call shows its output already.
            Ok((ran, success)) if self.client.terminal => {
                status(*success).raw_output(json!({"output": ran.output, "status": ran.status}))
            }
            Ok((ran, success)) => status(*success)
                .content(vec![text_content(&ran.output)])
                .raw_output(json!({"output": ran.output, "status": ran.status})),
            Err(error) => failed(error),
        };
        self.end(&id, fields);
        Ok(ran.map(|(ran, _)| ran))
    }

    /// Asks for a permission that nothing depends on. Says the kind of the
    /// chosen option, such as `allow_once`.
    pub(super) fn ask(&mut self, title: &str) -> Result<String, Stop> {
        let id = self.start(title, |call| call.kind(ToolKind::Other));
        let answer = self.permission(&id, title)?;
        let fields = match &answer {
            Ok(kind) => status(allows(*kind)),
            Err(error) => failed(error),
        };
        self.update(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(
            id, fields,
        )));
        Ok(match answer {
            Ok(kind) => kind_name(kind).to_owned(),
            Err(error) => format!("failed: {error}"),
        })
    }

    fn change(
        &mut self,
        path: &Path,
        verb: &str,
        old: Option<String>,
        new: &str,
    ) -> Result<Outcome<()>, Stop> {
        let title = format!("{verb} {}", self.short(path));
        let diff = Diff::new(path, new).old_text(old);
        let id = self.start(&title, |call| {
            call.kind(ToolKind::Edit)
                .content(vec![ToolCallContent::Diff(diff)])
                .locations(vec![ToolCallLocation::new(path)])
                .raw_input(json!({"path": path, "content": new}))
        });
        let permitted = if self.session.writes_unasked() {
            Ok(())
        } else {
            match self.permission(&id, &title)? {
                Ok(kind) if allows(kind) => Ok(()),
                Ok(_) => Err("the write was not permitted".to_owned()),
                Err(error) => Err(error),
            }
        };
        let outcome = match permitted {
            Ok(()) => {
                let fields = ToolCallUpdateFields::new().status(ToolCallStatus::InProgress);
                let update = ToolCallUpdate::new(id.clone(), fields);
                self.update(SessionUpdate::ToolCallUpdate(update));
                self.write_text(path, new)?
            }
            Err(error) => Err(error),
        };
        let fields = match &outcome {
            Ok(()) => status(true),
            Err(error) => failed(error),
        };
        self.end(&id, fields);
        Ok(outcome)
    }

    fn permission(&self, id: &str, title: &str) -> Result<Outcome<PermissionOptionKind>, Stop> {
        let options = PERMISSIONS
            .map(|(kind, name)| PermissionOption::new(kind_name(kind), name, kind))
            .to_vec();
        let fields = ToolCallUpdateFields::new()
            .title(title.to_owned())
            .status(ToolCallStatus::Pending);
        let request = RequestPermissionRequest::new(
            self.session.id.clone(),
            ToolCallUpdate::new(id.to_owned(), fields),
            options,
        );
        let answer: Outcome<RequestPermissionResponse> =
            self.ask_client("session/request_permission", &request)?;
        let chosen = match answer.map(|answer| answer.outcome) {
            Ok(RequestPermissionOutcome::Selected(chosen)) => chosen.option_id,
            Ok(_) => return Err(Stop::Cancelled),
            Err(error) => return Ok(Err(error)),
        };
        let chosen = PERMISSIONS
            .iter()
            .find(|(kind, _)| kind_name(*kind) == &*chosen.0)
            .map(|(kind, _)| *kind)
            .ok_or_else(|| format!("the client chose `{chosen}`, which was not offered"));
        if chosen == Ok(PermissionOptionKind::AllowAlways) {
            self.session.allow_always.store(true, Ordering::Relaxed);
        }
        Ok(chosen)
    }

    fn read_text(&self, path: &Path) -> Result<Outcome<String>, Stop> {
        if !self.client.fs.read_text_file {
            self.cancel.check()?;
            return Ok(fs::read_to_string(path).map_err(|error| describe(path, &error)));
        }
        let request = ReadTextFileRequest::new(self.session.id.clone(), path);
        let answer: Outcome<ReadTextFileResponse> =
            self.ask_client("fs/read_text_file", &request)?;
        Ok(answer.map(|answer| answer.content))
    }

    fn write_text(&self, path: &Path, content: &str) -> Result<Outcome<()>, Stop> {
        if !self.client.fs.write_text_file {
            self.cancel.check()?;
            let written = path.parent().map_or(Ok(()), fs::create_dir_all);
            let written = written.and_then(|()| fs::write(path, content));
            return Ok(written.map_err(|error| describe(path, &error)));
        }
        let request = WriteTextFileRequest::new(self.session.id.clone(), path, content);
        let answer: Outcome<Value> = self.ask_client("fs/write_text_file", &request)?;
        Ok(answer.map(|_| ()))
    }

    fn shell_in_terminal(&self, id: &str, command: &str) -> Result<Outcome<(Ran, bool)>, Stop> {
        let session = || self.session.id.clone();
        let request = CreateTerminalRequest::new(session(), "/bin/sh")
            .args(vec!["-c".to_owned(), command.to_owned()])
            .cwd(self.session.cwd.clone())
            .output_byte_limit(OUTPUT_LIMIT);
        let created: Outcome<CreateTerminalResponse> =
            self.ask_client("terminal/create", &request)?;
        let terminal = match created {
            Ok(created) => created.terminal_id,
            Err(error) => return Ok(Err(error)),
        };
        let content = ToolCallContent::Terminal(Terminal::new(terminal.clone()));
        let fields = ToolCallUpdateFields::new()
            .status(ToolCallStatus::InProgress)
            .content(vec![content]);
        let update = ToolCallUpdate::new(id.to_owned(), fields);
        self.update(SessionUpdate::ToolCallUpdate(update));

        let wait = WaitForTerminalExitRequest::new(session(), terminal.clone());
        let exit = self.ask_client::<WaitForTerminalExitResponse>("terminal/wait_for_exit", &wait);
        let output = match &exit {
            Ok(_) => {
                let request = TerminalOutputRequest::new(session(), terminal.clone());
                self.ask_client::<TerminalOutputResponse>("terminal/output", &request)
            }
            Err(stop) => Err(*stop),
        };
        // Released also when the turn was cancelled; then nobody waits for the answer.
        let release = ReleaseTerminalRequest::new(session(), terminal);
        let released = self.wire.request("terminal/release", &release);
        let (exit, output) = (exit?, output?);
        let _ = self.wait(&released)?;
        Ok(exit.and_then(|exit| {
            let exit = exit.exit_status;
            let status = match (&exit.exit_code, &exit.signal) {
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("signal {}", signal.as_deref().unwrap_or("unknown")),
            };
            let ran = Ran {
                output: output?.output,
                status,
            };
            Ok((ran, exit.exit_code == Some(0)))
        }))
    }

    fn shell_here(&self, command: &str) -> Result<Outcome<(Ran, bool)>, Stop> {
        let finished = shell::run(command, &self.session.cwd, &self.cancel)?;
        Ok(match finished {
            Ok(finished) => {
                let ran = Ran {
                    output: finished.output,
                    status: finished.status,
                };
                Ok((ran, finished.success))
            }
            Err(error) => Err(format!("`{command}` could not be started: {error}")),
        })
    }

    /// A request whose failure is a tool's failure, not the turn's.
    fn ask_client<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl serde::Serialize,
    ) -> Result<Outcome<T>, Stop> {
        let answer = self.wire.request(method, params);
        Ok(match self.wait(&answer)? {
            Ok(answer) => serde_json::from_value(answer)
                .map_err(|error| format!("{method}: the answer was not understood: {error}")),
            Err(error) => Err(format!("{method}: {error}")),
        })
    }

    /// Tells that a tool call has begun, and returns its id.
    fn start(
        &self,
        title: impl Into<String>,
        describe: impl FnOnce(ToolCall) -> ToolCall,
    ) -> String {
        let number = {
            let mut record = lock(&self.session.record);
            record.calls += 1;
            record.calls
        };
        let id = format!("call-{number}");
        let call = ToolCall::new(id.clone(), title).status(ToolCallStatus::Pending);
        self.update(SessionUpdate::ToolCall(describe(call)));
        id
    }

    /// Tells that a tool call has ended; one more tool result.
    fn end(&mut self, id: &str, fields: ToolCallUpdateFields) {
        self.results += 1;
        let update = ToolCallUpdate::new(id.to_owned(), fields);
        self.update(SessionUpdate::ToolCallUpdate(update));
    }

    /// A path as a title shows it.
    fn short(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.session.cwd).unwrap_or(path);
        inside.display().to_string()
    }
}

const PERMISSIONS: [(PermissionOptionKind, &str); 3] = [
    (PermissionOptionKind::AllowOnce, "Allow"),
    (PermissionOptionKind::AllowAlways, "Always allow"),
    (PermissionOptionKind::RejectOnce, "Reject"),
];

/// The kind as the protocol writes it; also the option's id.
fn kind_name(kind: PermissionOptionKind) -> &'static str {
    match kind {
        PermissionOptionKind::AllowOnce => "allow_once",
        PermissionOptionKind::AllowAlways => "allow_always",
        _ => "reject_once",
    }
}

fn allows(kind: PermissionOptionKind) -> bool {
    matches!(
        kind,
        PermissionOptionKind::AllowOnce | PermissionOptionKind::AllowAlways
    )
}

fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let slash = if entry.path().is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    names.truncate(LISTING_LIMIT);
    Ok(names)
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn status(success: bool) -> ToolCallUpdateFields {
    ToolCallUpdateFields::new().status(if success {
        ToolCallStatus::Completed
    } else {
        ToolCallStatus::Failed
    })
}

fn completed(text: String) -> ToolCallUpdateFields {
    status(true).content(vec![text_content(&text)])
}

fn failed(error: &str) -> ToolCallUpdateFields {
    status(false).content(vec![text_content(error)])
}

fn text_content(text: &str) -> ToolCallContent {
    text.to_owned().into()
}
