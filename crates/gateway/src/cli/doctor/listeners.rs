//! Whether the addresses of a node are free, and if not, who has them.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::finding::Finding;
use crate::config::Config;
use crate::server::bind_socket;

/// What Linux calls this program. A node that runs with the same settings is no mistake: it may be the very one.
const PROGRAM: &str = "tickcast";

/// `st` of a socket that listens, in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Tries the addresses that a node of this configuration listens on.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let server = &config.server;
    [("listen", server.listen, "--listen"), ("admin listen", server.admin_listen, "--admin-listen")]
        .into_iter()
        .map(|(check, address, flag)| {
            // Dropped at once, and nobody could connect meanwhile: it is bound, and does not listen.
            let bound = bind_socket(address).map(drop);
            let owner = bound.is_err().then(|| owner(address)).flatten();
            judge(check, address, flag, bound, owner.as_ref())
        })
        .collect()
}

/// A process that has a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) process: u32,
    pub(super) name: String,
}

pub(super) fn judge(
    check: &'static str,
    address: SocketAddr,
    flag: &str,
    bound: io::Result<()>,
    owner: Option<&Owner>,
) -> Finding {
    let Err(error) = bound else { return Finding::ok(check, format!("{address} is free")) };
    if error.kind() != io::ErrorKind::AddrInUse {
        let fix = match error.kind() {
            io::ErrorKind::AddrNotAvailable => "name an address that this machine has",
            io::ErrorKind::PermissionDenied => {
                "name a port from 1024 up, or give the program CAP_NET_BIND_SERVICE"
            }
            _ => "name another address",
        };
        return Finding::fail(check, format!("{address}: {error}"), format!("{fix}: {flag}"));
    }
    match owner {
        Some(Owner { process, name }) if name == PROGRAM => Finding::ok(
            check,
            format!(
                "{address} is in use by {name}, process {process}: another node beside it needs another address ({flag})"
            ),
        ),
        Some(Owner { process, name }) => Finding::fail(
            check,
            format!("{address} is in use by {name}, process {process}"),
            format!("end it, or choose another address with {flag}"),
        ),
        None => Finding::warn(
            check,
            format!("{address} is in use, and this user may not see by whom"),
            format!(
                "if it is not the node itself (ss -ltnp, as root, says so), choose another address with {flag}"
            ),
        ),
    }
}

/// The process that listens where `address` would, as far as this user may see.
fn owner(address: SocketAddr) -> Option<Owner> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, address))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let has = |file: fs::DirEntry| {
            let target = fs::read_link(file.path()).unwrap_or_default();
            sockets.iter().any(|socket| target.as_os_str() == socket.as_str())
        };
        if !files.any(has) {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim_end().to_owned();
        Some(Owner { process, name })
    })
}

/// The inodes of sockets in such a table that keep others from listening at `address`.
pub(super) fn listening(table: &str, address: SocketAddr) -> Vec<u64> {
    let inode = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = local_address(fields.nth(1)?)?;
        let state = fields.nth(1)?;
        let is_in_the_way = local.port() == address.port()
            && (local.ip().to_canonical() == address.ip().to_canonical()
                || local.ip().is_unspecified()
                || address.ip().is_unspecified());
        if state != LISTENING || !is_in_the_way {
            return None;
        }
        fields.nth(5)?.parse().ok()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// An address as the kernel writes it: words of 32 bits in the byte order of the machine, in hexadecimal digits.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(8 * at..8 * at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = if ip.len() == 8 {
        IpAddr::from(Ipv4Addr::from(word(0)?))
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
        IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?))
    };
    Some(SocketAddr::new(ip, port))
}
