//! What is kept of sessions, how it is found, for how long, and how it goes.

mod deletion;
mod filters;
mod retention;
mod usage;

use std::path::Path;
use std::sync::Arc;

use acpbox::store::{Direction, EventRow, SessionRow, Store};

/// A stored session with nothing of its own.
fn row(id: &str, updated: i64) -> SessionRow {
    SessionRow {
        id: id.into(),
        agent: "example".into(),
        vm: "vm".into(),
        agent_session: None,
        cwd: "/work".into(),
        title: None,
        created: updated,
        updated,
        state: "open".into(),
        options: "{}".into(),
        usage: "{}".into(),
    }
}

/// Puts sessions into a database, each with so many bytes of events.
fn fill(database: &Path, rows: &[(SessionRow, usize)]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(database).unwrap();
        for (row, bytes) in rows {
            store.create_session(row).await.unwrap();
            const EVENT_BYTES: usize = 900;
            let events = (1..).take(bytes / EVENT_BYTES).map(|seq| EventRow {
                session: Arc::from(row.id.as_str()),
                seq,
                time: row.updated,
                direction: Direction::Agent,
                kind: "agent_message_chunk".into(),
                raw: format!("\"{}\"", "x".repeat(EVENT_BYTES)).into(),
            });
            let events: Vec<EventRow> = events.collect();
            store
                .reserve()
                .await
                .unwrap()
                .append(events, false)
                .await
                .unwrap();
        }
        store.close().await.unwrap();
    });
}

/// Milliseconds since 1970, so many days ago.
fn days_ago(days: i64) -> i64 {
    jiff::Timestamp::now().as_millisecond() - days * 86_400_000
}
