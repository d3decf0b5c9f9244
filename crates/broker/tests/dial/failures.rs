//! What is said about servers that cannot be reached.

use tickcast_broker::redis::TlsFiles;
use tickcast_broker::redis::inspect::inspect;

use crate::support::server::{Server, free_port};

async fn failure(url: &str) -> String {
    let url = url.parse().unwrap();
    inspect(&url, &TlsFiles::default(), "tickcast").await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_error_names_the_place_and_what_to_do() {
    let mut server = Server::start(&["--requirepass", "right"]);
    let at = |login: &str| format!("redis://{login}localhost:{}", server.port);
    let (none, wrong, right) = (at(""), at(":hush@"), at(":right@"));
    let text = failure(&none).await;
    assert!(
        text.starts_with(&format!("localhost:{}: it asks for a password;", server.port)),
        "{text}"
    );
    let text = failure(&wrong).await;
    assert!(text.contains("it refuses the credentials") && !text.contains("hush"), "{text}");
    server.kill();
    assert!(failure(&right).await.contains("nothing listens there"));
    let text = failure(&format!("redis+sentinel://127.0.0.1:{}/main", free_port())).await;
    assert!(text.starts_with("master `main`: no Sentinel answered"), "{text}");
}
