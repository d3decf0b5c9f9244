//! `tickcast-load`: see the library for what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    tickcast_load::cli::main()
}
