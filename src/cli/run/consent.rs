//! What the agent may: who answers when it asks for permission, and acpbox's own
//! rules leave it open. Options are chosen as the rules choose them.

use super::terminal::Terminal;
use crate::rpc::splice;
use crate::session::policy::{Choice, Offered};

/// Who answers.
pub(super) enum Consent {
    /// `--yes`: allow, once each.
    Yes,
    /// `--deny`, or nobody could be asked (`is_told` then says so once).
    No {
        is_told: bool,
    },
    Ask(Terminal),
}

impl Consent {
    pub(super) fn new(yes: bool, deny: bool) -> Consent {
        if yes {
            return Consent::Yes;
        }
        if deny {
            return Consent::No { is_told: true };
        }
        match Terminal::open() {
            Some(terminal) => Consent::Ask(terminal),
            None => Consent::No { is_told: false },
        }
    }
}

/// The options of a `session/request_permission`, and those that can be shown.
pub(super) fn offered(params: &str) -> (Offered, Vec<Choice>) {
    let offered = Offered::read(splice::member(params, "options"));
    let choices = offered.clear().cloned().collect();
    (offered, choices)
}
