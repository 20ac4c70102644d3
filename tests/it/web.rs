//! The page at `/`, in a real browser: what a person sees and does.

use std::process::Command;

use serde_json::{Value, json};

use crate::http::{Socket, Web};
use crate::serve::command;
use crate::support::browser::{Browser, View};
use crate::support::setup::{Setup, wait_until};
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

mod actions;
mod asleep;
mod forms;
mod hostile;
mod large;
mod looks;
mod lost;
mod writing;

const DESK: View = View {
    width: 1280,
    height: 860,
    is_phone: false,
    is_dark: false,
};

const PHONE: View = View {
    width: 320,
    height: 640,
    is_phone: true,
    is_dark: false,
};

/// A set-up whose server lets nobody go who says nothing while the browser is busy.
fn patient() -> Setup {
    Setup::host().config("[server]\nkeepalive = \"5m\"")
}

/// A browser that has told its token and sees the list.
fn visitor(web: &Web, view: View) -> Browser {
    let mut browser = Browser::start();
    admit(&mut browser, web, view);
    browser
}

fn admit(browser: &mut Browser, web: &Web, view: View) {
    browser.visit(&format!("http://{}/", web.address), view);
    browser.expect("document.querySelector('#token-dialog').open");
    browser.enter_text(&web.token);
    browser.press("Enter");
    browser.expect("document.querySelector('#status').dataset.state == 'ready'");
}

/// Another client, with a session of its own.
fn other(web: &Web, setup: &Setup) -> (Socket, String) {
    let mut other = web.websocket(&[("authorization", &web.bearer())]);
    other.initialize(json!({})).unwrap();
    let session = other.new_session(setup);
    (other, session)
}

/// Imports a transcript.
fn import(setup: &Setup, text: &str) {
    let file = setup.path().join("imported.jsonl");
    std::fs::write(&file, text).unwrap();
    let serve = command(setup, &[]);
    let mut import = Command::new(serve.get_program());
    import.args(["sessions", "import"]).arg(&file).env_clear();
    for (name, value) in serve.get_envs() {
        import.env(name, value.unwrap_or_default());
    }
    let output = import.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn see(browser: &mut Browser, session: &str) {
    browser.value(&format!("location.hash = '#/{session}'"));
    browser.expect("!document.querySelector('#composer').hidden");
}

/// Loads the page anew, and waits until that is done.
fn reload(browser: &mut Browser) {
    let loads = |browser: &Browser| {
        let events = browser.events.iter();
        let loads = events.filter(|event| event["method"] == "Page.loadEventFired");
        loads.count()
    };
    let before = loads(browser);
    browser.call("Page.reload", json!({}));
    assert!(wait_until(|| {
        // Whatever is called, events come with it.
        browser.call("Page.enable", json!({}));
        loads(browser) > before
    }));
}

fn texts(selector: &str) -> String {
    format!("[...document.querySelectorAll('{selector}')].map(it => it.textContent.trim())")
}

/// A step in which the agent asks; the answer is waited for.
fn asks(id: u64, title: &str) -> [Value; 2] {
    let option =
        |id: &str, name: &str, kind: &str| json!({"optionId": id, "name": name, "kind": kind});
    let options = [
        option("yes", "Allow", "allow_once"),
        option("no", "Reject", "reject_once"),
    ];
    let call = json!({"toolCallId": format!("call-{id}"), "title": title, "kind": "execute", "rawInput": {"command": "rm -r target"}});
    let params = json!({"sessionId": "$SESSION", "toolCall": call, "options": options});
    let message = json!({"jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": params});
    [json!({"send": message}), json!({"expect_answer": id})]
}

fn waits(method: &str) -> Value {
    json!({"expect": method})
}

#[test]
fn a_session_is_opened_followed_and_prompted() {
    let setup = patient();
    setup.script(&[
        expect_prompt(),
        chunk("**one** two"),
        end_turn(),
        expect_prompt(),
        chunk("b1"),
        waits("_test/go"),
        chunk(" b2"),
        end_turn(),
        expect_prompt(),
        chunk("c1"),
        waits("session/cancel"),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{"stopReason":"cancelled"}}"#}),
    ]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    other
        .call("session/prompt", prompt(&session, "u1"))
        .unwrap();

    let mut browser = Browser::start();
    browser.visit(&format!("http://{}/", web.address), DESK);
    browser.expect("document.querySelector('#token-dialog').open");
    browser.enter_text("wrong");
    browser.press("Enter");
    browser.expect("document.querySelector('#token-problem').textContent.includes('is wrong')");
    browser.enter_text(&web.token);
    browser.press("Enter");
    browser.expect("document.querySelectorAll('#sessions a').length == 1");
    let kept = "[localStorage.length, location.search + location.hash, sessionStorage.length]";
    assert_eq!(browser.value(kept), json!([0, "", 1]));

    browser.click("#sessions a");
    browser.expect("document.querySelector('main .reply strong')?.textContent == 'one'");
    assert_eq!(browser.value(&texts("main h2")), json!(["Prompt 1"]));
    browser.expect("document.querySelector('#facts').textContent.startsWith('running · testy')");

    // Somebody else prompts, and it is followed while it runs.
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": "session/prompt", "params": prompt(&session, "u2")});
    other.send(&message.to_string());
    browser.expect("document.querySelector('main').textContent.includes('b1')");
    browser.expect("!document.querySelector('#stop').hidden");
    let go = json!({"jsonrpc": "2.0", "method": "_test/go", "params": {"sessionId": session}});
    other.send(&go.to_string());
    browser.expect("document.querySelectorAll('main .turn-end').length == 2");
    assert_eq!(
        browser.value(&texts("main .reply .text")),
        json!(["one two", "b1", "b2"])
    );
    browser.expect("document.querySelector('#stop').hidden");

    // By keyboard alone: to the prompt, two lines, sent, cancelled.
    browser.press("c");
    browser.enter_text("u3 <b>line</b>\nsecond");
    browser.press("Enter");
    browser.expect("document.querySelector('main').textContent.includes('c1')");
    assert_eq!(browser.value("document.querySelector('#prompt').value"), "");
    browser.press("Escape");
    browser.expect("document.querySelectorAll('main .turn-end').length == 3");
    let last = "[...document.querySelectorAll('main .turn-end .label')].at(-1).textContent";
    assert_eq!(browser.value(last), "Turn ended: cancelled");
    assert_eq!(
        browser.value(&texts("main h2")),
        json!(["Prompt 1", "Prompt 2", "Prompt 3"])
    );
    let said = "[...document.querySelectorAll('main .prompt .text, main .prompt .typed')].at(-1).textContent";
    assert_eq!(browser.value(said), "u3 <b>line</b>\nsecond");
    // The other client is shown what was written here, and by whom.
    let seen = loop {
        let update = other.receive();
        if update["params"]["update"]["sessionUpdate"] == "user_message_chunk" {
            break update;
        }
    };
    let text = &seen["params"]["update"]["content"]["text"];
    assert_eq!(text, "u3 <b>line</b>\nsecond");
    assert_eq!(
        seen["params"]["_meta"]["acpbox"]["from"], "Browser",
        "{seen}"
    );
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
    let origin = format!("http://{}/", web.address);
    let foreign = browser
        .requests()
        .into_iter()
        .filter(|url| !url.starts_with(&origin));
    assert_eq!(foreign.count(), 0);
    // What screen readers are told.
    let heard = browser.value("document.querySelector('#announcer').textContent");
    assert!(heard.as_str().unwrap().contains("Turn ended"), "{heard}");
}

#[test]
fn a_permission_is_answered_by_button_and_by_keyboard_and_withdrawn() {
    let setup = patient();
    let mut steps = vec![setup.record(), expect_prompt()];
    steps.extend(asks(71, "Remove the folder"));
    steps.extend(asks(72, "Remove another"));
    let [question, _] = asks(73, "Never mind");
    let withdrawn =
        json!({"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": 73}});
    let form = json!({"jsonrpc": "2.0", "id": 74, "method": "elicitation/create", "params": {"sessionId": "$SESSION",
        "mode": "form", "message": "Which colour?", "requestedSchema": {"type": "object", "properties": {}}}});
    steps.extend([json!({"send": form}), json!({"expect_answer": 74})]);
    steps.extend([
        question,
        waits("_test/go"),
        json!({"send": withdrawn}),
        chunk("done"),
        end_turn(),
    ]);
    setup.script(&steps);
    let web = Web::start(&setup);
    let mut browser = visitor(&web, DESK);
    let cwd = setup.workspace().display().to_string();

    // A new session, made here, so that this page is the one that is asked.
    browser.press("n");
    browser.expect("document.querySelector('#new-dialog').open");
    browser.value("document.querySelector('#cwd').value = ''");
    browser.enter_text(&cwd);
    assert_eq!(
        browser.value("document.querySelector('#agent').value"),
        "testy"
    );
    browser.press("Enter");
    browser.expect("document.activeElement.id == 'prompt'");
    let session = browser.value("location.hash.slice(2)");
    browser.enter_text("go");
    // A click that was meant for something else answers nothing.
    browser.value("new MutationObserver((_, it) => { const button = document.querySelector('.ask .allow'); if (button) { it.disconnect(); button.click(); window.hasClicked = true; } }).observe(document.querySelector('#asks'), {childList: true})");
    browser.press("Enter");

    browser.expect("window.hasClicked && document.querySelectorAll('.ask').length == 1");
    assert_eq!(
        browser.value(&texts(".ask .what")),
        json!(["Remove the folder"])
    );
    assert_eq!(browser.value(&texts(".ask pre")), json!(["rm -r target"]));
    assert_eq!(
        browser.value(&texts(".ask .options button")),
        json!(["1Allow", "2Reject"])
    );
    assert_eq!(browser.value("document.title.startsWith('(1) ')"), true);
    browser.screenshot("web-ask.png");
    // The end of the transcript stays in view above it, on a phone too.
    browser.look(PHONE);
    browser.expect("document.querySelector('main .permission') != null");
    browser.expect("(() => { const r = document.querySelector('#working').getBoundingClientRect(); return r.height > 0 && r.bottom <= document.querySelector('#asks').getBoundingClientRect().top + 1; })()");
    browser.look(DESK);
    std::thread::sleep(std::time::Duration::from_millis(600));
    browser.click(".ask .reject");
    browser.expect("document.querySelector('.ask .what')?.textContent == 'Remove another'");
    std::thread::sleep(std::time::Duration::from_millis(600));
    browser.value("document.querySelector('#prompt').focus()");
    browser.press("ArrowUp");
    browser.press("1");
    browser.expect("document.querySelector('.ask .what')?.textContent == 'Which colour?'");
    std::thread::sleep(std::time::Duration::from_millis(600));
    browser.click(".ask .reject");
    browser.expect("document.querySelector('.ask .what')?.textContent == 'Never mind'");
    let mut other = web.websocket(&[("authorization", &web.bearer())]);
    other.initialize(json!({})).unwrap();
    let go = json!({"jsonrpc": "2.0", "method": "_test/go", "params": {"sessionId": session}});
    other.send(&go.to_string());
    browser.expect("document.querySelectorAll('.ask').length == 0");
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    let answers: Vec<String> = (setup.received().into_iter())
        .filter(|line| line.contains("optionId"))
        .collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(
        answers[0].contains("71") && answers[0].contains("\"no\""),
        "{answers:?}"
    );
    assert!(
        answers[1].contains("72") && answers[1].contains("\"yes\""),
        "{answers:?}"
    );
    let declined = |line: &String| line.contains("74") && line.contains(r#"{"action":"decline"}"#);
    assert!(setup.received().iter().any(declined));
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn a_setting_is_chosen_and_kept() {
    let setup = patient();
    let web = Web::start_with(&setup, &["--agent", "example"]);
    let (mut other, session) = other(&web, &setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelector('#settings select') != null");
    let choose = "(() => { const it = document.querySelector('#settings select'); it.selectedIndex = it.options.length - 1;
        it.dispatchEvent(new Event('change')); return [it.parentElement.textContent, it.value]; })()";
    let chosen = browser.value(choose);
    assert!(chosen[0].as_str().unwrap().starts_with("Model"), "{chosen}");
    // The agent knows it, and so does a page that comes later.
    assert!(wait_until(|| {
        let page = json!({"sessionId": session, "kinds": ["session/set_config_option:result"]});
        let events = other.call("_acpbox/session/events", page).unwrap();
        let text = events["events"][0]["message"].to_string();
        text.contains(&format!("\"currentValue\":{}", chosen[1]))
    }));
    reload(&mut browser);
    browser.expect("document.querySelector('#settings select') != null");
    let shown = "document.querySelector('#settings select').value";
    assert_eq!(browser.value(shown), chosen[1]);
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn a_reply_is_seen_while_it_grows() {
    let setup = patient();
    let mut steps = vec![expect_prompt()];
    for number in 0..100 {
        steps.extend([chunk(&format!("w{number} ")), json!({"sleep_ms": 30})]);
    }
    steps.push(end_turn());
    setup.script(&steps);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    let message = json!({"jsonrpc": "2.0", "id": 9, "method": "session/prompt", "params": prompt(&session, "u")});
    other.send(&message.to_string());
    let reply = "document.querySelector('main .reply .text')?.textContent.trim() ?? ''";
    let is_over = "document.querySelector('main .turn-end') != null";
    let mut seen: Vec<String> = Vec::new();
    while browser.value(is_over) != true {
        let text = browser.value(reply).as_str().unwrap().to_owned();
        if seen.last() != Some(&text) {
            seen.push(text);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(seen.len() >= 5, "{} steps", seen.len());
    let whole: Vec<String> = (0..100).map(|number| format!("w{number}")).collect();
    let whole = whole.join(" ");
    assert_eq!(browser.value(reply), whole);
    assert!(seen.iter().all(|part| whole.starts_with(part.as_str())));
    assert_eq!(
        browser.value("document.querySelectorAll('main .reply').length"),
        1
    );
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn words_are_found_and_lead_to_their_place() {
    let setup = patient();
    let turns = (0..40).flat_map(|turn| {
        [
            expect_prompt(),
            chunk(&format!("answer{turn} of many")),
            end_turn(),
        ]
    });
    setup.script(&turns.collect::<Vec<_>>());
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    for turn in 0..40 {
        other
            .call(
                "session/prompt",
                prompt(&session, &format!("question{turn}")),
            )
            .unwrap();
    }
    let mut browser = visitor(&web, DESK);
    browser.press("/");
    assert_eq!(browser.value("document.activeElement.id"), "search");
    browser.enter_text("answer1");
    browser.expect("document.querySelector('#list-note').textContent == '11 places found.'");
    browser.value("document.querySelector('#search').value = ''");
    browser.enter_text("answer3 many");
    browser.expect("document.querySelectorAll('#sessions a').length == 1");
    assert_eq!(
        browser.value(&texts("#sessions mark")),
        json!(["answer3", "many"])
    );
    browser.press("ArrowDown");
    browser.press("Enter");
    browser
        .expect("document.querySelector('main .wanted')?.textContent.includes('answer3 of many')");
    let is_seen = "(() => { const r = document.querySelector('main .wanted').getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight; })()";
    browser.expect(is_seen);
    browser.press("/");
    browser.value("document.querySelector('#search').value = ''");
    browser.enter_text("nowhere");
    browser
        .expect("document.querySelector('#list-note').textContent == 'Nothing has these words.'");
    browser.press("Escape");
    browser.expect("document.querySelectorAll('#sessions a[aria-current]').length == 1");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}
