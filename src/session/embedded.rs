//! Terminals that tool calls show. They run in the VM, where no client can look:
//! each sees what they have printed, again from time to time, and at their end.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Instrument as _;

use super::live::Live;
use super::state::{Batch, State, with_meta};
use super::terminal::Terminal;
use crate::acp::extension::UpdateMeta;
use crate::acp::methods;
use crate::rpc::{message, splice};
use crate::store::Direction;
use crate::transcript::terminal_content;

/// The end of a terminal's output that an update carries, in bytes.
pub(super) const SHOWN_BYTES: usize = 64 * 1024;

/// Terminals whose output is remembered after they were released, for updates
/// that still show them.
const REMEMBERED: usize = 64;

/// Tool calls with terminals that are followed at most.
const FOLLOWED: usize = 256;

/// How long to wait for more output; doubled each time, so that what a command
/// prints for hours does not fill the transcript.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Embedded {
    /// By terminal: where it is shown last.
    places: HashMap<String, Place>,
    /// Ids and texts, oldest first.
    released: VecDeque<(String, String)>,
}

#[derive(Debug)]
struct Place {
    tool: String,
    /// The tool call's content as the agent sent it: a raw array.
    content: Box<str>,
    /// The hash of what was shown for it.
    shown: u64,
}

impl Embedded {
    pub(super) fn remember(&mut self, id: &str, text: String) {
        self.released.retain(|(known, _)| known != id);
        if self.released.len() >= REMEMBERED
            && let Some((forgotten, _)) = self.released.pop_front()
        {
            self.places.remove(&forgotten);
        }
        self.released.push_back((id.to_owned(), text));
    }

    fn released(&self, id: &str) -> Option<String> {
        let found = self.released.iter().find(|(known, _)| known == id)?;
        Some(found.1.clone())
    }
}

impl Live {
    fn embedded(&self) -> MutexGuard<'_, Embedded> {
        let embedded = self.terminals.embedded.lock();
        embedded.unwrap_or_else(PoisonError::into_inner)
    }

    /// The `content` of a tool call's update where it shows terminals of this
    /// session, and what to show for it. They are followed from now on.
    pub(super) fn show_content<'a>(self: &Arc<Self>, update: &'a str) -> Option<(&'a str, String)> {
        if !self.terminals.is_used() {
            return None;
        }
        let tool = splice::member(update, "toolCallId").and_then(message::string)?;
        let mut embedded = self.embedded();
        if splice::member(update, "content").is_some() {
            // It replaces whatever the tool call showed before.
            embedded.places.retain(|_, place| place.tool != *tool);
        }
        let (content, ids) = terminal_content::terminals_in(update)?;
        let shown = terminal_content::with_texts(content, |id| self.text_of(&embedded, id));
        for id in ids {
            let terminal = self.terminals.find(&id);
            if terminal.is_none() && embedded.released(&id).is_none() {
                continue;
            }
            if embedded.places.len() >= FOLLOWED {
                break;
            }
            let place = Place {
                tool: tool.clone().into_owned(),
                content: content.into(),
                shown: hash(&shown),
            };
            embedded.places.insert(id.clone(), place);
            if let Some(terminal) = terminal.filter(|terminal| terminal.begin_to_follow()) {
                let following = Arc::clone(self).follow(id, terminal);
                tokio::spawn(following.instrument(self.watch.span.clone()));
            }
        }
        Some((content, shown))
    }

    /// Records and sends what embedded terminals have printed since it was shown.
    pub(super) fn show_terminals(&self, state: &mut State, batch: &mut Batch) {
        let ids: Vec<String> = self.embedded().places.keys().cloned().collect();
        for id in ids {
            self.show_terminal(state, batch, &id);
        }
    }

    async fn follow(self: Arc<Self>, id: String, terminal: Arc<Terminal>) {
        let mut exit = terminal.exit.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = self.over.cancelled() => return,
                _ = exit.wait_for(Option::is_some) => break,
                () = tokio::time::sleep(pause) => {}
            }
            self.show_soon(&id).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if self.terminals.find(&id).is_none() {
            self.embedded().remember(&id, terminal.text());
        }
        self.show_soon(&id).await;
    }

    async fn show_soon(&self, id: &str) {
        let shown = self.transact(|state, batch| self.show_terminal(state, batch, id));
        if let Err(failure) = shown.await {
            tracing::warn!(%failure, "a terminal's output could not be shown");
        }
    }

    fn show_terminal(&self, state: &mut State, batch: &mut Batch, id: &str) {
        let mut embedded = self.embedded();
        let Some(place) = embedded.places.get(id) else {
            return;
        };
        let content =
            terminal_content::with_texts(&place.content, |id| self.text_of(&embedded, id));
        let hash = hash(&content);
        if hash == place.shown || state.ended.is_some() {
            return;
        }
        let params = format!(
            r#"{{"sessionId":{},"update":{{"sessionUpdate":"tool_call_update","toolCallId":{},"content":{content}}}}}"#,
            state.public_id(),
            serde_json::Value::from(place.tool.as_str()),
        );
        if let Some(place) = embedded.places.get_mut(id) {
            place.shown = hash;
        }
        drop(embedded);
        let line = message::notification(methods::SESSION_UPDATE, &params);
        let kind = methods::update_kind("tool_call_update");
        let seq = state.record(batch, Direction::Acpbox, kind, line.as_str());
        let line = with_meta(&line, "params", &UpdateMeta::of(seq));
        self.show(state, batch, &[&line], line.len());
    }

    fn text_of(&self, embedded: &Embedded, id: &str) -> Option<String> {
        match self.terminals.find(id) {
            Some(terminal) => Some(terminal.text()),
            None => embedded.released(id),
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
