//! Prompts that came while another's turn ran: they are shown where their own
//! turns begin.

use std::collections::VecDeque;

use serde_json::Value;

use super::item::Block;

/// Prompts that are remembered at most.
const WAITING: usize = 1000;

#[derive(Clone, Default)]
pub(super) struct Queued {
    /// The id of the prompt whose turn runs.
    running: Option<Value>,
    waiting: VecDeque<Prompt>,
}

#[derive(Clone)]
pub(super) struct Prompt {
    /// The number of its event.
    seq: i64,
    id: Value,
    pub(super) blocks: Vec<Block>,
}

impl Queued {
    /// Takes a prompt in. Gives it back if its turn begins at once, or if too many
    /// wait.
    pub(super) fn add(&mut self, seq: i64, id: Value, blocks: Vec<Block>) -> Option<Prompt> {
        let prompt = Prompt { seq, id, blocks };
        if self.running.is_some() && self.waiting.len() < WAITING {
            self.waiting.push_back(prompt);
            return None;
        }
        self.running = Some(prompt.id.clone());
        Some(prompt)
    }

    /// The turn of the prompt with this event's number begins; `None` if it was
    /// shown already.
    pub(super) fn start(&mut self, seq: i64) -> Option<Prompt> {
        let at = self.waiting.iter().position(|prompt| prompt.seq == seq)?;
        let prompt = self.waiting.remove(at)?;
        self.running = Some(prompt.id.clone());
        Some(prompt)
    }

    /// The agent does something. Older transcripts do not tell that a turn began.
    pub(super) fn start_untold(&mut self) -> Option<Prompt> {
        match &self.running {
            Some(_) => None,
            None => self.start(self.waiting.front()?.seq),
        }
    }

    /// A prompt that is answered without a turn of its own.
    pub(super) fn answered(&mut self, id: &Value) -> Option<Prompt> {
        if self.running.as_ref() == Some(id) {
            return None;
        }
        let at = self.waiting.iter().position(|prompt| prompt.id == *id)?;
        self.waiting.remove(at)
    }

    pub(super) fn end(&mut self) {
        self.running = None;
    }

    /// Those that still wait.
    pub(super) fn rest(&mut self) -> impl Iterator<Item = Prompt> {
        std::mem::take(&mut self.waiting).into_iter()
    }
}
