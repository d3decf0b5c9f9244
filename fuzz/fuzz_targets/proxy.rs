#![no_main]

#[path = "../checks/proxy.rs"]
mod proxy;

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy::check(input));
