//! Servers, Sentinels and certificates.

pub(crate) mod certificates;
pub(crate) mod sentinels;
pub(crate) mod server;
