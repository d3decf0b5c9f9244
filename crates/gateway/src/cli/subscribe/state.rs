//! Where each topic stands, and what to ask for on the next connection.

use std::time::Duration;

use serde::Serialize;
use tickcast_protocol::{Epoch, Mode, Position, Topic};
use tokio::time::Instant;

use super::message::{Acknowledged, Publication, Rejected};
use crate::cli::SubscribeArgs;
use crate::cli::client::printable;

/// Topics in one subscribe command: as many as fit whatever their names and options are.
const TOPICS_PER_COMMAND: usize = 100;
/// When to ask again for a topic that was not available.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

/// All subscriptions of this run.
#[derive(Debug)]
pub(super) struct State {
    subscriptions: Vec<Subscription>,
    mode: Option<Mode>,
    max_rate: Option<f64>,
    next_id: u64,
}

/// One topic.
#[derive(Debug)]
struct Subscription {
    topic: Topic,
    /// The last publication that arrived, or the place from which to go on.
    position: Option<Position>,
    /// The connection on which it was asked for last, and from where.
    asked_on: u64,
    asked_from: Option<Position>,
    /// The connection that feeds it: what another one says about it is no news.
    source: u64,
    /// What the connection before has still delivered while this one was asked: up to here it comes a second time.
    covered: u64,
    /// The topic's last offset when it was acknowledged: what comes up to here was published before.
    acknowledged: u64,
    /// Nothing has arrived since a subscription without a position: the kept value may come first, if there is one.
    fresh: bool,
    /// Whether offsets must follow each other.
    mode: Mode,
    wanted: Wanted,
}

/// What to do about a subscription.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    /// Nothing: it was asked for on this connection.
    Asked,
    /// Ask again at this time.
    At(Instant),
    /// Nothing any more: it was refused, for this reason.
    Never(String),
}

/// What is remarkable about a publication.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// It was published after the topic was subscribed, so its age is how long it took.
    pub(super) live: bool,
    /// Offsets that should have come before and did not, although no gap was announced.
    pub(super) missing: Option<(u64, u64)>,
    /// It has come before.
    pub(super) repeated: bool,
}

/// A topic as a subscribe command has it.
#[derive(Serialize)]
struct Item<'a> {
    topic: &'a Topic,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Since>,
}

#[derive(Serialize)]
struct Since {
    epoch: Epoch,
    offset: u64,
}

#[derive(Serialize)]
struct Command<'a> {
    r#type: &'static str,
    id: u64,
    topics: &'a [Item<'a>],
}

impl Subscription {
    /// It was acknowledged in this epoch: notes what has come since it was asked for.
    fn covers(&mut self, epoch: Epoch) {
        self.covered = 0;
        let (Some(asked), Some(position)) = (self.asked_from, self.position) else { return };
        if epoch == position.epoch && asked != position {
            self.covered = position.offset;
        } else if epoch == asked.epoch {
            // The connection before knew of a newer epoch; this one has yet to hear of it.
            self.position = Some(asked);
        }
    }
}

impl State {
    /// Nothing was asked for yet.
    pub(super) fn new(args: SubscribeArgs) -> Self {
        let mut topics = args.topics;
        topics.sort();
        topics.dedup();
        let subscription = |topic| Subscription {
            topic,
            position: args.since,
            asked_on: 0,
            asked_from: None,
            source: 0,
            covered: 0,
            acknowledged: 0,
            fresh: false,
            mode: Mode::All,
            wanted: Wanted::Asked,
        };
        Self {
            subscriptions: topics.into_iter().map(subscription).collect(),
            mode: args.mode.map(Mode::from),
            max_rate: args.max_rate,
            next_id: 1,
        }
    }

    /// The commands for a fresh connection.
    pub(super) fn subscribe_all(&mut self, link: u64) -> Vec<String> {
        self.subscribe(link, |wanted| !matches!(wanted, Wanted::Never(_)))
    }

    /// The commands for topics whose time to ask again has come.
    pub(super) fn subscribe_due(&mut self, link: u64, now: Instant) -> Vec<String> {
        self.subscribe(link, |wanted| matches!(wanted, Wanted::At(at) if *at <= now))
    }

    fn subscribe(&mut self, link: u64, is_wanted: impl Fn(&Wanted) -> bool) -> Vec<String> {
        let mut items = Vec::new();
        for subscription in self.subscriptions.iter_mut().filter(|one| is_wanted(&one.wanted)) {
            subscription.wanted = Wanted::Asked;
            subscription.asked_on = link;
            subscription.asked_from = subscription.position;
            if subscription.position.is_none() {
                // It begins with the kept value there, so nothing of the connection before may come in between.
                subscription.source = link;
            }
            let since =
                subscription.position.map(|at| Since { epoch: at.epoch, offset: at.offset });
            items.push(Item {
                topic: &subscription.topic,
                mode: self.mode,
                max_rate: self.max_rate,
                since,
            });
        }
        let commands = items.chunks(TOPICS_PER_COMMAND).zip(self.next_id..);
        let commands = commands.map(|(topics, id)| {
            // Text, numbers and no maps: this cannot fail.
            serde_json::to_string(&Command { r#type: "subscribe", id, topics }).unwrap_or_default()
        });
        let commands: Vec<_> = commands.collect();
        self.next_id += commands.len() as u64;
        commands
    }

    /// The earliest time to ask again for a topic.
    pub(super) fn due(&self) -> Option<Instant> {
        let times = self.subscriptions.iter().filter_map(|one| match one.wanted {
            Wanted::At(at) => Some(at),
            Wanted::Asked | Wanted::Never(_) => None,
        });
        times.min()
    }

    /// Why nothing is left to wait for, if so.
    pub(super) fn nothing_left(&self) -> Option<String> {
        let mut reasons = self.subscriptions.iter().map(|one| match &one.wanted {
            Wanted::Never(reason) => Some(reason),
            Wanted::Asked | Wanted::At(_) => None,
        });
        let first = reasons.next().flatten()?;
        reasons
            .all(|reason| reason.is_some())
            .then(|| format!("nothing could be subscribed: {first}"))
    }

    /// Does a connection feed all that is still wanted?
    pub(super) fn is_fed_by(&self, link: u64) -> bool {
        let mut wanted =
            self.subscriptions.iter().filter(|one| !matches!(one.wanted, Wanted::Never(_)));
        wanted.all(|one| one.source == link && one.position.is_some())
    }

    /// The gateway has acknowledged topics, and refused others.
    pub(super) fn subscribed(
        &mut self,
        link: u64,
        topics: &[Acknowledged<'_>],
        errors: &[Rejected<'_>],
        now: Instant,
    ) {
        for ack in topics {
            let Some(subscription) = self.find_asked(link, ack.topic) else { continue };
            subscription.source = link;
            subscription.covers(ack.epoch);
            subscription.acknowledged = ack.offset;
            subscription.mode = ack.mode;
            // A first subscription goes on behind the value that follows the acknowledgement, not behind the
            // acknowledgement: if the connection is lost in between, the value is still wanted.
            let first = Position { epoch: ack.epoch, offset: ack.offset.saturating_sub(1) };
            subscription.fresh = subscription.position.is_none();
            subscription.position.get_or_insert(first);
        }
        for error in errors {
            let Some(subscription) = self.find_asked(link, &error.topic) else { continue };
            subscription.wanted = match error.code {
                "unavailable" => Wanted::At(now + UNAVAILABLE_RETRY),
                code => {
                    Wanted::Never(printable(&format!("{} ({code}) {}", error.topic, error.message)))
                }
            };
        }
    }

    /// A publication has arrived. None if it is no news.
    pub(super) fn publication(
        &mut self,
        link: u64,
        publication: &Publication<'_>,
    ) -> Option<Arrival> {
        let Some(subscription) = self.find(publication.topic) else {
            return Some(Arrival::default());
        };
        let offset = publication.offset;
        if subscription.source != link || offset <= subscription.covered {
            return None;
        }
        let mut arrival =
            Arrival { live: offset > subscription.acknowledged, ..Arrival::default() };
        if let Some(position) = &mut subscription.position {
            let expected = position.offset.saturating_add(1);
            arrival.repeated = offset < expected;
            let no_value_kept = subscription.fresh && expected == subscription.acknowledged;
            let expected = expected + u64::from(no_value_kept && offset > expected);
            let skipped = subscription.mode == Mode::All && offset > expected;
            arrival.missing = skipped.then(|| (expected, offset - 1));
            subscription.fresh = false;
            position.offset = position.offset.max(offset);
        }
        Some(arrival)
    }

    /// The gateway has named offsets that will not come. Returns those of them that have not come before, if any.
    pub(super) fn gap(
        &mut self,
        link: u64,
        topic: &str,
        (from, to): (u64, u64),
    ) -> Option<(u64, u64)> {
        let Some(subscription) = self.find(topic) else { return Some((from, to)) };
        let from = from.max(subscription.covered + 1);
        if subscription.source != link || from > to {
            return None;
        }
        if let Some(position) = &mut subscription.position {
            position.offset = position.offset.max(to);
        }
        Some((from, to))
    }

    /// Offsets start anew; the next publication has this offset. `false` if that is no news.
    pub(super) fn reset(&mut self, link: u64, topic: &str, epoch: Epoch, offset: u64) -> bool {
        let Some(subscription) = self.find(topic) else { return true };
        if subscription.source != link {
            return false;
        }
        // The connection before was reset too, and has gone on from there: nothing lies between the two.
        let is_known = |position: Position| {
            position.epoch == epoch && offset <= position.offset.saturating_add(1)
        };
        if subscription.covered > 0 && subscription.position.is_some_and(is_known) {
            return false;
        }
        subscription.position = Some(Position { epoch, offset: offset.saturating_sub(1) });
        subscription.covered = 0;
        // The value that follows was published before the offsets started anew.
        subscription.acknowledged = offset;
        true
    }

    /// A topic that was asked for on this connection last.
    fn find_asked(&mut self, link: u64, topic: &str) -> Option<&mut Subscription> {
        self.find(topic).filter(|subscription| subscription.asked_on == link)
    }

    fn find(&mut self, topic: &str) -> Option<&mut Subscription> {
        // Sorted when they were made.
        let at = self.subscriptions.binary_search_by(|one| one.topic.as_str().cmp(topic)).ok()?;
        self.subscriptions.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(line: &str) -> State {
        use clap::Parser;
        let cli = crate::cli::Cli::parse_from(line.split_whitespace());
        match cli.command() {
            crate::cli::Command::Sub(args) => State::new(args),
            other => panic!("{other:?}"),
        }
    }

    fn ack(topic: &str, offset: u64) -> Acknowledged<'_> {
        Acknowledged { topic, epoch: "k".parse().unwrap(), offset, mode: Mode::All }
    }

    fn arrival(state: &mut State, link: u64, offset: u64) -> Option<Arrival> {
        state.publication(link, &Publication { topic: "a", offset, time: None, data: "1" })
    }

    fn publish(state: &mut State, offset: u64) -> Arrival {
        arrival(state, 1, offset).expect("news")
    }

    #[test]
    fn commands() {
        let mut first = state("tickcast sub b a a --mode latest --max-rate 2");
        assert_eq!(
            first.subscribe_all(1),
            [concat!(
                r#"{"type":"subscribe","id":1,"topics":[{"topic":"a","mode":"latest","max_rate":2.0},"#,
                r#"{"topic":"b","mode":"latest","max_rate":2.0}]}"#
            )]
        );
        let mut since = state("tickcast sub a --since k3f9:40");
        assert_eq!(
            since.subscribe_all(1),
            [
                r#"{"type":"subscribe","id":1,"topics":[{"topic":"a","since":{"epoch":"k3f9","offset":40}}]}"#
            ]
        );
        let topics: Vec<_> = (0..250).map(|number| format!("t{number}")).collect();
        let many = state(&format!("tickcast sub {}", topics.join(" "))).subscribe_all(1);
        assert_eq!(many.len(), 3);
        assert!(many[2].starts_with(r#"{"type":"subscribe","id":3,"#));
    }

    #[test]
    fn positions_follow_what_arrives() {
        let mut state = state("tickcast sub a");
        state.subscribe_all(1);
        state.subscribed(1, &[ack("a", 10)], &[], Instant::now());
        assert!(state.subscribe_all(1)[0].contains(r#""since":{"epoch":"k","offset":9}"#));
        assert_eq!(publish(&mut state, 10), Arrival::default(), "the kept value is not news");
        assert_eq!(publish(&mut state, 11), Arrival { live: true, ..Arrival::default() });
        assert_eq!(state.gap(1, "a", (12, 14)), Some((12, 14)));
        assert_eq!(publish(&mut state, 15).missing, None);
        assert_eq!(publish(&mut state, 18).missing, Some((16, 17)));
        assert!(publish(&mut state, 18).repeated);
        assert!(state.subscribe_all(1)[0].contains(r#""since":{"epoch":"k","offset":18}"#));
        assert!(state.reset(1, "a", "m".parse().unwrap(), 3));
        assert_eq!(publish(&mut state, 3), Arrival::default());
        assert!(state.subscribe_all(1)[0].contains(r#""since":{"epoch":"m","offset":3}"#));
        assert_eq!(
            state.publication(1, &Publication { topic: "x", offset: 1, time: None, data: "1" }),
            Some(Arrival::default())
        );
    }

    #[test]
    fn a_topic_without_a_kept_value_misses_nothing() {
        let check = |acknowledged, offset, missing| {
            let mut state = state("tickcast sub a");
            state.subscribe_all(1);
            state.subscribed(1, &[ack("a", acknowledged)], &[], Instant::now());
            assert_eq!(publish(&mut state, offset).missing, missing, "{acknowledged} {offset}");
            assert_eq!(publish(&mut state, offset + 1).missing, None);
        };
        check(0, 1, None);
        check(0, 2, Some((1, 1)));
        check(10, 10, None);
        check(10, 11, None);
        check(10, 12, Some((11, 11)));
        let mut resumed = state("tickcast sub a --since k:9");
        resumed.subscribe_all(1);
        resumed.subscribed(1, &[ack("a", 10)], &[], Instant::now());
        assert_eq!(publish(&mut resumed, 11).missing, Some((10, 10)));
    }

    #[test]
    fn refused_topics_are_asked_for_again_only_if_that_can_help() {
        let mut state = state("tickcast sub a b");
        state.subscribe_all(1);
        let now = Instant::now();
        let rejected =
            |topic: &'static str, code| Rejected { topic: topic.into(), code, message: "".into() };
        state.subscribed(1, &[], &[rejected("a", "unavailable"), rejected("b", "forbidden")], now);
        assert_eq!(state.due(), Some(now + UNAVAILABLE_RETRY));
        assert_eq!(state.nothing_left(), None);
        assert!(state.subscribe_due(1, now).is_empty());
        assert_eq!(state.subscribe_due(1, now + UNAVAILABLE_RETRY).len(), 1);
        assert_eq!(state.due(), None);
        state.subscribed(1, &[], &[rejected("a", "bad_topic")], now);
        assert_eq!(state.nothing_left().unwrap(), "nothing could be subscribed: a (bad_topic) ");
    }

    /// A topic that was at 10 when a second connection asked for it, and at 13 when that one was acknowledged.
    fn moving() -> State {
        let mut state = state("tickcast sub a");
        state.subscribe_all(1);
        state.subscribed(1, &[ack("a", 10)], &[], Instant::now());
        publish(&mut state, 10);
        assert!(state.subscribe_all(2)[0].contains(r#""since":{"epoch":"k","offset":10}"#));
        assert_eq!(arrival(&mut state, 1, 11), Some(Arrival { live: true, ..Arrival::default() }));
        assert_eq!(state.gap(1, "a", (12, 12)), Some((12, 12)));
        publish(&mut state, 13);
        assert!(state.is_fed_by(1) && !state.is_fed_by(2));
        state.subscribed(2, &[ack("a", 14)], &[], Instant::now());
        assert!(state.is_fed_by(2) && !state.is_fed_by(1));
        state
    }

    #[test]
    fn a_second_connection_takes_over_without_a_hole_or_a_repetition() {
        let mut state = moving();
        assert_eq!(arrival(&mut state, 1, 14), None, "it comes on the second one too");
        assert_eq!(state.gap(1, "a", (15, 16)), None);
        for again in 11..=13 {
            assert_eq!(arrival(&mut state, 2, again), None);
        }
        assert_eq!(arrival(&mut state, 2, 14), Some(Arrival::default()));
        assert_eq!(arrival(&mut state, 2, 14).map(|arrival| arrival.repeated), Some(true));
        assert_eq!(arrival(&mut state, 2, 17).and_then(|arrival| arrival.missing), Some((15, 16)));
    }

    #[test]
    fn of_a_gap_on_the_second_connection_only_the_news_are_told() {
        let mut state = moving();
        assert_eq!(state.gap(2, "a", (11, 12)), None);
        assert_eq!(state.gap(2, "a", (11, 20)), Some((14, 20)));
        assert_eq!(arrival(&mut state, 2, 21), Some(Arrival { live: true, ..Arrival::default() }));
    }

    #[test]
    fn a_reset_that_the_first_connection_has_told_is_not_told_again() {
        let epoch = |text: &str| text.parse().unwrap();
        let check = |offset, is_told, next, missing| {
            let mut state = state("tickcast sub a --since k:10");
            state.subscribe_all(1);
            state.subscribed(1, &[ack("a", 10)], &[], Instant::now());
            state.subscribe_all(2);
            assert!(state.reset(1, "a", epoch("m"), 3));
            publish(&mut state, 3);
            publish(&mut state, 4);
            let ack = Acknowledged { topic: "a", epoch: epoch("m"), offset, mode: Mode::All };
            state.subscribed(2, &[ack], &[], Instant::now());
            assert_eq!(state.reset(2, "a", epoch("m"), offset), is_told, "{offset}");
            let arrival = arrival(&mut state, 2, next);
            assert_eq!(arrival.and_then(|arrival| arrival.missing), missing, "{offset}");
        };
        check(4, false, 5, None);
        check(5, false, 5, None);
        check(8, true, 8, None);
        check(4, false, 6, Some((5, 5)));

        // The second connection has not heard of the new epoch yet.
        let mut state = state("tickcast sub a --since k:10");
        state.subscribe_all(1);
        state.subscribed(1, &[ack("a", 10)], &[], Instant::now());
        state.subscribe_all(2);
        assert!(state.reset(1, "a", epoch("m"), 3));
        state.subscribed(2, &[ack("a", 11)], &[], Instant::now());
        assert_eq!(arrival(&mut state, 2, 11), Some(Arrival::default()));
        assert!(state.reset(2, "a", epoch("m"), 3));
    }

    #[test]
    fn a_topic_that_had_nothing_yet_belongs_to_the_connection_that_asked_last() {
        let mut state = state("tickcast sub a");
        state.subscribe_all(1);
        state.subscribe_all(2);
        state.subscribed(1, &[ack("a", 10)], &[], Instant::now());
        assert_eq!(arrival(&mut state, 1, 10), None);
        assert!(!state.is_fed_by(2));
        state.subscribed(2, &[ack("a", 11)], &[], Instant::now());
        assert_eq!(arrival(&mut state, 2, 11), Some(Arrival::default()));
        assert!(state.is_fed_by(2));
    }
}
