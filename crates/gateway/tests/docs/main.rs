//! The documents do what they say: every fenced code block of `README.md` and `docs/` is run, or checked as far as it
//! can be.
//!
//! A page is read from top to bottom, as its reader would, in a folder of its own ([`session`]). The first word behind
//! the fence says what a block is, and with that what happens to it ([`rules`]); a block without a rule is a failure:
//!
//! | block | what happens |
//! |---|---|
//! | `sh` | runs in the page's shell; every command must succeed. `sh background [NAME]`: starts, and ends with the page. `sh fails`: the last command must fail. `sh parsed`: command lines of `tickcast`, read by its parser and not run |
//! | `text output [NAME]`, `json output [NAME]` | is what the block before it has printed, or the background block of that name; `…` stands for anything on its line, a line of nothing else for any lines |
//! | `text` of `> ` and `< ` | a dialogue of the client protocol: every line is read. `text live`: it is spoken with the page's node |
//! | `text figure` | a drawing: only counted |
//! | `json` | is JSON |
//! | `toml` | is loaded as a configuration |
//! | `js`, `python`, `html` | runs against the page's node |
//! | `redis` | commands, executed by the page's Redis |
//! | `rust` | stands in the source, word for word |
//! | `haproxy`, `nginx`, `ini`, `yaml` | stands in a file of `deploy/`, or is accepted by the program that reads such files |
//!
//! `LANGUAGE file=NAME` puts a block of any language into the page's folder, for the blocks after it. What is replaced
//! on the way, all of it:
//!
//! - the well-known ports by free ones ([`ports`]), there and back;
//! - `tickcast` and `target/release/tickcast` by the program under test, and with them `cargo run`;
//! - programs that would change the machine by those in `stubs/`: they check that what is asked for exists;
//! - what a page takes for granted and does not start itself, it gets: a Redis, and a node under `tickcast dev`, with
//!   the demo feed if it publishes nothing.
//!
//! Set `TICKCAST_PAGE` to a part of a page's name to have only such pages run.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(feature = "testing")]
#[path = "../support/handshake.rs"]
mod handshake;
#[path = "../support/packages.rs"]
mod packages;
#[path = "../support/port.rs"]
mod port;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/process.rs"]
mod process;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/program.rs"]
mod program;
#[expect(dead_code, reason = "made for servers that end and come back")]
#[path = "../support/redis.rs"]
mod redis;

mod capacity;
mod clients;
mod compare;
mod excerpts;
mod links;
// One of the answers is that of a worker that hangs, which only a build for tests can be told to do.
#[cfg(feature = "testing")]
mod openapi;
mod page;
mod ports;
mod programs;
mod rules;
mod schema;
mod session;
mod transcript;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::page::Page;
use crate::rules::{Failure, Reader, Rule};

/// As many as there are: the page is generated.
const ANY: usize = usize::MAX;

/// Blocks that are not run, by page and rule, and how many there are. All others are.
#[rustfmt::skip]
const NOT_RUN: &[(&str, &str, usize)] = &[
    ("README.md", "figure", 1),
    ("docs/ARCHITECTURE.md", "figure", 1),
    ("docs/reference/cli.md", "parsed", ANY),
    ("docs/tutorials/cluster-on-a-laptop.md", "figure", 1),
];

/// Pages that are read at once. They mostly wait.
const READERS: usize = 3;

#[test]
fn every_page_does_what_it_says() {
    let wanted = std::env::var("TICKCAST_PAGE").unwrap_or_default();
    let pages: Vec<Page> =
        Page::all().into_iter().filter(|page| page.name.contains(&wanted)).collect();
    assert!(!pages.is_empty(), "no page is called {wanted}");
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::<Failure>::new());
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(pages.len()) {
            scope.spawn(|| {
                while let Some(page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = Reader::read(page);
                    failures.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "\n\n{}\n", texts.join("\n\n"));
}

#[test]
fn what_is_not_run_is_known() {
    let mut found = BTreeMap::<(String, &str), usize>::new();
    for page in Page::all() {
        for block in &page.blocks {
            if let Some(why) = Rule::of(block).ok().and_then(Rule::not_run) {
                *found.entry((page.name.clone(), why)).or_default() += 1;
            }
        }
    }
    let known = NOT_RUN.iter().map(|&(page, why, count)| {
        let key = (page.to_owned(), why);
        let count = if count == ANY { found.get(&key).copied().unwrap_or(1) } else { count };
        (key, count)
    });
    let known: BTreeMap<_, _> = known.collect();
    assert_eq!(found, known, "compare with NOT_RUN");
}
