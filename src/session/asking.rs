//! What an agent asks of its clients: a question goes to every controller, the
//! first answer counts, and the others are told that nobody waits any more.
//!
//! Where clients come and go, a question outlives those who were asked: it waits
//! for the next controller, until it is answered, withdrawn or denied.

use std::sync::Arc;

use tokio_util::sync::DropGuard;

use super::client::{AgentRequest, Client};
use super::live::Live;
use super::permission::Consent;
use super::replay;
use super::state::{Batch, State};
use crate::acp::failure::REQUEST_CANCELLED;
use crate::acp::methods;
use crate::acp::{Failure, Phase};
use crate::rpc::message::{self, Body, Message};
use crate::rpc::splice::{self, Edits};
use crate::store::Direction;

/// A request of the agent's that waits for a client's answer.
#[derive(Debug)]
pub struct Question {
    /// The agent's own id for it, raw.
    pub id: Box<str>,
    pub method: Box<str>,
    /// The number of its event.
    pub seq: i64,
    /// Whether any controller may answer, also one that is yet to come.
    is_open: bool,
    /// Who is asked, and under which ids of their connections.
    asked: Vec<(Arc<Client>, u64)>,
    pub(super) consent: Consent,
    /// Whether the agent waits no more, and the client is still to say what it did.
    is_withdrawn: bool,
    /// Ends the wait for too late an answer.
    timer: Option<DropGuard>,
}

/// A request of the agent's as it was recorded.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) line: &'a str,
    pub(super) id: &'a str,
    pub(super) method: &'a str,
    pub(super) seq: i64,
}

/// Those who were asked in vain, to be told so.
pub(super) type Withdrawn = Vec<(Arc<Client>, u64)>;

impl Question {
    fn is_asked_of(&self, client: &Arc<Client>) -> bool {
        let mut asked = self.asked.iter();
        asked.any(|(known, _)| Arc::ptr_eq(known, client))
    }

    /// Tells all who are asked that nobody waits for their answers.
    pub(super) fn withdraw(self, batch: &mut Batch) {
        withdraw(batch, self.asked);
    }

    /// What is answered to it from now on is nobody's.
    fn forget(self) {
        for (client, number) in self.asked {
            client.pending().remove(number);
        }
    }
}

/// Whether every controller is asked, and not the first that can do it.
fn is_open(method: &str) -> bool {
    [methods::REQUEST_PERMISSION, methods::ELICITATION_CREATE].contains(&method)
}

impl Live {
    /// Puts a request to the clients: to `only` if it concerns one of them, to all
    /// controllers if any may answer, else to the first that offers it.
    pub(super) fn ask(
        self: &Arc<Self>,
        state: &mut State,
        batch: &mut Batch,
        request: Asked<'_>,
        params: Option<&str>,
        only: Option<Arc<Client>>,
        consent: Consent,
    ) {
        let Asked { id, method, .. } = request;
        let is_for_all = is_open(method) && only.is_none();
        let audience: Vec<Arc<Client>> = match only {
            Some(client) => vec![client],
            None => state.controllers().map(Arc::clone).collect(),
        };
        let audience = match is_for_all {
            true => audience,
            false => {
                // Who can do it comes before who was first.
                let able = audience.iter().find(|client| offers(client, method));
                let one = able.or(audience.first()).cloned();
                if let Some(client) = &one
                    && let Err(failure) = self.check_file(client, method, params)
                {
                    self.refuse_agent(state, batch, id, method, &failure);
                    return;
                }
                one.into_iter().collect()
            }
        };
        if audience.is_empty() && !(is_for_all && self.is_served) {
            let reason = "no client is attached to the session";
            self.fail_closed(state, batch, id, method, reason);
            return;
        }
        let mut asked = Vec::new();
        if state.questions.len() < self.bounds.pending_requests {
            for client in &audience {
                if let Some(number) = self.put(batch, client, request) {
                    asked.push((Arc::clone(client), number));
                }
            }
        }
        if asked.is_empty()
            && (!audience.is_empty() || state.questions.len() >= self.bounds.pending_requests)
        {
            let reason = "too many requests wait for the client's answers";
            self.fail_closed(state, batch, id, method, reason);
            return;
        }
        state.questions.push(Question {
            id: id.into(),
            method: method.into(),
            seq: request.seq,
            is_open: is_for_all,
            asked,
            consent,
            is_withdrawn: false,
            timer: match is_open(method) {
                true => self.wait_for_answer(request.seq),
                false => None,
            },
        });
    }

    /// Sends a request on to one client, under an id of its connection. `None` if
    /// too many wait for it.
    fn put(
        self: &Arc<Self>,
        batch: &mut Batch,
        client: &Arc<Client>,
        request: Asked<'_>,
    ) -> Option<u64> {
        let parsed = Message::parse(request.line.as_bytes(), message::ANY_DEPTH).ok()?;
        let Body::Request { id, .. } = parsed.body else {
            return None;
        };
        let waiting = AgentRequest {
            session: Arc::downgrade(self),
            id: request.id.into(),
            method: request.method.into(),
            seq: request.seq,
        };
        let number = client.pending().insert(waiting).ok()?;
        let mut edits = Edits::of(request.line);
        edits.replace(id, number.to_string());
        batch.send(client, &[&edits.apply()]);
        Some(number)
    }

    /// Asks a controller that has just come what others were asked before.
    pub(super) async fn ask_again(self: &Arc<Self>, client: &Arc<Client>) -> Result<(), Failure> {
        let open: Vec<i64> = {
            let state = self.state();
            if !state.controllers().any(|known| Arc::ptr_eq(known, client)) {
                return Ok(());
            }
            let open = state.questions.iter();
            let open = open.filter(|question| question.is_open && !question.is_asked_of(client));
            open.map(|question| question.seq).collect()
        };
        for seq in open {
            let Some(event) = replay::event(&self.store, &self.id, seq).await? else {
                continue;
            };
            self.transact(|state, batch| {
                let mut questions = state.questions.iter_mut();
                let Some(question) = questions.find(|question| question.seq == seq) else {
                    return;
                };
                if question.is_asked_of(client) || client.gone.is_cancelled() {
                    return;
                }
                let request = Asked {
                    line: &event.raw,
                    id: &question.id,
                    method: &question.method,
                    seq,
                };
                if let Some(number) = self.put(batch, client, request) {
                    question.asked.push((Arc::clone(client), number));
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Asks again what others were asked before, for one that attaches by using the session.
    pub fn ask_again_soon(self: &Arc<Self>, client: &Arc<Client>) {
        let is_due = {
            let state = self.state();
            let mut open = state.questions.iter();
            open.any(|question| question.is_open && !question.is_asked_of(client))
        };
        if !is_due {
            return;
        }
        let (live, client) = (Arc::clone(self), Arc::clone(client));
        tokio::spawn(async move {
            if let Err(failure) = live.ask_again(&client).await {
                tracing::warn!(%failure, "a question could not be asked again");
            }
        });
    }

    /// Relays a client's answer if it is the first. An error is no answer while
    /// others are asked that may give one, and neither is what was not offered,
    /// which the agent never hears: it could take it for a yes.
    pub async fn answer_question(
        self: &Arc<Self>,
        client: &Arc<Client>,
        text: &str,
        id: &str,
        request: &AgentRequest,
        is_error: bool,
    ) {
        let mut others = Vec::new();
        let (consent, flaw) = {
            let mut state = self.state();
            let is_it = |question: &Question| question.seq == request.seq;
            let Some(at) = state.questions.iter().position(is_it) else {
                tracing::debug!(id, "an answer that came too late");
                return;
            };
            let question = &mut state.questions[at];
            question
                .asked
                .retain(|(asked, _)| !Arc::ptr_eq(asked, client));
            let flaw = match is_error {
                true => None,
                false => question.consent.flaw_of(text),
            };
            if let Some(why) = &flaw {
                let from = client.offer().name();
                tracing::warn!(
                    session = &*self.id,
                    client = from,
                    "an answer allows nothing: {why}"
                );
            }
            if (is_error || flaw.is_some()) && !question.asked.is_empty() {
                return;
            }
            others.append(&mut question.asked);
            (state.questions.remove(at).consent, flaw)
        };
        if let Some(why) = flaw {
            let reason = format!("the client's answer allows nothing: {why}");
            self.fail_closed_later(&request.id, &request.method, &reason)
                .await;
            return;
        }
        let mut edits = Edits::of(text);
        edits.replace(id, request.id.to_string());
        let line = edits.apply();
        self.settle(consent, text).await;
        self.answer_agent(&request.method, &line, Direction::Client, is_error)
            .await;
        self.withdraw_soon(others);
    }

    /// Tells clients that nobody waits for their answers, behind what they were shown.
    pub(super) fn withdraw_soon(self: &Arc<Self>, withdrawn: Withdrawn) {
        if withdrawn.is_empty() {
            return;
        }
        let live = Arc::clone(self);
        tokio::spawn(async move {
            let told = live.transact(|_, batch| withdraw(batch, withdrawn));
            if let Err(failure) = told.await {
                tracing::warn!(%failure, "a question could not be withdrawn");
            }
        });
    }

    /// The agent no longer waits for one of its requests: neither need its clients.
    /// What asked for a person's word is over at once, and answered as ACP wants it.
    /// Of anything else the client says what it has done by then, if it does in time.
    pub(super) fn withdraw(
        self: &Arc<Self>,
        state: &mut State,
        batch: &mut Batch,
        params: Option<&str>,
    ) {
        let Some(theirs) = params.and_then(|params| splice::member(params, "requestId")) else {
            return;
        };
        let mut questions = state.questions.iter();
        let is_it = |question: &Question| !question.is_withdrawn && &*question.id == theirs;
        let Some(at) = questions.position(is_it) else {
            return;
        };
        let line = message::notification(
            methods::CANCEL_REQUEST,
            &format!("{{\"requestId\":{theirs}}}"),
        );
        let kind = methods::CANCEL_REQUEST.into();
        state.record(batch, Direction::Agent, kind, line);
        let question = &mut state.questions[at];
        let seq = question.seq;
        if is_open(&question.method) || question.asked.is_empty() {
            self.end_withdrawn(state, batch, seq);
            return;
        }
        question.is_withdrawn = true;
        question.timer = Some(self.wait_for_withdrawn(seq));
        for (client, number) in &question.asked {
            batch.send(client, &[&cancel_request(*number)]);
        }
    }

    /// Answers a question that the agent has withdrawn, if nobody has meanwhile.
    pub(super) fn end_withdrawn(&self, state: &mut State, batch: &mut Batch, seq: i64) {
        let mut questions = state.questions.iter();
        let Some(at) = questions.position(|question| question.seq == seq) else {
            return;
        };
        let question = state.questions.remove(at);
        let what = "Request cancelled: the agent withdrew it";
        let failure = Failure::new(Phase::Request, REQUEST_CANCELLED, what);
        self.refuse_agent(state, batch, &question.id, &question.method, &failure);
        match question.is_withdrawn {
            // They were told when it was.
            true => question.forget(),
            false => question.withdraw(batch),
        }
    }

    /// Answers a question for its clients, never with consent, and lets them know.
    /// Does nothing if it does not wait any more.
    pub(super) fn deny(&self, state: &mut State, batch: &mut Batch, seq: i64, reason: &str) {
        let mut questions = state.questions.iter();
        let Some(at) = questions.position(|question| question.seq == seq) else {
            return;
        };
        let question = state.questions.remove(at);
        self.fail_closed(state, batch, &question.id, &question.method, reason);
        question.withdraw(batch);
    }

    /// A turn is cancelled: what was asked for it is not granted any more, whatever
    /// is answered later. Returns who else than `canceller` was asked.
    pub(super) fn deny_all(
        &self,
        state: &mut State,
        batch: &mut Batch,
        canceller: &Arc<Client>,
    ) -> Withdrawn {
        let is_permission =
            |question: &mut Question| &*question.method == methods::REQUEST_PERMISSION;
        let denied: Vec<Question> = state.questions.extract_if(.., is_permission).collect();
        let mut withdrawn = Vec::new();
        for question in denied {
            let reason = "the turn was cancelled";
            self.fail_closed(state, batch, &question.id, &question.method, reason);
            for (client, number) in question.asked {
                match Arc::ptr_eq(&client, canceller) {
                    true => drop(client.pending().remove(number)),
                    false => withdrawn.push((client, number)),
                }
            }
        }
        withdrawn
    }

    /// A client answers no more: what only it was asked waits for the next one
    /// where such may come, and else fails closed.
    pub async fn stop_asking(self: &Arc<Self>, client: &Arc<Client>, reason: &str) {
        let unasked: Vec<Question> = {
            let mut state = self.state();
            let is_served = self.is_served;
            let given_up = state.questions.extract_if(.., |question| {
                let before = question.asked.len();
                question.asked.retain(|(asked, number)| {
                    let is_theirs = Arc::ptr_eq(asked, client);
                    if is_theirs {
                        client.pending().remove(*number);
                    }
                    !is_theirs
                });
                let is_left = before > 0 && question.asked.is_empty();
                is_left && !(question.is_open && is_served)
            });
            given_up.collect()
        };
        self.readers.notify_waiters();
        for question in unasked {
            self.fail_closed_later(&question.id, &question.method, reason)
                .await;
        }
    }

    /// [`Live::fail_closed`] that waits for no agent.
    async fn fail_closed_later(self: &Arc<Self>, id: &str, method: &str, reason: &str) {
        let denials = self.note(|state, batch| {
            self.fail_closed(state, batch, id, method, reason);
            std::mem::take(&mut batch.answers)
        });
        for line in denials.await {
            self.answer_later(line);
        }
    }
}

fn withdraw(batch: &mut Batch, asked: Withdrawn) {
    for (client, number) in asked {
        if client.pending().remove(number).is_some() {
            batch.send(&client, &[&cancel_request(number)]);
        }
    }
}

fn cancel_request(number: u64) -> String {
    message::notification(
        methods::CANCEL_REQUEST,
        &format!("{{\"requestId\":{number}}}"),
    )
}

fn offers(client: &Client, method: &str) -> bool {
    let offer = client.offer();
    match method {
        methods::FS_READ => offer.read_text_file,
        methods::FS_WRITE => offer.write_text_file,
        _ => true,
    }
}
