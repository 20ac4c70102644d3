//! What keeper and guest say to each other: length-prefixed JSON frames.
//!
//! A frame is a little-endian `u32` byte count and that many bytes of JSON.
//! Descriptors travel from guest to keeper only, with the first byte of the
//! `Started` frame that they belong to, in the order stdin, stdout, stderr.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::vm::Io;

/// Most bytes of one frame. Requests carry whole files (instructions for an
/// agent), so this is generous; it only keeps a broken peer from eating memory.
pub(crate) const MAX_FRAME: usize = 32 << 20;

/// Most descriptors that one frame carries.
pub(crate) const MAX_DESCRIPTORS: usize = 3;

/// What a guest is told before it starts, as its only argument.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct GuestConfig {
    /// It is process 1 of a pid namespace, so that its end is everyone's end.
    pub(crate) isolated: bool,
    /// Keep abstract sockets and signals inside (Landlock scopes).
    pub(crate) scoped: bool,
    pub(crate) open_files: Option<u64>,
    pub(crate) processes: Option<u64>,
}

/// From keeper to guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Spawn {
        id: u64,
        command: String,
        args: Vec<String>,
        env: BTreeMap<String, String>,
        cwd: PathBuf,
        files: Vec<(PathBuf, String)>,
        io: Io,
    },
    Signal {
        id: u64,
        kill: bool,
    },
    /// End everything: ask first, then kill.
    Shutdown,
}

/// From guest to keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    Ready,
    /// Carries as many descriptors as the process's [`Io`] asks for.
    Started {
        id: u64,
    },
    NotFound {
        id: u64,
    },
    Refused {
        id: u64,
        detail: String,
    },
    /// `code` or `signal`, never both.
    Exited {
        id: u64,
        code: Option<i32>,
        signal: Option<i32>,
    },
}

/// How many descriptors a started process hands back.
pub(crate) fn descriptors(io: Io) -> usize {
    match io {
        Io::Pipes => 3,
        Io::Merged | Io::Terminal { .. } => 1,
    }
}

/// A message as the bytes of one frame.
pub(crate) fn encode(message: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(std::io::Error::other(format!(
            "{length} bytes of files, arguments and environment are more than the {MAX_FRAME} that fit"
        )));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Collects bytes and gives whole messages back.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more bytes come.
    ///
    /// # Errors
    /// The peer broke the framing; nothing after it can be trusted.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> std::io::Result<Option<T>> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(std::io::Error::other(format!("a frame of {length} bytes")));
        }
        let Some(body) = self.bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let mut bytes = Vec::new();
        for id in 0..3 {
            bytes.extend(encode(&Request::Signal { id, kill: true }).unwrap());
        }
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(Request::Signal { id, .. }) = decoder.next().unwrap() {
                    seen.push(id);
                }
            }
            assert_eq!(seen, [0, 1, 2], "cut at {cut}");
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(decoder.next::<Notice>().is_err());
    }
}
