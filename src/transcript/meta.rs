//! `_meta.acpbox` on messages that are otherwise left as they are.

use crate::rpc::splice::{Edits, member};

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
