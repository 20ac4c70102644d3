//! A connected client, as sessions see it: a way to send, what it offered, and
//! the agents' requests that wait for its answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use agent_client_protocol_schema::v1::ClientCapabilities;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use crate::acp::Failure;
use crate::acp::extension::{ClientOptions, SessionOptions};
use crate::rpc::{Outbox, Pending, message, splice};

/// Requests that may wait for one client's answers at once.
const PENDING_REQUESTS: usize = 1024;

/// The longest name under which others see a client's prompts.
const NAME_CHARACTERS: usize = 100;

#[derive(Debug)]
pub struct Client {
    pub outbox: Outbox,
    /// Ends when the client is gone or told to go.
    pub gone: CancellationToken,
    /// Ends its connection: it cannot be served any more.
    pub unfit: CancellationToken,
    /// Sessions in which it lags behind.
    lagging: AtomicUsize,
    /// Lags that it has had.
    lags: AtomicU64,
    /// Held by whoever sends it a session's transcript, by the session's id.
    turnstiles: Mutex<HashMap<Arc<str>, Arc<tokio::sync::Mutex<()>>>>,
    offer: Mutex<Arc<Offer>>,
    pending: Mutex<Pending<AgentRequest>>,
    /// An agent that runs without a session: it asked for authentication.
    parked: Mutex<Option<Parked>>,
}

#[derive(Debug)]
struct Parked {
    live: Arc<Live>,
    /// What it was started with: it serves no session that asks for something else.
    options: SessionOptions,
}

/// What a client said of itself in `initialize`.
#[derive(Debug, Default)]
pub struct Offer {
    pub initialized: bool,
    /// `clientCapabilities` as it came, an object.
    pub capabilities: String,
    /// `clientInfo` as it came.
    pub info: Option<String>,
    pub read_text_file: bool,
    pub write_text_file: bool,
    pub terminal: bool,
    pub options: ClientOptions,
}

/// An agent's request that a client is to answer.
#[derive(Debug)]
pub struct AgentRequest {
    pub session: Weak<Live>,
    /// The agent's own id for it, raw.
    pub id: Box<str>,
    pub method: Box<str>,
    /// The number of its event.
    pub seq: i64,
}

impl Client {
    pub fn new(outbox: Outbox) -> Arc<Client> {
        Arc::new(Client {
            outbox,
            gone: CancellationToken::new(),
            unfit: CancellationToken::new(),
            lagging: AtomicUsize::new(0),
            lags: AtomicU64::new(0),
            turnstiles: Mutex::default(),
            offer: Mutex::default(),
            pending: Mutex::new(Pending::new(PENDING_REQUESTS)),
            parked: Mutex::default(),
        })
    }

    /// Ends its connection, since what it lacks of a session cannot be read.
    pub(super) fn let_go(&self, failure: &Failure) {
        tracing::warn!(%failure, "a client is let go: what it lacks cannot be read");
        self.unfit.cancel();
    }

    /// Whether it lags behind in some session, and so has not got all its answers.
    pub fn is_lagging(&self) -> bool {
        self.lagging.load(Ordering::Relaxed) > 0
    }

    pub(super) fn begin_to_lag(&self) {
        self.lagging.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_to_lag(&self) {
        self.lagging.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn next_lag(&self) -> u64 {
        self.lags.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is held by whoever sends it this session's transcript.
    pub(super) fn turnstile(&self, session: &Arc<str>) -> Arc<tokio::sync::Mutex<()>> {
        let turnstiles = self.turnstiles.lock();
        let mut turnstiles = turnstiles.unwrap_or_else(PoisonError::into_inner);
        turnstiles.retain(|_, turnstile| Arc::strong_count(turnstile) > 1);
        let known = turnstiles.entry(Arc::clone(session)).or_default();
        Arc::clone(known)
    }

    /// Whether it is still there and wants what it follows to be awake.
    pub fn keeps_awake(&self) -> bool {
        !self.gone.is_cancelled() && !self.offer().options.lets_sleep
    }

    pub fn offer(&self) -> Arc<Offer> {
        Arc::clone(&self.offer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_offer(&self, offer: Offer) {
        *self.offer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(offer);
    }

    /// Keeps an agent that needs authentication for the next `session/new` with
    /// the same options. Returns the one that was kept before, to be closed.
    #[must_use]
    pub fn park(&self, live: Arc<Live>, options: SessionOptions) -> Option<Arc<Live>> {
        let before = self.lock_parked().replace(Parked { live, options });
        before.map(|parked| parked.live)
    }

    /// The parked agent, if there is one and it still runs.
    pub fn parked(&self) -> Option<Arc<Live>> {
        let parked = self.lock_parked();
        let live = parked.as_ref().map(|parked| Arc::clone(&parked.live));
        live.filter(|live| !live.is_over())
    }

    /// Takes the parked agent if it is of that name, in that VM, and was started
    /// with the same environment and instructions.
    pub fn unpark(&self, agent: &str, vm: &str, options: &SessionOptions) -> Option<Arc<Live>> {
        let is_such = |parked: &Parked| {
            parked.live.agent_name == agent
                && parked.live.vm_name == vm
                && parked.options.env == options.env
                && parked.options.additional_instructions == options.additional_instructions
                && parked.options.skip_os_instructions == options.skip_os_instructions
        };
        let taken = self
            .lock_parked()
            .take_if(|parked| parked.live.is_over() || is_such(parked));
        let live = taken.map(|parked| parked.live);
        live.filter(|live| !live.is_over())
    }

    fn lock_parked(&self) -> MutexGuard<'_, Option<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The requests that wait for this client.
    pub fn pending(&self) -> MutexGuard<'_, Pending<AgentRequest>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offer {
    /// What the client calls itself.
    pub fn name(&self) -> Option<String> {
        let info = self.info.as_deref()?;
        let words = |key| splice::member(info, key).and_then(message::string);
        let name = words("title").or_else(|| words("name"))?;
        let name: String = name.chars().take(NAME_CHARACTERS).collect();
        (!name.is_empty()).then_some(name)
    }

    /// Reads `initialize`'s `clientCapabilities` and `clientInfo`, raw.
    pub fn parse(capabilities: Option<&str>, info: Option<&str>) -> Offer {
        let raw = capabilities
            .filter(|raw| raw.starts_with('{'))
            .unwrap_or("{}");
        let typed: ClientCapabilities = serde_json::from_str(raw).unwrap_or_default();
        let options = typed.meta.as_ref().and_then(|meta| meta.get("acpbox"));
        let options = options.and_then(|ours| serde_json::from_value(ours.clone()).ok());
        Offer {
            initialized: true,
            capabilities: raw.to_owned(),
            info: info.filter(|raw| raw.starts_with('{')).map(str::to_owned),
            read_text_file: typed.fs.read_text_file,
            write_text_file: typed.fs.write_text_file,
            terminal: typed.terminal,
            options: options.unwrap_or_default(),
        }
    }
}
