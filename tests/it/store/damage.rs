//! Files that are not ours, newer, broken, or on a full disk.

use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use super::*;

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let fixture = Fixture::with_events(3).await;
    fixture.store.close().await.unwrap();
    rusqlite::Connection::open(&fixture.path)
        .unwrap()
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    let before = std::fs::read(&fixture.path).unwrap();
    let error = Store::open(&fixture.path).err().unwrap();
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("update acpbox"), "{error}");
    assert_eq!(std::fs::read(&fixture.path).unwrap(), before);
}

/// SQLite calls a schema damaged that it cannot read, as one may be that a
/// newer SQLite wrote.
#[tokio::test]
async fn a_newer_schema_that_cannot_be_read_is_not_set_aside() {
    let fixture = Fixture::with_events(3).await;
    fixture.store.close().await.unwrap();
    rusqlite::Connection::open(&fixture.path)
        .unwrap()
        .execute_batch(
            "PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql)
             VALUES ('table', 'later', 'later', 2, 'CREATE TABLE later(x) WITH NEW SYNTAX');
             PRAGMA user_version = 99",
        )
        .unwrap();
    let before = std::fs::read(&fixture.path).unwrap();
    for error in [
        Store::open(&fixture.path).err().unwrap(),
        Store::open_or_set_aside(&fixture.path, true).err().unwrap(),
    ] {
        assert!(
            matches!(error, StoreError::Newer { found: 99, .. }),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(&fixture.path).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_header_is_named_and_not_overwritten() {
    let fixture = Fixture::with_events(3).await;
    fixture.store.close().await.unwrap();
    for (offset, bytes) in [(0, &b"garbage garbage!"[..]), (100, &[0xff; 300])] {
        let whole = std::fs::read(&fixture.path).unwrap();
        overwrite(&fixture.path, offset, bytes);
        refused_as_damaged(&fixture.path);
        std::fs::write(&fixture.path, whole).unwrap();
    }
    let last = Store::open(&fixture.path)
        .unwrap()
        .last_seq("s")
        .await
        .unwrap();
    assert_eq!(last, 3, "the repaired file opens again");
}

#[tokio::test]
async fn a_truncated_file_is_damaged() {
    let fixture = Fixture::with_events(2000).await;
    fixture.store.close().await.unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&fixture.path)
        .unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    refused_as_damaged(&fixture.path);
}

#[test]
fn files_of_others_are_not_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(
        &text,
        "these are notes, and no database at all\n".repeat(100),
    )
    .unwrap();
    refused_as_damaged(&text);
    let short = folder.path().join("short.txt");
    std::fs::write(&short, "short").unwrap();
    refused_as_damaged(&short);
    let foreign = folder.path().join("browser.db");
    let connection = rusqlite::Connection::open(&foreign).unwrap();
    connection
        .execute_batch("CREATE TABLE history(url); INSERT INTO history VALUES ('x')")
        .unwrap();
    drop(connection);
    refused_as_damaged(&foreign);
    let error = Store::open(folder.path()).err().unwrap();
    assert!(error.to_string().contains("not a folder"), "{error}");
}

#[tokio::test]
async fn random_pages_are_reported_as_damage_when_they_are_read() {
    let fixture = Fixture::new().await;
    for seq in 1..=400 {
        fixture
            .append(vec![event("s", seq, "k", &"x".repeat(1000))])
            .await
            .unwrap();
    }
    fixture.store.close().await.unwrap();
    // Everything but the first pages, which hold the schema and the roots.
    let length = std::fs::metadata(&fixture.path).unwrap().len();
    let noise: Vec<u8> = (20 * 4096..length)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80)
        .collect();
    assert!(noise.len() > 300_000);
    overwrite(&fixture.path, 20 * 4096, &noise);
    match Store::open(&fixture.path) {
        Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
        Ok(store) => {
            let read = store
                .events(EventPage {
                    limit: 1000,
                    ..fixture.page()
                })
                .await;
            assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
            let check = store.check().await;
            assert!(
                matches!(check, Err(StoreError::Damaged { .. })),
                "{check:?}"
            );
        }
    }
}

/// In a child with a mount namespace of its own, so that the small disk goes
/// away with it and root is not needed where user namespaces are allowed.
#[test]
fn a_full_disk_is_named_and_writing_goes_on_when_space_is_freed() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=1m tmpfs \"$STORE_FULL_DISK\" || exit 77; exec \"$0\" \"$@\"";
    let child = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::damage::child_on_a_small_disk",
            "--ignored",
            "--nocapture",
        ])
        .env("STORE_FULL_DISK", folder.path())
        .output();
    match child {
        Err(error) => {
            eprintln!("skipped: unshare (util-linux) is needed for a small disk: {error}")
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            if output.status.code() == Some(77) || text.contains("unshare failed") {
                eprintln!("skipped: this machine lets us mount no tmpfs: {text}");
                return;
            }
            assert!(
                output.status.success() && text.contains("went on"),
                "{text}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "the child of a_full_disk_is_named_and_writing_goes_on_when_space_is_freed"]
async fn child_on_a_small_disk() {
    let Some(folder) = std::env::var_os("STORE_FULL_DISK").map(PathBuf::from) else {
        return;
    };
    let path = folder.join("acpbox.db");
    let filler = folder.join("filler");
    let store = Store::open(&path).unwrap();
    store.create_session(&session("s")).await.unwrap();
    std::fs::write(&filler, vec![0; 500 << 10]).unwrap();
    let append = async |seq| {
        let rows = vec![
            event("s", seq, "k", &"x".repeat(3000)),
            event("s", seq + 1, "k", "second of two"),
        ];
        store
            .reserve()
            .await
            .unwrap()
            .append(rows, seq % 8 == 1)
            .await
    };
    let mut seq = 1;
    let error = loop {
        match append(seq).await {
            Ok(()) => seq += 2,
            Err(error) => break error,
        }
    };
    assert!(seq > 1, "some fitted");
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(append(seq).await.is_err(), "still full");
    assert_eq!(
        store.last_seq("s").await.unwrap(),
        seq - 1,
        "nothing half-written"
    );
    std::fs::remove_file(&filler).unwrap();
    append(seq).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(store.last_seq("s").await.unwrap(), seq + 1);
    store.close().await.unwrap();
    eprintln!("went on");
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(bytes).unwrap();
}

fn refused_as_damaged(path: &Path) {
    let before = std::fs::read(path).unwrap();
    let error = Store::open(path).err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("--db"), "{error}");
    assert!(
        std::fs::read(path).unwrap() == before,
        "the file was changed"
    );
}
