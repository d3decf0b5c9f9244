//! What `tickcast sub` shows: one aligned line per publication, and notices beside them.

use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

use super::message::Publication;
use super::state::Arrival;
use crate::cli::SubscribeArgs;
use crate::cli::client::{printable, thousands};

/// Names longer than this do not widen the column for all others.
const TOPIC_WIDTH_MAX: usize = 48;
const OFFSET_WIDTH_MIN: usize = 6;
const OUT_BUFFER_BYTES: usize = 64 << 10;
/// Older than an hour is as old as an hour; three digits are enough.
const AGE_MAX_MS: u64 = 3_600_000;
const AGE_DIGITS: u8 = 3;

/// The output of one run.
pub(super) struct Screen {
    out: BufWriter<Box<dyn Write>>,
    notices: Box<dyn Write>,
    /// Colors on the output, colors on the notices.
    paint: [bool; 2],
    json: bool,
    topic_width: usize,
    offset_width: usize,
    ages: Option<Histogram<u64>>,
    started: Instant,
    publications: u64,
    gaps: u64,
}

impl Screen {
    /// An empty screen. `paint` says whether output and notices may have colors.
    pub(super) fn new(
        args: &SubscribeArgs,
        out: Box<dyn Write>,
        notices: Box<dyn Write>,
        paint: [bool; 2],
    ) -> Self {
        let width = args.topics.iter().map(|topic| topic.as_str().len()).max().unwrap_or_default();
        let ages = args.latency.then(|| Histogram::new_with_bounds(1, AGE_MAX_MS, AGE_DIGITS).ok());
        Self {
            out: BufWriter::with_capacity(OUT_BUFFER_BYTES, out),
            notices,
            paint,
            json: args.json,
            topic_width: width.min(TOPIC_WIDTH_MAX),
            offset_width: OFFSET_WIDTH_MIN,
            ages: ages.flatten(),
            started: Instant::now(),
            publications: 0,
            gaps: 0,
        }
    }

    /// A message as it is, on one line, if that is what was asked for.
    pub(super) fn raw(&mut self, text: &[u8]) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        // Inside JSON a line break can only be white space, so a space is as good.
        for line in text.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            match line {
                [rest @ .., b'\n' | b'\r'] => {
                    self.out.write_all(rest)?;
                    self.out.write_all(b" ")?;
                }
                _ => self.out.write_all(line)?,
            }
        }
        self.out.write_all(b"\n")
    }

    /// A publication, and what is remarkable about it.
    pub(super) fn publication(
        &mut self,
        publication: &Publication<'_>,
        arrival: &Arrival,
    ) -> io::Result<()> {
        self.publications += 1;
        let Publication { topic, offset, time, data } = *publication;
        if let Some((from, to)) = arrival.missing {
            self.gap(&format!("missing {topic} {from}..{to} (not announced)"))?;
        }
        if arrival.repeated {
            self.notice(&format!("repeated {topic} {offset}"))?;
        }
        let age = time.map(age_ms);
        if let (Some(ages), Some(age), true) = (&mut self.ages, age, arrival.live) {
            ages.saturating_record(u64::try_from(age).unwrap_or_default());
        }
        if self.json {
            return Ok(());
        }
        let [dim, bold, plain] =
            if self.paint[0] { ["\x1b[2m", "\x1b[1m", "\x1b[0m"] } else { [""; 3] };
        let width = self.topic_width;
        let offset = offset.to_string();
        self.offset_width = self.offset_width.max(offset.len());
        let offset_width = self.offset_width;
        write!(self.out, "{bold}{topic:<width$}{plain}  {dim}{offset:>offset_width$}{plain}  ")?;
        if self.ages.is_some() {
            // The age of a kept value says how old it is, not how long it took.
            let age = age.filter(|_| arrival.live).map_or_else(|| "-".to_owned(), age_text);
            write!(self.out, "{dim}{age:>8}{plain}  ")?;
        }
        writeln!(self.out, "{}", printable(data))
    }

    /// Something skipped, counted for the summary.
    pub(super) fn gap(&mut self, text: &str) -> io::Result<()> {
        self.gaps += 1;
        self.protocol_notice(text)
    }

    /// A notice that stands in the output already when that is JSON.
    pub(super) fn protocol_notice(&mut self, text: &str) -> io::Result<()> {
        if self.json { Ok(()) } else { self.notice(text) }
    }

    /// A notice.
    pub(super) fn notice(&mut self, text: &str) -> io::Result<()> {
        // On a terminal both streams are one screen: what came before the notice is shown before it.
        self.out.flush()?;
        let [dim, plain] = if self.paint[1] { ["\x1b[2m", "\x1b[0m"] } else { [""; 2] };
        writeln!(self.notices, "{dim}-- {}{plain}", printable(text))
    }

    /// Shows everything that was printed.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Shows the rest, and the summary if ages were asked for.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some(ages) = self.ages.take() else { return Ok(()) };
        let mut text = format!(
            "{} publications in {:.1} s, {} gaps",
            thousands(self.publications),
            self.started.elapsed().as_secs_f64(),
            self.gaps
        );
        if !ages.is_empty() {
            let at = |quantile| thousands(ages.value_at_quantile(quantile));
            let ages = format!("; age p50 {} ms, p99 {} ms, max {} ms", at(0.5), at(0.99), at(1.0));
            text.push_str(&ages);
        }
        self.notice(&text)
    }
}

/// Milliseconds since the publication, by this machine's clock; negative if that is behind the node's.
fn age_ms(time: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX).saturating_sub(time)
}

fn age_text(milliseconds: i64) -> String {
    match milliseconds {
        ..10_000 => format!("{milliseconds} ms"),
        10_000..600_000 => format!("{} s", milliseconds / 1000),
        _ => format!("{} min", milliseconds / 60_000),
    }
}
