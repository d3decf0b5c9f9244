//! Reaching real servers, through what the crate shows of it: `inspect`.
//!
//! The unit tests of the dialler, which see its inside, use the same [`support`].

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod facts;
mod failures;
mod support;
