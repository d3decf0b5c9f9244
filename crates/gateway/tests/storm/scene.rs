//! What every test here begins with: a Redis, nodes, publishers, and fleets of clients of different kinds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{
    Fleet, Interests, Load, Manner, Node, Notes, Publishers, Sent, World, finish, publish_batch,
};
use crate::oracle::Tally;
use crate::process::{PATIENCE, until};
use crate::redis::Redis;

/// Clients that are there for something else than the fault: they tell how others fare.
const WITNESSES: Load = Load { clients: 60, topics: 100, interests: 2, per_second: 30 };

/// Topics that nobody publishes to but the test itself.
const QUIET_TOPICS: usize = 20;

/// Who publishes to them.
const QUIET_PUBLISHER: usize = 1_000;

/// Open files that the largest of these tests needs in one process.
const FILES_MIN: u64 = 16_000;

/// How long it is waited for everybody to reach the same places.
const REFRESH: Duration = Duration::from_secs(1);

/// Longer than a node may take to end.
const END: Duration = Duration::from_secs(60);

/// A cluster with fleets.
#[derive(Debug)]
pub(crate) struct Scene {
    // In this order they are dropped: clients are gone before nodes, and nodes before their Redis.
    pub(crate) fleets: Vec<Fleet>,
    publishers: Publishers,
    pub(crate) nodes: Vec<Node>,
    pub(crate) world: Arc<World>,
    topics: Vec<String>,
    settings: Vec<(&'static str, String)>,
    /// Where nodes look for their broker.
    broker: String,
    pub(crate) redis: Redis,
}

impl Scene {
    /// So many nodes, and publishers. No clients yet.
    pub(crate) fn new(count: usize, load: Load, settings: &[(&'static str, &str)]) -> Self {
        allow_open_files();
        let redis = Redis::start(&[]);
        let broker = redis.url();
        Self::behind(&broker, redis, count, load, settings)
    }

    /// The same with nodes that look for their broker somewhere else than it is.
    pub(crate) fn behind(
        broker: &str,
        redis: Redis,
        count: usize,
        load: Load,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let nodes = (0..count).map(|_| Node::start(broker, settings)).collect();
        let scene = Self::on(redis, nodes, load, settings);
        Self { broker: broker.to_owned(), ..scene }
    }

    /// The same with nodes that are there already; new ones get these settings.
    pub(crate) fn on(
        redis: Redis,
        nodes: Vec<Node>,
        load: Load,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let world = Arc::new(World::default());
        world.set_nodes(nodes.iter().map(|node| node.address).collect());
        let topics = load.topics();
        let publishers = Publishers::start(&world, &topics, load.per_second);
        let settings = settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let (broker, fleets) = (redis.url(), Vec::new());
        Self { fleets, publishers, nodes, world, topics, settings, broker, redis }
    }

    /// From now on clients and publishers go to these nodes only.
    pub(crate) fn lead_to(&self, nodes: impl IntoIterator<Item = usize>) {
        let address = |index: usize| self.nodes[index].address;
        self.world.set_nodes(nodes.into_iter().map(address).collect());
    }

    /// What the clients of a load want.
    pub(crate) fn interests(&self, load: Load) -> Vec<Interests> {
        load.interests(&self.topics)
    }

    /// Lets clients come; returns how long it took.
    pub(crate) fn add(&mut self, load: Load, manner: Manner) -> Duration {
        let start = Instant::now();
        let fleet = Fleet::start_with(&self.world, self.interests(load), manner);
        self.fleets.push(fleet);
        start.elapsed()
    }

    /// Lets clients come whose publications are timed, and waits until each has heard of one.
    pub(crate) fn add_witnesses(&mut self) {
        self.add(WITNESSES, Manner { is_timed: true, ..Manner::HASTY });
        self.fleets[self.fleets.len() - 1].until_heard(Instant::now());
    }

    /// Lets clients come that hear of nothing but [`publish_quietly`](Self::publish_quietly).
    pub(crate) fn add_quiet(&mut self, count: usize, manner: Manner) {
        let topic = |index: usize| format!("quiet.{}", index % QUIET_TOPICS);
        let interests = (0..count).map(|client| Interests {
            topics: vec![topic(client), topic(client + 7)],
            mode: "all",
        });
        self.fleets.push(Fleet::start_with(&self.world, interests, manner));
    }

    /// Publishes once to each of the quiet topics; rounds are numbered from 1.
    pub(crate) fn publish_quietly(&self, round: u64) {
        self.publish_padded(round, 0);
    }

    /// The same with payloads that are so many bytes larger.
    pub(crate) fn publish_padded(&self, round: u64, bytes: usize) {
        let padding = "x".repeat(bytes);
        let items = (0..QUIET_TOPICS).map(|index| {
            let topic = format!("quiet.{index}");
            let payload = format!(r#"{{"round":{round},"padding":"{padding}"}}"#);
            self.world.sends(&topic, &payload, Sent { publisher: QUIET_PUBLISHER, number: round });
            (topic, payload)
        });
        let items: Vec<_> = items.collect();
        publish_batch(&self.world, &self.nodes[0], &format!("quiet-{round}"), &items);
    }

    /// Waits until everybody has everything that was published until now.
    pub(crate) fn until_level(&self) {
        let over = Instant::now() + PATIENCE;
        let (mut ends, mut since) = (self.world.ends(), Instant::now());
        while let Some(behind) = self.fleets.iter().find_map(|fleet| fleet.behind(&ends)) {
            assert!(Instant::now() < over, "{behind}");
            std::thread::park_timeout(Duration::from_millis(5));
            if since.elapsed() > REFRESH {
                // A topic may be in another epoch by now, where nobody gets to the place of before any more.
                (ends, since) = (self.world.ends(), Instant::now());
            }
        }
    }

    /// How old publications were when a fleet got them from `since` on: the median and the 99th percentile.
    pub(crate) fn ages(&self, fleet: usize, since: Instant) -> Ages {
        let notes = self.fleets[fleet].notes().into_iter();
        let ages = notes.flat_map(|notes| notes.ages).filter(|(when, _)| *when >= since);
        Ages::new(ages.map(|(_, age)| age).collect())
    }

    /// What all clients but the witnesses have gone through.
    pub(crate) fn notes(&self, fleets: impl IntoIterator<Item = usize>) -> Vec<Notes> {
        fleets.into_iter().flat_map(|fleet| self.fleets[fleet].notes()).collect()
    }

    /// Waits until everybody has got a publication since `since`.
    pub(crate) fn until_heard(&self, since: Instant) -> Duration {
        for fleet in &self.fleets {
            fleet.until_heard(since);
        }
        since.elapsed()
    }

    /// Does what a load balancer does: a node that is not ready is given nobody any more.
    pub(crate) fn until_noticed(&self, leaving: usize) -> Duration {
        let noticed = until("noticed", PATIENCE, || self.nodes[leaving].is_gone_or_unready());
        self.lead_to((0..self.nodes.len()).filter(|node| *node != leaving));
        noticed
    }

    /// Asks a node to end, and waits until it has: how long that took.
    pub(crate) fn end(&mut self, node: usize) -> Duration {
        let start = Instant::now();
        self.nodes[node].terminate();
        self.until_noticed(node);
        self.until_ended(node);
        start.elapsed()
    }

    /// Waits until a node has ended, which must be well.
    pub(crate) fn until_ended(&mut self, node: usize) {
        let status = self.nodes[node].until_ended(END);
        assert_eq!(status.code(), Some(0), "{}", self.nodes[node].log());
    }

    /// Puts a new node in the place of one that has ended.
    pub(crate) fn replace(&mut self, node: usize) {
        let settings: Vec<_> =
            self.settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        self.nodes[node] = Node::start(&self.broker, &settings);
        self.lead_to(0..self.nodes.len());
    }

    /// The verdict, once everybody has everything.
    pub(crate) fn finish(self) -> Tally {
        let Self { fleets, publishers, nodes, world, topics, .. } = self;
        finish(&world, &nodes, &topics, publishers, fleets)
    }
}

/// Raises the limit on open files as far as it may be: ten thousand clients have as many sockets in this process, and
/// half of them a second one when all are sent away at once.
fn allow_open_files() {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit it may be raised");
    let is_enough = limits.maximum.is_none_or(|most| most >= FILES_MIN);
    assert!(is_enough, "the hard limit on open files is {limits:?}; raise it to {FILES_MIN}");
}

/// Durations, sorted.
#[derive(Debug)]
pub(crate) struct Ages(Vec<Duration>);

impl Ages {
    pub(crate) fn new(mut ages: Vec<Duration>) -> Self {
        ages.sort_unstable();
        Self(ages)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one that so many percent do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        assert!(!self.0.is_empty(), "nothing was timed");
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

impl std::fmt::Display for Ages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, slow, most] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(f, "p50 {median:.1?}, p99 {slow:.1?}, at most {most:.1?} ({})", self.len())
    }
}

/// Neither a gap nor a reset for clients that resume, whichever node they come to.
pub(crate) fn expect_unbroken(tally: &Tally) {
    assert_eq!((tally.resets, tally.gaps), (0, 0), "{tally:?}");
}
