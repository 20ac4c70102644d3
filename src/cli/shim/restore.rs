//! What is said first on a new connection: the sessions are followed from where the
//! client had them, which starts none of them, and its unanswered requests are sent again or answered.

use std::collections::HashMap;
use std::convert::Infallible;

use tokio::io::AsyncRead;

use super::link::{self, Link, NoLink};
use super::relay::Shim;
use super::requests::Again;
use crate::rpc::codec::Frame;
use crate::rpc::message::{ANY_DEPTH, Body, Message, Outcome};
use crate::rpc::{BatchReader, Outbox, splice};

impl Shim {
    /// Takes up everything with a server that knows nothing of this client but its
    /// `initialize`. Nothing of it is lost if the connection is: it is done anew.
    pub(super) async fn take_up(
        &self,
        link: &mut Link,
        is_another: bool,
        client: &Outbox,
    ) -> Result<(), NoLink> {
        let mut waiting = HashMap::new();
        let mut lines = Vec::new();
        for load in self.book().loads() {
            let id = link::own_id(&load.session);
            lines.push(link::request(&id, load.method, &load.params));
            waiting.insert(id, load.session);
        }
        // The server may write more than it reads: both go on at once.
        let Link { reader, outbox, .. } = &mut *link;
        tokio::select! {
            never = send_all(outbox.as_ref(), &lines) => match never {},
            heard = self.hear(reader, waiting, client) => heard?,
        }
        let again = self.book().again(is_another);
        for request in again {
            match request {
                Again::Send { text, cancel } => {
                    link.first.push(text);
                    link.first.extend(cancel);
                }
                Again::Answer(line) => {
                    let _ = client.send(&line).await;
                }
            }
        }
        Ok(())
    }

    /// Passes on what comes until all sessions are there.
    async fn hear<R: AsyncRead + Unpin>(
        &self,
        reader: &mut BatchReader<R>,
        mut waiting: HashMap<String, String>,
        client: &Outbox,
    ) -> Result<(), NoLink> {
        let mut frames = Vec::new();
        while !waiting.is_empty() {
            if !matches!(reader.read(&mut frames).await, Ok(true)) {
                let what = "the server ended the connection before all sessions were back";
                return Err(NoLink::Unusable(what.into()));
            }
            for frame in frames.drain(..) {
                let Frame::Message(line) = frame else {
                    continue;
                };
                if self.loaded(&line, &mut waiting) {
                    continue;
                }
                if self.pass_down(&line, client).await.is_err() {
                    // Noticed by whoever serves the client.
                    return Err(NoLink::Unusable("the client is gone".into()));
                }
            }
        }
        Ok(())
    }

    /// Whether the message answers one of the shim's own requests.
    fn loaded(&self, line: &[u8], waiting: &mut HashMap<String, String>) -> bool {
        let Ok(parsed) = Message::parse(line, ANY_DEPTH) else {
            return false;
        };
        let Body::Response { id, outcome } = parsed.body else {
            return false;
        };
        let Some(session) = waiting.remove(id) else {
            return false;
        };
        match outcome {
            Outcome::Result(result) => self.book().loaded(&session, Some(result)),
            Outcome::Error(error) => {
                // What is sent to it next hears the same.
                let said = splice::member(error, "message").unwrap_or(error);
                tracing::warn!(session, "the session did not come back: {said}");
                self.book().loaded(&session, None);
            }
        }
        true
    }
}

/// Never ends: that the connection is lost, the one who reads it notices.
async fn send_all(outbox: Option<&Outbox>, lines: &[String]) -> Infallible {
    if let Some(outbox) = outbox {
        for line in lines {
            if outbox.send(line).await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}
