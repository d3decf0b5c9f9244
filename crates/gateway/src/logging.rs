//! The log: one line per event on standard error, and never in anyone's way.
//!
//! Threads put finished lines into a bounded queue; one thread of its own writes them. When standard error does not
//! keep up, the queue fills and further lines are dropped, counted for the metrics, and named in a line of their own as
//! soon as there is room. A worker that logs waits for nothing but the copy of its line.

mod queue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::reload;

use self::queue::Queue;
use crate::cli;
use crate::config::LogFormat;

/// Lines that may wait. At the bound further lines are dropped. Enough for a burst of one line per connection on a
/// small node; at 200 bytes a line it is 1.6 MB.
const LINES_MAX: usize = 8192;

/// Bytes that may wait, so that long lines do not cost more than short ones. At the bound lines are dropped.
const BYTES_MAX: usize = 4 << 20;

/// How long the program waits at its end for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The queue of this process, for the metrics.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Changes the filter of this process.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

/// Why logging could not be set up, or its filter not changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter breaks its grammar.
    #[error(
        "log.filter \"{filter}\" cannot be used: {source}; expected for example \"info\" or \"info,tickcast=debug\""
    )]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The thread that writes could not be started.
    #[error("the thread that writes the log could not be started: {0}")]
    Thread(#[from] io::Error),
    /// The subscriber is gone.
    #[error("log.filter cannot be changed any more: {0}")]
    Gone(#[from] reload::Error),
    /// Something else in this process logs already.
    #[error("the log of this process is set up already")]
    AlreadySet(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Keeps the log open. When it is dropped, the lines that wait are written, for at most a second.
#[derive(Debug)]
#[must_use = "lines that wait are written when the guard is dropped"]
pub struct LogGuard(Arc<Queue>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.close(FLUSH_TIMEOUT);
    }
}

/// Sets up the log of this process, on standard error.
///
/// # Errors
/// [`LogError`] names the filter that cannot be used, or why there can be no log.
pub fn init(format: LogFormat, filter: &str) -> Result<LogGuard, LogError> {
    let filter = parse_filter(filter)?;
    let queue = Arc::new(Queue::new(LINES_MAX, BYTES_MAX));
    let guard = start_writer(&queue, format, io::stderr())?;
    let (subscriber, set_filter) = subscriber(&queue, format, filter, cli::colors(&io::stderr()));
    tracing::subscriber::set_global_default(subscriber)?;
    // Only one subscriber can be set, so these are set once too.
    QUEUE.get_or_init(|| queue);
    SET_FILTER.get_or_init(|| set_filter);
    Ok(guard)
}

/// Changes what is logged from now on. Does nothing in a process whose log was not set up here.
///
/// # Errors
/// [`LogError::Filter`] names the filter that cannot be used.
pub(crate) fn set_filter(filter: &str) -> Result<(), LogError> {
    let filter = parse_filter(filter)?;
    if let Some(set) = SET_FILTER.get() {
        set(filter)?;
    }
    Ok(())
}

/// Lines that this process dropped or could not write.
pub(crate) fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped())
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}

/// Starts the thread that writes what is queued.
fn start_writer(
    queue: &Arc<Queue>,
    format: LogFormat,
    output: impl Write + Send + 'static,
) -> Result<LogGuard, LogError> {
    let reader = Arc::clone(queue);
    let note = move |count| dropped_line(format, count);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || reader.write_to(output, note))?;
    Ok(LogGuard(Arc::clone(queue)))
}

fn subscriber(
    queue: &Arc<Queue>,
    format: LogFormat,
    filter: EnvFilter,
    colors: bool,
) -> (Box<dyn Subscriber + Send + Sync>, SetFilter) {
    let queue = Arc::clone(queue);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colors)
        .with_writer(move || Line(Arc::clone(&queue)));
    match format {
        LogFormat::Compact => {
            let builder = builder.compact().with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
        }
    }
}

/// Takes one finished line. The subscriber writes each line with one call.
struct Line(Arc<Queue>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that says how many are missing. Written past the filter: whoever reads a log must know that it has holes.
fn dropped_line(format: LogFormat, count: u64) -> String {
    const TEXT: &str = "log lines were dropped because standard error did not keep up";
    let (time, target) = (Now, module_path!());
    match format {
        LogFormat::Compact => format!("{time}  WARN {target}: {TEXT} dropped={count}\n"),
        LogFormat::Json => format!(
            "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{TEXT}\",\"dropped\":{count},\"target\":\"{target}\"}}\n"
        ),
    }
}

/// The time, written as the subscriber writes it.
struct Now;

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SystemTime.format_time(&mut Writer::new(f))
    }
}
