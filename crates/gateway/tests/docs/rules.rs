//! What happens to which block: the table of the crate's documentation, as code.

use std::fmt;

use tickcast::config::{Config, Flags};

use crate::page::{Block, Page};
use crate::ports::{self, ADMIN, PUBLIC, REDIS};
use crate::session::{Ending, Session};
use crate::{compare, excerpts, programs, transcript};

/// What a page got wrong, and where.
#[derive(Debug)]
pub(crate) struct Failure {
    page: String,
    line: usize,
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.page, self.line, self.why)
    }
}

/// What happens to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule<'a> {
    /// Commands that must succeed, or the last of which must fail.
    Shell(Ending),
    /// Commands that stay until the page ends.
    Background(Option<&'a str>),
    /// Command lines that are read and not run.
    Parsed,
    /// What the block before, or a background block, has printed.
    Output { of: Option<&'a str>, is_json: bool },
    /// A dialogue of the client protocol.
    Dialogue { live: bool },
    /// A drawing.
    Figure,
    /// JSON.
    Json,
    /// A configuration.
    Configuration,
    /// A script, with the program that runs it.
    Script(Language),
    /// Commands of Redis.
    Redis,
    /// Lines that stand in the source, or in `deploy/`.
    Excerpt,
}

/// What a script is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    JavaScript,
    Python,
    /// The scripts of a web page.
    Html,
}

impl<'a> Rule<'a> {
    pub(crate) fn of(block: &'a Block) -> Result<Self, String> {
        let is_file = |word: &&str| word.starts_with("file=");
        let words: Vec<&str> =
            block.words.iter().map(String::as_str).filter(|word| !is_file(word)).collect();
        Ok(match (block.language.as_str(), &words[..]) {
            ("sh", []) => Self::Shell(Ending::Well),
            ("sh", ["fails"]) => Self::Shell(Ending::Badly),
            ("sh", ["parsed"]) => Self::Parsed,
            ("sh", ["background"]) => Self::Background(None),
            ("sh", ["background", name]) => Self::Background(Some(name)),
            (language @ ("text" | "json"), ["output", of @ ..]) if of.len() < 2 => {
                Self::Output { of: of.first().copied(), is_json: language == "json" }
            }
            ("text", []) => Self::Dialogue { live: false },
            ("text", ["live"]) => Self::Dialogue { live: true },
            ("text", ["figure"]) => Self::Figure,
            ("json", []) => Self::Json,
            ("toml", []) => Self::Configuration,
            ("js", []) => Self::Script(Language::JavaScript),
            ("python", []) => Self::Script(Language::Python),
            ("html", []) => Self::Script(Language::Html),
            ("redis", []) => Self::Redis,
            ("rust" | "haproxy" | "nginx" | "ini" | "yaml", []) => Self::Excerpt,
            _ => {
                let info = format!("{} {}", block.language, block.words.join(" "));
                return Err(format!("there is no rule for a block of `{}`", info.trim()));
            }
        })
    }

    /// Why a block is only looked at, if it is.
    pub(crate) fn not_run(self) -> Option<&'static str> {
        match self {
            Self::Figure => Some("figure"),
            Self::Parsed => Some("parsed"),
            _ => None,
        }
    }

    /// Whether it needs the page's shell.
    fn is_run(self) -> bool {
        use Rule::{Background, Dialogue, Redis, Script, Shell};
        matches!(self, Shell(_) | Background(_) | Script(_) | Redis | Dialogue { live: true })
    }
}

/// Reads a page from top to bottom.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    page: &'a Page,
    session: Option<Session>,
    /// What the last block has printed, if it was one that prints.
    printed: Option<String>,
}

impl<'a> Reader<'a> {
    /// Everything that is wrong with a page. Later blocks build on earlier ones, so what is run ends with the first
    /// failure.
    pub(crate) fn read(page: &'a Page) -> Vec<Failure> {
        let mut reader = Self { page, session: None, printed: None };
        let mut failures = Vec::new();
        let mut is_lost = false;
        for (at, block) in page.blocks.iter().enumerate() {
            let is_run = Rule::of(block).is_ok_and(Rule::is_run);
            let follows = matches!(Rule::of(block), Ok(Rule::Output { .. }));
            if is_lost && (is_run || follows) {
                continue;
            }
            if let Err(why) = reader.block(at, block) {
                is_lost |= is_run || follows;
                failures.push(Failure { page: page.name.clone(), line: block.line, why });
            }
        }
        let jobs = reader.session.iter().flat_map(Session::failed_jobs);
        failures.extend(jobs.map(|why| Failure { page: page.name.clone(), line: 1, why }));
        failures
    }

    fn block(&mut self, at: usize, block: &'a Block) -> Result<(), String> {
        let rule = Rule::of(block)?;
        if let Some(port) = ports::unknown(&block.text).filter(|_| rule.is_run()) {
            return Err(format!("port {port} is not in the list of ports"));
        }
        let file = block.words.iter().find_map(|word| word.strip_prefix("file="));
        if let Some(name) = file {
            self.is_used(at, name)?;
            self.session().write(name, &block.text);
        }
        let before = self.printed.take();
        match rule {
            // It is run where the page says so.
            Rule::Shell(_) | Rule::Script(_) if file.is_some() => {}
            Rule::Shell(ending) => self.printed = Some(self.session().run(&block.text, ending)?),
            Rule::Background(name) => self.session().start_job(&block.text, name)?,
            Rule::Parsed => programs::parse(&block.text)?,
            Rule::Output { of, is_json } => {
                let is_equal = if is_json { compare::is_json_output } else { compare::is_output };
                self.output(of, before.as_deref(), &block.text, is_equal)?;
            }
            Rule::Dialogue { live } => {
                transcript::read(&block.text)?;
                if live {
                    let address = self.session().ports.address(PUBLIC);
                    transcript::play(&block.text, address)?;
                }
            }
            Rule::Figure => {}
            Rule::Json => {
                let json = serde_json::from_str::<serde_json::Value>(&block.text);
                json.map_err(|error| format!("not JSON: {error}"))?;
            }
            Rule::Configuration => configuration(&block.text)?,
            Rule::Script(language) => self.printed = Some(self.script(language, &block.text)?),
            Rule::Redis => {
                let port = self.session().ports.address(REDIS).port();
                let commands = format!("redis-cli --no-raw -p {port} <<'END'\n{}END\n", block.text);
                let answers = self.session().run(&commands, Ending::Well)?;
                if answers.contains("(error)") {
                    return Err(answers);
                }
                self.printed = Some(answers);
            }
            Rule::Excerpt => excerpts::check(block)?,
        }
        Ok(())
    }

    /// A file that is put into the folder must be used by a later block.
    fn is_used(&self, at: usize, name: &str) -> Result<(), String> {
        let mut later = self.page.blocks[at + 1..].iter();
        let is_used = later.any(|block| block.language == "sh" && block.text.contains(name));
        if is_used { Ok(()) } else { Err(format!("no later block uses {name}")) }
    }

    fn output(
        &mut self,
        of: Option<&str>,
        before: Option<&str>,
        shown: &str,
        is_equal: fn(&str, &str) -> bool,
    ) -> Result<(), String> {
        match (of, before) {
            (None, Some(printed)) if is_equal(shown, printed) => Ok(()),
            (None, Some(printed)) => Err(format!("what came out is\n{printed}")),
            (name, _) => self.session().wait_for_output(name, shown, is_equal),
        }
    }

    fn script(&mut self, language: Language, text: &str) -> Result<String, String> {
        let script = match language {
            Language::Html => programs::scripts_of(text)?,
            Language::JavaScript | Language::Python => text.to_owned(),
        };
        let session = self.session();
        let (name, program) = match language {
            Language::Python => (".page/script.py", "python3".to_owned()),
            Language::JavaScript | Language::Html => {
                (".page/script.mjs", programs::browser(&script))
            }
        };
        session.write(name, &script);
        session.run(&format!("{program} {name}"), Ending::Well)
    }

    /// The page's shell. The first time, with what the page takes for granted.
    fn session(&mut self) -> &mut Session {
        let page = self.page;
        self.session.get_or_insert_with(|| {
            let mut session = Session::start();
            for text in granted(page) {
                session
                    .start_job(text, None)
                    .unwrap_or_else(|error| panic!("{}: {error}", page.name));
            }
            session
        })
    }
}

/// What must run before a page is read, because it talks to it and does not start it.
fn granted(page: &Page) -> Vec<&'static str> {
    let run = |block: &&Block| Rule::of(block).is_ok_and(Rule::is_run);
    let texts: Vec<&Block> = page.blocks.iter().filter(run).collect();
    let mentions = |word: &str| texts.iter().any(|block| block.text.contains(word));
    let shell = || texts.iter().filter(|block| block.language == "sh");
    let starts = |verb| shell().any(|block| programs::verbs(&block.text).any(|v| v == verb));
    let mut granted = Vec::new();
    let needs_redis = mentions(&REDIS.to_string()) || texts.iter().any(|b| b.language == "redis");
    if needs_redis && !mentions("redis-server") {
        granted.push("redis-server --bind 127.0.0.1 --port 6379 --save '' --appendonly no");
    }
    let talks = [PUBLIC, ADMIN].iter().any(|port| mentions(&port.to_string()))
        || ["pub", "sub", "health", "drain"].into_iter().any(starts)
        || texts.iter().any(|block| block.words.iter().any(|word| word == "live"));
    if talks && !starts("dev") && !starts("serve") && !mentions("make cluster") {
        let publishes = starts("pub") || mentions("curl");
        granted.push(if publishes { "tickcast dev --no-feed" } else { "tickcast dev" });
    }
    granted
}

/// Loads a text as a configuration file. Files that it names are there.
fn configuration(text: &str) -> Result<(), String> {
    let folder = tempfile::TempDir::new().expect("room on the disk");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("room on the disk");
        path
    };
    let keys = write("keys", KEYS).display().to_string();
    let url = write("url", "redis://127.0.0.1:6379").display().to_string();
    let line = |line: &str| match line.split_once('=') {
        Some((key, _)) if key.trim() == "keys_file" => format!("keys_file = \"{keys}\"\n"),
        Some((key, _)) if key.trim() == "url_file" => format!("url_file = \"{url}\"\n"),
        _ => format!("{line}\n"),
    };
    let file = write("tickcast.toml", &text.lines().map(line).collect::<String>());
    let loaded = Config::load(Some(&file), std::iter::empty(), Flags::default());
    loaded.map(drop).map_err(|errors| errors.to_string())
}

/// A file of keys.
const KEYS: &str = r#"
[[access.key]]
name = "test"
hash = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
rights = ["publish"]
"#;

#[test]
fn rules_of_blocks() {
    let block = |info: &str| {
        let mut words = info.split(' ').map(str::to_owned);
        let language = words.next().unwrap_or_default();
        Block { line: 1, language, words: words.collect(), text: String::new() }
    };
    let check = |info: &str, expected: Rule<'_>| {
        assert_eq!(Rule::of(&block(info)), Ok(expected), "{info}");
    };
    check("sh background feed", Rule::Background(Some("feed")));
    check("text output feed", Rule::Output { of: Some("feed"), is_json: false });
    check("python file=publish.py", Rule::Script(Language::Python));
    check("text", Rule::Dialogue { live: false });
    for unknown in ["", "cobol", "sh backgruond", "text output a b", "toml output"] {
        assert!(Rule::of(&block(unknown)).is_err(), "{unknown}");
    }
}

#[test]
fn a_configuration_is_loaded() {
    assert_eq!(configuration("[topics]\nhistory = 10\n"), Ok(()));
    assert_eq!(configuration("[access]\nkeys_file = \"/run/secrets/keys.toml\"\n"), Ok(()));
    assert!(configuration("[topics]\nhistroy = 10\n").unwrap_err().contains("histroy"));
}
