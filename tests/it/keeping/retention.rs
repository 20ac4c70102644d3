//! Sessions over a limit go, longest unused first, and live ones never.

use acpbox::store::Store;
use serde_json::{Value, json};

use super::{days_ago, fill, row};
use crate::cli::{Ended, Place};
use crate::support::setup::{Setup, wait_until};
use crate::support::site::eventually;

fn ids(place: &Place) -> Vec<String> {
    let list = place.acpbox(&["sessions", "list", "--json"]).expect(0);
    let list = list.json();
    let ids = list.as_array().unwrap().iter();
    ids.map(|it| it["sessionId"].as_str().unwrap().to_owned())
        .collect()
}

fn prune(place: &Place, args: &[&str]) -> Ended {
    place.acpbox(&[&["sessions", "prune"], args].concat())
}

#[test]
fn each_limit_deletes_the_longest_unused() {
    let check = |config: &str, args: &[&str], left: &[&str], reason: &str| {
        let place = Place::new();
        let rows = [(9, 400_000), (8, 400_000), (2, 400_000), (1, 400_000)];
        let rows: Vec<_> = (rows.iter())
            .map(|(days, bytes)| (row(&format!("s{days}"), days_ago(*days)), *bytes))
            .collect();
        fill(&place.file("state/acpbox/acpbox.db"), &rows);
        place.configure(config);
        let dry = prune(&place, &[&["--dry-run"], args].concat()).expect(0);
        assert!(dry.stdout.contains(reason), "{dry:?}");
        assert_eq!(ids(&place).len(), 4, "a dry run deletes nothing");
        prune(&place, args).expect_words(2, &["--yes"]);
        assert_eq!(ids(&place).len(), 4);
        let told = prune(&place, &[&["--yes"], args].concat()).expect(0).stderr;
        assert_eq!(ids(&place), left, "{config} {args:?}");
        for row in rows.iter().map(|(row, _)| &row.id) {
            let is_left = left.contains(&row.as_str());
            assert_eq!(told.contains(row.as_str()), !is_left, "{told}");
            if reason != "max_bytes" {
                assert_eq!(dry.stdout.contains(row.as_str()), !is_left, "{dry:?}");
            }
        }
        prune(&place, &[&["--yes"], args].concat()).expect_words(0, &["no session is over"]);
    };
    check(
        "[retention]\nmax_age = \"7d\"\n",
        &[],
        &["s1", "s2"],
        "max_age",
    );
    check(
        "[retention]\nmax_sessions = 1\n",
        &[],
        &["s1"],
        "max_sessions",
    );
    // Two of four fit. What deleting one frees is known only afterwards.
    check(
        "[retention]\nmax_bytes = \"1100000\"\n",
        &[],
        &["s1", "s2"],
        "max_bytes",
    );
    check("", &["--max-age", "36h"], &["s1"], "max_age");
    // Flags win over the file, and the first limit that holds is told.
    check(
        "[retention]\nmax_age = \"1h\"\nmax_sessions = 3\n",
        &["--max-age", "8d"],
        &["s1", "s2"],
        "max_age",
    );
}

#[test]
fn without_limits_nothing_is_pruned() {
    let place = Place::new();
    fill(&place.file("state/acpbox/acpbox.db"), &[(row("s", 0), 0)]);
    prune(&place, &["--yes"]).expect_words(2, &["[retention]", "--max-age"]);
    for (flag, wrong) in [("--max-age", "long"), ("--max-bytes", "10 furlongs")] {
        prune(&place, &["--yes", flag, wrong]).expect_words(2, &[flag, wrong]);
    }
    place.configure("[retention]\nmax_age = 7\n");
    prune(&place, &["--yes"]).expect_words(2, &["max_age", "a duration"]);
    place.configure("[retention]\nmax_agee = \"7d\"\n");
    prune(&place, &["--yes"]).expect_words(2, &["max_age"]);
    place.configure("");
    assert_eq!(ids(&place), ["s"]);
}

#[test]
fn a_session_that_is_live_in_another_process_is_kept() {
    let place = Place::new();
    let mut turn = place.long_turn(&[]);
    let live = place.only_session()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    fill(
        &place.file("state/acpbox/acpbox.db"),
        &[
            (row("newer", days_ago(-1)), 0),
            (row("newest", days_ago(-2)), 0),
        ],
    );
    let pruned = prune(&place, &["--yes", "--max-sessions", "2"]).expect(0);
    assert_eq!(ids(&place), ["newest", live.as_str()], "{pruned:?}");
    prune(&place, &["--yes", "--max-sessions", "0", "--max-age", "0s"]).expect(0);
    assert_eq!(ids(&place), [live.as_str()]);
    turn.child.kill().unwrap();
    turn.child.wait().unwrap();
    prune(&place, &["--yes", "--max-sessions", "0"]).expect(0);
    assert_eq!(ids(&place), [""; 0]);
}

#[test]
fn a_sleeping_session_that_a_client_of_another_process_follows_is_kept() {
    let setup = Setup::host().vm("agent_sleep_after = \"100ms\"");
    let mut client = setup.start();
    client.initialize_offering(json!({"_meta": {"acpbox": {"agentNotifications": true}}}));
    let capabilities = json!({"loadSession": false, "sessionCapabilities": {"resume": {}}});
    let script = [
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
        json!({"on": "session/resume", "result": {}}),
    ];
    let session = client.new_session_of(&script);
    client.prompt(&session, "one").unwrap();
    client.expect("_acpbox/session/sleep");
    let followed = setup.state().join("followed").join(&session);
    assert!(wait_until(|| followed.exists()), "nothing says so");
    let prune = || {
        let command = setup.command();
        let mut program = std::process::Command::new(command.get_program());
        program.args(["sessions", "prune", "--yes", "--max-sessions", "0"]);
        program.env_clear().envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let output = program.current_dir(setup.workspace()).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let told = prune();
    assert!(told.contains("no session is over"), "{told}");
    client.prompt(&session, "two").unwrap();
    client.expect("_acpbox/session/wake");
    client.expect("_acpbox/session/sleep");
    assert!(wait_until(|| followed.exists()), "nothing says so");
    assert!(prune().contains("no session is over"));
    drop(client);
    assert!(prune().contains(&session), "nobody follows it any more");
}

#[test]
fn a_process_applies_the_limits_in_the_background() {
    let setup = Setup::host().config("[retention]\nmax_age = \"30d\"\nmax_sessions = 2\n");
    let rows = [40, 20, 10, 5].map(|days| (row(&format!("s{days}"), days_ago(days)), 5000));
    fill(&setup.state().join("acpbox.db"), &rows);
    let mut client = setup.connect();
    let mut left = Vec::new();
    let is_done = wait_until(|| {
        let list = client.call("session/list", json!({})).unwrap();
        let sessions = list["sessions"].as_array().unwrap().iter();
        left = sessions
            .map(|it| it["sessionId"].clone())
            .collect::<Vec<Value>>();
        left.len() <= 2
    });
    assert!(is_done, "{left:?}");
    assert_eq!(left, ["s5", "s10"]);
    let params = json!({"sessionId": "s20"});
    let gone = client.call("_acpbox/session/events", params).unwrap_err();
    assert!(gone["message"].as_str().unwrap().contains("s20"), "{gone}");
    client.check_next_session();
}

#[test]
fn a_file_gives_back_what_deleting_frees() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acpbox.db");
    let rows = [(row("large", 1), 20_000_000), (row("small", 2), 90_000)];
    fill(&path, &rows);
    let size = || std::fs::metadata(&path).unwrap().len();
    assert!(size() > 20_000_000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&path).unwrap();
        assert!(store.used_bytes().await.unwrap() > 20_000_000);
        let bytes = store.session_bytes("large").await.unwrap();
        let freed = store.used_bytes().await.unwrap();
        store.delete_session("large").await.unwrap().unwrap();
        let freed = freed - store.used_bytes().await.unwrap();
        // Never less than is freed, lest too many go; and not by far more.
        assert!((freed..freed * 3).contains(&bytes), "{bytes}, {freed}");
        // All but some megabytes, which later events use.
        let patience = std::time::Duration::from_secs(20);
        assert!(eventually(patience, || size() < 8_000_000), "{}", size());
        store.check().await.unwrap();
        assert_eq!(store.last_seq("small").await.unwrap(), 100);
        store.close().await.unwrap();
    });
}
