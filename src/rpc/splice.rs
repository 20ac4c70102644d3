//! Edits to the text of a JSON object that leave every other byte alone.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::message::Text;

/// One member of an object: its decoded key, and its value as it is written.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    pub key: Cow<'a, str>,
    pub value: &'a str,
}

/// An object's members in order, duplicates included; `None` if the text is
/// not an object.
pub fn members(object: &str) -> Option<Vec<Member<'_>>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Member<'de>>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::with_capacity(4);
            while let Some((key, value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                members.push(Member {
                    key: key.0,
                    value: value.get(),
                });
            }
            Ok(members)
        }
    }
    if !object.trim_ascii_start().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(object)
        .deserialize_map(Members)
        .ok()
}

/// The value of the last of these members with that name: what JSON readers take.
pub fn value<'a>(members: &[Member<'a>], key: &str) -> Option<&'a str> {
    let found = members.iter().rev().find(|member| member.key == key)?;
    Some(found.value)
}

/// The value of an object's last member of that name.
pub fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    value(&members(object)?, key)
}

/// Where `part`, a piece of `whole`, lies in it.
///
/// # Panics
/// If `part` does not point into `whole`.
pub fn range(whole: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    let end = start.wrapping_add(part.len());
    assert!(start <= end && end <= whole.len(), "a part of another text");
    start..end
}

/// Edits to one text, applied together. Positions are of the original text.
#[derive(Debug)]
pub struct Edits<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, Cow<'a, str>)>,
}

impl<'a> Edits<'a> {
    pub fn of(text: &'a str) -> Edits<'a> {
        Edits {
            text,
            edits: Vec::with_capacity(3),
        }
    }

    /// Puts `with` where `part` is. `part` must point into the text.
    pub fn replace(&mut self, part: &str, with: impl Into<Cow<'a, str>>) -> &mut Self {
        self.edits.push((range(self.text, part), with.into()));
        self
    }

    /// Sets a member of `object` (a piece of the text that is an object),
    /// replacing the last one of that name, else putting it first.
    pub fn set(&mut self, object: &'a str, key: &str, value: impl Into<Cow<'a, str>>) -> &mut Self {
        let value = value.into();
        let Some(members) = members(object) else {
            return self;
        };
        if let Some(member) = members.iter().rev().find(|member| member.key == key) {
            return self.replace(member.value, value);
        }
        let open = range(self.text, object).start + leading_space(object) + 1;
        let key = serde_json::Value::from(key);
        let comma = if members.is_empty() { "" } else { "," };
        self.edits
            .push((open..open, format!("{key}:{value}{comma}").into()));
        self
    }

    /// Removes every member of that name from `object`, a piece of the text.
    pub fn remove(&mut self, object: &'a str, key: &str) -> &mut Self {
        let Some(members) = members(object) else {
            return self;
        };
        let mut from = range(self.text, object).start + leading_space(object) + 1;
        let mut kept_before = false;
        for (index, member) in members.iter().enumerate() {
            let value = range(self.text, member.value);
            if member.key == key {
                // With a kept member before it, its comma goes; else the one after it.
                let end = match members.get(index + 1) {
                    Some(_) if !kept_before => {
                        value.end
                            + self.text[value.end..]
                                .find(',')
                                .map_or(0, |comma| comma + 1)
                    }
                    _ => value.end,
                };
                self.edits.push((from..end, Cow::Borrowed("")));
                from = end;
            } else {
                kept_before = true;
                from = value.end;
            }
        }
        self
    }

    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// The edited text.
    pub fn apply(mut self) -> String {
        self.edits
            .sort_by_key(|(range, _)| (range.start, range.end));
        let grown: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        let mut edited = String::with_capacity(self.text.len() + grown);
        let mut at = 0;
        for (range, with) in &self.edits {
            edited.push_str(&self.text[at..range.start]);
            edited.push_str(with);
            at = range.end;
        }
        edited.push_str(&self.text[at..]);
        edited
    }
}

fn leading_space(text: &str) -> usize {
    text.len() - text.trim_ascii_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn removed(object: &str, expected: &str) {
        let mut edits = Edits::of(object);
        edits.remove(object, "x");
        let edited = edits.apply();
        assert_eq!(edited, expected);
        serde_json::from_str::<serde_json::Value>(&edited).expect("still JSON");
    }

    #[test]
    fn a_member_is_removed_with_its_comma() {
        removed(r#"{"x":1}"#, "{}");
        removed(r#"{"x":1,"a":2}"#, r#"{"a":2}"#);
        removed(r#"{"a":2,"x":1}"#, r#"{"a":2}"#);
        removed(r#"{"a":2 , "x":{"x":1} , "b":3}"#, r#"{"a":2 , "b":3}"#);
        removed(r#"{"x":1,"x":2,"a":3}"#, r#"{"a":3}"#);
        removed(r#"{"x":1,"x":2}"#, "{}");
        removed(r#"{"a":1,"x":1,"x":2}"#, r#"{"a":1}"#);
        removed(r#"{"a":1}"#, r#"{"a":1}"#);
    }

    #[test]
    fn a_member_is_set_without_touching_the_rest() {
        let object = r#" { "b" : 1e400, "a":"\ud800"}"#;
        let mut edits = Edits::of(object);
        edits.set(object, "c", "7");
        assert_eq!(edits.apply(), r#" {"c":7, "b" : 1e400, "a":"\ud800"}"#);
        let mut edits = Edits::of(object);
        edits.set(object, "b", "7");
        assert_eq!(edits.apply(), r#" { "b" : 7, "a":"\ud800"}"#);
        let object = "{}";
        let mut edits = Edits::of(object);
        edits.set(object, "b", "7");
        assert_eq!(edits.apply(), r#"{"b":7}"#);
    }

    #[test]
    fn members_keep_duplicates_and_spelling() {
        let found = members(r#"{"a":1.0,"\u0061":2,"b":[ ]}"#).unwrap();
        let pairs: Vec<_> = found.iter().map(|m| (m.key.as_ref(), m.value)).collect();
        assert_eq!(pairs, [("a", "1.0"), ("a", "2"), ("b", "[ ]")]);
        assert!(members("[1]").is_none());
        assert_eq!(member(r#"{"a":1,"a":2}"#, "a"), Some("2"));
    }
}
