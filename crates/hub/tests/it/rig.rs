//! A small node: hub, workers and clients, driven by hand. Nothing happens unless a wake-up asked for it, so a lost
//! wake-up is a hang that a test sees.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tickcast_hub::{
    ConnectionId, Counters, Fanout, FanoutLimits, Hub, HubLimits, Inbox, Item, Job, LocalTopic,
    Plan, Replies, State, TopicOptions,
};
use tickcast_protocol::{Command, ErrorCode, Id, Publication, ServerMessage, Since, Topic};

use crate::broker::{Broker, Flip};
use crate::oracle::Oracle;
use crate::rules::Rules;
use crate::socket::Socket;

/// What may differ from rig to rig.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) workers: usize,
    /// Items that fit into a worker's inbox.
    pub(crate) inbox: usize,
    pub(crate) log_bytes: usize,
    /// Publications that the broker retains per topic.
    pub(crate) history: usize,
    pub(crate) subscriptions_per_connection: usize,
    pub(crate) rules: Rules,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 1,
            inbox: 1000,
            log_bytes: 1 << 30,
            history: 1000,
            subscriptions_per_connection: 10,
            rules: Rules::default(),
        }
    }
}

impl Setup {
    /// Changes the options of one topic.
    pub(crate) fn topic(mut self, topic: &str, change: impl FnOnce(&mut TopicOptions)) -> Self {
        let default = self.rules.default;
        change(self.rules.exceptions.entry(topic.to_owned()).or_insert(default));
        self
    }

    /// Changes the options of every topic without options of its own.
    pub(crate) fn topics(mut self, change: impl FnOnce(&mut TopicOptions)) -> Self {
        change(&mut self.rules.default);
        self
    }

    pub(crate) fn build(self) -> Rig {
        Rig::new(self)
    }
}

/// A client's number in the rig: connections come and go behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientId(pub(crate) usize);

#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) worker: usize,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) socket: Socket,
    pub(crate) oracle: Oracle,
    /// What came since the test looked last, in short form.
    frames: Vec<String>,
}

struct Worker {
    fanout: Fanout,
    inbox: Arc<Inbox>,
    woken: Arc<AtomicBool>,
    plan: Plan,
    items: VecDeque<Item>,
    outbox: Outbox,
    clients: HashMap<ConnectionId, ClientId>,
    links: Vec<bool>,
}

/// Replies that wait for the next flush of their connection.
#[derive(Default)]
struct Outbox {
    bytes: HashMap<ConnectionId, Vec<u8>>,
    /// Subscribe commands that were answered, and the topics that they do not get.
    answers: Vec<(ConnectionId, u64, Vec<String>)>,
}

impl Replies for Outbox {
    fn reply(&mut self, connection: ConnectionId, message: &ServerMessage<'_>) {
        message.append_frame(self.bytes.entry(connection).or_default());
        if let ServerMessage::Subscribed { id: Some(Id::Number(id)), errors, .. } = message {
            let refused = errors.iter().filter(|error| error.code != ErrorCode::Unsubscribed);
            let refused = refused.map(|error| error.topic.clone()).collect();
            self.answers.push((connection, *id, refused));
        }
    }
}

/// A job of the hub, in two halves: the broker is read at one time, the hub hears of it at another.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) job: Job,
    pub(crate) read: Option<State>,
}

impl Task {
    pub(crate) fn topic(&self) -> &Topic {
        match &self.job {
            Job::Open { topic }
            | Job::Repair { topic, .. }
            | Job::History { topic }
            | Job::Position { topic }
            | Job::Idle { topic } => topic,
        }
    }
}

pub(crate) struct Rig {
    pub(crate) hub: Arc<Hub>,
    pub(crate) broker: Broker,
    pub(crate) tasks: Vec<Task>,
    pub(crate) now: u64,
    workers: Vec<Worker>,
    pub(crate) clients: Vec<Client>,
    jobs_woken: Arc<AtomicBool>,
    /// The first frame that broke the contract.
    pub(crate) violation: Option<String>,
}

/// More turns than anything should need.
const TURNS_MAX: usize = 100_000;

fn flag() -> (Arc<AtomicBool>, impl Fn() + Send + Sync + 'static) {
    let flag = Arc::new(AtomicBool::new(false));
    let raise = Arc::clone(&flag);
    (flag, move || raise.store(true, Relaxed))
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

impl Rig {
    fn new(setup: Setup) -> Self {
        let rules = Arc::new(setup.rules);
        let doors: Vec<_> = (0..setup.workers)
            .map(|_| {
                let (woken, wake) = flag();
                (Arc::new(Inbox::new(setup.inbox, wake)), woken)
            })
            .collect();
        let inboxes = doors.iter().map(|(inbox, _)| Arc::clone(inbox)).collect();
        let (jobs_woken, wake_jobs) = flag();
        let limits = HubLimits { log_bytes: setup.log_bytes };
        let hub = Arc::new(Hub::new(limits, Arc::<Rules>::clone(&rules), inboxes, wake_jobs));
        let limits = FanoutLimits {
            subscriptions_per_connection: setup.subscriptions_per_connection,
            settle_ms: 1000,
        };
        let workers = doors.into_iter().enumerate().map(|(number, (inbox, woken))| Worker {
            fanout: Fanout::new(Arc::clone(&hub), number, limits),
            inbox,
            woken,
            plan: Plan::default(),
            items: VecDeque::new(),
            outbox: Outbox::default(),
            clients: HashMap::new(),
            links: Vec::new(),
        });
        Self {
            workers: workers.collect(),
            hub,
            broker: Broker::new(rules, setup.history),
            tasks: Vec::new(),
            // A worker has lived for a millisecond before anything can be written.
            now: 1,
            clients: Vec::new(),
            jobs_woken,
            violation: None,
        }
    }

    // Clients.

    /// A new client on the first worker.
    pub(crate) fn attach(&mut self) -> ClientId {
        self.attach_to(0)
    }

    /// A new client on this worker.
    pub(crate) fn attach_to(&mut self, worker: usize) -> ClientId {
        let client = ClientId(self.clients.len());
        self.clients.push(Client { worker, ..Client::default() });
        self.reattach(client);
        client
    }

    /// The client connects again, to the same worker, with a fresh socket.
    pub(crate) fn reattach(&mut self, client: ClientId) {
        let state = &mut self.clients[client.0];
        let worker = &mut self.workers[state.worker];
        let connection = worker.fanout.attach();
        let before = worker.clients.insert(connection, client);
        assert_eq!(before, None, "{connection:?} is in use");
        state.connection = Some(connection);
        state.socket = Socket::default();
        state.oracle = Oracle::default();
    }

    pub(crate) fn detach(&mut self, client: ClientId) {
        let state = &mut self.clients[client.0];
        let worker = &mut self.workers[state.worker];
        if let Some(connection) = state.connection.take() {
            worker.clients.remove(&connection);
            worker.outbox.bytes.remove(&connection);
            worker.fanout.detach(connection);
        }
    }

    /// The client's text frame reaches the node. The reply waits for the next turn.
    pub(crate) fn say(&mut self, client: ClientId, text: &str) {
        let state = &mut self.clients[client.0];
        let worker = &mut self.workers[state.worker];
        let connection = state.connection.unwrap();
        let (id, command) = Command::decode(text).unwrap();
        let Some(Id::Number(number)) = id else { panic!("{text} needs a number as its id") };
        worker.fanout.advance(self.now, &mut worker.outbox);
        match command {
            Command::Subscribe { items } => {
                let good = items.iter().flatten();
                let named: Vec<(String, Option<Since>)> =
                    good.map(|item| (item.topic.to_string(), item.since)).collect();
                state.oracle.asked(number, &named);
                worker.fanout.subscribe(connection, id, items, &mut worker.outbox);
            }
            Command::Unsubscribe { topics } => {
                let named: Vec<String> = topics.iter().flatten().map(Topic::to_string).collect();
                state.oracle.gave_back(number, &named);
                worker.fanout.unsubscribe(connection, id.as_ref(), topics, &mut worker.outbox);
            }
            other => panic!("{other:?}"),
        }
        let worker = state.worker;
        self.note_replies(worker);
    }

    /// As [`Rig::say`], for the `topics` of a subscribe command.
    pub(crate) fn subscribe(&mut self, client: ClientId, id: u64, topics: &str) {
        self.say(client, &format!(r#"{{"type":"subscribe","id":{id},"topics":[{topics}]}}"#));
    }

    /// As [`Rig::say`], for the `topics` of an unsubscribe command.
    pub(crate) fn unsubscribe(&mut self, client: ClientId, id: u64, topics: &str) {
        self.say(client, &format!(r#"{{"type":"unsubscribe","id":{id},"topics":[{topics}]}}"#));
    }

    /// The client's socket takes no more.
    pub(crate) fn block(&mut self, client: ClientId) {
        self.clients[client.0].socket.close_window();
    }

    /// The client's socket takes this many bytes more; none for as many as come.
    pub(crate) fn unblock(&mut self, client: ClientId, bytes: Option<usize>) {
        let state = &mut self.clients[client.0];
        state.socket.open_window(bytes);
        let worker = &mut self.workers[state.worker];
        let Some(connection) = state.connection.filter(|_| bytes != Some(0)) else { return };
        state.socket.is_blocked = false;
        worker.fanout.set_blocked(connection, false);
        if !state.socket.unfinished.is_empty() || worker.outbox.bytes.contains_key(&connection) {
            worker.fanout.enqueue(connection);
        }
    }

    /// The frames that the client received since the last call, in short form.
    pub(crate) fn frames(&mut self, client: ClientId) -> Vec<String> {
        std::mem::take(&mut self.clients[client.0].frames)
    }

    /// Settles, and asserts what the client received since the last look.
    #[track_caller]
    pub(crate) fn expect(&mut self, client: ClientId, frames: &[&str]) {
        self.settle();
        assert_eq!(self.violation, None);
        assert_eq!(self.frames(client), frames);
    }

    // Publications.

    /// Publishes this many times, each handed to the hub at once. No worker hears of it before its next turn.
    pub(crate) fn publish(&mut self, name: &str, times: u64) {
        (0..times).for_each(|_| self.publish_one(name, 0, true));
    }

    /// Publishes this many times; the node never hears of it.
    pub(crate) fn lose(&mut self, name: &str, times: u64) {
        (0..times).for_each(|_| self.publish_one(name, 0, false));
    }

    pub(crate) fn publish_one(&mut self, name: &str, size: usize, arrives: bool) {
        if let Some(publication) = self.broker.publish(&topic(name), size, self.now, arrives) {
            self.hub.deliver(publication);
        }
    }

    /// Publishes, and keeps what the node would have been handed.
    pub(crate) fn withhold(&mut self, name: &str) -> Arc<Publication> {
        self.broker.publish(&topic(name), 0, self.now, true).unwrap()
    }

    pub(crate) fn flip(&mut self, name: &str, flip: Flip) {
        self.broker.flip(&topic(name), flip);
    }

    // Jobs.

    /// Takes over the jobs that the hub has queued.
    pub(crate) fn collect(&mut self) {
        if self.jobs_woken.swap(false, Relaxed) {
            let jobs = self.hub.take_jobs().into_iter().map(|job| Task { job, read: None });
            self.tasks.extend(jobs);
        }
    }

    /// The jobs that wait, in short form.
    pub(crate) fn jobs(&mut self) -> Vec<String> {
        self.collect();
        let describe = |task: &Task| match &task.job {
            Job::Open { topic } => format!("open {topic}"),
            Job::Repair { topic, after } => format!("repair {topic} after {after}"),
            Job::History { topic } => format!("history {topic}"),
            Job::Position { topic } => format!("position {topic}"),
            Job::Idle { topic } => format!("idle {topic}"),
        };
        self.tasks.iter().map(describe).collect()
    }

    /// Takes one job a step further: first the broker is read, then the hub is told. A job that was begun is ended before
    /// another one of its topic begins.
    pub(crate) fn step(&mut self, index: usize) {
        let topic = self.tasks[index].topic();
        let begun = self.tasks.iter().position(|task| task.read.is_some() && task.topic() == topic);
        let index = begun.unwrap_or(index);
        let mut task = self.tasks.remove(index);
        match (&task.job, task.read.take()) {
            _ if !self.hub.holds(task.topic()) => {}
            (Job::Idle { topic }, _) => {
                if self.hub.close_if_idle(topic) {
                    self.broker.unsubscribe(topic);
                }
            }
            (Job::Open { topic }, Some(state)) => self.hub.opened(topic, state),
            (Job::Repair { topic, .. }, Some(state)) => self.hub.repaired(topic, state),
            (Job::History { topic }, Some(state)) => self.hub.history_loaded(topic, state),
            (Job::Position { topic }, Some(state)) => {
                self.hub.position_read(topic, state.position);
            }
            (_, None) => {
                task.read = self.broker.read(&task.job);
                self.tasks.insert(index, task);
            }
        }
        self.collect();
    }

    /// Takes one job to its end, and lets the workers hear of it.
    pub(crate) fn run_job(&mut self, job: &str) {
        let at = self.jobs().iter().position(|open| open == job).unwrap();
        self.step(at);
        self.step(at);
        self.turns();
    }

    /// The grace period of every topic ends.
    pub(crate) fn end_grace(&mut self) {
        self.collect();
        while let Some(at) = self.tasks.iter().position(|t| matches!(t.job, Job::Idle { .. })) {
            self.step(at);
        }
    }

    /// The read state of the job, brought to the hub by the test itself.
    pub(crate) fn take_task(&mut self, index: usize) -> State {
        let mut task = self.tasks.remove(index);
        task.read.take().or_else(|| self.broker.read(&task.job)).unwrap()
    }

    // Turns and time.

    /// Runs jobs (except idle ones) and turns until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turns();
            self.collect();
            match self.tasks.iter().position(|task| !matches!(task.job, Job::Idle { .. })) {
                Some(at) => self.step(at),
                None => return,
            }
        }
        panic!("jobs without end: {:?}", self.jobs());
    }

    /// Lets every worker that was woken take turns until none is woken any more.
    pub(crate) fn turns(&mut self) {
        for _ in 0..TURNS_MAX {
            let wants = |worker: &Worker| {
                worker.woken.load(Relaxed) || worker.fanout.dirty_connections() > 0
            };
            let Some(worker) = self.workers.iter().position(wants) else { return };
            self.turn(worker);
        }
        panic!("turns without end");
    }

    /// One turn of a worker, as a gateway takes it.
    pub(crate) fn turn(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        worker.fanout.advance(self.now, &mut worker.outbox);
        if worker.woken.swap(false, Relaxed) {
            let stale = worker.inbox.take(&mut worker.items);
            for item in worker.items.drain(..) {
                if let Item::Link { up } = item {
                    worker.links.push(up);
                }
                worker.fanout.apply(item, &mut worker.outbox);
            }
            worker.fanout.resync(&stale);
        }
        self.note_replies(number);
        while let Some(connection) = self.workers[number].fanout.pop_dirty() {
            self.flush(number, connection);
        }
    }

    fn note_replies(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        for (connection, id, refused) in worker.outbox.answers.drain(..) {
            self.clients[worker.clients[&connection].0].oracle.answered(id, &refused);
        }
        for connection in worker.outbox.bytes.keys() {
            worker.fanout.enqueue(*connection);
        }
    }

    /// Writes once to a connection: what is unfinished, then replies, then data.
    fn flush(&mut self, number: usize, connection: ConnectionId) {
        let worker = &mut self.workers[number];
        let client = &mut self.clients[worker.clients[&connection].0];
        let socket = &mut client.socket;
        assert!(!socket.is_blocked, "a connection whose socket takes nothing costs no write");
        let mut prefix = std::mem::take(&mut socket.unfinished);
        prefix.extend(worker.outbox.bytes.remove(&connection).unwrap_or_default());
        worker.fanout.gather(connection, &prefix, &mut worker.plan);
        let bytes = worker.plan.bytes();
        let (written, frames) = socket.write(bytes, self.now);
        let committed = worker.fanout.commit(connection, &worker.plan, written);
        socket.unfinished = bytes[written..written + committed.unfinished].to_vec();
        if written < bytes.len() {
            socket.is_blocked = true;
            worker.fanout.set_blocked(connection, true);
        } else if committed.has_more {
            worker.fanout.enqueue(connection);
        }
        for (at, frame) in frames {
            let verdict = client.oracle.received(&self.broker.log, at, &frame);
            client.frames.push(frame.to_string());
            if let Err(problem) = verdict {
                self.violation.get_or_insert(problem);
            }
        }
    }

    /// Lets time go by; workers take turns whenever a timer of theirs is due.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while let Some((due, worker)) = self.next_due().filter(|(due, _)| *due <= end) {
            self.now = self.now.max(due);
            self.turn(worker);
            self.turns();
        }
        self.now = end;
        self.turns();
    }

    /// The next timer and the worker whose it is.
    pub(crate) fn next_due(&self) -> Option<(u64, usize)> {
        let workers = self.workers.iter().enumerate();
        workers.filter_map(|(number, w)| Some((w.fanout.next_due()?, number))).min()
    }

    // What a test may look at.

    pub(crate) fn counters(&self) -> Counters {
        self.workers[0].fanout.counters()
    }

    /// Subscriptions, topics and unanswered commands of all workers.
    pub(crate) fn held(&self) -> [usize; 3] {
        self.workers.iter().fold([0; 3], |[subscriptions, topics, commands], worker| {
            let fanout = &worker.fanout;
            [
                subscriptions + fanout.subscriptions(),
                topics + fanout.topics(),
                commands + fanout.unanswered(),
            ]
        })
    }

    pub(crate) fn links(&self) -> &[bool] {
        &self.workers[0].links
    }

    pub(crate) fn overflows(&self) -> u64 {
        self.workers.iter().map(|worker| worker.inbox.overflows()).sum()
    }

    /// Publications and bytes in the hub's log of a topic. Looks through the eyes of one more subscriber, so the topic
    /// must be wanted already.
    pub(crate) fn log_of(&mut self, name: &str) -> (usize, usize) {
        self.turns();
        let (topic, local) = (topic(name), LocalTopic { index: u32::MAX, generation: u32::MAX });
        assert!(self.hub.holds(&topic));
        self.hub.join(&topic, 0, local);
        let worker = &mut self.workers[0];
        worker.woken.store(false, Relaxed);
        let stale = worker.inbox.take(&mut worker.items);
        let item = worker.items.pop_front();
        self.hub.leave(&topic, 0, local);
        match item {
            Some(Item::Log { log, .. }) if stale.is_empty() => (log.len(), log.bytes()),
            other => panic!("{other:?}"),
        }
    }
}
