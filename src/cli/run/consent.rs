//! What the agent may: who answers when it asks for permission.
//!
//! An option is chosen by its kind, never by its place: an agent that offers
//! only ways to say yes is refused by cancelling.

use serde_json::{Value, json};

use super::terminal::Terminal;

/// Who answers.
pub(super) enum Consent {
    /// `--yes`: allow, once each.
    Yes,
    /// `--deny`, or nobody could be asked (`is_told` then says so once).
    No {
        is_told: bool,
    },
    Ask(Terminal),
}

/// One of the ways to answer that the agent offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Choice {
    pub(in crate::cli) id: String,
    pub(in crate::cli) name: String,
    pub(in crate::cli) kind: String,
}

impl Consent {
    pub(super) fn new(yes: bool, deny: bool) -> Consent {
        if yes {
            return Consent::Yes;
        }
        if deny {
            return Consent::No { is_told: true };
        }
        match Terminal::open() {
            Some(terminal) => Consent::Ask(terminal),
            None => Consent::No { is_told: false },
        }
    }
}

/// The options of a `session/request_permission`. Those without an id, or with
/// another one's id, are left out: nobody could tell what they stand for.
pub(in crate::cli) fn choices(params: &str) -> Vec<Choice> {
    let params: Value = serde_json::from_str(params).unwrap_or_default();
    let options = params.get("options").and_then(Value::as_array);
    let text = |option: &Value, key: &str| {
        let text = option.get(key).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let all: Vec<Choice> = options
        .into_iter()
        .flatten()
        .map(|option| Choice {
            id: text(option, "optionId"),
            name: text(option, "name"),
            kind: text(option, "kind"),
        })
        .collect();
    let is_clear = |choice: &&Choice| {
        !choice.id.is_empty() && all.iter().filter(|other| other.id == choice.id).count() == 1
    };
    all.iter().filter(is_clear).cloned().collect()
}

/// The option that allows just this.
pub(super) fn allowing(choices: &[Choice]) -> Option<&Choice> {
    of_kind(choices, "allow_once").or_else(|| of_kind(choices, "allow_always"))
}

/// The option that refuses just this.
pub(super) fn refusing(choices: &[Choice]) -> Option<&Choice> {
    of_kind(choices, "reject_once").or_else(|| of_kind(choices, "reject_always"))
}

fn of_kind<'a>(choices: &'a [Choice], kind: &str) -> Option<&'a Choice> {
    choices.iter().find(|choice| choice.kind == kind)
}

/// The result of the request: the option, or that the question was dropped.
pub(in crate::cli) fn answer(choice: Option<&Choice>) -> String {
    let outcome = match choice {
        Some(choice) => json!({ "outcome": "selected", "optionId": choice.id }),
        None => json!({ "outcome": "cancelled" }),
    };
    json!({ "outcome": outcome }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(options: Value, pick: fn(&[Choice]) -> Option<&Choice>) -> Option<String> {
        let choices = choices(&json!({ "options": options }).to_string());
        pick(&choices).map(|choice| choice.id.clone())
    }

    fn option(id: &str, kind: &str) -> Value {
        json!({ "optionId": id, "name": "N", "kind": kind })
    }

    #[test]
    fn options_are_chosen_by_kind_whatever_their_order() {
        let all = json!([
            option("ra", "reject_always"),
            option("aa", "allow_always"),
            option("r", "reject_once"),
            option("a", "allow_once"),
        ]);
        assert_eq!(chosen(all.clone(), allowing).as_deref(), Some("a"));
        assert_eq!(chosen(all, refusing).as_deref(), Some("r"));
        let always = json!([option("ra", "reject_always"), option("aa", "allow_always")]);
        assert_eq!(chosen(always.clone(), allowing).as_deref(), Some("aa"));
        assert_eq!(chosen(always, refusing).as_deref(), Some("ra"));
    }

    #[test]
    fn a_refusal_never_becomes_a_yes() {
        assert_eq!(chosen(json!([option("a", "allow_once")]), refusing), None);
        assert_eq!(chosen(json!([option("x", "other"), {}]), allowing), None);
        assert_eq!(chosen(json!(null), allowing), None);
    }

    #[test]
    fn options_that_share_an_id_are_not_chosen() {
        let twice = json!([option("x", "allow_once"), option("x", "reject_once")]);
        assert_eq!(chosen(twice.clone(), allowing), None);
        assert_eq!(chosen(twice, refusing), None);
        assert_eq!(chosen(json!([option("", "allow_once")]), allowing), None);
    }
}
