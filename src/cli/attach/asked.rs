//! What the agent waits for, and the lines that answer it.

use super::form::{Form, Link, action};
use super::question::Question;
use crate::acp::methods;
use crate::rpc::{message, splice};
use crate::session::policy;

/// A request that a person is to answer.
pub(super) struct Asked {
    /// The request's raw id.
    pub(super) id: String,
    what: What,
}

enum What {
    Permission(Question),
    Form(Form),
    Link(Link),
    /// Of a kind that is not known here.
    Other,
}

/// What a line was.
pub(super) enum Taken {
    /// The answer, a raw result.
    Answer(String),
    /// A part of it; more is asked for.
    Next,
    /// Nothing that could be meant, and why.
    Wrong(String),
}

impl Asked {
    /// `None` for what no person answers.
    pub(super) fn of(id: String, method: &str, params: &str) -> Option<Asked> {
        let what = match method {
            methods::REQUEST_PERMISSION => What::Permission(Question::new(params)),
            methods::ELICITATION_CREATE => {
                let mode = splice::member(params, "mode").and_then(message::string);
                match mode.as_deref() {
                    Some("form") | None => What::Form(Form::new(params)),
                    Some("url") => What::Link(Link::new(params)),
                    Some(_) => What::Other,
                }
            }
            _ => return None,
        };
        Some(Asked { id, what })
    }

    /// What is to be typed next, for a terminal.
    pub(super) fn text(&self) -> String {
        match &self.what {
            What::Permission(question) => question.text(),
            What::Form(form) => form.text(),
            What::Link(link) => link.text(),
            What::Other => {
                "  this must be answered in another client\n  /decline or /cancel: ".to_owned()
            }
        }
    }

    pub(super) fn take(&mut self, line: &str) -> Taken {
        match &mut self.what {
            What::Permission(question) => match question.chosen(line) {
                Some(choice) => Taken::Answer(policy::answer(Some(&choice.id))),
                None => {
                    Taken::Wrong("that line is none of the choices, and was not sent".to_owned())
                }
            },
            What::Form(form) => form.take(line),
            What::Link(link) => link.take(line),
            What::Other => match line.trim() {
                "/decline" => Taken::Answer(action("decline")),
                "/cancel" => Taken::Answer(action("cancel")),
                _ => Taken::Wrong("that line was not sent".to_owned()),
            },
        }
    }

    /// Whether an empty line may be meant.
    pub(super) fn takes_nothing(&self) -> bool {
        matches!(self.what, What::Form(_))
    }

    /// The answer when the turn is cancelled, a raw result.
    pub(super) fn cancelled(&self) -> String {
        match &self.what {
            What::Permission(_) => policy::answer(None),
            What::Form(_) | What::Link(_) | What::Other => action("cancel"),
        }
    }
}
