//! The HTTP API, and HTTP/1.1 itself below it.

mod abuse;
mod publish;
mod read;
