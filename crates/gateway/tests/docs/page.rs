//! Pages and the code blocks in them.

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file of this repository.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its path from the top of the repository.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) blocks: Vec<Block>,
}

/// A fenced code block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Line of its first fence, from 1.
    pub(crate) line: usize,
    /// The first word behind the fence; empty if there is none.
    pub(crate) language: String,
    /// The words after that.
    pub(crate) words: Vec<String>,
    /// What stands between the fences, with a line end at the end.
    pub(crate) text: String,
}

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is there")
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.into_iter().flat_map(below).collect()
}

impl Page {
    /// `README.md` and everything in `docs/`.
    pub(crate) fn all() -> Vec<Self> {
        let mut paths = vec![root().join("README.md")];
        let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
        paths.extend(files(&root().join("docs")).into_iter().filter(is_page));
        paths.iter().map(|path| Self::open(path)).collect()
    }

    fn open(path: &Path) -> Self {
        let name = path.strip_prefix(root()).expect("in the repository").display().to_string();
        let text = fs::read_to_string(path).expect("a text");
        let blocks = blocks(&text).unwrap_or_else(|line| {
            panic!("{name}:{line}: this code block does not end");
        });
        Self { name, text, blocks }
    }
}

/// The blocks of a text, or the line where one begins that does not end.
fn blocks(text: &str) -> Result<Vec<Block>, usize> {
    let mut blocks = Vec::new();
    let mut open: Option<(Block, &str, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some((mut block, fence, margin)) = open.take() {
            if content.trim_end() == fence {
                blocks.push(block);
                continue;
            }
            block.text.extend([&line[indent.min(margin)..], "\n"]);
            open = Some((block, fence, margin));
        } else if let Some(fence) = ["```", "~~~"].into_iter().find(|f| content.starts_with(f)) {
            let mut words = content[fence.len()..].split_whitespace().map(str::to_owned);
            let language = words.next().unwrap_or_default();
            let text = String::new();
            let block = Block { line: number + 1, language, words: words.collect(), text };
            open = Some((block, fence, indent));
        }
    }
    open.map_or(Ok(blocks), |(block, ..)| Err(block.line))
}

#[test]
fn blocks_of_a_text() {
    let text = "a\n```sh background feed\nls\n```\n- b\n\n  ```\n  x\n    y\n  ```\n";
    let block = |line, language: &str, words: &[&str], text: &str| Block {
        line,
        language: language.to_owned(),
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        text: text.to_owned(),
    };
    let expected =
        vec![block(2, "sh", &["background", "feed"], "ls\n"), block(7, "", &[], "x\n  y\n")];
    assert_eq!(blocks(text), Ok(expected));
    assert_eq!(blocks("a\n```\nb"), Err(2));
}
