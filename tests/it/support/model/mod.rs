//! A fake model server: it has no model, and does as the prompt says.
//!
//! It answers OpenAI chat/completions and Responses, Anthropic Messages and
//! Gemini, streaming or not, on a port of 127.0.0.1, and obeys directives in the
//! last user message, one tool call per step:
//!
//! ```text
//! [[write:/abs/path|content]] [[edit:/abs/path|old|new]] [[read:/abs/path]]
//! [[shell:command]] [[raw:toolname|{json}]]
//! [[slow:N]] (N chunks, 100 ms apart) [[think:text]] [[say:text]] [[err:503]]
//! ```
//!
//! After as many tool results as there are steps it says `DONE with <n> tool
//! results. Hello from the fake model.`, or the text of `[[say:…]]`.

mod http;
mod plan;
mod call;
mod chat;
mod responses;
mod anthropic;
mod gemini;
#[cfg(test)]
mod tests;

use std::io::{self, BufReader};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use http::Reply;
use plan::{Aside, Plan};

/// Requests kept; later ones are answered but not kept.
const REQUEST_LIMIT: usize = 10_000;
/// Connections at once; more are closed at once.
const CONNECTION_LIMIT: usize = 64;

/// A running server. Dropping it closes its connections and frees the port.
pub struct Model {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// `null` when there was none; a string when it was no JSON.
    pub body: Value,
}

impl Model {
    /// Starts a server on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound listener").port();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        Self {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A last connection wakes the acceptor.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        for stream in lock(&self.shared.streams).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    stopping: AtomicBool,
    last_id: AtomicU64,
}

impl Shared {
    /// A number that no other id of this server has.
    fn id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if shared.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTION_LIMIT {
            shared.connections.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        if let Ok(copy) = stream.try_clone() {
            lock(&shared.streams).push(copy);
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // An agent that was killed breaks its connection off.
            let _ = serve(&stream, &shared);
            let gone = stream.peer_addr().ok();
            lock(&shared.streams).retain(|other| other.peer_addr().ok() != gone);
            shared.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    while let Some(request) = http::read_request(&mut input)? {
        {
            let mut requests = lock(&shared.requests);
            if requests.len() < REQUEST_LIMIT {
                requests.push(request.clone());
            }
        }
        answer(&request, Reply::new(stream), shared)?;
    }
    Ok(())
}

fn answer(request: &Request, reply: Reply<'_>, shared: &Shared) -> io::Result<()> {
    let path = request.path.split('?').next().unwrap_or_default();
    let body = &request.body;
    match request.method.as_str() {
        "HEAD" => reply.empty(),
        "GET" if path.ends_with("/models") => reply.json(200, &models()),
        "POST" if path.ends_with("/chat/completions") => chat::answer(body, reply, shared),
        "POST" if path.ends_with("/responses") => responses::answer(body, reply, shared),
        "POST" if path.ends_with("/messages/count_tokens") => {
            reply.json(200, &json!({"input_tokens": 10}))
        }
        "POST" if path.ends_with("/messages") => anthropic::answer(body, reply, shared),
        "POST" if path.contains(":countTokens") => reply.json(200, &json!({"totalTokens": 10})),
        "POST" if path.contains("enerateContent") => {
            gemini::answer(body, path.contains("stream"), reply, shared)
        }
        _ => {
            let message = format!("fake: not found {}", request.path);
            let error = json!({"error": {"message": message, "type": "not_found_error"}});
            reply.json(404, &error)
        }
    }
}

/// Streams what precedes the answer: slow text and thoughts.
fn asides(plan: &Plan, mut emit: impl FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
    for aside in &plan.asides {
        match aside {
            Aside::Slow(chunks) => {
                for chunk in 0..*chunks {
                    emit(Piece::Text(&format!("chunk{chunk} ")))?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            Aside::Think(text) => emit(Piece::Thought(text))?,
        }
    }
    Ok(())
}

enum Piece<'a> {
    Text(&'a str),
    Thought(&'a str),
}

/// The models of every API, in one answer that each understands.
fn models() -> Value {
    let ids = [
        "fake-model",
        "fake-model-2",
        "gpt-5",
        "gpt-5-codex",
        "claude-sonnet-4-5",
    ];
    let data = ids.map(|id| {
        json!({
            "id": id, "object": "model", "created": 1, "owned_by": "fake", "type": "model",
            "display_name": id, "created_at": "2026-01-01T00:00:00Z",
            "context_length": 131_072, "max_model_len": 131_072,
        })
    });
    let models = ids.map(|id| json!({"name": format!("models/{id}"), "id": id, "slug": id}));
    json!({"object": "list", "data": data, "models": models, "has_more": false})
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
