//! The `tickcast` program: reads the command line and the configuration, runs a node or a client, and says how it ended.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use tickcast::cli::{self, Cli, Command};
use tickcast::config::{Config, Flags};
use tickcast::demo::{Feed, Welcome, program};
use tickcast::{logging, rlimit, server::Server};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command() {
        Command::Dev(args) => {
            let feed = (!args.no_feed).then(|| Feed::new(args.seed));
            run_node(args.node.config.as_deref(), args.flags(), Some(feed))
        }
        Command::Serve(args) => run_node(args.config.as_deref(), args.flags(), None),
        Command::Pub(args) => args.run(),
        Command::Sub(args) => args.run(),
        Command::Doctor(args) => args.run(),
    }
}

/// Runs a node until it is told to stop. `dev` is set for the verb of that name, with its feed.
fn run_node(file: Option<&std::path::Path>, flags: Flags, dev: Option<Option<Feed>>) -> ExitCode {
    rlimit::raise_open_files();
    let (config, warnings) = match Config::load(file, cli::environment(), flags) {
        Ok(loaded) => loaded,
        Err(errors) => return complain(&errors, USAGE),
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
    let code = runtime.block_on(serve(config, dev));
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

async fn serve(config: Config, dev: Option<Option<Feed>>) -> ExitCode {
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            (Err(error), _) | (_, Err(error)) => return complain(&error, 1),
        };
    let mut server = match Server::start(config).await {
        Ok(server) => server,
        Err(error) => return complain(&error, 1),
    };
    match dev {
        Some(feed) => {
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
        None => {
            let (listen, admin, broker) =
                (server.address(), server.admin_address(), server.broker());
            tracing::info!(%listen, %admin, %broker, version = env!("CARGO_PKG_VERSION"), "serving");
        }
    }
    let has_failed = tokio::select! {
        () = wait_for(&mut interrupt, &mut terminate) => false,
        () = server.failed() => true,
    };
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        well = server.stop() => if well && !has_failed { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        () = wait_for(&mut interrupt, &mut terminate) => ExitCode::FAILURE,
    }
}

async fn wait_for(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Says what is wrong on standard error.
fn complain(problem: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // If standard error is gone there is nobody left to tell; the exit code still says it.
    drop(writeln!(stderr(), "tickcast: {problem}"));
    ExitCode::from(code)
}
