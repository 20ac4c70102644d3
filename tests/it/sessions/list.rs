//! `session/list`: pages and filters over many sessions.

use acpbox::store::{SessionRow, Store};
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::setup::Setup;

/// Puts sessions into the database before acpbox starts. Many share their time.
fn fill(setup: &Setup, count: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&setup.state().join("acpbox.db")).unwrap();
        for number in 0..count {
            let row = SessionRow {
                id: format!("s{number:04}"),
                agent: "testy".into(),
                vm: "vm".into(),
                agent_session: None,
                cwd: if number % 10 == 0 {
                    "/tenth".into()
                } else {
                    "/other".into()
                },
                title: (number % 2 == 0).then(|| format!("title {number}")),
                created: 0,
                updated: 1000 * (number as i64 / 7),
                state: "closed".into(),
                options: json!({"additionalDirectories": ["/more"]}).to_string(),
                usage: "{}".into(),
            };
            store.create_session(&row).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

fn pages(client: &mut Client, filter: &Value) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut params = filter.clone();
    loop {
        let mut page = client.call("session/list", params.clone()).unwrap();
        pages.push(serde_json::from_value(page["sessions"].take()).unwrap());
        match page.get("nextCursor") {
            Some(cursor) => params["cursor"] = cursor.clone(),
            None => return pages,
        }
    }
}

#[test]
fn sessions_come_in_pages_newest_first_and_each_once() {
    let setup = Setup::host();
    fill(&setup, 250);
    let mut client = setup.connect();
    let pages = pages(&mut client, &json!({}));
    assert_eq!(
        pages.iter().map(Vec::len).collect::<Vec<_>>(),
        [100, 100, 50]
    );
    let all = pages.concat();
    let key = |session: &Value| {
        (
            session["updatedAt"].as_str().unwrap().to_owned(),
            session["sessionId"].as_str().unwrap().to_owned(),
        )
    };
    let keys: Vec<_> = all.iter().map(key).collect();
    assert!(keys.is_sorted_by(|one, two| one > two));
    let first = &all[0];
    assert_eq!(first["sessionId"], "s0249");
    assert_eq!(first["cwd"], "/other");
    assert_eq!(first["updatedAt"], "1970-01-01T00:00:35Z");
    assert_eq!(first.get("title"), None);
    assert_eq!(first["additionalDirectories"], json!(["/more"]));
    assert_eq!(first["_meta"]["acpbox"]["state"], "closed");
    assert_eq!(all[1]["title"], "title 248");
}

#[test]
fn a_page_of_exactly_the_limit_is_the_last() {
    let setup = Setup::host();
    fill(&setup, 100);
    let mut client = setup.connect();
    assert_eq!(pages(&mut client, &json!({})).len(), 1);
}

#[test]
fn sessions_of_one_folder_are_listed_alone() {
    let setup = Setup::host();
    fill(&setup, 1100);
    let mut client = setup.connect();
    let tenth = pages(&mut client, &json!({"cwd": "/tenth"}));
    assert_eq!(tenth.iter().map(Vec::len).collect::<Vec<_>>(), [100, 10]);
    assert!(
        tenth
            .concat()
            .iter()
            .all(|session| session["cwd"] == "/tenth")
    );
    assert_eq!(
        pages(&mut client, &json!({"cwd": "/tent"})),
        [Vec::<Value>::new()]
    );
    assert_eq!(
        pages(&mut client, &json!({"cwd": null})).concat().len(),
        1100
    );
}

#[test]
fn a_cursor_or_filter_that_is_wrong_is_named() {
    let setup = Setup::host();
    let mut client = setup.connect();
    for cursor in ["", "x", "1", "x:y"] {
        let error = client
            .call("session/list", json!({"cursor": cursor}))
            .unwrap_err();
        assert_eq!(error["code"], -32602);
        assert_eq!(
            error["message"],
            "Invalid params: `cursor` is none of acpbox's; leave it out for the first page"
        );
    }
    for field in ["cursor", "cwd"] {
        let error = client.call("session/list", json!({field: 7})).unwrap_err();
        assert_eq!(
            error["message"],
            format!("Invalid params: `{field}` must be a string")
        );
    }
}
