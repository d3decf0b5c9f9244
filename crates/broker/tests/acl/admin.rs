//! The side of the operator: who may do what, and what was tried all the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};

use redis::{FromRedisValue, Value};

use crate::server::Server;

/// The database that the nodes use. Not the first one, as a node need not choose that.
pub(crate) const DATABASE: u32 = 1;

/// A server, and a connection that may do everything.
pub(crate) struct Admin {
    connection: Mutex<redis::Connection>,
    server: Server,
}

impl Admin {
    pub(crate) fn start() -> Self {
        let server = Server::start(&["--acllog-max-len", "1000"]);
        let client = redis::Client::open(format!("{}/{DATABASE}", server.url())).unwrap();
        Self { connection: Mutex::new(client.get_connection().unwrap()), server }
    }

    /// Where a user finds the server.
    pub(crate) fn url(&self, user: &str, secret: &str) -> String {
        format!("redis://{user}:{secret}@127.0.0.1:{}/{DATABASE}", self.server.port)
    }

    pub(crate) fn set_user(&self, user: &str, rule: &[&str]) {
        let words = [&["ACL", "SETUSER", user], rule].concat();
        self.ask::<()>(&words);
    }

    /// The commands that the user tried and was denied.
    pub(crate) fn denied_to(&self, user: &str) -> BTreeSet<String> {
        let entries: Vec<HashMap<String, Value>> = self.ask(&["ACL", "LOG", "1000"]);
        let field = |entry: &HashMap<String, Value>, name: &str| -> String {
            redis::from_redis_value(entry[name].clone()).unwrap()
        };
        let own = entries.iter().filter(|entry| field(entry, "username") == user);
        own.map(|entry| field(entry, "object")).collect()
    }

    /// Whether anyone has run the command.
    pub(crate) fn has_run(&self, command: &str) -> bool {
        self.ask::<String>(&["INFO", "commandstats"]).contains(&format!("cmdstat_{command}:"))
    }

    /// The connections that are subscribed to a channel of this pattern.
    pub(crate) fn has_subscribers(&self, pattern: &str) -> bool {
        !self.ask::<Vec<String>>(&["PUBSUB", "CHANNELS", pattern]).is_empty()
    }

    /// The key of this kind that belongs to the topic.
    pub(crate) fn key(&self, kind: &str, topic: &str) -> String {
        let keys: Vec<String> = self.ask(&["KEYS", &format!("*:{kind}:{topic}")]);
        let [key] = &keys[..] else { panic!("{topic} has the keys {keys:?}") };
        key.clone()
    }

    /// Puts something into the place of a list or a hash with which nothing can be done.
    pub(crate) fn replace(&self, key: &str) {
        self.ask::<()>(&["SET", key, "something else"]);
    }

    pub(crate) fn remove(&self, key: &str) {
        self.ask::<()>(&["DEL", key]);
    }

    /// Makes it look as if another Redis had written the state of the topic.
    pub(crate) fn estrange(&self, topic: &str) {
        let key = &self.key("t", topic);
        let mut state: HashMap<String, String> = self.ask(&["HGETALL", key]);
        state.remove("v");
        for (id, state) in state {
            let other_id: String = id.chars().rev().collect();
            self.ask::<()>(&["HSET", key, &other_id, &state]);
            self.ask::<()>(&["HDEL", key, &id]);
        }
    }

    fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut self.lock()).unwrap()
    }

    fn lock(&self) -> MutexGuard<'_, redis::Connection> {
        self.connection.lock().unwrap()
    }
}
