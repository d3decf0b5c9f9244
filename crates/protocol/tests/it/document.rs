//! `docs/reference/protocol.md`: what it shows is what the code does.

use std::collections::BTreeSet;
use std::fs;

use tickcast_protocol::{CloseCode, Retry, limits};

use crate::errors::ERRORS;
use crate::server::{GAPS, RESETS, about_gap, about_reset};
use crate::{client, close, golden, server};

/// A reference that is longer is read by nobody.
const LINES_MAX: usize = 330;

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

#[test]
fn codes_are_those_of_the_code() {
    let errors = ERRORS.iter().filter_map(|error| {
        Some(format!("| `{}` | {} | {} |", error.code.as_str(), error.place.words()?, error.about))
    });
    check_rows(&errors.collect::<Vec<_>>());
    let over_http = ERRORS.iter().filter(|error| error.place.words().is_none());
    for error in over_http {
        assert!(!page().contains(&format!("| `{}` |", error.code.as_str())), "{:?}", error.code);
    }
}

#[test]
fn notices_are_those_of_the_code() {
    let row = |kind, (word, about)| format!("| `{kind}` | `{word}` | {about} | ");
    check_rows(&GAPS.map(|reason| row("gap", about_gap(reason))));
    check_rows(&RESETS.map(|reason| row("reset", about_reset(reason))));
}

#[test]
fn close_codes_are_those_of_the_table() {
    let rows = close::rows();
    let row = |row: &close::Row| {
        let then = match row.retry {
            Retry::Retry => "retry",
            Retry::RetryAfter => "retry after a few seconds",
            Retry::DoNotRetry => "do not retry",
        };
        format!("| {} | `{}` | {then} | {} |", row.code, row.reason, row.about)
    };
    check_rows(&rows.iter().map(row).collect::<Vec<_>>());
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
