//! Dialling real servers, and some that only pretend to be one.

mod pretended;
mod tls;

#[path = "../../../tests/dial/support/certificates.rs"]
mod certificates;
#[path = "../../../tests/dial/support/sentinels.rs"]
pub(in crate::redis) mod sentinels;
#[path = "../../../tests/dial/support/server.rs"]
pub(in crate::redis) mod server;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use super::error::Step;
use super::session::Attempt;
use super::{DIAL_TIMEOUT, DialError, Dialed, Dialer, Failure, Purpose, Tries};
use crate::redis::TlsFiles;
use crate::redis::address::HostPort;
use sentinels::wait_for;
use server::{Server, free_port};

/// For what comes at once, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

pub(in crate::redis) fn dialer(url: &str) -> Dialer {
    Dialer::new(url.parse().unwrap(), TlsFiles::default()).unwrap()
}

async fn dial(url: &str) -> Result<Dialed, DialError> {
    dialer(url).commands().await
}

async fn failure(url: &str) -> Failure {
    dial(url).await.unwrap_err().failure
}

async fn ask(dialed: &mut Dialed, words: &[&str]) -> Value {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.query_async(&mut dialed.connection).await.unwrap()
}

#[tokio::test]
async fn tells_who_the_server_is() {
    let server = Server::start(&[]);
    let mut dialed = dial(&server.url()).await.unwrap();
    let facts = &dialed.server;
    assert_eq!(facts.address, format!("127.0.0.1:{}", server.port));
    assert_eq!(facts.peer, facts.address);
    assert_eq!((facts.replid.len(), facts.run_id.len()), (40, 40));
    assert!(facts.version.starts_with(|c: char| c.is_ascii_digit()), "{facts:?}");
    let id = dialed.client_id.unwrap();
    let list = server.command(&["CLIENT", "LIST", "ID", &id.to_string()]);
    let list: String = redis::from_redis_value(list).unwrap();
    assert!(list.contains(" name=tickcast-commands ") && list.contains(" resp=3"), "{list}");
    assert_eq!(ask(&mut dialed, &["PING"]).await, Value::SimpleString("PONG".to_owned()));
}

#[tokio::test]
async fn a_name_is_resolved_and_the_database_chosen() {
    let server = Server::start(&[]);
    let url = format!("redis://localhost:{}/3", server.port);
    let mut dialed = dial(&url).await.unwrap();
    assert_eq!(dialed.server.address, format!("localhost:{}", server.port));
    ask(&mut dialed, &["SET", "key", "value"]).await;
    let in_three = server::command(&format!("{}/3", server.url()), &["EXISTS", "key"]);
    assert_eq!(in_three, Value::Int(1));
    let url = format!("redis://localhost:{}/999", server.port);
    assert!(matches!(failure(&url).await, Failure::Database(_)));
}

#[tokio::test]
async fn a_unix_socket_is_dialled() {
    let server = Server::start(&["--unixsocket", "{dir}/redis.sock"]);
    let path = server.path("redis.sock");
    let mut dialed = dial(&format!("unix://{}?db=1", path.display())).await.unwrap();
    assert_eq!(dialed.server.address, path.display().to_string());
    ask(&mut dialed, &["SET", "key", "value"]).await;
    assert_eq!(server::command(&format!("{}/1", server.url()), &["EXISTS", "key"]), Value::Int(1));
    let missing = format!("unix://{}", server.path("missing.sock").display());
    assert_eq!(failure(&missing).await, Failure::Refused);
}

#[tokio::test]
async fn credentials_are_used_and_their_absence_is_named() {
    let server = Server::start(&[
        "--requirepass",
        "p@ss/word",
        "--user",
        "app",
        "on",
        ">s3cret",
        "~*",
        "&*",
        "+@all",
    ]);
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}", server.port);
    dial(&at(":p%40ss%2Fword@")).await.unwrap();
    dial(&at("app:s3cret@")).await.unwrap();
    assert_eq!(failure(&at("")).await, Failure::NoCredentials);
    for wrong in [":wrong@", "app:p%40ss%2Fword@", "nobody:s3cret@"] {
        let error = dial(&at(wrong)).await.unwrap_err();
        assert!(matches!(error.failure, Failure::Credentials(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("`broker.redis.url`") && !text.contains("wrong"), "{text}");
    }
}

#[tokio::test]
async fn what_is_not_needed_may_be_forbidden() {
    let server = Server::start(&[
        "--user", "app", "on", ">pass", "~*", "&*", "+@all", "-client", "--user", "blind", "on",
        ">pass", "~*", "&*", "+@all", "-info",
    ]);
    let at = |user: &str| format!("redis://{user}:pass@127.0.0.1:{}", server.port);
    let dialed = dial(&at("app")).await.unwrap();
    assert_eq!((dialed.client_id, dialed.server.replid.len()), (None, 40));
    let error = dial(&at("blind")).await.unwrap_err();
    assert!(error.to_string().contains("info"), "{error}");
    assert!(matches!(error.failure, Failure::Forbidden(_)), "{error}");
}

#[tokio::test]
async fn pushes_reach_the_closure_and_the_end_reaches_the_task() {
    let mut server = Server::start(&[]);
    let (sender, mut pushes) = mpsc::channel::<PushInfo>(16);
    let dialer = dialer(&server.url());
    let mut dialed = dialer.subscriber(move |push| sender.try_send(push).unwrap()).await.unwrap();
    dialed.connection.subscribe(&["a", "b"]).await.unwrap();
    server.command(&["PUBLISH", "b", "hello"]);
    for expected in [PushKind::Subscribe, PushKind::Subscribe, PushKind::Message] {
        let push = tokio::time::timeout(SOON, pushes.recv()).await.unwrap().unwrap();
        assert_eq!(push.kind, expected);
        if expected == PushKind::Message {
            let words = [b"b".as_slice(), b"hello"].map(|word| Value::BulkString(word.into()));
            assert_eq!(push.data, words);
        }
    }
    server.kill();
    tokio::time::timeout(SOON, &mut dialed.task).await.unwrap();
    drop(dialed);
    // The closure is gone with the task, and heard nothing more, not even of the disconnection.
    assert!(pushes.recv().await.is_none());
}

#[tokio::test]
async fn dropping_the_task_closes_the_connection() {
    let server = Server::start(&[]);
    let Dialed { connection, task, .. } = dial(&server.url()).await.unwrap();
    let connected = || {
        let list: String = redis::from_redis_value(server.command(&["CLIENT", "LIST"])).unwrap();
        list.contains("tickcast-commands")
    };
    assert!(connected());
    drop(task);
    wait_for(|| !connected()).await;
    drop(connection);
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Server::start(&[]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let expected = Failure::NotMaster(format!(" of 127.0.0.1:{}", master.port));
    assert_eq!(failure(&replica.url()).await, expected);
    assert!(dialer(&replica.url()).inspect().await.is_ok());
}

#[tokio::test]
async fn too_many_clients_are_named() {
    let server = Server::start(&["--maxclients", "1"]);
    let _first = dial(&server.url()).await.unwrap();
    assert_eq!(failure(&server.url()).await, Failure::MaxClients);
}

#[tokio::test]
async fn a_server_in_cluster_mode_is_refused() {
    let server = Server::start(&["--cluster-enabled", "yes"]);
    assert_eq!(failure(&server.url()).await, Failure::Cluster);
}

#[tokio::test]
async fn nothing_listens() {
    let error = dial(&format!("redis://127.0.0.1:{}", free_port())).await.unwrap_err();
    assert_eq!(error.failure, Failure::Refused);
    assert!(error.to_string().contains("is Redis running"), "{error}");
}

#[tokio::test]
async fn an_unknown_name_is_named() {
    let error = dial("redis://no-such-host.invalid").await.unwrap_err();
    let named = matches!(error.failure, Failure::Resolve(_) | Failure::TimedOut(Step::Resolve));
    assert!(named, "{error}");
}

#[tokio::test]
async fn the_next_address_of_a_name_is_tried() {
    let master = Server::start(&[]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let attempt =
        Attempt { login: None, database: 0, tls: None, push: None, purpose: Purpose::Commands };
    let name = HostPort { host: "redis".to_owned(), port: 6379 };
    let try_all = |ports: [u16; 2]| {
        let until = tokio::time::Instant::now() + DIAL_TIMEOUT;
        attempt.peers(&name, ports.map(peer).into(), until)
    };
    for first in [free_port(), replica.port] {
        let dialed = try_all([first, master.port]).await.unwrap();
        assert_eq!(dialed.server.peer, peer(master.port).to_string());
        assert_eq!(dialed.server.address, "redis:6379");
    }
    // What is listened to says more than what is not.
    for ports in [[free_port(), replica.port], [replica.port, free_port()]] {
        let error = try_all(ports).await.unwrap_err();
        assert!(matches!(error.failure, Failure::NotMaster(_)), "{error}");
    }
}

#[tokio::test]
async fn each_candidate_gets_its_share_and_the_best_error_stays() {
    let until = tokio::time::Instant::now() + DIAL_TIMEOUT;
    let mut tries = Tries::new(vec![1, 2, 3], until);
    let mut shares = Vec::new();
    while let Some((candidate, share)) = tries.next() {
        shares.push(share);
        tries.failed(match candidate {
            2 => Failure::Loading.at(candidate),
            _ => Failure::Refused.at(candidate),
        });
    }
    assert!(shares.is_sorted() && shares[0] < until - DIAL_TIMEOUT / 2);
    assert!(until - shares[2] < DIAL_TIMEOUT / 10);
    assert_eq!(tries.failure("all"), Failure::Loading.at(2));
    assert!(matches!(Tries::<u8>::new(vec![], until).failure("all").failure, Failure::Resolve(_)));
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_no_more_than_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begin = Instant::now();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let error = dial(&url).await.unwrap_err();
    assert_eq!(error.failure, Failure::TimedOut(Step::Hello));
    assert!(begin.elapsed() >= DIAL_TIMEOUT && begin.elapsed() < SOON);
    assert!(error.to_string().contains("nothing came of the greeting in time"), "{error}");
}
