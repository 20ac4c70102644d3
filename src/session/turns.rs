//! How a turn ends in the session's memory: once, with an event that ends it,
//! and an answer to all who sent its prompt.

use std::sync::Arc;

use super::state::{Asker, Batch, State, now, with_meta};
use crate::acp::Failure;
use crate::acp::extension::{PromptMeta, TurnEnd, TurnEndReason};
use crate::acp::methods::{self, response_kind};
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};
use crate::store::{Direction, TurnRow};

impl State {
    /// Whether a prompt that comes now would have to wait.
    pub fn is_busy(&self) -> bool {
        self.turn.is_some() || self.fence.is_some() || !self.queue.is_empty()
    }

    /// What is to be stored of a prompt's turn, to be filled in.
    pub fn turn_row(&mut self, prompt: i64) -> &mut TurnRow {
        let at = match self.turn_rows.iter().position(|row| row.prompt == prompt) {
            Some(at) => at,
            None => {
                self.turn_rows.push(TurnRow {
                    session: Arc::clone(&self.session),
                    prompt,
                    first: None,
                    last: None,
                    key: None,
                });
                self.turn_rows.len() - 1
            }
        };
        &mut self.turn_rows[at]
    }

    /// Ends the turn with a response, whose id is the asker's.
    pub fn end_turn(
        &mut self,
        batch: &mut Batch,
        asker: Asker,
        line: &str,
        direction: Direction,
        is_error: bool,
    ) {
        let kind = response_kind(methods::SESSION_PROMPT, is_error);
        let seq = self.record(batch, direction, kind, line);
        batch.durable = true;
        batch.row = true;
        self.row.updated = now();
        let mut meta = PromptMeta {
            text: String::new(),
            text_truncated: false,
            last_seq: seq,
            repeated: false,
        };
        let mut askers = vec![asker];
        if let Some(turn) = self.turn.take() {
            self.turn_row(turn.prompt).last = Some(seq);
            meta.text = turn.text;
            meta.text_truncated = turn.is_truncated;
            askers.extend(turn.joined);
        }
        answer_all(batch, &askers, &with_meta(line, "result", &meta));
    }

    /// Ends a prompt that never had a turn, or whose agent is gone, with a
    /// response of acpbox's own. `line` has any id.
    pub fn end_prompt(
        &mut self,
        batch: &mut Batch,
        prompt: i64,
        askers: &[Asker],
        line: &str,
        is_error: bool,
    ) {
        let Some(first) = askers.first() else { return };
        let kind = response_kind(methods::SESSION_PROMPT, is_error);
        let line = with_id(line, &first.id);
        if self.is_lost(prompt) {
            // The transcript does not know it.
            answer_all(batch, askers, &line);
            return;
        }
        let seq = self.record(batch, Direction::Acpbox, kind, line.as_str());
        if self.ended.is_none() {
            self.turn_row(prompt).last = Some(seq);
        }
        answer_all(batch, askers, &line);
    }

    /// [`State::end_prompt`] with an error.
    pub fn refuse_prompt(
        &mut self,
        batch: &mut Batch,
        prompt: i64,
        askers: &[Asker],
        failure: &Failure,
    ) {
        let line = message::error("null", &failure.to_error_object());
        self.end_prompt(batch, prompt, askers, &line, true);
    }

    /// Answers all prompts that wait with an error.
    pub fn refuse_queue(&mut self, batch: &mut Batch, failure: &Failure) {
        for prompt in std::mem::take(&mut self.queue) {
            self.refuse_prompt(batch, prompt.seq, &prompt.askers, failure);
        }
    }

    /// Records why acpbox ends a turn; its response follows.
    pub fn record_turn_end(
        &mut self,
        batch: &mut Batch,
        prompt: i64,
        reason: TurnEndReason,
        detail: String,
    ) {
        let params = TurnEnd {
            session_id: self.session.to_string(),
            prompt_seq: prompt,
            reason,
            detail,
        };
        self.record_own(batch, methods::TURN_END, &params);
    }
}

/// Sends a response to each, under its own id. `line` has the first one's.
fn answer_all(batch: &mut Batch, askers: &[Asker], line: &str) {
    for (index, asker) in askers.iter().enumerate() {
        let answered = (Arc::clone(&asker.client), asker.id.clone());
        batch.answered.push(answered);
        match index {
            0 => batch.send(&asker.client, &[line]),
            _ => batch.send(&asker.client, &[&with_id(line, &asker.id)]),
        }
    }
}

/// A response with another id.
pub fn with_id(line: &str, id: &str) -> String {
    let mut edits = Edits::of(line);
    if let Some(theirs) = splice::member(line, "id") {
        edits.replace(theirs, id.to_owned());
    }
    edits.apply()
}
