//! The `tickcast` program: reads the command line and the configuration, runs a node or a client, and says how it ended.

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
    }
}

/// Runs a node until it is told to stop. `dev` is set for the verb of that name, with its feed.
fn run_node(file: Option<&std::path::Path>, flags: Flags, dev: Option<Option<Feed>>) -> ExitCode {
    rlimit::raise_open_files();
    let (config, warnings) = match Config::load(file, environment(), flags) {
        Ok(loaded) => loaded,
        Err(errors) => return complain(&errors, USAGE),
    };
    let _log = match logging::init(config.log.format, &config.log.filter) {
        Ok(guard) => guard,
        Err(error) => return complain(&error, USAGE),
    };
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
            let (listen, admin) = (server.address(), server.admin_address());
            tracing::info!(%listen, %admin, version = env!("CARGO_PKG_VERSION"), "serving");
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

/// The environment as far as it is text; a variable that is not cannot be one of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Says what is wrong on standard error.
fn complain(problem: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // If standard error is gone there is nobody left to tell; the exit code still says it.
    drop(writeln!(stderr(), "tickcast: {problem}"));
    ExitCode::from(code)
}
