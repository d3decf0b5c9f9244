//! The worker threads, and how long their turns take.

use super::{Row, counter, gauge, histogram};
use crate::metrics::TURN_BUCKETS_US;

pub(super) const WORKERS: &[Row] = &[
    gauge(
        "tickcast_workers",
        "Worker threads. Each owns the connections that it accepted.",
        &[],
        |s, out| out.value(&[], s.workers.len() as u64),
    ),
    gauge(
        "tickcast_worker_silence_seconds",
        "Whole seconds since a worker began a turn, of the worker for which that is longest. Each begins one every second. From 5 s on the node is not ready, from 30 s on it is not alive.",
        &[],
        |s, out| out.value(&[], s.node.worker_silence.into()),
    ),
    counter(
        "tickcast_worker_cpu_seconds_total",
        "Time that a worker was on a processor. A rate of 1 is all that one thread can have.",
        &["worker"],
        |s, out| {
            for (worker, times) in s.threads.iter().enumerate() {
                out.number(&[&worker.to_string()], times.running as f64 / 1e9);
            }
        },
    ),
    counter(
        "tickcast_worker_cpu_wait_seconds_total",
        "Time that a worker was ready to run and had no processor: others on this machine had it.",
        &["worker"],
        |s, out| {
            for (worker, times) in s.threads.iter().enumerate() {
                out.number(&[&worker.to_string()], times.waiting as f64 / 1e9);
            }
        },
    ),
    histogram(
        "tickcast_turn_duration_seconds",
        "Time of a worker's turn: what came from the hub and the sockets, then writes to at most 256 connections. Nothing else happens on that worker meanwhile.",
        &[],
        |s, out| {
            let bounds = TURN_BUCKETS_US.iter().map(|micros| *micros as f64 / 1e6);
            let counts: [u64; TURN_BUCKETS_US.len() + 1] =
                std::array::from_fn(|bucket| s.sum(|worker| worker.turns[bucket]));
            out.histogram(&[], bounds, &counts, s.sum(|worker| worker.turns_sum_us) as f64 / 1e6);
        },
    ),
];
