//! Reads the files that a configuration is made of.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// Size of a file of settings or of keys, in bytes: twice what as many keys need as a node may have.
pub(super) const SETTINGS_BYTES_MAX: u64 = 8 << 20;

/// Reads a file of text, of `bytes_max` bytes at most.
///
/// It must be a regular file: a pipe into which nobody writes would never end, and no file of those could be read again.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is a folder, a pipe or a device, and no regular file"));
    }
    let mut text = String::new();
    // One more than allowed, so that a longer file shows.
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (text, is_read) in [("", true), ("1234", true), ("12345", false)] {
            fs::write(&path, text).unwrap();
            let read = read(&path, 4);
            assert_eq!(read.ok().as_deref(), is_read.then_some(text));
        }
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 4 bytes");
    }

    #[test]
    fn what_is_no_regular_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, folder.path(), Path::new("/dev/zero")] {
            let error = read(path, SETTINGS_BYTES_MAX).unwrap_err();
            assert!(error.to_string().ends_with("no regular file"), "{error}");
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/proc/self/cmdline", &link).unwrap();
        assert!(read(&link, SETTINGS_BYTES_MAX).is_ok());
    }
}
