//! The documents name files, sections and functions; all of them must exist.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::page::{Page, files, root};

/// The targets of the Markdown links in a text that are no web addresses.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains("://"))
}

/// What stands in backquotes.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The names under which the sections of a text can be linked to.
fn anchors(text: &str) -> HashSet<String> {
    let mut in_code = false;
    let mut anchors = HashSet::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !in_code) {
            let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
            let words = heading.trim_start_matches('#').trim();
            anchors.insert(
                words.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-"),
            );
        }
    }
    anchors
}

#[test]
fn every_link_leads_somewhere() {
    let pages = Page::all();
    assert!(pages.len() > 20, "the folders of docs/ are searched too");
    for page in pages {
        let document = root().join(&page.name);
        for target in links(&page.text) {
            let (file, section) = target.split_once('#').unwrap_or((target, ""));
            let folder = document.parent().expect("a folder");
            let path = if file.is_empty() { document.clone() } else { folder.join(file) };
            assert!(path.exists(), "{} links to {target}", page.name);
            if !section.is_empty() {
                let text = fs::read_to_string(&path).expect("a page");
                assert!(anchors(&text).contains(section), "{} links to {target}", page.name);
            }
        }
    }
}

#[test]
fn every_page_is_in_the_index() {
    let index = fs::read_to_string(root().join("docs/README.md")).expect("the index");
    let linked: HashSet<&str> = links(&index).collect();
    for page in Page::all() {
        let Some(name) = page.name.strip_prefix("docs/").filter(|name| *name != "README.md") else {
            continue;
        };
        // The folder stands for decisions and runbooks, which have an order of their own.
        let folder = Path::new(name).parent().expect("a folder").display().to_string();
        let is_linked =
            linked.contains(name) || ["decisions", "runbooks"].contains(&folder.as_str());
        assert!(is_linked, "docs/README.md does not name {name}");
    }
}

/// Targets of the Makefile that the README need not name: it has `cargo run`, and the others are parts of those it names.
const UNNAMED_TARGETS: [&str; 3] = ["run", "setup", "fmt"];

#[test]
fn the_readme_names_the_commands_of_the_makefile() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("a page");
    let (makefile, readme) = (read("Makefile"), read("README.md"));
    let targets = makefile.lines().filter_map(|line| line.strip_prefix("## ")?.split_once(": "));
    let targets: HashSet<&str> = targets.map(|(target, _)| target).collect();
    assert!(targets.len() > 5, "{targets:?}");
    let commands = readme.lines().filter_map(|line| line.strip_prefix("make "));
    let named: HashSet<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    let expected: HashSet<&str> =
        targets.into_iter().filter(|target| !UNNAMED_TARGETS.contains(target)).collect();
    assert_eq!(named, expected);
}

/// What an operator looks for first.
#[test]
fn the_readme_leads_to_keys_clusters_drain_reload_and_dashboards() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the page");
    let linked: HashSet<&str> = links(&readme).collect();
    for (word, target) in [
        ("**Keys**", "docs/reference/http-api.md#keys"),
        ("SIGHUP", "docs/reference/configuration.md"),
        ("`tickcast drain`", "docs/how-to/upgrade-without-a-storm.md"),
        ("dashboard", "deploy/grafana"),
        ("make cluster ", "docs/tutorials/cluster-on-a-laptop.md"),
    ] {
        assert!(readme.contains(word) && linked.contains(target), "{word}: {target}");
    }
}

#[test]
fn every_function_of_the_architecture_exists() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the page");
    let is_source = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let sources = files(&root().join("crates")).into_iter().filter(|path| is_source(path));
    let source: String = sources.map(|path| fs::read_to_string(path).expect("a text")).collect();
    let is_path = |span: &&str| {
        span.contains("::") && span.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    };
    let mut checked = 0;
    for span in code_spans(&text).filter(is_path) {
        let name = span.rsplit("::").next().expect("not empty");
        assert!(source.contains(&format!("fn {name}(")), "`{span}` is not in the code");
        checked += 1;
    }
    assert!(checked >= 15, "the walk names functions");
}

#[test]
fn anchors_of_a_text() {
    let text = "# The `a-b` c!\n```sh\n# no heading\n```\n### `[[topics.pattern]]`\n";
    assert_eq!(anchors(text), HashSet::from(["the-a-b-c".to_owned(), "topicspattern".to_owned()]));
}
