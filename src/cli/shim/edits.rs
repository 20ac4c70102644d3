//! Changes to a client's messages that leave every other byte alone.

use crate::rpc::splice::{self, Edits};

/// `_meta.acpbox.KEY` of a request's params, raw; absent if `null`.
pub(super) fn option<'a>(params: &'a str, key: &str) -> Option<&'a str> {
    let ours = splice::member(splice::member(params, "_meta")?, "acpbox")?;
    splice::member(ours, key).filter(|value| *value != "null")
}

/// An object with `_meta.acpbox.KEY` set to a raw value. `None` where `_meta` or
/// what acpbox has in it is no object.
pub(super) fn with_option(params: &str, key: &str, value: &str) -> Option<String> {
    let mut edits = Edits::of(params);
    match splice::member(params, "_meta") {
        None | Some("null") => {
            edits.set(
                params,
                "_meta",
                format!(r#"{{"acpbox":{{"{key}":{value}}}}}"#),
            );
        }
        Some(meta) if meta.starts_with('{') => match splice::member(meta, "acpbox") {
            None | Some("null") => {
                edits.set(meta, "acpbox", format!(r#"{{"{key}":{value}}}"#));
            }
            Some(ours) if ours.starts_with('{') => {
                edits.set(ours, key, value.to_owned());
            }
            Some(_) => return None,
        },
        Some(_) => return None,
    }
    (!edits.is_empty()).then(|| edits.apply())
}

/// The params with which a session is loaded that was begun with these.
pub(super) fn load_params(begun_with: &str, session: &str) -> String {
    let id = serde_json::Value::from(session).to_string();
    let mut edits = Edits::of(begun_with);
    edits.set(begun_with, "sessionId", id);
    let ours = splice::member(begun_with, "_meta")
        .and_then(|meta| splice::member(meta, "acpbox"))
        .filter(|ours| ours.starts_with('{'));
    let text = match ours {
        Some(ours) => {
            // Both are of one request.
            let mut kept = Edits::of(ours);
            kept.remove(ours, "seq");
            let kept = kept.apply();
            let mut again = Edits::of(&kept);
            again.remove(&kept, "after");
            edits.replace(ours, again.apply());
            edits.apply()
        }
        None => edits.apply(),
    };
    debug_assert!(splice::members(&text).is_some(), "{text}");
    text
}

/// A request's text with other params.
pub(super) fn with_params(text: &str, params: &str, new: String) -> String {
    let mut edits = Edits::of(text);
    edits.replace(params, new);
    edits.apply()
}

/// A relative `cwd` is the client's own, whose folder is the shim's and not the server's.
pub(super) fn with_absolute_cwd(params: &str) -> Option<String> {
    let raw = splice::member(params, "cwd")?;
    let cwd = crate::rpc::message::string(raw)?;
    if cwd.is_empty() || cwd.starts_with('/') {
        return None;
    }
    let absolute = std::path::absolute(&*cwd).ok()?;
    let absolute = serde_json::Value::from(absolute.to_str()?).to_string();
    let mut edits = Edits::of(params);
    edits.replace(raw, absolute);
    Some(edits.apply())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_set_wherever_there_is_a_place_for_it() {
        for (params, expected) in [
            ("{}", Some(r#"{"_meta":{"acpbox":{"k":1}}}"#)),
            (
                r#"{"_meta":null,"a":1e400}"#,
                Some(r#"{"_meta":{"acpbox":{"k":1}},"a":1e400}"#),
            ),
            (
                r#"{"_meta":{"x":"\ud800"}}"#,
                Some(r#"{"_meta":{"acpbox":{"k":1},"x":"\ud800"}}"#),
            ),
            (
                r#"{"_meta":{"acpbox":{"k":0,"l":2}}}"#,
                Some(r#"{"_meta":{"acpbox":{"k":1,"l":2}}}"#),
            ),
            (r#"{"_meta":7}"#, None),
            (r#"{"_meta":{"acpbox":[]}}"#, None),
            ("[1]", None),
        ] {
            assert_eq!(
                with_option(params, "k", "1").as_deref(),
                expected,
                "{params}"
            );
        }
    }

    #[test]
    fn a_session_is_loaded_with_what_it_was_begun_with() {
        let begun = r#"{"cwd":"/w","mcpServers":[],"_meta":{"v":1,"acpbox":{"env":{"A":"b"},"seq":4,"after":3}}}"#;
        assert_eq!(
            load_params(begun, "s"),
            r#"{"sessionId":"s","cwd":"/w","mcpServers":[],"_meta":{"v":1,"acpbox":{"env":{"A":"b"}}}}"#
        );
        assert_eq!(
            load_params(r#"{"sessionId":"parent","cwd":"/w"}"#, "s"),
            r#"{"sessionId":"s","cwd":"/w"}"#
        );
    }

    #[test]
    fn only_a_relative_folder_is_made_absolute() {
        assert_eq!(with_absolute_cwd(r#"{"cwd":"/w"}"#), None);
        assert_eq!(with_absolute_cwd(r#"{"cwd":7}"#), None);
        let made = with_absolute_cwd(r#"{"cwd":"w","a":1}"#).unwrap();
        let here = std::env::current_dir().unwrap().join("w");
        assert_eq!(splice::member(&made, "cwd"), Some(&*format!("{here:?}")));
    }
}
