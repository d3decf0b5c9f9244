//! What breaks, and what else happens: drawn from the seed.

use tickcast_broker::redis::link::{Event as LinkEvent, Side};

use super::keeper::GRACE;
use super::network::{Network, Way};
use super::node::{Node, NodeSettings, Sabotage};
use super::redis::{Data, Name, Settings};
use super::time::{Event, MILLISECOND, Moment, SECOND, Time};

const SIDES: [Side; 2] = [Side::Commands, Side::Subscriber];

/// What may happen in a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) node: NodeSettings,
    pub(super) redis: Settings,
    pub(super) latency_max: Moment,
    /// Things break for this long.
    pub(super) storm: Moment,
    /// Longest time between two of them.
    pub(super) break_max: Moment,
    pub(super) publish_max: Moment,
    pub(super) churn_max: Moment,
    pub(super) kind: Kind,
    /// Somebody still publishes when nothing breaks any more.
    pub(super) publishes_in_calm: bool,
}

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is one server, which keeps everything.
    Lasting,
    /// Servers are replaced: offsets are rewound, or everything is lost.
    Replaced,
    /// The same, and little is retained anywhere.
    Scarce,
    /// Workers are slow, and their inboxes small.
    Slow,
}

impl Kind {
    /// The kind that the run of this seed is of.
    pub(super) fn of(seed: u64) -> Self {
        match seed % 4 {
            0 => Self::Lasting,
            1 => Self::Replaced,
            2 => Self::Scarce,
            _ => Self::Slow,
        }
    }

    fn loses_data(self) -> bool {
        matches!(self, Self::Replaced | Self::Scarce)
    }

    /// Whether epochs may change: the replication id of the server does.
    pub(super) fn changes_epochs(self) -> bool {
        self != Self::Lasting
    }
}

impl Plan {
    /// The plan of this seed.
    pub(super) fn of(seed: u64, time: &mut Time, sabotage: Option<Sabotage>) -> Self {
        let kind = Kind::of(seed);
        let is_small = kind == Kind::Scarce;
        let is_slow = matches!(kind, Kind::Scarce | Kind::Slow);
        // Now and then, more topics than one batch holds.
        let topics = if seed % 100 == 50 { 1100 } else { 1 + time.below(12) };
        let node = NodeSettings {
            topics,
            workers: if kind == Kind::Slow { 2 } else { 1 + time.below(2) },
            inbox: if is_slow { 1 + topics / 10 + time.below(8) } else { 100_000 },
            log: if is_small { 1 + time.below(20) } else { 1_000_000 },
            drain_max: if is_slow { time.between(1..=200) * MILLISECOND } else { MILLISECOND },
            full_percent: [0, 0, 2][time.below(3)],
            sabotage,
        };
        let redis = Settings {
            history: if is_small { 1 + time.below(30) } else { usize::MAX },
            has_fence: sabotage != Some(Sabotage::FenceOpen),
        };
        let latency_max = [0, 1, 10, 100][time.below(4)] * MILLISECOND;
        Self {
            node,
            redis,
            latency_max,
            storm: time.between(60..=180) * SECOND,
            break_max: time.between(1..=10) * SECOND,
            publish_max: time.between(20..=1000) * MILLISECOND,
            churn_max: time.between(20..=5000) * MILLISECOND,
            kind,
            publishes_in_calm: time.chance(50),
        }
    }
}

/// Something that is wrong for a while, or at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Cut {
        side: Side,
    },
    CutBoth,
    Blackhole {
        side: Option<Side>,
        way: Option<Way>,
    },
    Hang,
    DialsRefused,
    Loss {
        percent: u32,
    },
    /// The server closes a subscriber that reads too slowly, with all that it had for it.
    OutputBuffer,
    Replaced,
    NewReplid,
    Full,
    ReadOnly,
    Denied {
        name: Name,
        cuts: bool,
    },
    SubscriptionDropped {
        nth: usize,
    },
    MasterMoved,
    Garbled {
        percent: u32,
    },
}

/// How a server takes over from another.
#[derive(Debug)]
pub(super) struct Switch {
    data: Data,
    /// How long nobody answers a dial.
    downtime: Moment,
    fate: Fate,
    tells: bool,
}

/// What becomes of the server before.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Killed,
    /// It neither answers nor ends.
    Hangs,
    /// It refuses writes.
    Demoted,
    /// Some are still led to it.
    Split,
}

/// Draws what breaks next.
fn draw(time: &mut Time, plan: &Plan) -> Fault {
    let side = SIDES[time.below(2)];
    let way = [Way::ToServer, Way::ToNode][time.below(2)];
    let name = time.below(plan.node.topics);
    match time.below(19) {
        0 => Fault::Cut { side },
        1 => Fault::CutBoth,
        2 => Fault::Blackhole { side: Some(side), way: Some(way) },
        3 => Fault::Blackhole { side: None, way: None },
        4 => Fault::Blackhole { side: None, way: Some(way) },
        5 => Fault::Hang,
        6 => Fault::DialsRefused,
        7 => Fault::Loss { percent: [1, 10, 100][time.below(3)] },
        8 => Fault::OutputBuffer,
        9..=11 if plan.kind.loses_data() => Fault::Replaced,
        12 if plan.kind.changes_epochs() => Fault::NewReplid,
        13 => Fault::Full,
        14 if plan.kind.changes_epochs() => Fault::ReadOnly,
        15 => Fault::Denied { name, cuts: time.chance(50) },
        16 => Fault::SubscriptionDropped { nth: time.below(1000) },
        17 => Fault::MasterMoved,
        18 => Fault::Garbled { percent: [1, 10, 100][time.below(3)] },
        _ => Fault::Loss { percent: 5 },
    }
}

/// How long a fault lasts: mostly short, sometimes long.
fn length(time: &mut Time) -> Moment {
    let longest = [SECOND, 5 * SECOND, 20 * SECOND][time.below(3)];
    time.between(100 * MILLISECOND..=longest)
}

/// Something breaks, and so does something else later.
pub(super) fn strike(time: &mut Time, network: &mut Network, plan: &Plan) {
    let pause = time.between(0..=plan.break_max);
    time.after(pause, Event::Break);
    let (fault, until) = (draw(time, plan), time.now + length(time));
    time.say(|| format!("FAULT {fault:?} until {:.3} s", until as f64 / 1e6));
    match fault {
        Fault::Cut { side } => cut(time, network, &[side]),
        Fault::CutBoth => cut(time, network, &SIDES),
        Fault::OutputBuffer => cut(time, network, &[Side::Subscriber]),
        Fault::Blackhole { side, way } => {
            for side in side.map_or(SIDES.to_vec(), |side| vec![side]) {
                for way in way.map_or(vec![Way::ToServer, Way::ToNode], |way| vec![way]) {
                    network.blackhole(side, way, until);
                }
            }
            time.at(until, Event::Heal(fault));
        }
        Fault::Hang => {
            network.hang(until);
            time.at(until, Event::Heal(fault));
        }
        Fault::DialsRefused => network.refuses_until = network.refuses_until.max(until),
        Fault::Loss { percent } => {
            network.loss_percent = percent;
            time.at(until, Event::Heal(fault));
        }
        Fault::Garbled { percent } => {
            network.garbled_percent = percent;
            time.at(until, Event::Heal(fault));
        }
        Fault::Replaced => replace(time, network),
        Fault::NewReplid => network.host().server.replid = time.number(),
        Fault::Full => {
            network.host().server.is_full = true;
            time.at(until, Event::Heal(fault));
        }
        Fault::ReadOnly => {
            network.host().server.is_replica = true;
            time.at(until, Event::Heal(fault));
        }
        Fault::Denied { name, cuts } => {
            network.deny(time, name, cuts);
            time.at(until, Event::Heal(fault));
        }
        Fault::SubscriptionDropped { nth } => {
            for (wire, _, server) in network.connections() {
                if network.hosts[server].server.drop_subscription(wire, nth).is_some() {
                    network.tampered.insert(wire);
                }
            }
        }
        Fault::MasterMoved => time.after(0, Event::MasterMoved),
    }
}

fn cut(time: &mut Time, network: &mut Network, sides: &[Side]) {
    for (wire, side, _) in network.connections() {
        if sides.contains(&side) {
            network.cut(time, wire);
        }
    }
}

/// A restart or a failover: with nothing, with what was there a while ago, or with everything, but never with the same id.
fn replace(time: &mut Time, network: &mut Network) {
    let data = match time.below(4) {
        0 => Data::new(),
        _ => network.host().server.data.clone(),
    };
    let downtime = [0, 0, SECOND, 3 * SECOND][time.below(4)];
    let downtime = time.between(0..=downtime);
    let fate = [Fate::Killed, Fate::Hangs, Fate::Demoted, Fate::Split][time.below(4)];
    let lag = [0, 100 * MILLISECOND, 3 * SECOND][time.below(3)];
    let (pause, tells) = (time.between(0..=lag), time.chance(70));
    time.after(pause, Event::Switch(Box::new(Switch { data, downtime, fate, tells })));
}

/// The new server takes over.
pub(super) fn switch(time: &mut Time, network: &mut Network, switch: Switch) {
    time.say(|| format!("SWITCH {:?}, down for {} us", switch.fate, switch.downtime));
    let (before, now) = (network.current, time.now);
    let denied = network.host().server.denied.clone();
    let is_full = network.host().server.is_full;
    let replid = time.number();
    match switch.fate {
        Fate::Killed => network.kill(time, before),
        Fate::Hangs => network.hang(Moment::MAX),
        Fate::Demoted => network.host().server.is_replica = true,
        Fate::Split => network.other = Some(before),
    }
    if !matches!(switch.fate, Fate::Killed) {
        let pause = time.between(0..=8 * SECOND);
        time.after(pause, Event::Bury(before));
    }
    network.start(switch.data, replid);
    (network.host().server.denied, network.host().server.is_full) = (denied, is_full);
    network.refuses_until = network.refuses_until.max(now + switch.downtime);
    if switch.tells {
        let pause = time.between(0..=2 * SECOND);
        time.after(pause, Event::MasterMoved);
    }
}

/// Something is whole again.
pub(super) fn heal(time: &mut Time, network: &mut Network, fault: Fault) {
    time.say(|| format!("HEALED {fault:?}"));
    match fault {
        Fault::Loss { .. } => network.loss_percent = 0,
        Fault::Garbled { .. } => network.garbled_percent = 0,
        Fault::Full => network.host().server.is_full = false,
        Fault::ReadOnly => promote(time, network),
        Fault::Denied { name, .. } => {
            network.host().server.denied.remove(&name);
        }
        _ => {}
    }
    network.resume(time, false);
}

/// A replica becomes the master: its history has a new id from here on.
fn promote(time: &mut Time, network: &mut Network) {
    let server = &mut network.host().server;
    if server.is_replica {
        (server.is_replica, server.replid) = (false, time.number());
    }
}

/// Everything is whole from now on. Sometimes the last that happened is that everything on its way was lost.
pub(super) fn calm(time: &mut Time, network: &mut Network, plan: &Plan) {
    time.say(|| "CALM".to_owned());
    (network.loss_percent, network.garbled_percent, network.refuses_until) = (0, 0, 0);
    let server = &mut network.host().server;
    server.is_full = false;
    server.denied.clear();
    promote(time, network);
    for index in 0..network.hosts.len() {
        if index != network.current && network.hosts[index].is_alive {
            network.kill(time, index);
        }
    }
    network.resume(time, true);
    if plan.publishes_in_calm {
        time.after(10 * SECOND, Event::Silence);
    } else {
        network.loss_percent = 100;
        publish_all(time, network, plan);
        network.loss_percent = 0;
        time.after(0, Event::Silence);
    }
}

fn publish_all(time: &mut Time, network: &mut Network, plan: &Plan) {
    for name in 0..plan.node.topics.min(20) {
        network.publish(time, name, &mut std::collections::BTreeMap::new());
    }
}

/// Somebody publishes: mostly elsewhere, mostly once.
pub(super) fn publish(
    time: &mut Time,
    network: &mut Network,
    node: &mut Node,
    plan: &Plan,
    seen: &mut std::collections::BTreeMap<usize, u64>,
) {
    let pause = time.between(0..=plan.publish_max);
    time.after(pause, Event::Publish);
    // A few of many topics are busy.
    let name = time.below(plan.node.topics.min(20));
    let times = if time.chance(5) { time.between(2..=20) } else { 1 };
    for _ in 0..times {
        if time.chance(20) {
            node.publish(time, network, name);
        } else {
            network.publish(time, name, seen);
        }
    }
}

/// Subscribers come and go.
pub(super) fn churn(time: &mut Time, node: &mut Node, plan: &Plan) {
    let pause = time.between(0..=plan.churn_max);
    time.after(pause, Event::Churn);
    let (worker, name) = (time.below(plan.node.workers), time.below(plan.node.topics));
    match time.below(5) {
        0 => node.want_history(worker, name),
        1 => {
            // Within the grace period.
            node.join_or_leave(time, worker, name);
            node.join_or_leave(time, worker, name);
        }
        2 => {
            node.leave(time, worker, name);
            let pause = GRACE + time.between(0..=100 * MILLISECOND);
            time.after(pause, Event::Rejoin(worker, name));
        }
        _ => node.join_or_leave(time, worker, name),
    }
}

/// The node hears of a new master.
pub(super) fn master_moved(time: &mut Time, node: &mut Node) {
    time.say(|| "the master has moved".to_owned());
    node.link.handle(time.instant(), LinkEvent::MasterMoved);
}
