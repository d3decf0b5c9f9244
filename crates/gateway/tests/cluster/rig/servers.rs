//! The servers forget, hang, follow and take over as the tests want them to.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::process::{PATIENCE, until};
use crate::redis::{Memory, Redis, Sentinels};

#[test]
fn a_server_that_was_killed_has_what_it_saved() {
    let mut redis = Redis::start(&[]);
    let address = redis.address();
    let id = redis.info("replication", "master_replid");
    redis.tell(&["SET", "saved", "1"]);
    redis.tell(&["SAVE"]);
    redis.tell(&["SET", "unsaved", "1"]);
    redis.kill();
    assert!(redis.try_ask::<String>(&["PING"]).is_err());
    redis.start_again(Memory::Saved);
    assert_eq!(
        redis.ask::<Vec<Option<String>>>(&["MGET", "saved", "unsaved"]),
        [Some("1".to_owned()), None]
    );
    redis.kill();
    redis.start_again(Memory::Lost);
    assert_eq!(redis.ask::<u64>(&["DBSIZE"]), 0);
    assert_eq!(redis.address(), address);
    assert_ne!(redis.info("replication", "master_replid"), id);
}

#[test]
fn a_server_that_hangs_answers_later() {
    let redis = Redis::start(&[]);
    redis.stop();
    let mut connection = TcpStream::connect(redis.address()).expect("the kernel accepts for it");
    connection.write_all(b"PING\r\n").expect("the kernel takes bytes for it");
    connection.set_read_timeout(Some(Duration::from_millis(100))).expect("an open connection");
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).expect_err("no answer yet");
    redis.go_on();
    connection.set_read_timeout(Some(PATIENCE)).expect("an open connection");
    connection.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn sentinels_let_the_replica_take_over() {
    let mut master = Redis::start(&[]);
    let replica = master.start_replica(&[]);
    let sentinels = Sentinels::start(3, 2, Duration::from_millis(500), &master);
    assert_eq!(sentinels.master(), Some(master.address()));
    assert!(!replica.is_master());
    master.kill();
    let time = until("promoted", PATIENCE, || replica.is_master());
    until("known", PATIENCE, || sentinels.master() == Some(replica.address()));
    println!("promoted after {time:?}");
}
