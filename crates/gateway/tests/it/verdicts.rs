//! The log oracle finds each kind of error, and nothing where there is none.

use crate::oracle::{Breach, Follower, Oracle, Place, Tally};

/// A client of the topic `a` and its judge. Publications are numbers, so that their payload is their offset.
struct Case {
    oracle: Oracle,
    client: Follower,
}

fn place(epoch: &str, offset: u64) -> Place {
    Place { epoch: epoch.to_owned(), offset }
}

fn data(offset: u64) -> String {
    format!(r#"{{"topic":"a","offset":{offset},"time":1,"data":{offset}}}"#)
}

fn acknowledgement(epoch: &str, offset: u64, mode: &str) -> String {
    format!(
        r#"{{"type":"subscribed","topics":[{{"topic":"a","epoch":"{epoch}","offset":{offset},"mode":"{mode}"}}],"errors":[]}}"#
    )
}

fn gap(from: u64, to: u64) -> String {
    format!(r#"{{"type":"gap","topic":"a","from":{from},"to":{to},"reason":"lost"}}"#)
}

fn reset(epoch: &str, offset: u64) -> String {
    format!(
        r#"{{"type":"reset","topic":"a","epoch":"{epoch}","offset":{offset},"reason":"broker_restart"}}"#
    )
}

impl Case {
    /// A client that was acknowledged at offset 3 of epoch `e`, where 1 to 9 are published sooner or later.
    fn new(mode: &str) -> Self {
        let mut case = Self { oracle: Oracle::default(), client: Follower::new("client") };
        for offset in 1..=9 {
            case.oracle.published("a", &place("e", offset), &offset.to_string());
        }
        case.client.asks("a", false);
        case.reads(&[&acknowledgement("e", 3, mode)]);
        case
    }

    fn reads(&mut self, texts: &[&str]) {
        texts.iter().for_each(|text| self.client.receives(text, &mut self.oracle));
    }

    fn numbers(&mut self, offsets: impl IntoIterator<Item = u64>) {
        offsets.into_iter().for_each(|offset| self.reads(&[&data(offset)]));
    }

    /// The connection is lost and the client comes back with its place.
    fn comes_back(&mut self, acknowledgement: &str) {
        self.client.loses_connection();
        self.client.asks("a", true);
        self.reads(&[acknowledgement]);
    }

    /// The client has read everything.
    fn verdict(mut self) -> Result<Tally, Vec<Breach>> {
        self.client.is_done(&mut self.oracle);
        let findings = self.oracle.verdict();
        findings.map_err(|findings| findings.into_iter().map(|finding| finding.breach).collect())
    }

    fn expect(self, breaches: &[Breach]) {
        assert_eq!(self.verdict().err().unwrap_or_default(), breaches);
    }
}

#[test]
fn a_stream_without_error_is_found_good() {
    let mut case = Case::new("all");
    case.numbers(3..=5);
    case.comes_back(&acknowledgement("e", 7, "all"));
    case.numbers(6..=6);
    case.reads(&[&gap(7, 8), r#"{"type":"status","broker":"up"}"#]);
    case.numbers(9..=9);
    let expected = Tally {
        published: 9,
        delivered: 5,
        gaps: 1,
        named: 2,
        started: 2,
        resumed: 1,
        ..Tally::default()
    };
    assert_eq!(case.verdict(), Ok(expected));
}

#[test]
fn mode_latest_may_jump_forward_only() {
    let mut case = Case::new("latest");
    case.numbers([3, 7, 9]);
    assert_eq!(case.verdict().map(|tally| tally.conflated), Ok(4));
    let mut case = Case::new("latest");
    case.numbers([3, 7, 6, 9]);
    case.expect(&[Breach::Repeated]);
    let mut case = Case::new("latest");
    case.numbers([3]);
    case.reads(&[&gap(4, 8)]);
    case.numbers([9]);
    case.expect(&[Breach::WrongGap]);
}

#[test]
fn repetitions() {
    let mut case = Case::new("all");
    case.numbers([3, 4, 5, 5, 6, 7, 8, 9]);
    case.expect(&[Breach::Repeated]);
    let mut case = Case::new("all");
    case.numbers(3..=9);
    case.comes_back(&acknowledgement("e", 9, "all"));
    case.numbers([9]);
    case.expect(&[Breach::Repeated]);
}

#[test]
fn wrong_order() {
    let mut case = Case::new("all");
    case.numbers([3, 5, 4, 6, 7, 8, 9]);
    case.expect(&[Breach::Hole, Breach::Repeated]);
}

#[test]
fn holes() {
    let mut case = Case::new("all");
    case.numbers([3, 4, 6, 7, 8, 9]);
    case.expect(&[Breach::Hole]);
    // The snapshot is missing.
    let mut case = Case::new("all");
    case.numbers(4..=9);
    case.expect(&[Breach::Hole]);
    // One was lost while the client was away.
    let mut case = Case::new("all");
    case.numbers(3..=5);
    case.comes_back(&acknowledgement("e", 6, "all"));
    case.numbers(7..=9);
    case.expect(&[Breach::Hole]);
    // The gap ends too early.
    let mut case = Case::new("all");
    case.numbers([3]);
    case.reads(&[&gap(4, 6)]);
    case.numbers(8..=9);
    case.expect(&[Breach::Hole]);
}

#[test]
fn what_does_not_come_at_the_end() {
    for mode in ["all", "latest"] {
        let mut case = Case::new(mode);
        case.numbers(3..=8);
        case.expect(&[Breach::Missing]);
    }
    let mut case = Case::new("all");
    case.numbers(3..=8);
    case.client.loses_connection();
    case.expect(&[]);
}

#[test]
fn other_payloads() {
    let mut case = Case::new("all");
    case.numbers([3]);
    case.reads(&[r#"{"topic":"a","offset":4,"time":1,"data":4.0}"#]);
    case.numbers(5..=9);
    case.expect(&[Breach::OtherPayload]);
    // Two publishers were given one place.
    let mut case = Case::new("all");
    case.numbers(3..=9);
    case.oracle.published("a", &place("e", 9), "other");
    case.expect(&[Breach::OtherPayload]);
}

#[test]
fn what_nobody_published() {
    let mut case = Case::new("all");
    case.numbers(3..=10);
    case.expect(&[Breach::NeverPublished]);
    let mut case = Case::new("all");
    case.numbers(3..=8);
    case.reads(&[&gap(9, 12)]);
    case.expect(&[Breach::WrongGap]);
}

#[test]
fn what_nobody_asked_for() {
    let mut case = Case::new("all");
    case.numbers(3..=9);
    case.reads(&[r#"{"topic":"b","offset":1,"time":1,"data":1}"#]);
    case.expect(&[Breach::Unasked]);
    // Before the acknowledgement.
    let mut case = Case::new("all");
    case.numbers(3..=8);
    case.client.loses_connection();
    case.client.asks("a", true);
    case.numbers(9..=9);
    case.client.loses_connection();
    case.expect(&[Breach::Unasked]);
}

#[test]
fn wrong_gaps() {
    for (from, to) in [(5, 6), (3, 6), (4, 3)] {
        let mut case = Case::new("all");
        case.numbers([3]);
        case.reads(&[&gap(from, to)]);
        assert_eq!(case.oracle.findings()[0].breach, Breach::WrongGap, "{from} to {to}");
    }
}

#[test]
fn epochs() {
    let mut good = Case::new("all");
    good.oracle.published("a", &place("f", 2), "2");
    good.oracle.published("a", &place("f", 3), "3");
    good.numbers(3..=9);
    good.reads(&[&reset("f", 2)]);
    good.numbers(2..=3);
    assert_eq!(good.verdict().map(|tally| tally.resets), Ok(1));

    let mut without_reset = Case::new("all");
    without_reset.numbers(3..=9);
    without_reset.comes_back(&acknowledgement("f", 9, "all"));
    without_reset.numbers([10]);
    assert_eq!(without_reset.oracle.findings()[0].breach, Breach::NoReset);

    let mut needless = Case::new("all");
    needless.numbers([3]);
    needless.reads(&[&reset("e", 4)]);
    needless.numbers(4..=9);
    needless.expect(&[Breach::NeedlessReset]);

    let mut wrong_start = Case::new("latest");
    wrong_start.numbers(3..=9);
    wrong_start.reads(&[&reset("f", 2)]);
    wrong_start.numbers([3]);
    assert_eq!(wrong_start.oracle.findings()[0].breach, Breach::WrongStart);

    let mut returned = Case::new("all");
    returned.numbers([3]);
    returned.reads(&[&reset("f", 1), &data(1), &reset("e", 9)]);
    assert_eq!(returned.oracle.findings()[0].breach, Breach::EpochReturned);
}

#[test]
fn a_place_ahead_of_the_topic_is_reset_in_its_own_epoch() {
    let mut case = Case::new("all");
    case.numbers(3..=9);
    case.comes_back(&acknowledgement("e", 8, "all"));
    case.reads(&[&reset("e", 8), &data(8), &data(9)]);
    assert_eq!(case.verdict().map(|tally| tally.resets), Ok(1));
}

#[test]
fn refusals_and_nonsense() {
    for (text, breach) in [
        (r#"{"type":"error","code":"unavailable","message":"x"}"#, Breach::Refused),
        (r#"{"type":"subscribed","topics":[],"errors":[{"topic":"a"}]}"#, Breach::Refused),
        (r#"{"type":"news"}"#, Breach::Unreadable),
        (r#"{"offset":1}"#, Breach::Unreadable),
        ("{", Breach::Unreadable),
    ] {
        let mut case = Case::new("all");
        case.numbers(3..=9);
        case.reads(&[text]);
        case.expect(&[breach]);
    }
}

#[test]
fn a_client_that_is_not_acknowledged_is_not_up_to_date() {
    let mut case = Case::new("all");
    assert!(!case.client.is_up_to_date(&case.oracle));
    case.numbers(3..=9);
    assert!(case.client.is_up_to_date(&case.oracle));
    case.client.asks("b", false);
    assert!(!case.client.is_up_to_date(&case.oracle));
    case.expect(&[Breach::Missing]);
}

/// A client at 5, whose second connection was asked to take over at 3 and is acknowledged.
fn taken_over(mode: &str) -> Case {
    let mut case = Case::new(mode);
    case.numbers(3..=3);
    assert_eq!(case.client.asks_beside("a"), Some(&place("e", 3)));
    case.numbers(4..=5);
    case.reads(&[&acknowledgement("e", 6, mode)]);
    case
}

#[test]
fn a_second_connection_repeats_what_came_meanwhile_and_nothing_else() {
    let mut case = taken_over("all");
    case.numbers(4..=9);
    let tally = case.verdict();
    assert_eq!(
        tally.map(|tally| (tally.delivered, tally.overlapped, tally.resumed)),
        Ok((7, 2, 1))
    );
    let mut case = taken_over("all");
    case.numbers([4, 5, 5, 6, 7, 8, 9]);
    case.expect(&[Breach::Repeated]);
    let mut case = taken_over("all");
    case.numbers([3, 4, 5, 6, 7, 8, 9]);
    case.expect(&[Breach::Repeated]);
    let mut case = taken_over("all");
    case.numbers([5, 6, 7, 8, 9]);
    case.expect(&[Breach::Hole]);
    let mut case = taken_over("all");
    case.numbers([4, 6, 7, 8, 9]);
    case.expect(&[Breach::Hole]);
    let mut case = taken_over("latest");
    case.numbers([5, 9]);
    case.expect(&[]);
    let mut case = taken_over("latest");
    case.numbers([9]);
    case.expect(&[]);
}

#[test]
fn gaps_and_resets_of_a_second_connection() {
    let mut case = taken_over("all");
    case.reads(&[&gap(4, 8)]);
    case.numbers([9]);
    case.expect(&[]);
    let mut case = taken_over("all");
    case.reads(&[&gap(6, 8)]);
    case.numbers([9]);
    case.expect(&[Breach::WrongGap]);
    // It has another epoch: a reset is owed.
    let second = |texts: &[&str]| {
        let mut case = Case::new("all");
        case.numbers(3..=9);
        case.client.asks_beside("a");
        case.oracle.published("a", &place("f", 1), "1");
        case.reads(&[&acknowledgement("f", 1, "all")]);
        case.reads(texts);
        case
    };
    second(&[&reset("f", 1), &data(1)]).expect(&[]);
    second(&[&data(1)]).expect(&[Breach::NoReset]);
    // The first one was lost before the second was acknowledged, or the other way round.
    let mut case = Case::new("all");
    case.numbers(3..=4);
    case.client.asks_beside("a");
    case.client.loses_second();
    case.numbers(5..=9);
    case.expect(&[]);
}
