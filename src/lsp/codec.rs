//! JSON-RPC messages in the base protocol's `Content-Length` frames.
//!
//! What a message means, and who waits for it, is left to the multiplexer.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::codec::{Decoder, Encoder};

/// The longest header block taken, in bytes; a base-protocol header has two short lines.
const MAX_HEADER: usize = 4096;

/// Why a stream of frames can't be read on. Each of these condemns the connection.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] std::io::Error),
    /// A header block without a usable `Content-Length`.
    #[error("a frame without a valid Content-Length header")]
    Header,
    /// A frame over the cap.
    #[error("a frame of {length} bytes; at most {cap} are taken")]
    TooLong {
        /// What the header announced.
        length: usize,
        /// The codec's cap.
        cap: usize,
    },
    /// A body that is no JSON-RPC message.
    #[error("a frame that is no JSON-RPC message: {0}")]
    Json(#[from] serde_json::Error),
}

/// The error that a peer answers a request with.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct ResponseError {
    /// JSON-RPC's or the Language Server Protocol's code.
    pub code: i64,
    /// The peer's words.
    pub message: String,
}

/// One message, either way.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Set in requests and responses.
    #[serde(default)]
    pub id: Option<serde_json::Value>,
    /// Set in requests and notifications.
    #[serde(default)]
    pub method: Option<String>,
    /// Of a request or notification.
    #[serde(default)]
    pub params: Option<Box<RawValue>>,
    /// Of a response that succeeded, left unparsed for whoever waits for it.
    #[serde(default)]
    pub result: Option<Box<RawValue>>,
    /// Of a response that failed.
    #[serde(default)]
    pub error: Option<ResponseError>,
}

/// Frames out as ready-made bodies, frames in as [`Message`]s.
#[derive(Debug)]
pub struct Codec {
    cap: usize,
    body: Option<usize>,
}

impl Codec {
    /// A codec that takes bodies of at most `cap` bytes.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { cap, body: None }
    }
}

impl Decoder for Codec {
    type Item = Message;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, FrameError> {
        let length = if let Some(length) = self.body {
            length
        } else {
            let Some(end) = find(buffer, b"\r\n\r\n") else {
                if buffer.len() > MAX_HEADER {
                    return Err(FrameError::Header);
                }
                return Ok(None);
            };
            let length = content_length(&buffer[..end]).ok_or(FrameError::Header)?;
            if length > self.cap {
                return Err(FrameError::TooLong { length, cap: self.cap });
            }
            buffer.advance(end + 4);
            self.body = Some(length);
            length
        };
        if buffer.len() < length {
            buffer.reserve(length - buffer.len());
            return Ok(None);
        }
        self.body = None;
        let body = buffer.split_to(length);
        Ok(Some(serde_json::from_slice(&body)?))
    }
}

impl Encoder<Bytes> for Codec {
    type Error = FrameError;

    fn encode(&mut self, body: Bytes, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let header = format!("Content-Length: {}\r\n\r\n", body.len());
        buffer.reserve(header.len() + body.len());
        buffer.put_slice(header.as_bytes());
        buffer.put_slice(&body);
        Ok(())
    }
}

/// Reads a result, even one that holds half of a surrogate pair.
///
/// JSON allows that, and parsers in Rust refuse it; a server that cuts long texts between UTF-16 units sends it.
///
/// # Errors
/// Where the result is not of this type.
pub fn read<T: DeserializeOwned>(result: &RawValue) -> serde_json::Result<T> {
    let json = result.get();
    serde_json::from_str(json).or_else(|_| serde_json::from_str(&without_lone_surrogates(json)))
}

/// JSON in which each half of a surrogate pair that stands alone is U+FFFD, since JSON parsers in Rust refuse it.
fn without_lone_surrogates(json: &str) -> String {
    let unit = |at: usize| -> Option<u16> {
        let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut clean = String::with_capacity(json.len());
    let (mut done, mut at) = (0, 0);
    while let Some(found) = json[at..].find('\\') {
        let escape = at + found;
        at = match (unit(escape), unit(escape + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => escape + 12,
            (Some(0xD800..=0xDFFF), _) => {
                clean.push_str(&json[done..escape]);
                clean.push_str("\\ufffd");
                done = escape + 6;
                done
            }
            (Some(_), _) => escape + 6,
            (None, _) => (escape + 2).min(json.len()),
        };
    }
    clean.push_str(&json[done..]);
    clean
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn content_length(header: &[u8]) -> Option<usize> {
    std::str::from_utf8(header).ok()?.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_does_not_spoil_an_answer() {
        for (json, expected) in [
            (r#""a \ud83d b""#, "a \u{fffd} b"),
            (r#""\ude00\ud83d\ude00\ud83d""#, "\u{fffd}😀\u{fffd}"),
            (r#""\\ud83d \n \u00e9""#, "\\ud83d \n é"),
            (r#""plain""#, "plain"),
        ] {
            let read: String = serde_json::from_str(&without_lone_surrogates(json)).unwrap();
            assert_eq!(read, expected, "{json}");
        }
    }

    fn frames(cap: usize, chunks: &[&[u8]]) -> Result<Vec<Message>, FrameError> {
        let mut codec = Codec::new(cap);
        let mut buffer = BytesMut::new();
        let mut messages = Vec::new();
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(message) = codec.decode(&mut buffer)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn reads_frames_however_they_are_cut() {
        let wire = b"Content-Length: 17\r\nContent-Type: x\r\n\r\n{\"method\":\"\xc3\xa9\xc3\xa9\"}content-length:8\r\n\r\n{\"id\":7}";
        for cut in 0..wire.len() {
            let messages = frames(64, &[&wire[..cut], &wire[cut..]]).unwrap();
            assert_eq!(messages.len(), 2, "cut at {cut}");
            assert_eq!(messages[0].method.as_deref(), Some("éé"));
            assert_eq!(messages[1].id, Some(7.into()));
        }
    }

    #[test]
    fn refuses_what_is_no_frame() {
        assert!(matches!(frames(8, &[b"Content-Length: 9\r\n\r\n"]), Err(FrameError::TooLong { length: 9, cap: 8 })));
        assert!(matches!(frames(8, &[b"Content-Length: x\r\n\r\n"]), Err(FrameError::Header)));
        assert!(matches!(frames(8, &[b"Hello\r\n\r\n"]), Err(FrameError::Header)));
        assert!(matches!(frames(8, &[&[b'a'; MAX_HEADER + 1]]), Err(FrameError::Header)));
        assert!(matches!(frames(8, &[b"Content-Length: 2\r\n\r\n{]"]), Err(FrameError::Json(_))));
    }

    #[test]
    fn writes_what_it_reads() {
        let mut buffer = BytesMut::new();
        Codec::new(64).encode(Bytes::from_static(b"{\"id\":1}"), &mut buffer).unwrap();
        assert_eq!(&buffer[..], b"Content-Length: 8\r\n\r\n{\"id\":1}");
    }
}
