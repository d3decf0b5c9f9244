use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use serde_json::Value;
use tracing::subscriber::with_default;

use super::*;

/// What was written so far.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

/// An output whose writes wait until the sender is gone, and say that they have begun.
struct Stuck {
    output: Output,
    begun: Sender<()>,
    gate: Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The test may not wait for it any more.
        let _sent = self.begun.send(());
        // An error is the signal: the other end is gone.
        let _gone = self.gate.recv();
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs with everything that `init` sets up but the global subscriber, and gives what was written.
fn logged(format: LogFormat, filter: &str, log: impl FnOnce()) -> String {
    let queue = Arc::new(Queue::new(LINES_MAX, BYTES_MAX));
    let output = Output::default();
    let guard = start_writer(&queue, format, output.clone()).unwrap();
    let (subscriber, _) = subscriber(&queue, format, parse_filter(filter).unwrap(), false);
    with_default(subscriber, log);
    drop(guard);
    output.text()
}

fn one_event() {
    tracing::info!(connection = 7, code = "slow_consumer", "closed");
    tracing::debug!("not wanted");
}

#[test]
fn a_compact_line_is_readable_and_plain() {
    let text = logged(LogFormat::Compact, "info", one_event);
    let (time, rest) = text.split_at(27);
    assert!(time.ends_with('Z') && time.contains('T'), "{text}");
    assert_eq!(
        rest,
        "  INFO tickcast::logging::tests: closed connection=7 code=\"slow_consumer\"\n"
    );
}

#[test]
fn a_json_line_is_one_flat_object() {
    let text = logged(LogFormat::Json, "warn,tickcast=info", one_event);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{text}");
    for (key, value) in [
        ("level", "INFO".into()),
        ("message", "closed".into()),
        ("connection", Value::from(7)),
        ("code", "slow_consumer".into()),
        ("target", "tickcast::logging::tests".into()),
    ] {
        assert_eq!(lines[0][key], value, "{key}");
    }
}

#[test]
fn the_line_about_dropped_lines_looks_like_the_others() {
    let real: Value =
        serde_json::from_str(&logged(LogFormat::Json, "warn", || tracing::warn!(dropped = 3, "x")))
            .unwrap();
    let ours: Value = serde_json::from_str(&dropped_line(LogFormat::Json, 3)).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&real));
    assert_eq!(ours["dropped"], 3);

    let real = logged(
        LogFormat::Compact,
        "warn",
        || tracing::warn!(target: "tickcast::logging", dropped = 3, "x"),
    );
    let text = "log lines were dropped because standard error did not keep up";
    let ours = dropped_line(LogFormat::Compact, 3);
    assert_eq!(ours[27..], real[27..].replace(": x ", &format!(": {text} ")));
}

#[test]
fn the_filter_can_be_changed_at_any_time() {
    for format in [LogFormat::Compact, LogFormat::Json] {
        let queue = Arc::new(Queue::new(LINES_MAX, BYTES_MAX));
        let output = Output::default();
        let guard = start_writer(&queue, format, output.clone()).unwrap();
        let (subscriber, set_filter) =
            subscriber(&queue, format, parse_filter("info").unwrap(), false);
        with_default(subscriber, || {
            for (filter, word) in [("info", "first"), ("debug", "second"), ("off", "third")] {
                set_filter(parse_filter(filter).unwrap()).unwrap();
                tracing::debug!("{word}");
            }
        });
        drop(guard);
        let text = output.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("second"), "{text}");
    }
}

#[test]
fn a_bad_filter_is_named() {
    let error = parse_filter("info,tickcast=loud").unwrap_err().to_string();
    assert!(error.starts_with("log.filter \"info,tickcast=loud\" cannot be used: "), "{error}");
    assert!(error.ends_with("expected for example \"info\" or \"info,tickcast=debug\""), "{error}");
}

/// The output takes nothing before all lines were logged: if logging waited for it, this test would not end.
#[test]
fn logging_goes_on_while_the_output_is_stuck_and_the_missing_lines_are_named() {
    const COUNT: usize = 100_000;
    let queue = Arc::new(Queue::new(LINES_MAX, BYTES_MAX));
    let output = Output::default();
    let (begun, has_begun) = channel();
    let (open, gate) = channel();
    let guard =
        start_writer(&queue, LogFormat::Json, Stuck { output: output.clone(), begun, gate })
            .unwrap();
    let filter = parse_filter("info").unwrap();
    with_default(subscriber(&queue, LogFormat::Json, filter, false).0, || {
        tracing::info!(number = 0, "line");
        has_begun.recv().unwrap();
        for number in 1..COUNT {
            tracing::info!(number, "line");
        }
    });
    // The writer holds the first line, the queue as many as it may.
    let dropped = (COUNT - 1 - LINES_MAX) as u64;
    assert_eq!(queue.dropped(), dropped);
    drop(open);
    drop(guard);

    let text = output.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), LINES_MAX + 2);
    let (note, lines) = lines.split_last().unwrap();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["number"], number);
    }
    assert_eq!(note["dropped"], dropped);
    assert_eq!(queue.dropped(), dropped);
}

#[test]
fn long_lines_are_bounded_by_their_bytes() {
    let queue = Queue::new(LINES_MAX, 10);
    for line in ["12345\n", "1234\n", "123\n"] {
        queue.push(line.as_bytes());
    }
    assert_eq!(queue.dropped(), 1);
    queue.close(Duration::ZERO);
    let output = Output::default();
    queue.write_to(output.clone(), |dropped| format!("dropped {dropped}\n"));
    assert_eq!(output.text(), "12345\n123\ndropped 1\n");
}

#[test]
fn the_end_does_not_wait_for_a_stuck_output() {
    let queue = Arc::new(Queue::new(LINES_MAX, BYTES_MAX));
    let (begun, has_begun) = channel();
    let (open, gate) = channel();
    let stuck = Stuck { output: Output::default(), begun, gate };
    let guard = start_writer(&queue, LogFormat::Compact, stuck).unwrap();
    queue.push(b"line\n");
    has_begun.recv().unwrap();
    drop(guard);
    drop(open);
}

#[test]
fn lines_that_cannot_be_written_count_as_dropped() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let queue = Queue::new(LINES_MAX, BYTES_MAX);
    queue.push(b"one\n");
    queue.push(b"two\n");
    queue.close(Duration::ZERO);
    queue.write_to(Gone, |_| String::new());
    assert_eq!(queue.dropped(), 2);
    queue.push(b"too late\n");
    assert_eq!(queue.dropped(), 3);
}
