//! As much HTTP/1.1 as the agents' clients speak.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::Request;

/// Longest request body, in bytes.
const BODY_LIMIT: u64 = 64 << 20;
/// Longest header line, in bytes.
const HEADER_LIMIT: u64 = 64 << 10;

/// Reads one request; `None` when the client has closed the connection.
pub(super) fn read_request(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let first = read_header_line(input)?;
    let mut words = first.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let (method, path) = (method.to_owned(), path.to_owned());
    let (mut length, mut chunked, mut encoding) = (0, false, None);
    loop {
        let line = read_header_line(input)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| bad("content-length"))?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "content-encoding" => encoding = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(input, &mut body)?;
    } else {
        read_exactly(input, length, &mut body)?;
    }
    let body = match encoding {
        // None of the agents in use compresses what it sends.
        Some(encoding) => Value::String(format!("<{} bytes of {encoding}>", body.len())),
        None if body.is_empty() => Value::Null,
        None => serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())),
    };
    Ok(Some(Request { method, path, body }))
}

/// Where the answer to one request goes.
pub(super) struct Reply<'a> {
    stream: &'a TcpStream,
}

impl<'a> Reply<'a> {
    pub(super) fn new(stream: &'a TcpStream) -> Self {
        Self { stream }
    }

    pub(super) fn empty(mut self) -> io::Result<()> {
        self.stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    }

    pub(super) fn json(mut self, status: u16, body: &Value) -> io::Result<()> {
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} Fake\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all((head + &body).as_bytes())
    }

    /// Starts a stream of server-sent events.
    pub(super) fn events(mut self) -> io::Result<Events<'a>> {
        self.stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
              cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        Ok(Events {
            stream: self.stream,
        })
    }
}

/// A stream of server-sent events that has begun.
pub(super) struct Events<'a> {
    stream: &'a TcpStream,
}

impl Events<'_> {
    pub(super) fn data(&mut self, data: &Value) -> io::Result<()> {
        self.chunk(&format!("data: {data}\n\n"))
    }

    pub(super) fn named(&mut self, name: &str, data: &Value) -> io::Result<()> {
        self.chunk(&format!("event: {name}\ndata: {data}\n\n"))
    }

    pub(super) fn text(&mut self, data: &str) -> io::Result<()> {
        self.chunk(&format!("data: {data}\n\n"))
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        self.stream.write_all(b"0\r\n\r\n")
    }

    fn chunk(&mut self, text: &str) -> io::Result<()> {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes())
    }
}

fn read_header_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    input
        .by_ref()
        .take(HEADER_LIMIT)
        .read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn read_chunks(input: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_header_line(input)?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size.trim(), 16).map_err(|_| bad("chunk size"))?;
        if size == 0 {
            // Trailers, up to the empty line.
            while !read_header_line(input)?.is_empty() {}
            return Ok(());
        }
        read_exactly(input, size, body)?;
        read_header_line(input)?;
    }
}

fn read_exactly(input: &mut impl BufRead, size: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if body.len() as u64 + size > BODY_LIMIT {
        return Err(bad("body size"));
    }
    let read = input.by_ref().take(size).read_to_end(body)?;
    if (read as u64) < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a wrong {what}"))
}
