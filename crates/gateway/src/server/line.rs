//! The line of those who wait to be let in, and the shorter one of publishers.
//!
//! A publisher that connects for each publication would stand behind thousands of clients when a node was lost, while its
//! answer is promised within a second. What a connection is for stands in its first bytes, which are looked at where they
//! lie in the kernel; nobody is looked at as long as nobody has to wait.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

use super::accept::Accepted;
use super::admission::Pace;
use super::proxy_protocol;

/// One in so many places is kept for those who publish, or have not said yet what they want, and publishers have a pace of
/// their own that is such a part of the rate, beside it.
const PUBLISHERS_SHARE: usize = 5;
const PUBLISHERS_PACE: usize = 4;

/// Those who have said nothing yet are looked at so often, and so many of them each time.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
const LOOKS_MAX: usize = 256;

/// Who has said nothing for so long waits like a client.
const SILENCE_MAX: Duration = Duration::from_secs(1);

const POST: &[u8] = b"POST ";

/// The header that a proxy may put before a request, and the first word of that.
const WORD_BYTES: usize = proxy_protocol::BYTES_MAX + POST.len();

/// A connection that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) accepted: Accepted,
    pub(super) since: Instant,
}

/// The place in front of which somebody stands, and the pace by which it may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Client,
    /// At the pace of clients, because none of them waits.
    Publisher,
    /// At the pace of publishers.
    Ahead,
    /// There is nobody else.
    Silent,
}

#[derive(Debug)]
pub(super) struct Line {
    /// Those who have said nothing yet.
    silent: VecDeque<Waiting>,
    clients: VecDeque<Waiting>,
    publishers: VecDeque<Waiting>,
    pace: Pace,
    publishers_pace: Pace,
    /// When the silent ones were looked at last.
    looked: Instant,
}

impl Line {
    /// A line that is let in at so many per second.
    pub(super) fn new(rate: usize, now: Instant) -> Self {
        Self {
            silent: VecDeque::new(),
            clients: VecDeque::new(),
            publishers: VecDeque::new(),
            pace: Pace::new(rate, now),
            publishers_pace: Pace::new(rate / PUBLISHERS_PACE, now),
            looked: now,
        }
    }

    /// Goes on at another rate.
    pub(super) fn set_rate(&mut self, rate: usize, now: Instant) {
        self.pace.set_rate(rate, now);
        self.publishers_pace.set_rate(rate / PUBLISHERS_PACE, now);
    }

    pub(super) fn len(&self) -> usize {
        self.silent.len() + self.clients.len() + self.publishers.len()
    }

    /// Takes one more in, at the end.
    pub(super) fn join(&mut self, accepted: Accepted, now: Instant) {
        self.silent.push_back(Waiting { accepted, since: now });
    }

    /// Takes somebody out, whatever the pace.
    pub(super) fn leave(&mut self) -> Option<Waiting> {
        let all = [&mut self.publishers, &mut self.clients, &mut self.silent];
        all.into_iter().find_map(VecDeque::pop_front)
    }

    /// Finds out who publishes, if it is time to look. Those for whom there is no place among `max`, now that this is
    /// known, come back.
    pub(super) fn look(&mut self, max: usize, now: Instant) -> Option<Vec<Accepted>> {
        if self.silent.is_empty() || now < self.looked + LOOK_PAUSE {
            return None;
        }
        self.looked = now;
        let mut refused = Vec::new();
        for _ in 0..self.silent.len().min(LOOKS_MAX) {
            let Some(waiting) = self.silent.pop_front() else { break };
            let word = Word::of(&waiting.accepted.socket);
            let is_patient = now.saturating_duration_since(waiting.since) < SILENCE_MAX;
            if word == Word::None && is_patient {
                self.silent.push_back(waiting);
            } else {
                refused.extend(self.sort(waiting, word, max));
            }
        }
        Some(refused)
    }

    /// Has one place fewer taken among `max`, if that can be: the one comes back that has said nothing for longest, or one
    /// that has said by now what there is no place for.
    pub(super) fn make_room(&mut self, max: usize) -> Option<Accepted> {
        // Each look but the last puts somebody where it is not looked at again.
        for _ in 0..LOOKS_MAX {
            let waiting = self.silent.pop_front()?;
            let word = Word::of(&waiting.accepted.socket);
            if word == Word::None {
                return Some(waiting.accepted);
            }
            if let Some(refused) = self.sort(waiting, word, max) {
                return Some(refused);
            }
        }
        None
    }

    /// Puts one where it belongs by its word, if there is a place.
    fn sort(&mut self, waiting: Waiting, word: Word, max: usize) -> Option<Accepted> {
        let publishers_max = max / PUBLISHERS_SHARE;
        let (queue, places) = match word {
            // In the line of the clients a flood of them would take what is theirs.
            Word::Post => (&mut self.publishers, publishers_max.max(1)),
            Word::None | Word::Other => (&mut self.clients, max - publishers_max),
        };
        if queue.len() >= places {
            return Some(waiting.accepted);
        }
        queue.push_back(waiting);
        None
    }

    /// Whose turn it is now, if it is anybody's.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Turn, Waiting)> {
        let turn = self.turn(now)?;
        Some((turn, self.queue(turn).pop_front()?))
    }

    fn turn(&mut self, now: Instant) -> Option<Turn> {
        // Publishers first, as long as their own pace lasts: what they have beyond it is what clients leave.
        if !self.publishers.is_empty() && self.publishers_pace.is_due(now) {
            return Some(Turn::Ahead);
        }
        if !self.pace.is_due(now) {
            return None;
        }
        let queues = [
            (Turn::Client, &self.clients),
            (Turn::Publisher, &self.publishers),
            (Turn::Silent, &self.silent),
        ];
        queues.into_iter().find_map(|(turn, queue)| (!queue.is_empty()).then_some(turn))
    }

    fn queue(&mut self, turn: Turn) -> &mut VecDeque<Waiting> {
        match turn {
            Turn::Client => &mut self.clients,
            Turn::Publisher | Turn::Ahead => &mut self.publishers,
            Turn::Silent => &mut self.silent,
        }
    }

    /// It was let in.
    pub(super) fn spend(&mut self, turn: Turn) {
        match turn {
            Turn::Ahead => self.publishers_pace.spend(),
            Turn::Client | Turn::Publisher | Turn::Silent => self.pace.spend(),
        }
    }

    /// It could not be let in, and is the next again.
    pub(super) fn put_back(&mut self, turn: Turn, waiting: Waiting) {
        self.queue(turn).push_front(waiting);
    }

    /// When somebody's turn may come; never, if nobody waits.
    pub(super) fn due(&mut self, now: Instant) -> Option<Instant> {
        let next = (self.len() > 0).then(|| self.pace.next(now));
        let publishers = (!self.publishers.is_empty()).then(|| self.publishers_pace.next(now));
        let look = (!self.silent.is_empty()).then_some(self.looked + LOOK_PAUSE);
        [next, publishers, look].into_iter().flatten().min()
    }
}

/// How a request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It does not yet.
    None,
    Post,
    /// Otherwise, or there will be none.
    Other,
}

impl Word {
    /// The first word on a connection, which is not read.
    fn of(socket: &TcpStream) -> Self {
        let mut bytes = [0; WORD_BYTES];
        match socket.peek(&mut bytes) {
            // What has ended is found out when it is served.
            Ok(0) => Self::Other,
            Ok(length) => Self::read(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Self::None,
            Err(_) => Self::Other,
        }
    }

    fn read(bytes: &[u8]) -> Self {
        let bytes = proxy_protocol::after(bytes);
        if bytes.starts_with(POST) {
            Self::Post
        } else if POST.starts_with(bytes) {
            Self::None
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    use super::super::admission::Connections;
    use super::super::peer::Peer;
    use super::*;

    const RATE: usize = 4;
    /// So many clients, and so many publishers, come at once whatever the rate.
    const BURST: usize = 16;
    const MAX: usize = 40;

    struct Crowd {
        line: Line,
        start: Instant,
        listener: TcpListener,
        connections: Arc<Connections>,
        clients: Vec<TcpStream>,
    }

    impl Crowd {
        fn new() -> Self {
            let start = Instant::now();
            let line = Line::new(RATE, start);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let connections = Arc::new(Connections::new(usize::MAX));
            Self { line, start, listener, connections, clients: Vec::new() }
        }

        /// Somebody comes so many milliseconds after the start, and has said something when that is looked at.
        fn come(&mut self, ms: u64, words: &[u8]) {
            let mut client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (socket, _) = self.listener.accept().unwrap();
            client.write_all(words).unwrap();
            if !words.is_empty() {
                socket.peek(&mut [0]).unwrap();
            }
            socket.set_nonblocking(true).unwrap();
            let place = self.connections.enter().unwrap();
            let peer = Peer::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST));
            self.line.join(Accepted { socket, peer, place }, self.at(ms));
            self.clients.push(client);
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Who is let in then, by what they say.
        fn let_in(&mut self, ms: u64) -> String {
            let now = self.at(ms);
            let mut came = String::new();
            while let Some((turn, waiting)) = self.line.next(now) {
                self.line.spend(turn);
                let mut words = [b'-'; 6];
                let _length = waiting.accepted.socket.peek(&mut words);
                came.push(words[5].into());
            }
            came
        }

        /// The last letter of who makes room.
        fn make_room(&mut self, max: usize) -> String {
            let Some(accepted) = self.line.make_room(max) else { return "nobody".to_owned() };
            let mut words = [b'-'; 6];
            let _length = accepted.socket.peek(&mut words);
            char::from(words[5]).into()
        }

        /// How many are refused when the line is looked at.
        fn look(&mut self, ms: u64) -> Option<usize> {
            self.line.look(MAX, self.at(ms)).map(|refused| refused.len())
        }
    }

    #[test]
    fn as_long_as_nobody_waits_nobody_is_looked_at() {
        let mut crowd = Crowd::new();
        for number in 0..BURST {
            crowd.come(0, if number % 2 == 0 { b"POST 0" } else { b"GET /1" });
        }
        assert_eq!(crowd.let_in(0), "01".repeat(BURST / 2));
        assert_eq!(
            (crowd.look(0), crowd.look(100), crowd.line.due(crowd.at(100))),
            (None, None, None)
        );
    }

    #[test]
    fn publishers_pass_and_both_keep_their_order() {
        let mut crowd = Crowd::new();
        (0..BURST).for_each(|_| crowd.come(0, b"GET /x"));
        assert_eq!(crowd.let_in(0).len(), BURST);
        for words in [b"GET /a", b"GET /b", b"POST 1", b"GET /c", b"POST 2"] {
            crowd.come(1, words);
        }
        assert_eq!((crowd.let_in(1).as_str(), crowd.line.len()), ("", 5));
        assert_eq!((crowd.look(9), crowd.line.due(crowd.at(9))), (None, Some(crowd.at(10))));
        assert_eq!((crowd.look(10), crowd.let_in(10).as_str()), (Some(0), "12"));
        assert_eq!(crowd.line.due(crowd.at(10)), Some(crowd.at(250)));
        assert_eq!((crowd.let_in(250).as_str(), crowd.let_in(750).as_str()), ("a", "bc"));
        assert_eq!(crowd.line.due(crowd.at(750)), None);
    }

    #[test]
    fn publishers_have_a_pace_too_and_beyond_it_what_clients_leave() {
        let mut crowd = Crowd::new();
        (0..BURST).for_each(|_| crowd.come(0, b"GET /x"));
        assert_eq!(crowd.let_in(0).len(), BURST);
        (0..8).for_each(|_| crowd.come(1, b"POST 1"));
        assert_eq!((crowd.look(10), crowd.let_in(10).len()), (Some(0), 8));
        (0..8).for_each(|_| crowd.come(11, b"POST 2"));
        assert_eq!((crowd.look(20), crowd.let_in(20).len()), (Some(0), 8));
        // Their burst is spent: one a second is theirs, and of four they get those that no client waits for.
        crowd.come(30, b"POST 3");
        crowd.come(30, b"POST 4");
        crowd.come(31, b"GET /a");
        crowd.come(32, b"POST 5");
        assert_eq!((crowd.look(50), crowd.let_in(50).as_str()), (Some(0), ""));
        assert_eq!((crowd.let_in(250).as_str(), crowd.let_in(500).as_str()), ("a", "3"));
        assert_eq!((crowd.let_in(750).as_str(), crowd.let_in(1020).as_str()), ("4", "5"));
    }

    #[test]
    fn some_places_are_kept_for_publishers() {
        let mut crowd = Crowd::new();
        (0..BURST).for_each(|_| crowd.come(0, b"GET /x"));
        assert_eq!(crowd.let_in(0).len(), BURST);
        (0..MAX).for_each(|_| crowd.come(1, b"GET /a"));
        assert_eq!((crowd.look(10), crowd.line.len()), (Some(8), 32));
        (0..8).for_each(|_| crowd.come(11, b"POST 1"));
        crowd.come(11, b"POST 2");
        assert_eq!((crowd.look(20), crowd.line.len()), (Some(1), 40));
        assert_eq!(crowd.let_in(20), "1".repeat(8));
    }

    #[test]
    fn who_says_nothing_makes_room_and_the_oldest_does_so_first() {
        let mut crowd = Crowd::new();
        (0..BURST).for_each(|_| crowd.come(0, b"GET /x"));
        assert_eq!(crowd.let_in(0).len(), BURST);
        for words in [&b"GET /a"[..], b"POST 1", b"POST 2", b"", b"PO", b"GET /b"] {
            crowd.come(1, words);
        }
        // Five places, one of them for publishers.
        assert_eq!(crowd.make_room(5), "2");
        assert_eq!((crowd.make_room(5).as_str(), crowd.line.silent.len()), ("-", 2));
        assert_eq!((crowd.make_room(5).as_str(), crowd.line.silent.len()), ("-", 1));
        assert_eq!((crowd.make_room(5).as_str(), crowd.line.len()), ("nobody", 3));
        assert_eq!((crowd.let_in(1).as_str(), crowd.let_in(500).as_str()), ("1", "ab"));
    }

    #[test]
    fn where_hardly_anybody_may_wait_a_publisher_may() {
        let mut crowd = Crowd::new();
        (0..BURST).for_each(|_| crowd.come(0, b"GET /x"));
        assert_eq!(crowd.let_in(0).len(), BURST);
        crowd.come(1, b"POST 1");
        assert_eq!((crowd.make_room(1).as_str(), crowd.line.publishers.len()), ("nobody", 1));
    }

    #[test]
    fn who_says_nothing_waits_like_a_client_after_a_second() {
        let mut crowd = Crowd::new();
        (0..BURST).for_each(|_| crowd.come(0, b"GET /x"));
        assert_eq!(crowd.let_in(0).len(), BURST);
        crowd.come(0, b"");
        crowd.come(0, b"PO");
        crowd.come(1, b"GET /a");
        assert_eq!((crowd.look(10), crowd.let_in(250).as_str()), (Some(0), "a"));
        crowd.clients[BURST + 1].write_all(b"ST 1").unwrap();
        crowd.come(260, b"GET /b");
        while crowd.line.silent[1].accepted.socket.peek(&mut [0; 6]).unwrap() < 6 {}
        assert_eq!((crowd.look(300), crowd.let_in(300).as_str()), (Some(0), "1"));
        assert_eq!((crowd.look(999), crowd.line.silent.len()), (Some(0), 1));
        assert_eq!((crowd.look(1_009), crowd.line.silent.len()), (Some(0), 0));
        assert_eq!(crowd.let_in(1_009), "b-");
        assert_eq!(crowd.line.len(), 0);
    }

    #[test]
    fn first_words() {
        for (bytes, word) in [
            (&b"POST /v1/topics/a HTTP/1.1"[..], Word::Post),
            (b"POST ", Word::Post),
            (b"POST", Word::None),
            (b"P", Word::None),
            (b"PO\r\n", Word::Other),
            (b"post /", Word::Other),
            (b"GET /v1/ws HTTP/1.1", Word::Other),
            (b"\x16\x03\x01", Word::Other),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0POST /", Word::Post),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /", Word::Other),
            (b"\r\n\r\n\0\r\nQU", Word::None),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x08\0", Word::None),
            // More than any header may have.
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x08\x01", Word::Other),
        ] {
            assert_eq!(Word::read(bytes), word, "{bytes:?}");
        }
    }

    #[test]
    fn the_longest_header_of_a_proxy_hides_nothing() {
        let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x08\0"[..], &[b'x'; 2048]].concat();
        let mut crowd = Crowd::new();
        (0..BURST).for_each(|_| crowd.come(0, b"GET /x"));
        assert_eq!(crowd.let_in(0).len(), BURST);
        crowd.come(1, &[&header, &b"POST /"[..]].concat());
        let socket = &crowd.line.silent[0].accepted.socket;
        while socket.peek(&mut [0; 4096]).unwrap() < header.len() + 6 {}
        assert_eq!((crowd.look(10), crowd.line.publishers.len()), (Some(0), 1));
    }
}
