//! What one client can do to another's: ids that are guessed, or the same.

use serde_json::{Value, json};

use super::editor::Editor;
use super::{ask, serve};
use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// More than the ids of requests that a test's clients have been sent.
const GUESSES: u64 = 64;

/// A server with a session of each of two clients, whose agents keep what they
/// receive in `received-one` and `received-two` and ask in their turn.
fn two_sessions(setup: &Setup, editors: [&mut Editor; 2]) -> [String; 2] {
    let sessions = editors
        .into_iter()
        .zip(["one", "two"])
        .map(|(editor, name)| {
            setup.script(&[
                json!({"record": setup.workspace().join(format!("received-{name}"))}),
                expect_prompt(),
                ask(7),
                json!({"expect_answer": 7}),
                chunk(name),
                end_turn(),
                expect_prompt(),
                end_turn(),
            ]);
            editor.new_session(setup)
        });
    sessions.collect::<Vec<_>>().try_into().unwrap()
}

fn received(setup: &Setup, name: &str) -> Vec<Value> {
    let path = setup.workspace().join(format!("received-{name}"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(value).collect()
}

#[test]
fn equal_ids_of_two_clients_and_guessed_ones_never_meet() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    // Both count from the same number.
    let mut one = Editor::connect(&path, "one", 100);
    let mut two = Editor::connect(&path, "two", 100);
    let [first, second] = two_sessions(&setup, [&mut one, &mut two]);
    let turn = one.send("session/prompt", prompt(&first, "go one"));
    let asked_one = one.expect("session/request_permission");

    // Two has no request of that id, nor was it asked anything yet.
    let cancel = json!({"requestId": turn});
    two.notify("$/cancel_request", cancel.clone());
    let guess = |editor: &mut Editor| {
        for id in 0..GUESSES {
            editor.select(&json!({ "id": id }), "yes");
            editor.select(&json!({"id": id.to_string()}), "yes");
        }
        editor.select(&json!({"id": 7}), "yes");
        editor.select(&json!({"id": null}), "yes");
        // All of it has been looked at.
        editor.call("session/list", json!({})).unwrap();
    };
    guess(&mut two);
    assert!(one.gets_no("$/cancel_request"), "two's guess was an answer");

    // Now it has one, which is another.
    let same = two.send("session/prompt", prompt(&second, "go two"));
    let asked_two = two.expect("session/request_permission");
    assert!(same > turn);
    let again = json!({"jsonrpc": "2.0", "id": turn, "method": "session/set_mode",
        "params": {"sessionId": second, "modeId": "m"}});
    two.raw(&again);
    two.notify("$/cancel_request", json!({"requestId": turn}));
    two.select(&asked_two, "no");
    two.answer(same).unwrap();
    guess(&mut two);
    one.select(&asked_one, "no");
    assert_eq!(one.answer(turn).unwrap()["stopReason"], "end_turn");
    one.expect_text("one");
    two.expect_text("two");

    for name in ["one", "two"] {
        let received = received(&setup, name);
        let answers: Vec<_> = received
            .iter()
            .filter(|it| it.get("method").is_none())
            .collect();
        let options = answers
            .iter()
            .map(|it| &it["result"]["outcome"]["optionId"]);
        assert_eq!(options.collect::<Vec<_>>(), ["no"], "{name}");
        let cancels = received
            .iter()
            .filter(|it| it["method"] == "$/cancel_request");
        assert!(name == "two" || cancels.count() == 0, "{received:#?}");
        let other = if name == "one" { "go two" } else { "go one" };
        let other = received.iter().any(|it| it.to_string().contains(other));
        assert!(!other, "{received:#?}");
    }
    // Neither was shown anything of the other's.
    for (editor, session) in [(&mut one, &second), (&mut two, &first)] {
        let all = editor.take();
        assert!(
            !all.iter()
                .any(|it| it.to_string().contains(session.as_str())),
            "{all:#?}"
        );
    }
    one.prompt(&first, "next").unwrap();
    two.prompt(&second, "next").unwrap();
}

#[test]
fn a_session_id_that_is_guessed_is_named_as_unknown_and_starts_nothing() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    let mut one = Editor::connect(&path, "one", 100);
    let mut two = Editor::connect(&path, "two", 200);
    let [first, _second] = two_sessions(&setup, [&mut one, &mut two]);
    let turn = one.send("session/prompt", prompt(&first, "go"));
    let asked = one.expect("session/request_permission");
    // The agent's own id of the session is none of its names here.
    let prompted = received(&setup, "one");
    let of_agent = prompted.iter().find(|it| it["method"] == "session/prompt");
    let of_agent = of_agent.unwrap()["params"]["sessionId"].as_str().unwrap();
    assert_ne!(of_agent, first);
    for guess in [
        "00000000-0000-0000-0000-000000000000",
        "../../etc/passwd",
        "",
        of_agent,
        &first.to_uppercase(),
        &first[..20],
        &format!("{first} "),
        &format!("{first}\u{0}"),
    ] {
        let place = json!({"sessionId": guess, "cwd": setup.workspace(), "mcpServers": []});
        for (method, params) in [
            ("session/prompt", prompt(guess, "mine")),
            (
                "session/set_mode",
                json!({"sessionId": guess, "modeId": "m"}),
            ),
            ("session/load", place.clone()),
            ("session/resume", place.clone()),
            ("session/fork", place),
            ("session/close", json!({"sessionId": guess})),
            ("_acpbox/session/events", json!({"sessionId": guess})),
            ("_v/anything", json!({"sessionId": guess})),
        ] {
            let error = two.call(method, params).expect_err(guess);
            let what = format!(
                "Resource not found: there is no session `{guess}`; session/list names those there are"
            );
            assert_eq!(
                (error["code"].as_i64(), error["message"].as_str()),
                (Some(-32002), Some(what.as_str())),
                "{method} {guess:?}"
            );
        }
        two.notify("session/cancel", json!({"sessionId": guess}));
    }
    for wrong in [json!(7), json!(null), json!([first]), json!({"id": first})] {
        let params = json!({"sessionId": wrong, "prompt": []});
        let error = two.call("session/prompt", params).unwrap_err();
        assert_eq!(
            error["message"],
            "Invalid params: `sessionId` is missing, a string"
        );
        two.notify("session/cancel", json!({ "sessionId": wrong }));
    }
    two.call("session/list", json!({})).unwrap();
    one.select(&asked, "no");
    assert_eq!(one.answer(turn).unwrap()["stopReason"], "end_turn");
    let received = received(&setup, "one");
    assert!(
        !received.iter().any(|it| it["method"] == "session/cancel"),
        "{received:#?}"
    );
    assert!(
        !received.iter().any(|it| it.to_string().contains("mine")),
        "{received:#?}"
    );
}

#[test]
fn an_answer_after_a_cancel_by_an_observer_or_for_another_question_allows_nothing() {
    let setup = Setup::host();
    let (_server, path) = serve(&setup);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
        expect_prompt(),
        ask(7),
        json!({"expect_answer": 7}),
        end_turn(),
    ]);
    let mut one = Editor::connect(&path, "one", 100);
    let session = one.new_session(&setup);
    let mut two = Editor::connect(&path, "two", 200);
    two.attach("session/resume", &setup, &session, json!({}));
    let turn = one.send("session/prompt", prompt(&session, "go"));
    let of_one = one.expect("session/request_permission");
    let of_two = two.expect("session/request_permission");
    // Once it looks on only, it has nothing to say any more, also of what it was asked.
    let observer = json!({"role": "observer"});
    two.attach("session/resume", &setup, &session, observer);
    two.select(&of_two, "yes");
    two.call("session/list", json!({})).unwrap();
    one.notify("session/cancel", json!({"sessionId": session}));
    assert_eq!(one.answer(turn).unwrap()["stopReason"], "cancelled");
    // The agent asks again, under the same id.
    let turn = one.send("session/prompt", prompt(&session, "again"));
    let asked = one.expect("session/request_permission");
    assert_ne!(asked["id"], of_one["id"]);
    for _ in 0..2 {
        one.select(&of_one, "yes");
        two.select(&of_two, "yes");
        two.select(&asked, "yes");
        for id in 0..GUESSES {
            two.select(&json!({ "id": id }), "yes");
        }
    }
    two.call("session/list", json!({})).unwrap();
    one.call("session/list", json!({})).unwrap();
    one.select(&asked, "no");
    one.select(&asked, "yes");
    one.answer(turn).unwrap();
    let answers = setup.received();
    let answers = answers.iter().map(|line| value(line));
    let answers: Vec<_> = answers.filter(|it| it.get("method").is_none()).collect();
    let outcomes: Vec<_> = answers.iter().map(|it| &it["result"]["outcome"]).collect();
    let expected = [
        &json!({"outcome": "cancelled"}),
        &json!({"outcome": "selected", "optionId": "no"}),
    ];
    assert_eq!(outcomes, expected);
}
