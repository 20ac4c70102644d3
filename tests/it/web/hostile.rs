//! Whatever an agent says stays text, and the page is framed and served strictly.

use serde_json::{Value, json};

use super::{DESK, PHONE, patient, see, visitor};
use crate::html::FAINT;
use crate::http::Web;
use crate::support::browser::View;
use crate::support::steps::{end_turn, expect_prompt};

pub(super) const PAYLOAD: &str = r#""><img src=x onerror=window.hit=1></main><script>window.hit=1</script>' onmouseover='window.hit=1 [a](javascript:window.hit=1)"#;

/// What would show that something came through.
pub(super) const FOREIGN: &str = r#"(() => {
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        if (['script', 'iframe', 'object', 'embed', 'link', 'style', 'base', 'svg'].includes(element.localName)) found.push(element.outerHTML);
        for (const {name, value} of element.attributes)
            if (name.startsWith('on') || (['href', 'src', 'action'].includes(name) && !/^([#/]|https?:)/.test(value)) || (name == 'style' && element.id != 'prompt')) found.push(`${element.localName} ${name}=${value}`);
        if (element.localName == 'img' && !['/icon.svg'].includes(element.getAttribute('src'))) found.push(element.outerHTML);
    }
    if (window.hit) found.push('a script ran');
    return found;
})()"#;

#[test]
fn what_an_agent_says_stays_text_everywhere() {
    let setup = patient();
    let update = |update: Value| json!({"send": {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "$SESSION", "update": update}}});
    let text = json!({"type": "text", "text": PAYLOAD});
    let option = json!({"optionId": PAYLOAD, "name": PAYLOAD, "kind": "allow_once"});
    let call = json!({"toolCallId": "t", "title": format!("\u{202e}{PAYLOAD}"), "kind": PAYLOAD, "status": "in_progress",
        "rawInput": {"command": PAYLOAD}, "locations": [{"path": PAYLOAD}],
        "content": [{"type": "diff", "path": PAYLOAD, "oldText": PAYLOAD, "newText": "y"}, {"type": "content", "content": text}]});
    let mut shown = call.clone();
    shown["sessionUpdate"] = "tool_call".into();
    let ask = json!({"jsonrpc": "2.0", "id": 8, "method": "session/request_permission",
        "params": {"sessionId": "$SESSION", "toolCall": call, "options": [option]}});
    let setting = json!([{"id": "m", "name": PAYLOAD, "type": "select", "currentValue": "x", "options": [{"value": "x", "name": PAYLOAD}]}]);
    setup.script(&[
        expect_prompt(),
        update(json!({"sessionUpdate": "session_info_update", "title": PAYLOAD})),
        update(json!({"sessionUpdate": "config_option_update", "configOptions": setting})),
        update(json!({"sessionUpdate": "agent_message_chunk", "content": text})),
        update(json!({"sessionUpdate": "agent_thought_chunk", "content": text})),
        update(json!({"sessionUpdate": "plan", "entries": [{"content": PAYLOAD, "priority": "high", "status": "pending"}]})),
        update(shown),
        json!({"send": ask}),
        json!({"expect_answer": 8}),
        json!({"send": {"jsonrpc": "2.0", "id": 9, "method": "session/request_permission",
            "params": {"sessionId": "$SESSION", "toolCall": {"toolCallId": "t2", "title": "fine"}, "options": []}}}),
        json!({"expect_answer": 9}),
        end_turn(),
    ]);
    let web = Web::start(&setup);
    let mut browser = visitor(&web, DESK);
    browser.press("n");
    browser.value("document.querySelector('#cwd').value = ''");
    browser.enter_text(&setup.workspace().display().to_string());
    browser.press("Enter");
    browser.expect("document.activeElement.id == 'prompt'");
    browser.enter_text(PAYLOAD);
    browser.press("Enter");
    browser.expect("document.querySelectorAll('.ask').length == 1");
    browser.expect("document.querySelectorAll('main .reply, main .thought, main .plan, main .tool').length == 4");
    browser.expect("document.querySelector('#settings select') != null");
    browser.expect("document.querySelector('#title').textContent.includes('onerror')");
    assert_eq!(browser.value(FOREIGN), json!([]));
    // Nothing turns text around, or hides it.
    let title = browser.value("document.querySelector('.ask .what').textContent");
    assert!(title.as_str().unwrap().starts_with("\\u202e\""), "{title}");
    // It fits on a small phone all the same, and can be read.
    for is_dark in [false, true] {
        browser.look(View { is_dark, ..PHONE });
        let width = "document.documentElement.scrollWidth";
        assert_eq!(browser.value(width), 320);
        assert_eq!(
            browser.value("document.querySelector('#scroller').scrollWidth <= 320"),
            true
        );
        assert_eq!(browser.value(FAINT), json!([]));
    }
    browser.value("document.activeElement.blur(), 0");
    browser.press("/");
    browser.enter_text("onerror");
    browser.expect("document.querySelectorAll('#sessions mark').length > 0");
    assert_eq!(browser.value(FOREIGN), json!([]));
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 320);
    let id = "document.querySelector('#sessions a').hash.split('/')[1]";
    let session = browser.value(id).as_str().unwrap().to_owned();
    see(&mut browser, &session);
    browser.expect("!document.querySelector('#stop').hidden");
    browser.value("document.querySelector('#stop').click()");
    browser.expect("document.querySelectorAll('.ask').length == 0");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn the_page_is_served_strictly() {
    let setup = patient();
    let web = Web::start(&setup);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/commands.js", "text/javascript; charset=utf-8"),
        ("/dom.js", "text/javascript; charset=utf-8"),
        ("/form.js", "text/javascript; charset=utf-8"),
        ("/images.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/transcript.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let response = web.request(&format!("GET {path}"), &[], "");
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("content-type"), Some(kind));
        let policy = response.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{part} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(response.header(name), Some(value), "{path}");
        }
        assert!(!response.body.contains(&web.token));
    }
    // No other site's page, and no name that somebody had point here.
    let foreign = [("Host", "evil.example.org")];
    assert_eq!(web.request("GET /", &foreign, "").status, 421);
    let framed = [("Origin", "https://evil.example.org")];
    assert_eq!(web.request("GET /", &framed, "").status, 403);
    assert_eq!(web.request("POST /", &[], "x").status, 405);
}
