//! Why something is not allowed, and how the client and the log are told.

use hyper::header::HeaderMap;
use tickcast_protocol::{ErrorCode, Rejection, Topic};
use tracing::field::{DisplayValue, display};

use super::{Key, bearer};
use crate::config::Right;
use crate::metrics::AuthFailure;
use crate::node::Node;
use crate::server::Peer;

/// Why something is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// What was presented is not a key, or was one.
    UnknownKey,
    /// A key with this right is needed, and none was presented.
    MissingKey(Right),
    /// The key does not have this right, or not for this topic.
    NoRight(Right),
    /// The key has published as much as it may for now: after so many seconds it may go on.
    RateLimited(u32),
}

impl Denied {
    /// Counts it, and tells the log who asked and whose key it was; never the key itself.
    pub(crate) fn noted(
        self,
        node: &Node,
        asker: Asker,
        who: Option<&Key>,
        topic: Option<&Topic>,
    ) -> Refusal {
        let reason = match self {
            Self::UnknownKey => AuthFailure::UnknownKey,
            Self::MissingKey(_) => AuthFailure::MissingKey,
            Self::NoRight(_) => AuthFailure::NoRight,
            Self::RateLimited(_) => AuthFailure::RateLimited,
        };
        node.metrics.count_auth_failure(reason);
        let refusal = Refusal { denied: self, message: self.message(asker, who, topic) };
        let (key, told) = (who.map(Key::name), refusal.message());
        let (client, worker, session) = asker.told();
        tracing::debug!(client, worker, session, key, reason = told, "not allowed");
        node.warnings.refused(reason, asker, key, told);
        refusal
    }

    /// In words, for people. It says nothing about what was presented, unless that is a key of this node.
    fn message(self, asker: Asker, who: Option<&Key>, topic: Option<&Topic>) -> String {
        let unread = match asker {
            Asker::Client { has_other_scheme: true, .. } => {
                "what was given is not `Authorization: Bearer <key>`"
            }
            _ => "none was given",
        };
        match (self, who, topic) {
            (Self::UnknownKey, ..) => "the key is not known here".to_owned(),
            (Self::MissingKey(Right::Publish), ..) => {
                format!("publishing needs a key, and {unread}")
            }
            (Self::MissingKey(Right::Subscribe), ..) => {
                format!("the topic is closed: it needs a key, and {unread}")
            }
            (Self::MissingKey(Right::Admin), ..) => {
                format!("this needs a key with the right `admin`, and {unread}")
            }
            (Self::NoRight(right), Some(key), Some(topic)) if key.may(right, None) => {
                let (name, right) = (key.name(), right.as_str());
                format!("the key `{name}` has the right `{right}`, but not for `{topic}`")
            }
            (Self::NoRight(right), Some(key), _) => {
                let (name, right) = (key.name(), right.as_str());
                format!("the key `{name}` does not have the right `{right}`")
            }
            (Self::NoRight(right), None, _) => {
                format!("the key does not have the right `{}`", right.as_str())
            }
            (Self::RateLimited(seconds), Some(key), _) => {
                let (name, rate) = (key.name(), key.rate());
                format!(
                    "the key `{name}` has used up its rate of {rate} per second; try again in {seconds} s"
                )
            }
            (Self::RateLimited(seconds), None, _) => {
                format!("the key has used up its rate; try again in {seconds} s")
            }
        }
    }
}

/// What a client is told that may not do something. It is counted and logged already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    denied: Denied,
    message: String,
}

impl Refusal {
    pub(crate) fn denied(&self) -> Denied {
        self.denied
    }

    /// As the client is told.
    pub(crate) const fn code(&self) -> ErrorCode {
        match self.denied {
            Denied::UnknownKey | Denied::MissingKey(_) => ErrorCode::Unauthorized,
            Denied::NoRight(_) => ErrorCode::Forbidden,
            Denied::RateLimited(_) => ErrorCode::RateLimited,
        }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn into_message(self) -> String {
        self.message
    }

    /// As it stands in the `errors` of an acknowledgement.
    pub(crate) fn rejection(self, topic: &Topic) -> Rejection {
        Rejection { topic: topic.as_str().to_owned(), code: self.code(), message: self.message }
    }
}

#[cfg(test)]
impl From<Denied> for Refusal {
    /// Of somebody of whom nothing is known.
    fn from(denied: Denied) -> Self {
        let asker = Asker::Session { worker: 0, session: 0 };
        Self { denied, message: denied.message(asker, None, None) }
    }
}

/// Who asked for what is not allowed, as the log calls them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    /// The client that sent a request, as the trusted proxies name it.
    Client {
        client: Peer,
        /// It sent an `Authorization`, and none that presents a key.
        has_other_scheme: bool,
    },
    /// A WebSocket. It does not hold its client's address: the log has that with the same two numbers from when the
    /// connection opened.
    Session { worker: usize, session: u32 },
}

impl Asker {
    /// The client that sent a request with these headers.
    pub(crate) fn of_request(client: Peer, headers: &HeaderMap) -> Self {
        Self::Client { client, has_other_scheme: bearer::has_other_scheme(headers) }
    }

    /// The fields of a line in the log: the client, or its worker and session.
    pub(crate) fn told(self) -> (Option<DisplayValue<Peer>>, Option<usize>, Option<u32>) {
        match self {
            Self::Client { client, .. } => (Some(display(client)), None, None),
            Self::Session { worker, session } => (None, Some(worker), Some(session)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AccessKey, KeyHash, KeyName, Rights};

    #[test]
    fn who_knows_the_key_is_told_which_one_it_is_and_what_it_lacks() {
        let settings = AccessKey {
            name: KeyName::new("feed").unwrap(),
            hash: KeyHash::of("tck_x"),
            rights: Rights::from_iter([Right::Publish]),
            topics: vec!["stocks.*".to_owned()],
            rate: 50,
        };
        let key = Key::new(&settings, |_| None);
        let topic = Topic::new("nba.LAL").unwrap();
        let peer = Peer::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let check = |denied: Denied, headers: &[(&str, &str)], who, expected: &str| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
                map.append(name, value.parse().unwrap());
            }
            let asker = Asker::of_request(peer, &map);
            assert_eq!(denied.message(asker, who, Some(&topic)), expected);
        };
        let known = Some(&key);
        check(
            Denied::NoRight(Right::Publish),
            &[],
            known,
            "the key `feed` has the right `publish`, but not for `nba.LAL`",
        );
        check(
            Denied::NoRight(Right::Subscribe),
            &[],
            known,
            "the key `feed` does not have the right `subscribe`",
        );
        check(
            Denied::RateLimited(3),
            &[],
            known,
            "the key `feed` has used up its rate of 50 per second; try again in 3 s",
        );
        let missing = Denied::MissingKey(Right::Publish);
        check(missing, &[], None, "publishing needs a key, and none was given");
        let other =
            "publishing needs a key, and what was given is not `Authorization: Bearer <key>`";
        check(missing, &[("authorization", "tck_AAAA")], None, other);
        check(missing, &[("authorization", "Basic dTpw")], None, other);
        check(
            missing,
            &[("x-api-key", "tck_AAAA")],
            None,
            "publishing needs a key, and none was given",
        );
    }
}
