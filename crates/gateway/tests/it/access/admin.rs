//! The routes of an operator, and what a node on a public address is open to.

use std::net::SocketAddr;

use super::{FEED, OPS, WRONG, bearer, guard};
use crate::harness::{Node, Raw};

/// A route that does not exist: who gets that far has passed the door.
const NOWHERE: &str = "/admin/nowhere";

/// The status of the answer to a request with these lines.
async fn ask(node: &Node, target: &str, lines: &str) -> u16 {
    let mut raw = Raw::connect(node.admin_address()).await;
    raw.write(format!("GET {target} HTTP/1.1\r\n{lines}\r\n")).await;
    raw.answer().await.status
}

#[tokio::test]
async fn on_the_machine_itself_it_is_open_except_to_pages() {
    for node in [Node::start().await, Node::with(guard).await] {
        for host in ["localhost", "127.0.0.1:8081", "[::1]"] {
            assert_eq!(ask(&node, NOWHERE, &format!("Host: {host}\r\n")).await, 404, "{host}");
        }
        // A page of a stranger's, by its own name and by one that was made to point here.
        for lines in [
            "Host: localhost\r\nOrigin: https://evil.example\r\n",
            "Host: localhost\r\nOrigin: http://localhost:8081\r\n",
            "Host: localhost\r\nOrigin: null\r\n",
            "Host: evil.example\r\n",
            "Host: localhost.evil.example:8081\r\n",
            "Host: localhost\r\nHost: localhost\r\n",
        ] {
            assert!(matches!(ask(&node, NOWHERE, lines).await, 400 | 403), "{lines}");
            assert_ne!(ask(&node, "/metrics", lines).await, 403, "{lines}");
        }
        let wrong = format!("Host: localhost\r\n{}", bearer(WRONG));
        assert_eq!(ask(&node, NOWHERE, &wrong).await, 401);
    }
    let node = Node::with(guard).await;
    let named = format!("Host: ops.example\r\n{}", bearer(OPS));
    assert_eq!(ask(&node, NOWHERE, &named).await, 404, "a page has no key");
    let origin = format!("{named}Origin: http://ops.example\r\n");
    assert_eq!(ask(&node, NOWHERE, &origin).await, 403);
}

#[tokio::test]
async fn on_a_public_address_it_needs_a_key() {
    let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let node = Node::with(|config| {
        guard(config);
        (config.server.listen, config.server.admin_listen) = (anywhere, anywhere);
    })
    .await;
    let host = "Host: 127.0.0.1\r\n";
    assert_eq!(ask(&node, NOWHERE, host).await, 401);
    assert_eq!(ask(&node, NOWHERE, &format!("{host}{}", bearer(WRONG))).await, 401);
    assert_eq!(ask(&node, NOWHERE, &format!("{host}{}", bearer(FEED))).await, 403);
    assert_eq!(ask(&node, NOWHERE, &format!("{host}{}", bearer(OPS))).await, 404);
    for open in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(ask(&node, open, host).await, 200, "{open}");
    }

    // Without keys nobody may, whatever else is open.
    let node = Node::with(|config| {
        config.server.insecure = true;
        config.server.admin_listen = anywhere;
    })
    .await;
    assert_eq!(ask(&node, NOWHERE, host).await, 401);
    assert_eq!(ask(&node, "/livez", host).await, 200);
}
