//! The publishers of `docs/how-to/publish-from-curl-python-node.md` do what the page promises, against a gateway that
//! is never well: one that says later, says nothing, or refuses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

use crate::page::Page;

const PAGE: &str = "docs/how-to/publish-from-curl-python-node.md";

/// Time for a program to send the next request.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, or none: the connection is closed.
type Answer = Option<(&'static str, &'static str)>;

const LATER: Answer =
    Some(("503 Service Unavailable\r\nRetry-After: 1", r#"{"code":"broker_unavailable"}"#));
const UNKNOWN: Answer = Some(("503 Service Unavailable", r#"{"code":"outcome_unknown"}"#));
const LIMITED: Answer =
    Some(("429 Too Many Requests\r\nRetry-After: 1", r#"{"code":"rate_limited"}"#));
const NOTHING: Answer = None;
const REFUSED: Answer = Some(("403 Forbidden", r#"{"code":"forbidden","detail":"no right"}"#));
const DONE: Answer = Some(("200 OK", r#"{"topic":"t","epoch":"e","offset":1}"#));
const PARTLY: Answer = Some((
    "207 Multi-Status",
    r#"{"results":[{"topic":"t","epoch":"e","offset":1},{"topic":"u","error":{"code":"outcome_unknown"}}]}"#,
));
const ALL: Answer = Some((
    "207 Multi-Status",
    r#"{"results":[{"topic":"t","epoch":"e","offset":1},{"topic":"u","error":{"code":"bad_topic"}}]}"#,
));

/// What a program sent: path, idempotency key and body.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Request {
    path: String,
    key: String,
    body: String,
}

/// Answers one request after another as told, and hands on what was asked.
fn gateway(answers: &'static [Answer]) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        let mut open: Option<BufReader<TcpStream>> = None;
        for answer in answers {
            let (mut socket, request) = loop {
                let mut socket = open
                    .take()
                    .unwrap_or_else(|| BufReader::new(listener.accept().expect("a connection").0));
                // One that the program has given up says nothing more.
                if let Some(request) = read(&mut socket) {
                    break (socket, request);
                }
            };
            if sender.send(request).is_err() {
                return;
            }
            let Some((status, body)) = answer else { continue };
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json");
            let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            socket.get_mut().write_all(text.as_bytes()).expect("it waits");
            open = Some(socket);
        }
    });
    (url, requests)
}

fn read(socket: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    while head.last().is_none_or(|line: &String| !line.is_empty()) {
        let mut line = String::new();
        if socket.read_line(&mut line).ok()? == 0 {
            return None;
        }
        head.push(line.trim_end().to_owned());
    }
    let header = |wanted: &str| {
        let mut headers = head.iter().filter_map(|line| line.split_once(": "));
        headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let mut body = vec![0; header("content-length")?.parse().ok()?];
    socket.read_exact(&mut body).ok()?;
    Some(Request {
        path: head[0].split(' ').nth(1)?.to_owned(),
        key: header("idempotency-key")?.to_owned(),
        body: String::from_utf8(body).ok()?,
    })
}

/// A folder with the programs of the page, and one more.
fn folder(name: &str, text: &str) -> TempDir {
    let folder = TempDir::with_prefix("tickcast-clients-").expect("a folder");
    let page = Page::all().into_iter().find(|page| page.name == PAGE).expect("the page");
    for block in &page.blocks {
        if let Some(name) = block.words.iter().find_map(|word| word.strip_prefix("file=publish.")) {
            std::fs::write(folder.path().join(format!("publish.{name}")), &block.text)
                .expect("room");
        }
    }
    std::fs::write(folder.path().join(name), text).expect("room on the disk");
    folder
}

/// Runs a program against a gateway: what it sent, whether it was content, and what it printed.
fn run(
    program: &str,
    arguments: &[&str],
    answers: &'static [Answer],
    more: (&str, &str),
) -> (Vec<Request>, bool, String) {
    let folder = folder(more.0, more.1);
    let (url, requests) = gateway(answers);
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&folder).env("TICKCAST__CLIENT__URL", &url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is installed");
    child.stdin.take().expect("piped").write_all(b"{\"px\":1}\n").expect("it listens");
    let sent: Vec<Request> = answers
        .iter()
        .map(|_| requests.recv_timeout(PATIENCE).expect("one more request"))
        .collect();
    let output = child.wait_with_output().expect("it ends");
    assert!(requests.try_recv().is_err(), "it asked too often");
    let printed = [output.stdout, output.stderr].concat();
    (sent, output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

const PROGRAMS: [(&str, &str); 2] = [("python3", "publish.py"), ("node", "publish.mjs")];

/// Batches, by the classes of the page.
const BATCHES: [(&str, &str, &str); 2] = [
    (
        "python3",
        "batch.py",
        "import os\nfrom publish import Publisher\n\
         print(Publisher(os.environ['TICKCAST__CLIENT__URL']).publish_batch([('t', 1), ('u', 2)]))\n",
    ),
    (
        "node",
        "batch.mjs",
        "import { Publisher } from './publish.mjs';\n\
         const publisher = new Publisher(process.env.TICKCAST__CLIENT__URL);\n\
         console.log(await publisher.publishBatch([['t', 1], ['u', 2]]));\n",
    ),
];

#[test]
fn they_go_on_with_the_same_key() {
    for (program, script) in PROGRAMS {
        let (sent, is_content, printed) =
            run(program, &[script, "t"], &[LATER, NOTHING, UNKNOWN, LIMITED, DONE], ("none", ""));
        assert!(is_content && printed.contains("offset"), "{script}: {printed}");
        assert!(sent.iter().all(|request| *request == sent[0]), "{script}: {sent:?}");
        assert_eq!(sent[0].path, "/v1/topics/t", "{script}");
        assert!(sent[0].key.len() >= 32 && sent[0].body.contains("px"), "{script}: {sent:?}");
    }
}

#[test]
fn they_do_not_repeat_a_mistake() {
    for (program, script) in PROGRAMS {
        let (_, is_content, printed) = run(program, &[script, "t"], &[REFUSED], ("none", ""));
        assert!(!is_content && printed.contains("forbidden: no right"), "{script}: {printed}");
    }
}

#[test]
fn they_send_a_batch_again_as_a_whole() {
    for (program, script, text) in BATCHES {
        let (sent, is_content, printed) =
            run(program, &[script], &[PARTLY, NOTHING, ALL], (script, text));
        assert!(is_content && printed.contains("bad_topic"), "{script}: {printed}");
        assert!(sent.iter().all(|request| *request == sent[0]), "{script}: {sent:?}");
        assert_eq!(sent[0].path, "/v1/publish", "{script}");
    }
}
