//! What `deploy/` holds: every file is checked by the program that reads it, and all of them together are started by
//! `scripts/cluster` (`make cluster`) and must keep what they promise while processes are killed and drained.

mod alerts;
mod balancer;
mod deployment;
mod files;
mod receiver;
mod storm;
mod tunnel;
