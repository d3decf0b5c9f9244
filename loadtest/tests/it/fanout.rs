//! Fan-out runs: nothing is missing where nothing was lost, and everything that was broken is counted exactly.

use serde_json::Value;
use tickcast_load::fanout::{FanoutArgs, FanoutReport, run};
use tickcast_load::progress::Progress;

use crate::child::{self, Floor};
use crate::fake::{self, Fault};

/// 20 publications in all to each client, the window included.
fn short(url: String) -> FanoutArgs {
    FanoutArgs {
        url,
        connections: 10,
        rate: 40.0,
        duration: 0.4,
        warmup: 0.1,
        drain: 3.0,
        ..FanoutArgs::default()
    }
}

fn against(fault: Fault) -> FanoutReport {
    let url = format!("http://{}", fake::start(fault));
    run(&short(url), &mut Progress::silent()).expect("a run")
}

#[test]
fn the_floor_delivers_everything_to_everyone() {
    let floor = Floor::start();
    let args = FanoutArgs {
        url: floor.url(),
        connections: 50,
        rate: 100.0,
        duration: 2.0,
        warmup: 0.2,
        server_pid: Some(floor.pid()),
        ..FanoutArgs::default()
    };
    let report = run(&args, &mut Progress::silent()).expect("a run");
    let totals = report.deliveries;
    assert_eq!((totals.expected, totals.received, totals.missing), (11_000, 11_000, 0));
    assert_eq!((totals.duplicate, totals.out_of_order, report.notices.closed), (0, 0, 0));
    assert_eq!((report.published.accepted, report.published.refused), (220, 0));
    assert!(report.latency.count > 0 && report.latency.max_ns > 0);
    let server = report.server.expect("the server was watched");
    assert!(server.cpu.total_ns > 0 && server.resident_bytes > 0);
}

#[test]
fn batches_over_many_topics_reach_exactly_their_subscribers() {
    let floor = Floor::start();
    for spread in [false, true] {
        let args = FanoutArgs {
            topics: 10,
            topics_per_connection: 4,
            rate: 200.0,
            burst: 10,
            spread,
            publishers: 2,
            // The floor's topics go on counting between the two runs: the second begins at an offset above 0.
            ..short(floor.url())
        };
        let report = run(&args, &mut Progress::silent()).expect("a run");
        // 100 publications, 10 to each topic; 10 connections with 4 topics each.
        assert_eq!(report.published.accepted, 100);
        assert_eq!((report.deliveries.expected, report.deliveries.missing), (400, 0));
    }
}

#[test]
fn large_frames_are_put_together_again() {
    let floor = Floor::start();
    let args = FanoutArgs { size: 60_000, rate: 100.0, ..short(floor.url()) };
    let report = run(&args, &mut Progress::silent()).expect("a run");
    assert_eq!((report.deliveries.received, report.deliveries.missing), (500, 0));
}

#[test]
fn clients_that_never_read_are_not_judged() {
    let floor = Floor::start();
    let args = FanoutArgs { slow: 20, ..short(floor.url()) };
    let report = run(&args, &mut Progress::silent()).expect("a run");
    assert_eq!((report.slow, report.deliveries.expected, report.deliveries.missing), (2, 160, 0));
}

#[test]
fn dropped_deliveries_are_missing() {
    let totals = against(Fault::Drop(7)).deliveries;
    assert_eq!((totals.expected, totals.received, totals.missing), (200, 172, 28));
    assert_eq!((totals.duplicate, totals.out_of_order), (0, 0));
}

#[test]
fn repeated_deliveries_are_duplicates() {
    let totals = against(Fault::Repeat(10)).deliveries;
    assert_eq!((totals.received, totals.missing, totals.duplicate), (200, 0, 20));
}

#[test]
fn swapped_deliveries_are_out_of_order_and_not_missing() {
    let totals = against(Fault::Swap).deliveries;
    assert_eq!((totals.received, totals.missing, totals.out_of_order), (200, 0, 100));
}

#[test]
fn clients_that_are_asked_to_leave_move_and_miss_nothing() {
    let report = against(Fault::Leave(10));
    let totals = report.deliveries;
    assert_eq!((totals.received, totals.missing, totals.duplicate), (200, 0, 0), "{totals:?}");
    let notices = report.notices;
    assert_eq!((notices.goaways, notices.moved), (10, 10), "{notices:?}");
    assert_eq!((notices.closed, notices.returned), (0, 0), "{notices:?}");
}

#[test]
fn clients_that_are_cut_off_come_back_and_miss_nothing() {
    let url = format!("http://{}", fake::start(Fault::Cut(10)));
    let report = run(&short(url), &mut Progress::silent()).expect("a run");
    let totals = report.deliveries;
    assert_eq!((totals.received, totals.missing, totals.duplicate), (200, 0, 0), "{totals:?}");
    let notices = report.notices;
    assert_eq!((notices.closed, notices.returned, notices.moved), (10, 10, 0), "{notices:?}");
    assert!(report.away.count == 10 && report.away.max_ns < 5_000_000_000, "{:?}", report.away);
}

#[test]
fn a_publisher_that_is_cut_off_goes_on_with_the_next_server() {
    let (first, second) = (fake::start(Fault::CutPublishers(5)), Floor::start());
    let args = FanoutArgs {
        subscribe_url: Some(second.url()),
        ..short(format!("http://{first},{}", second.url()))
    };
    let report = run(&args, &mut Progress::silent()).expect("a run");
    let published = report.published;
    assert_eq!(published.accepted + published.cut_off, 20, "{published:?}");
    assert!(published.accepted >= 15, "{published:?}");
    // What the second server took has arrived, and nothing else.
    assert_eq!(report.deliveries.received, (published.accepted - 5) * 10);
}

#[test]
fn a_rejected_subscription_ends_the_run_with_its_reason() {
    let url = format!("http://{}", fake::start(Fault::Reject));
    let error = run(&short(url), &mut Progress::silent()).expect_err("refused").to_string();
    assert!(error.contains("topic load.0 was rejected: forbidden"), "{error}");
}

#[test]
fn assertions_decide_the_exit_code() {
    let flags = |url: String| {
        let flags = "fanout --connections 10 --rate 40 --duration 0.4 --warmup 0.1 --json --assert";
        let mut flags: Vec<String> = flags.split(' ').map(str::to_owned).collect();
        flags.extend(["missing=0,duplicate=0".to_owned(), "--url".to_owned(), url]);
        flags
    };
    let run = |url: String| {
        let flags = flags(url);
        child::run(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let floor = Floor::start();
    let good = run(floor.url());
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    let report: Value = serde_json::from_slice(&good.stdout).expect("one JSON object");
    assert_eq!(report["deliveries"]["received"], 200);

    let bad = run(format!("http://{}", fake::start(Fault::Drop(10))));
    assert_eq!(bad.status.code(), Some(1));
    let message = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(message.contains("missing=0 failed: it was 20"), "{message}");
}

#[test]
fn what_cannot_be_run_ends_with_2_and_says_what_to_do() {
    let closed = "http://127.0.0.1:1";
    for (flags, named) in [
        (&["fanout", "--url", closed][..], "check that --url is the public listener"),
        (&["fanout", "--connections", "0"], "choose a value from 1"),
        (&["fanout", "--assert", "p98<1ms"], "p99<50ms"),
        (&["idle", "--url", closed], "--server-pid"),
        (&["bench", "--server", "no/such/file"], "is not a file"),
    ] {
        let output = child::run(flags);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn the_table_names_every_number() {
    let floor = Floor::start();
    let (url, pid) = (floor.url(), floor.pid().to_string());
    let flags =
        ["fanout", "--connections", "5", "--duration", "0.2", "--warmup", "0", "--url", &url];
    let output = child::run(&[&flags[..], &["--server-pid", &pid]].concat());
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in
        ["connections 5/5 ok", "publish", "missing 0", "p99.9", "us per delivery", "lag p50"]
    {
        assert!(table.contains(line), "{line} is not in {table}");
    }
}
