//! Whether the addresses of a node are free, and if not, who has them.

use std::io;
use std::net::SocketAddr;

use super::finding::Finding;
use crate::config::Config;
use crate::server::listen::bind_socket;
use crate::server::listen::occupant::{self, Occupant};

/// What Linux calls this program. A node that runs with the same settings is no mistake: it may be the very one.
const PROGRAM: &str = "tickcast";

/// Tries the addresses that a node of this configuration listens on.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let server = &config.server;
    [("listen", server.listen, "--listen"), ("admin listen", server.admin_listen, "--admin-listen")]
        .into_iter()
        .map(|(check, address, flag)| {
            // Dropped at once, and nobody could connect meanwhile: it is bound, and does not listen.
            let bound = bind_socket(address).map(drop);
            let occupant = bound.is_err().then(|| occupant::of(address)).flatten();
            judge(check, address, flag, bound, occupant.as_ref())
        })
        .collect()
}

pub(super) fn judge(
    check: &'static str,
    address: SocketAddr,
    flag: &str,
    bound: io::Result<()>,
    occupant: Option<&Occupant>,
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
    match occupant {
        Some(Occupant { pid, name }) if name == PROGRAM => Finding::ok(
            check,
            format!(
                "{address} is in use by {name}, process {pid}: another node beside it needs another address ({flag})"
            ),
        ),
        Some(Occupant { pid, name }) => Finding::fail(
            check,
            format!("{address} is in use by {name}, process {pid}"),
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
