//! Agents that want a login: which of them are kept, and for whom.

use serde_json::{Value, json};

use crate::support::setup::{Setup, wait_until};
use crate::turns::starts::agents_of;

/// An agent that wants a login until it had one.
fn wants_login(setup: &Setup) -> Vec<Value> {
    vec![
        setup.record(),
        json!({"on": "session/new", "error": {"code": -32000, "message": "log in first"}}),
        json!({"expect": "authenticate"}),
        json!({"on": "session/new", "result": {"sessionId": "testy-session"}}),
        json!({"sleep_ms": 100}),
        json!({"send": r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#}),
    ]
}

#[test]
fn an_agent_with_options_of_its_own_is_kept_for_its_login_too() {
    let setup = Setup::host();
    setup.script(&wants_login(&setup));
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["_meta"] = json!({"acpbox": {"env": {"NAME": "value"}}});
    let error = client.call("session/new", params.clone()).unwrap_err();
    assert_eq!(error["message"], "log in first");
    client
        .call("authenticate", json!({"methodId": "x"}))
        .unwrap();
    client.call("session/new", params).unwrap();
    assert_eq!(agents_of(&setup), 1);
}

#[test]
fn an_agent_with_options_of_its_own_does_not_serve_a_session_without() {
    let setup = Setup::host();
    setup.script(&wants_login(&setup));
    let mut client = setup.connect();
    let mut params = client.new_params();
    params["_meta"] = json!({"acpbox": {"env": {"NAME": "value"}}});
    client.call("session/new", params).unwrap_err();
    client
        .call("authenticate", json!({"methodId": "x"}))
        .unwrap();
    let plain = client.new_params();
    let error = client.call("session/new", plain).unwrap_err();
    assert_eq!(error["message"], "log in first", "it is another process");
    // The one that was kept in the place of the other is the only one left.
    assert!(
        wait_until(|| agents_of(&setup) == 1),
        "{}",
        agents_of(&setup)
    );
}

#[test]
fn a_client_that_closes_its_side_still_gets_the_answer_to_its_login() {
    let setup = Setup::host();
    setup.script(&wants_login(&setup));
    let mut client = setup.connect();
    let id = client.request("authenticate", json!({"methodId": "x"}));
    client.close_input();
    assert_eq!(client.answer(id).unwrap(), json!({}));
}

#[test]
fn two_logins_at_once_are_of_one_agent() {
    let setup = Setup::host();
    setup.script(&[json!({"on": "authenticate", "result": {}})]);
    let mut client = setup.connect();
    let logins = ["x", "y"].map(|id| client.request("authenticate", json!({"methodId": id})));
    for login in logins {
        assert_eq!(client.answer(login).unwrap(), json!({}));
    }
    assert!(
        wait_until(|| agents_of(&setup) == 1),
        "{}",
        agents_of(&setup)
    );
}
