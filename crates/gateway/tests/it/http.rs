//! The HTTP API, and HTTP/1.1 itself below it.

mod abuse;
mod floods;
mod hostile;
mod publish;
mod read;
mod slow;
