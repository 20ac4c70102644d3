//! Further folders of a session whose VM runs already.

use serde_json::json;

use crate::support::setup::Setup;

#[test]
fn a_vm_in_use_is_not_booted_anew_for_another_folder_and_an_unused_one_is() {
    let setup = Setup::new();
    let further = setup.path().join("further");
    std::fs::create_dir(&further).unwrap();
    let mut client = setup.connect();
    let first = client.new_session();
    let mut params = client.new_params();
    params["additionalDirectories"] = json!([further]);
    let refused = client.call("session/new", params.clone()).unwrap_err();
    assert_eq!(refused["code"], -32602, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("runs without"), "{message}");
    assert!(message.contains("further"), "{message}");
    // The session that lives in it was left alone.
    client
        .call("session/close", json!({ "sessionId": first }))
        .unwrap();
    client.call("session/new", params).unwrap();
}
