//! Packages that tests need, of npm and of Python.

use std::path::PathBuf;

/// Where `tests/clients/setup.sh` has put them.
pub(crate) fn packages() -> PathBuf {
    let pins = concat!(
        include_str!("../clients/package.json"),
        include_str!("../clients/package-lock.json"),
        include_str!("../clients/requirements.txt")
    );
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.test"));
    let stamp = std::fs::read_to_string(folder.join("stamp")).unwrap_or_default();
    assert!(
        stamp == pins,
        "the packages of this test are not installed: run crates/gateway/tests/clients/setup.sh"
    );
    folder
}
