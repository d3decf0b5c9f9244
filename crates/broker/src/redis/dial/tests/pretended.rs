//! Servers that are not what is needed, played by a socket with fixed answers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Failure, dial, failure};

/// Takes connections and gives each of them these answers, one to each request.
async fn pretend(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            for answer in &answers {
                if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                    drop(stream.write_all(answer.as_bytes()).await);
                }
            }
            // The last word is the other side's.
            drop(stream.read(&mut request).await);
        }
    });
    url
}

/// Answers to the greeting and the introduction, with one INFO for all its sections.
async fn pretend_info(info: &str) -> String {
    let info = format!("${}\r\n{info}\r\n", info.len());
    pretend(vec!["+OK\r\n".to_owned(), format!("+OK\r\n:7\r\n{info}{info}{info}")]).await
}

const MASTER: &str = "redis_version:6.2.0\r\nrole:master\r\nmaster_replid:abc\r\n";

#[tokio::test]
async fn an_answer_is_read_whatever_its_form() {
    let url = pretend_info(MASTER).await;
    let dialed = dial(&url).await.unwrap();
    assert_eq!(dialed.client_id, Some(7));
    assert_eq!((dialed.server.replid.as_str(), dialed.server.version.as_str()), ("abc", "6.2.0"));
}

#[tokio::test]
async fn unsuitable_servers_are_named() {
    let cases = [
        (MASTER.replace("6.2.0", "6.0.16"), Failure::TooOld("6.0.16".to_owned())),
        (MASTER.to_owned() + "redis_mode:sentinel\r\n", Failure::Sentinel),
        (MASTER.to_owned() + "loading:1\r\n", Failure::Loading),
        (MASTER.replace("abc", ""), Failure::NoIdentity),
        (MASTER.replace("master\r\n", "slave\r\n"), Failure::NotMaster(String::new())),
    ];
    for (info, expected) in cases {
        assert_eq!(failure(&pretend_info(&info).await).await, expected);
    }
}

#[tokio::test]
async fn refusals_of_the_greeting_are_told_apart() {
    let cases = [
        ("-ERR unknown command `HELLO`, with args\r\n", "6.2 or later is needed"),
        ("-ERR unknown command 'HELLO', with args\r\n", "6.2 or later is needed"),
        ("-NOPROTO unsupported protocol version\r\n", "6.2 or later is needed"),
        ("-ERR max number of clients reached\r\n", "raise its `maxclients`"),
        ("-DENIED Redis is running in protected mode because\r\n", "it is in protected mode"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "still loading"),
        ("-NOAUTH Authentication required.\r\n", "it asks for a password"),
        ("-WRONGPASS invalid username-password pair\r\n", "it refuses the credentials"),
        ("-WHATEVER it likes\r\n", "WHATEVER"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak Redis' protocol"),
    ];
    for (answer, expected) in cases {
        let url = pretend(vec![answer.to_owned()]).await;
        let error = dial(&url).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{answer}: {error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[tokio::test]
async fn a_closed_connection_is_named() {
    assert_eq!(failure(&pretend(vec![]).await).await, Failure::Closed);
}
