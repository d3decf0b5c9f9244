//! The header of the PROXY protocol, version 2, with which a proxy begins a connection to say whose it is.
//!
//! Where it is required, nothing else is read before it, and a connection without it is closed. Version 1 is not taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::peer::Peer;

/// Time for the whole header. A proxy sends it with its first packet.
const TIMEOUT: Duration = Duration::from_secs(2);

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the version and command, the family, the length of the rest.
const START_BYTES: usize = 16;

/// Bytes after the start: addresses, then whatever the proxy has to add, such as the certificate's name of a TLS client.
const REST_BYTES_MAX: usize = 2048;

/// Of a whole header.
pub(super) const BYTES_MAX: usize = START_BYTES + REST_BYTES_MAX;

/// Why a connection does not say whose it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    #[error("no header of the PROXY protocol came within {TIMEOUT:?}")]
    TooSlow,
    #[error("it ended before the header of the PROXY protocol: {0}")]
    Ended(#[from] std::io::Error),
    #[error("it does not begin with the header of the PROXY protocol, version 2")]
    NoHeader,
    #[error("the version or the command {0:#04x} of its PROXY header is not known")]
    Command(u8),
    #[error("the address family {0:#04x} of its PROXY header is not one of TCP")]
    Family(u8),
    #[error("its PROXY header has {0} bytes after the start, which is too few or too many")]
    Length(usize),
}

/// Reads the header and nothing beyond it: the client's address, or none if the proxy speaks for itself (a health check)
/// or does not know.
pub(crate) async fn read(
    socket: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Peer>, ProxyHeaderError> {
    let header = tokio::time::timeout(TIMEOUT, read_header(socket)).await;
    header.map_err(|_elapsed| ProxyHeaderError::TooSlow)?
}

async fn read_header(
    socket: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Peer>, ProxyHeaderError> {
    let mut start = [0; START_BYTES];
    socket.read_exact(&mut start).await?;
    let length = rest_length(&start)?;
    // Not in the future itself, which lives as long as the connection.
    let mut rest = vec![0; length];
    socket.read_exact(&mut rest).await?;
    peer(&start, &rest)
}

/// What comes after the header in the first bytes of a connection, if they begin with one; all of them, if they do not, or
/// not with one that will be taken; nothing, if it has not come yet.
pub(super) fn after(bytes: &[u8]) -> &[u8] {
    match bytes.first_chunk().map(rest_length) {
        Some(Ok(length)) => bytes.get(START_BYTES + length..).unwrap_or_default(),
        None if SIGNATURE.starts_with(&bytes[..bytes.len().min(SIGNATURE.len())]) => &[],
        Some(Err(_)) | None => bytes,
    }
}

/// How much follows the start.
fn rest_length(start: &[u8; START_BYTES]) -> Result<usize, ProxyHeaderError> {
    if start[..SIGNATURE.len()] != SIGNATURE {
        return Err(ProxyHeaderError::NoHeader);
    }
    let length = usize::from(u16::from_be_bytes([start[14], start[15]]));
    if length > REST_BYTES_MAX { Err(ProxyHeaderError::Length(length)) } else { Ok(length) }
}

fn peer(start: &[u8; START_BYTES], rest: &[u8]) -> Result<Option<Peer>, ProxyHeaderError> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    // Source and destination address and port. What the proxy adds comes after them and is not looked at.
    const TCP4_BYTES: usize = 12;
    const TCP6_BYTES: usize = 36;
    match start[12] {
        LOCAL => return Ok(None),
        PROXY => {}
        other => return Err(ProxyHeaderError::Command(other)),
    }
    let too_short = ProxyHeaderError::Length(rest.len());
    let address: IpAddr = match (start[13], rest.first_chunk(), rest.first_chunk()) {
        (0x11, Some(source), _) if rest.len() >= TCP4_BYTES => {
            Ipv4Addr::from_octets(*source).into()
        }
        (0x21, _, Some(source)) if rest.len() >= TCP6_BYTES => {
            Ipv6Addr::from_octets(*source).into()
        }
        (0x11 | 0x21, ..) => return Err(too_short),
        // Unknown, or a local socket of the proxy.
        (0x00 | 0x31, ..) => return Ok(None),
        (other, ..) => return Err(ProxyHeaderError::Family(other)),
    };
    Ok(Some(address.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    /// What the header says, and what is left unread.
    fn take(mut bytes: &[u8]) -> (Result<Option<Peer>, ProxyHeaderError>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let said = runtime.block_on(read(&mut bytes));
        (said, bytes.len())
    }

    fn check(header: &[u8], expected: Option<&str>) {
        let (said, unread) = take(&[header, b"GET /"].concat());
        let said = said.unwrap().map(|peer| peer.to_string());
        assert_eq!((said.as_deref(), unread), (expected, 5));
    }

    const TCP4: [u8; 12] = [192, 0, 2, 7, 127, 0, 0, 1, 0x1f, 0x90, 0, 80];

    #[test]
    fn addresses() {
        check(&header(0x21, 0x11, &TCP4), Some("192.0.2.7"));
        let mut tcp6 = [0; 36];
        tcp6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        tcp6[15] = 1;
        check(&header(0x21, 0x21, &tcp6), Some("2001:db8::1"));
        let with_more = [&TCP4[..], &[0x04, 0, 1, 0], &[b'x'; 500]].concat();
        check(&header(0x21, 0x11, &with_more), Some("192.0.2.7"));
    }

    #[test]
    fn the_proxy_itself() {
        check(&header(0x20, 0x00, &[]), None);
        check(&header(0x20, 0x11, &TCP4), None);
        check(&header(0x21, 0x00, &[1, 2, 3]), None);
        check(&header(0x21, 0x31, &[0; 216]), None);
    }

    #[test]
    fn what_comes_after_a_header_can_be_seen_before_it_is_read() {
        let header = header(0x21, 0x11, &[&TCP4[..], &[4, 0, 1, 0]].concat());
        let whole = [&header[..], b"POST /"].concat();
        assert_eq!(after(&whole), b"POST /");
        for length in 0..=header.len() {
            assert_eq!(after(&whole[..length]), b"", "{length}");
        }
        for without in [&b"POST /"[..], b"\rPOST", b"x"] {
            assert_eq!(after(without), without);
        }
        // Nothing will come after that: it is closed.
        let endless = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(after(&endless), endless);
    }

    #[test]
    fn what_is_no_header() {
        use ProxyHeaderError as E;
        let refused = |bytes: &[u8]| take(bytes).0.unwrap_err();
        assert!(matches!(refused(b"GET /v1/ws HTTP/1.1\r\n"), E::NoHeader));
        assert!(matches!(refused(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n"), E::NoHeader));
        assert!(matches!(refused(&header(0x11, 0x11, &TCP4)), E::Command(0x11)));
        assert!(matches!(refused(&header(0x22, 0x11, &TCP4)), E::Command(0x22)));
        assert!(matches!(refused(&header(0x21, 0x12, &TCP4)), E::Family(0x12)));
        assert!(matches!(refused(&header(0x21, 0x11, &TCP4[..11])), E::Length(11)));
        assert!(matches!(refused(&header(0x21, 0x21, &[0; 35])), E::Length(35)));
        assert!(matches!(refused(&header(0x21, 0x11, &[0; 2049])), E::Length(2049)));
        check(&header(0x21, 0x11, &[&TCP4[..], &[0; 2036]].concat()), Some("192.0.2.7"));
        let whole = header(0x21, 0x11, &TCP4);
        for length in 0..whole.len() {
            assert!(matches!(refused(&whole[..length]), E::Ended(_)), "{length}");
        }
    }
}
