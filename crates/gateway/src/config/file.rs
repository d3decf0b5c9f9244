//! Reads the files that a configuration is made of.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Size of a file of settings or of keys, in bytes: twice what as many keys need as a node may have.
pub(super) const SETTINGS_BYTES_MAX: u64 = 8 << 20;

/// Reads a file of text. A longer one than `bytes_max` is an error: whoever names `/dev/zero` is to be told so.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<String> {
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
            std::fs::write(&path, text).unwrap();
            let read = read(&path, 4);
            assert_eq!(read.ok().as_deref(), is_read.then_some(text));
        }
        let error = read(Path::new("/dev/zero"), SETTINGS_BYTES_MAX).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 8388608 bytes");
    }
}
