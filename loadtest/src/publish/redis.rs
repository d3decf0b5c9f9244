//! A connection to Redis for looking at it: asks one thing at a time, or listens to everything that it is asked.
//!
//! Just enough of the protocol (RESP2) for `PING`, `INFO`, `ECHO` and `MONITOR`, whose answers are texts.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::LoadError;
use crate::wire::leading_number;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer taken, in bytes. `INFO commandstats` has about 4 KB.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The connection.
#[derive(Debug)]
pub(super) struct Redis {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Redis {
    pub(super) fn connect(address: SocketAddr) -> Result<Self, LoadError> {
        let connect = || -> io::Result<BufReader<TcpStream>> {
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_nodelay(true)?;
            Ok(BufReader::new(stream))
        };
        let stream = connect().map_err(failed(address, "connecting to"))?;
        Ok(Self { address, stream })
    }

    /// Sends a command whose answer is a text.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<String, LoadError> {
        let words_sent = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        let command = format!("*{}\r\n{}", words.len(), words_sent.collect::<String>());
        let answer = self
            .stream
            .get_mut()
            .write_all(command.as_bytes())
            .and_then(|()| read_answer(&mut self.stream))
            .map_err(failed(self.address, "asking"))?;
        answer.map_err(|problem| LoadError::Server {
            place: format!("{} of Redis on {}", words.join(" "), self.address),
            problem,
            fix: "look at the log of that Redis",
        })
    }

    /// How often the commands were called since the server started, by clients and by scripts.
    pub(super) fn calls(&mut self) -> Result<Calls, LoadError> {
        Ok(Calls::read(&self.ask(&["INFO", "commandstats", "stats"])?))
    }

    /// How many keys there are in the first two databases.
    pub(super) fn keys(&mut self) -> Result<[u64; 2], LoadError> {
        let info = self.ask(&["INFO", "keyspace"])?;
        Ok(["db0:keys=", "db1:keys="].map(|database| {
            let line = info.lines().find_map(|line| line.strip_prefix(database));
            line.and_then(|line| Some(leading_number(line.as_bytes())?.0)).unwrap_or(0)
        }))
    }

    /// The next command that the server executes, after `MONITOR`.
    pub(super) fn next_monitored(&mut self) -> Result<Monitored, LoadError> {
        let mut line = Vec::new();
        let take = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut self.stream)
            .take(take)
            .read_until(b'\n', &mut line)
            .map_err(failed(self.address, "monitoring"))?;
        Monitored::read(&line).ok_or_else(|| LoadError::Server {
            place: format!("MONITOR of Redis on {}", self.address),
            problem: format!("cannot read {:?}", String::from_utf8_lossy(&line)),
            fix: "use Redis 7",
        })
    }
}

fn failed(address: SocketAddr, action: &str) -> impl FnOnce(io::Error) -> LoadError + use<> {
    LoadError::system(format!("{action} Redis on {address}"), "look at the log of that Redis")
}

/// Reads one answer; an error of Redis is in the inner result.
fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<Result<String, String>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let (kind, text) = line.trim_end().split_at_checked(1).ok_or(ErrorKind::UnexpectedEof)?;
    match kind {
        "+" | ":" => Ok(Ok(text.to_owned())),
        "-" => Ok(Err(text.to_owned())),
        "$" => {
            let length: usize = text.parse().map_err(|_no_number| ErrorKind::InvalidData)?;
            if length > ANSWER_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(Ok(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// How often Redis was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Calls {
    /// `EVALSHA` and `EVAL`.
    pub(super) scripts: u64,
    /// Those of them that failed.
    pub(super) failed: u64,
    /// `PUBLISH` and `SPUBLISH`.
    pub(super) messages: u64,
    /// Reads from the sockets of clients.
    pub(super) reads: u64,
}

impl Calls {
    /// Reads `INFO commandstats stats`.
    fn read(info: &str) -> Self {
        let value = |command: &str, field: &str| {
            let line = info.lines().find_map(|line| {
                line.strip_prefix("cmdstat_")?.strip_prefix(command)?.strip_prefix(':')
            });
            let values = line.unwrap_or_default().split(',');
            let mut values = values.filter_map(|value| value.split_once('='));
            values.find(|(name, _)| *name == field).and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let sum = |commands: [&str; 2], field: &str| {
            commands.iter().filter_map(|command| value(command, field)).sum::<u64>()
        };
        let scripts = ["evalsha", "eval"];
        Self {
            scripts: sum(scripts, "calls"),
            failed: sum(scripts, "failed_calls") + sum(scripts, "rejected_calls"),
            messages: sum(["publish", "spublish"], "calls"),
            reads: info
                .lines()
                .find_map(|line| line.strip_prefix("total_reads_processed:")?.trim().parse().ok())
                .unwrap_or(0),
        }
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            scripts: self.scripts.saturating_sub(earlier.scripts),
            failed: self.failed.saturating_sub(earlier.failed),
            messages: self.messages.saturating_sub(earlier.messages),
            reads: self.reads.saturating_sub(earlier.reads),
        }
    }
}

/// A command that the server executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Monitored {
    /// Whether a script called it.
    pub(super) by_script: bool,
    pub(super) words: Vec<Vec<u8>>,
}

impl Monitored {
    /// Reads `+1339518083.107412 [0 127.0.0.1:60866] "GET" "a\"b\x00"`.
    fn read(line: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b']', line)?;
        let (head, mut rest) = line.split_at_checked(end)?;
        let mut words = Vec::new();
        rest = rest.strip_prefix(b"]")?.trim_ascii_end();
        while let Some(text) = rest.strip_prefix(b" \"") {
            let (word, behind) = unquote(text)?;
            words.push(word);
            rest = behind;
        }
        (rest.is_empty() && !words.is_empty())
            .then_some(Self { by_script: head.ends_with(b" lua"), words })
    }

    /// Whether it is this command.
    pub(super) fn is(&self, command: &str) -> bool {
        self.words.first().is_some_and(|word| word.eq_ignore_ascii_case(command.as_bytes()))
    }
}

/// Reads a text up to its closing quote, and returns what follows that.
fn unquote(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        let (byte, rest) = text.split_first()?;
        text = rest;
        match byte {
            b'"' => return Some((word, text)),
            b'\\' => {
                let (escaped, rest) = text.split_first()?;
                text = rest;
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'a' => 7,
                    b'b' => 8,
                    b'x' => {
                        let (digits, rest) = text.split_at_checked(2)?;
                        text = rest;
                        u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?
                    }
                    other => *other,
                });
            }
            other => word.push(*other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_the_statistics() {
        let info = "# Commandstats\r\ncmdstat_publish:calls=20,usec=5,usec_per_call=0.25,rejected_calls=0,failed_calls=0\r\n\
                    cmdstat_evalsha:calls=10,usec=40,usec_per_call=4.00,rejected_calls=1,failed_calls=2\r\n\
                    cmdstat_eval:calls=3,usec=40,usec_per_call=4.00,rejected_calls=0,failed_calls=0\r\n\
                    cmdstat_config|get:calls=1,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n\
                    # Stats\r\ntotal_reads_processed:7\r\n";
        let calls = Calls::read(info);
        assert_eq!(calls, Calls { scripts: 13, failed: 3, messages: 20, reads: 7 });
        assert_eq!(calls.since(Calls { messages: 1, ..calls }).messages, 19);
        assert_eq!(Calls::read(""), Calls::default());
    }

    #[test]
    fn monitored_commands_are_read_with_their_escapes() {
        let line = b"+1795525552.107412 [0 127.0.0.1:60866] \"EVALSHA\" \"a\\\"b\\\\c\" \"1\\n\\x00\\xff\" \"\"\r\n";
        let monitored = Monitored::read(line).expect("a command");
        assert!(monitored.is("evalsha") && !monitored.by_script);
        assert_eq!(monitored.words[1..], [b"a\"b\\c".to_vec(), b"1\n\0\xff".to_vec(), vec![]]);
        let inner =
            Monitored::read(b"+1795525552.1 [0 lua] \"HGET\" \"k\"\r\n").expect("a command");
        assert!(inner.by_script && inner.is("HGET"));
    }

    #[test]
    fn other_lines_are_no_commands() {
        for line in
            [&b"+OK\r\n"[..], b"", b"+1 [0 lua] \"HGET", b"+1 [0 lua] \"\\xg0\"", b"+1 [0 lua]\r\n"]
        {
            assert_eq!(Monitored::read(line), None, "{}", String::from_utf8_lossy(line));
        }
    }
}
