//! Finds messages in bytes: one per line (ACP), or behind `Content-Length`
//! headers (as LSP libraries write). The first byte tells which.

use bytes::{Buf, Bytes, BytesMut};

/// How messages are told apart on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One message per line, as ACP's stdio transport has it.
    Lines,
    /// `Content-Length: N`, an empty line, then N bytes, as LSP's base protocol has it.
    Headers,
}

/// Bounds of what a peer may send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest message in bytes, without its line end or headers.
    pub line_bytes: usize,
    /// The deepest nesting of arrays and objects.
    pub depth: usize,
}

/// What was found.
#[derive(Debug)]
pub enum Frame {
    /// One message's bytes, not yet known to be UTF-8 or JSON, free of line ends.
    Message(Bytes),
    /// A message over the limit was skipped; the stream goes on.
    TooLong { bytes: usize },
    /// The stream cannot be followed any further; why.
    Broken(String),
}

/// The most that a block of headers may take. LSP defines two short ones.
const HEADER_BYTES: usize = 8 * 1024;

/// Cuts a byte stream into frames. Memory is bounded by the limit.
#[derive(Debug)]
pub struct Decoder {
    framing: Option<Framing>,
    limit: usize,
    /// Bytes already searched for a line end.
    searched: usize,
    skipping: Skipping,
    broken: bool,
}

#[derive(Debug, Clone, Copy)]
enum Skipping {
    No,
    /// Up to the next line end; so many bytes so far.
    Line(usize),
    /// So many bytes more.
    Body(usize),
}

impl Decoder {
    /// Detects the framing from the first byte that is no white space.
    pub fn detecting(line_bytes: usize) -> Decoder {
        Decoder {
            framing: None,
            limit: line_bytes,
            searched: 0,
            skipping: Skipping::No,
            broken: false,
        }
    }

    /// Reads lines only.
    pub fn lines(line_bytes: usize) -> Decoder {
        Decoder {
            framing: Some(Framing::Lines),
            ..Decoder::detecting(line_bytes)
        }
    }

    /// The framing, once the first byte told.
    pub fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// The next frame in `buffer`, or `None` until more bytes come.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        if self.broken {
            buffer.clear();
            return None;
        }
        if self.framing.is_none() {
            self.detect(buffer)?;
        }
        match self.framing? {
            Framing::Lines => self.decode_line(buffer),
            Framing::Headers => self.decode_headers(buffer),
        }
    }

    /// What is left when the stream ends: a last line without its end counts.
    pub fn decode_end(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        if let Some(frame) = self.decode(buffer) {
            return Some(frame);
        }
        if self.broken {
            return None;
        }
        let rest = buffer.split().freeze();
        self.searched = 0;
        if let Skipping::Line(bytes) = std::mem::replace(&mut self.skipping, Skipping::No) {
            return Some(Frame::TooLong { bytes });
        }
        if rest.is_empty() {
            return None;
        }
        match self.framing {
            Some(Framing::Headers) => {
                self.broken = true;
                Some(Frame::Broken(format!(
                    "the stream ended inside a message, after {} bytes of it",
                    rest.len()
                )))
            }
            _ => self.within_limit(line(rest)?),
        }
    }

    fn detect(&mut self, buffer: &mut BytesMut) -> Option<()> {
        loop {
            match *buffer.first()? {
                b' ' | b'\t' | b'\r' | b'\n' => buffer.advance(1),
                // A byte order mark: not part of JSON, yet some editors write it.
                0xEF if buffer.len() < 3 => return None,
                0xEF if buffer.starts_with(b"\xEF\xBB\xBF") => buffer.advance(3),
                b'C' | b'c' => {
                    self.framing = Some(Framing::Headers);
                    return Some(());
                }
                _ => {
                    self.framing = Some(Framing::Lines);
                    return Some(());
                }
            }
        }
    }

    fn decode_line(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        loop {
            let end = memchr::memchr(b'\n', &buffer[self.searched..]);
            let Some(end) = end.map(|end| end + self.searched) else {
                if let Skipping::Line(bytes) = &mut self.skipping {
                    *bytes += buffer.len();
                    buffer.clear();
                } else if buffer.len() > self.limit.saturating_add(1) {
                    // One more byte than the limit may still be a carriage return.
                    self.skipping = Skipping::Line(buffer.len());
                    buffer.clear();
                }
                self.searched = buffer.len();
                return None;
            };
            self.searched = 0;
            let found = buffer.split_to(end).freeze();
            buffer.advance(1);
            if let Skipping::Line(bytes) = self.skipping {
                self.skipping = Skipping::No;
                return Some(Frame::TooLong {
                    bytes: bytes + found.len(),
                });
            }
            if let Some(message) = line(found) {
                return self.within_limit(message);
            }
        }
    }

    fn within_limit(&self, message: Bytes) -> Option<Frame> {
        Some(if message.len() > self.limit {
            Frame::TooLong {
                bytes: message.len(),
            }
        } else {
            Frame::Message(message)
        })
    }

    fn decode_headers(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        if let Skipping::Body(left) = &mut self.skipping {
            let now = buffer.len().min(*left);
            buffer.advance(now);
            *left -= now;
            if *left > 0 {
                return None;
            }
            self.skipping = Skipping::No;
        }
        let (length, body) = match parse_headers(buffer) {
            Headers::Incomplete if buffer.len() > HEADER_BYTES => {
                return self.fail(format!(
                    "headers of more than {HEADER_BYTES} bytes; expected `Content-Length: N` and an empty line"
                ));
            }
            Headers::Incomplete => return None,
            Headers::Bad(why) => return self.fail(why),
            Headers::Good { length, body } => (length, body),
        };
        if length > self.limit {
            buffer.advance(body);
            self.skipping = Skipping::Body(length);
            return Some(Frame::TooLong { bytes: length });
        }
        if buffer.len() < body + length {
            buffer.reserve(body + length - buffer.len());
            return None;
        }
        buffer.advance(body);
        let mut message = buffer.split_to(length);
        // Valid JSON has line ends only between tokens; agents read lines.
        if memchr::memchr2(b'\n', b'\r', &message).is_some() {
            for byte in message
                .iter_mut()
                .filter(|byte| matches!(byte, b'\n' | b'\r'))
            {
                *byte = b' ';
            }
        }
        Some(Frame::Message(message.freeze()))
    }

    fn fail(&mut self, why: String) -> Option<Frame> {
        self.broken = true;
        Some(Frame::Broken(why))
    }
}

/// A line's content, or `None` where it is blank.
fn line(mut found: Bytes) -> Option<Bytes> {
    if found.ends_with(b"\r") {
        found.truncate(found.len() - 1);
    }
    if found.starts_with(b"\xEF\xBB\xBF") {
        found.advance(3);
    }
    if found.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    Some(found)
}

enum Headers {
    Incomplete,
    Bad(String),
    Good { length: usize, body: usize },
}

fn parse_headers(buffer: &[u8]) -> Headers {
    let window = &buffer[..buffer.len().min(HEADER_BYTES)];
    let mut at = 0;
    let mut length = None;
    while let Some(end) = memchr::memchr(b'\n', &window[at..]) {
        let header = window[at..at + end].trim_ascii();
        at += end + 1;
        if header.is_empty() {
            match length {
                Some(length) => return Headers::Good { length, body: at },
                // Blank lines between messages are harmless.
                None if window[..at].trim_ascii().is_empty() => continue,
                None => return Headers::Bad("no `Content-Length` among the headers".into()),
            }
        }
        let text = String::from_utf8_lossy(header);
        let Some((name, value)) = text.split_once(':') else {
            return Headers::Bad(format!(
                "`{}` is no header; expected `Content-Length: N`",
                text.chars().take(40).collect::<String>()
            ));
        };
        if name.trim().eq_ignore_ascii_case("content-length") {
            match value.trim().parse() {
                Ok(number) => length = Some(number),
                Err(_) => {
                    return Headers::Bad(format!(
                        "`Content-Length:{value}` is not a number of bytes"
                    ));
                }
            }
        }
    }
    Headers::Incomplete
}

impl Framing {
    /// Appends one message with what frames it.
    pub fn encode(self, message: &[&str], into: &mut Vec<u8>) {
        match self {
            Framing::Lines => {
                for part in message {
                    into.extend_from_slice(part.as_bytes());
                }
                into.push(b'\n');
            }
            Framing::Headers => {
                let length: usize = message.iter().map(|part| part.len()).sum();
                into.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
                for part in message {
                    into.extend_from_slice(part.as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of every size from 1 to 7 and whole; the frames must not differ.
    #[track_caller]
    fn check(bytes: &[u8], limit: usize, expected: &[&str]) {
        for piece in (1..8).chain([bytes.len().max(1)]) {
            let mut decoder = Decoder::detecting(limit);
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            let mut take = |frame| {
                seen.push(match frame {
                    Frame::Message(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    Frame::TooLong { bytes } => format!("<{bytes} too long>"),
                    Frame::Broken(_) => "<broken>".into(),
                });
            };
            for part in bytes.chunks(piece) {
                buffer.extend_from_slice(part);
                while let Some(frame) = decoder.decode(&mut buffer) {
                    take(frame);
                }
                assert!(buffer.len() <= limit.max(HEADER_BYTES) + 64);
            }
            while let Some(frame) = decoder.decode_end(&mut buffer) {
                take(frame);
            }
            assert_eq!(seen, expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn lines_are_cut_at_their_ends() {
        check(
            b"{\"a\":1}\n{}\r\n\n  \n{}",
            100,
            &["{\"a\":1}", "{}", "{}"],
        );
        check(b"\xEF\xBB\xBF{}\n\xEF\xBB\xBF{}\n", 100, &["{}", "{}"]);
        check(b"\0\n", 100, &["\0"]);
        check(b"", 100, &[]);
    }

    #[test]
    fn a_line_at_the_limit_passes_and_one_byte_over_is_skipped() {
        check(b"12345\n123456\n1\n", 5, &["12345", "<6 too long>", "1"]);
        check(b"12345\r\n", 5, &["12345"]);
        check(b"1234567890123\n1\n", 5, &["<13 too long>", "1"]);
        check(b"1\n1234567890123", 5, &["1", "<13 too long>"]);
        check(b"123456", 5, &["<6 too long>"]);
    }

    #[test]
    fn headers_are_read_as_lsp_writes_them() {
        check(
            b"Content-Length: 2\r\n\r\n{}Content-Length: 3\r\n\r\n{ }",
            100,
            &["{}", "{ }"],
        );
        check(
            b"content-length:4\nContent-Type: application/json\n\n{\n\r}",
            100,
            &["{  }"],
        );
        check(
            b"Content-Length: 6\r\n\r\n123456Content-Length: 1\r\n\r\n1",
            5,
            &["<6 too long>", "1"],
        );
    }

    #[test]
    fn hopeless_headers_end_the_stream() {
        check(b"Content-Length: x\r\n\r\n{}", 100, &["<broken>"]);
        check(b"Content-Type: x\r\n\r\n{}", 100, &["<broken>"]);
        check(b"Content-Length 4\r\n\r\n{}", 100, &["<broken>"]);
        check(b"Content-Length: 10\r\n\r\n{}", 100, &["<broken>"]);
        check(
            b"Content-Length: 900000000000000\r\n\r\n{}",
            100,
            &["<900000000000000 too long>"],
        );
        check(&[b'C'; 10_000], 100, &["<broken>"]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        for framing in [Framing::Lines, Framing::Headers] {
            let mut bytes = Vec::new();
            framing.encode(&["{\"a\":", "1}"], &mut bytes);
            framing.encode(&["{}"], &mut bytes);
            check(&bytes, 100, &["{\"a\":1}", "{}"]);
        }
    }
}
