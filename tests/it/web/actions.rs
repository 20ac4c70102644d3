//! What can be done with a session from the page, and what goes wrong with it.

use serde_json::{Value, json};

use super::hostile::{FOREIGN, PAYLOAD};
use super::{DESK, PHONE, other, patient, see, texts, visitor, waits};
use crate::html::FAINT;
use crate::http::Web;
use crate::support::browser::{Browser, View};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

fn act(browser: &mut Browser, action: &str) {
    browser.click("#actions-button");
    browser.expect("document.querySelector('#actions:popover-open') != null");
    browser.click(action);
}

const STATES: &str = "[...document.querySelectorAll('#sessions .state')].map(it => it.textContent)";

#[test]
fn a_session_is_forked_closed_and_deleted() {
    let setup = patient();
    setup.script(&[expect_prompt(), chunk("first"), end_turn()]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    other
        .call("session/prompt", prompt(&session, "u1"))
        .unwrap();
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");

    setup.script(&[
        expect_prompt(),
        chunk("second"),
        end_turn(),
        expect_prompt(),
        chunk("begun"),
        waits("session/cancel"),
    ]);
    act(&mut browser, "#fork");
    browser.expect(&format!(
        "location.hash.length > 30 && location.hash != '#/{session}'"
    ));
    browser.expect("document.activeElement.id == 'prompt'");
    browser.expect("document.querySelectorAll('#sessions a').length == 2");
    browser.enter_text("u2");
    browser.press("Enter");
    browser.expect("document.querySelectorAll('main .turn-end').length == 2");
    assert_eq!(
        browser.value(&texts("main .reply .text")),
        json!(["first", "second"])
    );

    // Looking at what can be done leaves the turn alone; closing it is asked about.
    browser.enter_text("u3");
    browser.press("Enter");
    browser.expect("document.querySelector('main').textContent.includes('begun')");
    browser.click("#actions-button");
    browser.expect("document.querySelector('#actions:popover-open') != null");
    browser.screenshot("web-desk-actions.png");
    browser.press("Escape");
    browser.expect("document.querySelector('#actions:popover-open') == null");
    act(&mut browser, "#close");
    browser.expect("document.querySelector('#confirm-dialog').open");
    browser.expect("document.querySelector('#confirm-text').textContent.startsWith('A turn runs')");
    assert_eq!(
        browser.value("document.activeElement.textContent"),
        "Cancel"
    );
    browser.press("Escape");
    browser.expect("!document.querySelector('#confirm-dialog').open");
    assert_eq!(
        browser.value("document.querySelectorAll('main .turn-end').length"),
        2
    );
    act(&mut browser, "#close");
    browser.expect("document.querySelector('#confirm-dialog').open");
    browser.click("#confirm-submit");
    browser.expect("document.querySelector('#facts').textContent.startsWith('closed · testy')");
    browser.expect(&format!("{STATES}.join() == 'closed,running'"));
    assert_eq!(
        browser.value("document.querySelector('#close').disabled"),
        true
    );

    // For good, but only if somebody is sure.
    for is_sure in [false, true] {
        act(&mut browser, "#delete");
        browser.expect("document.querySelector('#confirm-dialog').open");
        browser.screenshot("web-desk-delete.png");
        browser.click(if is_sure {
            "#confirm-submit"
        } else {
            "#confirm-dialog [data-close]"
        });
        browser.expect("!document.querySelector('#confirm-dialog').open");
        if !is_sure {
            let count = "document.querySelectorAll('#sessions a').length";
            assert_eq!(browser.value(count), 2);
        }
    }
    browser.expect("document.querySelectorAll('#sessions a').length == 1");
    browser.expect("document.querySelector('#composer').hidden && location.hash == '#/'");

    // Somebody else deletes what is seen here.
    see(&mut browser, &session);
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    other
        .call("session/delete", json!({"sessionId": session}))
        .unwrap();
    browser.expect("document.querySelector('#composer').hidden && location.hash == '#/'");
    browser.expect("document.querySelectorAll('#sessions a').length == 0");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn what_goes_wrong_is_said_and_the_session_stays() {
    let setup = patient();
    setup.script(&[expect_prompt(), chunk("first"), end_turn()]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    other
        .call("session/prompt", prompt(&session, "u1"))
        .unwrap();
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    setup.script(&[json!({"stderr": PAYLOAD}), json!({"exit": 3})]);
    act(&mut browser, "#fork");
    browser.expect("document.querySelector('#problem').textContent.length > 20");
    browser.expect("document.querySelector('#working').hidden");
    assert_eq!(
        browser.value("location.hash.slice(2)"),
        Value::from(session.as_str())
    );
    // A new session, too, says why there is none.
    browser.value("document.activeElement.blur(), 0");
    browser.press("n");
    browser.expect("document.querySelector('#new-dialog').open");
    browser.press("Enter");
    browser.expect("!document.querySelector('#new-problem').hidden");
    let said = browser.value("document.querySelector('#new-problem').textContent");
    assert!(said.as_str().unwrap().contains("testy"), "{said}");
    assert_eq!(browser.value(FOREIGN), json!([]));
    browser.press("Escape");
    browser.expect("document.querySelector('#facts').textContent.startsWith('running')");
}

#[test]
fn options_of_each_kind_are_set_and_their_names_stay_text() {
    let setup = patient();
    let option = |on: bool, deep: &str| {
        json!([
            {"id": "think", "name": PAYLOAD, "type": "boolean", "currentValue": on},
            {"id": "depth", "name": "Depth", "type": "select", "currentValue": deep, "options": [
                {"group": "g", "name": PAYLOAD, "options": [{"value": "low", "name": PAYLOAD}]},
                {"group": "h", "name": "Deep", "options": [{"value": "high", "name": "High"}]}]},
            {"id": "odd", "name": "Odd", "type": "slider", "currentValue": 5},
        ])
    };
    let set = |on, deep| json!({"on": "session/set_config_option", "result": {"configOptions": option(on, deep)}});
    setup.script(&[
        setup.record(),
        json!({"on": "session/new", "result": {"sessionId": "s", "configOptions": option(false, "low")}}),
        set(true, "low"),
        waits("session/set_config_option"),
        set(true, "high"),
    ]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelectorAll('#settings label').length == 2");
    browser.expect("!document.querySelector('#settings input').disabled");
    for is_dark in [false, true] {
        browser.look(View { is_dark, ..PHONE });
        assert_eq!(browser.value("document.documentElement.scrollWidth"), 320);
        assert_eq!(browser.value(FAINT), json!([]));
    }
    browser.screenshot("web-phone-settings.png");
    browser.look(DESK);
    browser.click("#settings input");
    let is_received = |what: &str| setup.received().iter().any(|line| line.contains(what));
    assert!(crate::support::setup::wait_until(|| is_received(
        r#""configId":"think","type":"boolean","value":true"#
    )));
    browser.expect("document.querySelector('#settings input').checked");
    browser.value("(() => { const it = document.querySelector('#settings select'); it.value = 'high'; it.dispatchEvent(new Event('change')); })()");
    assert!(crate::support::setup::wait_until(|| is_received(
        r#""configId":"depth","value":"high""#
    )));
    browser.expect("document.querySelector('#settings select').value == 'high'");
    assert_eq!(browser.value(FOREIGN), json!([]));
    // Once it is closed they are shown, and set by nobody.
    other
        .call("session/close", json!({"sessionId": session}))
        .unwrap();
    browser.expect("[...document.querySelectorAll('#settings input, #settings select')].every(it => it.disabled)");
    browser.expect("document.querySelector('#facts').textContent.startsWith('closed')");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}
