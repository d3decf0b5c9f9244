//! Reports for people: a few aligned lines per run, in the same order every time. Machines read `--json` instead.

use crate::fanout::FanoutReport;
use crate::idle::IdleReport;
use crate::units::{count, figure, ms, ratio, seconds, thousands, us};

/// A fan-out run as lines.
#[must_use]
pub fn fanout(report: &FanoutReport) -> String {
    let mut lines = vec![connections_line(report), publish_line(report), deliveries_line(report)];
    lines.push(format!(
        "latency     {}     {} timed",
        report.latency.line(),
        thousands(report.latency.count)
    ));
    if !report.latency.picture.is_empty() {
        lines.push(format!("            {}", report.latency.picture));
    }
    if let Some(server) = &report.server {
        lines.push(format!(
            "server      cpu {:.1} % (user {} ms, system {} ms)   {} us per delivery   rss {:.1} MiB",
            server.cpu_share * 100.0,
            figure(ms(server.cpu.user_ns)),
            figure(ms(server.cpu.system_ns)),
            format_args!("{:.2}", server.cpu_per_delivery_ns / 1e3),
            server.resident_bytes as f64 / 1_048_576.0,
        ));
    }
    let lag = &report.published.lag;
    lines.push(format!(
        "generator   cpu {:.1} %   lag p50 {}  p99 {}  max {} ms{}",
        report.generator.cpu_share * 100.0,
        figure(ms(lag.p50_ns)),
        figure(ms(lag.p99_ns)),
        figure(ms(lag.max_ns)),
        if report.generator.doubts.is_empty() { "   (ok)" } else { "" },
    ));
    for doubt in &report.generator.doubts {
        lines.push(format!("WARNING     latencies are not trustworthy: {doubt}"));
    }
    lines.extend(notice_lines(report));
    lines.join("\n") + "\n"
}

fn connections_line(report: &FanoutReport) -> String {
    let ramp = &report.ramp;
    let slow = if report.slow > 0 {
        format!("   never reading {}", thousands(count(report.slow)))
    } else {
        String::new()
    };
    format!(
        "connections {}/{} ok   handshake p99 {} ms   {} per second{slow}",
        thousands(ramp.opened),
        thousands(count(report.args.connections)),
        figure(ms(ramp.handshake.p99_ns)),
        figure(ramp.per_second),
    )
}

fn publish_line(report: &FanoutReport) -> String {
    let published = &report.published;
    format!(
        "publish     {} per second planned   {} of {} sent   refused {}   unanswered {}   answered p99 {} ms",
        figure(report.args.rate),
        thousands(published.sent),
        thousands(published.planned),
        thousands(published.refused),
        thousands(published.unanswered),
        figure(ms(published.answer.p99_ns)),
    )
}

fn deliveries_line(report: &FanoutReport) -> String {
    let totals = &report.deliveries;
    format!(
        "deliveries  expected {}   received {}   missing {}   duplicate {}   out of order {}   {} per second to {}",
        thousands(totals.expected),
        thousands(totals.received),
        thousands(totals.missing),
        thousands(totals.duplicate),
        thousands(totals.out_of_order),
        figure(report.delivery_rate()),
        thousands(report.judged()),
    )
}

fn notice_lines(report: &FanoutReport) -> Vec<String> {
    let notices = &report.notices;
    let mut lines = Vec::new();
    let counted = [
        ("gap notices", notices.gaps),
        ("reset notices", notices.resets),
        ("other messages", notices.other),
        ("foreign publications", notices.foreign),
        ("clients moved on request", notices.moved),
        ("connections lost", notices.closed),
        ("clients returned", notices.returned),
        ("sends held back", report.published.held_back),
        ("publications cut off", report.published.cut_off),
    ];
    let seen: Vec<String> = counted
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(name, number)| format!("{name} {}", thousands(*number)))
        .collect();
    if !seen.is_empty() {
        lines.push(format!("also        {}", seen.join("   ")));
    }
    if report.away.count > 0 {
        lines.push(format!("            away for {}", report.away.line()));
    }
    if let Some(reason) = &notices.first_close {
        lines.push(format!("            first loss: {reason}"));
    }
    if let Some(refusal) = &report.published.first_refusal {
        lines.push(format!("            first refusal: {refusal}"));
    }
    lines
}

/// An idle run as lines.
#[must_use]
pub fn idle(report: &IdleReport) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    format!(
        "connections {} then {}   handshake p99 {} ms   {} per second\n\
         memory      {:.2} MiB at {}   {:.2} MiB at {}   slope {} bytes per connection{}\n\
         server      {} us of cpu per handshake and subscription   idle {} us per connection and second\n\
         held        {} s   connections lost {}\n",
        thousands(report.from),
        thousands(report.connections),
        figure(ms(report.ramp.handshake.p99_ns)),
        figure(report.ramp.per_second),
        mib(report.resident_bytes_from),
        thousands(report.from),
        mib(report.resident_bytes),
        thousands(report.connections),
        figure(report.bytes_per_connection),
        if report.settled { "" } else { "   (never settled)" },
        figure(us(report.cpu_per_connection_ns)),
        figure(ratio(us(report.held_cpu_ns), seconds(report.held_ns) * report.connections as f64)),
        figure(seconds(report.held_ns)),
        thousands(report.lost),
    )
}
