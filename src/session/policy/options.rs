//! The ways to answer that an agent offers, chosen by what they are and never by
//! where they stand.

use std::borrow::Cow;

use serde_json::json;
use serde_json::value::RawValue;

use crate::rpc::message;
use crate::rpc::splice::{self, Member};

/// More are no question that anybody would read.
const OPTIONS: usize = 64;
const OPTIONS_BYTES: usize = 64 * 1024;

/// The options of a `session/request_permission`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    options: Vec<Choice>,
    /// Whether each has an id of its own and a kind that ACP knows.
    is_sound: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub id: String,
    pub name: String,
    pub kind: ChoiceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChoiceKind {
    AllowOnce,
    AllowAlways,
    RejectOnce,
    RejectAlways,
    /// None of ACP's.
    Unknown,
}

impl Offered {
    /// Reads raw options, an array. What is none offers nothing.
    pub fn read(raw: Option<&str>) -> Offered {
        let options: Vec<&RawValue> = raw
            .filter(|raw| raw.len() <= OPTIONS_BYTES)
            .and_then(|raw| serde_json::from_str(raw).ok())
            .filter(|options: &Vec<_>| options.len() <= OPTIONS)
            .unwrap_or_default();
        let options: Vec<Choice> = options.iter().map(|raw| Choice::read(raw.get())).collect();
        let mut offered = Offered {
            options,
            is_sound: true,
        };
        offered.is_sound = offered.clear().count() == offered.options.len()
            && (offered.options.iter()).all(|choice| choice.kind != ChoiceKind::Unknown);
        offered
    }

    /// The options without those that have no id, or another one's: nobody could
    /// tell what they stand for.
    pub fn clear(&self) -> impl Iterator<Item = &Choice> {
        self.options.iter().filter(|choice| {
            let same = self.options.iter().filter(|other| other.id == choice.id);
            !choice.id.is_empty() && same.count() == 1
        })
    }

    /// The ids by which a person can answer: those whose options, if several have
    /// one id, are all of one kind.
    pub fn answerable(&self) -> impl Iterator<Item = &str> {
        let choices = self.options.iter().filter(|choice| {
            let mut same = self.options.iter().filter(|other| other.id == choice.id);
            same.all(|other| other.kind == choice.kind)
        });
        choices.map(|choice| choice.id.as_str())
    }

    /// The option that allows just this; with `always` the one that allows for
    /// always, where nothing less is offered. `None` where it is not clear which
    /// that is, or where one could only say yes.
    pub fn allowing(&self, always: bool) -> Option<&Choice> {
        let is_question = self.options.iter().any(|choice| {
            matches!(
                choice.kind,
                ChoiceKind::RejectOnce | ChoiceKind::RejectAlways
            )
        });
        if !self.is_sound || !is_question {
            return None;
        }
        match self.only(ChoiceKind::AllowOnce) {
            Found::One(choice) => Some(choice),
            Found::None if always => match self.only(ChoiceKind::AllowAlways) {
                Found::One(choice) => Some(choice),
                _ => None,
            },
            _ => None,
        }
    }

    /// The option that refuses just this; without one, the question is to be
    /// answered as cancelled.
    pub fn refusing(&self) -> Option<&Choice> {
        match self.only(ChoiceKind::RejectOnce) {
            Found::One(choice) if self.is_sound => Some(choice),
            _ => None,
        }
    }

    /// The options that settle it for always, where it is clear what is what.
    pub fn settling(&self) -> impl Iterator<Item = &Choice> {
        self.options.iter().filter(|choice| {
            let is_always = matches!(
                choice.kind,
                ChoiceKind::AllowAlways | ChoiceKind::RejectAlways
            );
            self.is_sound && is_always
        })
    }

    fn only(&self, kind: ChoiceKind) -> Found<'_> {
        let mut such = self.options.iter().filter(|choice| choice.kind == kind);
        match (such.next(), such.next()) {
            (None, _) => Found::None,
            (Some(choice), None) => Found::One(choice),
            (Some(_), Some(_)) => Found::Several,
        }
    }
}

impl Choice {
    fn read(raw: &str) -> Choice {
        let members = splice::members(raw).unwrap_or_default();
        let text = |key: &str| {
            let text = splice::value(&members, key).and_then(message::string);
            text.unwrap_or_default().into_owned()
        };
        Choice {
            id: text("optionId"),
            name: text("name"),
            kind: match text("kind").as_str() {
                "allow_once" => ChoiceKind::AllowOnce,
                "allow_always" => ChoiceKind::AllowAlways,
                "reject_once" => ChoiceKind::RejectOnce,
                "reject_always" => ChoiceKind::RejectAlways,
                _ => ChoiceKind::Unknown,
            },
        }
    }
}

enum Found<'a> {
    None,
    One(&'a Choice),
    Several,
}

/// What a raw result of `session/request_permission` chooses: an option's id;
/// `None` where the question was dropped.
///
/// # Errors
/// What is wrong with one that is no answer in ACP's words. Names that stand twice
/// are: readers differ in which they take.
pub fn chosen(result: &str) -> Result<Option<Cow<'_, str>>, &'static str> {
    let all = splice::members(result).ok_or("it is no object")?;
    let outcome = once(&all, "outcome").ok_or("it has not one `outcome`")?;
    let all = splice::members(outcome).ok_or("its `outcome` is no object")?;
    let kind = once(&all, "outcome").and_then(message::string);
    match kind.as_deref() {
        Some("selected") => once(&all, "optionId")
            .and_then(message::string)
            .map(Some)
            .ok_or("it has not one `optionId`, a string"),
        Some("cancelled") => Ok(None),
        _ => Err("its outcome is neither `selected` nor `cancelled`"),
    }
}

/// The value of the only member of that name.
fn once<'a>(members: &[Member<'a>], key: &str) -> Option<&'a str> {
    let mut such = members.iter().filter(|member| member.key == key);
    match (such.next(), such.next()) {
        (Some(member), None) => Some(member.value),
        _ => None,
    }
}

/// The result of `session/request_permission`: the option, or that the question
/// was dropped. Raw.
pub fn answer(option: Option<&str>) -> String {
    let outcome = match option {
        Some(id) => json!({ "outcome": "selected", "optionId": id }),
        None => json!({ "outcome": "cancelled" }),
    };
    json!({ "outcome": outcome }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn option(id: &str, kind: &str) -> Value {
        json!({ "optionId": id, "name": "N", "kind": kind })
    }

    /// What is chosen to allow, to allow with `always`, and to refuse.
    #[track_caller]
    fn check(options: Value, expected: [Option<&str>; 3]) {
        let offered = Offered::read(Some(&options.to_string()));
        let chosen = [
            offered.allowing(false),
            offered.allowing(true),
            offered.refusing(),
        ];
        let ids = chosen.map(|choice| choice.map(|choice| choice.id.as_str()));
        assert_eq!(ids, expected, "{options}");
    }

    #[test]
    fn options_are_chosen_by_kind_whatever_their_order() {
        let mut all = vec![
            option("ra", "reject_always"),
            option("aa", "allow_always"),
            option("r", "reject_once"),
            option("a", "allow_once"),
        ];
        check(json!(all), [Some("a"), Some("a"), Some("r")]);
        all.reverse();
        check(json!(all), [Some("a"), Some("a"), Some("r")]);
    }

    #[test]
    fn for_always_is_chosen_only_where_a_rule_says_so() {
        let always = json!([option("ra", "reject_always"), option("aa", "allow_always")]);
        check(always, [None, Some("aa"), None]);
    }

    #[test]
    fn only_a_sound_outcome_chooses_anything() {
        let check = |raw: &str, expected: Result<Option<&str>, ()>| {
            let read = chosen(raw).map_err(|_| ());
            assert_eq!(
                read.as_ref().map(Option::as_deref),
                expected.as_ref().map(|it| *it),
                "{raw}"
            );
        };
        check(r#"{"outcome":{"outcome":"cancelled"}}"#, Ok(None));
        let yes = r#"{"_meta":{},"outcome":{"x":1,"outcome":"selected","optionId":"y\u0065s"}}"#;
        check(yes, Ok(Some("yes")));
        for odd in [
            "null",
            "[]",
            r#""selected""#,
            "{}",
            r#"{"outcome":"selected","optionId":"yes"}"#,
            r#"{"outcome":{"outcome":"selected"}}"#,
            r#"{"outcome":{"outcome":"selected","optionId":7}}"#,
            r#"{"outcome":{"outcome":"selected","optionId":"no","optionId":"yes"}}"#,
            r#"{"outcome":{"outcome":"cancelled","outcome":"selected","optionId":"yes"}}"#,
            r#"{"outcome":{"outcome":"cancelled"},"outcome":{"outcome":"selected","optionId":"yes"}}"#,
            r#"{"outcome":{"outcome":"granted","optionId":"yes"}}"#,
            r#"{"outcome":{"optionId":"yes"}}"#,
        ] {
            check(odd, Err(()));
        }
    }

    #[test]
    fn what_is_not_a_clear_question_is_not_answered_with_yes() {
        let allow = option("a", "allow_once");
        let reject = option("r", "reject_once");
        check(json!([allow]), [None, None, None]);
        check(json!([reject]), [None, None, Some("r")]);
        for odd in [
            option("a", "reject_always"),
            option("", "reject_always"),
            option("x", "allow_for_ever"),
            json!({}),
            json!("allow_once"),
        ] {
            check(json!([allow, reject, odd]), [None, None, None]);
        }
        let two = option("a2", "allow_once");
        check(json!([allow, two, reject]), [None, None, Some("r")]);
        check(json!({}), [None, None, None]);
        check(json!(null), [None, None, None]);
    }
}
