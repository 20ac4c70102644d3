//! Where an agent asks whether it may: the policy is heard before anybody is
//! asked, and an answer for always is remembered.

use std::sync::Arc;
use std::time::Duration;

use super::live::Live;
use super::policy::options::ChoiceKind;
use super::policy::{self, Authority, Offered, Request, Subject, Verdict};
use super::state::{Batch, State, now};
use crate::acp::extension::PermissionDecided;
use crate::acp::methods::{self, response_kind};
use crate::config::Decision;
use crate::rpc::{message, splice};
use crate::store::{Direction, PermissionRow};
use crate::transcript::printable_line;

/// Characters of a client's odd answer that are told.
const SHOWN_CHARACTERS: usize = 100;

/// What becomes of a request before anybody is asked.
pub(super) enum Heard {
    /// It is answered.
    Answered,
    /// It is for a person to answer.
    Question(Consent),
}

/// What a person's answer to a question settles.
#[derive(Debug, Default)]
pub struct Consent {
    /// What an answer for always is remembered for.
    subject: Option<Subject>,
    /// The ids of the options that stand for always.
    settling: Vec<(String, Decision)>,
    /// The ids among which there is to choose; `None` for what is no permission.
    offered: Option<Vec<String>>,
}

impl Consent {
    fn new(subject: Option<Subject>, offered: &Offered) -> Consent {
        let ids = offered.answerable().map(str::to_owned);
        let settling = offered.settling().map(|choice| {
            let decision = match choice.kind {
                ChoiceKind::AllowAlways => Decision::Allow,
                _ => Decision::Deny,
            };
            (choice.id.clone(), decision)
        });
        Consent {
            subject,
            settling: settling.collect(),
            offered: Some(ids.collect()),
        }
    }

    /// Why a whole raw response, which is no error, answers nothing: it chooses
    /// what was not offered, or what nobody could tell apart. `None` if it answers.
    pub(super) fn flaw_of(&self, response: &str) -> Option<String> {
        let offered = self.offered.as_ref()?;
        let result = splice::member(response, "result").unwrap_or("null");
        match policy::options::chosen(result) {
            Ok(None) => None,
            Ok(Some(id)) if offered.iter().any(|known| **known == *id) => None,
            Ok(Some(id)) => {
                let id: String = printable_line(&id).chars().take(SHOWN_CHARACTERS).collect();
                Some(format!(
                    "it chooses `{id}`, which is none of the options, or several that differ"
                ))
            }
            Err(why) => Some(format!("{why} (`session/request_permission` of ACP)")),
        }
    }

    /// What a raw result settles for always, if it does.
    fn settled(self, result: Option<&str>) -> Option<(Subject, Decision)> {
        let chosen = policy::options::chosen(result?).ok()??;
        let mut settling = self.settling.iter();
        let (_, decision) = settling.find(|(id, _)| **id == *chosen)?;
        Some((self.subject?, *decision))
    }
}

impl Live {
    /// Hears the policy about a request of the agent's that waits for a person,
    /// before anybody is asked.
    pub(super) fn decide(
        self: &Arc<Self>,
        state: &mut State,
        batch: &mut Batch,
        id: &str,
        method: &str,
        params: Option<&str>,
    ) -> Heard {
        let mut consent = match method {
            methods::REQUEST_PERMISSION => {
                let roots = self.roots();
                let request = Request::read(
                    params,
                    &state.tool_calls,
                    &self.agent_name,
                    roots.cwd().to_owned(),
                    |path| roots.place(path),
                );
                let options = params.and_then(|params| splice::member(params, "options"));
                let offered = Offered::read(options);
                let remembered = |subject: &Subject| self.remembered(subject);
                match policy::decide(&self.permissions, &request, &offered, remembered) {
                    Verdict::Ask { subject } => Consent::new(subject, &offered),
                    Verdict::Decided {
                        decision,
                        by,
                        option,
                    } => {
                        let params = PermissionDecided {
                            session_id: self.id.to_string(),
                            tool_call_id: tool_call_id(params),
                            decision: word(decision).to_owned(),
                            rule: matches_rule(by),
                            remembered: match by {
                                Authority::Remembered(id) => Some(id),
                                _ => None,
                            },
                            option_id: option.clone(),
                        };
                        state.record_own(batch, methods::PERMISSION_DECIDED, &params);
                        let line = message::result(id, &policy::answer(option.as_deref()));
                        let kind = response_kind(method, false);
                        state.record(batch, Direction::Acpbox, kind, line.as_str());
                        batch.answers.push(line);
                        return Heard::Answered;
                    }
                }
            }
            _ => Consent::default(),
        };
        // With another one of the same id an answer could be meant for either.
        for other in state.questions.iter_mut().filter(|other| &*other.id == id) {
            other.consent.subject = None;
            consent.subject = None;
        }
        Heard::Question(consent)
    }

    /// Takes note of a person's answer to a question, a whole raw response,
    /// before the agent hears it.
    pub(super) async fn settle(&self, consent: Consent, response: &str) {
        let Some((subject, decision)) = consent.settled(splice::member(response, "result")) else {
            return;
        };
        let mut row = self.row_of(&subject);
        row.decision = word(decision).to_owned();
        if let Err(error) = self.store.remember_permission(&row).await {
            tracing::warn!(%error, "an answer for always could not be remembered");
        }
    }

    /// What was answered for always. What cannot be read was not.
    fn remembered(&self, subject: &Subject) -> Option<(i64, Decision)> {
        let found = self.store.permission_for(&self.row_of(subject));
        let row = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "remembered answers could not be read");
            None
        })?;
        let decision = [Decision::Allow, Decision::Deny];
        let decision = decision.into_iter().find(|it| word(*it) == row.decision);
        Some((row.id, decision?))
    }

    fn row_of(&self, subject: &Subject) -> PermissionRow {
        PermissionRow {
            id: 0,
            agent: self.agent_name.clone(),
            workspace: self.roots().workspace().to_owned(),
            kind: subject.kind.to_owned(),
            scope: subject.scope.to_owned(),
            subject: subject.text.clone(),
            decision: String::new(),
            created: now(),
            session: self.id.to_string(),
        }
    }
}

fn matches_rule(by: Authority) -> Option<usize> {
    match by {
        Authority::Rule(number) => Some(number),
        _ => None,
    }
}

fn tool_call_id(params: Option<&str>) -> Option<String> {
    let call = splice::member(params?, "toolCall")?;
    splice::member(call, "toolCallId")
        .and_then(message::string)
        .map(std::borrow::Cow::into_owned)
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Ask => "ask",
        Decision::Allow => "allow",
        Decision::Deny => "deny",
    }
}

/// A time as the configuration spells it.
pub(super) fn spelled(time: Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.subsec_millis());
    match (seconds, milliseconds) {
        (_, 1..) => format!("{} ms", time.as_millis()),
        (seconds, _) if seconds > 0 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        (seconds, _) if seconds > 0 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        (seconds, _) => format!("{seconds} s"),
    }
}
