//! One open file in reserve, so that a process that may have no more of them can still say so.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

/// Whether something failed because there are as many open files as there may be.
pub(super) fn is_lack_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// A file that is closed when the next one cannot be opened otherwise.
#[derive(Debug)]
pub(super) struct Spare(Option<OwnedFd>);

impl Spare {
    /// Any file can be the spare one; a copy of `some` is at hand.
    pub(super) fn new(some: &impl AsFd) -> Self {
        Self(some.as_fd().try_clone_to_owned().ok())
    }

    /// Closes the spare file: what failed for want of one may succeed now. False if it was closed already.
    pub(super) fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    pub(super) fn is_used(&self) -> bool {
        self.0.is_none()
    }

    /// Takes a spare file again, if there is one to be had.
    pub(super) fn restore(&mut self, some: &impl AsFd) {
        if self.is_used() {
            *self = Self::new(some);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_helps_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut spare = Spare::new(&listener);
        assert!(!spare.is_used());
        assert!(spare.give_up());
        assert!(spare.is_used());
        assert!(!spare.give_up());
        spare.restore(&listener);
        assert!(spare.give_up());
    }

    #[test]
    fn only_a_lack_of_files_is_one() {
        assert!(is_lack_of_files(&Errno::MFILE.into()));
        assert!(is_lack_of_files(&Errno::NFILE.into()));
        assert!(!is_lack_of_files(&Errno::CONNABORTED.into()));
        assert!(!is_lack_of_files(&io::Error::other("files")));
    }
}
