#![no_main]

#[path = "../checks/http.rs"]
mod http;
#[path = "../checks/json.rs"]
mod json;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http::check(input));
