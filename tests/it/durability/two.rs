//! Two acpbox processes on one database.

use super::*;
use crate::support::bare::prompt;

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
        ("session/delete", json!({"sessionId": first})),
        ("session/close", json!({"sessionId": first})),
    ] {
        let id = other.send_request(method, params);
        let error = other.answer(id).expect_err(method);
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("live in another acpbox process"),
            "{method}: {error}"
        );
    }
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
