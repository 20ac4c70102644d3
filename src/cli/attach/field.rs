//! One field of a form that an agent asks to be filled in, and what may be typed for it.

use serde_json::{Number, Value};

use crate::transcript::printable_line;

/// Characters of what an agent says of a field that are shown.
const SHOWN: usize = 300;

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    label: String,
    description: Option<String>,
    pub(super) is_required: bool,
    kind: Kind,
    default: Option<Value>,
}

#[derive(Debug)]
enum Kind {
    Text {
        least: usize,
        most: usize,
        /// What the agent says of its form, which it alone checks.
        hint: Option<String>,
    },
    Number {
        least: Option<f64>,
        most: Option<f64>,
        is_whole: bool,
    },
    Flag,
    One(Vec<Choice>),
    Several {
        choices: Vec<Choice>,
        least: usize,
        most: usize,
    },
    /// Of a type that is not known here.
    Unknown(String),
}

#[derive(Debug)]
struct Choice {
    value: String,
    title: String,
}

impl Field {
    /// From a property of the form's schema.
    pub(super) fn read(name: &str, schema: &Value, is_required: bool) -> Field {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).map(shown);
        let count = |key: &str| {
            let count = schema.get(key).and_then(Value::as_u64);
            count.and_then(|count| usize::try_from(count).ok())
        };
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let number = |is_whole| Kind::Number {
            least: bound("minimum"),
            most: bound("maximum"),
            is_whole,
        };
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("string") => match choices(schema, "oneOf") {
                Some(choices) => Kind::One(choices),
                None => Kind::Text {
                    least: count("minLength").unwrap_or(0),
                    most: count("maxLength").unwrap_or(usize::MAX),
                    hint: text("format").or_else(|| text("pattern")),
                },
            },
            Some("number") => number(false),
            Some("integer") => number(true),
            Some("boolean") => Kind::Flag,
            Some("array") => match schema.get("items").and_then(|it| choices(it, "anyOf")) {
                Some(choices) => Kind::Several {
                    choices,
                    least: count("minItems").unwrap_or(0),
                    most: count("maxItems").unwrap_or(usize::MAX),
                },
                None => Kind::Unknown("array".to_owned()),
            },
            other => Kind::Unknown(shown(other.unwrap_or("none"))),
        };
        let mut field = Field {
            name: name.to_owned(),
            label: text("title").unwrap_or_else(|| shown(name)),
            description: text("description"),
            is_required,
            kind,
            default: None,
        };
        // One that could not be typed is none.
        let default = schema.get("default").filter(|it| field.fits(it));
        field.default = default.cloned();
        field
    }

    pub(super) fn is_known(&self) -> bool {
        !matches!(self.kind, Kind::Unknown(_))
    }

    /// What is to be typed, for a terminal.
    pub(super) fn text(&self) -> String {
        let mut text = match &self.description {
            Some(description) => format!("  {}: {description}\n", self.label),
            None => format!("  {}\n", self.label),
        };
        let (Kind::One(choices) | Kind::Several { choices, .. }) = &self.kind else {
            text.push_str(&format!("  {}{}: ", self.wanted(), self.otherwise()));
            return text;
        };
        for (number, choice) in (1..).zip(choices) {
            text.push_str(&format!("  {number}  {}\n", choice.title));
        }
        text.push_str(&format!("  {}{}: ", self.wanted(), self.otherwise()));
        text
    }

    /// What an answer says, for its review.
    pub(super) fn summary(&self, value: Option<&Value>) -> String {
        let value = match value {
            Some(value) => self.told(value),
            None => "(left out)".to_owned(),
        };
        format!("  {}: {value}\n", self.label)
    }

    /// What a line means. `Ok(None)` leaves the field out.
    ///
    /// # Errors
    /// Why it cannot be meant.
    pub(super) fn value(&self, line: &str) -> Result<Option<Value>, String> {
        if line.trim().is_empty() {
            return match &self.default {
                Some(default) => Ok(Some(default.clone())),
                None if self.is_required => Err("this field must be filled in".to_owned()),
                None => Ok(None),
            };
        }
        let value = self.typed(line)?;
        match self.fits(&value) {
            true => Ok(Some(value)),
            false => Err(format!("it must be {}", self.wanted())),
        }
    }

    fn typed(&self, line: &str) -> Result<Value, String> {
        let word = line.trim();
        let wanted = || format!("it must be {}", self.wanted());
        match &self.kind {
            Kind::Text { .. } => Ok(line.into()),
            Kind::Number { .. } => {
                let number: Number = serde_json::from_str(word).map_err(|_| wanted())?;
                Ok(number.into())
            }
            Kind::Flag => match word.to_ascii_lowercase().as_str() {
                "y" | "yes" | "true" => Ok(true.into()),
                "n" | "no" | "false" => Ok(false.into()),
                _ => Err(wanted()),
            },
            Kind::One(choices) => chosen(choices, word).map(Value::from).ok_or_else(wanted),
            Kind::Several { choices, .. } => {
                let words = word.split([',', ' ']).filter(|word| !word.is_empty());
                let mut all: Vec<&str> = Vec::new();
                for word in words {
                    let value = chosen(choices, word)
                        .ok_or_else(|| format!("{:?} is none of them", printable_line(word)))?;
                    if !all.contains(&value) {
                        all.push(value);
                    }
                }
                Ok(all.into())
            }
            Kind::Unknown(_) => Err("it cannot be filled in here".to_owned()),
        }
    }

    /// Whether a value is one that the form allows.
    fn fits(&self, value: &Value) -> bool {
        match &self.kind {
            Kind::Text { least, most, .. } => value.as_str().is_some_and(|text| {
                let count = text.chars().count();
                (*least..=*most).contains(&count)
            }),
            Kind::Number {
                least,
                most,
                is_whole,
            } => value.as_f64().is_some_and(|number| {
                (!is_whole || value.is_i64() || value.is_u64())
                    && least.is_none_or(|least| number >= least)
                    && most.is_none_or(|most| number <= most)
            }),
            Kind::Flag => value.is_boolean(),
            Kind::One(choices) => is_among(choices, value),
            Kind::Several {
                choices,
                least,
                most,
            } => value.as_array().is_some_and(|all| {
                (*least..=*most).contains(&all.len()) && all.iter().all(|it| is_among(choices, it))
            }),
            Kind::Unknown(_) => false,
        }
    }

    fn wanted(&self) -> String {
        match &self.kind {
            Kind::Text { least, most, hint } => {
                let hint = hint.as_ref().map(|hint| format!(" ({hint})"));
                let length = match (*least, *most) {
                    (0, usize::MAX) => String::new(),
                    (least, usize::MAX) => format!(" of at least {least} characters"),
                    (0, most) => format!(" of at most {most} characters"),
                    (least, most) => format!(" of {least} to {most} characters"),
                };
                format!("text{length}{}", hint.unwrap_or_default())
            }
            Kind::Number {
                least,
                most,
                is_whole,
            } => {
                let what = match is_whole {
                    true => "a whole number",
                    false => "a number",
                };
                match (least, most) {
                    (None, None) => what.to_owned(),
                    (Some(least), None) => format!("{what} from {least}"),
                    (None, Some(most)) => format!("{what} up to {most}"),
                    (Some(least), Some(most)) => format!("{what} from {least} to {most}"),
                }
            }
            Kind::Flag => "y or n".to_owned(),
            Kind::One(choices) => format!("a number from 1 to {}", choices.len()),
            Kind::Several {
                choices,
                least,
                most,
            } => {
                let most = (*most).min(choices.len());
                let how_many = match (*least, most) {
                    (0, most) => format!("up to {most}"),
                    (least, most) if least == most => format!("{most}"),
                    (least, most) => format!("{least} to {most}"),
                };
                format!(
                    "{how_many} numbers from 1 to {}, such as 1,2",
                    choices.len()
                )
            }
            Kind::Unknown(kind) => format!("of the type {kind:?}, which cannot be filled in here"),
        }
    }

    /// What Enter alone does.
    fn otherwise(&self) -> String {
        match &self.default {
            Some(default) => format!("; Enter for {}", self.told(default)),
            None if self.is_required => String::new(),
            None => "; Enter leaves it out".to_owned(),
        }
    }

    fn told(&self, value: &Value) -> String {
        let title = |value: &Value| {
            let (Kind::One(choices) | Kind::Several { choices, .. }) = &self.kind else {
                return None;
            };
            let choice = choices.iter().find(|it| value == it.value.as_str())?;
            Some(choice.title.clone())
        };
        match value {
            Value::String(text) => title(value).unwrap_or_else(|| shown(text)),
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            Value::Array(all) if all.is_empty() => "none".to_owned(),
            Value::Array(all) => {
                let all: Vec<_> = all.iter().map(|it| self.told(it)).collect();
                all.join(", ")
            }
            other => shown(&other.to_string()),
        }
    }
}

/// The options of a schema, titled ones under `titled`.
fn choices(schema: &Value, titled: &str) -> Option<Vec<Choice>> {
    let list = |key: &str| schema.get(key).and_then(Value::as_array);
    let plain = |it: &Value| {
        let value = it.as_str()?.to_owned();
        let title = shown(&value);
        Some(Choice { value, title })
    };
    let with_title = |it: &Value| {
        let value = it.get("const")?.as_str()?.to_owned();
        let title = it.get("title").and_then(Value::as_str).unwrap_or(&value);
        let title = shown(title);
        Some(Choice { value, title })
    };
    let choices: Vec<Choice> = match (list(titled), list("enum")) {
        (Some(all), _) => all.iter().filter_map(with_title).collect(),
        (None, Some(all)) => all.iter().filter_map(plain).collect(),
        (None, None) => return None,
    };
    (!choices.is_empty()).then_some(choices)
}

/// By its number, which is shown, else as it is written.
fn chosen<'a>(choices: &'a [Choice], word: &str) -> Option<&'a str> {
    let by_number = word.parse::<usize>().ok();
    let by_number = by_number.and_then(|number| choices.get(number.checked_sub(1)?));
    let by_name = || {
        let mut named = choices
            .iter()
            .filter(|it| it.value == word || it.title == word);
        named.next().filter(|_| named.next().is_none())
    };
    Some(&by_number.or_else(by_name)?.value)
}

fn is_among(choices: &[Choice], value: &Value) -> bool {
    choices.iter().any(|it| value == it.value.as_str())
}

fn shown(text: &str) -> String {
    let line = printable_line(text);
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_typed_becomes_what_the_form_wants_or_is_refused() {
        let check = |schema: Value, line: &str, expected: Result<Value, &str>| {
            let field = Field::read("f", &schema, true);
            let value = field.value(line).map(|value| value.unwrap());
            match (value, expected) {
                (Ok(value), Ok(expected)) => assert_eq!(value, expected, "{line}"),
                (Err(why), Err(words)) => assert!(why.contains(words), "{line}: {why}"),
                (other, _) => panic!("{line}: {other:?}"),
            }
        };
        let text = json!({"type": "string", "minLength": 2, "maxLength": 3});
        check(text.clone(), " ä ", Ok(json!(" ä ")));
        check(text.clone(), "a", Err("text of 2 to 3 characters"));
        check(text, "", Err("must be filled in"));
        let one = json!({"type": "string", "oneOf": [
            {"const": "r", "title": "Red"}, {"const": "2", "title": "Green"}]});
        check(one.clone(), "2", Ok(json!("2")));
        check(one.clone(), "1", Ok(json!("r")));
        check(one.clone(), "Red", Ok(json!("r")));
        check(one.clone(), "3", Err("a number from 1 to 2"));
        check(
            json!({"type": "string", "enum": ["2024", "2025"]}),
            "2025",
            Ok(json!("2025")),
        );
        let whole = json!({"type": "integer", "minimum": 1, "maximum": 9});
        check(whole.clone(), "7", Ok(json!(7)));
        for line in ["0", "1.5", "10", "x", "1 2", "+1"] {
            check(whole.clone(), line, Err("a whole number from 1 to 9"));
        }
        check(json!({"type": "number"}), "-1.5e2", Ok(json!(-1.5e2)));
        check(json!({"type": "boolean"}), "No", Ok(json!(false)));
        check(json!({"type": "boolean"}), "maybe", Err("y or n"));
        let some = json!({"type": "array", "maxItems": 2, "items": {"enum": ["a", "b", "c"]}});
        check(some.clone(), "3, 1 3", Ok(json!(["c", "a"])));
        check(some.clone(), "1,2,3", Err("up to 2 numbers"));
        check(some, "4", Err("\"4\" is none of them"));
        check(json!({"type": "map"}), "x", Err("cannot be filled in here"));
    }

    #[test]
    fn enter_takes_the_default_that_is_shown_and_a_wrong_one_is_none() {
        let field = |default: Value, is_required| {
            let schema = json!({"type": "integer", "maximum": 5, "default": default});
            Field::read("f", &schema, is_required)
        };
        assert_eq!(field(json!(3), true).value("").unwrap(), Some(json!(3)));
        assert!(field(json!(3), true).text().ends_with("; Enter for 3: "));
        assert!(field(json!(9), true).value("").is_err());
        assert_eq!(field(json!("x"), false).value(" ").unwrap(), None);
    }
}
