//! Reads, at both edges of a window, what everyone used of the machine and what Redis was asked to do.

use std::time::Instant;

use serde::Serialize;

use super::cluster::{Cluster, Cores};
use super::redis::{Calls, Redis};
use crate::error::LoadError;
use crate::proc::{CoreTime, Process, core_times};
use crate::units::{nanos, ratio, seconds};

/// Share of a core that others may take before a result is doubted.
const OTHERS: f64 = 0.1;

/// One edge of a window.
#[derive(Debug, Clone)]
pub(super) struct Edge {
    at: Instant,
    redis_ns: u64,
    nodes_ns: Vec<u64>,
    generator_ns: u64,
    /// All cores together.
    machine: CoreTime,
    /// The nodes' cores together.
    nodes_cores: CoreTime,
    generator_core: CoreTime,
    calls: Calls,
}

/// Reads the edges.
#[derive(Debug)]
pub(super) struct Meter {
    redis: Redis,
    redis_process: Process,
    nodes: Vec<Process>,
    cores: Cores,
}

impl Meter {
    pub(super) fn new(cluster: &Cluster) -> Result<Self, LoadError> {
        Ok(Self {
            redis: cluster.redis()?,
            redis_process: cluster.redis_process(),
            nodes: cluster.node_processes(),
            cores: cluster.cores.clone(),
        })
    }

    /// Reads an edge. Redis is asked first at both, so what that takes does not count.
    pub(super) fn read(&mut self, generator: Process) -> Result<Edge, LoadError> {
        let calls = self.redis.calls()?;
        Ok(Edge { calls, ..self.read_cpu(generator)? })
    }

    /// Reads an edge without asking anything of Redis.
    pub(super) fn read_cpu(&self, generator: Process) -> Result<Edge, LoadError> {
        let cpu = |process: &Process| process.cpu().map(|cpu| cpu.total_ns);
        let times = core_times()?;
        let of = |wanted: &dyn Fn(usize) -> bool| {
            let wanted = times.iter().filter(|(core, _)| wanted(*core));
            wanted.fold(CoreTime::default(), |sum, (_, time)| sum.and(*time))
        };
        Ok(Edge {
            calls: Calls::default(),
            redis_ns: cpu(&self.redis_process)?,
            nodes_ns: self.nodes.iter().map(cpu).collect::<Result<_, _>>()?,
            generator_ns: cpu(&generator)?,
            machine: of(&|_| true),
            nodes_cores: of(&|core| self.cores.nodes.contains(&core)),
            generator_core: of(&|core| core == self.cores.generator),
            at: Instant::now(),
        })
    }

    /// How many keys the nodes have, and `redis-benchmark`.
    pub(super) fn keys(&mut self) -> Result<[u64; 2], LoadError> {
        self.redis.keys()
    }

    /// How often Redis was called so far.
    pub(super) fn calls(&mut self) -> Result<Calls, LoadError> {
        self.redis.calls()
    }
}

/// What happened between two edges.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Window {
    /// Publications that were accepted.
    pub publications: u64,
    /// Length, in nanoseconds.
    pub length_ns: u64,
    /// CPU time of Redis, in nanoseconds.
    pub redis_ns: u64,
    /// CPU time of each node, in nanoseconds.
    pub nodes_ns: Vec<u64>,
    /// CPU time of whoever made the load, in nanoseconds.
    pub generator_ns: u64,
    /// CPU time of all other processes on this machine, in nanoseconds.
    pub others_ns: u64,
    /// The share of the time that the nodes' cores were busy, with interrupts and with whoever shares them.
    pub nodes_cores: f64,
    /// The same of the generator's core.
    pub generator_core: f64,
    /// Scripts that Redis ran.
    pub script_calls: u64,
    /// Messages that Redis was given to fan out.
    pub messages: u64,
    /// Scripts that failed.
    pub failed: u64,
    /// Reads of Redis from its clients' sockets.
    pub reads: u64,
}

impl Window {
    pub(super) fn between(opening: &Edge, closing: &Edge, publications: u64) -> Self {
        let calls = closing.calls.since(opening.calls);
        let nodes = closing.nodes_ns.iter().zip(&opening.nodes_ns);
        let used =
            |edge: &Edge| edge.redis_ns + edge.nodes_ns.iter().sum::<u64>() + edge.generator_ns;
        let processes_ns = closing.machine.since(opening.machine).processes_ns;
        Self {
            others_ns: processes_ns.saturating_sub(used(closing).saturating_sub(used(opening))),
            publications,
            length_ns: nanos(closing.at.duration_since(opening.at)),
            redis_ns: closing.redis_ns.saturating_sub(opening.redis_ns),
            nodes_ns: nodes.map(|(end, begin)| end.saturating_sub(*begin)).collect(),
            generator_ns: closing.generator_ns.saturating_sub(opening.generator_ns),
            nodes_cores: closing.nodes_cores.since(opening.nodes_cores).busy_share(),
            generator_core: closing.generator_core.since(opening.generator_core).busy_share(),
            script_calls: calls.scripts,
            messages: calls.messages,
            failed: calls.failed,
            reads: calls.reads,
        }
    }

    /// Publications per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        ratio(self.publications as f64, seconds(self.length_ns))
    }

    /// Redis' share of its core, 1 is all of it.
    #[must_use]
    pub fn redis_share(&self) -> f64 {
        self.share(self.redis_ns)
    }

    /// The nodes' share of a core, all together.
    #[must_use]
    pub fn nodes_share(&self) -> f64 {
        self.share(self.nodes_ns.iter().sum())
    }

    /// One node's share of a core.
    #[must_use]
    pub fn node_share(&self, node: usize) -> f64 {
        self.share(self.nodes_ns.get(node).copied().unwrap_or(0))
    }

    /// The generator's share of its core.
    #[must_use]
    pub fn generator_share(&self) -> f64 {
        self.share(self.generator_ns)
    }

    /// The share of a core that all other processes on this machine took.
    #[must_use]
    pub fn others_share(&self) -> f64 {
        self.share(self.others_ns)
    }

    /// CPU time of Redis per publication, in microseconds.
    #[must_use]
    pub fn redis_us(&self) -> f64 {
        self.us_per_publication(self.redis_ns)
    }

    /// CPU time of the nodes per publication, in microseconds.
    #[must_use]
    pub fn nodes_us(&self) -> f64 {
        self.us_per_publication(self.nodes_ns.iter().sum())
    }

    /// Publications per script call.
    #[must_use]
    pub fn per_call(&self) -> f64 {
        ratio(self.publications as f64, self.script_calls as f64)
    }

    /// A sign that the machine was not this run's alone.
    pub(super) fn doubt(&self) -> Option<String> {
        let share = self.others_share();
        (share > OTHERS).then(|| format!("others used {:.0} % of a core", share * 100.0))
    }

    /// Script calls that Redis finds in one read: the more, the less it spends on its sockets.
    #[must_use]
    pub fn calls_per_read(&self) -> f64 {
        ratio(self.script_calls as f64, self.reads as f64)
    }

    fn share(&self, nanos: u64) -> f64 {
        ratio(nanos as f64, self.length_ns as f64)
    }

    fn us_per_publication(&self, nanos: u64) -> f64 {
        ratio(nanos as f64 / 1e3, self.publications as f64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::units::SECOND_NS;

    /// A window of one second in which Redis and two nodes spent these microseconds per publication.
    pub(in super::super) fn window(publications: u64, redis_us: u64, node_us: u64) -> Window {
        Window {
            publications,
            length_ns: SECOND_NS,
            redis_ns: publications * redis_us * 1000,
            nodes_ns: vec![publications * node_us * 1000, 0],
            generator_ns: SECOND_NS / 4,
            others_ns: SECOND_NS / 50,
            nodes_cores: (publications * node_us * 1000) as f64 / SECOND_NS as f64 + 0.25,
            generator_core: 0.25,
            script_calls: publications / 2,
            messages: publications,
            failed: 0,
            reads: publications / 20,
        }
    }

    #[test]
    fn a_window_is_told_per_second_and_per_publication() {
        let window = window(100_000, 5, 8);
        let found = [
            window.rate(),
            window.redis_share(),
            window.redis_us(),
            window.nodes_share(),
            window.nodes_us(),
            window.node_share(1),
            window.generator_share(),
            window.others_share(),
            window.per_call(),
            window.calls_per_read(),
        ];
        let expected = [100_000.0, 0.5, 5.0, 0.8, 8.0, 0.0, 0.25, 0.02, 2.0, 10.0];
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
    }

    #[test]
    fn what_nobody_here_used_was_used_by_others() {
        let edge = |redis_ns, node_ns, processes_ns| Edge {
            at: Instant::now(),
            redis_ns,
            nodes_ns: vec![node_ns],
            generator_ns: 7,
            machine: CoreTime { processes_ns, ..CoreTime::default() },
            nodes_cores: CoreTime::default(),
            generator_core: CoreTime::default(),
            calls: Calls::default(),
        };
        let between = |opening, closing| Window::between(&opening, &closing, 0).others_ns;
        assert_eq!(between(edge(10, 20, 100), edge(15, 40, 190)), 65);
        assert_eq!(between(edge(10, 20, 100), edge(15, 40, 110)), 0);
    }

    #[test]
    fn an_empty_window_divides_by_nothing() {
        let window = Window::default();
        assert!(window.rate().abs() < f64::EPSILON && window.redis_us().abs() < f64::EPSILON);
    }
}
