//! A Sentinel that says what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::wait_for;

/// Listens until it is dropped.
pub(super) struct Sentinel {
    pub(super) port: u16,
    state: Arc<State>,
    _task: JoinSet<()>,
}

struct State {
    /// The port of the master; 0 for none.
    master: AtomicU16,
    asked: AtomicUsize,
    listeners: AtomicUsize,
    /// What every connection is to send. An empty text ends it.
    events: broadcast::Sender<String>,
}

impl Sentinel {
    /// One that names this port of 127.0.0.1.
    pub(super) async fn start(master: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(State {
            master: AtomicU16::new(master),
            asked: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
            events: broadcast::channel(16).0,
        });
        let port = listener.local_addr().unwrap().port();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Arc::clone(&state)));
        Self { port, state, _task: task }
    }

    /// The URL of a node that uses these.
    pub(super) fn url(sentinels: &[Self]) -> String {
        let hosts: Vec<_> = sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    /// From now on it names another master, and says nothing about it.
    pub(super) fn names(&self, master: u16) {
        self.state.master.store(master, Ordering::SeqCst);
    }

    /// It names another master and publishes that.
    pub(super) fn switch(&self, master: u16) {
        self.names(master);
        let text = format!("main 127.0.0.1 1 127.0.0.1 {master}");
        let push = format!(
            ">3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n${}\r\n{text}\r\n",
            text.len()
        );
        self.state.events.send(push).unwrap();
    }

    /// Ends all connections.
    pub(super) fn disconnect(&self) {
        self.state.events.send(String::new()).unwrap();
    }

    /// How often it was asked where the master is.
    pub(super) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// Waits until so many have subscribed since the start.
    pub(super) async fn wait_for_listeners(&self, count: usize) {
        wait_for(|| self.state.listeners.load(Ordering::SeqCst) >= count).await;
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(converse(stream, Arc::clone(&state), state.events.subscribe()));
    }
}

async fn converse(
    mut stream: TcpStream,
    state: Arc<State>,
    mut events: broadcast::Receiver<String>,
) {
    let mut request = [0; 1024];
    loop {
        let answer = tokio::select! {
            event = events.recv() => match event {
                Ok(event) if !event.is_empty() => event,
                _ => return,
            },
            read = stream.read(&mut request) => match read {
                Ok(length) if length > 0 => answer(&request[..length], &state),
                _ => return,
            },
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn answer(request: &[u8], state: &State) -> String {
    let request = String::from_utf8_lossy(request);
    if request.contains("SUBSCRIBE") {
        state.listeners.fetch_add(1, Ordering::SeqCst);
        return ">3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n".to_owned();
    }
    if !request.contains("get-master-addr-by-name") {
        return "+OK\r\n".to_owned();
    }
    state.asked.fetch_add(1, Ordering::SeqCst);
    match state.master.load(Ordering::SeqCst) {
        0 => "_\r\n".to_owned(),
        port => {
            let port = port.to_string();
            format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
        }
    }
}
