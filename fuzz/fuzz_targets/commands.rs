#![no_main]

#[path = "../checks/commands.rs"]
mod commands;
#[path = "../checks/json.rs"]
mod json;

libfuzzer_sys::fuzz_target!(|input: &[u8]| commands::check(input));
