//! One turn: what a prompt sets off, told in updates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use agent_client_protocol_schema::v1::{
    ClientCapabilities, ContentBlock, ContentChunk, EmbeddedResourceResource, Error,
    SessionNotification, SessionUpdate, StopReason,
};

use super::directive::{self, Directive};
use super::session::{Cancel, Session, now};
use super::storage::Storage;
use super::wire::{Answer, Wire, lock, notification_line};

/// Longest title of a session, in characters.
const TITLE_LIMIT: usize = 60;
/// How soon a wait for the client notices a cancelled turn.
const CANCEL_TICK: Duration = Duration::from_millis(10);
/// Flood lines written at once.
const FLOOD_BATCH: u64 = 256;

pub(super) struct Turn {
    pub(super) wire: Arc<Wire>,
    pub(super) session: Arc<Session>,
    pub(super) cancel: Arc<Cancel>,
    /// What the client offered.
    pub(super) client: ClientCapabilities,
    /// Tool calls that have ended, well or badly.
    pub(super) results: u64,
}

/// Why a turn ends before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    Refused,
}

impl Turn {
    /// Runs the turn to its end. The session is on disk before and after.
    pub(super) fn run(
        mut self,
        prompt: &[ContentBlock],
        storage: &Storage,
    ) -> Result<StopReason, Error> {
        let text = prompt_text(prompt);
        let directives = directive::parse(&text).map_err(super::session::invalid)?;
        {
            let mut record = lock(&self.session.record);
            record.title.get_or_insert_with(|| title(&text));
            for block in prompt {
                let chunk = ContentChunk::new(block.clone());
                record.remember(SessionUpdate::UserMessageChunk(chunk));
            }
        }
        self.save(storage)?;
        let end = if directives.is_empty() {
            self.tour(&text)
        } else {
            self.follow(directives)
        };
        self.save(storage)?;
        Ok(match end {
            Ok(()) => StopReason::EndTurn,
            Err(Stop::Cancelled) => StopReason::Cancelled,
            Err(Stop::Refused) => StopReason::Refusal,
        })
    }

    fn save(&self, storage: &Storage) -> Result<(), Error> {
        let mut record = lock(&self.session.record);
        record.updated_at = now();
        storage.save(&record).map_err(Error::into_internal_error)
    }

    fn follow(&mut self, directives: Vec<Directive>) -> Result<(), Stop> {
        for directive in directives {
            self.cancel.check()?;
            self.step(directive)?;
        }
        self.say(&format!("DONE {} tool results", self.results));
        Ok(())
    }

    /// A failed tool has been told as such, and the next directive follows.
    fn step(&mut self, directive: Directive) -> Result<(), Stop> {
        match directive {
            Directive::Write { path, content } => {
                let path = self.path(&path);
                let _ = self.write(&path, &content)?;
            }
            Directive::Edit { path, old, new } => {
                let path = self.path(&path);
                let _ = self.edit(&path, &old, &new)?;
            }
            Directive::Read { path } => {
                let path = self.path(&path);
                let _ = self.read(&path)?;
            }
            Directive::Shell { command } => {
                let _ = self.shell(&command)?;
            }
            Directive::Slow { chunks } => {
                for chunk in 0..chunks {
                    self.say(&format!("chunk{chunk} "));
                    self.cancel.sleep(Duration::from_millis(100))?;
                }
            }
            Directive::Think { text } => {
                let chunk = ContentChunk::new(text.into());
                self.update(SessionUpdate::AgentThoughtChunk(chunk));
            }
            Directive::Say { text } => self.say(&text),
            Directive::Ask { title } => {
                let answer = self.ask(&title)?;
                self.say(&format!("ASK {answer}"));
            }
            Directive::Exit { code } => std::process::exit(code),
            Directive::Flood { updates } => self.flood(updates)?,
            Directive::Refuse => return Err(Stop::Refused),
            Directive::Instructions => {
                let text = std::env::var("ACPBOX_INSTRUCTIONS").unwrap_or_default();
                let first = text.lines().next().unwrap_or("no instructions");
                self.say(first);
            }
            Directive::Env { name } => {
                let said = match std::env::var(&name) {
                    Ok(value) => format!("{name}={value}"),
                    Err(_) => format!("{name} is not set"),
                };
                self.say(&said);
            }
            Directive::Mcp => {
                let names = self.session.mcp_servers.join(", ");
                self.say(if names.is_empty() { "none" } else { &names });
            }
        }
        Ok(())
    }

    /// Numbered chunks, each a line of about 200 bytes. Only the last one is
    /// remembered, so that a flood leaves the session's file small.
    fn flood(&self, updates: u64) -> Result<(), Stop> {
        let update = |number: u64| {
            let chunk = ContentChunk::new(format!("{number:010} ").into());
            SessionUpdate::AgentMessageChunk(chunk)
        };
        // Made once and numbered anew each time: serializing would be the bottleneck.
        let params = SessionNotification::new(self.session.id.clone(), update(0));
        let template = notification_line("session/update", &params);
        let number_at = memchr::memmem::rfind(&template, b"0000000000 ")
            .expect("the template was made with this text");
        let mut batch = Vec::with_capacity(template.len() * FLOOD_BATCH as usize);
        for first in (0..updates).step_by(FLOOD_BATCH as usize) {
            self.cancel.check()?;
            batch.clear();
            for number in first..updates.min(first + FLOOD_BATCH) {
                let start = batch.len() + number_at;
                batch.extend_from_slice(&template);
                let digits = format!("{:010}", number % 10_000_000_000);
                batch[start..start + digits.len()].copy_from_slice(digits.as_bytes());
            }
            self.wire.write(&batch);
        }
        if let Some(last) = updates.checked_sub(1) {
            lock(&self.session.record).remember(update(last));
        }
        Ok(())
    }

    /// One message chunk.
    pub(super) fn say(&self, text: &str) {
        let chunk = ContentChunk::new(text.to_owned().into());
        self.update(SessionUpdate::AgentMessageChunk(chunk));
    }

    /// Sends an update and remembers it for a replay.
    pub(super) fn update(&self, update: SessionUpdate) {
        let params = SessionNotification::new(self.session.id.clone(), update);
        self.wire.notify("session/update", &params);
        lock(&self.session.record).remember(params.update);
    }

    /// Waits for the client's answer, or the turn's end.
    pub(super) fn wait(&self, answer: &Receiver<Answer>) -> Result<Answer, Stop> {
        loop {
            let received = answer.recv_timeout(CANCEL_TICK);
            // An answer that crosses the cancellation comes too late.
            self.cancel.check()?;
            match received {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stop::Cancelled),
            }
        }
    }

    /// A path of a directive or prompt, taken from the session's cwd.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.session.cwd.join(Path::new(path))
    }
}

fn prompt_text(prompt: &[ContentBlock]) -> String {
    let parts = prompt.iter().filter_map(|block| match block {
        ContentBlock::Text(text) => Some(behind_history(&text.text).to_owned()),
        ContentBlock::ResourceLink(link) => Some(link.name.clone()),
        ContentBlock::Resource(resource) => match &resource.resource {
            EmbeddedResourceResource::TextResourceContents(text) => Some(text.uri.clone()),
            _ => None,
        },
        _ => None,
    });
    parts.collect::<Vec<_>>().join("\n")
}

/// The user's new message where acpbox put the conversation so far in front of it:
/// what that asked for was dealt with.
fn behind_history(text: &str) -> &str {
    let (_, new) = text
        .rsplit_once("</conversation-history>")
        .unwrap_or(("", text));
    new.trim_start_matches('\n')
}

fn title(prompt: &str) -> String {
    let line = prompt.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(TITLE_LIMIT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
