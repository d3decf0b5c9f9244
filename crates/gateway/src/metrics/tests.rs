use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use prometheus::proto::{MetricFamily, MetricType};
use tickcast_broker::LinkStats;
use tickcast_hub::Gaps;
use tickcast_protocol::Position;

use super::exposition::{family, text};
use super::reference::markdown;
use super::table::{Row, SECTIONS};
use super::*;

fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|(_title, rows)| *rows)
}

/// All families of a node on which nothing has happened, with this broker.
fn empty_families(broker: Broker) -> Vec<MetricFamily> {
    let events = Events::default();
    let snapshot = broker.empty(&events);
    rows().map(|row| family(row, &snapshot)).collect()
}

/// The kinds of brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broker {
    Memory,
    Redis,
}

impl Broker {
    const ALL: [Self; 2] = [Self::Memory, Self::Redis];

    fn empty(self, events: &Events) -> Snapshot<'_> {
        match self {
            Self::Memory => Snapshot::empty(events),
            Self::Redis => Snapshot::empty_with_redis(events),
        }
    }
}

/// The values by series, as they are written.
fn series(text: &str) -> BTreeMap<&str, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

#[test]
fn names_and_kinds_follow_the_rules() {
    let mut names = HashSet::new();
    for row in rows() {
        let name = row.name;
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("tickcast_"), "{name}");
        assert_eq!(row.kind == MetricType::COUNTER, name.ends_with("_total"), "{name}");
        assert!(row.help.ends_with('.') && row.help.len() > 15, "{name}: {}", row.help);
        assert!(!row.help.contains('|'), "{name} would break the table of the page");
    }
}

/// The rows of a section.
fn section(title: &str) -> Vec<&'static str> {
    let (_, rows) = SECTIONS.iter().find(|section| section.0 == title).unwrap();
    rows.iter().map(|row| row.name).collect()
}

#[test]
fn a_node_shows_the_broker_that_it_has() {
    for broker in Broker::ALL {
        let events = Events::default();
        let text = text(&broker.empty(&events)).unwrap();
        let shown = |name: &&str| {
            text.contains(&format!("\n{name} ")) || text.contains(&format!("\n{name}{{"))
        };
        let (memory, redis) = (section("Broker inside the node"), section("Redis"));
        assert_eq!(memory.iter().all(shown), broker == Broker::Memory, "{text}");
        assert_eq!(memory.iter().any(shown), broker == Broker::Memory, "{text}");
        assert_eq!(redis.iter().all(shown), broker == Broker::Redis, "{text}");
        assert_eq!(redis.iter().any(shown), broker == Broker::Redis, "{text}");
        let kind = if broker == Broker::Redis { "redis" } else { "memory" };
        let up: Vec<_> = text.lines().filter(|l| l.starts_with("tickcast_broker_up{")).collect();
        assert_eq!(up, [format!("tickcast_broker_up{{broker=\"{kind}\"}} 0")]);
    }
}

#[test]
fn the_numbers_of_the_link_are_shown() {
    let events = Events::default();
    let link = LinkStats {
        connects: 13,
        connects_failed: 14,
        reconnects: 1,
        echo_age: None,
        round_trip: Duration::from_micros(250),
        in_flight_bytes: 3,
        in_flight_max_bytes: 4,
        received: 5,
        undecodable: 6,
        compared: 7,
        denied: 8,
        wanted: 11,
        pending: 9,
        output_buffer_bytes: 10,
    };
    let mut snapshot = Snapshot::empty_with_redis(&events);
    (snapshot.hub.delivered, snapshot.uptime) = (4, Duration::from_secs(12));
    let show = |link: LinkStats, snapshot: &mut Snapshot<'_>| {
        snapshot.broker.link = Some(link);
        text(snapshot).unwrap()
    };
    let shown = show(link, &mut snapshot);
    let series_shown = series(&shown);
    let names = [
        "reconnects_total",
        "round_trip_seconds",
        "in_flight_bytes",
        "in_flight_max_bytes",
        "publications_received_total",
        "messages_undecodable_total",
        "positions_compared_total",
        "subscriptions_denied",
        "subscriptions_pending",
        "output_buffer_bytes",
        "probe_age_seconds",
    ];
    let values = names.map(|name| series_shown[&*format!("tickcast_broker_{name}")]);
    let connects = ["success", "failure"].map(|result| {
        series_shown[&*format!("tickcast_broker_connects_total{{result=\"{result}\"}}")]
    });
    assert_eq!(connects, [13.0, 14.0]);
    assert_eq!(values, [1.0, 0.00025, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0]);
    let echoed = LinkStats { echo_age: Some(Duration::from_millis(1500)), ..link };
    let shown = show(echoed, &mut snapshot);
    assert_eq!(series(&shown)["tickcast_broker_probe_age_seconds"], 1.5);
}

#[test]
fn every_series_is_there_from_the_start_and_once() {
    let [memory, redis] = Broker::ALL.map(empty_families);
    for (one, other) in memory.iter().zip(&redis) {
        let is_there = !one.get_metric().is_empty() || !other.get_metric().is_empty();
        assert!(is_there, "{} has no series on any node", one.name());
    }
    for family in memory.into_iter().chain(redis) {
        let row = rows().find(|row| row.name == family.name()).unwrap();
        let mut seen = HashSet::new();
        for metric in family.get_metric() {
            let pairs = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
            let (names, values): (Vec<_>, Vec<_>) = pairs.unzip();
            assert_eq!(names, row.labels, "{}", row.name);
            assert!(seen.insert(values), "{} has a series twice", row.name);
            let value = match row.kind {
                MetricType::COUNTER => metric.get_counter().get_value(),
                MetricType::GAUGE => metric.get_gauge().get_value(),
                _ => metric.get_histogram().get_sample_sum(),
            };
            let is_expected = match row.name {
                "tickcast_build_info" | "tickcast_config_last_reload_successful" => value == 1.0,
                // The start has read a configuration.
                "tickcast_config_last_reload_success_timestamp_seconds" => value > 1.7e9,
                _ => value == 0.0,
            };
            assert!(is_expected, "{} is {value}", row.name);
        }
    }
}

#[test]
fn the_numbers_of_all_workers_are_added_up() {
    let fanout = Counters {
        deliveries: 100,
        conflated: 7,
        gaps_slow: Gaps { notices: 2, publications: 30 },
        ..Counters::default()
    };
    let mut counters = WorkerCounters {
        connections: 4,
        fanout,
        latency_sum_ms: 1500,
        ..WorkerCounters::default()
    };
    counters.closed[CloseReason::Drain as usize] = 5;
    // One at up to 1 ms, two at up to 2 ms, three above all bounds.
    counters.latency[0] = 1;
    counters.latency[1] = 2;
    counters.latency[LATENCY_BUCKETS_MS.len()] = 3;
    let events = Events::default();
    let snapshot = Snapshot { workers: vec![counters; 2], ..Snapshot::empty(&events) };

    let text = text(&snapshot).unwrap();
    let series = series(&text);
    let latency = |suffix: &str| series[&*format!("tickcast_delivery_latency_seconds{suffix}")];
    assert_eq!(series["tickcast_workers"], 2.0);
    assert_eq!(series["tickcast_connections{transport=\"websocket\"}"], 8.0);
    assert_eq!(
        series["tickcast_connections_closed_total{transport=\"websocket\",reason=\"drain\"}"],
        10.0
    );
    assert_eq!(series["tickcast_deliveries_total{transport=\"websocket\"}"], 200.0);
    let dropped = |reason| {
        series[&*format!(
            "tickcast_deliveries_dropped_total{{transport=\"websocket\",reason=\"{reason}\"}}"
        )]
    };
    assert_eq!(
        ["conflated", "slow_consumer", "expired", "lost"].map(dropped),
        [14.0, 60.0, 0.0, 0.0]
    );
    assert_eq!(series["tickcast_gap_notices_total{reason=\"slow_consumer\"}"], 4.0);
    assert_eq!(latency("_bucket{le=\"0.001\"}"), 2.0);
    assert_eq!(latency("_bucket{le=\"0.002\"}"), 6.0);
    assert_eq!(latency("_bucket{le=\"10\"}"), 6.0);
    assert_eq!(latency("_bucket{le=\"+Inf\"}"), 12.0);
    assert_eq!((latency("_count"), latency("_sum")), (12.0, 3.0));
}

#[test]
fn requests_publishes_and_refusals_are_counted() {
    let metrics = Metrics::new(Vec::new(), Vec::new());
    let millis = Duration::from_millis;
    metrics.observe_request(Route::Publish, &Method::POST, StatusCode::OK, millis(3));
    metrics.observe_request(
        Route::Publish,
        &Method::POST,
        StatusCode::SERVICE_UNAVAILABLE,
        millis(1000),
    );
    metrics.observe_request(
        Route::WebSocket,
        &Method::GET,
        StatusCode::SWITCHING_PROTOCOLS,
        millis(0),
    );
    metrics.observe_request(
        Route::Other,
        &Method::from_bytes(b"BREW").unwrap(),
        StatusCode::NOT_FOUND,
        millis(1),
    );
    let position = Position { epoch: "a".parse().unwrap(), offset: 1 };
    metrics.count_publishes(&[
        Ok(Published { position, duplicate: false }),
        Ok(Published { position, duplicate: true }),
        Err(PublishError::Full("topics")),
        Ok(Published { position, duplicate: false }),
    ]);
    metrics.count_rejected(RejectReason::Limit);
    metrics.observe_payload(64);
    metrics.observe_payload(65);

    let text = text(&Snapshot::empty(&metrics.events)).unwrap();
    let series = series(&text);
    let requests = |labels: &str| series[&*format!("tickcast_http_requests_total{{{labels}}}")];
    assert_eq!(requests(r#"route="publish",method="POST",code="2xx""#), 1.0);
    assert_eq!(requests(r#"route="publish",method="POST",code="5xx""#), 1.0);
    assert_eq!(requests(r#"route="ws",method="GET",code="1xx""#), 1.0);
    assert_eq!(requests(r#"route="other",method="other",code="4xx""#), 1.0);
    let durations =
        |labels: &str| series[&*format!("tickcast_http_request_duration_seconds{labels}")];
    assert_eq!(durations(r#"_bucket{route="publish",le="0.0025"}"#), 0.0);
    assert_eq!(durations(r#"_bucket{route="publish",le="0.005"}"#), 1.0);
    assert_eq!(durations(r#"_bucket{route="publish",le="1"}"#), 2.0);
    assert_eq!(durations(r#"_sum{route="publish"}"#), 1.003);
    let sizes = |labels: &str| series[&*format!("tickcast_publication_size_bytes{labels}")];
    assert_eq!((sizes(r#"_bucket{le="64"}"#), sizes(r#"_bucket{le="256"}"#)), (1.0, 2.0));
    assert_eq!(sizes("_sum"), 129.0);
    let results =
        |result: &str| series[&*format!("tickcast_publications_total{{result=\"{result}\"}}")];
    assert_eq!(
        ["accepted", "duplicate", "broker_full", "outcome_unknown"].map(results),
        [2.0, 1.0, 1.0, 0.0]
    );
    assert_eq!(series["tickcast_connections_rejected_total{reason=\"limit\"}"], 1.0);
}

#[test]
fn handshakes_ages_round_trips_and_broker_calls_are_counted() {
    let metrics = Metrics::new(Vec::new(), Vec::new());
    metrics.observe_handshake(Duration::from_micros(500));
    metrics.observe_handshake(Duration::from_micros(501));
    metrics.observe_admission_wait(Duration::from_millis(2500));
    metrics.observe_admission_wait(Duration::from_secs(11));
    metrics.count_admission_abandoned();
    metrics.observe_age(0);
    metrics.observe_age(90_000);
    metrics.observe_round_trip(Duration::from_millis(40));
    metrics.observe_broker_publish(Duration::from_micros(90));
    metrics.count_broker_error(BrokerCall::Read);
    metrics.count_broker_error(BrokerCall::Read);
    metrics.count_broker_error(BrokerCall::Subscribe);

    let text = text(&Snapshot::empty(&metrics.events)).unwrap();
    let series = series(&text);
    let handshakes = |bound: &str| {
        series[&*format!(
            "tickcast_handshake_duration_seconds_bucket{{transport=\"websocket\",le=\"{bound}\"}}"
        )]
    };
    assert_eq!((handshakes("0.0005"), handshakes("0.001")), (1.0, 2.0));
    let waits =
        |bound: &str| series[&*format!("tickcast_admission_wait_seconds_bucket{{le=\"{bound}\"}}")];
    assert_eq!((waits("1"), waits("2.5"), waits("10"), waits("+Inf")), (0.0, 1.0, 1.0, 2.0));
    assert_eq!(series["tickcast_admission_abandoned_total"], 1.0);
    let ages = |bound: &str| {
        series[&*format!(
            "tickcast_connection_duration_seconds_bucket{{transport=\"websocket\",le=\"{bound}\"}}"
        )]
    };
    assert_eq!((ages("1"), ages("86400"), ages("+Inf")), (1.0, 1.0, 2.0));
    assert_eq!(series["tickcast_ping_rtt_seconds_sum"], 0.04);
    assert_eq!(series["tickcast_broker_publish_duration_seconds_bucket{le=\"0.0001\"}"], 1.0);
    let errors = ["publish", "read", "subscribe"]
        .map(|op| series[&*format!("tickcast_broker_errors_total{{op=\"{op}\"}}")]);
    assert_eq!(errors, [0.0, 2.0, 1.0]);
}

#[test]
fn turns_are_counted_by_their_duration() {
    let mut counters =
        WorkerCounters { pending_bytes: 7, unfinished_bytes: 9, ..WorkerCounters::default() };
    for micros in [1, 100, 101, 2_000_000] {
        counters.observe_turn(Duration::from_micros(micros));
    }
    let events = Events::default();
    let threads = vec![Times { running: 2_500_000_000, waiting: 500_000_000 }];
    let snapshot = Snapshot { workers: vec![counters; 2], threads, ..Snapshot::empty(&events) };
    let text = text(&snapshot).unwrap();
    let series = series(&text);
    let turns = |suffix: &str| series[&*format!("tickcast_turn_duration_seconds{suffix}")];
    assert_eq!(turns("_bucket{le=\"0.0001\"}"), 4.0);
    assert_eq!(turns("_bucket{le=\"0.00025\"}"), 6.0);
    assert_eq!(turns("_bucket{le=\"1\"}"), 6.0);
    assert_eq!((turns("_count"), turns("_sum")), (8.0, 2.0 * 2.000_202));
    assert_eq!(series["tickcast_output_pending_bytes{transport=\"websocket\"}"], 14.0);
    assert_eq!(series["tickcast_input_unfinished_bytes{transport=\"websocket\"}"], 18.0);
    assert_eq!(series["tickcast_worker_cpu_seconds_total{worker=\"0\"}"], 2.5);
    assert_eq!(series["tickcast_worker_cpu_wait_seconds_total{worker=\"0\"}"], 0.5);
}

/// Counters are indexed by the number of the variant, and named by its place in the list.
#[test]
fn labels_stand_in_the_order_of_their_numbers() {
    for (number, route) in Route::ALL.into_iter().enumerate() {
        assert_eq!(route as usize, number);
    }
    assert_eq!(CloseReason::TEXTS[CloseReason::SlowConsumer as usize], "slow_consumer");
    assert_eq!(CloseReason::TEXTS.len(), CloseReason::Internal as usize + 1);
}

/// A pair of route and method that should not occur is shown as soon as it does.
#[test]
fn no_request_is_hidden() {
    let metrics = Metrics::new(Vec::new(), Vec::new());
    for route in Route::ALL {
        for method in [Method::GET, Method::POST, Method::OPTIONS, Method::PUT] {
            for code in [101, 200, 304, 404, 503] {
                metrics.observe_request(
                    route,
                    &method,
                    StatusCode::from_u16(code).unwrap(),
                    Duration::ZERO,
                );
            }
        }
    }
    let shown = metrics.events.requests();
    assert_eq!(shown.len(), Route::ALL.len() * 4 * 5);
    assert!(shown.iter().all(|(_, count)| *count == 1));
}

/// The linter of Prometheus itself: Debian's package `prometheus` has it.
#[test]
fn promtool_has_nothing_to_say() {
    Broker::ALL.into_iter().for_each(ask_promtool);
}

fn ask_promtool(broker: Broker) {
    let events = Events::default();
    let text = text(&broker.empty(&events)).unwrap();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs promtool: Debian has it in the package prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// `docs/reference/metrics.md` is this text. After a change, run the tests with `TICKCAST_BLESS=1` to write it.
#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
    let page = markdown();
    if std::env::var_os("TICKCAST_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default() == page;
    assert!(current, "docs/reference/metrics.md is out of date; run with TICKCAST_BLESS=1");
}
