//! A server that is gone for a while: the page says so and goes on by itself.

use serde_json::{Value, json};

use super::{DESK, admit, other, patient, see, texts, visitor};
use crate::http::Web;
use crate::serve::Server;
use crate::support::browser::Browser;
use crate::support::steps::{chunk, end_turn, expect_prompt, prompt};

#[test]
fn a_restarted_server_is_found_again_and_nothing_is_missed_or_doubled() {
    let setup = patient();
    setup.script(&[expect_prompt(), chunk("before"), end_turn()]);
    let mut web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    other
        .call("session/prompt", prompt(&session, "u1"))
        .unwrap();
    let mut browser = visitor(&web, DESK);
    see(&mut browser, &session);
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    browser.value("document.querySelector('main .reply').dataset.mark = 'same'");

    web.server.signal(libc::SIGTERM);
    assert_eq!(web.server.exit_code(), Some(0));
    browser.expect("document.querySelector('#status').textContent.startsWith('The connection was lost. Trying again')");

    setup.script(&[
        expect_prompt(),
        chunk("after"),
        end_turn(),
        expect_prompt(),
        chunk("page"),
        end_turn(),
    ]);
    let address = format!("http:{}", web.address);
    web.server = Server::start(&setup, &["--listen", &address]);
    assert_eq!(web.server.address(), address);
    // Somebody was faster, while this page was away.
    let mut other = web.websocket(&[("authorization", &web.bearer())]);
    other.initialize(json!({})).unwrap();
    other
        .call("session/prompt", prompt(&session, "u2"))
        .unwrap();
    browser.expect(
        "document.querySelector('#status').textContent == 'Connected again; nothing was missed.'",
    );
    browser.expect("document.querySelectorAll('main .turn-end').length == 2");
    browser.press("c");
    browser.enter_text("u3");
    browser.press("Enter");
    browser.expect("document.querySelectorAll('main .turn-end').length == 3");
    let replies = browser.value(&texts("main .reply .text"));
    assert_eq!(replies, json!(["before", "after", "page"]));
    assert_eq!(
        browser.value(&texts("main h2")),
        json!(["Prompt 1", "Prompt 2", "Prompt 3"])
    );
    // What was there was left alone.
    assert_eq!(
        browser.value("document.querySelector('main .reply').dataset.mark"),
        "same"
    );
    // Browsers say themselves that nobody answered; nothing else went wrong.
    let complaints: Vec<&Value> = (browser.complaints().into_iter())
        .filter(|it| !it.to_string().contains("ERR_CONNECTION_REFUSED"))
        .collect();
    assert_eq!(complaints, [&Value::Null; 0]);
}

#[test]
fn a_prompt_whose_answer_was_lost_runs_once() {
    let setup = patient();
    setup.script(&[
        setup.record(),
        expect_prompt(),
        chunk("begun"),
        json!({"expect": "_test/go"}),
        chunk(" and ended"),
        end_turn(),
    ]);
    let web = Web::start(&setup);
    let (mut other, session) = other(&web, &setup);
    let mut browser = Browser::start();
    let keep = "window.WebSocket = class extends WebSocket { constructor(...it) { super(...it); window.lastSocket = this; } };";
    browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        json!({"source": keep}),
    );
    admit(&mut browser, &web, DESK);
    see(&mut browser, &session);
    browser.press("c");
    browser.enter_text("only once");
    browser.press("Enter");
    browser.expect("document.querySelector('main').textContent.includes('begun')");
    // The connection breaks, and nothing else.
    browser.value("lastSocket.close()");
    browser.expect(
        "document.querySelector('#status').textContent == 'Connected again; nothing was missed.'",
    );
    let go = json!({"jsonrpc": "2.0", "method": "_test/go", "params": {"sessionId": session}});
    other.send(&go.to_string());
    browser.expect("document.querySelectorAll('main .turn-end').length == 1");
    assert_eq!(
        browser.value(&texts("main .reply .text")),
        json!(["begun", "and ended"])
    );
    let received = setup.received();
    let prompts = received
        .iter()
        .filter(|line| line.contains("only once"))
        .count();
    assert_eq!(prompts, 1);
}

#[test]
fn prompts_that_never_arrived_are_sent_again_in_order_by_one_connection() {
    let setup = patient();
    let turns = (0..2).flat_map(|_| [expect_prompt(), chunk("reply"), end_turn()]);
    let steps: Vec<Value> = std::iter::once(setup.record()).chain(turns).collect();
    setup.script(&steps);
    let web = Web::start(&setup);
    let (_other, session) = other(&web, &setup);
    let mut browser = Browser::start();
    let keep = "window.sockets = []; window.WebSocket = class extends WebSocket { constructor(...it) { super(...it); sockets.push(this); } };";
    browser.call(
        "Page.addScriptToEvaluateOnNewDocument",
        json!({"source": keep}),
    );
    admit(&mut browser, &web, DESK);
    see(&mut browser, &session);
    let before = browser.value("sockets.length").as_u64().unwrap();
    // The network swallows what is sent.
    browser.value("sockets.at(-1).send = () => {}; 0");
    browser.press("c");
    for text in ["the first", "the second"] {
        browser.enter_text(text);
        browser.press("Enter");
    }
    // It comes back at the moment at which the page knows that it was gone.
    browser.value("sockets.at(-1).addEventListener('close', () => dispatchEvent(new Event('online'))); sockets.at(-1).close(); 0");
    browser.expect("document.querySelectorAll('main .turn-end').length == 2");
    let prompts: Vec<bool> = (setup.received().iter())
        .filter(|line| line.contains("session/prompt"))
        .map(|line| line.contains("the first"))
        .collect();
    assert_eq!(prompts, [true, false]);
    // The retry that was due is not made beside it.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(browser.value("sockets.length"), before + 1);
}
