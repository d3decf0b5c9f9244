//! The `tickcast` program: reads the command line and the configuration, runs a node or a client, and says how it ended.

#![forbid(unsafe_code)]

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write, stderr, stdout};
use std::pin::{Pin, pin};
use std::process::ExitCode;

use clap::Parser;
use tickcast::cli::{self, Cli, Command, USAGE};
use tickcast::config::{Config, ConfigErrors, Inputs};
use tickcast::demo::{Feed, Welcome, program};
use tickcast::server::{Reloads, Server};
use tickcast::{logging, rlimit, systemd};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    match Cli::parse().command() {
        Command::Dev(args) => {
            let feed = (!args.no_feed).then(|| Feed::new(args.seed));
            run_node(args.inputs(), Some(feed))
        }
        Command::Serve(args) => run_node(args.inputs(), None),
        Command::Pub(args) => args.run(),
        Command::Sub(args) => args.run(),
        Command::Check(args) => args.run(),
        Command::Config(args) => args.run(),
        Command::Doctor(args) => args.run(),
        Command::Health(args) => args.run(),
        Command::Drain(args) => args.run(),
        Command::Key(args) => args.run(),
        Command::Completions(args) => args.run(),
    }
}

/// Runs a node until it is told to stop. `dev` is set for the verb of that name, with its feed.
fn run_node(inputs: Inputs, dev: Option<Option<Feed>>) -> ExitCode {
    rlimit::raise_open_files();
    let (config, warnings) = match inputs.load() {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(errors, &inputs),
    };
    let _log = match logging::init(config.log.format, &config.log.filter) {
        Ok(guard) => guard,
        Err(error) => return complain(&error, USAGE),
    };
    log_panics();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, 1),
    };
    let code = runtime.block_on(serve(config, inputs, dev));
    // A worker that did not end in time must not keep the process.
    runtime.shutdown_background();
    code
}

/// Sends panics where everything else is said. Nothing else is done about them here: whoever is nearest catches them.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or_default();
        // Empty unless RUST_BACKTRACE asks for it.
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => {
                tracing::error!(thread, place, %backtrace, "panic: {message}");
            }
            _ => tracing::error!(thread, place, "panic: {message}"),
        }
    }));
}

async fn serve(config: Config, inputs: Inputs, dev: Option<Option<Feed>>) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return complain(&error, 1),
    };
    let log_memory = config.log_memory();
    let mut server = match Server::start(config).await {
        Ok(server) => server,
        Err(error) => return complain(&error, 1),
    };
    server.set_inputs(inputs);
    match dev {
        Some(feed) => welcome(&mut server, feed),
        None => {
            let (listen, admin, broker) =
                (server.address(), server.admin_address(), server.broker());
            let version = env!("CARGO_PKG_VERSION");
            tracing::info!(%listen, %admin, %broker, %log_memory, version, "serving");
        }
    }
    systemd::ready(&format!(
        "serving on {}, admin on {}",
        server.address(),
        server.admin_address()
    ));
    let cause = run(&mut server, &mut signals).await;
    let by = cause.as_str();
    tracing::info!(by, "stopping; a second signal ends the waiting");
    stop(server, &mut signals, cause).await
}

/// Why a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The signal of this name.
    Signal(&'static str),
    /// An operator, through the admin listener.
    Operator,
    /// A part of the node has failed.
    Failure,
}

impl Cause {
    /// As the log calls it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Signal(name) => name,
            Self::Operator => "POST /admin/drain",
            Self::Failure => "a part that failed",
        }
    }
}

/// Follows the signals until the node is to end, and says why it is.
async fn run(server: &mut Server, signals: &mut Signals) -> Cause {
    let mut asked = pin!(server.asked_to_end());
    // A reload may take its time. The end does not wait for it.
    let mut reload = pin!(None);
    let mut is_reload_due = false;
    loop {
        if reload.is_none() && std::mem::take(&mut is_reload_due) {
            reload.set(Some(server.reload()));
        }
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop(signal) => return Cause::Signal(signal),
                // One that is under way may have read what was there before.
                Wish::Reload => is_reload_due = true,
            },
            () = asked.as_mut() => return Cause::Operator,
            () = server.failed() => return Cause::Failure,
            // What came of it is in the log and the metrics.
            () = end(reload.as_mut()), if reload.is_some() => reload.set(None),
        }
    }
}

/// Waits for the end of what is under way, if something is.
async fn end(mut work: Pin<&mut Option<impl Future>>) {
    if let Some(work) = work.as_mut().as_pin_mut() {
        drop(work.await);
    }
}

/// Drains the node. The second signal hurries it, and the third ends the program at once.
///
/// A drain that an operator asked for is none of the three: whoever stops the process after it, as a supervisor does
/// whose hook drains the node first, means to begin what has begun already.
async fn stop(server: Server, signals: &mut Signals, cause: Cause) -> ExitCode {
    let (haste, reloads) = (server.haste(), server.reloads());
    let mut stopped = pin!(server.stop());
    let second = async {
        if cause == Cause::Operator {
            let by = signals.stop(&reloads).await;
            tracing::info!(
                by,
                "the node drains already and goes on; a second signal ends the waiting"
            );
        }
        signals.stop(&reloads).await;
    };
    let well = tokio::select! {
        well = stopped.as_mut() => well,
        () = second => {
            tracing::info!("closing all connections now; a third signal stops at once");
            haste.cancel();
            tokio::select! {
                well = stopped => well,
                _ = signals.stop(&reloads) => false,
            }
        }
    };
    if well && cause != Cause::Failure { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first page of `dev`, and its feed.
fn welcome(server: &mut Server, feed: Option<Feed>) {
    let page = Welcome {
        public: server.address(),
        admin: server.admin_address(),
        broker: server.broker(),
        feed: feed.is_some(),
        program: program(&std::env::args().next().unwrap_or_default()),
        colors: cli::colors(&stdout()),
    };
    // A closed standard output is no reason not to serve.
    drop(stdout().write_all(page.page().as_bytes()));
    if let Some(feed) = feed {
        server.spawn_feed(feed);
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// By the signal of this name.
    Stop(&'static str),
    Reload,
}

/// The signals that a node listens to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::Stop("SIGINT"),
            _ = self.terminate.recv() => Wish::Stop("SIGTERM"),
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }

    /// Waits for the next one that means to stop, and names it. Until then a node reads its configuration when it is told
    /// to: a key that is taken away is to be gone from a node that drains, too.
    async fn stop(&mut self, reloads: &Reloads) -> &'static str {
        loop {
            match self.next().await {
                Wish::Stop(signal) => return signal,
                // In the background: the end does not wait for it.
                Wish::Reload => drop(tokio::spawn(reloads.reload())),
            }
        }
    }
}

/// Says everything that is wrong with the configuration, and how to check it when it is mended.
fn refuse(errors: ConfigErrors, inputs: &Inputs) -> ExitCode {
    let report = cli::report(&errors.into_all());
    let command = cli::check_command(inputs);
    complain(&format_args!("the node does not start\n\n{report}  run: {command}"), USAGE)
}

/// Says what is wrong on standard error.
fn complain(problem: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // If standard error is gone there is nobody left to tell; the exit code still says it.
    drop(writeln!(stderr(), "tickcast: {problem}"));
    ExitCode::from(code)
}
