//! `docs/reference/protocol.md`: what it shows is what the code does. The pages of codes beside it are written here.

use std::collections::BTreeSet;
use std::fs;

use tickcast_protocol::{CloseCode, Retry, limits};

use crate::errors::ERRORS;
use crate::golden::{check_page, check_section};
use crate::server::{GAPS, RESETS, about_gap, about_reset};
use crate::{client, close, golden, server};

/// A reference that is longer is read by nobody.
const LINES_MAX: usize = 330;

/// The page of close codes; `ROWS` are those of the table.
const CLOSE_CODES: &str = "\
# Close codes

This page is generated from the table in the code; a test keeps the two equal.

A node closes a WebSocket with one of these codes. Decide by the number; the reason text that comes with it is for people.

| code | name | then | why |
|---|---|---|---|
ROWS
- **retry**: connect again, to any node, and [resume](protocol.md#resume). Wait before each attempt, longer after each failure, and with chance in it so that clients do not come all at once: such as any part of 0.5 s, then of 1 s, of 2 s, and so on up to 30 s.
- **retry after a few seconds**: the same, but not before 5 s have passed.
- **do not retry**: the same would happen again. Mend what is wrong first.

A code that is not in the table may be retried below 4500, and not from 4500 on.
1005 and 1006 never travel: they are what a client library reports when a connection was lost without a close frame. Retry.

If a `goaway` came before the end, its `reconnect_in_ms` takes the place of the wait.

Nodes count what they closed in `tickcast_connections_closed_total`, by reason: [metrics](metrics.md#connections).
How to write a client that follows these rules: [the protocol](protocol.md#a-client).
";

fn page() -> String {
    fs::read_to_string(golden::root().join("../../docs/reference/protocol.md")).unwrap()
}

/// The lines of the code blocks of one kind.
fn code<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    let mut inside = None;
    let mut lines = Vec::new();
    for line in page.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(info), None) => inside = Some(info),
            (Some(_), Some(_)) => inside = None,
            (None, Some(info)) if info == kind => lines.push(line),
            (None, _) => {}
        }
    }
    lines
}

#[test]
fn examples_are_golden() {
    let page = page();
    let written: BTreeSet<String> = client::rows().into_iter().map(|row| row.text).collect();
    let read: BTreeSet<String> = server::rows().into_iter().map(|row| row.text).collect();
    for line in code(&page, "text") {
        let is_golden = match line.split_at_checked(2) {
            Some(("> ", text)) => written.contains(text),
            Some(("< ", text)) => read.contains(text),
            _ => false,
        };
        assert!(is_golden, "not a line of a golden file: {line}");
    }
}

#[test]
fn every_message_has_an_example() {
    let page = page();
    let lines = code(&page, "text");
    let kinds = |texts: Vec<String>, mark: &str| {
        let kind =
            |text: &str| text.strip_prefix("{\"type\":\"")?.split('"').next().map(str::to_owned);
        for kind in texts.iter().filter_map(|text| kind(text)).collect::<BTreeSet<_>>() {
            let example = format!("{mark}{{\"type\":\"{kind}\"");
            assert!(lines.iter().any(|line| line.starts_with(&example)), "no example of {example}");
        }
    };
    kinds(
        client::rows().into_iter().filter(client::Row::is_command).map(|row| row.text).collect(),
        "> ",
    );
    kinds(server::rows().into_iter().map(|row| row.text).collect(), "< ");
}

/// Every table row of the page with these many columns that begins with a code, and the rows it must have.
fn check_rows(expected: &[String]) {
    let page = page();
    for row in expected {
        assert!(
            page.lines().any(|line| line.starts_with(row)),
            "docs/reference/protocol.md lacks the row\n{row}"
        );
    }
}

/// The section of `docs/reference/errors.md`. After a change, run with `TICKCAST_BLESS=1` to write it.
#[test]
fn errors_are_those_of_the_code() {
    let errors = ERRORS.iter().filter_map(|error| {
        let (code, place) = (error.code.as_str(), error.place.words()?);
        Some(format!("| `{code}` | {place} | {} |\n", error.about))
    });
    let rows: String = errors.collect();
    let table = format!("| code | in | meaning |\n|---|---|---|\n{rows}");
    check_section("docs/reference/errors.md", "websocket", &table);
}

/// What to do is said of every code, and once.
#[test]
fn every_error_is_of_a_kind() {
    let page = fs::read_to_string(golden::root().join("../../docs/reference/errors.md")).unwrap();
    let rows = page.lines().skip_while(|line| !line.starts_with("| kind |")).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    let cells = rows.iter().filter_map(|row| row.split(" | ").nth(1));
    let patterns: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let is_meant = |pattern: &str, code: &str| match pattern.split_once('…') {
        Some((head, tail)) => code.starts_with(head) && code.ends_with(tail),
        None => code == pattern,
    };
    for error in ERRORS {
        let code = error.code.as_str();
        let count = patterns.iter().filter(|pattern| is_meant(pattern, code)).count();
        assert_eq!(count, 1, "{code} among the kinds of docs/reference/errors.md");
    }
    for pattern in patterns {
        let is_used = ERRORS.iter().any(|error| is_meant(pattern, error.code.as_str()));
        assert!(is_used, "there is no {pattern}");
    }
}

#[test]
fn notices_are_those_of_the_code() {
    let row = |kind, (word, about)| format!("| `{kind}` | `{word}` | {about} | ");
    check_rows(&GAPS.map(|reason| row("gap", about_gap(reason))));
    check_rows(&RESETS.map(|reason| row("reset", about_reset(reason))));
}

/// `docs/reference/close-codes.md`. After a change, run with `TICKCAST_BLESS=1` to write it.
#[test]
fn close_codes_are_those_of_the_table() {
    let row = |row: &close::Row| {
        let then = match row.retry {
            Retry::Retry => "retry",
            Retry::RetryAfter => "retry after a few seconds",
            Retry::DoNotRetry => "do not retry",
        };
        format!("| {} | `{}` | {then} | {} |\n", row.code, row.reason, row.about)
    };
    let rows: String = close::rows().iter().map(row).collect();
    check_page("docs/reference/close-codes.md", &CLOSE_CODES.replace("ROWS", &rows));
}

#[test]
fn the_client_retries_what_may_be_retried() {
    let rows = close::rows();
    let is_final = |row: &&close::Row| row.retry == Retry::DoNotRetry && row.code < 4500;
    let finals: Vec<u16> = rows.iter().filter(is_final).map(|row| row.code).collect();
    let html = code(&page(), "html").join("\n");
    assert!(html.contains(&format!("{finals:?}.includes(code)")), "the client retries other codes");
    assert_eq!(CloseCode::new(4500).retry(), Retry::DoNotRetry);
}

#[test]
fn limits_are_those_of_the_code() {
    check_rows(&[
        format!("| topic name | {} bytes of ", limits::TOPIC_BYTES_MAX),
        format!("| `id` | {} bytes, or a whole number below 2^64 | ", limits::ID_BYTES_MAX),
        format!("| `key` | {} printable ASCII characters, no space | ", limits::KEY_BYTES_MAX),
        format!("| `max_rate` | {} to {} | ", limits::RATE_HZ_MIN, limits::RATE_HZ_MAX),
        format!(
            "| one message | 64 KiB (`limits.payload_bytes`) and {} KiB | ",
            limits::COMMAND_OVERHEAD_BYTES_MAX / 1024
        ),
        format!("| payload of a ping | {} bytes | ", limits::CONTROL_BYTES_MAX),
    ]);
}

#[test]
fn it_is_short_enough_to_be_read() {
    let lines = page().lines().count();
    assert!(lines <= LINES_MAX, "{lines} lines");
}
