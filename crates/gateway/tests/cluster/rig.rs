//! The rig itself: a fault that does not happen proves nothing.

mod load;
mod proxy;
mod servers;
