//! What is said first on a new connection: the sessions are loaded from where the
//! client had them, and its unanswered requests are sent again or answered.

use std::collections::HashMap;

use super::link::{self, Link, NoLink};
use super::relay::Shim;
use super::requests::Again;
use crate::acp::methods;
use crate::rpc::codec::Frame;
use crate::rpc::message::{ANY_DEPTH, Body, Message, Outcome};
use crate::rpc::{Outbox, splice};

impl Shim {
    /// Takes up everything with a server that knows nothing of this client but its
    /// `initialize`. Nothing of it is lost if the connection is: it is done anew.
    pub(super) async fn take_up(
        &self,
        link: &mut Link,
        is_another: bool,
        client: &Outbox,
    ) -> Result<(), NoLink> {
        let unusable = NoLink::Unusable;
        let loads = self.book().loads();
        let mut waiting = HashMap::new();
        for load in loads {
            let id = link::own_id(&load.session);
            let line = link::request(&id, methods::SESSION_LOAD, &load.params);
            link.send(&line).await.map_err(unusable)?;
            waiting.insert(id, load.session);
        }
        let mut frames = Vec::new();
        while !waiting.is_empty() {
            if !matches!(link.reader.read(&mut frames).await, Ok(true)) {
                return Err(unusable("the server ended the connection".into()));
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
                    return Err(unusable("the client is gone".into()));
                }
            }
        }
        let again = self.book().again(is_another);
        for request in again {
            match request {
                Again::Send { text, cancel } => {
                    link.send(&text).await.map_err(unusable)?;
                    if let Some(cancel) = cancel {
                        link.send(&cancel).await.map_err(unusable)?;
                    }
                }
                Again::Answer(line) => {
                    let _ = client.send(&line).await;
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
