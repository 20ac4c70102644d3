//! What is in the files: modes, traces, and what is left after the end.

use std::os::unix::fs::PermissionsExt;

use super::*;

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
