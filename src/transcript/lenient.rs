//! Reading a stored message, however odd: agents send numbers and escapes that
//! a strict parser refuses, and a transcript must show them all the same.

use serde_json::Value;

use super::printable::printable;

/// The message as a tree whose every string is [`printable`]: all that is
/// rendered comes from here. `None` if it is no JSON at all.
pub(super) fn read(raw: &str) -> Option<Value> {
    let mut value = serde_json::from_str(raw)
        .or_else(|_| serde_json::from_str(&mend(raw)))
        .ok()?;
    scrub(&mut value);
    Some(value)
}

fn scrub(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let std::borrow::Cow::Owned(clean) = printable(text) {
                *text = clean;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(scrub),
        Value::Object(members) => {
            // Keys are only ever shown as JSON, which escapes the controls, but
            // not what turns the reading direction.
            if members
                .keys()
                .any(|key| matches!(printable(key), std::borrow::Cow::Owned(_)))
            {
                let renamed = std::mem::take(members).into_iter();
                *members = renamed
                    .map(|(key, value)| (printable(&key).into_owned(), value))
                    .collect();
            }
            members.values_mut().for_each(scrub);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Escapes of lone surrogates become U+FFFD, numbers out of range strings.
fn mend(raw: &str) -> String {
    let mut mended = String::with_capacity(raw.len() + 16);
    let mut rest = raw;
    let mut in_string = false;
    while let Some(at) = rest.find(|character: char| {
        matches!(character, '"' | '\\')
            || (!in_string && (character == '-' || character.is_ascii_digit()))
    }) {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match rest.as_bytes()[0] {
            b'"' => {
                in_string = !in_string;
                1
            }
            b'\\' => match surrogate(rest) {
                Some(first)
                    if first < 0xdc00
                        && surrogate(&rest[6..]).is_some_and(|second| second >= 0xdc00) =>
                {
                    12
                }
                Some(_) => {
                    mended.push('\u{fffd}');
                    rest = &rest[6..];
                    continue;
                }
                // An escape is two characters at least, the second maybe a quote.
                None => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            },
            _ => {
                let end = rest.find(|character: char| {
                    !matches!(character, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')
                });
                let number = &rest[..end.unwrap_or(rest.len())];
                if number.parse().is_ok_and(|number: f64| number.is_infinite()) {
                    mended.push('"');
                    mended.push_str(number);
                    mended.push('"');
                    rest = &rest[number.len()..];
                    continue;
                }
                number.len()
            }
        };
        mended.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    mended.push_str(rest);
    mended
}

/// The surrogate that an escape at the start of the text stands for.
fn surrogate(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let unit = u32::from_str_radix(digits, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn odd_messages_are_read() {
        let check = |raw, expected: Value| assert_eq!(read(raw).as_ref(), Some(&expected), "{raw}");
        check(r#"{"a":"x\ud800y"}"#, json!({"a": "x\u{fffd}y"}));
        check(r#"{"a":"\ud83d\ude00\udc00"}"#, json!({"a": "😀\u{fffd}"}));
        check(
            r#"{"a":1e400,"b":-1e999,"c":"1e400 \" 1e400","d":-2.5e3}"#,
            json!({"a": "1e400", "b": "-1e999", "c": "1e400 \" 1e400", "d": -2500.0}),
        );
        check(
            r#"{"n":18446744073709551616,"k":1,"k":2}"#,
            json!({"n": 18446744073709551616.0, "k": 2}),
        );
        check("\"\\u001b[31mred\"", json!("red"));
        check("{\"a\u{202e}b\":1}", json!({"ab": 1}));
        check(r#"["\\","\ud800\\"]"#, json!(["\\", "\u{fffd}\\"]));
    }

    #[test]
    fn what_is_no_json_is_none() {
        for raw in [
            "",
            "{",
            "not json",
            "\"\\ud8",
            "\\",
            "-",
            "\"\\u12ü4\"",
            &"[".repeat(100_000),
        ] {
            assert_eq!(read(raw), None, "{:.20}", raw);
        }
    }
}
