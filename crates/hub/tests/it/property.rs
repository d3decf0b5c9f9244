//! Everything at once, in any order: the contract holds at every step, and in the end everyone has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use tickcast_protocol::Epoch;

use crate::broker::Flip;
use crate::rig::{ClientId, Rig, Setup, topic};

const TOPICS: [&str; 3] = ["t", "u", "v"];
const CLIENTS: usize = 4;
/// Cases that failed once, played again first.
const SEEDS: &str = "tests/it/property.seeds";
/// Longer than every rate, flush interval and settling time in use.
const A_WHILE_MS: u64 = 1500;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Publish {
        topic: usize,
        times: u64,
        size: usize,
    },
    Lose {
        topic: usize,
        times: u64,
    },
    Flip(usize, Flip),
    Subscribe {
        client: usize,
        items: Vec<(usize, Options, Start)>,
    },
    Unsubscribe {
        client: usize,
        topic: usize,
    },
    /// The connection ends, and a new one resumes what the client held.
    Reconnect(usize),
    Detach(usize),
    Block(usize),
    Unblock(usize, Option<usize>),
    Pass(u64),
    /// One half of one job.
    Step(prop::sample::Index),
    /// All jobs.
    Settle,
    EndGrace,
    Sweep(u32),
}

/// The options that a subscribe command asks for.
#[derive(Debug, Clone, Copy)]
enum Options {
    Default,
    All,
    Latest,
    Rate(u32),
}

/// Where a subscription wants to start.
#[derive(Debug, Clone, Copy)]
enum Start {
    Fresh,
    /// At what the client really saw last.
    Seen,
    /// This much before it.
    Before(u64),
    /// This much beyond it.
    Ahead(u64),
    ForeignEpoch,
    Garbled,
}

#[derive(Clone)]
struct Case {
    setup: Setup,
    /// Each with whether the workers take their turns after it.
    events: Vec<(Event, bool)>,
    /// The end finds a last publication of every topic that arrives.
    ends_with_publications: bool,
}

/// One line per event: proptest prints the smallest case that fails.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { inbox, history, log_bytes, rules, .. } = &self.setup;
        writeln!(f, "inbox {inbox}, history {history}, log_bytes {log_bytes}")?;
        for (name, options) in &rules.exceptions {
            let (log, value) = (options.log.publications, options.keeps_value);
            writeln!(f, "{name}: log {log}, value {value}, flush {}", options.flush_interval_ms)?;
        }
        for (event, with_turns) in &self.events {
            writeln!(f, "{event:?}{}", if *with_turns { ", turns" } else { "" })?;
        }
        writeln!(f, "ends_with_publications {}", self.ends_with_publications)
    }
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        4 => Just(Start::Fresh),
        6 => Just(Start::Seen),
        2 => (1u64..6).prop_map(Start::Before),
        1 => (1u64..6).prop_map(Start::Ahead),
        1 => Just(Start::ForeignEpoch),
        1 => Just(Start::Garbled),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    prop_oneof![
        2 => Just(Options::Default),
        3 => Just(Options::All),
        3 => Just(Options::Latest),
        3 => prop::sample::select(vec![50, 250, 1000]).prop_map(Options::Rate),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let topic = || 0..TOPICS.len();
    let client = || 0..CLIENTS;
    let size = prop_oneof![8 => Just(0usize), 2 => Just(300), 1 => Just(9_000), 1 => Just(70_000)];
    let item = (topic(), options(), start());
    let flip = prop::sample::select(vec![Flip::Restart, Flip::Fence]);
    let room = prop_oneof![3 => (0usize..200).prop_map(Some), 1 => (0usize..20_000).prop_map(Some), 2 => Just(None)];
    prop_oneof![
        12 => (topic(), 1u64..6, size).prop_map(|(topic, times, size)| Event::Publish { topic, times, size }),
        3 => (topic(), 1u64..4).prop_map(|(topic, times)| Event::Lose { topic, times }),
        1 => (topic(), flip).prop_map(|(topic, flip)| Event::Flip(topic, flip)),
        8 => (client(), prop::collection::vec(item, 1..4))
            .prop_map(|(client, items)| Event::Subscribe { client, items }),
        3 => (client(), topic()).prop_map(|(client, topic)| Event::Unsubscribe { client, topic }),
        3 => client().prop_map(Event::Reconnect),
        1 => client().prop_map(Event::Detach),
        3 => client().prop_map(Event::Block),
        6 => (client(), room).prop_map(|(client, room)| Event::Unblock(client, room)),
        3 => (0u64..700).prop_map(Event::Pass),
        6 => any::<prop::sample::Index>().prop_map(Event::Step),
        5 => Just(Event::Settle),
        1 => Just(Event::EndGrace),
        1 => (0u32..400).prop_map(Event::Sweep),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let inbox = prop::sample::select(vec![1usize, 2, 4, 1000]);
    let history = prop::sample::select(vec![0usize, 3, 1000]);
    let log_bytes = prop::sample::select(vec![1usize, 1500, 1 << 30]);
    let topic = (
        prop::sample::select(vec![1usize, 3, 1000]),
        any::<bool>(),
        prop::sample::select(vec![0u32, 0, 20]),
    );
    (inbox, history, log_bytes, prop::array::uniform3(topic)).prop_map(
        |(inbox, history, log_bytes, topics)| {
            let setup = Setup { workers: 2, inbox, history, log_bytes, ..Setup::default() };
            TOPICS.iter().zip(topics).fold(setup, |setup, (name, (publications, value, flush))| {
                setup.topic(name, |options| {
                    options.log.publications = publications;
                    options.keeps_value = value;
                    options.flush_interval_ms = flush;
                    if !value {
                        // Else the newest value may be too old before a slow client in mode `latest` gets it.
                        options.log.age = Duration::MAX;
                    }
                })
            })
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let events = prop::collection::vec((event(), prop::bool::weighted(0.7)), 1..80);
    (setup(), events, any::<bool>()).prop_map(|(setup, events, ends_with_publications)| Case {
        setup,
        events,
        ends_with_publications,
    })
}

/// A case while it is played.
struct Game {
    rig: Rig,
    setup: Setup,
    /// What each client saw last of each topic, also on earlier connections.
    seen: Vec<BTreeMap<String, (Epoch, u64)>>,
    next_id: u64,
    /// Kinds of frames that came.
    kinds: BTreeSet<String>,
}

impl Game {
    fn new(setup: Setup) -> Self {
        let mut rig = setup.clone().build();
        for client in 0..CLIENTS {
            rig.attach_to(client % setup.workers);
        }
        Self {
            rig,
            setup,
            seen: vec![BTreeMap::new(); CLIENTS],
            next_id: 1,
            kinds: BTreeSet::new(),
        }
    }

    fn play(&mut self, event: &Event) {
        let rig = &mut self.rig;
        match *event {
            Event::Publish { topic, times, size } => {
                (0..times).for_each(|_| rig.publish_one(TOPICS[topic], size, true));
            }
            Event::Lose { topic, times } => rig.lose(TOPICS[topic], times),
            Event::Flip(topic, flip) => rig.flip(TOPICS[topic], flip),
            Event::Subscribe { client, ref items } => self.subscribe(client, items),
            Event::Unsubscribe { client, topic } => {
                self.next_id += 1;
                if rig.clients[client].connection.is_some() {
                    let topic = format!("{:?}", TOPICS[topic]);
                    rig.unsubscribe(ClientId(client), self.next_id, &topic);
                }
            }
            Event::Reconnect(client) => self.reconnect(client),
            Event::Detach(client) => {
                self.remember(client);
                self.rig.detach(ClientId(client));
            }
            Event::Block(client) => rig.block(ClientId(client)),
            Event::Unblock(client, room) => rig.unblock(ClientId(client), room),
            Event::Pass(milliseconds) => rig.pass(milliseconds),
            Event::Step(index) => {
                rig.collect();
                if !rig.tasks.is_empty() {
                    rig.step(index.index(rig.tasks.len()));
                }
            }
            Event::Settle => rig.settle(),
            Event::EndGrace => rig.end_grace(),
            Event::Sweep(second) => rig.hub.sweep(second),
        }
    }

    fn remember(&mut self, client: usize) {
        for (topic, stream) in self.rig.clients[client].oracle.held() {
            if stream.owed.is_none() {
                self.seen[client].insert(topic.clone(), (stream.epoch, stream.cursor));
            }
        }
    }

    fn reconnect(&mut self, client: usize) {
        self.remember(client);
        self.rig.detach(ClientId(client));
        let held: Vec<String> = self.rig.clients[client].oracle.held().keys().cloned().collect();
        self.rig.reattach(ClientId(client));
        let place = |name: &String| TOPICS.iter().position(|topic| topic == name);
        let items: Vec<_> = held
            .iter()
            .filter_map(place)
            .map(|topic| (topic, Options::Default, Start::Seen))
            .collect();
        self.subscribe(client, &items);
    }

    fn subscribe(&mut self, client: usize, items: &[(usize, Options, Start)]) {
        self.remember(client);
        if self.rig.clients[client].connection.is_none() {
            self.rig.reattach(ClientId(client));
        }
        let describe = |(topic, options, start): &(usize, Options, Start)| {
            let name = TOPICS[*topic];
            let options = match options {
                Options::Default => String::new(),
                Options::All => r#","mode":"all""#.to_owned(),
                Options::Latest => r#","mode":"latest""#.to_owned(),
                Options::Rate(interval) => format!(r#","max_rate":{}"#, 1000 / interval),
            };
            let seen = self.seen[client].get(name).copied();
            let (epoch, offset) = seen.unwrap_or((Epoch::new(10), 0));
            let since = |epoch: &str, offset: u64| {
                format!(r#","since":{{"epoch":"{epoch}","offset":{offset}}}"#)
            };
            let since = match start {
                Start::Seen if seen.is_some() => since(&epoch.to_string(), offset),
                Start::Fresh | Start::Seen => String::new(),
                Start::Before(by) => since(&epoch.to_string(), offset.saturating_sub(*by)),
                Start::Ahead(by) => since(&epoch.to_string(), offset + by),
                Start::ForeignEpoch => since("zz", offset),
                Start::Garbled => since("K3", offset),
            };
            format!(r#"{{"topic":"{name}"{options}{since}}}"#)
        };
        let items: Vec<String> = items.iter().map(describe).collect();
        self.next_id += 1;
        self.rig.subscribe(ClientId(client), self.next_id, &items.join(","));
    }

    /// No frame broke the contract.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for client in 0..CLIENTS {
            for frame in self.rig.frames(ClientId(client)) {
                // Reasons and codes are the long words of the short form.
                let words = frame.split(' ').filter(|word| word.len() > 3 && !word.contains('@'));
                self.kinds.extend(words.map(str::to_owned));
            }
        }
        prop_assert_eq!(&self.rig.violation, &None);
        Ok(())
    }

    /// What the node knows and may send is sent: nobody waits for a wake-up that never comes.
    fn check_prompt(&mut self) -> Result<(), TestCaseError> {
        self.rig.collect();
        for client in &self.rig.clients {
            if client.connection.is_none() || !client.socket.is_open() {
                continue;
            }
            for (name, stream) in client.oracle.held() {
                let options = self.setup.rules.exceptions[name];
                let rests =
                    stream.value_at.is_some_and(|at| self.rig.now < at + stream.interval_ms);
                if options.flush_interval_ms > 0
                    || self.rig.tasks.iter().any(|task| task.topic().as_str() == name)
                    || client.oracle.is_changing(name)
                    || stream.waits_for_next(&self.rig.broker.log, name)
                    || rests
                {
                    continue;
                }
                if let Some((epoch, last)) = self.rig.broker.log.last_arrived(name) {
                    let stands = (stream.epoch, stream.cursor, stream.owed);
                    prop_assert_eq!(stands, (epoch, last, None), "{} is not prompt", name);
                }
            }
        }
        Ok(())
    }

    /// Sockets take everything, jobs run, time passes: everyone arrives.
    fn come_to_rest(&mut self, with_publications: bool) -> Result<(), TestCaseError> {
        let rig = &mut self.rig;
        (0..CLIENTS).for_each(|client| rig.unblock(ClientId(client), None));
        rig.settle();
        // The rolling audit finds what was lost last.
        for topic in rig.broker.topics() {
            rig.hub.suspect(&topic);
        }
        rig.settle();
        if with_publications {
            TOPICS.iter().for_each(|topic| rig.publish(topic, 1));
            rig.settle();
        }
        rig.pass(A_WHILE_MS);
        rig.settle();
        self.check()?;
        for client in &self.rig.clients {
            if client.connection.is_some() {
                let arrived = client.oracle.arrived(&self.rig.broker.log);
                prop_assert_eq!(arrived, Ok(()));
            }
        }
        Ok(())
    }

    /// Accounts are exact, and nothing is left once everyone has gone.
    fn clean_up(&mut self) -> Result<(), TestCaseError> {
        let rig = &mut self.rig;
        rig.end_grace();
        rig.settle();
        let wanted: Vec<&str> =
            TOPICS.into_iter().filter(|name| rig.hub.holds(&topic(name))).collect();
        if self.setup.inbox > 4 {
            let bytes: usize = wanted.iter().map(|name| rig.log_of(name).1).sum();
            prop_assert_eq!(rig.hub.stats().log_bytes, bytes);
        }
        prop_assert_eq!(rig.hub.stats().topics, wanted.len());
        (0..CLIENTS).for_each(|client| rig.detach(ClientId(client)));
        rig.settle();
        rig.end_grace();
        let stats = rig.hub.stats();
        prop_assert_eq!((stats.topics, stats.log_bytes), (0, 0));
        prop_assert_eq!(rig.held(), [0; 3]);
        rig.pass(A_WHILE_MS);
        prop_assert_eq!(rig.next_due(), None, "timers are left");
        Ok(())
    }
}

fn play(case: Case) -> Result<BTreeSet<String>, TestCaseError> {
    let mut game = Game::new(case.setup);
    for (event, with_turns) in &case.events {
        game.play(event);
        if *with_turns {
            game.rig.turns();
            game.check()?;
            game.check_prompt()?;
        }
    }
    game.come_to_rest(case.ends_with_publications)?;
    game.clean_up()?;
    Ok(game.kinds)
}

#[test]
fn the_contract_holds_whatever_happens() {
    let default = Config::default();
    let config = Config {
        // 256 unless the environment variable PROPTEST_CASES says otherwise; 40 of them take about 30 ms.
        cases: 40 * default.cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        max_shrink_iters: 20_000,
        ..default
    };
    let verdict = TestRunner::new(config).run(&case(), |case| play(case).map(|_kinds| ()));
    if let Err(error) = verdict {
        panic!("{error}");
    }
}

/// A property that never meets a gap proves nothing about gaps.
#[test]
fn everything_that_can_happen_happens() {
    let mut seen = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..500 {
        let case = case().new_tree(&mut runner).unwrap().current();
        seen.extend(play(case).unwrap());
    }
    for kind in [
        "slow_consumer",
        "expired",
        "lost",
        "broker_restart",
        "unknown_epoch",
        "offset_ahead",
        "unavailable",
        "unsubscribed",
    ] {
        assert!(seen.contains(kind), "{kind} never happened: {seen:?}");
    }
}
