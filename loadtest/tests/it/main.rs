//! The load tester as a whole: against its own floor, and against a server that breaks its promises on purpose.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "in a test, a broken expectation is a failed test")]

mod bench;
mod child;
mod fake;
mod fanout;
mod idle;
mod publish;
