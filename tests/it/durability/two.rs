//! Two acpbox processes on one database.

use super::*;
use crate::support::bare::prompt;

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
