//! How many connections each client address has, for `limits.connections_per_address`.
//!
//! An address is in the table as long as it has a connection that is counted, so the table is never longer than the number
//! of open connections, and nobody can fill it with addresses that are not theirs: behind each entry there is a connection
//! that was made, or one that a trusted proxy has named.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;

use super::peer::Peer;

/// What counts as one address: all of IPv4, and of IPv6 the network that one customer gets (/64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Block(u64);

impl Block {
    /// Before the 32 bits of an IPv4 address: no client has an IPv6 address that begins like this, a multicast one.
    const IPV4: u64 = 0xFF00_0000_0000_0000;

    /// No address.
    pub(super) const NONE: Self = Self(u64::MAX);

    pub(super) fn of(client: Peer) -> Self {
        let address = client.address();
        match address.to_ipv4_mapped() {
            Some(address) => Self(Self::IPV4 | u64::from(address.to_bits())),
            // What is left are the 64 bits of the network.
            None => Self((address.to_bits() >> 64) as u64),
        }
    }
}

/// A table that has grown to so many places is made smaller when three quarters of it are empty.
const KEPT: usize = 1024;

/// The addresses that have connections, and how many.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<HashMap<Block, u32>>);

impl Addresses {
    /// Counts a connection, unless there are `max` of its address.
    pub(super) fn enter(&self, block: Block, max: usize) -> bool {
        let mut counts = self.0.lock();
        let count = counts.entry(block).or_default();
        let is_admitted = (*count as usize) < max;
        *count += u32::from(is_admitted);
        if *count == 0 {
            counts.remove(&block);
        }
        is_admitted
    }

    /// One of them has ended.
    pub(super) fn leave(&self, block: Block) {
        let mut counts = self.0.lock();
        if let Entry::Occupied(mut entry) = counts.entry(block) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if counts.capacity() > KEPT && counts.len() < counts.capacity() / 4 {
            let kept = counts.len() * 2;
            counts.shrink_to(kept.max(KEPT));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    fn block(address: &str) -> Block {
        Block::of(Peer::from(address.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn what_is_one_address() {
        assert_eq!(block("192.0.2.7"), block("::ffff:192.0.2.7"));
        assert_ne!(block("192.0.2.7"), block("192.0.2.8"));
        assert_eq!(block("2001:db8::1"), block("2001:db8::ffff:1:2"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_ne!(block("::1"), block("0.0.0.1"));
        for address in ["255.255.255.255", "0.0.0.0", "::", "::1", "fe80::1"] {
            assert_ne!(block(address), Block::NONE, "{address}");
        }
    }

    #[test]
    fn each_address_has_as_many_as_it_may() {
        let addresses = Addresses::default();
        let (first, second) = (block("192.0.2.7"), block("192.0.2.8"));
        let enter = |block, max| addresses.enter(block, max);
        assert_eq!([enter(first, 2), enter(first, 2), enter(first, 2)], [true, true, false]);
        assert!(enter(second, 2));
        assert_eq!(addresses.len(), 2);
        addresses.leave(first);
        assert!(enter(first, 2) && !enter(first, 1));
        assert!(!enter(block("192.0.2.9"), 0));
        for block in [first, first, second] {
            addresses.leave(block);
        }
        assert_eq!(addresses.len(), 0);
    }

    #[test]
    fn the_table_is_as_long_as_there_are_connections() {
        const COUNT: u32 = 100_000;
        let addresses = Addresses::default();
        let blocks = |from: u32| {
            let four = (from..COUNT).map(|n| IpAddr::from(Ipv4Addr::from(n)));
            let six = (from..COUNT).map(|n| IpAddr::from(Ipv6Addr::from(u128::from(n) << 64)));
            four.chain(six).map(|address| Block::of(Peer::from(address)))
        };
        assert!(blocks(0).all(|block| addresses.enter(block, 1)));
        let full = addresses.0.lock().capacity();
        assert!(!blocks(0).any(|block| addresses.enter(block, 1)), "nobody who is refused is kept");
        assert_eq!((addresses.len(), addresses.0.lock().capacity()), (2 * COUNT as usize, full));
        blocks(0).for_each(|block| addresses.leave(block));
        assert_eq!(addresses.len(), 0);
        assert!(addresses.0.lock().capacity() <= 4 * KEPT);
    }
}
