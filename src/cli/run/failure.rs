//! Errors that requests were answered with, as failures that say what to do.

use serde_json::Value;

use crate::acp::failure::{AUTH_REQUIRED, FailureData, INVALID_REQUEST};
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};
use crate::transcript::printable_line;

/// An error object as a failure: acpbox's own says its phase, an agent's does not.
pub(in crate::cli) fn failure_of(error: &str) -> Failure {
    let code = splice::member(error, "code").and_then(|code| code.parse().ok());
    let what = splice::member(error, "message").and_then(message::string);
    let data = splice::member(error, "data").filter(|data| *data != "null");
    let ours = data.and_then(|data| serde_json::from_str::<FailureData>(data).ok());
    let mut failure = Failure::internal(
        Phase::Turn,
        what.unwrap_or_else(|| "the agent failed without a message".into()),
    );
    failure.code = code.unwrap_or(failure.code);
    match (ours, data) {
        (Some(ours), _) => {
            failure.data = Box::new(ours);
            failure.message = plain(&failure.message).to_owned();
        }
        (None, Some(data)) if failure.code == AUTH_REQUIRED => {
            failure = failure.hint(how_to_log_in(data));
        }
        (None, Some(data)) => failure = failure.hint(format!("the agent adds: {data}")),
        // The request itself was too long, or too deep.
        (None, None) if failure.code == INVALID_REQUEST => failure.data.phase = Phase::Request,
        (None, None) => {}
    }
    failure
}

/// What acpbox says without the words that JSON-RPC and ACP have for its kind.
pub(in crate::cli) fn plain(message: &str) -> &str {
    const KINDS: [&str; 4] = [
        "Invalid params: ",
        "Invalid Request: ",
        "Resource not found: ",
        "Internal error: ",
    ];
    let rest = KINDS.iter().find_map(|kind| message.strip_prefix(kind));
    rest.unwrap_or(message)
}

fn how_to_log_in(data: &str) -> String {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    let ways = data.get("authMethods").and_then(Value::as_array);
    let ways: Vec<String> = ways
        .into_iter()
        .flatten()
        .filter_map(|way| way.get("name").and_then(Value::as_str))
        .map(printable_line)
        .collect();
    let offered = if ways.is_empty() {
        String::new()
    } else {
        format!(" (it offers: {})", ways.join(", "))
    };
    format!(
        "log in inside its VM with `acpbox vms shell`{offered}, or set a variable that it takes \
         a key from: `acpbox agents show NAME` lists those that are passed on"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acpboxs_own_errors_keep_their_phase_and_hint() {
        let own = Failure::internal(Phase::Boot, "no VM").hint("mend it");
        let error = serde_json::to_string(&own.to_error_object()).unwrap();
        let read = failure_of(&error);
        assert_eq!(read.data.phase, Phase::Boot);
        assert_eq!(read.to_string(), own.to_string());
    }

    #[test]
    fn only_acpboxs_own_errors_lose_the_name_of_their_kind() {
        let own = serde_json::to_string(&Failure::invalid_params("`x` is 3").to_error_object());
        assert_eq!(failure_of(&own.unwrap()).to_string(), "`x` is 3");
        let agents = r#"{"code":-32602,"message":"Invalid params: y","data":{"z":1}}"#;
        assert!(
            failure_of(agents)
                .to_string()
                .starts_with("Invalid params: y")
        );
    }

    #[test]
    fn an_agents_errors_are_told_with_what_they_carry() {
        let read = failure_of(
            r#"{"code":-32000,"message":"Log in","data":{"authMethods":[{"name":"Key"}]}}"#,
        );
        assert!(read.to_string().contains("it offers: Key"), "{read}");
        let read = failure_of(r#"{"code":7,"message":"Oh","data":["x",1]}"#);
        assert_eq!(read.code, 7);
        assert!(read.to_string().contains(r#"["x",1]"#), "{read}");
        assert!(failure_of("{}").to_string().contains("without a message"));
    }
}
