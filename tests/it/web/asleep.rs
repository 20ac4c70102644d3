//! A page that is left open keeps nothing awake, and one that reads wakes nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DESK, other, patient, reload, see, texts, visitor};
use crate::http::Web;
use crate::support::setup::Setup;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// Longer than anything that may sleep is awake here.
const LONG: Duration = Duration::from_millis(2000);

const IS_ASLEEP: &str = "document.querySelector('#facts').textContent.startsWith('asleep · testy')";

/// An agent that can go on with its session, and answers one prompt.
fn script(setup: &Setup, reply: &str) {
    let capabilities = json!({"sessionCapabilities": {"resume": {}}});
    setup.script(&[
        setup.record(),
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
        json!({"on": "session/resume", "result": {}}),
        expect_prompt(),
        chunk(reply),
        end_turn(),
    ]);
}

fn starts(setup: &Setup) -> usize {
    let lines = setup.received();
    let begun = |line: &&String| line.contains("\"method\":\"initialize\"");
    lines.iter().filter(begun).count()
}

#[test]
fn an_open_page_lets_a_session_sleep_and_only_a_prompt_wakes_it() {
    let setup = patient().vm("sleep_after = \"700ms\"");
    script(&setup, "before");
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    other
        .call("session/prompt", prompt(&session, "u1"))
        .unwrap();
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelector('#facts').textContent.startsWith('running · testy')");
    browser.expect("document.querySelector('main .reply')?.textContent.includes('before')");
    // An editor wants what it follows to be awake.
    std::thread::sleep(LONG);
    browser.expect("document.querySelector('#facts').textContent.startsWith('running · testy')");
    drop(other);
    browser.expect(IS_ASLEEP);
    browser.expect("document.querySelector('#sessions .state').textContent == 'asleep'");

    // It is read, by a page that was there and by one that comes.
    script(&setup, "after");
    reload(&mut browser);
    browser.expect("document.querySelector('main .reply')?.textContent.includes('before')");
    browser.expect(IS_ASLEEP);
    std::thread::sleep(LONG);
    browser.expect(IS_ASLEEP);
    assert_eq!(starts(&setup), 1);

    browser.press("c");
    browser.enter_text("u2");
    browser.press("Enter");
    browser.expect("document.querySelectorAll('main .turn-end').length == 2");
    assert_eq!(
        browser.value(&texts("main .reply .text")),
        json!(["before", "after"])
    );
    // On a busy machine it may have slept again before the prompt came.
    assert!(starts(&setup) >= 2);
    // Having prompted is no reason to stay awake.
    browser.expect(IS_ASLEEP);
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn a_question_keeps_a_session_awake_beside_a_page() {
    let setup = patient().vm("sleep_after = \"500ms\"");
    let capabilities = json!({"sessionCapabilities": {"resume": {}}});
    let mut steps = vec![
        json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
        expect_prompt(),
    ];
    steps.extend(super::asks(5, "Go on?"));
    steps.push(end_turn());
    setup.script(&steps);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelector('#facts').textContent.startsWith('running')");
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": "session/prompt", "params": prompt(&session, "u")});
    other.send(&message.to_string());
    browser.expect("document.querySelectorAll('.ask').length == 1");
    drop(other);
    std::thread::sleep(LONG);
    browser.click(".ask .allow");
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    browser.expect(IS_ASLEEP);
}

#[test]
fn whoever_asks_to_follow_only_what_is_live_starts_nothing() {
    let setup = patient().vm("sleep_after = \"300ms\"");
    script(&setup, "reply");
    let web = Web::start(&setup);
    let mut client = web.websocket(&[("authorization", &web.bearer())]);
    let capabilities = json!({"_meta": {"acpbox": {"letsSleep": true}}});
    let hello = json!({"protocolVersion": 1, "clientCapabilities": capabilities});
    client.call("initialize", hello).unwrap();
    let session = client.new_session(&setup);
    let only = |session: &str| json!({"sessionId": session, "cwd": setup.workspace(), "_meta": {"acpbox": {"start": false}}});
    let is_asleep = |client: &mut crate::http::Socket| {
        let list = client.call("session/list", json!({})).unwrap();
        list["sessions"][0]["_meta"]["acpbox"]["state"] == "sleeping"
    };
    assert!(crate::support::setup::wait_until(|| is_asleep(&mut client)));
    let followed = client.call("session/resume", only(&session)).unwrap();
    assert_eq!(
        followed["_meta"]["acpbox"]["state"], "sleeping",
        "{followed}"
    );
    let unknown = client.call("session/load", only("none")).unwrap_err();
    let said = unknown["message"].as_str().unwrap();
    assert!(said.contains("there is no session `none`"), "{unknown}");
    assert!(is_asleep(&mut client));
    assert_eq!(starts(&setup), 1);
    // It goes on following, and sees what another one's prompt brings.
    let mut other = web.websocket(&[("authorization", &web.bearer())]);
    other.initialize(json!({})).unwrap();
    other.call("session/prompt", prompt(&session, "u")).unwrap();
    let mut texts = client.texts();
    while !texts.contains(&"reply".to_owned()) {
        let update = client.receive();
        let text = update["params"]["update"]["content"]["text"].as_str();
        texts.extend(text.map(str::to_owned));
    }
    client.call("session/resume", only(&session)).unwrap();
}
