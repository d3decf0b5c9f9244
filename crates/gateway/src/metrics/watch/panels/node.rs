//! What the nodes need of their machines.

use super::Unit::{Bytes, Count, PerSecond, Seconds, Share};
use super::{Panel, lines, query};

pub(super) const PANELS: &[Panel] = &[
    lines(
        "Processor",
        Count,
        "Cores in use by each node.",
        &[query("{{instance}}", "sum by (instance) (rate(process_cpu_seconds_total{*}[~]))")],
    ),
    lines(
        "Busiest worker of each node",
        Share,
        "Clients belong to one worker for their life, so one full worker is slow for its clients even if others are idle.",
        &[query(
            "{{instance}}",
            "max by (instance) (rate(tickcast_worker_cpu_seconds_total{*}[~]))",
        )],
    ),
    lines(
        "Waiting for a processor",
        Share,
        "Share of time in which a worker could have run and others on the machine had the processor.",
        &[query(
            "{{instance}}",
            "max by (instance) (rate(tickcast_worker_cpu_wait_seconds_total{*}[~]))",
        )],
    ),
    lines(
        "Turns of workers",
        Seconds,
        "A turn takes what came from hub and sockets, and writes to at most 256 connections. Nothing else happens on its worker meanwhile.",
        &[
            query(
                "p50",
                "histogram_quantile(0.5, sum by (le) (rate(tickcast_turn_duration_seconds_bucket{*}[~])))",
            ),
            query(
                "p99",
                "histogram_quantile(0.99, sum by (le) (rate(tickcast_turn_duration_seconds_bucket{*}[~])))",
            ),
        ],
    ),
    lines(
        "Silence of workers",
        Seconds,
        "Time since a worker began a turn, of the worker for which that is longest. Each begins one every second. From 5 s on the node takes nobody new: a worker hangs, and its clients get nothing.",
        &[query("{{instance}}", "max by (instance) (tickcast_worker_silence_seconds{*})")],
    ),
    lines(
        "Memory",
        Bytes,
        "Resident memory of each node, without what the kernel holds for its sockets.",
        &[query("{{instance}}", "sum by (instance) (process_resident_memory_bytes{*})")],
    ),
    lines(
        "Memory per client",
        Bytes,
        "Resident memory by clients: meaningful from some thousand clients on.",
        &[query(
            "{{instance}}",
            r#"sum by (instance) (process_resident_memory_bytes{*}) / sum by (instance) (tickcast_connections{*,transport="websocket"})"#,
        )],
    ),
    lines(
        "Open files",
        Share,
        "Share of the open files that the process may have. Each connection is one.",
        &[query(
            "{{instance}}",
            "sum by (instance) (process_open_fds{*}) / sum by (instance) (process_max_fds{*})",
        )],
    ),
    lines(
        "Panics and lost log lines",
        PerSecond,
        "A panic is a bug: one connection was closed, the others went on. Log lines are dropped when standard error does not keep up.",
        &[
            query("panics", "sum(rate(tickcast_connection_panics_total{*}[~]))"),
            query("log lines", "sum(rate(tickcast_log_lines_dropped_total{*}[~]))"),
        ],
    ),
];
