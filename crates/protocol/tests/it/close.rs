//! Why a connection ends: `testdata/close.json`, the table of close codes.

use serde::Serialize;
use tickcast_protocol::{CloseCode, Retry};

use crate::golden;

/// A close code as documented.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) retry: Retry,
    pub(crate) about: &'static str,
}

impl golden::Row for Row {
    fn name(&self) -> &str {
        self.reason
    }
}

/// The table of the crate, with a word on each code.
pub(crate) fn rows() -> Vec<Row> {
    let rows = CloseCode::TABLE.iter();
    rows.map(|&(code, reason, retry)| Row {
        code: code.number(),
        reason,
        retry,
        about: about(code),
    })
    .collect()
}

fn about(code: CloseCode) -> &'static str {
    match code {
        CloseCode::NORMAL => "You closed the connection.",
        CloseCode::PROTOCOL_ERROR => "A frame of yours breaks RFC 6455.",
        CloseCode::INVALID_TEXT => "A text of yours is not UTF-8.",
        CloseCode::POLICY => {
            "You sent far more commands than a connection may although they were refused, one message in more than 64 fragments or for longer than 30 seconds, more than 100 pings and pongs in a second, pings without taking the pongs, or five wrong keys."
        }
        CloseCode::TOO_BIG => "A message of yours is larger than a command can be.",
        CloseCode::RESTART => "The node stops, or the connection is old; a `goaway` came before.",
        CloseCode::TRY_LATER => {
            "The node holds as much of unfinished messages as it may, and yours was one."
        }
        CloseCode::SLOW_CONSUMER => {
            "Data was waiting for you, and for 30 seconds you took none of it."
        }
        CloseCode::PING_TIMEOUT => "You did not answer a ping.",
        CloseCode::ACCESS_CHANGED => "You hold a topic that you may not subscribe to any more.",
        CloseCode::KEY_REVOKED => "Your key is not valid any more.",
        other => panic!("{other:?} has no description"),
    }
}

#[test]
fn every_close_code() {
    golden::check("close.json", &rows());
}

/// What a client must do with a code that it does not know.
#[test]
fn unknown_codes_tell_by_their_range() {
    for number in 0..=u16::MAX {
        let code = CloseCode::new(number);
        if CloseCode::TABLE.iter().all(|row| row.0 != code) {
            let expected = if number < 4500 { Retry::Retry } else { Retry::DoNotRetry };
            assert_eq!((code.reason(), code.retry()), ("other", expected), "{number}");
        }
    }
}
