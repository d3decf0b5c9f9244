//! Reads lines and turns them into items of a batch.

use std::borrow::Cow;
use std::io::{self, BufRead, Read};
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use tickcast_protocol::Topic;

use super::lane::{Item, Lanes};

/// A longer line fits into no batch of a gateway with default limits.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What a line is.
#[derive(Debug)]
pub(super) enum Format {
    /// A payload for this topic: JSON, or text that becomes a JSON string.
    Payloads {
        /// Where all of them go.
        topic: Topic,
        /// Lines are text, not JSON.
        string: bool,
    },
    /// A whole item: `{"topic":…,"data":…}`, perhaps with a `key`.
    Items,
}

/// A line that cannot be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) why: String,
}

/// A line of a file of items.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemLine<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
}

/// Reads all lines into the lanes, `rate` per second if given, until the input ends or the lanes are closed.
///
/// Runs on its own thread, because reading and waiting for room may block.
pub(super) fn read(
    mut input: impl BufRead,
    format: &Format,
    rate: Option<f64>,
    run: &str,
    lanes: &Lanes,
) -> Result<(), BadLine> {
    let started = Instant::now();
    let mut line = Vec::new();
    let mut published = 0.0;
    for number in 1.. {
        line.clear();
        let bad = |why: String| BadLine { number, why };
        if !read_line(&mut input, &mut line).map_err(|error| bad(error.to_string()))? {
            break;
        }
        // Blank lines separate; as texts they are texts.
        let is_text = matches!(format, Format::Payloads { string: true, .. });
        if !is_text && line.trim_ascii().is_empty() {
            continue;
        }
        if let Some(rate) = rate {
            // Open loop: the schedule does not move when publishing is late.
            lanes.wait_until(started + std::time::Duration::from_secs_f64(published / rate));
            published += 1.0;
        }
        let item = parse(&line, number, format, run).map_err(bad)?;
        if !lanes.push(item) {
            break;
        }
    }
    Ok(())
}

/// Reads one line without its end; `false` when there are no more.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut bounded = input.take(LINE_BYTES_MAX + 1);
    if bounded.read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if bounded.limit() == 0 {
        return Err(io::Error::other(format!("longer than {LINE_BYTES_MAX} bytes")));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(true)
}

fn parse(line: &[u8], number: u64, format: &Format, run: &str) -> Result<Item, String> {
    let own_key = || format!("{run}-{number}");
    match format {
        Format::Payloads { topic, string: true } => {
            let text = std::str::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
            let data = serde_json::to_string(text).map_err(|error| error.to_string())?;
            Ok(Item::new(number, topic.as_str(), &own_key(), &data))
        }
        Format::Payloads { topic, string: false } => {
            let data: &RawValue = serde_json::from_slice(line).map_err(|error| {
                format!("not JSON: {}; --string publishes lines as they are", column(&error))
            })?;
            Ok(Item::new(number, topic.as_str(), &own_key(), data.get()))
        }
        Format::Items => {
            let item: ItemLine<'_> = serde_json::from_slice(line).map_err(|error| {
                format!("not an item: {}; expected {{\"topic\":…,\"data\":…}}", column(&error))
            })?;
            Topic::check(&item.topic).map_err(|error| error.to_string())?;
            let key = item.key.map_or_else(own_key, Cow::into_owned);
            Ok(Item::new(number, &item.topic, &key, item.data.get()))
        }
    }
}

/// The parser counts lines of its own; here there is only ever one.
fn column(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}
