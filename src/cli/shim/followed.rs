//! What a client has seen of each session, and how the rest is asked for.

use std::collections::BTreeMap;

use super::edits;
use crate::acp::methods;
use crate::rpc::{message, splice};

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
    /// The client's own prompts, block by block, which a replay would show it.
    echoes: Vec<String>,
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
        if followed.echoes.is_empty() {
            return true;
        }
        !followed.is_echo(value("update").unwrap_or("{}"))
    }

    /// The connection is lost: what is asked for on the next one. `prompts` are
    /// those of the client's that are unanswered: session and params.
    pub(super) fn loads(&mut self, prompts: &[(&str, &str)]) -> Vec<Load> {
        let mut loads = Vec::new();
        // What is on its way for the first time is asked for by the client's own request.
        self.0
            .retain(|_, followed| followed.is_there || followed.loading > 0);
        for (session, followed) in &mut self.0 {
            let theirs = prompts.iter().filter(|(of, _)| of == session);
            followed.echoes = theirs.flat_map(|(_, params)| blocks(params)).collect();
            let after = followed.ask_again();
            if followed.loading > 0 {
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

    /// None of the client's prompts in this session is unanswered.
    pub(super) fn has_no_prompts(&mut self, session: &str) {
        if let Some(followed) = self.0.get_mut(session) {
            followed.echoes = Vec::new();
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

    /// Whether this is a piece of a prompt that the client itself sent. Once per piece.
    fn is_echo(&mut self, update: &str) -> bool {
        let members = splice::members(update).unwrap_or_default();
        let kind = splice::value(&members, "sessionUpdate").and_then(message::string);
        if kind.as_deref() != Some("user_message_chunk") {
            return false;
        }
        let content = splice::value(&members, "content").unwrap_or_default();
        let at = self.echoes.iter().position(|block| block == content);
        at.is_some_and(|at| {
            self.echoes.remove(at);
            true
        })
    }
}

fn blocks(params: &str) -> Vec<String> {
    let prompt = splice::member(params, "prompt").unwrap_or("[]");
    let blocks: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(prompt).unwrap_or_default();
    blocks.iter().map(|block| block.get().to_owned()).collect()
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
        let loads = sessions.loads(&[]);
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
        assert_eq!(after(&sessions.loads(&[])), "9");
        assert!(sessions.update(&update(10, "b")));
    }

    #[test]
    fn the_clients_own_prompt_is_not_shown_to_it_once_per_block() {
        let mut sessions = begun();
        let prompt = r#"{"sessionId":"s","prompt":[{"type":"text","text":"me"}]}"#;
        sessions.loads(&[("s", prompt)]);
        assert!(!sessions.update(&update(5, "me")));
        assert!(
            sessions.update(&update(6, "me")),
            "somebody else said the same"
        );
        assert_eq!(after(&sessions.loads(&[])), "5");
    }

    #[test]
    fn a_replay_that_was_cut_goes_on_where_it_was() {
        let mut sessions = begun();
        sessions.load_begins("s", 0);
        assert!(sessions.update(&update(1, "a")));
        assert!(sessions.update(&update(2, "b")));
        assert!(
            sessions.loads(&[]).is_empty(),
            "the client's own goes again"
        );
        assert_eq!(sessions.after("s").unwrap(), "1");
        assert!(!sessions.update(&update(2, "b")));
        assert!(sessions.update(&update(3, "c")));
        sessions.load_ends("s");
        sessions.has_seen("s", 4);
        assert_eq!(after(&sessions.loads(&[])), "4");
    }
}
