//! One rule of the contract each, told as what is said, published and received.
//!
//! Received frames are written in short form, see [`Frame`](crate::frame::Frame): `ok 1: t@a/3 all` acknowledges command 1,
//! with topic `t` at offset 3 of epoch `a`; `t 4` is a publication.

mod bounds;
mod gaps;
mod inboxes;
mod latest;
mod lifecycle;
mod repairs;
mod resets;
mod resuming;
mod subscribing;
mod writing;
