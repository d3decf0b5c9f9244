//! The nodes and `redis-benchmark` in turn on one Redis, with the same script calls: how much of it do clients get?
//!
//! Two ratios, since they answer two questions. The *rate ratio* is that of publications per second on this machine,
//! where nodes and generator may run out of cores before Redis does. The *Redis ratio* is that of the CPU time which
//! Redis spends on a publication: how far one Redis core goes once there are nodes enough to fill it.

use serde::Serialize;

use super::Stage;
use super::benchmark::{self, BenchmarkPlan};
use super::call::Call;
use super::cluster::Cores;
use super::meter::Window;
use crate::error::LoadError;
use crate::plan::bounded_nanos;
use crate::spread::Spread;
use crate::units::{ratio, thousands};

/// Least ratio that the budget asks for.
pub const GATE: f64 = 0.5;
/// Share of a core from which on it counts as full.
const FULL: f64 = 0.9;
/// Messages per publication may differ so much between the nodes and `redis-benchmark`, by probes and chance.
const MESSAGES_TOLERANCE: f64 = 0.05;

/// One repetition.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Through the nodes.
    pub gateway: Window,
    /// By `redis-benchmark`.
    pub benchmark: Window,
}

impl Pair {
    /// Publications per second, gateway over benchmark.
    #[must_use]
    pub fn rate_ratio(&self) -> f64 {
        ratio(self.gateway.rate(), self.benchmark.rate())
    }

    /// CPU time of Redis per publication, benchmark over gateway.
    #[must_use]
    pub fn redis_ratio(&self) -> f64 {
        ratio(self.benchmark.redis_us(), self.gateway.redis_us())
    }
}

/// What the comparison found.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The repetitions, of which there is at least one.
    pub pairs: Vec<Pair>,
    /// What kept the nodes' publications from being more.
    pub limit: &'static str,
    /// Publications that the nodes refused.
    pub refused: u64,
    /// The first refusal.
    pub first_refusal: Option<String>,
    /// Why the two may not have done the same.
    pub doubts: Vec<String>,
}

impl Comparison {
    pub(super) fn measure(stage: &mut Stage<'_>) -> Result<Self, LoadError> {
        let call = Call::record(&stage.cluster, &stage.requests)?;
        let urls = stage.cluster.urls();
        let (mut pairs, mut refused, mut first_refusal) = (Vec::new(), 0, None);
        for number in 1..=stage.args.reps {
            let fill = if number == 1 { stage.args.fill() } else { 0 };
            stage.announce(&format!("{number}/{}, gateway", stage.args.reps));
            let (gateway, answered) = stage.flood(&urls, None, fill)?;
            refused += answered.refused;
            first_refusal = first_refusal.or(answered.first_refusal);
            stage.announce(&format!("{number}/{}, redis-benchmark", stage.args.reps));
            let plan = BenchmarkPlan {
                program: &stage.args.redis_benchmark,
                connections: stage.args.benchmark_connections,
                pipeline: stage.args.benchmark_pipeline,
                topics: stage.args.topics_used().into(),
                warmup_ns: bounded_nanos(stage.args.warmup),
                warmup_publications: fill,
                duration_ns: bounded_nanos(stage.args.duration),
            };
            let Stage { cluster, meter, reactor, requests, .. } = stage;
            let call = (&call, requests.prefix());
            let benchmark = benchmark::run(plan, call, cluster, meter, reactor)?;
            pairs.push(Pair { gateway, benchmark });
        }
        let mut doubts = doubts(&pairs);
        doubts.extend(other_keys(stage.meter.keys()?));
        let limit = limit(&pairs, &stage.cluster.cores);
        Ok(Self { pairs, limit, refused, first_refusal, doubts })
    }

    /// The spread of a value over the repetitions.
    pub fn spread(&self, value: impl Fn(&Pair) -> f64) -> Spread {
        Spread::of(self.pairs.iter().map(value).collect())
    }

    /// Of publications per second on this machine.
    #[must_use]
    pub fn rate_ratio(&self) -> Spread {
        self.spread(Pair::rate_ratio)
    }

    /// Of the CPU time of Redis per publication.
    #[must_use]
    pub fn redis_ratio(&self) -> Spread {
        self.spread(Pair::redis_ratio)
    }

    /// What the gate says to the rate ratio. Where Redis was not the limit, it would say something about the machine.
    #[must_use]
    pub fn rate_verdict(&self) -> &'static str {
        match (self.rate_ratio().median >= GATE, self.limit) {
            (true, _) => "met",
            (false, REDIS) => "MISSED",
            (false, _) => "not reached here",
        }
    }

    /// What the gate says to the Redis ratio.
    #[must_use]
    pub fn redis_verdict(&self) -> &'static str {
        if self.redis_ratio().median >= GATE { "met" } else { "MISSED" }
    }

    /// Missed gates and refused publications, each with the value.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let verdicts = [
            ("publications per second", self.rate_verdict(), self.rate_ratio()),
            ("publications per Redis core", self.redis_verdict(), self.redis_ratio()),
        ];
        for (what, verdict, ratio) in verdicts {
            if verdict == "MISSED" {
                let median = ratio.median;
                failures.push(format!("{what}: {median:.2}x, the gate is {GATE:.2}x"));
            }
        }
        if self.refused > 0 {
            let first = self.first_refusal.as_deref().unwrap_or_default();
            failures.push(format!("{} publications refused: {first}", thousands(self.refused)));
        }
        failures
    }
}

const REDIS: &str = "Redis";

/// Whose core was full while the nodes published.
fn limit(pairs: &[Pair], cores: &Cores) -> &'static str {
    let is_full = |share: fn(&Window) -> f64| {
        Spread::of(pairs.iter().map(|pair| share(&pair.gateway)).collect()).median >= FULL
    };
    if is_full(Window::redis_share) {
        REDIS
    } else if is_full(|window| window.nodes_cores) {
        let is_shared = cores.nodes.contains(&cores.generator);
        if is_shared { "nodes and generator, on one core" } else { "nodes" }
    } else if is_full(|window| window.generator_core) {
        "generator"
    } else {
        "nobody's core: too few requests under way"
    }
}

/// Signs that `redis-benchmark` did not do what the nodes did.
fn doubts(pairs: &[Pair]) -> Vec<String> {
    let mut doubts = Vec::new();
    let per_publication =
        |window: &Window| ratio(window.messages as f64, window.publications as f64);
    let median = |of: fn(&Pair) -> &Window| {
        Spread::of(pairs.iter().map(|pair| per_publication(of(pair))).collect()).median
    };
    let (gateway, benchmark) = (median(|pair| &pair.gateway), median(|pair| &pair.benchmark));
    if (gateway - benchmark).abs() > MESSAGES_TOLERANCE * gateway.max(benchmark) {
        doubts.push(format!(
            "{gateway:.3} messages per publication by the nodes, {benchmark:.3} by redis-benchmark"
        ));
    }
    let failed: u64 = pairs.iter().map(|pair| pair.gateway.failed + pair.benchmark.failed).sum();
    if failed > 0 {
        doubts.push(format!("{} script calls failed", thousands(failed)));
    }
    let windows = pairs.iter().flat_map(|pair| [&pair.gateway, &pair.benchmark]);
    let disturbed = windows.max_by(|a, b| a.others_share().total_cmp(&b.others_share()));
    doubts.extend(disturbed.and_then(|window| Some(format!("in one window, {}", window.doubt()?))));
    if median_share(pairs) < FULL {
        doubts.push("redis-benchmark did not fill the core of Redis".to_owned());
    }
    doubts
}

/// Says so if `redis-benchmark` did not have as many keys as the nodes, which also have one each for their probes.
fn other_keys([nodes, benchmark]: [u64; 2]) -> Option<String> {
    let tolerance = (nodes / 20).max(10);
    (nodes.abs_diff(benchmark) > tolerance).then(|| {
        let [nodes, benchmark] = [nodes, benchmark].map(thousands);
        format!("{nodes} keys of the nodes, {benchmark} of redis-benchmark")
    })
}

fn median_share(pairs: &[Pair]) -> f64 {
    Spread::of(pairs.iter().map(|pair| pair.benchmark.redis_share()).collect()).median
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::meter::tests::window;
    use super::*;

    /// One repetition: publications in a second, CPU of Redis and of the node per publication in microseconds.
    pub(in super::super) fn comparison(
        gateway: (u64, u64, u64),
        benchmark: (u64, u64),
    ) -> Comparison {
        let gateway = window(gateway.0, gateway.1, gateway.2);
        let benchmark = window(benchmark.0, benchmark.1, 0);
        let pairs = vec![Pair { gateway, benchmark }];
        let cores = Cores { redis: 0, nodes: vec![1], generator: 1 };
        Comparison {
            limit: limit(&pairs, &cores),
            doubts: doubts(&pairs),
            pairs,
            refused: 0,
            first_refusal: None,
        }
    }

    #[test]
    fn the_two_ratios_are_judged_apart() {
        let scarce = comparison((80_000, 6, 9), (200_000, 5));
        assert_eq!((scarce.rate_verdict(), scarce.redis_verdict()), ("not reached here", "met"));
        assert_eq!(scarce.limit, "nodes and generator, on one core");
        assert!((scarce.rate_ratio().median - 0.4).abs() < 1e-9);
        assert!((scarce.redis_ratio().median - 5.0 / 6.0).abs() < 1e-9);
        assert!(scarce.failures().is_empty() && scarce.doubts.is_empty(), "{scarce:?}");

        let slow = comparison((80_000, 12, 1), (200_000, 5));
        assert_eq!((slow.rate_verdict(), slow.limit), ("MISSED", REDIS));
        assert_eq!(slow.failures().len(), 2, "{:?}", slow.failures());
    }

    #[test]
    fn other_keys_are_a_doubt() {
        assert_eq!(other_keys([1001, 1000]), None);
        assert_eq!(other_keys([4, 1]), None);
        let doubt = other_keys([1001, 20_000]).expect("a doubt");
        assert_eq!(doubt, "1,001 keys of the nodes, 20,000 of redis-benchmark");
    }

    #[test]
    fn refusals_fail_and_differences_are_doubts() {
        let mut refused = comparison((180_000, 5, 1), (190_000, 5));
        assert_eq!(refused.rate_verdict(), "met");
        refused.refused = 3;
        assert!(refused.failures()[0].contains("3 publications refused"));
        refused.pairs[0].benchmark.messages = 1;
        refused.pairs[0].gateway.failed = 7;
        refused.pairs[0].benchmark.redis_ns /= 2;
        assert_eq!(doubts(&refused.pairs).len(), 3, "{:?}", doubts(&refused.pairs));
    }
}
