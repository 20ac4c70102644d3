//! What a session can be set to and is set to, for a client that comes to a live
//! one: the agent is not asked, it has said so before.

use serde_json::Value;
use serde_json::value::RawValue;

use super::host::Host;
use super::live::Live;
use super::settings::Known;
use crate::acp::Failure;
use crate::rpc::message;
use crate::rpc::splice::{self, Edits};

/// The members of an agent's answer that say it.
const PARTS: [&str; 3] = ["modes", "models", "configOptions"];

/// Those members of an agent's answer to `session/new`, `load`, `resume` or
/// `fork`, a raw object.
pub(super) fn of(result: &str) -> Box<str> {
    let members = PARTS.iter().filter_map(|part| {
        let raw = splice::member(result, part)?;
        Some(format!("\"{part}\":{raw}"))
    });
    let members: Vec<String> = members.collect();
    format!("{{{}}}", members.join(",")).into()
}

impl Host {
    /// What the agent of a live session would answer if it were loaded now.
    pub(super) async fn selection(&self, live: &Live) -> Result<Box<str>, Failure> {
        // What clients set last is to count too.
        live.flush().await?;
        let known = self.known_settings(&live.id).await?;
        Ok(as_now(&live.state().selection, &known).into())
    }
}

/// `begun_with` (see [`of`]) with what was set since.
fn as_now(begun_with: &str, known: &Known) -> String {
    let mut edits = Edits::of(begun_with);
    let chosen = [
        ("modes", "currentModeId", &known.settings.mode),
        ("models", "currentModelId", &known.settings.model),
    ];
    for (part, member, value) in chosen {
        let shown = splice::member(begun_with, part).and_then(|part| splice::member(part, member));
        if let (Some(shown), Some(value)) = (shown, value)
            && message::string(shown).is_none_or(|shown| shown != *value)
        {
            edits.replace(shown, Value::from(value.as_str()).to_string());
        }
    }
    if let Some(listed) = &known.listed {
        edits.set(begun_with, "configOptions", with_values(listed, known));
    } else if let Some(options) = splice::member(begun_with, "configOptions") {
        edits.replace(options, with_values(options, known));
    }
    edits.apply()
}

/// A raw list of options, each with the value that it was set to last.
fn with_values(options: &str, known: &Known) -> String {
    let all: Vec<&RawValue> = serde_json::from_str(options).unwrap_or_default();
    let mut edits = Edits::of(options);
    for option in all {
        let id = splice::member(option.get(), "id").and_then(message::string);
        let value = id.and_then(|id| known.settings.config_options.get(&*id));
        if let (Some(value), Some(shown)) = (value, splice::member(option.get(), "currentValue")) {
            edits.replace(shown, value.to_string());
        }
    }
    edits.apply()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acp::extension::SessionSettings;

    const BEGUN: &str = r#"{"sessionId":"x","modes":{"currentModeId":"a","availableModes":[1.0]},"configOptions":[{"id":"o","currentValue":"low","n":1e400},{"id":"p","currentValue":true}],"other":1}"#;

    #[test]
    fn what_was_set_since_is_shown_and_all_else_is_as_the_agent_said_it() {
        let mut known = Known::default();
        assert_eq!(
            as_now(&of(BEGUN), &known),
            r#"{"modes":{"currentModeId":"a","availableModes":[1.0]},"configOptions":[{"id":"o","currentValue":"low","n":1e400},{"id":"p","currentValue":true}]}"#
        );
        known.settings = SessionSettings {
            mode: Some("b".into()),
            config_options: [("p".to_owned(), Value::from(false))].into(),
            ..SessionSettings::default()
        };
        assert_eq!(
            as_now(&of(BEGUN), &known),
            r#"{"modes":{"currentModeId":"b","availableModes":[1.0]},"configOptions":[{"id":"o","currentValue":"low","n":1e400},{"id":"p","currentValue":false}]}"#
        );
        known.listed = Some(r#"[{"id":"q","currentValue":"x"}]"#.into());
        assert_eq!(
            as_now(&of(BEGUN), &known),
            r#"{"modes":{"currentModeId":"b","availableModes":[1.0]},"configOptions":[{"id":"q","currentValue":"x"}]}"#
        );
        assert_eq!(as_now(&of("{}"), &Known::default()), "{}");
    }
}
