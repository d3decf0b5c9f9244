//! What clients ask for, and hold.

use super::{Row, WEBSOCKET, counter, gauge};

pub(super) const SUBSCRIPTIONS: &[Row] = &[
    gauge(
        "tickcast_subscriptions",
        "Subscriptions held now: one per connection and topic.",
        &["transport"],
        |s, out| out.value(&[WEBSOCKET], s.sum(|worker| worker.subscriptions)),
    ),
    gauge(
        "tickcast_topics",
        "Topics that have subscribers on this node, or had until a moment ago.",
        &[],
        |s, out| out.value(&[], s.hub.topics as u64),
    ),
    counter(
        "tickcast_subscribe_requests_total",
        "Topics asked for in subscribe commands, by the answer that each got.",
        &["result"],
        |s, out| {
            out.value(&["accepted"], s.sum(|worker| worker.fanout.subscribes_accepted));
            out.value(&["rejected"], s.sum(|worker| worker.fanout.subscribes_rejected));
        },
    ),
    counter(
        "tickcast_resumes_total",
        "Topics subscribed with a position. complete: nothing was missing; gap: the position was older than what is retained; reset: it was of another epoch.",
        &["result"],
        |s, out| {
            out.value(&["complete"], s.sum(|worker| worker.fanout.resumes_complete));
            out.value(&["gap"], s.sum(|worker| worker.fanout.resumes_gap));
            out.value(&["reset"], s.sum(|worker| worker.fanout.resumes_reset));
        },
    ),
    counter(
        "tickcast_resume_replayed_publications_total",
        "Publications that clients had missed and got by resuming, counted when their subscription is acknowledged. Mode latest gets only the newest of them.",
        &[],
        |s, out| out.value(&[], s.sum(|worker| worker.fanout.resumes_replayed)),
    ),
    counter(
        "tickcast_commands_invalid_total",
        "Messages of clients that were no command; each was answered with an error.",
        &[],
        |s, out| out.value(&[], s.sum(|worker| worker.commands_bad)),
    ),
    counter(
        "tickcast_commands_refused_total",
        "Commands of clients that sent more than limits.commands_per_second; each was answered with the error rate_limited, until its connection was closed as a flood.",
        &[],
        |s, out| out.value(&[], s.sum(|worker| worker.commands_refused)),
    ),
];
