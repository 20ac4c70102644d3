//! A transcript of thousands of items: the page holds a part of them at a time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{DESK, PHONE, admit, import, patient, see, visitor};
use crate::http::Web;
use crate::support::browser::Browser;
use crate::support::steps::prompt;
use crate::support::transcripts::{SESSION, Transcript};

const COUNT: &str = "document.querySelectorAll('main > *').length";

#[test]
fn five_thousand_items_are_shown_piece_by_piece() {
    let setup = patient();
    let mut transcript = Transcript::new();
    // One turn of 2,000 tool calls, and many small ones around it.
    let calls = |transcript: &mut Transcript, count: u32| {
        for number in 0..count {
            let call = json!({"sessionUpdate": "tool_call", "toolCallId": format!("t{number}"), "title": format!("Read file {number}"), "kind": "read", "status": "completed"});
            transcript.update(20, &call);
        }
    };
    for turn in 0..1000 {
        let prompt = json!({"jsonrpc": "2.0", "id": 1, "method": "session/prompt",
            "params": prompt(SESSION, &format!("question {turn}"))});
        transcript.event(20, "client", "session/prompt", &prompt.to_string());
        if turn == 500 {
            calls(&mut transcript, 2000);
        }
        transcript
            .chunk(20, "word ")
            .chunk(20, "by word")
            .end_turn(20);
    }
    import(&setup, &transcript.text);
    let web = Web::start(&setup);
    let mut browser = visitor(&web, DESK);
    let begun = Instant::now();
    see(&mut browser, SESSION);
    browser
        .expect("[...document.querySelectorAll('main h2')].at(-1)?.textContent == 'Prompt 1000'");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(browser.value(COUNT), 80);
    let is_at_end = "(() => { const s = document.querySelector('#scroller'); return s.scrollHeight - s.scrollTop - s.clientHeight < 80; })()";
    browser.expect(is_at_end);

    // Back, piece by piece; what is read stays where it is, and the end goes.
    for _ in 0..6 {
        let first = "document.querySelector('main > *').dataset.key";
        let before = browser.value(first);
        browser.value("document.querySelector('#older').click()");
        browser.expect(&format!("{first} != {before}"));
        let count = browser.value(COUNT).as_u64().unwrap();
        assert!(count <= 300, "{count}");
    }
    let keys = "[...document.querySelectorAll('main > *')].map(it => it.dataset.key.split('.').map(Number))";
    let keys: Vec<(i64, i64)> = serde_json::from_value(browser.value(keys)).unwrap();
    assert!(keys.windows(2).all(|two| two[0] < two[1]), "{keys:?}");
    let prompts =
        "[...document.querySelectorAll('main h2')].map(it => +it.textContent.split(' ')[1])";
    let prompts: Vec<i64> = serde_json::from_value(browser.value(prompts)).unwrap();
    assert!(
        prompts.windows(2).all(|two| two[0] + 1 == two[1]),
        "no gap: {prompts:?}"
    );
    assert!(
        prompts.last() < Some(&1000),
        "the end is left out: {prompts:?}"
    );
    browser.expect(
        "!document.querySelector('#newer').hidden && !document.querySelector('#latest').hidden",
    );
    browser.value("document.querySelector('#newer').click()");
    browser.expect(&format!(
        "[...document.querySelectorAll('main h2')].at(-1).textContent != 'Prompt {}'",
        prompts.last().unwrap()
    ));
    browser.value("document.querySelector('#latest').click()");
    browser
        .expect("[...document.querySelectorAll('main h2')].at(-1)?.textContent == 'Prompt 1000'");
    browser.expect("document.querySelector('#newer').hidden");

    // Into the middle of the long turn, by its address.
    let middle = 500 * 4 + 1 + 1000;
    let begun = Instant::now();
    browser.value(&format!("location.hash = '#/{SESSION}/{middle}'"));
    browser.expect("document.querySelector('main .wanted .title')?.textContent == 'Read file 999'");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    browser.look(PHONE);
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 320);
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}

#[test]
fn the_latest_is_shown_also_if_something_else_is_on_its_way() {
    let setup = patient();
    let mut transcript = Transcript::new();
    for turn in 0..100 {
        let prompt = json!({"jsonrpc": "2.0", "id": 1, "method": "session/prompt",
            "params": prompt(SESSION, &format!("question {turn}"))});
        transcript.event(20, "client", "session/prompt", &prompt.to_string());
        transcript.chunk(20, "word").end_turn(20);
    }
    import(&setup, &transcript.text);
    let web = Web::start(&setup);
    let mut browser = Browser::start();
    // What comes can be held back.
    let hold = "window.held = []; window.WebSocket = class extends WebSocket {
        set onmessage(show) { super.onmessage = event => (window.isHolding ? held.push({text: event.data, show: () => show(event)}) : show(event)); } };";
    browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        json!({"source": hold}),
    );
    admit(&mut browser, &web, DESK);
    browser.value(&format!("location.hash = '#/{SESSION}/1'"));
    browser.expect("!document.querySelector('#newer').hidden");
    browser.expect("document.querySelector('main .wanted') != null");
    browser.value("isHolding = true, document.dispatchEvent(new Event('visibilitychange'))");
    browser.expect("held.some(it => it.text.includes('\"items\"'))");
    browser.value("document.querySelector('#latest').click()");
    browser.value("isHolding = false, held.splice(0).forEach(it => it.show()), 0");
    browser.expect("[...document.querySelectorAll('main h2')].at(-1)?.textContent == 'Prompt 100'");
    assert_eq!(browser.complaints(), [&Value::Null; 0]);
}
