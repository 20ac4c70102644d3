//! testy, the agent that does what a script says, and messages for it to send.
//! What a script can say is in `tests/testy/step.rs`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The program; a test may mount it alone into a VM.
///
/// # Panics
/// When it has not been built.
pub fn testy() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_acpbox")).parent().unwrap();
    let testy = target.join("examples/testy");
    assert!(
        testy.exists(),
        "testy is not built: run cargo build --examples"
    );
    testy
}

/// A script from its steps, to be given as `TESTY_SCRIPT` or in a file.
pub fn script(steps: &[Value]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// One message of every kind that an agent can send, to be relayed byte for byte.
///
/// Each is a line of `tests/fixtures/updates.jsonl` with `$SESSION` (inside a
/// string), `$CWD` (inside a string) and `$ID` (a request's id, raw) replaced.
/// Lines with an `id` are requests and want an answer, such as [`answer`]'s.
pub fn messages(session: &str, cwd: &str, id: &str) -> Vec<String> {
    let lines = include_str!("../../fixtures/updates.jsonl").lines();
    lines
        .map(|line| {
            line.replace("$SESSION", session)
                .replace("$CWD", cwd)
                .replace("$ID", id)
        })
        .collect()
}

/// The same messages as steps of a script, which fills in its own session's
/// names; it waits for the answer to each request. They belong after a step
/// `{"expect":"session/prompt"}`.
pub fn message_steps() -> Vec<Value> {
    let lines = include_str!("../../fixtures/updates.jsonl").lines();
    lines
        .flat_map(|line| {
            let filled = line.replace("$ID", "0");
            // Only the id is looked at: some lines hold what no `Value` can.
            let id: Envelope = serde_json::from_str(&filled).expect("a fixture is JSON");
            let wait = id.id.map(|id| json!({"expect_answer": id}));
            [Some(json!({"send": line})), wait].into_iter().flatten()
        })
        .collect()
}

/// A plausible result for a request that an agent makes of its client.
pub fn answer(method: &str) -> Value {
    match method {
        "fs/read_text_file" => json!({"content": "the editor's text"}),
        "session/request_permission" => {
            json!({"outcome": {"outcome": "selected", "optionId": "once"}})
        }
        "terminal/create" => json!({"terminalId": "terminal-1"}),
        "terminal/output" => json!({"output": "", "truncated": false, "exitStatus": null}),
        "terminal/wait_for_exit" => json!({"exitCode": 0, "signal": null}),
        "elicitation/create" => json!({"action": "accept", "content": {"name": "Ada"}}),
        _ => json!({}),
    }
}

#[derive(serde::Deserialize)]
struct Envelope {
    id: Option<serde_json::Value>,
}
