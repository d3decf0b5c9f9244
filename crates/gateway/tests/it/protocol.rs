//! The client protocol `tickcast.v1`: every message, and the order in which they come.

mod commands;
mod hostile;
mod latest;
mod resume;
mod subscribe;
