//! The Redis rows of the budgets: each kind of publishing beside `redis-benchmark`, then the cost of receiving.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::LoadError;
use crate::proc::{Machine, cores};
use crate::progress::Progress;
use crate::publish::{
    Comparison, Cores, GATE, Pair, PublishArgs, PublishReport, Receiving, Reception, Window,
    broker, measure, percent, shown_ratio,
};
use crate::section::{self, aligned, markdown};
use crate::units::{figure, ms};

/// The name of the section in the file.
pub(super) const NAME: &str = "redis";
/// The run is given up beyond this: twice what it should take.
const LIMIT: Duration = Duration::from_secs(16 * 60);
/// Publications of history in the rows that keep one: filled in a second, and in steady state from then on.
const HISTORY: u32 = 100;
/// The batches of the budgets.
const BATCH: u32 = 20;
/// Topics, and subscribers in the rows about receiving: one each.
const TOPICS: u32 = 1000;

/// One row.
#[derive(Debug, Clone)]
struct Row {
    name: &'static str,
    args: PublishArgs,
}

/// All rows.
fn rows(server: &Path, reps: usize, quick: bool) -> Vec<Row> {
    let (warmup, duration) = if quick { (0.2, 0.5) } else { (0.5, 2.5) };
    let single = PublishArgs {
        topics: TOPICS,
        reps,
        warmup,
        duration,
        ..PublishArgs::new(server.to_owned())
    };
    let batch = PublishArgs { batch: BATCH, ..single.clone() };
    let hot = PublishArgs { hot: true, ..batch.clone() };
    let kept = |args: &PublishArgs| PublishArgs { history: HISTORY, ..args.clone() };
    let subscribed = PublishArgs { nodes: 2, subscribers: 1000, ..single.clone() };
    let in_mode = |mode: &str| PublishArgs { mode: Some(mode.to_owned()), ..subscribed.clone() };
    let limited = PublishArgs { max_rate: Some(1.0), ..in_mode("latest") };
    [
        ("single", single.clone()),
        ("single, history", kept(&single)),
        ("20 topics", batch.clone()),
        ("20 topics, history", kept(&batch)),
        ("20 of one topic", hot.clone()),
        ("20 of one topic, history", kept(&hot)),
        ("single, 3 nodes", PublishArgs { nodes: 3, ..single }),
        ("all", in_mode("all")),
        ("latest", in_mode("latest")),
        ("latest, 1 Hz", limited.clone()),
        ("latest, 1 Hz, batches of 20", PublishArgs { batch: BATCH, ..limited }),
    ]
    .map(|(name, args)| Row { name, args })
    .into()
}

/// A row that was measured.
#[derive(Debug, Clone)]
struct Outcome {
    name: &'static str,
    report: PublishReport,
}

/// The rows and the section that were found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) text: String,
    pub(super) section: String,
    pub(super) failures: Vec<String>,
}

/// Measures all rows.
pub(super) fn run(
    server: &Path,
    (reps, quick): (usize, bool),
    command: &str,
    progress: &mut Progress,
) -> Result<Found, LoadError> {
    let (machine, cores) = (Machine::describe(), Cores::deal(&cores()?)?);
    let started = Instant::now();
    let mut outcomes = Vec::new();
    for Row { name, args } in rows(server, reps, quick) {
        if started.elapsed() > LIMIT {
            return Err(LoadError::Timeout {
                waited_for: format!("the end of the bench (it is at {name})"),
                limit: LIMIT,
                fix: "lower --reps, or free the machine of other work",
            });
        }
        progress.label(format!("redis, {name}: "));
        outcomes.push(Outcome { name, report: measure(&args, cores.clone(), progress)? });
    }
    let head = head(&machine, &cores, command, quick);
    Ok(Found {
        text: terminal(&outcomes),
        section: head + &tables(&outcomes),
        failures: outcomes.iter().flat_map(Outcome::failures).collect(),
    })
}

impl Outcome {
    fn failures(&self) -> Vec<String> {
        let comparison = self.report.comparison.iter().flat_map(Comparison::failures);
        let receiving = self.report.receiving.iter().flat_map(Receiving::failures);
        comparison.chain(receiving).map(|failure| format!("{}: {failure}", self.name)).collect()
    }
}

const COMPARED: [&str; 10] = [
    "publishing",
    "gateway, per second",
    "redis-benchmark, per second",
    "rate ratio",
    "limited by",
    "Redis us, gateway",
    "Redis us, redis-benchmark",
    "Redis ratio",
    "node us",
    "calls per read of Redis, gateway",
];

fn compared(name: &str, found: &Comparison) -> Vec<String> {
    let gateway = |value: fn(&Window) -> f64| found.spread(|pair| value(&pair.gateway));
    let benchmark = |value: fn(&Window) -> f64| found.spread(|pair| value(&pair.benchmark));
    vec![
        name.to_owned(),
        gateway(Window::rate).shown(figure),
        benchmark(Window::rate).shown(figure),
        format!("{}, {}", shown_ratio(found.rate_ratio()), found.rate_verdict()),
        found.limit.to_owned(),
        gateway(Window::redis_us).shown(figure),
        benchmark(Window::redis_us).shown(figure),
        format!("{}, {}", shown_ratio(found.redis_ratio()), found.redis_verdict()),
        gateway(Window::nodes_us).shown(figure),
        gateway(Window::calls_per_read).shown(figure),
    ]
}

const RECEIVED: [&str; 8] = [
    "subscribers",
    "node B without any",
    "most, per second",
    "measured at",
    "node B us per publication",
    "of that, receiving",
    "p50 ms",
    "p99 ms",
];

fn received(outcome: &Outcome, found: &Receiving) -> Vec<String> {
    // With a rate limit a subscriber waits for its turn, which says nothing about the way from node to node.
    let is_limited = outcome.report.args.max_rate.is_some();
    let latency = |value: fn(&Reception) -> f64| {
        if is_limited { "-".to_owned() } else { found.spread(value).shown(figure) }
    };
    vec![
        outcome.name.to_owned(),
        percent(found.without.node_share(found.node)) + " of a core",
        figure(found.most.rate()),
        figure(found.rate),
        found.spread(Reception::node_us).shown(figure),
        broker(found),
        latency(|one| ms(one.latency.p50_ns)),
        latency(|one| ms(one.latency.p99_ns)),
    ]
}

const REPETITIONS: [&str; 11] = [
    "publishing",
    "repetition",
    "who",
    "per second",
    "Redis CPU",
    "Redis us",
    "nodes CPU",
    "node us",
    "generator CPU",
    "per script call",
    "calls per read",
];

fn repetitions(name: &str, found: &Comparison) -> Vec<Vec<String>> {
    let line = |number: usize, who: &str, window: &Window| {
        vec![
            name.to_owned(),
            number.to_string(),
            who.to_owned(),
            figure(window.rate()),
            percent(window.redis_share()),
            format!("{:.2}", window.redis_us()),
            percent(window.nodes_share()),
            format!("{:.2}", window.nodes_us()),
            percent(window.generator_share()),
            figure(window.per_call()),
            figure(window.calls_per_read()),
        ]
    };
    let both = |(pair, number): (&Pair, usize)| {
        [line(number, "gateway", &pair.gateway), line(number, "redis-benchmark", &pair.benchmark)]
    };
    found.pairs.iter().zip(1..).flat_map(both).collect()
}

fn comparisons(outcomes: &[Outcome]) -> impl Iterator<Item = (&str, &Comparison)> {
    outcomes.iter().filter_map(|outcome| Some((outcome.name, outcome.report.comparison.as_ref()?)))
}

fn receptions(outcomes: &[Outcome]) -> impl Iterator<Item = (&Outcome, &Receiving)> {
    outcomes.iter().filter_map(|outcome| Some((outcome, outcome.report.receiving.as_ref()?)))
}

fn terminal(outcomes: &[Outcome]) -> String {
    let compared = comparisons(outcomes).map(|(name, found)| compared(name, found));
    let received = receptions(outcomes).map(|(outcome, found)| received(outcome, found));
    aligned(&COMPARED, compared) + "\n" + &aligned(&RECEIVED, received)
}

/// Everything in the section that is the same whatever was found.
fn head(machine: &Machine, cores: &Cores, command: &str, quick: bool) -> String {
    let quick =
        if quick { "**Quick run: short windows, a smoke test and no evidence.**\n\n" } else { "" };
    let Cores { redis, nodes, generator } = cores;
    let nodes = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "## Through Redis\n\n\
         {quick}Measured {} with `{command}` on {}, {} cores, kernel {}.\n\
         Redis on core {redis}, the nodes on core {nodes}, the generator on core {generator}; {TOPICS} topics, 128 B; history, where kept, of {HISTORY} publications per topic and full.\n\
         The yardstick is `redis-benchmark`, which repeats the script call that a node was seen to make for such a request (`MONITOR`), on the same Redis, with a random topic each time.\n\
         Medians [smallest-largest]; a ratio is of one repetition, in which the gateway and `redis-benchmark` take turns.\n\n\
         - The **rate ratio** is that of publications per second on this machine, gateway over `redis-benchmark`. Where something else than Redis was the limit, it is a figure about the machine.\n\
         - The **Redis ratio** is that of the CPU time which Redis spends on a publication, `redis-benchmark` over gateway: how far one Redis core goes once there are nodes enough to fill it.\n\
         - *Calls per read* are the script calls that Redis finds in one read from a socket: the more, the less it spends on sockets.\n\n\
         Both gates are {GATE:.2}x.\n\n",
        section::now(),
        machine.cpu,
        machine.cores,
        machine.kernel,
    )
}

fn tables(outcomes: &[Outcome]) -> String {
    let summary = comparisons(outcomes).map(|(name, found)| compared(name, found));
    let doubts: String = comparisons(outcomes)
        .flat_map(|(name, found)| found.doubts.iter().map(move |doubt| (name, doubt)))
        .map(|(name, doubt)| format!("\n*{name}*: {doubt}.\n"))
        .collect();
    let receiving = receptions(outcomes).map(|(outcome, found)| received(outcome, found));
    let late: String = receptions(outcomes)
        .flat_map(|(outcome, found)| {
            found.receptions.iter().zip(1..).map(move |one| (outcome, one))
        })
        .filter(|(_, (reception, _))| !reception.doubts.is_empty())
        .map(|(outcome, (reception, number))| {
            format!("\n*{}*, repetition {number}: {}.\n", outcome.name, reception.doubts.join("; "))
        })
        .collect();
    let raw = comparisons(outcomes).flat_map(|(name, found)| repetitions(name, found));
    format!(
        "{}{doubts}\n\
         Receiving: publications go to node A, 1,000 subscribers with a topic each are at node B.\n\
         Without subscribers nothing should arrive at B while A publishes as fast as it can.\n\
         CPU time and latency (from node to node, counted from the planned send) are taken at half of the most there is.\n\
         *Receiving* is the part of the thread that talks to Redis; the rest is fan-out and one `send` per subscriber. With a rate of 1 Hz almost nothing is sent.\n\n\
         {}{late}\nAll repetitions:\n\n{}",
        markdown(&COMPARED, summary),
        markdown(&RECEIVED, receiving),
        markdown(&REPETITIONS, raw),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::tests::{compared_report, receiving_report};

    #[test]
    fn every_row_is_named_once_and_asks_one_question() {
        for quick in [false, true] {
            let rows = rows(Path::new("tickcast"), 5, quick);
            let mut names: Vec<_> = rows.iter().map(|row| row.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rows.len());
            assert!(rows.iter().any(|row| row.args.subscribers > 0 && row.args.nodes > 1));
        }
    }

    #[test]
    fn the_section_holds_both_ratios_with_their_meaning() {
        let outcomes = [
            Outcome { name: "single", report: compared_report() },
            Outcome { name: "latest", report: receiving_report() },
        ];
        let machine = Machine { cpu: "A CPU".to_owned(), cores: 2, kernel: "6.1".to_owned() };
        let cores = outcomes[0].report.cores.clone();
        let text =
            head(&machine, &cores, "tickcast-load bench --redis", false) + &tables(&outcomes);
        for part in [
            "A CPU, 2 cores, kernel 6.1",
            "Redis on core 0, the nodes on core 1, the generator on core 1",
            "| single | 80,000 [80,000-80,000] | 200,000 [200,000-200,000] | 0.40 [0.40-0.40]x, not reached here |",
            "| single | 1 | redis-benchmark | 200,000 | 100 % | 5.00 |",
            "| latest | 0 % of a core | 80,000 | 50,000 | 8.0 [8.0-8.0] | 1.2 [1.2-1.2] |",
            "*latest*, repetition 1: late.",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("Quick run"));
        assert!(terminal(&outcomes).contains("0.83 [0.83-0.83]x, met"));
        assert!(outcomes[0].failures().is_empty());
    }
}
