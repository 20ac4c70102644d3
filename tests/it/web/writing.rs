//! Prompts as they are written: the agent's commands, pictures, drafts.

use serde_json::{Value, json};

use super::hostile::{FOREIGN, PAYLOAD};
use super::{DESK, PHONE, other, patient, reload, see, texts, visitor};
use crate::html::FAINT;
use crate::http::Web;
use crate::support::browser::View;
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

/// What the agent was prompted with, the last time.
fn prompted(setup: &Setup) -> Option<Value> {
    let lines = setup.received();
    let messages = lines
        .iter()
        .map(|line| -> Value { serde_json::from_str(line).unwrap() });
    let mut prompts = messages.filter(|it| it["method"] == "session/prompt");
    Some(prompts.next_back()?["params"]["prompt"].take())
}

fn commands(all: Value) -> Value {
    json!({"send": {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "$SESSION",
        "update": {"sessionUpdate": "available_commands_update", "availableCommands": all}}}})
}

const SHOWN: &str = "[...document.querySelectorAll('#commands:not([hidden]) .command')].map(it => it.textContent).join(' ')";
const WRITTEN: &str = "document.querySelector('#prompt').value";

#[test]
fn commands_are_completed_by_keyboard_and_by_touch() {
    let setup = patient();
    let all = json!([
        {"name": "plan", "description": "Think first", "input": {"hint": "what to plan"}},
        {"name": "compact", "description": "Sum it up"},
        {"name": "review-plan", "description": "Look at it"},
    ]);
    setup.script(&[
        setup.record(),
        expect_prompt(),
        commands(all),
        chunk("one"),
        end_turn(),
        expect_prompt(),
        chunk("two"),
        json!({"expect": "session/cancel"}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.press("c");
    browser.enter_text("/");
    assert_eq!(browser.value(SHOWN), "");
    other.call("session/prompt", prompt(&session, "u")).unwrap();
    // Those that come while it is written are shown too.
    browser.expect(&format!("{SHOWN} == '/plan /compact /review-plan'"));
    browser.screenshot("web-desk-commands.png");
    browser.press("ArrowDown");
    let active = "document.querySelector('#commands [aria-selected=true] .command').textContent";
    assert_eq!(browser.value(active), "/compact");
    let named = "document.getElementById(document.querySelector('#prompt').getAttribute('aria-activedescendant')).textContent";
    assert_eq!(browser.value(named), "/compactSum it up");
    browser.press("ArrowUp");
    browser.press("ArrowUp");
    assert_eq!(browser.value(active), "/review-plan");
    browser.enter_text("pl");
    assert_eq!(browser.value(SHOWN), "/plan /review-plan");
    // Escape closes it for what is written, and cancels nothing.
    browser.press("Escape");
    assert_eq!(browser.value(SHOWN), "");
    browser.enter_text("a");
    assert_eq!(browser.value(SHOWN), "/plan /review-plan");
    browser.press("Tab");
    assert_eq!(browser.value(WRITTEN), "/plan ");
    assert_eq!(browser.value("document.activeElement.id"), "prompt");
    let hint = "document.querySelector('#command-hint:not([hidden])')?.textContent ?? ''";
    assert_eq!(browser.value(hint), "/plan what to plan");
    browser.enter_text("it");
    assert_eq!(browser.value(hint), "");
    browser.press("Enter");
    browser.expect("document.querySelector('main').textContent.includes('two')");
    assert_eq!(
        prompted(&setup),
        Some(json!([{"type": "text", "text": "/plan it"}]))
    );

    // On a phone, by a finger; a page that comes later knows them from the transcript.
    browser.look(PHONE);
    reload(&mut browser);
    browser.expect("document.querySelector('main')?.textContent.includes('two') == true");
    browser.value("document.querySelector('#prompt').focus()");
    browser.enter_text("/comp");
    browser.expect(&format!("{SHOWN} == '/compact'"));
    for is_dark in [false, true] {
        browser.look(View { is_dark, ..PHONE });
        assert_eq!(browser.value("document.documentElement.scrollWidth"), 320);
        assert_eq!(browser.value(FAINT), json!([]));
    }
    browser.screenshot("web-phone-commands.png");
    browser.click("#commands li");
    assert_eq!(browser.value(WRITTEN), "/compact ");
    assert_eq!(browser.value("document.activeElement.id"), "prompt");
    browser.value("document.querySelector('#prompt').value = ''");
    browser.enter_text("see /plan");
    assert_eq!(browser.value(SHOWN), "");
    assert_eq!(
        browser.value("!document.querySelector('#stop').hidden"),
        true
    );
    browser.click("#stop");
    browser.expect("document.querySelectorAll('main .turn-end').length == 2");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn names_of_commands_stay_text() {
    let setup = patient();
    let name = PAYLOAD.replace(' ', "_");
    let all = json!([
        {"name": name, "description": PAYLOAD, "input": {"hint": PAYLOAD}},
        {"name": format!("\u{202e}{name}"), "description": {}},
        {"name": 5}, 7, null, {"name": "x".repeat(5000)},
        {"name": "fine", "description": null, "input": 3},
    ]);
    setup.script(&[expect_prompt(), commands(all), end_turn()]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    other.call("session/prompt", prompt(&session, "u")).unwrap();
    let mut browser = visitor(&web, PHONE);
    see(&mut browser, &session);
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    browser.value("document.querySelector('#prompt').focus()");
    browser.expect("(() => { const it = document.querySelector('#prompt'); it.value = '/'; it.dispatchEvent(new Event('input')); return document.querySelectorAll('#commands li').length == 3; })()");
    assert_eq!(browser.value(FOREIGN), json!([]));
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 320);
    let second = browser.value("document.querySelectorAll('#commands .command')[1].textContent");
    assert!(second.as_str().unwrap().starts_with("/\\u202e\""));
    browser.click("#commands li");
    assert_eq!(browser.value(WRITTEN), format!("/{name} "));
    browser.expect("!document.querySelector('#command-hint').hidden");
    assert_eq!(browser.value(FOREIGN), json!([]));
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 320);
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

/// Pastes a picture of so many pixels a side, of noise, which no format makes small.
fn paste(size: u32, kind: &str) -> String {
    format!(
        "(async () => {{
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = {size};
            const context = canvas.getContext('2d');
            const data = context.createImageData({size}, {size});
            for (let at = 0; at < data.data.length; at += 65536) crypto.getRandomValues(data.data.subarray(at, at + 65536));
            for (let at = 3; at < data.data.length; at += 4) data.data[at] = 255;
            context.putImageData(data, 0, 0);
            const blob = await new Promise(resolve => canvas.toBlob(resolve));
            const transfer = new DataTransfer();
            transfer.items.add(new File([blob], '<b>x</b>.png', {{type: '{kind}'}}));
            const event = new ClipboardEvent('paste', {{clipboardData: transfer, bubbles: true, cancelable: true}});
            document.querySelector('#prompt').dispatchEvent(event);
        }})()"
    )
}

const PICTURES: &str =
    "[...document.querySelectorAll('#images img')].map(it => it.src.split(';')[0])";

#[test]
fn pictures_go_with_a_prompt_if_the_agent_takes_them() {
    let setup = patient();
    let capabilities = json!({"promptCapabilities": {"image": true}});
    let can = json!({"on": "initialize", "result": {"protocolVersion": 1, "agentCapabilities": capabilities}});
    setup.script(&[
        can,
        setup.record(),
        expect_prompt(),
        chunk("seen"),
        end_turn(),
        expect_prompt(),
        chunk("seen again"),
        end_turn(),
    ]);
    let web = Web::start(&setup);
    let (_other, session) = other(&web, &setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("!document.querySelector('#attach').hidden");
    browser.press("c");
    browser.value(&paste(40, "image/png"));
    browser.expect(&format!("{PICTURES}.join() == 'data:image/png'"));
    browser.value(&paste(40, "image/svg+xml"));
    browser.expect(
        "document.querySelector('#problem').textContent.startsWith('<b>x</b>.png is not attached')",
    );
    // One that no model takes as it is is made smaller.
    browser.value(&paste(2100, "image/png"));
    browser.expect(&format!(
        "{PICTURES}.join() == 'data:image/png,data:image/jpeg'"
    ));
    for (name, view) in [("phone", PHONE), ("desk", DESK)] {
        browser.look(view);
        let width = browser.value("document.documentElement.scrollWidth");
        assert_eq!(width, view.width);
        browser.screenshot(&format!("web-{name}-pictures.png"));
    }
    browser.click("#images li:last-child button");
    browser.expect(&format!("{PICTURES}.length == 1"));
    let source = browser.value("document.querySelector('#images img').src");
    browser.value("document.querySelector('#prompt').focus()");
    browser.enter_text("what is this?");
    browser.press("Enter");
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    browser.expect(&format!("{PICTURES}.length == 0"));
    let data = source.as_str().unwrap().split(',').nth(1).unwrap();
    assert_eq!(
        prompted(&setup),
        Some(
            json!([{"type": "text", "text": "what is this?"}, {"type": "image", "mimeType": "image/png", "data": data}])
        )
    );
    // Without words it is a prompt too.
    browser.value(&paste(20, "image/png"));
    browser.expect(&format!("{PICTURES}.length == 1"));
    browser.click("#send");
    browser.expect("document.querySelectorAll('main .turn-end').length == 2");
    assert_eq!(prompted(&setup).unwrap().as_array().unwrap().len(), 1);
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn a_draft_outlives_a_reload_and_an_agent_without_pictures_gets_none() {
    let setup = patient();
    setup.script(&[setup.record(), expect_prompt(), chunk("heard"), end_turn()]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    let second = other.new_session(&setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.press("c");
    browser.enter_text("half a thought\nand <b>more</b>");
    browser.expect("document.querySelector('#facts').textContent.startsWith('running')");
    browser.value(&paste(20, "image/png"));
    assert_eq!(
        browser.value("document.querySelector('#attach').hidden"),
        true
    );
    assert_eq!(browser.value(PICTURES), json!([]));
    reload(&mut browser);
    browser.expect("document.querySelector('#prompt').value == 'half a thought\\nand <b>more</b>'");
    // Each session has its own.
    see(&mut browser, &second);
    browser.expect(&format!("{WRITTEN} == ''"));
    see(&mut browser, &session);
    browser.expect(&format!("{WRITTEN}.startsWith('half')"));
    browser.expect("document.querySelector('#status').dataset.state == 'ready'");
    browser.value("document.querySelector('#prompt').focus()");
    browser.press("Enter");
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    reload(&mut browser);
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    assert_eq!(browser.value(WRITTEN), "");
    // The token is all that is kept.
    assert_eq!(
        browser.value("Object.keys(sessionStorage)"),
        json!(["acpbox-token"])
    );
    assert_eq!(browser.value(&texts("main .reply .text")), json!(["heard"]));
    assert!(wait_until(|| prompted(&setup).is_some()));
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}
