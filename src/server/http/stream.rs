//! One event stream's body: what is queued for it, what it missed from the
//! database, and a sign of life where there is nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::Site;
use super::outgoing::{Next, Position, Receiver};
use super::remote::{Remote, update_seq};
use crate::session::replay::Backlog;

/// A comment: nothing to a reader, but a sign of life (HTML, server-sent events).
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// A stream that is being sent.
struct Stream {
    site: Arc<Site>,
    remote: Arc<Remote>,
    receiver: Receiver,
    /// Whose it is; empty for the connection's own.
    session: String,
    /// What is being read from the database, and up to where.
    backlog: Option<(Backlog, i64)>,
    /// What was read, in order; the last of each number has it.
    lines: VecDeque<(Option<i64>, String)>,
}

/// The response that sends all that the receiver gets.
pub fn response(
    site: Arc<Site>,
    remote: Arc<Remote>,
    receiver: Receiver,
    session: String,
) -> Response {
    let stream = Stream {
        site,
        remote,
        receiver,
        session,
        backlog: None,
        lines: VecDeque::new(),
    };
    // A first byte, so that no one on the way holds back the headers.
    let beginning = futures::stream::once(async { Ok::<_, Infallible>(COMMENT) });
    let events = futures::stream::unfold(stream, async |mut stream| {
        let bytes = stream.next().await?;
        Some((Ok(bytes), stream))
    });
    let body = Body::from_stream(futures::StreamExt::chain(beginning, events));
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, body).into_response()
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        self.remote.touch();
        loop {
            if let Some((seq, line)) = self.lines.pop_front() {
                let id = match seq {
                    Some(seq) if self.receiver.sent(seq) => Some(Position { seq, others: 0 }),
                    Some(_) => return None,
                    None => None,
                };
                return Some(event(id, &line));
            }
            if let Some((backlog, last)) = &mut self.backlog {
                match backlog.next().await {
                    Ok(Some(page)) => self.lines = lines(&page),
                    Ok(None) => {
                        self.receiver.read(*last);
                        self.backlog = None;
                    }
                    Err(error) => {
                        tracing::error!(session = self.session, %error, "a stream cannot go on");
                        return None;
                    }
                }
                continue;
            }
            let keepalive = self.site.settings.keepalive;
            match tokio::time::timeout(keepalive, self.receiver.next()).await {
                Ok(Some(Next::Message(position, text))) => {
                    return Some(event(Some(position), &text));
                }
                Ok(Some(Next::Stored { after, last })) => {
                    let store = self.site.server.host.store.clone();
                    self.backlog = Some((Backlog::new(store, &self.session, after, last), last));
                }
                Ok(None) => return None,
                Err(_elapsed) => return Some(COMMENT),
            }
        }
    }
}

/// A page's messages. Where several have one number, a client that has not seen all
/// of them must not say that it has seen the number.
fn lines(page: &[u8]) -> VecDeque<(Option<i64>, String)> {
    let mut lines: VecDeque<(Option<i64>, String)> = VecDeque::new();
    let mut later = None;
    for line in page.split(|byte| *byte == b'\n').rev() {
        if line.is_empty() {
            continue;
        }
        let line = String::from_utf8_lossy(line).into_owned();
        let seq = update_seq(&line);
        let id = seq.filter(|_| seq != later);
        later = seq.or(later);
        lines.push_front((id, line));
    }
    lines
}

fn event(id: Option<Position>, text: &str) -> Bytes {
    let mut event = String::with_capacity(text.len() + 40);
    if let Some(id) = id {
        event += &format!("id: {id}\n");
    }
    event += "data: ";
    // A carriage return is a line end in an event stream and white space in JSON.
    if text.contains('\r') {
        event += &text.replace('\r', " ");
    } else {
        event += text;
    }
    event += "\n\n";
    event.into()
}
