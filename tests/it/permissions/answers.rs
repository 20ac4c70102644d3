//! Answers of clients' that are none.

use serde_json::{Value, json};

use super::{CANCELLED, REQUEST, asks, asks_with, command, listed, results};
use crate::support::client::value;
use crate::support::setup::Setup;
use crate::support::steps::{end_turn, expect_prompt, prompt};

#[test]
fn an_answer_that_was_never_offered_allows_nothing() {
    let setup = Setup::new();
    let selected =
        |id: &str| json!({"outcome": {"outcome": "selected", "optionId": id}}).to_string();
    let odd = [
        selected("allow"),
        selected("Always"),
        selected("\u{1b}[31mred"),
        selected(""),
        r#"{"outcome":{"outcome":"selected","optionId":"no","optionId":"always"}}"#.to_owned(),
        r#"{"outcome":{"outcome":"selected"}}"#.to_owned(),
        r#"{"outcome":{"outcome":"granted","optionId":"always"}}"#.to_owned(),
        r#"{"outcome":"selected","optionId":"always"}"#.to_owned(),
        r#"{"optionId":"always"}"#.to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
    ];
    let mut steps = vec![setup.record(), expect_prompt()];
    steps.extend(
        (0..)
            .zip(&odd)
            .flat_map(|(id, _)| asks(id, &command("make a"))),
    );
    let twins = json!([
        {"optionId": "one", "name": "Yes", "kind": "allow_once"},
        {"optionId": "one", "name": "No", "kind": "reject_once"}]);
    steps.extend(asks_with(50, &command("make a"), &twins));
    // What ACP lets an answer carry goes by as it came.
    steps.extend(asks(51, &command("make a")));
    steps.push(end_turn());
    let mut client = setup.connect();
    let session = client.new_session_of(&steps);
    let turn = client.request("session/prompt", prompt(&session, "go"));
    let good = r#"{"_meta":{"x":1},"outcome":{"optionId":"once","outcome":"selected"}}"#;
    for result in odd
        .iter()
        .map(String::as_str)
        .chain([selected("one").as_str(), good])
    {
        let asked = client.expect(REQUEST);
        client.respond(&asked, result);
    }
    client.answer(turn).unwrap();
    let results = results(&setup);
    let (last, refused) = results.split_last().unwrap();
    assert_eq!(refused, vec![value(CANCELLED); odd.len() + 1]);
    assert_eq!(*last, value(good));
    assert_eq!(listed(&setup), Vec::<Value>::new());
    let events = client.events(&session);
    let reasons: Vec<&str> = (events.iter())
        .filter(|event| event["kind"] == "_acpbox/permission/denied")
        .map(|event| event["message"]["params"]["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons.len(), odd.len() + 1, "{reasons:#?}");
    assert!(reasons[0].contains("`allow`"), "{}", reasons[0]);
    assert!(!reasons[2].contains('\u{1b}'), "{}", reasons[2]);
    assert!(reasons[6].contains("neither"), "{}", reasons[6]);
    let by_client = events.iter().filter(|event| {
        event["kind"] == "session/request_permission:result" && event["direction"] == "client"
    });
    assert_eq!(by_client.count(), 1, "only the last was an answer");
}
