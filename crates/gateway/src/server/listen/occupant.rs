//! Which process listens on an address, as far as this user may see that in `/proc`.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Sockets that are looked at in each of the kernel's tables, processes, and open files of all processes together: at
/// each bound the search gives up. A machine beyond them has better tools, and the node only says less.
const SOCKETS_MAX: usize = 65_536;
const PROCESSES_MAX: usize = 32_768;
const FILES_MAX: usize = 262_144;

/// Longest line of a table, and of a name, that is read.
const LINE_BYTES_MAX: u64 = 512;

/// `TCP_LISTEN`, as the kernel writes it.
const LISTENING: &str = "0A";

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    pub(crate) pid: u32,
    /// The kernel's name for it. Its arguments may hold secrets, so nobody looks at those.
    pub(crate) name: String,
}

impl Occupant {
    /// Whether it is this process.
    pub(super) fn is_self(&self) -> bool {
        self.pid == std::process::id()
    }
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {})", self.name, self.pid)
    }
}

/// Who listens on an address, or on one that leaves no room for it.
pub(crate) fn of(address: SocketAddr) -> Option<Occupant> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: HashSet<String> = tables
        .into_iter()
        .flat_map(|table| listening(Path::new(table), address))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() { None } else { holder(&sockets) }
}

/// The sockets in a table that are in the way of an address.
fn listening(table: &Path, address: SocketAddr) -> Vec<u64> {
    let Ok(file) = File::open(table) else { return Vec::new() };
    let bytes = SOCKETS_MAX as u64 * LINE_BYTES_MAX;
    let lines = BufReader::new(file.take(bytes)).lines().map_while(Result::ok);
    let rows = lines.skip(1).take(SOCKETS_MAX);
    rows.filter_map(|row| socket(&row, address)).collect()
}

/// The inode of a row of the table, if it is in the way.
fn socket(row: &str, wanted: SocketAddr) -> Option<u64> {
    let cells: Vec<_> = row.split_ascii_whitespace().take(10).collect();
    let (local, state, inode) = (cells.get(1)?, cells.get(3)?, cells.get(9)?);
    let local = parse_address(local)?;
    let is_same = local.ip().to_canonical() == wanted.ip().to_canonical();
    let is_any = local.ip().is_unspecified() || wanted.ip().is_unspecified();
    let is_in_the_way = *state == LISTENING && local.port() == wanted.port() && (is_same || is_any);
    is_in_the_way.then(|| inode.parse().ok())?
}

/// `0100007F:1F90`: each 32 bits of the address in the byte order of the machine.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = ip.get(8 * at..8 * (at + 1))?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_flattened()).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The first process that holds one of these sockets open.
fn holder(sockets: &HashSet<String>) -> Option<Occupant> {
    let mut files_left = FILES_MAX;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.take(PROCESSES_MAX).find_map(|pid: u32| {
        // Those of other users are closed to this one.
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let mut links = files.take(files_left).map(|file| fs::read_link(file.path()));
        let has_it = links.any(|link| {
            files_left = files_left.saturating_sub(1);
            link.is_ok_and(|link| link.to_str().is_some_and(|name| sockets.contains(name)))
        });
        has_it.then(|| Occupant { pid, name: name(pid) })
    })
}

/// What a process is called. It may have called itself anything.
fn name(pid: u32) -> String {
    let mut name = String::new();
    let read = File::open(format!("/proc/{pid}/comm"))
        .and_then(|file| file.take(LINE_BYTES_MAX).read_to_string(&mut name));
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if read.is_err() || name.is_empty() { "a process".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_kernel_are_read() {
        let row = |address: &str, state: &str| {
            format!(
                "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 41 1 0 100 0 0 10 0"
            )
        };
        let check = |row: &str, wanted: &str, is_in_the_way: bool| {
            let found = socket(row, wanted.parse().unwrap());
            assert_eq!(found, is_in_the_way.then_some(41), "{row} and {wanted}");
        };
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let loopback = row(&format!("{}:1F90", word([127, 0, 0, 1])), "0A");
        check(&loopback, "127.0.0.1:8080", true);
        check(&loopback, "[::ffff:127.0.0.1]:8080", true);
        check(&loopback, "0.0.0.0:8080", true);
        check(&loopback, "[::]:8080", true);
        check(&loopback, "127.0.0.2:8080", false);
        check(&loopback, "127.0.0.1:8081", false);
        check(&loopback.replace(" 0A ", " 01 "), "127.0.0.1:8080", false);
        let zero = word([0; 4]);
        check(
            &row(&format!("{zero}{zero}{zero}{}:1F90", word([0, 0, 0, 1])), "0A"),
            "[::1]:8080",
            true,
        );
        check(&row(&format!("{}:1F90", zero.repeat(4)), "0A"), "127.0.0.1:8080", true);
        for nonsense in
            ["", "a b c d e f g h i j", "0: zz:1 x 0A", "0: 0100007Fé:1F90 x 0A 1 2 3 4 5 41"]
        {
            check(nonsense, "127.0.0.1:8080", false);
        }
    }
}
