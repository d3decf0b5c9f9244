//! One fault after another, at random, for as long as one likes: nothing may be lost without a word, and all must heal.
//!
//! Redis, the way to it, nodes, and the ways of clients fail in turn. `make chaos MINUTES=60` runs it for long; the seed
//! that it prints runs the same faults again (`TICKCAST_CHAOS_SEED`).

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::{Fleet, Load, Manner, alone};
use crate::process::until;
use crate::proxy::{Direction, Flow, Proxy, Way};
use crate::redis::{Memory, Redis};
use crate::scene::Scene;

const SEED: u64 = 20_261_128;
const MINUTES: f64 = 3.0;

/// From the beginning of a fault to that of the next, if all has healed by then.
const EVERY: Duration = Duration::from_secs(10);
/// The same in a long run.
const EVERY_IN_A_LONG_RUN: Duration = Duration::from_secs(20);

/// After a fault everybody has everything again within this time, on a machine that has other things to do.
const HEALED: Duration = Duration::from_secs(30);

const LOAD: Load = Load { clients: 150, topics: 30, interests: 3, per_second: 60 };
const NODES: usize = 3;

/// A node that is asked to end does so soon, or a run would be nothing but that.
const SETTINGS: [(&str, &str); 4] = [
    ("drain.delay", "300ms"),
    ("drain.rate", "100"),
    ("websocket.ping_interval", "3s"),
    ("websocket.user_timeout", "4s"),
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    RedisKilled(Memory),
    RedisHangs,
    RedisCut,
    RedisUnreachable,
    RedisFarAway,
    SubscribersKilled,
    NodeKilled,
    NodeHangs,
    NodeDrained,
    NodeHurried,
    NodeReloaded,
    ClientsCut,
    ClientsHangUp,
    ClientsUnreachable,
    ClientsStall,
    ClientsSlow,
    ClientsHalfClosed,
}

const FAULTS: [Fault; 18] = [
    Fault::RedisKilled(Memory::Lost),
    Fault::RedisKilled(Memory::Saved),
    Fault::RedisHangs,
    Fault::RedisCut,
    Fault::RedisUnreachable,
    Fault::RedisFarAway,
    Fault::SubscribersKilled,
    Fault::NodeKilled,
    Fault::NodeHangs,
    Fault::NodeDrained,
    Fault::NodeHurried,
    Fault::NodeReloaded,
    Fault::ClientsCut,
    Fault::ClientsHangUp,
    Fault::ClientsUnreachable,
    Fault::ClientsStall,
    Fault::ClientsSlow,
    Fault::ClientsHalfClosed,
];

/// Everything that can fail.
struct Chaos {
    scene: Scene,
    /// Between the nodes and Redis.
    broker: Proxy,
    /// Between clients and each node.
    ways: Vec<Proxy>,
    random: StdRng,
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let redis = Redis::start(&[]);
        let broker = Proxy::start(redis.address(), seed);
        let mut scene = Scene::behind(&broker.url(), redis, NODES, LOAD, &SETTINGS);
        let ways: Vec<_> =
            scene.nodes.iter().map(|node| Proxy::start(node.address, seed)).collect();
        scene.world.set_ways(ways.iter().map(Proxy::address).collect());
        // Both kinds find out by themselves that nobody is there any more.
        scene.add(LOAD, Manner { moves: true, ..Manner::HASTY });
        scene.add(LOAD, Manner::HASTY);
        Self { scene, broker, ways, random: StdRng::seed_from_u64(seed) }
    }

    fn wait(&self, time: Duration) {
        let start = Instant::now();
        until("over", HEALED, || start.elapsed() >= time);
    }

    /// Waits for a random time of so many milliseconds.
    fn wait_within(&mut self, milliseconds: std::ops::Range<u64>) {
        let time = self.random.random_range(milliseconds);
        self.wait(Duration::from_millis(time));
    }

    /// Does harm, and ends it.
    fn strike(&mut self, fault: Fault) {
        let node = self.random.random_range(0..NODES);
        match fault {
            Fault::RedisKilled(memory) => {
                if memory == Memory::Saved {
                    self.scene.redis.tell(&["SAVE"]);
                }
                self.scene.redis.kill();
                self.wait_within(100..4_000);
                self.scene.redis.start_again(memory);
            }
            Fault::RedisHangs => {
                self.scene.redis.stop();
                self.wait_within(500..6_000);
                self.scene.redis.go_on();
            }
            Fault::RedisCut => self.broker.reset_all(),
            Fault::RedisUnreachable => {
                self.broker.set_both(Way { flow: Flow::Lost, ..Way::default() });
                self.wait_within(1_000..5_000);
                self.broker.clear();
            }
            Fault::RedisFarAway => {
                let (latency, jitter) = (Duration::from_millis(60), Duration::from_millis(40));
                self.broker.set_both(Way { latency, jitter, ..Way::default() });
                self.wait_within(1_000..4_000);
                self.broker.clear();
            }
            Fault::SubscribersKilled => {
                for _ in 0..5 {
                    self.scene.redis.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                    self.wait_within(10..300);
                }
            }
            Fault::NodeKilled
            | Fault::NodeHangs
            | Fault::NodeDrained
            | Fault::NodeHurried
            | Fault::NodeReloaded => self.strike_node(fault, node),
            _ => self.strike_clients(fault, node),
        }
    }

    fn strike_node(&mut self, fault: Fault, node: usize) {
        match fault {
            Fault::NodeKilled => {
                self.scene.nodes[node].kill();
                self.wait_within(0..2_000);
                self.replace(node);
            }
            Fault::NodeHangs => {
                self.scene.nodes[node].stop();
                self.wait_within(500..8_000);
                self.scene.nodes[node].go_on();
            }
            Fault::NodeDrained => {
                self.scene.end(node);
                self.replace(node);
            }
            Fault::NodeHurried => {
                self.scene.nodes[node].terminate();
                self.wait_within(10..1_500);
                // It may have ended by now.
                if self.scene.nodes[node].ended().is_none() {
                    self.scene.nodes[node].terminate();
                }
                self.scene.until_ended(node);
                self.replace(node);
            }
            _ => self.scene.nodes[node].reload(),
        }
    }

    fn strike_clients(&mut self, fault: Fault, node: usize) {
        let harm = match fault {
            Fault::ClientsCut => {
                return self.scene.fleets.iter().for_each(Fleet::cut_half);
            }
            Fault::ClientsHangUp => {
                return self.scene.fleets.iter().for_each(Fleet::hang_up);
            }
            Fault::ClientsHalfClosed => {
                let direction = *[Direction::ToServer, Direction::ToClient]
                    .choose(&mut self.random)
                    .expect("two");
                return self.ways[node].half_close(direction);
            }
            Fault::ClientsUnreachable => Way { flow: Flow::Lost, ..Way::default() },
            Fault::ClientsStall => Way { flow: Flow::Held, ..Way::default() },
            _ => Way { bytes_per_second: Some(2_000), ..Way::default() },
        };
        self.ways[node].set(Direction::ToClient, harm);
        if fault == Fault::ClientsUnreachable {
            self.ways[node].set(Direction::ToServer, harm);
        }
        self.wait_within(1_000..6_000);
        self.ways[node].clear();
    }

    fn replace(&mut self, node: usize) {
        self.scene.replace(node);
        self.ways[node].lead_to(self.scene.nodes[node].address);
    }

    /// Waits until every node is ready and everybody has everything again.
    fn until_healed(&self) -> Duration {
        let start = Instant::now();
        for node in &self.scene.nodes {
            node.until_ready();
        }
        self.scene.until_heard(start);
        self.scene.until_level();
        start.elapsed()
    }
}

/// A number from the environment.
fn given<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let Ok(text) = std::env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, and should be a number"))
}

#[test]
fn one_fault_after_another() {
    let _turn = alone();
    let seed = given("TICKCAST_CHAOS_SEED", SEED);
    let minutes = given("TICKCAST_CHAOS_MINUTES", MINUTES);
    let every = if minutes > MINUTES { EVERY_IN_A_LONG_RUN } else { EVERY };
    println!("TICKCAST_CHAOS_SEED={seed}");
    let mut chaos = Chaos::start(seed);
    let start = Instant::now();
    let mut bag = Vec::new();
    while start.elapsed().as_secs_f64() < minutes * 60.0 {
        if bag.is_empty() {
            bag = FAULTS.to_vec();
        }
        // Each of them before one comes a second time, in another order every time.
        let fault = bag.swap_remove(chaos.random.random_range(0..bag.len()));
        let struck = Instant::now();
        println!("{:.1?}: {fault:?}", start.elapsed());
        chaos.strike(fault);
        let harm = struck.elapsed();
        let healed = chaos.until_healed();
        println!("    for {harm:.1?}, healed after {healed:.1?}");
        assert!(healed < HEALED, "{fault:?}: {healed:?}");
        chaos.wait(every.saturating_sub(struck.elapsed()));
    }
    for node in &mut chaos.scene.nodes {
        assert_eq!(node.ended(), None);
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
    let tally = chaos.scene.finish();
    assert!(tally.resumed > 0 && tally.overlapped + tally.resets > 0, "{tally:?}");
}
