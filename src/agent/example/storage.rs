//! Sessions on disk: one small JSON file each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent_client_protocol_schema::v1::SessionUpdate;
use serde::{Deserialize, Serialize};

/// Updates kept of a session; older ones are dropped first.
const HISTORY_LIMIT: usize = 1000;

/// Everything of a session that outlives the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) session_id: String,
    pub(super) cwd: PathBuf,
    pub(super) title: Option<String>,
    /// RFC 3339.
    pub(super) updated_at: String,
    pub(super) mode: String,
    pub(super) model: String,
    pub(super) thought_level: String,
    /// Tool calls so far; the next one's id continues here.
    pub(super) calls: u64,
    pub(super) history: Vec<SessionUpdate>,
}

impl Record {
    /// Appends an update as a replay should show it: chunks of one message
    /// joined, a tool call with the last of its updates, a turn's last plan.
    pub(super) fn remember(&mut self, update: SessionUpdate) {
        use SessionUpdate::{AgentMessageChunk, AgentThoughtChunk, ToolCall, ToolCallUpdate};
        match (self.history.last_mut(), update) {
            (Some(AgentMessageChunk(last)), AgentMessageChunk(next))
            | (Some(AgentThoughtChunk(last)), AgentThoughtChunk(next)) => {
                use agent_client_protocol_schema::v1::ContentBlock::Text;
                if let (Text(last), Text(next)) = (&mut last.content, next.content) {
                    last.text.push_str(&next.text);
                }
            }
            (_, ToolCallUpdate(next)) => {
                let call = self.history.iter_mut().rev().find_map(|past| match past {
                    ToolCall(call) if call.tool_call_id == next.tool_call_id => Some(call),
                    _ => None,
                });
                if let Some(call) = call {
                    call.update(next.fields);
                }
            }
            (_, SessionUpdate::Plan(next)) => {
                let mut turn = self
                    .history
                    .iter_mut()
                    .rev()
                    .take_while(|past| !matches!(past, SessionUpdate::UserMessageChunk(_)));
                match turn.find(|past| matches!(past, SessionUpdate::Plan(_))) {
                    Some(past) => *past = SessionUpdate::Plan(next),
                    None => self.history.push(SessionUpdate::Plan(next)),
                }
            }
            (_, update) => self.history.push(update),
        }
        if self.history.len() > HISTORY_LIMIT {
            self.history.remove(0);
        }
    }
}

/// The folder of session files. Without a home nothing is kept.
pub(super) struct Storage {
    folder: Option<PathBuf>,
}

impl Storage {
    pub(super) fn new(home: Option<&Path>) -> Self {
        Self {
            folder: home.map(|home| home.join(".local/state/acpbox-example")),
        }
    }

    /// Replaces a session's file.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        let Some(path) = self.path(&record.session_id) else {
            return Ok(());
        };
        let folder = path.parent().expect("the path is inside the folder");
        fs::create_dir_all(folder)?;
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(record)?)?;
        fs::rename(new, path)
    }

    /// Reads a session's file; `None` when there is none.
    pub(super) fn load(&self, session_id: &str) -> io::Result<Option<Record>> {
        let Some(path) = self.path(session_id) else {
            return Ok(None);
        };
        match fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All sessions, the latest first. Unreadable files are left out.
    pub(super) fn list(&self) -> Vec<Record> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let mut records: Vec<Record> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|it| it == "json"))
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect();
        records.sort_by(|one, other| other.updated_at.cmp(&one.updated_at));
        records
    }

    /// Removes a session's file; `false` when there was none.
    pub(super) fn delete(&self, session_id: &str) -> io::Result<bool> {
        match self.path(session_id).map(fs::remove_file) {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Some(Err(error)) => Err(error),
        }
    }

    /// A session id comes from the client, so only our own form of it names a file.
    fn path(&self, session_id: &str) -> Option<PathBuf> {
        let id = uuid::Uuid::parse_str(session_id).ok()?;
        Some(self.folder.as_ref()?.join(format!("{id}.json")))
    }
}

#[cfg(test)]
mod tests {
    use agent_client_protocol_schema::v1::{
        ContentChunk, ToolCall, ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields,
    };

    use super::*;

    fn record(session_id: &str) -> Record {
        Record {
            session_id: session_id.to_owned(),
            cwd: "/w".into(),
            title: None,
            updated_at: "2026-01-01T00:00:00Z".to_owned(),
            mode: "ask".to_owned(),
            model: "small".to_owned(),
            thought_level: "off".to_owned(),
            calls: 0,
            history: Vec::new(),
        }
    }

    #[test]
    fn a_replay_joins_chunks_and_shows_a_tool_call_once() {
        let mut record = record("x");
        let chunk = |text: &str| {
            SessionUpdate::AgentMessageChunk(ContentChunk::new(text.to_owned().into()))
        };
        record.remember(chunk("one "));
        record.remember(chunk("two"));
        record.remember(SessionUpdate::ToolCall(ToolCall::new("c", "Read")));
        record.remember(chunk("three"));
        let fields = ToolCallUpdateFields::new().status(ToolCallStatus::Completed);
        record.remember(SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(
            "c", fields,
        )));
        assert_eq!(
            record.history,
            [
                chunk("one two"),
                SessionUpdate::ToolCall(
                    ToolCall::new("c", "Read").status(ToolCallStatus::Completed)
                ),
                chunk("three"),
            ]
        );
    }

    #[test]
    fn a_session_id_cannot_name_a_file_outside_the_folder() {
        let home = tempfile::tempdir().unwrap();
        let storage = Storage::new(Some(home.path()));
        fs::write(home.path().join("secret.json"), "{}").unwrap();
        assert!(storage.load("../../../secret").unwrap().is_none());
        assert!(!storage.delete("../../../secret").unwrap());

        let id = "0197b0a0-0000-7000-8000-000000000000";
        storage.save(&record(id)).unwrap();
        assert_eq!(storage.load(id).unwrap(), Some(record(id)));
        assert_eq!(storage.list(), [record(id)]);
        assert!(storage.delete(id).unwrap());
        assert_eq!(storage.list(), []);
    }
}
