//! What the project is made of: how many packages, who may use which, and where code may be unsafe.
//!
//! `cargo deny` looks at the whole graph, but it is not everywhere; these are its rules that need nothing but the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// `Cargo.lock` holds fewer.
const PACKAGES_MAX: usize = 200;

/// Crate roots that do not forbid unsafe code, and why.
const NOT_FORBIDDEN: &[(&str, &str)] = &[(
    "crates/gateway/src/lib.rs",
    "tokio watches the epoll set of a worker; worker/poller.rs has the one call",
)];

/// Crate to users, such as `broker` or, where only its tests use it, `broker tests`.
type Users = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn table(path: impl AsRef<Path>) -> Table {
    let path = path.as_ref();
    read(path).parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders of our crates.
fn crates() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(root().join("crates")).unwrap();
    let mut folders: Vec<_> = folders
        .map(|folder| Path::new("crates").join(folder.unwrap().file_name()))
        .filter(|folder| root().join(folder).join("Cargo.toml").exists())
        .collect();
    folders.push("loadtest".into());
    folders.sort();
    folders
}

/// What the manifests say; the crates of the project itself are not among it.
fn users() -> Users {
    let mut users = Users::new();
    for folder in crates() {
        let manifest = table(folder.join("Cargo.toml"));
        let user = folder.file_name().unwrap().to_str().unwrap();
        let section = |name: &str| {
            let names = manifest.get(name).and_then(Value::as_table).into_iter().flatten();
            names.map(|(name, _)| name.clone()).filter(|name| !name.starts_with("tickcast"))
        };
        for name in section("dependencies").chain(section("build-dependencies")) {
            users.entry(name).or_default().insert(user.to_owned());
        }
        for name in section("dev-dependencies") {
            let users = users.entry(name).or_default();
            if !users.contains(user) {
                users.insert(format!("{user} tests"));
            }
        }
    }
    users
}

#[test]
fn the_lock_file_is_small() {
    let lock = table("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    assert!(packages.len() < PACKAGES_MAX, "{} packages", packages.len());
}

#[test]
fn every_dependency_has_its_reason() {
    let page = read("docs/decisions/0007-dependencies.md");
    let mut written = Users::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, users, reason, _] = cells[..] else { panic!("{line}") };
        assert!(!reason.is_empty(), "{line}");
        let users = users.split(", ").map(str::to_owned).collect();
        let again = written.insert(name.trim_matches('`').to_owned(), users);
        assert_eq!(again, None, "{line}");
    }
    assert_eq!(written, users(), "the table of the decision, and the manifests");
}

/// The other wrappers are crates of other people that need it too; `cargo deny` knows those.
#[test]
fn every_dependency_has_its_owners() {
    let deny = table("deny.toml");
    let mut owners = Users::new();
    for ban in deny["bans"]["deny"].as_array().unwrap() {
        let Some(wrappers) = ban.get("wrappers").and_then(Value::as_array) else { continue };
        let ours = wrappers.iter().filter_map(Value::as_str).filter_map(|name| match name {
            "tickcast" => Some("gateway".to_owned()),
            "tickcast-load" => Some("loadtest".to_owned()),
            name => name.strip_prefix("tickcast-").map(str::to_owned),
        });
        let name = ban["crate"].as_str().unwrap();
        if !name.starts_with("tickcast") {
            assert_eq!(owners.insert(name.to_owned(), ours.collect()), None, "{name} comes twice");
        }
    }
    let mut users = users();
    for users in users.values_mut() {
        *users = users.iter().map(|user| user.trim_end_matches(" tests").to_owned()).collect();
    }
    assert_eq!(owners, users, "the wrappers of deny.toml, and the manifests");
}

/// Adds the roots that Cargo finds by itself: library, program, build script and tests.
fn crate_roots(folder: &Path, found: &mut Vec<PathBuf>) {
    found.extend(["src/lib.rs", "src/main.rs", "build.rs"].map(|file| folder.join(file)));
    for tests in ["tests", "benches", "examples", "src/bin"] {
        let Ok(entries) = std::fs::read_dir(root().join(folder).join(tests)) else { continue };
        for entry in entries {
            let path = folder.join(tests).join(entry.unwrap().file_name());
            found.push(path.join("main.rs"));
            found.extend(path.extension().is_some_and(|ending| ending == "rs").then_some(path));
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_wherever_it_can_be() {
    let mut found = Vec::new();
    crates().iter().for_each(|folder| crate_roots(folder, &mut found));
    found.retain(|path| root().join(path).exists());
    assert!(found.len() > 15, "{found:?}");
    let forbids = |path: &PathBuf| read(path).lines().any(|line| line == "#![forbid(unsafe_code)]");
    let without: Vec<_> = found.iter().filter(|path| !forbids(path)).collect();
    let expected: Vec<_> = NOT_FORBIDDEN.iter().map(|(path, _why)| Path::new(path)).collect();
    assert_eq!(without, expected);
    let level = &table("Cargo.toml")["workspace"]["lints"]["rust"]["unsafe_code"];
    assert_eq!(level.as_str(), Some("deny"), "of what is left");
}
