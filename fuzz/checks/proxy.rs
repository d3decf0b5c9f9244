//! The header of the PROXY protocol, version 2: as its specification says, whatever the pieces it comes in.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tickcast::fuzzing::read_proxy_header;
use tokio::io::{AsyncRead, ReadBuf};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const START_BYTES: usize = 16;
const REST_BYTES_MAX: usize = 2048;

/// The first byte says how many bytes come at once.
pub(crate) fn check(input: &[u8]) {
    let Some((&step, bytes)) = input.split_first() else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
        return;
    };
    let mut socket = Pieces { bytes, step: usize::from(step).max(1), read: 0 };
    let said = runtime.block_on(read_proxy_header(&mut socket)).ok();
    let expected = expected(bytes);
    assert_eq!(said, expected.clone().map(|(client, _)| client));
    match expected {
        Some((_, length)) => assert_eq!(socket.read, length, "what follows is not its to read"),
        None => assert!(socket.read <= START_BYTES + REST_BYTES_MAX),
    }
}

/// The client, if the header says one, and the length of the header; none if it is none.
fn expected(bytes: &[u8]) -> Option<(Option<String>, usize)> {
    let [version_and_command, family, high, low, rest @ ..] = bytes.strip_prefix(SIGNATURE)? else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let rest = rest.get(..length).filter(|rest| rest.len() <= REST_BYTES_MAX)?;
    let client = match (version_and_command, family) {
        (0x20, _) | (0x21, 0x00 | 0x31) => None,
        (0x21, 0x11) if length >= 12 => Some(Ipv4Addr::from(*rest.first_chunk::<4>()?).to_string()),
        (0x21, 0x21) if length >= 36 => {
            Some(Ipv6Addr::from(*rest.first_chunk::<16>()?).to_canonical().to_string())
        }
        _ => return None,
    };
    Some((client, START_BYTES + length))
}

/// A socket that gives a few bytes at a time, and then ends.
struct Pieces<'a> {
    bytes: &'a [u8],
    step: usize,
    read: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let rest = &self.bytes[self.read..];
        let part = &rest[..rest.len().min(self.step).min(buffer.remaining())];
        buffer.put_slice(part);
        self.read += part.len();
        Poll::Ready(Ok(()))
    }
}
