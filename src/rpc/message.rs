//! One message: its envelope is parsed, everything inside stays text.
//!
//! Number spelling, key order, `null` against absent and lone surrogates
//! survive because nothing but the envelope's own members is ever decoded.

use std::borrow::Cow;

use jsonrpsee_types::{ErrorCode, ErrorObjectOwned};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// No bound on nesting, for what was checked when it came, or made here.
/// Every level costs two bytes, so that twice this must still be a length.
pub const ANY_DEPTH: usize = usize::MAX / 4;

/// A message that borrows its line.
#[derive(Debug)]
pub struct Message<'a> {
    /// The whole line, without its end.
    pub text: &'a str,
    /// Whether it says `"jsonrpc":"2.0"`. Agents are forgiven, clients are not.
    pub versioned: bool,
    pub body: Body<'a>,
}

/// What a message is. Ids are raw JSON: a string, a number or `null`.
#[derive(Debug)]
pub enum Body<'a> {
    Request {
        id: &'a str,
        method: Cow<'a, str>,
        params: Option<&'a str>,
    },
    Notification {
        method: Cow<'a, str>,
        params: Option<&'a str>,
    },
    Response {
        id: &'a str,
        outcome: Outcome<'a>,
    },
}

/// A response's raw `result` or `error`.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    Result(&'a str),
    Error(&'a str),
}

/// Why a line is no message, and what can be said of it all the same.
#[derive(Debug)]
pub struct Malformed {
    /// The raw id to answer with; `null` where none could be read.
    pub id: String,
    /// Whether it was a response, which must not be answered.
    pub response: bool,
    pub error: ErrorObjectOwned,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Tells `null` from absent, which `Option` alone does not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A string that borrows where it has no escapes.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Decodes a raw JSON string.
pub fn string(raw: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text>(raw).ok().map(|text| text.0)
}

impl<'a> Message<'a> {
    /// Parses a line's envelope. `depth` bounds the nesting of arrays and
    /// objects, which is checked before anything recurses into them.
    pub fn parse(line: &'a [u8], depth: usize) -> Result<Message<'a>, Malformed> {
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("Parse error: not UTF-8 at byte {}", error.valid_up_to());
                return Err(Malformed::parse(what));
            }
        };
        let start = text.trim_ascii_start();
        if start.starts_with('[') {
            return Err(Malformed::invalid(
                "null",
                "Invalid Request: ACP has no batches; send one message per line",
            ));
        }
        if !is_within_depth(text, depth) {
            return Err(Malformed::parse(format!(
                "Parse error: nested deeper than {depth} levels (limits.depth)"
            )));
        }
        let envelope: Envelope<'a> = match serde_json::from_str(text) {
            Ok(envelope) => envelope,
            Err(error) if error.classify() == serde_json::error::Category::Data => {
                return Err(Malformed::invalid(
                    "null",
                    format!("Invalid Request: {error}"),
                ));
            }
            Err(error) => return Err(Malformed::parse(format!("Parse error: {error}"))),
        };
        envelope.into_message(text)
    }
}

impl<'a> Envelope<'a> {
    fn into_message(self, text: &'a str) -> Result<Message<'a>, Malformed> {
        let id = self.id.map(RawValue::get);
        if let Some(id) = id
            && !matches!(id.as_bytes()[0], b'"' | b'-' | b'0'..=b'9' | b'n')
        {
            return Err(Malformed::invalid(
                "null",
                "Invalid Request: `id` must be a string, a number or null",
            ));
        }
        let params = self.params.map(RawValue::get);
        let body = match (self.method, id) {
            (Some(method), id) => {
                let Some(method) = string(method.get()) else {
                    return Err(Malformed::invalid(
                        id.unwrap_or("null"),
                        "Invalid Request: `method` must be a string",
                    ));
                };
                if let Some(params) = params
                    && !matches!(params.as_bytes()[0], b'{' | b'[' | b'n')
                {
                    return Err(Malformed::invalid(
                        id.unwrap_or("null"),
                        "Invalid Request: `params` must be an object or an array",
                    ));
                }
                match id {
                    Some(id) => Body::Request { id, method, params },
                    None => Body::Notification { method, params },
                }
            }
            (None, Some(id)) => {
                let result = self.result.map(RawValue::get);
                let error = self.error.map(RawValue::get);
                let outcome = match (result, error) {
                    (Some(result), None | Some("null")) => Outcome::Result(result),
                    (None | Some("null"), Some(error)) => Outcome::Error(error),
                    (Some(_), Some(_)) => {
                        return Err(Malformed::response(
                            id,
                            "the response has both `result` and `error`",
                        ));
                    }
                    (None, None) => {
                        return Err(Malformed::response(
                            id,
                            "the message has neither `method` nor `result` nor `error`",
                        ));
                    }
                };
                Body::Response { id, outcome }
            }
            (None, None) => {
                return Err(Malformed::invalid(
                    "null",
                    "Invalid Request: the message has neither `method` nor `id`",
                ));
            }
        };
        let versioned = self.jsonrpc.map(RawValue::get) == Some("\"2.0\"");
        Ok(Message {
            text,
            versioned,
            body,
        })
    }
}

impl Malformed {
    fn parse(what: impl Into<String>) -> Malformed {
        Malformed {
            id: "null".into(),
            response: false,
            error: ErrorObjectOwned::owned(ErrorCode::ParseError.code(), what, None::<()>),
        }
    }

    fn invalid(id: &str, what: impl Into<String>) -> Malformed {
        Malformed {
            id: id.into(),
            response: false,
            error: ErrorObjectOwned::owned(ErrorCode::InvalidRequest.code(), what, None::<()>),
        }
    }

    fn response(id: &str, what: &str) -> Malformed {
        Malformed {
            id: id.into(),
            response: true,
            error: ErrorObjectOwned::owned(
                ErrorCode::InvalidRequest.code(),
                format!("Invalid Request: {what}"),
                None::<()>,
            ),
        }
    }
}

/// Whether arrays and objects nest at most `depth` levels. Brackets inside
/// strings do not count.
fn is_within_depth(text: &str, depth: usize) -> bool {
    // Every level costs two bytes, so short lines need no look.
    if text.len() < 2 * depth {
        return true;
    }
    let bytes = text.as_bytes();
    let mut level = 0usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                level += 1;
                if level > depth {
                    return false;
                }
            }
            b'}' | b']' => level = level.saturating_sub(1),
            b'"' => {
                at += 1;
                // Jump to the closing quote: long strings are the usual reason for long lines.
                loop {
                    match memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
                        Some(found) if bytes[at + found] == b'"' => {
                            at += found;
                            break;
                        }
                        Some(found) => at += found + 2,
                        None => return true,
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    true
}

/// A request's line.
pub fn request(id: u64, method: &str, params: &str) -> String {
    let method = serde_json::Value::from(method);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#)
}

/// A notification's line.
pub fn notification(method: &str, params: &str) -> String {
    let method = serde_json::Value::from(method);
    format!(r#"{{"jsonrpc":"2.0","method":{method},"params":{params}}}"#)
}

/// A successful response's line; `id` and `result` are raw JSON.
pub fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A failed response's line; `id` is raw JSON.
pub fn error(id: &str, error: &ErrorObjectOwned) -> String {
    let error = serde_json::to_string(error).unwrap_or_else(|_| {
        r#"{"code":-32603,"message":"Internal error: the error could not be written"}"#.into()
    });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message<'_>, Malformed> {
        Message::parse(text.as_bytes(), 512)
    }

    #[track_caller]
    fn refused(text: &str, code: i32, id: &str, words: &str) {
        let malformed = parse(text).expect_err(text);
        assert_eq!(malformed.error.code(), code, "{text}");
        assert_eq!(malformed.id, id, "{text}");
        assert!(
            malformed.error.message().contains(words),
            "{}",
            malformed.error.message()
        );
    }

    #[test]
    fn ids_keep_their_spelling() {
        for id in [
            "1",
            "1.0",
            "\"1\"",
            "18446744073709551616",
            "null",
            "-0",
            "1e3",
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#);
            match parse(&text).unwrap().body {
                Body::Request { id: seen, .. } => assert_eq!(seen, id),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn null_is_not_absent() {
        let with = parse(r#"{"method":"x","params":null}"#).unwrap();
        assert!(matches!(
            with.body,
            Body::Notification {
                params: Some("null"),
                ..
            }
        ));
        let without = parse(r#"{"method":"x"}"#).unwrap();
        assert!(matches!(
            without.body,
            Body::Notification { params: None, .. }
        ));
        let response = parse(r#"{"id":1,"result":null}"#).unwrap();
        assert!(matches!(
            response.body,
            Body::Response {
                outcome: Outcome::Result("null"),
                ..
            }
        ));
    }

    #[test]
    fn what_is_no_message_is_named() {
        refused("{", -32700, "null", "EOF");
        refused(
            r#"{"id":1,"id":2,"method":"x"}"#,
            -32600,
            "null",
            "duplicate field `id`",
        );
        refused(
            r#"{"id":1,"method":"x"} {"id":2,"method":"x"}"#,
            -32700,
            "null",
            "trailing",
        );
        refused(r#"[{"id":1,"method":"x"}]"#, -32600, "null", "batches");
        refused(r#"{"id":{},"method":"x"}"#, -32600, "null", "`id`");
        refused(r#"{"id":7,"method":3}"#, -32600, "7", "`method`");
        refused(
            r#"{"id":7,"method":"x","params":3}"#,
            -32600,
            "7",
            "`params`",
        );
        refused(r#"{"jsonrpc":"2.0"}"#, -32600, "null", "neither");
        refused("\u{0}", -32700, "null", "expected value");
        refused("5", -32600, "null", "invalid type");
        let both = parse(r#"{"id":1,"result":1,"error":{}}"#).expect_err("both");
        assert!(both.response);
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let deep = format!(
            r#"{{"method":"x","params":{}{}}}"#,
            "[".repeat(1_000_000),
            "]".repeat(1_000_000)
        );
        refused(&deep, -32700, "null", "limits.depth");
        let text = format!(r#"{{"method":"x","params":["{}"]}}"#, "[".repeat(5000));
        parse(&text).expect("brackets in strings do not nest");
        let edge = |levels: usize| {
            format!(
                r#"{{"params":{}{},"method":"x"}}"#,
                "[".repeat(levels),
                "]".repeat(levels)
            )
        };
        parse(&edge(511)).expect("512 levels with the message itself");
        refused(&edge(512), -32700, "null", "limits.depth");
    }

    #[test]
    fn lone_surrogates_and_huge_numbers_stay_text() {
        let text = r#"{"method":"x","params":{"a":"\ud800","b":1e400,"c":18446744073709551616}}"#;
        match parse(text).unwrap().body {
            Body::Notification {
                params: Some(params),
                ..
            } => {
                assert_eq!(
                    params,
                    r#"{"a":"\ud800","b":1e400,"c":18446744073709551616}"#
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
