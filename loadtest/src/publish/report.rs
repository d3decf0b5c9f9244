//! A run through Redis as text for people. Machines read `--json` instead.

use super::comparison::{Comparison, GATE, Pair};
use super::meter::Window;
use super::receiving::{Receiving, Reception};
use super::{PublishArgs, PublishReport};
use crate::section::aligned;
use crate::spread::Spread;
use crate::units::{count, figure, ms, thousands};

/// The report as lines.
#[must_use]
pub fn text(report: &PublishReport) -> String {
    let cores = &report.cores;
    let head = format!(
        "{}\ncores: Redis {}, nodes {:?}, generator {}; medians of {} repetitions [smallest-largest]\n\n",
        load(&report.args),
        cores.redis,
        cores.nodes,
        cores.generator,
        report.args.reps
    );
    let comparison = report.comparison.as_ref().map(of_comparison).unwrap_or_default();
    let receiving = report.receiving.as_ref().map(of_receiving).unwrap_or_default();
    let limited = report.receiving.as_ref().and(report.args.max_rate).map(rate_limit);
    head + &comparison + &receiving + &limited.unwrap_or_default()
}

/// What a rate limit makes of the latencies.
fn rate_limit(rate: f64) -> String {
    format!(
        "subscribers wait for their turn {rate} times per second: that is most of the latency\n"
    )
}

/// What was published, in words.
fn load(args: &PublishArgs) -> String {
    let what = match (args.batch, args.hot) {
        (1, false) => format!("single publications to {} topics", thousands(args.topics.into())),
        (1, true) => "single publications to one topic".to_owned(),
        (batch, false) => {
            format!("batches of {batch} to {} topics in turn", thousands(args.topics.into()))
        }
        (batch, true) => format!("batches of {batch} to one topic"),
    };
    let history = match args.history {
        0 => "no history".to_owned(),
        kept => format!("history of {}", thousands(kept.into())),
    };
    let nodes = if args.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", args.nodes) };
    let load = format!(
        "{what}, {} B, {history}, {nodes}; {} connections with {} requests under way",
        args.size, args.connections, args.pipeline
    );
    if args.subscribers > 0 {
        return format!("{load}; {} subscribers", thousands(count(args.subscribers)));
    }
    format!(
        "{load}; redis-benchmark -c {} -P {}",
        args.benchmark_connections, args.benchmark_pipeline
    )
}

const HEADS: [&str; 9] = [
    "",
    "publications/s",
    "Redis CPU",
    "us each",
    "nodes CPU",
    "us each",
    "generator CPU",
    "per script call",
    "calls per read",
];

fn of_comparison(comparison: &Comparison) -> String {
    let line = |name: &str, of: fn(&Pair) -> &Window| {
        let spread = |value: fn(&Window) -> f64| comparison.spread(|pair| value(of(pair)));
        vec![
            name.to_owned(),
            spread(Window::rate).shown(figure),
            spread(Window::redis_share).shown(percent),
            spread(Window::redis_us).shown(figure),
            spread(Window::nodes_share).shown(percent),
            spread(Window::nodes_us).shown(figure),
            spread(Window::generator_share).shown(percent),
            spread(Window::per_call).shown(figure),
            spread(Window::calls_per_read).shown(figure),
        ]
    };
    let rows =
        [line("gateway", |pair| &pair.gateway), line("redis-benchmark", |pair| &pair.benchmark)];
    let doubts = comparison.doubts.iter().map(|doubt| format!("WARNING      {doubt}\n"));
    format!(
        "{}\nrate ratio   {}x  {}   publications per second on this machine, gateway over redis-benchmark\n\
         Redis ratio  {}x  {}   CPU time of Redis per publication, redis-benchmark over gateway: how far one Redis core\n\
         {:33}goes once there are nodes enough to fill it\n\
         gate {GATE:.2}x; the gateway's publications were limited by: {}\n{}",
        aligned(&HEADS, rows.into_iter()),
        comparison.rate_ratio().shown(times),
        comparison.rate_verdict(),
        comparison.redis_ratio().shown(times),
        comparison.redis_verdict(),
        "",
        comparison.limit,
        doubts.collect::<String>(),
    )
}

fn of_receiving(receiving: &Receiving) -> String {
    let spread = |value: fn(&Reception) -> f64| receiving.spread(value);
    let latency = |value: fn(&Reception) -> f64| spread(value).shown(figure);
    let doubts = receiving.receptions.iter().zip(1..).flat_map(|(reception, number)| {
        let line = move |doubt| format!("WARNING     repetition {number}, latencies: {doubt}\n");
        reception.doubts.iter().map(line)
    });
    format!(
        "without subscribers   {} publications/s; node {} used {} of a core\n\
         the most with them    {} publications/s; node {} used {} of a core, Redis {}, the generator {}\n\
         at {} per second:\n\
         received              {} publications/s by node {}\n\
         node                  {} us of CPU per publication received\n\
         of that, receiving    {} us, by its thread for Redis\n\
         latency               p50 {}, p99 {} ms from node to node, counted from the plan\n{}",
        figure(receiving.without.rate()),
        receiving.node + 1,
        percent(receiving.without.node_share(receiving.node)),
        figure(receiving.most.rate()),
        receiving.node + 1,
        percent(receiving.most.node_share(receiving.node)),
        percent(receiving.most.redis_share()),
        percent(receiving.most.generator_share()),
        figure(receiving.rate),
        spread(Reception::rate).shown(figure),
        receiving.node + 1,
        spread(Reception::node_us).shown(figure),
        broker(receiving),
        latency(|one| ms(one.latency.p50_ns)),
        latency(|one| ms(one.latency.p99_ns)),
        doubts.collect::<String>(),
    )
}

/// CPU time of receiving proper per publication, if the node has a thread for it.
pub(crate) fn broker(receiving: &Receiving) -> String {
    if receiving.receptions.iter().all(|reception| reception.broker_ns.is_some()) {
        receiving.spread(Reception::broker_us).shown(figure)
    } else {
        "not told".to_owned()
    }
}

/// A share as percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// A spread of ratios: `0.71 [0.69-0.87]x`.
pub(crate) fn shown_ratio(spread: Spread) -> String {
    spread.shown(times) + "x"
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::comparison::tests::comparison;
    use super::super::meter::tests::window;
    use super::*;
    use crate::latency::LatencySummary;
    use crate::publish::Cores;

    fn report() -> PublishReport {
        PublishReport {
            args: PublishArgs::new("tickcast".into()),
            cores: Cores { redis: 0, nodes: vec![1], generator: 1 },
            comparison: None,
            receiving: None,
        }
    }

    /// A report with a comparison in which the nodes were the limit.
    pub(crate) fn compared_report() -> PublishReport {
        let comparison = Some(comparison((80_000, 6, 9), (200_000, 5)));
        PublishReport { comparison, ..report() }
    }

    /// A report about receiving, with a doubt.
    pub(crate) fn receiving_report() -> PublishReport {
        let reception = Reception {
            received: 50_000.0,
            length_ns: 1_000_000_000,
            node_ns: 400_000_000,
            broker_ns: Some(60_000_000),
            redis_ns: 0,
            latency: LatencySummary { p99_ns: 3_000_000, ..LatencySummary::default() },
            faults: vec![],
            doubts: vec!["late".to_owned()],
        };
        let receiving = Receiving {
            node: 1,
            without: window(90_000, 5, 8),
            most: window(80_000, 5, 8),
            rate: 50_000.0,
            receptions: vec![reception],
        };
        let args = PublishArgs { subscribers: 1000, hot: true, batch: 20, ..report().args };
        PublishReport { args, receiving: Some(receiving), ..report() }
    }

    #[test]
    fn a_comparison_says_which_ratio_is_which() {
        let text = text(&compared_report());
        for part in [
            "single publications to 1,000 topics, 128 B, no history, 1 node",
            "redis-benchmark -c 4 -P 64",
            "gateway          80,000 [80,000-80,000]",
            "rate ratio   0.40 [0.40-0.40]x  not reached here",
            "Redis ratio  0.83 [0.83-0.83]x  met",
            "limited by: nodes and generator",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("WARNING"), "{text}");
    }

    #[test]
    fn receiving_is_told_per_publication() {
        let text = text(&receiving_report());
        for part in [
            "batches of 20 to one topic",
            "1,000 subscribers",
            "node 2 used 0 %",
            "50,000 [50,000-50,000] publications/s by node 2",
            "8.0 [8.0-8.0] us of CPU per publication received",
            "1.2 [1.2-1.2] us, by its thread",
            "p99 3.0 [3.0-3.0] ms",
            "WARNING     repetition 1, latencies: late",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
