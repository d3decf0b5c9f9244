//! A node that cannot keep up with what Redis has for it, or may not have it.

use std::time::{Duration, Instant};

use crate::bounds::HEARD;
use crate::harness::{Cluster, LOAD, Node, alone, beside};
use crate::process::{PATIENCE, until};
use crate::proxy::{Direction, Flow, Proxy, Way};
use crate::redis::Redis;

/// What a node may grow by: what it keeps of each topic, and what is under way.
const GROWTH_MAX_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// Two nodes, of which only the first is behind the proxy. Publishers use the other one.
fn one_behind_a_proxy(redis: &Redis) -> (Proxy, Cluster) {
    let proxy = Proxy::start(redis.address(), 5);
    let nodes = vec![Node::start(&proxy.url(), &[]), Node::start(&redis.url(), &[])];
    let cluster = Cluster::start(nodes, LOAD);
    cluster.world.set_nodes(vec![cluster.nodes[1].address]);
    (proxy, cluster)
}

#[test]
fn redis_gives_up_on_a_node_that_does_not_read() {
    let _turn = alone();
    let redis = Redis::start(&["client-output-buffer-limit pubsub 1mb 256kb 1"]);
    let (proxy, cluster) = one_behind_a_proxy(&redis);
    let start = Instant::now();
    proxy.set(Direction::ToClient, Way { flow: Flow::Held, ..Way::default() });
    // 10 MB are more than the proxy, the kernel and Redis hold for one connection. The history holds it: one payload of
    // each burst for each topic.
    (1..=13).for_each(|burst| cluster.burst(&cluster.nodes[1], burst, LOAD.topics, 64_000));
    until("given up on", PATIENCE, || redis.log().contains("overcoming of output buffer limits"));
    println!("Redis gave up after {:?}", start.elapsed());
    let back = Instant::now();
    proxy.clear();
    let heard = cluster.fleet.until_heard(back);
    let repaired = cluster.until_level();
    println!("all reached after {heard:?}, and up to date {repaired:?} later");
    assert!(heard < HEARD, "{heard:?}");
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert_eq!((tally.resets, tally.gaps), (0, 0), "the history holds all of it: {tally:?}");
}

#[test]
fn a_link_that_is_too_narrow() {
    let _turn = alone();
    let redis = Redis::start(&[]);
    let (proxy, cluster) = one_behind_a_proxy(&redis);
    let before = cluster.nodes[0].resident_bytes();
    proxy.set_both(Way { bytes_per_second: Some(64 * 1024), ..Way::default() });
    let start = Instant::now();
    let mut most = before;
    for second in 1..=8 {
        // Three times what passes.
        cluster.burst(&cluster.nodes[1], second, 15, 13_000);
        most = most.max(cluster.nodes[0].resident_bytes());
        until("over", PATIENCE, || start.elapsed() > Duration::from_secs(second));
    }
    let downs = cluster.fleet.sum(|notes| notes.downs.len() as u64);
    println!(
        "{} bytes more at most; clients were told {downs} times that it is down",
        most - before
    );
    assert!(most - before < GROWTH_MAX_BYTES, "{before} and then {most}");
    let back = Instant::now();
    proxy.clear();
    let heard = cluster.fleet.until_heard(back);
    let repaired = cluster.until_level();
    println!("all reached after {heard:?}, and up to date {repaired:?} later");
    assert_eq!(cluster.fleet.sum(|notes| notes.ends), 0, "clients keep their connections");
    let tally = cluster.finish();
    assert_eq!(tally.resets, 0, "{tally:?}");
}

#[test]
fn redis_denies_one_channel() {
    let _turn = beside();
    let redis = Redis::start(&[]);
    let cluster = Cluster::on(&redis.url(), 2, &[]);
    let denied = "tickcast_broker_subscriptions_denied";
    // Redis cuts connections that hold a channel which is denied.
    let allowed =
        "resetchannels &tickcast:node:* &tickcast:{*}:c:ticker.[1-9]* &tickcast:{*}:c:other";
    let rule: Vec<_> =
        ["ACL", "SETUSER", "default"].into_iter().chain(allowed.split(' ')).collect();
    redis.tell(&rule);
    until("counted", PATIENCE, || cluster.nodes.iter().all(|node| node.metric(denied) == 1.0));
    let publish = |topic| cluster.nodes[0].publish(topic, "key", "1").status;
    assert_eq!((publish("other"), publish("denied")), (200, 503));
    // Publishers wait for the topic that is denied; with it everything goes on.
    redis.tell(&["ACL", "SETUSER", "default", "allchannels"]);
    until("allowed", PATIENCE, || cluster.nodes.iter().all(|node| node.metric(denied) == 0.0));
    let tally = cluster.finish();
    assert_eq!(tally.resets, 0, "{tally:?}");
}
