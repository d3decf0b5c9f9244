//! Nothing grows with what has been: only this module can look at what the tables hold.

use std::time::Duration;

use tickcast_protocol::{Position, SubscribeItem};

use super::*;
use crate::hub::HubLimits;
use crate::inbox::Inbox;
use crate::job::State;
use crate::options::{LogBounds, TopicOptions, TopicRules};

#[derive(Debug)]
struct Defaults;

impl TopicRules for Defaults {
    fn options(&self, _topic: &str) -> TopicOptions {
        let log = LogBounds { publications: 10, bytes: 10_000, age: Duration::from_secs(60) };
        let (mode, keeps_value) = (Mode::All, true);
        TopicOptions { mode, max_rate: None, flush_interval_ms: 0, keeps_value, log }
    }
}

struct Silent;

impl Replies for Silent {
    fn reply(&mut self, _connection: ConnectionId, _message: &ServerMessage<'_>) {}
}

fn fanout() -> (Fanout, Arc<Hub>, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::new(1000, || {}));
    let limits = HubLimits { log_bytes: 1 << 20 };
    let hub = Arc::new(Hub::new(limits, Arc::new(Defaults), vec![Arc::clone(&inbox)], || {}));
    let limits = FanoutLimits { subscriptions_per_connection: 10, settle_ms: 1000 };
    (Fanout::new(Arc::clone(&hub), 0, limits), hub, inbox)
}

fn item(topic: &str, interval_ms: u32) -> Result<SubscribeItem, tickcast_protocol::Rejection> {
    let topic = Topic::new(topic).unwrap();
    let max_rate = Rate::from_interval_ms(interval_ms);
    Ok(SubscribeItem { topic, mode: max_rate.map(|_| Mode::Latest), max_rate, since: None })
}

fn turn(fanout: &mut Fanout, inbox: &Inbox, now: u64) {
    let (mut items, mut plan) = (VecDeque::new(), Plan::default());
    fanout.advance(now, &mut Silent);
    inbox.take(&mut items);
    for item in items {
        fanout.apply(item, &mut Silent);
    }
    while let Some(connection) = fanout.pop_dirty() {
        fanout.gather(connection, &[], &mut plan);
        let written = plan.bytes().len();
        fanout.commit(connection, &plan, written);
    }
}

#[test]
fn slow_rates_of_clients_that_are_gone_leave_no_timers_behind() {
    let (mut fanout, hub, inbox) = fanout();
    let name = Topic::new("t").unwrap();
    let keeper = fanout.attach();
    fanout.subscribe(keeper, None, vec![item("t", 0)], &mut Silent);
    let mut position = Position { epoch: tickcast_protocol::Epoch::new(1), offset: 0 };
    let state = State { position, value: None, history: Vec::new(), complete: true };
    hub.opened(&name, state);
    for now in 1..5000 {
        let client = fanout.attach();
        fanout.subscribe(client, None, vec![item("t", 100_000)], &mut Silent);
        for _ in 0..2 {
            position.offset += 1;
            hub.deliver(Arc::new(Publication::new(name.clone(), position, 0, b"1")));
            turn(&mut fanout, &inbox, now);
        }
        fanout.detach(client);
    }
    assert!(fanout.wheel.len() <= 1100, "{} timers", fanout.wheel.len());
    turn(&mut fanout, &inbox, 200_000);
    assert_eq!((fanout.wheel.len(), fanout.starting.len(), fanout.queue.len()), (0, 0, 0));
}

#[test]
fn a_topic_that_never_opens_remembers_only_the_commands_that_wait() {
    let (mut fanout, _hub, inbox) = fanout();
    let keeper = fanout.attach();
    let keep = |fanout: &mut Fanout| {
        fanout.subscribe(keeper, None, vec![item("t", 0)], &mut Silent);
    };
    keep(&mut fanout);
    for now in 1..5000 {
        let client = fanout.attach();
        fanout.subscribe(client, None, vec![item("t", 0), item("u", 0)], &mut Silent);
        fanout.detach(client);
        if now % 500 == 0 {
            keep(&mut fanout);
        }
        turn(&mut fanout, &inbox, now);
    }
    let waiting: usize = fanout.topics.iter().map(|(_, topic)| topic.acks.len()).sum();
    assert!(waiting <= 64, "{waiting} commands");
    assert!(fanout.wheel.len() <= 1100, "{} timers", fanout.wheel.len());
    turn(&mut fanout, &inbox, 10_000);
    assert_eq!((fanout.acks.len(), fanout.starting.len(), fanout.topics()), (0, 0, 0));
}

#[test]
fn what_is_held_includes_what_is_still_waited_for() {
    let (mut fanout, _hub, _inbox) = fanout();
    let [first, second] = [(); 2].map(|()| fanout.attach());
    let held = |fanout: &Fanout, connection| {
        let mut names: Vec<_> = fanout.held(connection).map(Topic::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(held(&fanout, first), [""; 0]);
    fanout.subscribe(first, None, vec![item("t", 0), item("u", 0)], &mut Silent);
    fanout.subscribe(second, None, vec![item("u", 0)], &mut Silent);
    assert_eq!(held(&fanout, first), ["t", "u"]);
    assert_eq!(held(&fanout, second), ["u"]);
    fanout.unsubscribe(first, None, vec![Ok(Topic::new("u").unwrap())], &mut Silent);
    assert_eq!(held(&fanout, first), ["t"]);
    fanout.detach(first);
    assert_eq!(held(&fanout, first), [""; 0]);
    assert_eq!(held(&fanout, second), ["u"]);
}
