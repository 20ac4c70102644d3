//! The store through its public interface, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, and a child that answers on stdout"
)]

mod damage;
mod files;
mod many;
mod tables;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use acpbox::store::{
    Deleted, Direction, EventPage, EventRow, LogLine, SessionFilter, SessionRow, Store, StoreError,
    VmRow,
};

#[tokio::test]
async fn pages_end_at_their_borders() {
    let fixture = Fixture::with_events(10).await;
    let page = |after, before, limit| EventPage {
        after,
        before,
        limit,
        ..fixture.page()
    };
    let check = async |page, expected: &[i64]| assert_eq!(fixture.numbers(page).await, expected);
    check(page(None, None, 3), &[1, 2, 3]).await;
    check(page(Some(3), None, 3), &[4, 5, 6]).await;
    check(page(Some(8), None, 3), &[9, 10]).await;
    check(page(Some(10), None, 3), &[]).await;
    check(page(Some(0), None, 1000), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await;
    // Backwards: the last ones below, still ascending.
    check(page(None, Some(11), 3), &[8, 9, 10]).await;
    check(page(None, Some(3), 3), &[1, 2]).await;
    check(page(None, Some(1), 3), &[]).await;
    // Between two numbers the page starts at the front.
    check(page(Some(2), Some(9), 3), &[3, 4, 5]).await;
    check(page(Some(6), Some(9), 9), &[7, 8]).await;
    check(page(None, None, 0), &[]).await;
    check(
        page(None, None, usize::MAX),
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    )
    .await;
}

#[tokio::test]
async fn a_page_stays_below_its_bytes_but_holds_an_event() {
    let fixture = Fixture::new().await;
    for seq in 1..=5 {
        fixture
            .append(vec![event("s", seq, "k", &"x".repeat(100))])
            .await
            .unwrap();
    }
    let page = |max_bytes, before| EventPage {
        max_bytes,
        before,
        ..fixture.page()
    };
    assert_eq!(fixture.numbers(page(300, None)).await, [1, 2, 3]);
    assert_eq!(fixture.numbers(page(299, None)).await, [1, 2]);
    assert_eq!(fixture.numbers(page(1, None)).await, [1]);
    assert_eq!(fixture.numbers(page(250, Some(6))).await, [4, 5]);
    assert_eq!(fixture.numbers(page(0, Some(6))).await, [5]);
}

#[tokio::test]
async fn a_page_of_some_kinds_holds_only_those() {
    let fixture = Fixture::new().await;
    for (seq, kind) in (1..).zip(["plan", "tool_call", "we\"ird,'kind", "plan", "plan"]) {
        fixture
            .append(vec![event("s", seq, kind, "{}")])
            .await
            .unwrap();
    }
    let page = |kinds: &[&str], limit, before| EventPage {
        kinds: kinds.iter().map(|kind| kind.to_string()).collect(),
        limit,
        before,
        ..fixture.page()
    };
    assert_eq!(fixture.numbers(page(&["plan"], 2, None)).await, [1, 4]);
    assert_eq!(fixture.numbers(page(&["plan"], 2, Some(6))).await, [4, 5]);
    assert_eq!(
        fixture
            .numbers(page(&["tool_call", "we\"ird,'kind"], 9, None))
            .await,
        [2, 3]
    );
    assert_eq!(
        fixture.numbers(page(&["none"], 9, None)).await,
        Vec::<i64>::new()
    );
}

#[tokio::test]
async fn json_comes_back_byte_for_byte() {
    let fixture = Fixture::new().await;
    let raws = [
        r#"{"a":"\ud800 lone","b":1e400,"c":18446744073709551616,"d":-0,"e":1.0}"#,
        r#"{"k":1,"k":2,"k":null}"#,
        "{ \"spaces\" :\t[ ] , \"nul\":\"\\u0000\" }",
        "{\"bidi\":\"\u{202e}x\",\"emoji\":\"👩‍👩‍👧\",\"noncharacter\":\"\u{ffff}\"}",
        "",
        "a raw nul \0 in the middle",
    ];
    let rows: Vec<_> = (1..)
        .zip(raws)
        .map(|(seq, raw)| event("s", seq, "k", raw))
        .collect();
    fixture.append(rows.clone()).await.unwrap();
    assert_eq!(fixture.store.events(fixture.page()).await.unwrap(), rows);
    let large = event("s", 7, "k", &"ü\\ud83d".repeat(300_000));
    fixture.append(vec![large.clone()]).await.unwrap();
    let page = EventPage {
        after: Some(6),
        ..fixture.page()
    };
    assert_eq!(fixture.store.events(page).await.unwrap(), [large]);
}

#[tokio::test]
async fn events_of_a_session_that_does_not_exist_are_refused_by_name() {
    let fixture = Fixture::new().await;
    let error = fixture
        .append(vec![event("stranger", 1, "k", "{}")])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no session stranger"), "{error}");
    let log = fixture
        .store
        .append_log("stranger", vec![line("x")], 100)
        .await;
    assert!(matches!(log, Err(StoreError::UnknownSession { .. })));
    assert!(
        fixture
            .store
            .events(EventPage {
                session: "stranger".into(),
                ..fixture.page()
            })
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(fixture.store.last_seq("stranger").await.unwrap(), 0);
}

#[tokio::test]
async fn one_append_is_stored_whole_or_not_at_all() {
    let fixture = Fixture::with_events(2).await;
    let rows = vec![
        event("s", 3, "k", "{}"),
        event("s", 2, "k", "{}"),
        event("s", 4, "k", "{}"),
    ];
    let error = fixture.append(rows).await.unwrap_err();
    assert!(error.to_string().contains("events.id"), "{error}");
    assert_eq!(fixture.store.last_seq("s").await.unwrap(), 2);
}

#[tokio::test]
async fn a_number_that_no_event_can_have_is_refused() {
    let fixture = Fixture::with_events(2).await;
    fixture.store.create_session(&session("t")).await.unwrap();
    for seq in [i64::MIN, -1, 0, 1 << 32, i64::MAX] {
        let refused = fixture.append(vec![event("s", seq, "k", "{}")]).await;
        assert!(refused.is_err(), "{seq}");
    }
    assert_eq!(fixture.store.last_seq("s").await.unwrap(), 2);
    assert_eq!(fixture.store.last_seq("t").await.unwrap(), 0);
    for (after, before) in [(-1, i64::MAX), (i64::MIN, 1 << 32), (0, 3)] {
        let page = EventPage {
            after: Some(after),
            before: Some(before),
            ..fixture.page()
        };
        assert_eq!(fixture.numbers(page).await, [1, 2]);
    }
    let beyond = EventPage {
        after: Some(i64::MAX),
        ..fixture.page()
    };
    assert!(fixture.numbers(beyond).await.is_empty());
}

#[tokio::test]
async fn a_bad_member_of_a_group_fails_alone() {
    let fixture = Fixture::with_events(1).await;
    // With the lock held elsewhere, all of these wait and become one group.
    let other = rusqlite::Connection::open(&fixture.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut appends = Vec::new();
    for (name, seq) in [("s", 2), ("s", 1), ("nobody", 1), ("s", 3)] {
        appends.push(
            fixture
                .store
                .reserve()
                .await
                .unwrap()
                .append(vec![event(name, seq, "k", "{}")], seq == 3),
        );
    }
    let setting = {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.set_setting("k", "v").await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    other.execute_batch("COMMIT").unwrap();
    let outcomes: Vec<bool> = futures::future::join_all(appends)
        .await
        .iter()
        .map(Result::is_ok)
        .collect();
    assert_eq!(outcomes, [true, false, false, true]);
    setting.await.unwrap().unwrap();
    assert_eq!(fixture.store.last_seq("s").await.unwrap(), 3);
    assert_eq!(
        fixture.store.setting("k").await.unwrap().as_deref(),
        Some("v")
    );
}

#[tokio::test]
async fn an_append_whose_caller_left_is_still_stored() {
    let fixture = Fixture::new().await;
    drop(
        fixture
            .store
            .reserve()
            .await
            .unwrap()
            .append(vec![event("s", 1, "k", "{}")], false),
    );
    fixture
        .append(vec![event("s", 2, "k", "{}")])
        .await
        .unwrap();
    assert_eq!(fixture.numbers(fixture.page()).await, [1, 2]);
}

/// A store on a file of its own.
struct Fixture {
    store: Store,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn empty() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acpbox.db");
        Fixture {
            store: Store::open(&path).unwrap(),
            path,
            folder,
        }
    }

    /// With the session `s`.
    async fn new() -> Fixture {
        let fixture = Fixture::empty();
        fixture.store.create_session(&session("s")).await.unwrap();
        fixture
    }

    async fn with_events(count: i64) -> Fixture {
        let fixture = Fixture::new().await;
        let rows = (1..=count)
            .map(|seq| event("s", seq, "k", &format!("{{\"n\":{seq}}}")))
            .collect();
        fixture.append(rows).await.unwrap();
        fixture
    }

    async fn append(&self, rows: Vec<EventRow>) -> Result<(), StoreError> {
        self.store
            .reserve()
            .await
            .unwrap()
            .append(rows, false)
            .await
    }

    fn page(&self) -> EventPage {
        EventPage {
            session: "s".into(),
            limit: 100,
            max_bytes: 10 << 20,
            ..EventPage::default()
        }
    }

    async fn numbers(&self, page: EventPage) -> Vec<i64> {
        self.store
            .events(page)
            .await
            .unwrap()
            .iter()
            .map(|event| event.seq)
            .collect()
    }

    fn files_hold(&self, text: &str) -> bool {
        let finder = memchr::memmem::Finder::new(text);
        std::fs::read_dir(self.folder.path()).unwrap().any(|file| {
            finder
                .find(&std::fs::read(file.unwrap().path()).unwrap())
                .is_some()
        })
    }
}

fn session(id: &str) -> SessionRow {
    SessionRow {
        id: id.into(),
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

fn event(session: &str, seq: i64, kind: &str, raw: &str) -> EventRow {
    EventRow {
        session: Arc::from(session),
        seq,
        time: 1_795_000_000_000,
        direction: [Direction::Client, Direction::Agent, Direction::Acpbox]
            [usize::try_from(seq.rem_euclid(3)).unwrap()],
        kind: Cow::Owned(kind.into()),
        raw: raw.into(),
    }
}

fn line(text: &str) -> LogLine {
    LogLine {
        time: 7,
        stream: "stderr",
        text: text.into(),
    }
}
