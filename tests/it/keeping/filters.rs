//! Lists are narrowed before they are cut.

use acpbox::store::SessionRow;
use serde_json::{Value, json};

use super::{days_ago, fill, row};
use crate::cli::Place;
use crate::support::client::Client;
use crate::support::setup::Setup;

/// Ten sessions, one a day, the newest last.
fn ten() -> Vec<(SessionRow, usize)> {
    let one = |number: i64| SessionRow {
        agent: if number % 2 == 0 { "even" } else { "odd" }.into(),
        vm: format!("vm{}", number % 3),
        cwd: format!("/sources/{}", number % 5).into(),
        title: Some(format!("Title {number} of 100% Work")),
        state: if number < 5 { "closed" } else { "open" }.into(),
        ..row(&format!("s{number}"), days_ago(10 - number) - 60_000)
    };
    (0..10).map(|number| (one(number), 0)).collect()
}

#[test]
fn the_limit_of_a_list_applies_after_all_filters() {
    let place = Place::new();
    fill(&place.file("state/acpbox/acpbox.db"), &ten());
    let check = |args: &[&str], expected: &[&str]| {
        let all = [&["sessions", "list", "--json"], args].concat();
        let list = place.acpbox(&all).expect(0).json();
        let ids: Vec<&str> = (list.as_array().unwrap().iter())
            .map(|it| it["sessionId"].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected, "{args:?}");
    };
    check(&["--agent", "even", "--limit", "2"], &["s8", "s6"]);
    check(&["--vm", "vm1"], &["s7", "s4", "s1"]);
    check(&["--vm", "vm1", "--state", "closed"], &["s4", "s1"]);
    check(&["--state", "open", "--limit", "1"], &["s9"]);
    check(&["--state", "live"], &[]);
    check(&["--since", "3d"], &["s9", "s8"]);
    check(&["--until", "9d"], &["s1", "s0"]);
    check(
        &["--since", "5d", "--until", "2d", "--agent", "odd"],
        &["s7"],
    );
    check(&["--cwd", "/sources/3", "--until", "3d"], &["s3"]);
    check(&["--title", "tITLE 7"], &["s7"]);
    check(&["--title", "0% w", "--limit", "1"], &["s9"]);
    check(&["--title", "%7%"], &[]);
    let after = jiff::Timestamp::from_millisecond(days_ago(2)).unwrap();
    check(&["--since", &after.to_string()], &["s9"]);
    let day = after.to_zoned(jiff::tz::TimeZone::system());
    let date = day.strftime("%Y-%m-%d").to_string();
    let list = place.acpbox(&["sessions", "list", "--until", &date]);
    let list = list.expect(0).stdout;
    assert!(list.contains("s0") && !list.contains("s9"), "{list}");
    for wrong in [["--since", "yesterday"], ["--until", "2026-13-01"]] {
        place
            .acpbox(&[&["sessions", "list"], &wrong[..]].concat())
            .expect_words(2, &[wrong[0], "7d"]);
    }
    place
        .acpbox(&["sessions", "list", "--state", "asleep"])
        .expect_words(2, &["live, open, sleeping, closed"]);
}

#[test]
fn a_session_that_is_live_in_another_process_is_listed_as_live() {
    let place = Place::new();
    let mut turn = place.long_turn(&[]);
    let live = place.only_session()["sessionId"].clone();
    // Newer ones, so that a limit before the filter would leave it out.
    let rows = (0..5).map(|n| (row(&format!("s{n}"), days_ago(-1)), 0));
    let rows: Vec<_> = rows.collect();
    fill(&place.file("state/acpbox/acpbox.db"), &rows);
    let ids = |state: &str| {
        let args = [
            "sessions", "list", "--json", "--limit", "2", "--state", state,
        ];
        let list = place.acpbox(&args).expect(0).json();
        let ids = list.as_array().unwrap().iter();
        ids.map(|it| it["sessionId"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids("live"), [live]);
    assert_eq!(ids("open"), ["s4", "s3"]);
    turn.child.kill().unwrap();
    turn.child.wait().unwrap();
    assert_eq!(ids("live"), Vec::<Value>::new());
    let args = ["sessions", "list", "--json", "--state", "open"];
    let list = place.acpbox(&args).json();
    assert_eq!(list.as_array().unwrap().len(), 6);
}

#[test]
fn clients_filter_their_list_by_meta() {
    let setup = Setup::host();
    fill(&setup.state().join("acpbox.db"), &ten());
    let mut client = setup.connect();
    let live = client.new_session();
    let ids = |client: &mut Client, params: Value| -> Vec<String> {
        let list = client.call("session/list", params).unwrap();
        let sessions = list["sessions"].as_array().unwrap().iter();
        sessions
            .map(|it| it["sessionId"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut check = |ours: Value, expected: &[&str]| {
        let params = json!({"_meta": {"acpbox": ours}});
        assert_eq!(ids(&mut client, params), expected, "{ours}");
    };
    check(json!({"state": "live"}), &[&live]);
    check(json!({"state": "closed", "agent": "odd"}), &["s3", "s1"]);
    check(json!({"since": "4d", "until": "1d", "vm": "vm1"}), &["s7"]);
    check(json!({"until": "1971-01-01T00:00:00Z"}), &[]);
    let params = json!({"cwd": "/sources/1", "_meta": {"acpbox": {"agent": "even"}, "theirs": 1}});
    assert_eq!(ids(&mut client, params), ["s6"]);
    for (ours, word) in [
        (json!({"state": "asleep"}), "unknown variant `asleep`"),
        (json!({"sinse": "7d"}), "unknown field `sinse`"),
        (json!({"since": "soon"}), "`_meta.acpbox.since`"),
        (json!(7), "`_meta.acpbox`"),
    ] {
        let params = json!({"_meta": {"acpbox": ours}});
        let error = client.call("session/list", params).unwrap_err();
        assert_eq!(error["code"], -32602, "{error}");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
}
