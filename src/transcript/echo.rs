//! What an agent says back of its prompt.

use serde_json::Value;

use super::shown::blocks;
use crate::rpc::{message, splice};

/// The longest prompt that is compared with what the agent says.
const PROMPT_BYTES: usize = 256 * 1024;

/// The pieces of a prompt that its agent has not said back yet.
#[derive(Debug, Default)]
pub struct Echo {
    pieces: Vec<Piece>,
    /// What acpbox put in front of the prompt, if that was not said back yet.
    preamble: Option<Piece>,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    /// Another block, without what only tells how to show it.
    Other(Value),
}

impl Echo {
    /// Of a `session/prompt`, raw.
    pub fn of(raw: &str) -> Echo {
        if raw.len() > PROMPT_BYTES {
            return Echo::default();
        }
        let blocks = blocks(raw);
        let pieces = blocks.iter().filter_map(|block| Piece::read(block.get()));
        Echo {
            pieces: pieces.collect(),
            preamble: None,
        }
    }

    /// The same behind a text of acpbox's own, which nobody is to be shown.
    pub fn behind(self, preamble: Option<&str>) -> Echo {
        Echo {
            preamble: preamble.map(|text| Piece::Text(text.to_owned())),
            ..self
        }
    }

    /// Whether an update of the agent's, raw, only says what acpbox itself told it. Once.
    pub fn takes_preamble(&mut self, update: &str) -> bool {
        if self.preamble.is_none() {
            return false;
        }
        let said = splice::member(update, "content").and_then(Piece::read);
        self.preamble
            .take_if(|told| said.as_ref() == Some(told))
            .is_some()
    }

    /// Whether an update of the agent's, raw, only says what it was told. Once per
    /// piece of the prompt.
    pub fn takes(&mut self, update: &str) -> bool {
        if self.pieces.is_empty() {
            return false;
        }
        let piece = splice::member(update, "content").and_then(Piece::read);
        let at = piece.and_then(|piece| self.pieces.iter().position(|told| *told == piece));
        at.is_some_and(|at| {
            self.pieces.remove(at);
            true
        })
    }
}

impl Piece {
    fn read(block: &str) -> Option<Piece> {
        if let Some(text) = splice::member(block, "text").and_then(message::string) {
            return Some(Piece::Text(text.into_owned()));
        }
        let mut block: Value = serde_json::from_str(block).ok()?;
        let members = block.as_object_mut()?;
        members.remove("_meta");
        members.remove("annotations");
        Some(Piece::Other(block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_of_a_prompt_is_an_echo_once() {
        let mut echo = Echo::of(
            r#"{"params":{"prompt":[{"type":"text","text":"a"},{"type":"text","text":"a"},
            {"type":"image","data":"x","mimeType":"image/png","annotations":{"priority":1}}]}}"#,
        );
        let mut takes = |content: &str| echo.takes(&format!(r#"{{"content":{content}}}"#));
        assert!(!takes(r#"{"type":"text","text":"b"}"#));
        assert!(takes(r#"{"text":"\u0061","type":"text"}"#));
        assert!(takes(r#"{"type":"text","text":"a"}"#));
        assert!(!takes(r#"{"type":"text","text":"a"}"#));
        assert!(!takes(
            r#"{"type":"image","data":"y","mimeType":"image/png"}"#
        ));
        assert!(takes(
            r#"{"mimeType":"image/png","type":"image","data":"x"}"#
        ));
        for odd in ["null", "7", "[]", "{}"] {
            assert!(!takes(odd), "{odd}");
        }
        assert!(Echo::of("{}").pieces.is_empty() && Echo::of("x").pieces.is_empty());
    }
}
