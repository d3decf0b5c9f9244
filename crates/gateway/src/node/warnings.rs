//! Warnings about clients that are turned away, because of a setting that may be wrong. Clients decide how often that
//! happens, so of each kind there is one line a minute at most; the metrics count all.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Node;
use crate::access::Asker;
use crate::config::is_origin;
use crate::metrics::{AuthFailure, RejectReason};
use crate::server::Peer;

/// Between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(60);

/// Bytes of an origin that are shown: a host name has 253 at most, and a client may send more.
const ORIGIN_BYTES_MAX: usize = 300;

/// The line about somebody who may not do something.
const REFUSED: &str = "somebody was refused; tickcast_auth_failures_total counts all, and log.filter = \"info,tickcast=debug\" shows each";

/// The warnings of a node, by kind.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    foreign_origin: Seldom,
    unproxied: Seldom,
    /// By what they lacked.
    refused: [Seldom; AuthFailure::COUNT],
    crowded_address: Seldom,
}

impl Warnings {
    /// A page of this origin may not connect. If the origin is one that can be listed, the line says how, to the letter:
    /// the comparison is exact.
    pub(crate) fn foreign_origin(&self, origin: &str, client: Peer) {
        let Some(count) = self.foreign_origin.count(Instant::now()) else { return };
        let shown = &origin[..origin.floor_char_boundary(ORIGIN_BYTES_MAX)];
        if is_origin(origin) && shown == origin {
            tracing::warn!(origin = shown, %client, count, "a page was refused because access.origins does not list its origin; if it is yours, add {shown:?} to it");
        } else {
            tracing::warn!(origin = shown, %client, count, "a page was refused because it has no origin that access.origins could list");
        }
    }
}

impl Warnings {
    /// Somebody may not do something, for want of a key, a right or a rate. `key` is the name of theirs.
    pub(crate) fn refused(
        &self,
        failure: AuthFailure,
        asker: Asker,
        key: Option<&str>,
        reason: &str,
    ) {
        let seldom = self.refused.get(failure as usize);
        let Some(count) = seldom.and_then(|seldom| seldom.count(Instant::now())) else { return };
        let (client, worker, session) = asker.told();
        tracing::info!(client, worker, session, key, reason, count, "{REFUSED}");
    }

    /// The address of a client has as many connections as one may have.
    pub(crate) fn crowded_address(&self, client: Peer) {
        tracing::debug!(%client, "a connection was refused because its address has as many as it may");
        if let Some(count) = self.crowded_address.count(Instant::now()) {
            tracing::warn!(%client, count, "a connection was refused because its address has limits.connections_per_address; if it is a proxy, name it in server.trusted_proxies");
        }
    }
}

impl Node {
    /// A connection is closed because it does not say, in the PROXY protocol, whose it is.
    pub(crate) fn reject_unproxied(&self, peer: Peer, reason: &dyn Display) {
        self.metrics.count_rejected(RejectReason::Proxy);
        tracing::debug!(%peer, %reason, "a connection that is not introduced by a trusted proxy is closed");
        if let Some(count) = self.warnings.unproxied.count(Instant::now()) {
            tracing::warn!(%peer, %reason, count, "a connection was closed because server.proxy_protocol is \"required\": clients must come through a proxy of server.trusted_proxies that sends the PROXY protocol, version 2");
        }
    }
}

/// What is said once in a while, however often it happens.
#[derive(Debug, Default)]
struct Seldom(Mutex<Since>);

#[derive(Debug, Default)]
struct Since {
    said: Option<Instant>,
    /// Since then.
    count: u64,
}

impl Seldom {
    /// It has happened: how often since it was last said, if it is to be said again now.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut since = self.0.lock();
        since.count += 1;
        if since.said.is_some_and(|said| now.saturating_duration_since(said) < PAUSE) {
            return None;
        }
        since.said = Some(now);
        Some(std::mem::take(&mut since.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_says_how_many_there_were() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let count = |seconds| seldom.count(start + Duration::from_secs(seconds));
        assert_eq!(
            [count(0), count(0), count(59), count(60), count(61)],
            [Some(1), None, None, Some(3), None]
        );
        assert_eq!(count(600), Some(2));
    }
}
