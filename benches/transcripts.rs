//! Many transcripts in one file: listing them, searching them, opening one at
//! its end, against the times that these may take.
//!
//! `cargo bench --bench transcripts [-- SESSIONS]`; the file goes to the current
//! folder's `target`, so that the disk is a real one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for the terminal"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use acpbox::acp::extension::SearchRequest;
use acpbox::server::search::search;
use acpbox::session::index::catch_up;
use acpbox::store::{Direction, EventPage, EventRow, SessionFilter, SessionRow, Store};
use serde_json::{Value, json};

const EVENTS_PER_SESSION: i64 = 100;

/// A turn has so many events, most of them chunks of a few words.
const TURN: i64 = 25;

/// Distinct words; each is about as frequent as its place in the list says.
const WORDS: usize = 30_000;

const ROUNDS: usize = 50;

const DAY: i64 = 24 * 3600 * 1000;
const NOW: i64 = 1_795_000_000_000;

fn main() {
    let sessions = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(10_000);
    let folder = tempfile::Builder::new()
        .prefix("bench-transcripts")
        .tempdir_in("target")
        .unwrap();
    let path = folder.path().join("acpbox.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::open(&path).unwrap();
        let start = Instant::now();
        fill(&store, sessions).await;
        let size = || std::fs::metadata(&path).unwrap().len() / 1_000_000;
        println!(
            "{sessions} sessions with {} events: written in {:.1} s",
            sessions * EVENTS_PER_SESSION,
            start.elapsed().as_secs_f64(),
        );
        store.close().await.unwrap();
        let before = size();
        let store = Store::open(&path).unwrap();
        let start = Instant::now();
        let mut waits = Vec::new();
        tokio::select! {
            is_complete = catch_up(&store, Duration::from_secs(3600)) => assert!(is_complete.unwrap()),
            () = appends(&store, &mut waits) => {}
        }
        let took = start.elapsed().as_secs_f64();
        waits.sort_by(f64::total_cmp);
        println!(
            "an append while it is indexed: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
            waits[waits.len() / 2],
            waits[waits.len() * 99 / 100],
            waits[waits.len() - 1],
        );
        store.close().await.unwrap();
        println!(
            "indexed in {took:.1} s ({:.0} events/s); {before} MB became {} MB",
            (sessions * EVENTS_PER_SESSION) as f64 / took,
            size(),
        );
        let store = Store::open(&path).unwrap();
        reads(&store, sessions).await;
        store.close().await.unwrap();
    });
}

/// Appends to one session for ever, as somebody who goes on working, and notes
/// how long each took in milliseconds.
async fn appends(store: &Store, waits: &mut Vec<f64>) {
    let session = id(0);
    for seq in EVENTS_PER_SESSION + 1.. {
        let start = Instant::now();
        let event = event(&session, seq, NOW, &mut Random(1));
        let append = store.reserve().await.unwrap().append(vec![event], false);
        append.await.unwrap();
        waits.push(start.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn reads(store: &Store, sessions: i64) {
    let mut kept = Vec::new();
    let list = async |_| {
        let filter = SessionFilter {
            limit: 101,
            ..SessionFilter::default()
        };
        store.sessions(filter).await.unwrap().len()
    };
    kept.push(timed("session/list, first page", 10.0, list).await);
    let any = |round: usize| id(round as i64 * 7919 % sessions).to_string();
    let last_page = async |round| {
        let page = EventPage {
            session: any(round),
            before: Some(i64::MAX),
            limit: 50,
            max_bytes: 1 << 20,
            ..EventPage::default()
        };
        store.events(page).await.unwrap().len()
    };
    kept.push(timed("last page of a session", 5.0, last_page).await);
    for (name, query) in [
        ("a word of every message", "the"),
        ("two of them", "the of"),
        ("two that never meet", "even odd"),
        ("a phrase of them", "\"the of\""),
        ("a beginning of a thousand words", "w12*"),
        ("a beginning of ten words", "w1234*"),
        ("a usual word", "w500"),
        ("a rare word", "w29000"),
        ("a word of every message and a rare one", "the w29000"),
        ("a path", "src/w77.rs"),
        ("a word that is nowhere", "absent"),
    ] {
        let name = format!("search, {name}");
        let run = async |_| hits(store, request(query)).await;
        kept.push(timed(&name, 50.0, run).await);
    }
    let in_session = async |round| {
        let session_id = Some(any(round));
        let request = SearchRequest {
            session_id,
            ..request("the")
        };
        hits(store, request).await
    };
    kept.push(timed("search, a usual word in a session", 50.0, in_session).await);
    let in_folder = async |_| {
        let request = SearchRequest {
            cwd: Some("/src/17".into()),
            ..request("the")
        };
        hits(store, request).await
    };
    kept.push(timed("search, a usual word in a folder", 50.0, in_folder).await);
    let with_agent = async |_| {
        let request = SearchRequest {
            agent: Some("agent-3".into()),
            ..request("w29000")
        };
        hits(store, request).await
    };
    kept.push(timed("search, a rare word with an agent", 50.0, with_agent).await);
    let start = Instant::now();
    store
        .delete_session(&id(sessions / 2))
        .await
        .unwrap()
        .unwrap();
    println!(
        "a session deleted in {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    assert!(kept.iter().all(|is_kept| *is_kept), "too slow");
}

/// Whether the median time is within the bound, in milliseconds.
async fn timed(name: &str, bound: f64, run: impl AsyncFn(usize) -> usize) -> bool {
    let mut times = Vec::new();
    let mut found = 0;
    for round in 0..ROUNDS {
        let start = Instant::now();
        found = run(round).await;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[ROUNDS / 2], times[ROUNDS - 1]);
    println!("{name}: p50 {median:.2} ms, worst {worst:.2} ms ({found} found; at most {bound} ms)");
    median <= bound
}

fn request(query: &str) -> SearchRequest {
    SearchRequest {
        query: query.to_owned(),
        ..SearchRequest::default()
    }
}

async fn hits(store: &Store, request: SearchRequest) -> usize {
    let answer = search(store, request).await.unwrap();
    assert!(!answer.incomplete);
    answer.hits.len()
}

async fn fill(store: &Store, sessions: i64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut under_way = std::collections::VecDeque::new();
    for session in 0..sessions {
        let time = NOW - (sessions - session) * 365 * DAY / sessions;
        let id = id(session);
        let row = SessionRow {
            id: id.to_string(),
            agent: format!("agent-{}", session % 5),
            vm: "vm".into(),
            agent_session: None,
            cwd: format!("/src/{}", session % 200).into(),
            title: Some(random.words(4)),
            created: time,
            updated: time,
            state: "open".into(),
            options: r#"{"additionalDirectories":[],"mcpServers":[],"env":[]}"#.into(),
            usage: "{}".into(),
        };
        store.create_session(&row).await.unwrap();
        let events = (1..=EVENTS_PER_SESSION).map(|seq| event(&id, seq, time, &mut random));
        under_way.push_back(
            store
                .reserve()
                .await
                .unwrap()
                .append(events.collect(), false),
        );
        if under_way.len() >= 64 {
            under_way.pop_front().unwrap().await.unwrap();
        }
    }
    for append in under_way {
        append.await.unwrap();
    }
}

fn id(session: i64) -> Arc<str> {
    format!("01a20000-0000-7000-8000-{session:012x}").into()
}

fn event(session: &Arc<str>, seq: i64, time: i64, random: &mut Random) -> EventRow {
    let chunk = |kind: &'static str, text: String| {
        let update = json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}});
        (
            Direction::Agent,
            kind,
            message("session/update", "update", update),
        )
    };
    let (direction, kind, message) = match seq % TURN {
        1 => {
            let prompt = json!([{"type": "text", "text": random.words(30)}]);
            (
                Direction::Client,
                "session/prompt",
                message("session/prompt", "prompt", prompt),
            )
        }
        2..5 => chunk("agent_thought_chunk", random.words(10)),
        5 | 12 => {
            let path = format!("/src/src/{}.rs", random.word());
            let update = json!({"sessionUpdate": "tool_call", "toolCallId": seq.to_string(),
                "title": format!("Read {path}"), "locations": [{"path": path}]});
            (
                Direction::Agent,
                "tool_call",
                message("session/update", "update", update),
            )
        }
        0 => {
            let result = json!({"jsonrpc": "2.0", "id": 1, "result": {"stopReason": "end_turn"}});
            (Direction::Agent, "session/prompt:result", result)
        }
        // Of two words, one is in the messages of one half of the sessions only.
        20 => chunk(
            "agent_message_chunk",
            ["even ", "odd "]
                [usize::from(session.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']))]
            .to_owned(),
        ),
        _ => chunk("agent_message_chunk", format!("the {}", random.words(6))),
    };
    EventRow {
        session: Arc::clone(session),
        seq,
        time: time + seq,
        direction,
        kind: kind.into(),
        raw: message.to_string().into(),
    }
}

fn message(method: &str, member: &str, value: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": {"sessionId": "s", member: value}})
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// The first words are frequent, the last ones rare, as in a language.
    fn word(&mut self) -> String {
        let part = self.below(1 << 20) as f64 / f64::from(1 << 20);
        let rank = (WORDS as f64).powf(part) as usize;
        match rank {
            1 => "the".into(),
            2 => "of".into(),
            rank => format!("w{rank}"),
        }
    }

    fn words(&mut self, count: usize) -> String {
        let mut words = String::new();
        for _ in 0..count {
            words.push_str(&self.word());
            words.push(' ');
        }
        words
    }
}
