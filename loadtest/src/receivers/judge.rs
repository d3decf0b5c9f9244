//! Decides what every frame of the subscribers means, and keeps the books of a run.
//!
//! The common frame, a publication, costs a prefix scan, one cursor comparison and, for a sample, reading its planned
//! time. Everything else (acknowledgements, gaps, pings) is rare and may allocate.

use std::ops::Range;

use serde::Serialize;
use tickcast_protocol::Position;

use super::ConnectionPlan;
use crate::account::{Account, Totals, Verdict};
use crate::connection::{ConnectionError, Notice};
use crate::http::excerpt;
use crate::latency::Latencies;
use crate::payload::planned_at;
use crate::plan::TopicPlan;
use crate::units::{count, index};
use crate::wire::{Frame, OPCODE_CLOSE, OPCODE_PING, OPCODE_TEXT, pong, publication_head};

/// What the server said besides publications, counted.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Notices {
    /// `gap`: publications were skipped and named.
    pub gaps: u64,
    /// `reset`: a topic began a new epoch; its account starts anew there.
    pub resets: u64,
    /// `goaway`: the node asked the client to go elsewhere.
    pub goaways: u64,
    /// Any other message, such as `status`.
    pub other: u64,
    /// Publications of topics that the connection did not subscribe to.
    pub foreign: u64,
    /// Connections that ended during the run, although the client had not moved on.
    pub closed: u64,
    /// Clients that went on elsewhere while their connection was still there, because its node wanted that.
    pub moved: u64,
    /// Clients that came back after their connection had ended, and resumed.
    pub returned: u64,
    /// Why the first of them ended.
    pub first_close: Option<String>,
}

/// What a connection has to do about the frames it read.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) acknowledged: bool,
    pub(super) refused: Option<String>,
    /// The code with which the server closes.
    pub(super) close: Option<u16>,
    /// When the node wants to be left, in milliseconds from now.
    pub(super) leave_in_ms: Option<u64>,
    /// Set for a connection that goes on where another one was: what it has asked for, by place.
    pub(super) since: Option<Vec<u64>>,
    pub(super) pong: Option<Vec<u8>>,
}

/// The books.
#[derive(Debug)]
pub struct Judge {
    topics: TopicPlan,
    /// By connection: whether it is one of those that never read.
    slow: Vec<bool>,
    account: Account,
    /// The measured window, in nanoseconds of the clock. Empty until it is known.
    window: Range<u64>,
    sample_every: u64,
    /// Planned send to reception, of the sampled publications planned inside the window.
    pub latencies: Latencies,
    /// Expected deliveries that arrived inside the window, whenever planned: what the server worked for in it.
    pub received_in_window: u64,
    /// All that is not a publication.
    pub notices: Notices,
}

impl Judge {
    /// Empty books for all connections of the plan.
    #[must_use]
    pub fn new(plan: &ConnectionPlan) -> Self {
        let subscriptions = plan.connections.saturating_mul(index(plan.topics.per_connection()));
        Self {
            topics: plan.topics.clone(),
            slow: (0..plan.connections).map(|connection| plan.is_slow(connection)).collect(),
            account: Account::new(subscriptions),
            window: 0..0,
            sample_every: 1,
            latencies: Latencies::default(),
            received_in_window: 0,
            notices: Notices::default(),
        }
    }

    /// Sets the measured window, and that one frame in `sample_every` (at least 1) is timed.
    pub fn measure(&mut self, window: Range<u64>, sample_every: u64) {
        self.window = window;
        self.sample_every = sample_every.max(1);
    }

    /// Books one frame of a connection, read at `now`.
    #[inline]
    pub(super) fn book(
        &mut self,
        connection: usize,
        frame: Frame<'_>,
        now: u64,
        reaction: &mut Reaction,
    ) {
        let publication =
            if frame.opcode == OPCODE_TEXT { publication_head(frame.payload) } else { None };
        let Some(head) = publication else {
            return self.book_other(connection, frame, reaction);
        };
        let Some(subscription) = self.subscription(connection, head.topic) else {
            self.notices.foreign += 1;
            return;
        };
        let verdict = self.account.deliver(subscription, head.offset);
        if !matches!(verdict, Verdict::Received | Verdict::OutOfOrder) {
            return;
        }
        self.received_in_window += u64::from(self.window.contains(&now));
        // The connection's number in the sum lets the sample reach every place in the order of sends.
        if head.offset.wrapping_add(count(connection)).is_multiple_of(self.sample_every)
            && let Some(planned) = planned_at(head.rest)
            && self.window.contains(&planned)
        {
            self.latencies.record(now.saturating_sub(planned));
        }
    }

    /// Deliveries that the judged subscribers have yet to get, when `highest` are the topics' last offsets.
    #[must_use]
    pub fn outstanding(&self, highest: &[u64]) -> u64 {
        self.account.outstanding(|subscription| self.highest_for(subscription, highest))
    }

    /// The final account.
    #[must_use]
    pub fn close(&self, highest: &[u64]) -> Totals {
        self.account.close(|subscription| self.highest_for(subscription, highest))
    }

    /// Deliveries received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.account.received()
    }

    /// Where a connection goes on, subscription by subscription; `None` if its server has not said where that is.
    pub(super) fn positions(&self, connection: usize) -> Option<Vec<Position>> {
        let per_connection = index(self.topics.per_connection());
        let first = connection.saturating_mul(per_connection);
        (first..first + per_connection).map(|number| self.account.position(number)).collect()
    }

    /// Notes that a connection ended in the middle of the run.
    pub(super) fn closed(&mut self, connection: usize, error: &ConnectionError) {
        self.notices.closed += 1;
        self.notices.first_close.get_or_insert_with(|| format!("client {connection}: {error}"));
    }

    /// The last offset that a subscription should have; 0 for a connection that never reads, which owes nothing.
    fn highest_for(&self, subscription: usize, highest: &[u64]) -> u64 {
        let per_connection = index(self.topics.per_connection());
        let (connection, place) = (subscription / per_connection, subscription % per_connection);
        if self.slow.get(connection).copied().unwrap_or(true) {
            return 0;
        }
        let topic = self.topics.topic_at(count(connection), count(place));
        highest.get(index(topic)).copied().unwrap_or(0)
    }

    /// The number of a connection's subscription to a topic in the account.
    fn subscription(&self, connection: usize, topic: &[u8]) -> Option<usize> {
        let connection = count(connection);
        let place = self.topics.place(connection, self.topics.topic(topic)?)?;
        Some(index(connection * self.topics.per_connection() + place))
    }

    #[cold]
    fn book_other(&mut self, connection: usize, frame: Frame<'_>, reaction: &mut Reaction) {
        match frame.opcode {
            OPCODE_TEXT => match serde_json::from_slice(frame.payload) {
                Ok(notice) => self.book_notice(connection, &notice, reaction),
                Err(_) => self.notices.other += 1,
            },
            OPCODE_PING => reaction.pong = Some(pong(frame.payload)),
            OPCODE_CLOSE => {
                if let [high, low, ..] = frame.payload {
                    reaction.close = Some(u16::from_be_bytes([*high, *low]));
                }
                let reason = close_reason(frame.payload);
                self.notices
                    .first_close
                    .get_or_insert_with(|| format!("client {connection}: {reason}"));
                reaction.refused.get_or_insert(reason);
            }
            _ => self.notices.other += 1,
        }
    }

    fn book_notice(&mut self, connection: usize, notice: &Notice<'_>, reaction: &mut Reaction) {
        match notice.kind.as_ref() {
            "subscribed" => {
                reaction.acknowledged = count(notice.topics.len()) == self.topics.per_connection();
                if !reaction.acknowledged {
                    reaction.refused = Some(rejection(notice));
                }
                // A client that comes back takes all or nothing, and then asks again.
                if reaction.acknowledged || reaction.since.is_none() {
                    self.acknowledged(connection, notice, reaction.since.as_deref());
                }
            }
            "gap" => self.notices.gaps += 1,
            "reset" => {
                self.notices.resets += 1;
                let topic = notice.topic.as_deref().unwrap_or_default();
                if let (Some(subscription), Some(offset)) =
                    (self.subscription(connection, topic.as_bytes()), notice.offset)
                {
                    let epoch = notice.epoch.as_deref().and_then(|epoch| epoch.parse().ok());
                    self.account.acknowledge(subscription, offset, epoch);
                }
            }
            "goaway" => {
                self.notices.goaways += 1;
                reaction.leave_in_ms = notice.reconnect_in_ms;
            }
            "error" => {
                self.notices.other += 1;
                reaction.refused =
                    Some("an error message instead of the acknowledgement".to_owned());
            }
            _ => self.notices.other += 1,
        }
    }
}

impl Judge {
    /// Opens the accounts of a connection, or goes on with them where `since` says that it has asked to.
    fn acknowledged(&mut self, connection: usize, notice: &Notice<'_>, since: Option<&[u64]>) {
        for acknowledged in &notice.topics {
            let name = acknowledged.topic.as_bytes();
            let Some(subscription) = self.subscription(connection, name) else { continue };
            let place = subscription % index(self.topics.per_connection());
            match since.and_then(|since| since.get(place)) {
                Some(since) => self.account.take_over(subscription, *since),
                None => {
                    let epoch = acknowledged.epoch.parse().ok();
                    self.account.acknowledge(subscription, acknowledged.offset, epoch);
                }
            }
        }
    }
}

fn rejection(notice: &Notice<'_>) -> String {
    notice.errors.first().map_or_else(
        || format!("the acknowledgement names {} topics, not all", notice.topics.len()),
        |rejected| format!("topic {} was rejected: {}", rejected.topic, rejected.code),
    )
}

fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            format!("closed with {} {:?}", u16::from_be_bytes([*high, *low]), excerpt(reason))
        }
        _ => "closed without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use crate::target::Targets;

    /// Two connections with both of two topics; the second one never reads.
    fn judge() -> Judge {
        let plan = ConnectionPlan {
            targets: Targets::resolve("http://127.0.0.1:1", None).expect("an address"),
            topics: TopicPlan::new("load", 2, 2),
            mode: None,
            max_rate: None,
            connections: 2,
            in_flight: 1,
            slow_percent: 1,
        };
        // One percent of two connections is the first; swap the roles so that connection 0 is judged.
        let mut judge = Judge::new(&plan);
        judge.slow.swap(0, 1);
        judge
    }

    fn book(judge: &mut Judge, text: &str, now: u64) -> Reaction {
        let mut reaction = Reaction::default();
        let frame = Frame { opcode: OPCODE_TEXT, payload: text.as_bytes() };
        judge.book(0, frame, now, &mut reaction);
        reaction
    }

    fn publication(topic: &str, offset: u64, planned: u64) -> String {
        let mut data = Vec::new();
        Payload::new(40).append(&mut data, planned);
        let data = String::from_utf8(data).expect("text");
        format!("{{\"topic\":\"{topic}\",\"offset\":{offset},\"time\":1,\"data\":{data}}}")
    }

    const ACK: &str = r#"{"type":"subscribed","topics":[{"topic":"load.0","epoch":"e","offset":5},{"topic":"load.1","epoch":"e","offset":0}],"errors":[]}"#;

    #[test]
    fn an_acknowledgement_opens_the_account_and_slow_clients_owe_nothing() {
        let mut judge = judge();
        assert!(book(&mut judge, ACK, 0).acknowledged);
        assert_eq!(judge.outstanding(&[7, 3]), 2 + 3);
        book(&mut judge, &publication("load.0", 5, 0), 0);
        book(&mut judge, &publication("load.0", 6, 0), 0);
        book(&mut judge, &publication("load.1", 3, 0), 0);
        book(&mut judge, &publication("stocks", 3, 0), 0);
        let totals = judge.close(&[7, 3]);
        assert_eq!((totals.expected, totals.received, totals.missing), (5, 2, 3));
        assert_eq!((totals.snapshots, judge.notices.foreign), (1, 1));
    }

    #[test]
    fn latency_counts_from_the_plan_and_only_inside_the_window() {
        let mut judge = judge();
        judge.measure(1_000..2_000, 1);
        book(&mut judge, ACK, 0);
        for (offset, planned, now) in [(6, 900, 1_100), (7, 1_000, 1_700), (8, 1_900, 2_600)] {
            book(&mut judge, &publication("load.0", offset, planned), now);
        }
        let summary = judge.latencies.summary();
        assert_eq!((summary.count, summary.max_ns, judge.received_in_window), (2, 700, 2));
    }

    #[test]
    fn a_partial_acknowledgement_is_refused_with_its_code() {
        let partial = r#"{"type":"subscribed","topics":[{"topic":"load.0","offset":0}],"errors":[{"topic":"load.1","code":"unavailable","message":""}]}"#;
        let reaction = book(&mut judge(), partial, 0);
        assert!(!reaction.acknowledged);
        assert_eq!(reaction.refused.as_deref(), Some("topic load.1 was rejected: unavailable"));
    }

    #[test]
    fn other_messages_are_counted_by_kind() {
        let mut judge = judge();
        book(&mut judge, ACK, 0);
        book(
            &mut judge,
            r#"{"type":"gap","topic":"load.0","from":6,"to":8,"reason":"slow_consumer"}"#,
            0,
        );
        book(&mut judge, r#"{"type":"status","broker":"down"}"#, 0);
        book(
            &mut judge,
            r#"{"type":"reset","topic":"load.0","epoch":"f","offset":1,"reason":"r"}"#,
            0,
        );
        book(&mut judge, "garbage", 0);
        assert_eq!((judge.notices.gaps, judge.notices.resets, judge.notices.other), (1, 1, 2));
        assert_eq!(judge.outstanding(&[3, 0]), 2);
    }

    #[test]
    fn a_client_that_comes_back_goes_on_where_it_was() {
        let mut judge = judge();
        assert_eq!(judge.positions(0), None);
        book(&mut judge, ACK, 0);
        (6..=8).for_each(|offset| drop(book(&mut judge, &publication("load.0", offset, 0), 0)));
        let offsets: Vec<_> =
            judge.positions(0).expect("positions").iter().map(|at| at.offset).collect();
        assert_eq!(offsets, [8, 0]);
        // Two more come on the first connection before the second one is acknowledged.
        (9..=10).for_each(|offset| drop(book(&mut judge, &publication("load.0", offset, 0), 0)));
        let mut reaction = Reaction { since: Some(offsets), ..Reaction::default() };
        let frame = |text: &'static str| Frame { opcode: OPCODE_TEXT, payload: text.as_bytes() };
        judge.book(0, frame(r#"{"type":"goaway","reconnect_in_ms":70}"#), 0, &mut reaction);
        assert_eq!((reaction.leave_in_ms, judge.notices.goaways), (Some(70), 1));
        judge.book(0, frame(ACK), 0, &mut reaction);
        assert!(reaction.acknowledged);
        (9..=11).for_each(|offset| drop(book(&mut judge, &publication("load.0", offset, 0), 0)));
        let totals = judge.close(&[11, 0]);
        assert_eq!((totals.received, totals.missing, totals.duplicate), (6, 0, 0));
    }

    #[test]
    fn pings_are_answered_and_closes_are_explained() {
        let mut judge = judge();
        let mut reaction = Reaction::default();
        judge.book(0, Frame { opcode: OPCODE_PING, payload: b"x" }, 0, &mut reaction);
        assert_eq!(reaction.pong, Some(pong(b"x")));
        judge.book(0, Frame { opcode: OPCODE_CLOSE, payload: b"\x0f\xa8slow" }, 0, &mut reaction);
        assert_eq!(
            judge.notices.first_close.as_deref(),
            Some("client 0: closed with 4008 \"slow\"")
        );
        assert_eq!(close_reason(b""), "closed without a code");
    }
}
