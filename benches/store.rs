//! How fast events become durable: the store against bare SQLite inserts of the
//! same rows, and what one waiting caller sees.
//!
//! `cargo bench --bench store [-- EVENTS]`; the files go to the current
//! folder's `target`, so that the disk is a real one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

use std::borrow::Cow;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acpbox::store::{Direction, EventPage, EventRow, SessionRow, Store};
use rusqlite::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RAW_BYTES: usize = 200;

fn main() {
    let count = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    let folder = tempfile::Builder::new()
        .prefix("bench-store")
        .tempdir_in("target")
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if std::env::var_os("ONLY_LATENCY").is_some() {
        runtime.block_on(latencies(&folder.path().join("single.db")));
        return;
    }
    let raw = bare_inserts(&folder.path().join("raw.db"), count);
    println!("raw sqlite insert of the same rows: {raw:.0}/s");
    for (sessions, batch) in [(1, 1), (1, 16), (1, 256), (3, 1), (3, 16)] {
        let path = folder.path().join(format!("{sessions}-{batch}.db"));
        let rate = runtime.block_on(appends(&path, count, sessions, batch));
        let bytes = std::fs::metadata(&path).unwrap().len();
        println!(
            "append {RAW_BYTES} B: {rate:.0} events/s ({sessions} sessions, {batch} per append; {:.2} of bare; {} B on disk each; resident {} KiB)",
            rate / raw,
            bytes / count as u64,
            resident_kib(),
        );
    }
    runtime.block_on(latencies(&folder.path().join("single.db")));
    runtime.block_on(reading(&folder.path().join("1-256.db"), count));
    opening(&folder.path().join("1-256.db"));
}

/// One prepared statement, 1000 rows per transaction, nothing else.
fn bare_inserts(path: &Path, count: i64) -> f64 {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE events(session INTEGER, seq INTEGER, time INTEGER, direction INTEGER, kind TEXT, raw TEXT,
                PRIMARY KEY(session, seq)) WITHOUT ROWID;",
        )
        .unwrap();
    let raw = text();
    let mut insert = connection
        .prepare("INSERT INTO events VALUES (1, ?1, 1, 1, ?2, ?3)")
        .unwrap();
    let start = Instant::now();
    for seq in 0..count {
        if seq % 1000 == 0 {
            connection.execute_batch("BEGIN").unwrap();
        }
        insert
            .execute((seq, "agent_message_chunk", raw.as_ref()))
            .unwrap();
        if seq % 1000 == 999 {
            connection.execute_batch("COMMIT").unwrap();
        }
    }
    if !connection.is_autocommit() {
        connection.execute_batch("COMMIT").unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

async fn appends(path: &Path, count: i64, sessions: i64, batch: i64) -> f64 {
    let store = Store::open(path).unwrap();
    for session in 0..sessions {
        store.create_session(&session_row(session)).await.unwrap();
    }
    let start = Instant::now();
    let writers: Vec<_> = (0..sessions)
        .map(|session| {
            let store = store.clone();
            tokio::spawn(async move { append_all(&store, session, count / sessions, batch).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    store.close().await.unwrap();
    count as f64 / start.elapsed().as_secs_f64()
}

/// Keeps some appends under way, as the relay does, and ends with a durable one.
async fn append_all(store: &Store, session: i64, count: i64, batch: i64) {
    let id: Arc<str> = session.to_string().into();
    let mut under_way = std::collections::VecDeque::new();
    let mut seq = 1;
    while seq <= count {
        let rows = (seq..(seq + batch).min(count + 1))
            .map(|seq| event(&id, seq))
            .collect();
        seq += batch;
        under_way.push_back(store.reserve().await.unwrap().append(rows, seq > count));
        if under_way.len() >= 256 {
            under_way.pop_front().unwrap().await.unwrap();
        }
    }
    for append in under_way {
        append.await.unwrap();
    }
}

async fn latencies(path: &Path) {
    let store = Store::open(path).unwrap();
    store.create_session(&session_row(0)).await.unwrap();
    let id: Arc<str> = "0".into();
    let mut seq = 0;
    for (name, durable, pause, rounds) in [
        ("single append", false, 0, 5000),
        ("single append after 1 ms idle", false, 1, 1000),
        ("single durable append", true, 1, 500),
    ] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            seq += 1;
            let start = Instant::now();
            store
                .reserve()
                .await
                .unwrap()
                .append(vec![event(&id, seq)], durable)
                .await
                .unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        let at = |part: usize| times[times.len() * part / 1000].as_secs_f64() * 1e6;
        println!(
            "{name}: p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs",
            at(500),
            at(990),
            at(999)
        );
    }
    between_round_trips(&store, seq).await;
    store.close().await.unwrap();
}

/// As in a relay: between two appends somebody else answers, in another thread.
async fn between_round_trips(store: &Store, mut seq: i64) {
    let (mut ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let mut theirs = theirs.into_std().unwrap();
    theirs.set_nonblocking(false).unwrap();
    let echo = std::thread::spawn(move || {
        let mut byte = [0];
        while theirs.read(&mut byte).unwrap() > 0 {
            theirs.write_all(&byte).unwrap();
        }
    });
    let id: Arc<str> = "0".into();
    let mut times = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..5000 {
        seq += 1;
        let start = Instant::now();
        store
            .reserve()
            .await
            .unwrap()
            .append(vec![event(&id, seq)], false)
            .await
            .unwrap();
        times.push(start.elapsed());
        ours.write_all(b"x").await.unwrap();
        ours.read_exact(&mut [0]).await.unwrap();
        whole.push(start.elapsed());
    }
    drop(ours);
    echo.join().unwrap();
    times.sort();
    whole.sort();
    println!(
        "single append between round trips: p50 {:.0} µs, p99 {:.0} µs; with the round trip p50 {:.0} µs",
        times[2500].as_secs_f64() * 1e6,
        times[4950].as_secs_f64() * 1e6,
        whole[2500].as_secs_f64() * 1e6,
    );
}

async fn reading(path: &Path, count: i64) {
    let store = Store::open(path).unwrap();
    let start = Instant::now();
    let mut after = 0;
    while after < count {
        let page = EventPage {
            session: "0".into(),
            after: Some(after),
            limit: 1000,
            max_bytes: 1 << 20,
            ..EventPage::default()
        };
        after = store.events(page).await.unwrap().last().unwrap().seq;
    }
    println!(
        "read in pages of 1000: {:.0} events/s",
        count as f64 / start.elapsed().as_secs_f64()
    );
    store.close().await.unwrap();
}

fn opening(path: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            let start = Instant::now();
            let store = Store::open(path).unwrap();
            let time = start.elapsed();
            runtime.block_on(store.close()).unwrap();
            time
        })
        .collect();
    times.sort();
    let start = Instant::now();
    let store = Store::open(path).unwrap();
    let deleted = runtime
        .block_on(store.delete_session("0"))
        .unwrap()
        .unwrap();
    println!(
        "delete of {} events: {:.1} s",
        deleted.events,
        start.elapsed().as_secs_f64()
    );
    println!(
        "open: p50 {:.2} ms, worst {:.2} ms",
        times[25].as_secs_f64() * 1e3,
        times[49].as_secs_f64() * 1e3
    );
}

fn event(session: &Arc<str>, seq: i64) -> EventRow {
    EventRow {
        session: session.clone(),
        seq,
        time: 1_795_000_000_000 + seq,
        direction: Direction::Agent,
        kind: Cow::Borrowed("agent_message_chunk"),
        raw: text(),
    }
}

fn text() -> Box<str> {
    let head = r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":""#;
    let tail = r#""}}}}"#;
    let filling = "x".repeat(RAW_BYTES - head.len() - tail.len());
    format!("{head}{filling}{tail}").into_boxed_str()
}

fn session_row(id: i64) -> SessionRow {
    SessionRow {
        id: id.to_string(),
        agent: "example".into(),
        vm: "vm".into(),
        agent_session: None,
        cwd: "/work".into(),
        title: None,
        created: 1,
        updated: 1,
        state: "open".into(),
        options: "{}".into(),
        usage: "{}".into(),
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
