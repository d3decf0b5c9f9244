//! All clients, on one thread: who comes, stops reading, goes on, and goes, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::client::{Client, End, Interests};
use super::publisher::topic;
use crate::oracle::Oracle;

/// Topics of one client.
const INTERESTS: usize = 2;

/// The same journeys every time.
const SEED: u64 = 20_261_124;

/// Longest time without a look at what is due.
const TICK: Duration = Duration::from_millis(50);

/// A third takes everything, a third the newest, a third the newest now and then.
const OPTIONS: [&str; 3] = [r#""mode":"all""#, r#""mode":"latest""#, r#""max_rate":2"#];

/// How long clients do what they do, in milliseconds.
const AWAY: Range<u64> = 100..4_000;
const READING: Range<u64> = 2_000..20_000;
/// Some of it is longer than the node's stall timeout.
const STALLED: Range<u64> = 500..14_000;

/// What the clients have gone through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Journeys {
    pub(crate) arrivals: u64,
    pub(crate) stalls: u64,
    pub(crate) closed_as_slow: u64,
    /// Connections that ended without a close frame, although the client had not gone.
    pub(crate) lost: u64,
}

/// What a client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Arrive,
    Stall,
    GoOn,
    Leave,
}

/// A client and its plans.
struct Member {
    client: Client,
    stalls: bool,
    next: Next,
    due: Instant,
    is_stalled: bool,
}

/// All clients.
pub(crate) struct Fleet {
    address: SocketAddr,
    poll: Poll,
    members: Vec<Member>,
    /// When who has something to do. Entries that a member's plan no longer agrees with are void.
    agenda: BinaryHeap<Reverse<(Instant, usize)>>,
    oracle: Arc<Mutex<Oracle>>,
    random: StdRng,
    journeys: Journeys,
    scratch: Vec<u8>,
}

impl Fleet {
    pub(crate) fn new(
        address: SocketAddr,
        clients: usize,
        topics: usize,
        oracle: Arc<Mutex<Oracle>>,
    ) -> Self {
        let now = Instant::now();
        let member = |index: usize| {
            let topics =
                (0..INTERESTS).map(|offset| topic((index + offset * topics / INTERESTS) % topics));
            let interests =
                Interests { topics: topics.collect(), options: OPTIONS[index / 2 % OPTIONS.len()] };
            let client = Client::new(format!("client {index}"), interests);
            Member {
                client,
                stalls: index % 2 == 1,
                next: Next::Arrive,
                due: now,
                is_stalled: false,
            }
        };
        Self {
            address,
            poll: Poll::new().expect("an epoll set"),
            members: (0..clients).map(member).collect(),
            agenda: BinaryHeap::new(),
            oracle,
            random: StdRng::seed_from_u64(SEED),
            journeys: Journeys::default(),
            scratch: vec![0; 64 * 1024],
        }
    }

    pub(crate) fn journeys(&self) -> Journeys {
        self.journeys
    }

    /// Everybody comes, and goes, and comes again.
    pub(crate) fn come_and_go(&mut self, end: Instant) {
        for index in 0..self.members.len() {
            self.plan(index, Next::Arrive, AWAY);
        }
        while Instant::now() < end {
            self.act();
            self.read(TICK);
            self.expect_no_findings();
        }
        self.agenda.clear();
    }

    /// Everybody comes, goes on reading, and stays until there is nothing left to read.
    pub(crate) fn catch_up(&mut self, deadline: Instant) {
        let mut waiting: Vec<usize> = (0..self.members.len()).collect();
        while !waiting.is_empty() {
            for &index in &waiting {
                self.go_on(index);
            }
            self.read(TICK);
            self.expect_no_findings();
            let oracle = self.oracle.lock().expect("nobody has panicked");
            waiting.retain(|index| !self.members[*index].client.follower.is_up_to_date(&oracle));
            let first = waiting.first().map(|index| &self.members[*index].client.follower);
            let left = waiting.len();
            assert!(Instant::now() < deadline, "{left} are not up to date, such as {first:?}");
        }
    }

    /// Everybody goes.
    pub(crate) fn leave(&mut self) {
        let mut oracle = self.oracle.lock().expect("nobody has panicked");
        for (index, member) in self.members.iter_mut().enumerate() {
            member.client.follower.is_done(&mut oracle);
            member.client.leave(index % 3 == 0);
            member.is_stalled = false;
        }
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, index))) =
            self.agenda.peek().copied().filter(|item| item.0.0 <= now)
        {
            self.agenda.pop();
            let member = &mut self.members[index];
            if member.due != due {
                continue; // Its connection has ended meanwhile, and with it this plan.
            }
            match member.next {
                Next::Arrive | Next::GoOn => {
                    self.go_on(index);
                    let stalls = self.members[index].stalls && self.random.random_bool(0.7);
                    self.plan(index, if stalls { Next::Stall } else { Next::Leave }, READING);
                }
                Next::Stall => {
                    member.is_stalled = true;
                    self.journeys.stalls += 1;
                    self.plan(index, Next::GoOn, STALLED);
                }
                Next::Leave => {
                    member.client.leave(self.random.random_bool(0.5));
                    self.plan(index, Next::Arrive, AWAY);
                }
            }
        }
    }

    fn plan(&mut self, index: usize, next: Next, delay: Range<u64>) {
        let due = Instant::now() + Duration::from_millis(self.random.random_range(delay));
        let member = &mut self.members[index];
        (member.next, member.due) = (next, due);
        self.agenda.push(Reverse((due, index)));
    }

    /// The client is there, and reads.
    fn go_on(&mut self, index: usize) {
        let member = &mut self.members[index];
        if !member.client.is_connected() {
            member.client.arrive(self.address, self.poll.registry(), Token(index));
            member.is_stalled = false;
            self.journeys.arrivals += 1;
        }
        if std::mem::take(&mut member.is_stalled) {
            // Its event came while it did not look.
            self.read_one(index);
        }
    }

    /// Waits for the first socket that is ready, and reads all that are.
    fn read(&mut self, patience: Duration) {
        let mut events = Events::with_capacity(1024);
        self.poll.poll(&mut events, Some(patience)).expect("an epoll set");
        for event in &events {
            let index = event.token().0;
            if !self.members[index].is_stalled {
                self.read_one(index);
            }
        }
    }

    fn read_one(&mut self, index: usize) {
        let result = {
            let mut oracle = self.oracle.lock().expect("nobody has panicked");
            self.members[index].client.read(&mut self.scratch, &mut oracle)
        };
        if let Err(end) = result {
            match end {
                End::Closed(4008) => self.journeys.closed_as_slow += 1,
                End::Lost => self.journeys.lost += 1,
                End::Closed(code) => panic!("client {index} was closed with {code}"),
            }
            self.plan(index, Next::Arrive, AWAY);
        }
    }

    /// Ends at the first breach: what follows from it says nothing.
    fn expect_no_findings(&self) {
        let oracle = self.oracle.lock().expect("nobody has panicked");
        assert!(oracle.findings().is_empty(), "{:#?}", oracle.findings());
    }
}
