//! `GET /healthz`: may a load balancer send clients here? For those that cannot reach the admin listener.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use tickcast_protocol::ErrorCode;

use super::problem::Problem;
use super::{Answer, json};
use crate::node::Node;

/// The status of `/readyz?for=subscribe`, without its details: this route is public.
pub(crate) fn check(node: &Node) -> Result<Answer, Problem> {
    if !node.is_ready_for_subscribe() {
        return Err(Problem::new(ErrorCode::Unavailable, "this node takes no new clients now"));
    }
    let mut answer = json(StatusCode::OK, br#"{"status":"ok"}"#.to_vec());
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}
