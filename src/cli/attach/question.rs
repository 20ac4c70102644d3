//! A permission that an agent asks for, and how a line answers it.

use crate::rpc::splice;
use crate::session::policy::{Choice, ChoiceKind, Offered};
use crate::transcript::printable_line;

/// What stands for an option of a kind, where just one has that kind.
const LETTERS: [(ChoiceKind, char); 4] = [
    (ChoiceKind::AllowOnce, 'a'),
    (ChoiceKind::AllowAlways, 'A'),
    (ChoiceKind::RejectOnce, 'r'),
    (ChoiceKind::RejectAlways, 'R'),
];

pub(super) struct Question {
    choices: Vec<Choice>,
}

impl Question {
    /// From the params of `session/request_permission`.
    pub(super) fn new(params: &str) -> Question {
        Question {
            choices: Offered::read(splice::member(params, "options"))
                .clear()
                .cloned()
                .collect(),
        }
    }

    /// The choices for a terminal, one a line.
    pub(super) fn text(&self) -> String {
        if self.choices.is_empty() {
            return "  none of its options can be chosen here; Ctrl-C cancels the turn\n".into();
        }
        let mut text = String::new();
        for (number, choice) in (1..).zip(&self.choices) {
            let letter = self.letter(choice).map(String::from).unwrap_or_default();
            let name = printable_line(&choice.name);
            text.push_str(&format!("  {number} {letter:1}  {name}\n"));
        }
        text.push_str("a number or a letter answers: ");
        text
    }

    /// The option that a line chooses; nothing else ever chooses one.
    pub(super) fn chosen(&self, line: &str) -> Option<&Choice> {
        let word = line.trim();
        if let Ok(number) = word.parse::<usize>() {
            return self.choices.get(number.checked_sub(1)?);
        }
        let is_meant = |choice: &&Choice| {
            let letter = self.letter(choice);
            letter.is_some_and(|letter| word.len() == 1 && word.starts_with(letter))
        };
        self.choices.iter().find(is_meant)
    }

    fn letter(&self, choice: &Choice) -> Option<char> {
        let (_, letter) = LETTERS.iter().find(|(kind, _)| *kind == choice.kind)?;
        let of_kind = self.choices.iter().filter(|it| it.kind == choice.kind);
        (of_kind.count() == 1).then_some(*letter)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(options: &[(&str, &str)]) -> Question {
        let options: Vec<_> = options
            .iter()
            .map(|(id, kind)| json!({"optionId": id, "name": id, "kind": kind}))
            .collect();
        Question::new(&json!({ "options": options }).to_string())
    }

    #[test]
    fn a_number_or_the_letter_of_a_kind_chooses_and_nothing_else() {
        let asked = question(&[
            ("no", "reject_once"),
            ("yes", "allow_once"),
            ("all", "allow_always"),
        ]);
        let chosen = |line: &str| asked.chosen(line).map(|choice| choice.id.as_str());
        for (line, id) in [
            ("1", "no"),
            (" 2 ", "yes"),
            ("a", "yes"),
            ("A", "all"),
            ("r", "no"),
        ] {
            assert_eq!(chosen(line), Some(id), "{line}");
        }
        for line in ["", "0", "4", "R", "y", "yes", "ar", "-1", "１"] {
            assert_eq!(chosen(line), None, "{line}");
        }
    }

    #[test]
    fn a_letter_that_two_options_share_chooses_neither() {
        let asked = question(&[("one", "allow_once"), ("two", "allow_once")]);
        assert!(asked.chosen("a").is_none());
        assert_eq!(asked.chosen("2").unwrap().id, "two");
    }

    #[test]
    fn names_of_options_cannot_touch_the_terminal() {
        let asked = question(&[("\u{1b}]52;c;x\u{7}\u{9b}31m", "allow_once")]);
        assert!(
            asked
                .text()
                .chars()
                .all(|it| it == '\n' || !it.is_control())
        );
    }
}
