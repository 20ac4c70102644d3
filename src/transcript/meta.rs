//! `_meta.acpbox` on messages that are otherwise left as they are.

use std::borrow::Cow;

use crate::rpc::message;
use crate::rpc::splice::{Edits, member, members};

/// Sets `_meta.acpbox` on a message's `result` or `params`, where that is an object.
pub fn with_meta(line: &str, part: &str, meta: &impl serde::Serialize) -> String {
    let meta = serde_json::to_string(meta).unwrap_or_else(|_| "{}".into());
    let Some(object) = member(line, part) else {
        return line.to_owned();
    };
    let mut edits = Edits::of(line);
    set_meta(&mut edits, object, meta);
    edits.apply()
}

/// Adds the edit that sets `_meta.acpbox` on `object`.
pub fn set_meta<'a>(edits: &mut Edits<'a>, object: &'a str, meta: String) {
    match member(object, "_meta") {
        Some(theirs) if theirs.starts_with('{') => {
            edits.set(theirs, "acpbox", meta);
        }
        _ => {
            edits.set(object, "_meta", format!("{{\"acpbox\":{meta}}}"));
        }
    }
}

/// A message with another session's id where the relay puts the public one.
pub fn renamed<'a>(raw: &'a str, old: &str, new: &str) -> Cow<'a, str> {
    // An id may be written with escapes.
    if !raw.contains(old) && !raw.contains("\\u") {
        return Cow::Borrowed(raw);
    }
    let mut edits = Edits::of(raw);
    for part in ["params", "result"] {
        for member in member(raw, part).and_then(members).unwrap_or_default() {
            if member.key == "sessionId"
                && message::string(member.value).is_some_and(|id| id == old)
            {
                edits.replace(member.value, format!("\"{new}\""));
            }
        }
    }
    match edits.is_empty() {
        true => Cow::Borrowed(raw),
        false => Cow::Owned(edits.apply()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_session_itself_is_renamed() {
        let raw = r#"{"params":{"sessionId":"old","update":{"text":"old","n":1e400}},"id":"old"}"#;
        let new = r#"{"params":{"sessionId":"new","update":{"text":"old","n":1e400}},"id":"old"}"#;
        assert_eq!(&*renamed(raw, "old", "new"), new);
        assert_eq!(
            &*renamed(r#"{"result":{"sessionId":"x"}}"#, "old", "new"),
            r#"{"result":{"sessionId":"x"}}"#
        );
    }
}
