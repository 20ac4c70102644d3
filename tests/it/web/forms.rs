//! What an agent wants to know, asked as a form or by an address to visit.

use std::time::Duration;

use serde_json::{Value, json};

use super::hostile::{FOREIGN, PAYLOAD};
use super::{DESK, PHONE, admit, other, patient, see, texts};
use crate::html::FAINT;
use crate::http::Web;
use crate::support::browser::{Browser, View};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{end_turn, expect_prompt, prompt};

/// Nobody answers what has only just come.
fn is_seen() {
    std::thread::sleep(Duration::from_millis(600));
}

/// A step in which the agent asks, and one in which it waits for the answer.
fn elicits(id: u64, params: Value) -> [Value; 2] {
    let mut params = params;
    params["sessionId"] = "$SESSION".into();
    let message =
        json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params});
    [json!({"send": message}), json!({"expect_answer": id})]
}

fn form(message: &str, properties: Value, required: Value) -> Value {
    json!({"mode": "form", "message": message,
        "requestedSchema": {"type": "object", "properties": properties, "required": required}})
}

/// A page on a session whose agent does these steps with the first prompt, which is sent.
fn asked(web: &Web, setup: &Setup, steps: Vec<Value>) -> (Browser, String) {
    let mut all = vec![setup.record(), expect_prompt()];
    all.extend(steps);
    all.push(end_turn());
    setup.script(&all);
    let (mut other, session) = other(web, setup);
    let mut browser = Browser::start();
    let keep = "window.WebSocket = class extends WebSocket { constructor(...it) { super(...it); window.lastSocket = this; } };";
    let script = json!({"source": keep});
    browser.call("Page.addScriptToEvaluateOnNewDocument", script);
    admit(&mut browser, web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelector('#facts').textContent.startsWith('running')");
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": "session/prompt", "params": prompt(&session, "u")});
    other.send(&message.to_string());
    browser.expect("document.querySelectorAll('.ask').length == 1");
    drop(other);
    (browser, session)
}

/// What the agent got for a request of its own.
fn answer(setup: &Setup, id: u64) -> Value {
    let find = || {
        let lines = setup.received();
        let mut answers = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        answers.find(|it: &Value| it["id"] == id && it.get("result").is_some())
    };
    assert!(wait_until(|| find().is_some()), "an answer to {id}");
    find().unwrap()["result"].take()
}

const WRONG: &str =
    "[...document.querySelectorAll('.field .wrong:not([hidden])')].map(it => it.textContent)";

#[test]
fn a_form_is_filled_in_by_keyboard_and_says_what_is_wrong() {
    let setup = patient();
    let web = Web::start(&setup);
    let properties = json!({
        "name": {"type": "string", "title": "Your name", "description": "As on the door", "maxLength": 5},
        "mail": {"type": "string", "format": "email"},
        "tag": {"type": "string", "pattern": "^[a-z]+$"},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "share": {"type": "number", "default": 0.5},
        "colour": {"type": "string", "enum": ["red", "green"]},
        "size": {"type": "string", "oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}], "default": "l"},
        "news": {"type": "boolean", "title": "Send news"},
        "days": {"type": "array", "title": "Days", "items": {"type": "string", "enum": ["mo", "tu", "we"]}, "maxItems": 2},
        "note": {"type": "string"},
    });
    let required = json!(["name", "age", "colour"]);
    let steps = elicits(61, form("Who are you?", properties, required));
    let (mut browser, _) = asked(&web, &setup, steps.into());
    assert_eq!(browser.value(&texts(".ask .what")), json!(["Who are you?"]));
    assert_eq!(
        browser.value(&texts(".field label[for], .field legend")),
        json!([
            "Your name (required)",
            "mail",
            "tag",
            "age (required)",
            "share",
            "colour (required)",
            "size",
            "Send news",
            "Days",
            "note"
        ])
    );
    for (name, view) in [("phone", PHONE), ("desk", DESK)] {
        for is_dark in [false, true] {
            let view = View { is_dark, ..view };
            browser.look(view);
            let width = browser.value("document.documentElement.scrollWidth");
            assert_eq!(width, view.width);
            assert_eq!(browser.value(FAINT), json!([]));
            let light = if is_dark { "dark" } else { "light" };
            browser.screenshot(&format!("web-{name}-{light}-form.png"));
        }
    }
    is_seen();
    browser.look(DESK);
    browser.value("document.querySelector('#prompt').focus()");
    browser.press("ArrowUp");
    browser.press("Tab");
    browser.enter_text("Adelheid");
    browser.press("Enter");
    assert_eq!(
        browser.value(WRONG),
        json!([
            "At most 5 characters; these are 8.",
            "Fill this in.",
            "Choose one."
        ])
    );
    assert_eq!(browser.value("document.activeElement.value"), "Adelheid");
    let described = "document.getElementById(document.activeElement.getAttribute('aria-describedby').split(' ').at(-1)).textContent";
    assert_eq!(
        browser.value(described),
        "At most 5 characters; these are 8."
    );
    browser.screenshot("web-desk-form-wrong.png");
    // Mended while it is written; Escape leaves the field, and not the turn.
    browser.value("document.activeElement.select()");
    browser.enter_text("Ada");
    assert_eq!(
        browser.value(WRONG),
        json!(["Fill this in.", "Choose one."])
    );
    browser.press("Escape");
    browser.press("Tab");
    for text in ["no mail", "A-1", "17.5"] {
        browser.press("Tab");
        browser.enter_text(text);
    }
    let colour = "(() => { const it = [...document.querySelectorAll('.ask select')][0]; it.value = '1'; it.dispatchEvent(new Event('input', {bubbles: true})); })()";
    browser.value(colour);
    browser.press("Enter");
    assert_eq!(
        browser.value(WRONG),
        json!([
            "Write an e-mail address, such as ada@example.org.",
            "This must fit the pattern ^[a-z]+$",
            "Write a whole number, such as 12."
        ])
    );
    for text in ["ada@example.org", "abc", "17"] {
        browser.value("document.activeElement.select()");
        browser.enter_text(text);
        browser.press("Tab");
    }
    browser.click(".field.check label");
    browser.click(".boxes label");
    browser.click(".boxes label:last-child");
    browser.click(".ask [type=submit]");
    assert_eq!(browser.value(WRONG), json!(["At least 18."]));
    browser.value("document.activeElement.select()");
    browser.enter_text("36");
    browser.press("Enter");
    browser.expect("document.querySelectorAll('.ask').length == 0");
    assert_eq!(
        answer(&setup, 61),
        json!({"action": "accept", "content": {"name": "Ada", "mail": "ada@example.org", "tag": "abc", "age": 36,
            "share": 0.5, "colour": "green", "size": "l", "news": true, "days": ["mo", "we"]}})
    );
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn an_address_is_opened_by_whoever_wants_to() {
    let setup = patient();
    let web = Web::start(&setup);
    let visit =
        |url: &str| json!({"mode": "url", "elicitationId": "e", "message": "Log in", "url": url});
    let page = format!("http://{}/healthz", web.address);
    let deceptive = format!("http://example.org@{}/healthz", web.address);
    let mut steps = Vec::new();
    for (id, url) in [
        (61, page.as_str()),
        (62, "javascript:window.hit=1"),
        (63, &deceptive),
        (64, "no address"),
    ] {
        steps.extend(elicits(id, visit(url)));
    }
    let (mut browser, _) = asked(&web, &setup, steps);
    let host = format!("Open {}", web.address);
    assert_eq!(
        browser.value(&texts(".ask a.button")),
        json!([host.as_str()])
    );
    assert_eq!(browser.value(&texts(".ask pre")), json!([page]));
    assert_eq!(
        browser.value("document.querySelector('.ask a').rel"),
        "noreferrer noopener"
    );
    browser.look(PHONE);
    browser.screenshot("web-phone-address.png");
    is_seen();
    browser.click(".ask a.button");
    assert_eq!(answer(&setup, 61), json!({"action": "accept"}));
    let opened = browser.call("Target.getTargets", json!({}));
    assert!(opened.to_string().contains("/healthz"), "{opened}");

    browser.expect("document.querySelector('.ask pre')?.textContent == 'javascript:window.hit=1'");
    assert_eq!(
        browser.value("document.querySelectorAll('.ask a').length"),
        0
    );
    is_seen();
    browser.click(".ask .reject");
    assert_eq!(answer(&setup, 62), json!({"action": "decline"}));
    // Whose it is can be seen, whatever stands before it.
    browser
        .expect("document.querySelector('.ask pre')?.textContent.includes('example.org@') == true");
    assert_eq!(browser.value(&texts(".ask a.button")), json!([host]));
    is_seen();
    browser.value("document.querySelector('.ask').focus()");
    browser.press("2");
    assert_eq!(answer(&setup, 63), json!({"action": "cancel"}));
    browser.expect("document.querySelector('.ask pre')?.textContent == 'no address'");
    is_seen();
    browser.value("document.querySelector('.ask').focus()");
    browser.press("1");
    assert_eq!(answer(&setup, 64), json!({"action": "decline"}));
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    assert_eq!(browser.value("window.hit ?? 0"), 0);
}

#[test]
fn a_form_that_another_client_fills_in_goes_and_one_outlives_a_lost_connection() {
    let setup = patient();
    let web = Web::start(&setup);
    let name = json!({"name": {"type": "string"}});
    let mut steps = Vec::new();
    steps.extend(elicits(61, form("First", name.clone(), json!(["name"]))));
    steps.extend(elicits(62, form("Second", name, json!(["name"]))));
    let (mut browser, session) = asked(&web, &setup, steps);
    let mut other = web.websocket(&[("authorization", &web.bearer())]);
    other.initialize(json!({})).unwrap();
    let params = json!({"sessionId": session, "cwd": setup.workspace()});
    other.call("session/resume", params).unwrap();
    let id = loop {
        let message = other.receive();
        if message["method"] == "elicitation/create" {
            break message["id"].clone();
        }
    };
    let result = json!({"action": "accept", "content": {"name": "them"}});
    other.send(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
    browser.expect("document.querySelector('.ask .what')?.textContent == 'Second'");
    assert_eq!(answer(&setup, 61), result);

    browser.value("document.querySelector('.ask input').focus()");
    browser.enter_text("half of it");
    // It cannot be had back at once.
    browser.value("window.tries = 0; window.Real = WebSocket; window.WebSocket = class { static OPEN = 1; static CONNECTING = 0; static CLOSED = 3; constructor(...it) { tries += 1; if (tries > 2) return new Real(...it); this.readyState = 3; setTimeout(() => this.onclose(), 10); } };");
    browser.value("window.lastSocket.close(), document.querySelector('.ask input').mark = 1");
    browser.expect("document.querySelectorAll('.ask').length == 0");
    browser.expect("window.tries == 3 && document.querySelectorAll('.ask').length == 1");
    browser.expect("document.querySelector('.ask input')?.value == 'half of it'");
    is_seen();
    browser.value("document.querySelector('.ask input').focus()");
    browser.press("Enter");
    assert_eq!(answer(&setup, 62)["content"], json!({"name": "half of it"}));
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
}

#[test]
fn whatever_an_agent_asks_stays_text() {
    let setup = patient();
    let web = Web::start(&setup);
    let field = |of: Value| {
        let mut of = of;
        of["title"] = PAYLOAD.into();
        of["description"] = PAYLOAD.into();
        of
    };
    let mut properties = json!({
        "__proto__": field(json!({"type": "string", "default": PAYLOAD})),
        "constructor": field(json!({"type": "string", "pattern": "(a+)+$"})),
        "choice": field(json!({"type": "string", "oneOf": [{"const": PAYLOAD, "title": PAYLOAD}]})),
        "flag": field(json!({"type": "boolean"})),
        "several": field(json!({"type": "array", "items": {"anyOf": [{"const": "x", "title": PAYLOAD}]}})),
        "deep": field(json!({"type": "object"})),
        "none": Value::Null,
        "odd": {"type": ["string"], "enum": "x", "minLength": {}, "maxLength": "y", "title": 5},
    });
    properties[PAYLOAD] = json!({"type": "integer", "minimum": PAYLOAD});
    let mut steps = Vec::new();
    steps.extend(elicits(61, form(PAYLOAD, properties, json!("name"))));
    steps.extend(elicits(
        62,
        json!({"mode": "form", "message": {}, "requestedSchema": 7}),
    ));
    let (mut browser, _) = asked(&web, &setup, steps);
    assert_eq!(browser.value(FOREIGN), json!([]));
    for is_dark in [false, true] {
        browser.look(View { is_dark, ..PHONE });
        assert_eq!(browser.value("document.documentElement.scrollWidth"), 320);
        assert_eq!(
            browser.value("document.querySelector('#asks').scrollWidth <= 320"),
            true
        );
    }
    browser.screenshot("web-phone-form-hostile.png");
    is_seen();
    // A pattern that never ends is not tried.
    browser.value("document.querySelectorAll('.ask input')[1].focus()");
    browser.enter_text(&format!("{}!", "a".repeat(60)));
    browser.click(".ask [type=submit]");
    let content = &answer(&setup, 61)["content"];
    assert_eq!(content["__proto__"], PAYLOAD);
    assert_eq!(content["flag"], false);
    browser.expect("document.querySelectorAll('.ask .field').length == 0");
    browser.expect("document.querySelectorAll('.ask').length == 1");
    is_seen();
    browser.click(".ask [type=submit]");
    assert_eq!(
        answer(&setup, 62),
        json!({"action": "accept", "content": {}})
    );
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn what_is_asked_for_a_session_that_is_not_there_yet_is_asked_over_everything() {
    let setup = patient();
    let question = |id: u64| {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"requestId":$ID,"mode":"form","message":"Which key?","requestedSchema":{{"type":"object","properties":{{"key":{{"type":"string"}}}}}}}}}}"#
        );
        [json!({"send": text}), json!({"expect_answer": id})]
    };
    let mut steps = vec![setup.record(), json!({"expect": "session/new"})];
    steps.extend(question(61));
    steps.extend(question(62));
    steps.push(
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"sessionId":"testy-session"}}"#}),
    );
    setup.script(&steps);
    let web = Web::start(&setup);
    let mut browser = Browser::start();
    admit(&mut browser, &web, DESK);
    browser.press("n");
    browser.value("document.querySelector('#cwd').value = ''");
    browser.enter_text(&setup.workspace().display().to_string());
    browser.press("Enter");
    browser.expect("document.querySelector('#ask-dialog').open");
    assert_eq!(
        browser.value(&texts("#ask-dialog .what")),
        json!(["Which key?"])
    );
    browser.look(PHONE);
    browser.screenshot("web-phone-loose.png");
    is_seen();
    browser.value("document.querySelector('#ask-dialog input').focus()");
    browser.enter_text("mine");
    browser.press("Enter");
    let content = json!({"action": "accept", "content": {"key": "mine"}});
    assert_eq!(answer(&setup, 61), content);
    browser.expect("document.querySelector('#ask-dialog input')?.value == ''");
    is_seen();
    browser.press("Escape");
    assert_eq!(answer(&setup, 62), json!({"action": "cancel"}));
    browser.expect("document.activeElement.id == 'prompt'");
    browser.expect("!document.querySelector('#ask-dialog').open");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}
