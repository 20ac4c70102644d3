//! Sessions, logs, VMs and settings.

use super::*;

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
