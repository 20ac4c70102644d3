//! Several handles and processes on one file, and processes that are killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_write_at_once_and_lose_nothing() {
    let fixture = Fixture::new().await;
    fixture
        .store
        .create_session(&session("child"))
        .await
        .unwrap();
    let mut child = writing_child(&fixture.path, "child", 2000);
    for seq in 1..=2000 {
        fixture
            .append(vec![event("s", seq, "k", "{}")])
            .await
            .unwrap();
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    for session in ["s", "child"] {
        let page = EventPage {
            session: session.into(),
            limit: 5000,
            ..fixture.page()
        };
        assert_eq!(fixture.numbers(page).await, (1..=2000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_session_deleted_by_another_handle_takes_no_more_events() {
    let fixture = Fixture::with_events(1).await;
    let other = Store::open(&fixture.path).unwrap();
    other.delete_session("s").await.unwrap().unwrap();
    other.create_session(&session("new")).await.unwrap();
    let late = fixture.append(vec![event("s", 2, "k", "{}")]).await;
    assert!(matches!(late, Err(StoreError::UnknownSession { .. })));
    assert_eq!(
        other.last_seq("new").await.unwrap(),
        0,
        "and not under the new session's key"
    );
}

#[tokio::test]
async fn many_handles_open_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acpbox.db");
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || Store::open(&path).map(drop))
        })
        .collect();
    for handle in opening {
        handle.join().unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_stored_is_stored() {
    for round in 0..5_usize {
        let fixture = Fixture::new().await;
        let mut child = writing_child(&fixture.path, "s", i64::MAX);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        for line in lines {
            let line = line.unwrap();
            if let Some(seq) = line.strip_prefix("stored ") {
                told = seq.parse().unwrap();
            }
            if told == 137 * (round as i64 + 1) {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let last = fixture.store.last_seq("s").await.unwrap();
        assert!(last >= told && told >= 137, "{last} stored, {told} told");
        let all = fixture
            .numbers(EventPage {
                limit: usize::MAX,
                ..fixture.page()
            })
            .await;
        assert_eq!(all, (1..=last).collect::<Vec<_>>());
        fixture.store.check().await.unwrap();
    }
}

#[tokio::test]
async fn a_deletion_that_was_killed_is_finished_by_the_next_start() {
    let fixture = Fixture::with_events(50).await;
    fixture.store.close().await.unwrap();
    let connection = rusqlite::Connection::open(&fixture.path).unwrap();
    let doom = "INSERT INTO doomed(session) SELECT key FROM sessions; DELETE FROM sessions";
    connection.execute_batch(doom).unwrap();
    let left = || -> i64 {
        connection
            .query_row("SELECT count(*) FROM events", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(left(), 50);
    let store = Store::open(&fixture.path).unwrap();
    store.set_setting("the writer", "has run").await.unwrap();
    store.close().await.unwrap();
    assert_eq!(left(), 0);
}

/// Appends one event after the other and says on stdout which are stored.
#[tokio::test]
#[ignore = "the child of the tests above"]
async fn child_that_writes() {
    let Some(path) = std::env::var_os("STORE_CHILD_PATH") else {
        return;
    };
    let id = std::env::var("STORE_CHILD_SESSION").unwrap();
    let count: i64 = std::env::var("STORE_CHILD_COUNT").unwrap().parse().unwrap();
    let store = Store::open(Path::new(&path)).unwrap();
    for seq in 1..=count {
        store
            .reserve()
            .await
            .unwrap()
            .append(vec![event(&id, seq, "k", "{}")], false)
            .await
            .unwrap();
        println!("stored {seq}");
    }
    store.close().await.unwrap();
}

fn writing_child(path: &Path, session: &str, count: i64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::many::child_that_writes",
            "--ignored",
            "--nocapture",
        ])
        .env("STORE_CHILD_PATH", path)
        .env("STORE_CHILD_SESSION", session)
        .env("STORE_CHILD_COUNT", count.to_string())
        .stdout(if count == i64::MAX {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .spawn()
        .unwrap()
}
