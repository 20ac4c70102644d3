//! What a client has seen of each session, and how the rest is asked for.

use std::collections::{BTreeMap, VecDeque};

use super::book::KEY;
use super::edits;
use crate::acp::methods;
use crate::rpc::{message, splice};

/// Own prompts of a session that are remembered at most.
const OWN: usize = 1024;

/// The sessions that a client follows.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<String, Followed>);

#[derive(Debug, Default)]
struct Followed {
    /// The number of the last event that the client saw.
    seen: i64,
    /// How many updates with that number it saw.
    count: usize,
    /// The params of `session/load`, where the client said how to bring it back.
    load: Option<String>,
    /// Whether the server lets the client follow: it was sent something, or answered.
    is_there: bool,
    /// `session/load`s of the client's own on their way: they begin anew.
    loading: usize,
    /// Updates with the number `seen` that come again.
    skip: usize,
    /// Keys of the client's own prompts that it may lack, which a replay would show
    /// it: the oldest first.
    own: VecDeque<String>,
}

/// Asks for a session on a new connection, which starts nothing.
pub(super) struct Load {
    pub(super) session: String,
    /// `session/load`, or `session/resume` where it is not known what was seen.
    pub(super) method: &'static str,
    pub(super) params: String,
}

impl Sessions {
    /// The client asks for a session's updates with a higher number.
    pub(super) fn load_begins(&mut self, session: &str, after: i64) {
        let followed = self.0.entry(session.to_owned()).or_default();
        followed.loading += 1;
        (followed.seen, followed.count) = (after, 0);
        followed.skip = 0;
    }

    pub(super) fn load_ends(&mut self, session: &str) {
        if let Some(followed) = self.0.get_mut(session) {
            followed.loading = followed.loading.saturating_sub(1);
            if followed.loading == 0 && !followed.is_there {
                self.0.remove(session);
            }
        }
    }

    /// The session is there; `begun_with` is of the request that says how to load it.
    pub(super) fn is_there(&mut self, session: &str, begun_with: Option<&str>) {
        let followed = self.0.entry(session.to_owned()).or_default();
        followed.is_there = true;
        if let Some(params) = begun_with {
            followed.load = Some(edits::load_params(params, session));
        }
    }

    pub(super) fn is_gone(&mut self, session: &str) {
        self.0.remove(session);
    }

    /// The client has all up to this event.
    pub(super) fn has_seen(&mut self, session: &str, last_seq: i64) {
        if let Some(followed) = self.0.get_mut(session)
            && last_seq > followed.seen
        {
            (followed.seen, followed.count) = (last_seq, 0);
        }
    }

    /// An update has come. `false` if the client saw it before.
    pub(super) fn update(&mut self, params: &str) -> bool {
        let members = splice::members(params).unwrap_or_default();
        let value = |key| splice::value(&members, key);
        let session = value("sessionId").and_then(message::string);
        let seq = value("_meta")
            .and_then(|meta| splice::member(meta, "acpbox"))
            .and_then(|ours| splice::member(ours, "seq"))
            .and_then(|seq| seq.parse::<i64>().ok());
        let (Some(session), Some(seq)) = (session, seq) else {
            return true;
        };
        if !self.0.contains_key(&*session) {
            self.0
                .insert(session.clone().into_owned(), Followed::default());
        }
        let Some(followed) = self.0.get_mut(&*session) else {
            return true;
        };
        // While it is loaded the request may still fail.
        followed.is_there |= followed.loading == 0;
        if seq == followed.seen && followed.skip > 0 {
            followed.skip -= 1;
            return false;
        }
        if seq == followed.seen {
            followed.count += 1;
        } else if seq > followed.seen || followed.loading > 0 {
            (followed.seen, followed.count) = (seq, 1);
        }
        // What the client itself loads has all.
        let key = value("_meta")
            .and_then(key_of)
            .filter(|_| followed.loading == 0);
        key.is_none_or(|key| !followed.own.contains(&key))
    }

    /// The connection is lost: what is asked for on the next one.
    pub(super) fn loads(&mut self) -> Vec<Load> {
        let mut loads = Vec::new();
        // What is on its way for the first time is asked for by the client's own request.
        self.0.retain(|_, followed| {
            followed.is_there || followed.loading > 0 || !followed.own.is_empty()
        });
        for (session, followed) in &mut self.0 {
            let after = followed.ask_again();
            if followed.loading > 0 || !followed.is_there {
                continue;
            }
            let load = match &followed.load {
                Some(load) => load.clone(),
                // As it is stored.
                None => edits::load_params("{}", session),
            };
            // All of a transcript is more than a client asked for that loaded none of it.
            let method = match followed.load.is_none() && followed.seen == 0 {
                true => methods::SESSION_RESUME,
                false => methods::SESSION_LOAD,
            };
            let params = edits::with_option(&load, "after", &after);
            let params = params.and_then(|params| edits::with_option(&params, "start", "false"));
            match params {
                Some(params) => loads.push(Load {
                    session: session.clone(),
                    method,
                    params,
                }),
                None => tracing::warn!(session, "the session cannot be followed again"),
            }
        }
        loads
    }

    /// From where on the client's own `session/load` is to go on, as a raw number.
    pub(super) fn after(&self, session: &str) -> Option<String> {
        let followed = self.0.get(session)?;
        Some(followed.after().to_string())
    }

    /// All that was missing has come.
    pub(super) fn is_complete(&mut self, session: &str) {
        if let Some(followed) = self.0.get_mut(session) {
            followed.skip = 0;
        }
    }

    /// The client sends a prompt, which has a key.
    pub(super) fn prompts(&mut self, session: &str, params: &str) {
        let Some(key) = splice::member(params, "_meta").and_then(key_of) else {
            return;
        };
        let followed = self.0.entry(session.to_owned()).or_default();
        if followed.own.len() >= OWN {
            followed.own.pop_front();
        }
        followed.own.push_back(key);
    }

    /// A prompt was answered. `has_result` if all up to that is known to have been seen,
    /// and so the prompts before it.
    pub(super) fn answered(&mut self, session: &str, params: &str, has_result: bool) {
        let key = splice::member(params, "_meta").and_then(key_of);
        let Some(followed) = self.0.get_mut(session) else {
            return;
        };
        let at = followed
            .own
            .iter()
            .position(|own| Some(own) == key.as_ref());
        if has_result && let Some(at) = at {
            followed.own.drain(..=at);
        }
        if !has_result && !followed.is_there && followed.loading == 0 {
            // There may be no such session.
            self.0.remove(session);
        }
    }
}

impl Followed {
    fn after(&self) -> i64 {
        // One event may be shown as several updates, and some of them be missing.
        match self.count {
            0 => self.seen,
            _ => self.seen - 1,
        }
    }

    fn ask_again(&mut self) -> String {
        self.skip = self.count;
        self.after().to_string()
    }
}

/// The key of a prompt, or of what is shown of one, from its `_meta`.
fn key_of(meta: &str) -> Option<String> {
    let ours = splice::member(meta, "acpbox")?;
    let key = splice::member(ours, "key").or_else(|| splice::member(ours, KEY))?;
    message::string(key).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(seq: i64, text: &str) -> String {
        format!(
            r#"{{"_meta":{{"acpbox":{{"seq":{seq}}}}},"sessionId":"s","update":{{"sessionUpdate":"user_message_chunk","content":{{"type":"text","text":"{text}"}}}}}}"#
        )
    }

    fn begun() -> Sessions {
        let mut sessions = Sessions::default();
        sessions.is_there("s", Some(r#"{"cwd":"/w"}"#));
        sessions.has_seen("s", 4);
        sessions
    }

    fn after(loads: &[Load]) -> &str {
        edits::option(&loads[0].params, "after").unwrap()
    }

    #[test]
    fn what_was_seen_of_an_event_is_not_shown_again_and_the_rest_of_it_is() {
        let mut sessions = begun();
        assert!(sessions.update(&update(7, "a")));
        assert!(sessions.update(&update(7, "b")));
        let loads = sessions.loads();
        assert_eq!(after(&loads), "6");
        let shown = ["a", "b", "c"].map(|text| sessions.update(&update(7, text)));
        assert_eq!(shown, [false, false, true]);
        assert!(sessions.update(&update(8, "d")));
    }

    #[test]
    fn a_result_says_that_all_before_it_was_seen() {
        let mut sessions = begun();
        assert!(sessions.update(&update(7, "a")));
        sessions.has_seen("s", 9);
        assert_eq!(after(&sessions.loads()), "9");
        assert!(sessions.update(&update(10, "b")));
    }

    #[test]
    fn the_clients_own_prompt_is_not_shown_to_it_also_if_it_failed() {
        let mut sessions = begun();
        let prompt =
            |key: &str| format!(r#"{{"_meta":{{"acpbox":{{"idempotencyKey":"{key}"}}}}}}"#);
        let shown = |seq: i64, key: &str| {
            update(seq, "me").replace(r#"{"seq""#, &format!(r#"{{"key":"{key}","seq""#))
        };
        sessions.prompts("s", &prompt("a"));
        sessions.prompts("s", &prompt("b"));
        sessions.answered("s", &prompt("a"), false);
        sessions.loads();
        assert!(!sessions.update(&shown(5, "a")));
        assert!(sessions.update(&shown(6, "of another")));
        assert!(sessions.update(&update(7, "me")), "somebody said the same");
        assert!(!sessions.update(&shown(8, "b")));
        assert_eq!(after(&sessions.loads()), "7");
        sessions.load_begins("s", 0);
        assert!(sessions.update(&shown(5, "a")), "it asked for all");
        sessions.load_ends("s");
        sessions.answered("s", &prompt("b"), true);
        assert!(sessions.update(&shown(5, "a")), "it is past");
        sessions.prompts("nothing", &prompt("c"));
        sessions.answered("nothing", &prompt("c"), false);
        assert_eq!(sessions.0.len(), 1);
    }

    #[test]
    fn a_replay_that_was_cut_goes_on_where_it_was() {
        let mut sessions = begun();
        sessions.load_begins("s", 0);
        assert!(sessions.update(&update(1, "a")));
        assert!(sessions.update(&update(2, "b")));
        assert!(sessions.loads().is_empty(), "the client's own goes again");
        assert_eq!(sessions.after("s").unwrap(), "1");
        assert!(!sessions.update(&update(2, "b")));
        assert!(sessions.update(&update(3, "c")));
        sessions.load_ends("s");
        sessions.has_seen("s", 4);
        assert_eq!(after(&sessions.loads()), "4");
    }
}
