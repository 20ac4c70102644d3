//! What an agent asks a person beside permissions: a form, field by field, or to open
//! a page.

use serde_json::{Map, Value, json};

use super::asked::Taken;
use super::field::Field;
use crate::rpc::{message, splice};
use crate::transcript::printable_line;

/// A form with more is not asked for in a terminal.
const MOST_FIELDS: usize = 64;

/// What may be typed instead of an answer.
const COMMANDS: &str = "/decline refuses, /cancel answers nothing, /back asks the last one again";

#[derive(Debug)]
pub(super) struct Form {
    fields: Vec<Field>,
    /// Of as many fields as were answered.
    values: Vec<Option<Value>>,
    /// Why it cannot be answered here.
    obstacle: Option<String>,
}

/// A page that the person is to open.
#[derive(Debug)]
pub(super) struct Link {
    url: String,
}

impl Form {
    /// From the params of `elicitation/create`.
    pub(super) fn new(params: &str) -> Form {
        let schema = splice::member(params, "requestedSchema").unwrap_or("{}");
        let schema: Value = serde_json::from_str(schema).unwrap_or_default();
        let required = schema.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| required.is_some_and(|all| all.iter().any(|it| it.as_str() == Some(name)));
        let properties = schema.get("properties").and_then(Value::as_object);
        let fields: Vec<Field> = properties
            .into_iter()
            .flatten()
            .map(|(name, schema)| Field::read(name, schema, is_required(name)))
            // Those that nobody here can fill in may be left out.
            .filter(|field| field.is_known() || field.is_required)
            .collect();
        let strange = fields.iter().find(|field| !field.is_known());
        let obstacle = match strange {
            Some(field) => Some(format!(
                "its field {:?} cannot be filled in here",
                printable_line(&field.name)
            )),
            None if fields.len() > MOST_FIELDS => Some(format!("it has {} fields", fields.len())),
            None => None,
        };
        Form {
            fields,
            values: Vec::new(),
            obstacle,
        }
    }

    /// What is to be typed next, for a terminal.
    pub(super) fn text(&self) -> String {
        if let Some(why) = &self.obstacle {
            return format!(
                "  this form must be answered in another client, as {why}\n  /decline or /cancel: "
            );
        }
        let count = self.fields.len();
        let at = self.values.len();
        match self.fields.get(at) {
            Some(field) if at == 0 => {
                format!("  {COMMANDS}\n  field 1 of {count}\n{}", field.text())
            }
            Some(field) => format!("  field {} of {count}\n{}", at + 1, field.text()),
            None => {
                let all = self.fields.iter().zip(&self.values);
                let all = all.map(|(field, value)| field.summary(value.as_ref()));
                let all: String = all.collect();
                format!("{all}  y sends this, n asks anew, /decline or /cancel: ")
            }
        }
    }

    pub(super) fn take(&mut self, line: &str) -> Taken {
        match line.trim() {
            "/decline" => return Taken::Answer(action("decline")),
            "/cancel" => return Taken::Answer(action("cancel")),
            "/back" if self.obstacle.is_none() => {
                self.values.pop();
                return Taken::Next;
            }
            "/help" => return Taken::Wrong(COMMANDS.to_owned()),
            _ => {}
        }
        if self.obstacle.is_some() {
            return Taken::Wrong("that line was not sent".to_owned());
        }
        let Some(field) = self.fields.get(self.values.len()) else {
            return match line.trim() {
                "y" | "yes" => Taken::Answer(self.accepted()),
                "n" | "no" => {
                    self.values.clear();
                    Taken::Next
                }
                _ => Taken::Wrong("that line is neither y nor n, and was not sent".to_owned()),
            };
        };
        // What begins with a slash may be meant.
        let line = match line.strip_prefix("//") {
            Some(rest) => &format!("/{rest}"),
            None => line,
        };
        match field.value(line) {
            Ok(value) => {
                self.values.push(value);
                Taken::Next
            }
            Err(why) => Taken::Wrong(why),
        }
    }

    fn accepted(&self) -> String {
        let mut content = Map::new();
        for (field, value) in self.fields.iter().zip(&self.values) {
            if let Some(value) = value {
                content.insert(field.name.clone(), value.clone());
            }
        }
        json!({ "action": "accept", "content": content }).to_string()
    }
}

impl Link {
    /// From the params of `elicitation/create`.
    pub(super) fn new(params: &str) -> Link {
        let url = splice::member(params, "url").and_then(message::string);
        Link {
            url: url.unwrap_or_default().into_owned(),
        }
    }

    pub(super) fn text(&self) -> String {
        let url = printable_line(&self.url);
        let rest = (url.strip_prefix("https://")).or_else(|| url.strip_prefix("http://"));
        let Some(rest) = rest else {
            return format!("  {url}\n  is no web page's address; /decline or /cancel: ");
        };
        let place = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        // What stands before it is a name, which may look like another host.
        let host = place.rsplit('@').next().unwrap_or_default();
        format!(
            "  {url}\n  is for you to open, at {host}; nothing opens it by itself\n  y if you do, n declines, /cancel answers nothing: "
        )
    }

    pub(super) fn take(&self, line: &str) -> Taken {
        let is_page = self.url.starts_with("https://") || self.url.starts_with("http://");
        match line.trim() {
            "y" | "yes" if is_page => Taken::Answer(action("accept")),
            "n" | "no" | "/decline" => Taken::Answer(action("decline")),
            "/cancel" => Taken::Answer(action("cancel")),
            _ => Taken::Wrong("that line is no answer, and was not sent".to_owned()),
        }
    }
}

pub(super) fn action(name: &str) -> String {
    json!({ "action": name }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(properties: Value, required: &[&str]) -> Form {
        let schema = json!({"type": "object", "properties": properties, "required": required});
        Form::new(&json!({"requestedSchema": schema}).to_string())
    }

    fn answer(form: &mut Form, lines: &[&str]) -> Value {
        for line in lines {
            if let Taken::Answer(answer) = form.take(line) {
                return serde_json::from_str(&answer).unwrap();
            }
        }
        Value::Null
    }

    #[test]
    fn a_form_is_sent_once_it_was_looked_over() {
        let properties = json!({"name": {"type": "string"}, "age": {"type": "integer"},
            "odd": {"type": "map"}, "sure": {"type": "boolean"}});
        let new = || form(properties.clone(), &["name"]);
        let sent = json!({"action": "accept", "content": {"name": "/cancel", "sure": true}});
        let lines = ["//cancel", "x", "", "y", "what", "y"];
        assert_eq!(answer(&mut new(), &lines), sent);
        let anew = ["a", "1", "y", "n", "b", "/back", "c", "2", "n", "y"];
        let sent = json!({"action": "accept", "content": {"name": "c", "age": 2, "sure": false}});
        assert_eq!(answer(&mut new(), &anew), sent);
        for (line, action) in [("/decline", "decline"), ("/cancel", "cancel")] {
            assert_eq!(answer(&mut new(), &["a", line]), json!({"action": action}));
        }
        assert_eq!(answer(&mut new(), &["a", "1", "y"]), Value::Null);
    }

    #[test]
    fn one_that_cannot_be_filled_in_can_be_declined() {
        let mut strange = form(json!({"odd": {"type": "map"}}), &["odd"]);
        assert!(strange.text().contains("in another client"));
        assert_eq!(answer(&mut strange, &["x", "y", "/back", "y"]), Value::Null);
        assert_eq!(answer(&mut strange, &["/decline"])["action"], "decline");
    }

    #[test]
    fn a_page_is_named_by_the_host_that_it_is_at() {
        let link = |url: &str| Link::new(&json!({"url": url}).to_string());
        let page = link("https://bank.example.org@example.org/x");
        assert!(page.text().contains("at example.org;"), "{}", page.text());
        let Taken::Answer(answer) = page.take("y") else {
            panic!("not taken");
        };
        assert_eq!(answer, r#"{"action":"accept"}"#);
        assert!(matches!(
            link("file:///etc/passwd").take("y"),
            Taken::Wrong(_)
        ));
    }
}
