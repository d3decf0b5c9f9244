//! `tickcast-load`: see the library for what it does.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tickcast_load::cli::main()
}
