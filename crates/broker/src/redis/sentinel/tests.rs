//! Real Sentinels, and some that only pretend to be one and can be told what to say.

mod pretended;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{Answer, Answers, Patience, ask, watch};
use crate::redis::address::{HostPort, Place, Sentinels};
use crate::redis::dial::tests::dialer;
use crate::redis::dial::tests::sentinels::{Group, wait_for};
use crate::redis::dial::tests::server::free_port;
use crate::redis::dial::{DIAL_TIMEOUT, Dialer, Failure};
use pretended::Sentinel;

const SOON: Duration = Duration::from_secs(20);

fn host(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".to_owned(), port }
}

fn sentinels(dialer: &Dialer) -> &Sentinels {
    match dialer.url().place() {
        Place::Sentinels(sentinels) => sentinels,
        _ => panic!("the URL names no Sentinels"),
    }
}

async fn ask_all(dialer: &Dialer) -> Answers {
    ask(sentinels(dialer), None, Instant::now() + DIAL_TIMEOUT, Patience::All).await
}

/// The answers of some Sentinels: 0 for one that knows no such master.
fn answers(masters: &[u16]) -> Answers {
    let answer = |port| if port == 0 { Answer::Unknown } else { Answer::Master(host(port)) };
    Answers { by_sentinel: masters.iter().map(|port| (host(1), answer(*port))).collect() }
}

/// Runs a watch and hands out what it says.
fn start_watch(
    dialer: Dialer,
    session: &Arc<Mutex<Option<String>>>,
) -> (JoinSet<()>, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::channel(16);
    let session = Arc::clone(session);
    let mut task = JoinSet::new();
    task.spawn(watch(
        Arc::new(dialer),
        move || session.lock().clone(),
        move |master| sender.try_send(master.to_owned()).unwrap(),
    ));
    (task, receiver)
}

#[test]
fn most_of_those_that_answer_decide() {
    let of_test = dialer("redis+sentinel://a,b,c/main");
    let sentinels = sentinels(&of_test);
    let candidates = |masters: &[u16]| {
        answers(masters).candidates(sentinels).map(|hosts| hosts.iter().map(|h| h.port).collect())
    };
    let majority = |masters: &[u16]| answers(masters).majority().map(|host| host.port);
    let cases: [(&[u16], Option<u16>, Vec<u16>); 6] = [
        (&[5, 5, 6], Some(5), vec![5]),
        (&[6, 5, 5], Some(5), vec![5]),
        (&[5], Some(5), vec![5]),
        (&[0, 5, 0], Some(5), vec![5]),
        (&[5, 6], None, vec![5, 6]),
        (&[5, 6, 7], None, vec![5, 6, 7]),
    ];
    for (masters, expected, expected_candidates) in cases {
        assert_eq!(majority(masters), expected, "{masters:?}");
        assert_eq!(candidates(masters), Ok(expected_candidates), "{masters:?}");
    }
    assert_eq!(majority(&[]), None);
    assert_eq!(candidates(&[0, 0]).unwrap_err().failure, Failure::UnknownMaster);
    assert!(matches!(candidates(&[]).unwrap_err().failure, Failure::NoSentinel(_)));
}

#[tokio::test]
async fn the_new_master_is_followed_after_a_failover() {
    let mut group = Group::start().await;
    let url = group.url();
    let old = format!("127.0.0.1:{}", group.master.port);
    let dialed = dialer(&url).commands().await.unwrap();
    assert_eq!(dialed.server.address, old);
    let answers = ask_all(&dialer(&url)).await;
    assert_eq!(answers.majority(), Some(&host(group.master.port)));
    assert_eq!(answers.by_sentinel.len(), 3);

    let session = Arc::new(Mutex::new(Some(old)));
    let (_watch, mut moved) = start_watch(dialer(&url), &session);
    group.master.kill();
    let master = timeout(SOON, moved.recv()).await.unwrap().unwrap();
    assert_eq!(master, format!("127.0.0.1:{}", group.replica.port));
    let again = dialer(&url).commands().await.unwrap();
    assert_eq!(again.server.address, master);
    assert_ne!(again.server.replid, dialed.server.replid);
}

#[tokio::test]
async fn a_sentinel_with_an_outdated_view_moves_nobody() {
    let all = [Sentinel::start(1).await, Sentinel::start(1).await, Sentinel::start(1).await];
    let session = Arc::new(Mutex::new(Some("127.0.0.1:1".to_owned())));
    let (_watch, mut moved) = start_watch(dialer(&Sentinel::url(&all)), &session);
    for sentinel in &all {
        sentinel.wait_for_listeners(1).await;
    }
    // One alone is not followed. Questions are asked one after the other: when the third begins, the answers to the
    // second, which was asked after the switch, have been looked at.
    for _ in 0..3 {
        let asked = all[0].asked();
        all[0].switch(2);
        wait_for(|| all[0].asked() > asked).await;
    }
    assert!(moved.try_recv().is_err());
    // Together with a second one it is.
    all[1].switch(2);
    assert_eq!(timeout(SOON, moved.recv()).await.unwrap().unwrap(), "127.0.0.1:2");
    // Once the session is where they say, all is well.
    *session.lock() = Some("127.0.0.1:2".to_owned());
    while moved.try_recv().is_ok() {}
    for _ in 0..3 {
        let asked = all[2].asked();
        all[2].switch(2);
        wait_for(|| all[2].asked() > asked).await;
    }
    assert!(moved.try_recv().is_err());
}

#[tokio::test]
async fn a_move_is_noticed_without_a_message_and_after_a_lost_connection() {
    let all = [Sentinel::start(1).await];
    let session = Arc::new(Mutex::new(Some("127.0.0.1:1".to_owned())));
    let (_watch, mut moved) = start_watch(dialer(&Sentinel::url(&all)), &session);
    all[0].wait_for_listeners(1).await;
    all[0].names(2);
    all[0].disconnect();
    // Long before it would be asked anyway.
    let master = timeout(Duration::from_secs(4), moved.recv()).await.unwrap().unwrap();
    assert_eq!(master, "127.0.0.1:2");
    *session.lock() = Some(master);
    while moved.try_recv().is_ok() {}
    // Nothing is published, and nothing is lost: only the question that is asked now and then can tell.
    all[0].wait_for_listeners(2).await;
    all[0].names(3);
    assert_eq!(timeout(SOON, moved.recv()).await.unwrap().unwrap(), "127.0.0.1:3");
}

#[tokio::test]
async fn sentinels_that_do_not_answer_do_not_keep_others_from_being_asked() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answering = Sentinel::start(7).await;
    let ports = [free_port(), silent.local_addr().unwrap().port(), answering.port];
    let [refused, silent, answering] = ports;
    let url = format!(
        "redis+sentinel://127.0.0.1:{refused},127.0.0.1:{silent},127.0.0.1:{answering}/main"
    );
    let dialer = dialer(&url);
    let answers = ask_all(&dialer).await;
    assert_eq!(answers.candidates(sentinels(&dialer)), Ok(vec![host(7)]));
    // Nobody listens where the master should be.
    let error = dialer.commands().await.unwrap_err();
    assert_eq!(error, Failure::Refused.at("127.0.0.1:7"));
}

#[tokio::test]
async fn what_the_sentinels_cannot_tell_is_named() {
    let all = [Sentinel::start(0).await];
    let error = dialer(&Sentinel::url(&all)).commands().await.unwrap_err();
    assert_eq!(error.failure, Failure::UnknownMaster);
    let url = format!("redis+sentinel://127.0.0.1:{}/main", free_port());
    let error = dialer(&url).commands().await.unwrap_err().to_string();
    assert!(error.starts_with("master `main`: no Sentinel answered: 127.0.0.1:"), "{error}");
    assert!(error.contains("nothing listens there"), "{error}");
}

#[tokio::test]
async fn without_sentinels_there_is_nothing_to_watch() {
    watch(Arc::new(dialer("redis://localhost")), || None, |_| panic!("moved")).await;
}
