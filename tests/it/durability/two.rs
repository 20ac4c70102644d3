//! Two acpbox processes on one database.

use super::*;
use crate::support::bare::prompt;
use crate::support::site::eventually;

/// Of each of the four tests.
const ROUNDS_WITH_TWO: u64 = 15;

#[test]
fn two_writers_that_are_killed_lose_nothing_that_was_seen_first_part() {
    check_killed(1);
}

#[test]
fn two_writers_that_are_killed_lose_nothing_that_was_seen_second_part() {
    check_killed(2);
}

#[test]
fn two_writers_that_are_killed_lose_nothing_that_was_seen_third_part() {
    check_killed(3);
}

#[test]
fn two_writers_that_are_killed_lose_nothing_that_was_seen_fourth_part() {
    check_killed(4);
}

/// Both stream into one database; one is killed, then the other.
fn check_killed(part: u64) {
    let mut random = Random(seed().wrapping_mul(4).wrapping_add(part));
    let site = Site::new();
    let workspace = site.repository("project");
    let mut total = 0;
    for round in 0..ROUNDS_WITH_TWO {
        let mut both = [(); 2].map(|()| Raw::start(&site, &[]));
        let sessions = both.each_mut().map(|raw| raw.open(&workspace));
        for (raw, session) in both.iter_mut().zip(&sessions) {
            raw.prompt(session, "[[flood:100000]]");
        }
        for raw in &mut both {
            raw.wait_for(|line| seq(line).is_some());
        }
        let watch = site.watch();
        for raw in &mut both {
            std::thread::sleep(Duration::from_micros(random.below(100_000)));
            raw.signal(Signal::KILL);
            raw.wait(AT_MOST).expect("it was killed");
        }
        watch.expect_none(AT_MOST);
        for (raw, session) in both.into_iter().zip(&sessions) {
            let rows = stored(&site.database(), session);
            let count = expect_stored(&raw.lines(), &rows);
            assert!(count > 0, "round {round}: nothing came");
            // And nothing is missing between.
            let is_whole = rows.iter().zip(1..).all(|(row, seq)| row.seq == seq);
            assert!(is_whole, "round {round}");
            total += count;
        }
    }
    println!("{total} events were seen, and all are there");
}

#[test]
fn two_processes_share_a_database_and_a_session_has_one_driver() {
    let site = Site::new();
    let workspace = site.repository("project");
    let mut one = site.connect(&["--agent", "example"]);
    let mut other = site.connect(&["--agent", "example"]);
    let open = |acpbox: &mut Bare| {
        let created = acpbox.request("session/new", json!({"cwd": workspace, "mcpServers": []}));
        created["sessionId"].as_str().unwrap().to_owned()
    };
    let (first, second) = (open(&mut one), open(&mut other));

    // Both stream at once.
    let mine = one.send_request("session/prompt", prompt(&first, "[[flood:5000]]"));
    let theirs = other.send_request("session/prompt", prompt(&second, "[[flood:5000]]"));
    assert_eq!(one.answer_of(mine)["stopReason"], "end_turn");
    assert_eq!(other.answer_of(theirs)["stopReason"], "end_turn");

    // Each reads what the other has, and drives only its own.
    let list = other.request("session/list", json!({}));
    let ids: Vec<&str> = (list["sessions"].as_array().unwrap().iter())
        .filter_map(|it| it["sessionId"].as_str())
        .collect();
    assert!(ids.contains(&&*first) && ids.contains(&&*second), "{list}");
    assert!(read_back(&mut other, &first, 5000).len() >= 5000);
    let again = json!({"sessionId": first, "cwd": workspace, "mcpServers": []});
    for (method, params) in [
        ("session/prompt", prompt(&first, "[[say:mine]]")),
        ("session/load", again.clone()),
        ("session/resume", again.clone()),
        (
            "session/set_mode",
            json!({"sessionId": first, "modeId": "quiet"}),
        ),
        ("session/fork", again.clone()),
        ("session/delete", json!({"sessionId": first})),
        ("session/close", json!({"sessionId": first})),
    ] {
        let id = other.send_request(method, params);
        let error = other.answer(id).expect_err(method);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("live in another acpbox process")
                && message.contains(&one.id().to_string()),
            "{method}: {error}"
        );
    }
    // Nor is its turn cancelled from there.
    let mine = one.send_request("session/prompt", prompt(&first, "[[slow:5]]"));
    other.notify("session/cancel", json!({"sessionId": first}));
    assert_eq!(one.answer_of(mine)["stopReason"], "end_turn");
    let answer = one.prompt(&first, "[[say:still mine]]");
    assert_eq!(answer["stopReason"], "end_turn");

    // Once its driver has gone, even by force, another may drive it.
    one.signal(Signal::KILL);
    one.wait(AT_MOST).expect("it was killed");
    let resumed = other.request("session/resume", again);
    assert_eq!(resumed["_meta"]["acpbox"]["restored"]["tier"], "resume");
    let answer = other.prompt(&first, "[[say:mine now]]");
    assert_eq!(answer["stopReason"], "end_turn");
    let answer = other.prompt(&second, "[[say:and mine]]");
    assert_eq!(
        answer["stopReason"], "end_turn",
        "the other's end took our VM along"
    );
}

/// Lets agents sleep soon.
const SLEEPY: &str = "[vms.default]\nagent_sleep_after = \"300ms\"\n";

fn state_of(acpbox: &mut Bare, session: &str) -> String {
    let list = acpbox.request("session/list", json!({}));
    let all = list["sessions"].as_array().unwrap();
    let this = all.iter().find(|it| it["sessionId"] == session).unwrap();
    this["_meta"]["acpbox"]["state"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_sleeping_session_may_be_driven_elsewhere_and_its_client_catches_up() {
    let site = Site::new();
    site.configure(SLEEPY);
    let workspace = site.repository("project");
    let mut one = site.connect(&["--agent", "example"]);
    let created = one.request("session/new", json!({"cwd": workspace, "mcpServers": []}));
    let session = created["sessionId"].as_str().unwrap().to_owned();
    one.prompt(&session, "[[say:first]]");
    assert!(eventually(AT_MOST * 5, || state_of(&mut one, &session) == "sleeping"));

    site.configure("");
    let mut other = site.connect(&["--agent", "example"]);
    let params = json!({"sessionId": session, "cwd": workspace, "mcpServers": []});
    other.request("session/resume", params);
    other.prompt(&session, "[[say:theirs]]");
    let refused = one.send_request("session/prompt", prompt(&session, "[[say:too soon]]"));
    let error = one.answer(refused).unwrap_err();
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("live in another acpbox process"),
        "{error}"
    );
    other.close(AT_MOST * 5).expect("it ends");

    one.received.clear();
    one.prompt(&session, "[[say:last]]");
    // What another process did meanwhile came first.
    let text = one.text();
    assert!(
        text.starts_with("theirs") && text.contains("last"),
        "{text}"
    );
    let prompts = one.updates("user_message_chunk").count();
    assert_eq!(prompts, 1, "the other's prompt and not the own one");
    let seqs: Vec<i64> = (one.received.iter())
        .filter_map(|it| it["params"]["_meta"]["acpbox"]["seq"].as_i64())
        .collect();
    assert!(seqs.is_sorted() && !seqs.is_empty(), "{seqs:?}");
    let rows = stored(&site.database(), &session);
    let numbers: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
}

#[test]
fn two_processes_in_one_vm_see_the_same_files_and_neither_takes_them_away() {
    let site = Site::new();
    let workspace = site.repository("project");
    let mut one = site.connect(&["--agent", "example"]);
    let mut other = site.connect(&["--agent", "example"]);
    // Both boot it at once.
    let params = json!({"cwd": workspace, "mcpServers": []});
    let first = one.send_request("session/new", params.clone());
    let second = other.send_request("session/new", params);
    let (first, second) = (one.answer_of(first), other.answer_of(second));
    let vm = first["_meta"]["acpbox"]["vm"].as_str().unwrap().to_owned();
    assert_eq!(second["_meta"]["acpbox"]["vm"], vm);
    let first = first["sessionId"].as_str().unwrap().to_owned();
    let second = second["sessionId"].as_str().unwrap().to_owned();
    let write =
        "[[shell:echo home > ~/note; echo tmp > /tmp/note; echo work > note; sleep 300 & echo]]";
    one.prompt(&first, write);
    other.prompt(
        &second,
        "[[shell:cat ~/note /tmp/note note; pgrep -c sleep]]",
    );
    let said = serde_json::to_string(&other.received).unwrap();
    assert!(
        said.contains("home\\ntmp\\nwork\\n0"),
        "files are shared, processes are not: {said}"
    );

    // Neither deletes nor stops it for the other.
    let ids = [one.id(), other.id()];
    for (acpbox, theirs) in [(&mut one, ids[1]), (&mut other, ids[0])] {
        let id = acpbox.send_request("_acpbox/vm/delete", json!({"name": vm, "force": true}));
        let error = acpbox.answer(id).unwrap_err();
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .contains(&theirs.to_string()),
            "{error}"
        );
    }
    let slept = other.request("_acpbox/vm/sleep", json!({"name": vm}));
    assert_eq!(
        (&slept["state"], &slept["holder"]),
        (&json!("running"), &json!(one.id()))
    );
    let id = other.send_request("_acpbox/vm/sleep", json!({"name": vm}));
    let error = other.answer(id).unwrap_err();
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains(&one.id().to_string()),
        "{error}"
    );
    one.prompt(
        &first,
        "[[shell:cat /tmp/note && test -d .vscode && test ! -w .vscode && echo held]]",
    );
    assert!(
        serde_json::to_string(&one.received)
            .unwrap()
            .contains("held"),
        "{:?}",
        one.received
    );

    // The first one's end leaves the second its files and its protection.
    other.prompt(&second, "[[shell:cat /tmp/note]]");
    one.signal(Signal::KILL);
    one.wait(AT_MOST).expect("it was killed");
    other.received.clear();
    other.prompt(
        &second,
        "[[shell:cat ~/note /tmp/note; test ! -w .vscode && echo held]]",
    );
    let said = serde_json::to_string(&other.received).unwrap();
    assert!(said.contains("home\\ntmp\\nheld"), "{said}");
    other.close(AT_MOST * 5).expect("it ends");
    assert!(
        !workspace.join(".vscode").exists(),
        "placeholders go with the last guest"
    );
}
