#![no_main]

#[path = "../checks/cursors.rs"]
mod cursors;
#[path = "../checks/json.rs"]
mod json;

libfuzzer_sys::fuzz_target!(|input: &[u8]| cursors::check(input));
