//! The store through its public interface, on real files.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, and a child that answers on stdout"
)]

mod damage;
mod many;

use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt;
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
async fn a_session_is_created_updated_and_listed_newest_first() {
    let fixture = Fixture::empty();
    let store = &fixture.store;
    for (id, updated, cwd, agent) in [
        ("a", 3, "/x", "pi"),
        ("b", 5, "/y", "pi"),
        ("c", 3, "/x", "claude"),
    ] {
        let row = SessionRow {
            updated,
            cwd: cwd.into(),
            agent: agent.into(),
            ..session(id)
        };
        store.create_session(&row).await.unwrap();
    }
    let ids = async |filter: SessionFilter| {
        let rows = store
            .sessions(SessionFilter {
                limit: 10,
                ..filter
            })
            .await
            .unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(SessionFilter::default()).await, ["b", "c", "a"]);
    assert_eq!(
        ids(SessionFilter {
            cwd: Some("/x".into()),
            ..SessionFilter::default()
        })
        .await,
        ["c", "a"]
    );
    assert_eq!(
        ids(SessionFilter {
            agent: Some("pi".into()),
            ..SessionFilter::default()
        })
        .await,
        ["b", "a"]
    );
    assert_eq!(
        ids(SessionFilter {
            vm: Some("none".into()),
            ..SessionFilter::default()
        })
        .await,
        [""; 0]
    );
    assert_eq!(
        ids(SessionFilter {
            below: Some((3, "c".into())),
            ..SessionFilter::default()
        })
        .await,
        ["a"]
    );
    assert_eq!(
        ids(SessionFilter {
            below: Some((5, "b".into())),
            ..SessionFilter::default()
        })
        .await,
        ["c", "a"]
    );

    let changed = SessionRow {
        agent_session: Some("agents-own".into()),
        title: Some("a title".into()),
        updated: 9,
        created: 77,
        state: "closed".into(),
        ..session("a")
    };
    store.update_session(&changed).await.unwrap();
    let stored = store.session("a").await.unwrap().unwrap();
    assert_eq!(
        stored,
        SessionRow {
            created: session("a").created,
            ..changed
        }
    );
    assert_eq!(store.session("nobody").await.unwrap(), None);
    assert!(matches!(
        store.update_session(&session("nobody")).await,
        Err(StoreError::UnknownSession { .. })
    ));
    assert!(
        store.create_session(&session("a")).await.is_err(),
        "an id is taken once"
    );
}

#[tokio::test]
async fn a_path_that_is_not_utf8_is_kept() {
    use std::os::unix::ffi::OsStringExt;
    let fixture = Fixture::empty();
    let cwd = PathBuf::from(std::ffi::OsString::from_vec(b"/caf\xe9".to_vec()));
    let row = SessionRow {
        cwd: cwd.clone(),
        ..session("s")
    };
    fixture.store.create_session(&row).await.unwrap();
    let filter = SessionFilter {
        cwd: Some(cwd),
        limit: 1,
        ..SessionFilter::default()
    };
    assert_eq!(fixture.store.sessions(filter).await.unwrap(), [row]);
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
    assert!(error.to_string().contains("events.seq"), "{error}");
    assert_eq!(fixture.store.last_seq("s").await.unwrap(), 2);
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

#[tokio::test]
async fn logs_keep_the_newest_bytes_and_count_on() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let texts = async |after, limit| {
        let rows = store.log("s", after, limit).await.unwrap();
        rows.into_iter()
            .map(|row| (row.number, row.text))
            .collect::<Vec<_>>()
    };
    let kept = |rows: &[(i64, &str)]| {
        rows.iter()
            .map(|(number, text)| (*number, text.to_string()))
            .collect::<Vec<_>>()
    };
    store
        .append_log("s", vec![line("aaaa"), line("bbbb"), line("cc")], 100)
        .await
        .unwrap();
    assert_eq!(
        texts(0, 10).await,
        kept(&[(1, "aaaa"), (2, "bbbb"), (3, "cc")])
    );
    assert_eq!(texts(0, 2).await, kept(&[(2, "bbbb"), (3, "cc")]));
    assert_eq!(texts(2, 10).await, kept(&[(3, "cc")]));
    store.append_log("s", vec![line("dddd")], 10).await.unwrap();
    assert_eq!(
        texts(0, 10).await,
        kept(&[(2, "bbbb"), (3, "cc"), (4, "dddd")])
    );
    store.append_log("s", vec![line("üü")], 9).await.unwrap();
    assert_eq!(
        texts(0, 10).await,
        kept(&[(4, "dddd"), (5, "üü")]),
        "bytes are counted, not characters"
    );
    store
        .append_log("s", vec![line("longer than all")], 3)
        .await
        .unwrap();
    assert_eq!(
        texts(0, 10).await,
        kept(&[(6, "longer than all")]),
        "the newest line stays"
    );
    let row = &store.log("s", 0, 1).await.unwrap()[0];
    assert_eq!((row.time, row.stream.as_str()), (7, "stderr"));
}

#[tokio::test]
async fn settings_and_vms_are_replaced_and_deleted() {
    let fixture = Fixture::empty();
    let store = &fixture.store;
    assert_eq!(store.setting("a").await.unwrap(), None);
    store.set_setting("a", "1").await.unwrap();
    store.set_setting("a", "2").await.unwrap();
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("2"));
    let vm = |name: &str, workspaces: &[&str], holder| VmRow {
        name: name.into(),
        driver: "namespace".into(),
        workspaces: workspaces.iter().map(PathBuf::from).collect(),
        state_dir: "/state".into(),
        created: 1,
        booted: None,
        holder,
    };
    store
        .upsert_vm(&vm("b", &["/2", "/1\n"], u32::MAX))
        .await
        .unwrap();
    store.upsert_vm(&vm("a", &[], 0)).await.unwrap();
    assert_eq!(
        store.vms().await.unwrap(),
        [vm("a", &[], 0), vm("b", &["/2", "/1\n"], u32::MAX)]
    );
    let changed = VmRow {
        booted: Some(5),
        ..vm("b", &["/3"], 0)
    };
    store.upsert_vm(&changed).await.unwrap();
    assert!(store.delete_vm("a").await.unwrap());
    assert!(!store.delete_vm("a").await.unwrap());
    assert_eq!(store.vms().await.unwrap(), [changed]);
}

#[tokio::test]
async fn deleting_a_session_leaves_no_trace_of_it() {
    const CANARY: &str = "canary-5b1f";
    let fixture = Fixture::empty();
    let store = &fixture.store;
    let doomed = SessionRow {
        title: Some(CANARY.into()),
        ..session(&format!("doomed-{CANARY}"))
    };
    store.create_session(&doomed).await.unwrap();
    store.create_session(&session("kept")).await.unwrap();
    // Interleaved, of many sizes, so that pages are shared, split and overflow.
    for seq in 1..=3000_i64 {
        let size = usize::try_from(seq % 7).unwrap().pow(4);
        let rows = vec![
            event(
                &doomed.id,
                seq,
                CANARY,
                &format!("{CANARY}{}", "x".repeat(size)),
            ),
            event("kept", seq, "k", &"y".repeat(size)),
        ];
        drop(store.reserve().await.unwrap().append(rows, false));
    }
    store
        .append_log(&doomed.id, vec![line(CANARY)], 1000)
        .await
        .unwrap();
    assert!(fixture.files_hold(CANARY), "else this test proves nothing");

    let deleted = store.delete_session(&doomed.id).await.unwrap();
    assert_eq!(
        deleted,
        Some(Deleted {
            events: 3000,
            log_lines: 1
        })
    );
    assert!(
        !fixture.files_hold(CANARY),
        "overwritten in the database and gone from its WAL"
    );
    assert_eq!(store.session(&doomed.id).await.unwrap(), None);
    assert_eq!(store.delete_session(&doomed.id).await.unwrap(), None);
    let late = fixture
        .append(vec![event(&doomed.id, 3001, "k", "{}")])
        .await;
    assert!(matches!(late, Err(StoreError::UnknownSession { .. })));
    assert_eq!(store.last_seq("kept").await.unwrap(), 3000);
    store.check().await.unwrap();
}

#[tokio::test]
async fn the_files_are_private_and_so_is_the_new_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep/acpbox.db");
    let store = Store::open(&path).unwrap();
    store.create_session(&session("s")).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn closing_waits_for_what_is_queued_and_ends_the_writer() {
    let fixture = Fixture::new().await;
    for seq in 1..=500 {
        drop(
            fixture
                .store
                .reserve()
                .await
                .unwrap()
                .append(vec![event("s", seq, "k", "{}")], false),
        );
    }
    let clone = fixture.store.clone();
    fixture.store.close().await.unwrap();
    assert!(matches!(
        clone.reserve().await.err(),
        Some(StoreError::Stopped)
    ));
    assert!(matches!(clone.session("s").await, Err(StoreError::Stopped)));
    assert!(
        !fixture.path.with_extension("db-wal").exists(),
        "copied into the database"
    );
    let again = Store::open(&fixture.path).unwrap();
    assert_eq!(again.last_seq("s").await.unwrap(), 500);
}

#[tokio::test]
async fn dropping_the_last_handle_lets_the_writer_finish() {
    let fixture = Fixture::new().await;
    for seq in 1..=500 {
        drop(
            fixture
                .store
                .reserve()
                .await
                .unwrap()
                .append(vec![event("s", seq, "k", "{}")], false),
        );
    }
    let (path, _folder) = (fixture.path, fixture.folder);
    drop(fixture.store);
    // The WAL disappears when the last connection closes.
    let wal = path.with_extension("db-wal");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while wal.exists() {
        assert!(
            std::time::Instant::now() < deadline,
            "the writer did not close the file"
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(
        Store::open(&path).unwrap().last_seq("s").await.unwrap(),
        500
    );
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
    }
}

fn event(session: &str, seq: i64, kind: &str, raw: &str) -> EventRow {
    EventRow {
        session: Arc::from(session),
        seq,
        time: 1_795_000_000_000,
        direction: [Direction::Client, Direction::Agent, Direction::Acpbox]
            [usize::try_from(seq % 3).unwrap()],
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
