//! Checking and showing a configuration, and what a node says that does not start.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::program::{Program, command};

/// Stands in every secret of these tests.
const SECRET: &str = "hunter2";

/// A folder with a configuration file, and calls of the program that read it.
struct Rig {
    folder: tempfile::TempDir,
    file: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Rig {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tickcast.toml");
        std::fs::write(&file, text).expect("a file");
        Self { folder, file, environment: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// A file beside the configuration, by its path.
    fn add(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = command(&[verb, "--config"]);
        command.arg(&self.file).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// The exit code, and what was printed on both streams, with files named as they are in the folder.
    fn run(&self, verb: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(verb, arguments).output().expect("it runs");
        let folder = format!("{}/", self.folder.path().display());
        let text = |bytes| String::from_utf8(bytes).expect("text").replace(&folder, "");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let rig = Rig::new("[server]\nworkers = 3\n");
    let good = (Some(0), "0 errors, 0 warnings in the configuration\n".to_owned(), String::new());
    assert_eq!(rig.run("check", &[]), good);
    assert_eq!(rig.run("check", &["--strict"]), good);
    // Nothing is bound: what listens there may be a node with the old configuration.
    let node = Program::serve(&[]);
    assert_eq!(rig.run("check", &["--listen", &node.address.to_string()]), good);
}

#[test]
fn everything_wrong_is_said_at_once_with_its_place_and_its_fix() {
    let text = "# käse\n[server]\nlistn = '127.0.0.1:1'\n\"ä\" . b = 'ü'\nworkers  = 5000\n";
    let rig = Rig::new(text)
        .with("TICKCAST__TOPICS__MODE", "lastest")
        .with("TICKCAST__SERVER_INSECURE", "true")
        .with("TICKCAST_SERVER_LISTEN", "127.0.0.1:1");
    let keys = rig.add("keys.toml", "[[access.key]]\nname = 'a b'\n\n[[access.key]]\n");
    let rig = rig.with("TICKCAST__ACCESS__KEYS_FILE", &keys);
    let (code, said, _) = rig.run("check", &["--log-filter", "tickcast=loud"]);
    assert_eq!(code, Some(2), "{said}");
    let key = |place: &str, number: usize, missing: &str| {
        format!(
            "{place}: error: key {number} of `access.key` has no `{missing}`\n  fix: add for example `{missing} = "
        )
    };
    let expected = [
        key("keys.toml:4:1", 2, "name"),
        key("keys.toml:4:1", 2, "hash"),
        key("keys.toml:4:1", 2, "rights"),
        "keys.toml:2:8: error: `access.key[0].name` = \"a b\" cannot be used\n  fix: expected 1 to 64 of".to_owned(),
        "tickcast.toml:3:1: error: unknown key `server.listn`\n  fix: did you mean `server.listen`?".to_owned(),
        "tickcast.toml:4:7: error: unknown key `server.ä.b`\n  fix: see docs/".to_owned(),
        "tickcast.toml:5:12: error: `server.workers` = 5000 cannot be used\n  fix: expected a whole number from 0 to 1024".to_owned(),
        "env TICKCAST_SERVER_LISTEN: warning: `TICKCAST_SERVER_LISTEN` is ignored: levels are separated by two underscores\n  \
         fix: did you mean `TICKCAST__SERVER__LISTEN`?".to_owned(),
        "env TICKCAST__SERVER_INSECURE: error: unknown key `server_insecure`\n  fix: did you mean `TICKCAST__SERVER__INSECURE`?".to_owned(),
        "env TICKCAST__TOPICS__MODE: error: `topics.mode` = \"lastest\" cannot be used\n  \
         fix: expected \"all\" or \"latest\"; did you mean \"latest\"?".to_owned(),
        "--log-filter: error: `log.filter` = \"tickcast=loud\" cannot be used".to_owned(),
    ];
    for paragraph in &expected {
        assert!(said.contains(paragraph), "{paragraph}\nin\n{said}");
    }
    // Two more of the first key.
    assert!(said.ends_with("\n\n12 errors, 1 warning in the configuration\n"), "{said}");
}

#[test]
fn programs_are_told_the_same() {
    let rig =
        Rig::new("[limits]\npayload_bytes = '64KB'\n").with("TICKCAST_HUB_LOG_MEMORY", "1MiB");
    let (code, said, _) = rig.run("check", &["--format", "json"]);
    assert_eq!(code, Some(2), "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&said["ok"], &said["errors"], &said["warnings"]),
        (&false.into(), &1.into(), &1.into())
    );
    let expected = serde_json::json!({
        "level": "error",
        "origin": {"source": "file", "file": "tickcast.toml", "line": 2, "column": 17},
        "setting": "limits.payload_bytes",
        "value": "64KB",
        "message": "`limits.payload_bytes` = \"64KB\" cannot be used",
        "suggestion": "\"64KiB\"",
        "fix": "expected a size such as \"64KiB\" or \"1MiB\" from \"1B\" to \"16MiB\"; did you mean \"64KiB\"?",
        "page": "docs/reference/configuration.md#limits",
    });
    assert_eq!(said["problems"][0], expected);
    let origin =
        serde_json::json!({"source": "environment", "variable": "TICKCAST_HUB_LOG_MEMORY"});
    assert_eq!(said["problems"][1]["origin"], origin);
    assert_eq!(said["problems"][1]["suggestion"], "TICKCAST__HUB__LOG_MEMORY");
}

#[test]
fn warnings_are_errors_if_that_is_asked_for() {
    let rig = Rig::new("").with("TICKCAST_SERVER_LISTEN", "127.0.0.1:1");
    let (code, said, _) = rig.run("check", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("\n0 errors, 1 warning in the configuration\n"), "{said}");
    assert_eq!(rig.run("check", &["--strict"]), (Some(2), said, String::new()));
}

#[test]
fn what_serve_refuses_check_refuses_with_the_same_words() {
    let pem =
        |name: &str| format!("[broker.redis]\nurl = 'rediss://localhost'\nca_file = '{name}'\n");
    for (text, arguments) in [
        ("[server]\nworkers = \n", &[][..]),
        ("[server]\nlistn = 1\n[colour]\nred = 2\n", &[]),
        ("", &["--listen", "0.0.0.0:1"]),
        ("", &["--redis", "redis://localhost:port"]),
        ("", &["--log-format", "xml"]),
        ("[access]\nkeys_file = '/nowhere'\n", &[]),
        (&pem("/nowhere"), &[]),
        (&pem("/dev/null"), &["--workers", "2"]),
        ("[drain]\ndelay = '1m'\n", &[]),
    ] {
        let rig = Rig::new(text).with("TICKCAST_LOG_FILTER", "debug");
        let (code, checked, _) = rig.run("check", arguments);
        assert_eq!(code, Some(2), "{text} {arguments:?}: {checked}");
        let (code, _, served) = rig.run("serve", arguments);
        assert_eq!(code, Some(2), "{text} {arguments:?}: {served}");
        let mended =
            served.strip_prefix("tickcast: the node does not start\n\n").expect("its title");
        let mended = mended.strip_prefix(&checked).unwrap_or_else(|| panic!("{checked}\n{served}"));
        // The last line is a command that does what this test does.
        let flags: String = arguments.iter().map(|word| format!(" {word}")).collect();
        let flags = flags.replace("redis://localhost:port", "'…'");
        assert_eq!(mended, format!("  run: tickcast check --config tickcast.toml{flags}\n"));
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let rig = Rig::new("");
    std::fs::remove_file(&rig.file).expect("it is there");
    let (code, said, _) = rig.run("check", &[]);
    assert_eq!(code, Some(2), "{said}");
    let expected =
        "tickcast.toml: error: cannot be read: No such file or directory (os error 2)\n  fix: name";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn bytes_that_are_not_text_are_an_error_with_the_name_of_the_variable() {
    use std::os::unix::ffi::OsStrExt as _;
    let rig = Rig::new("");
    let mut check = rig.command("check", &[]);
    check.env("TICKCAST__LOG__FILTER", std::ffi::OsStr::from_bytes(b"info\xff"));
    let output = check.output().expect("it runs");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    let expected =
        "env TICKCAST__LOG__FILTER: error: `log.filter` is set to bytes that are not text";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn every_value_is_shown_with_its_source() {
    let text = "\
[server]
workers = 2
listen = '127.0.0.1:1'
[topics]
history = 7
[[topics.pattern]]
match = 'a.*'
mode = 'latest'
";
    let rig = Rig::new(text).with("TICKCAST__SERVER__LISTEN", "127.0.0.1:2");
    let (code, said, complaints) = rig.run("config", &["--max-connections", "9", "--insecure"]);
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{said}");
    let squeezed: Vec<String> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "[server]",
        "listen = \"127.0.0.1:2\" # env TICKCAST__SERVER__LISTEN",
        "admin_listen = \"127.0.0.1:8081\" # default",
        "workers = 2 # tickcast.toml:2:11",
        "max_connections = 9 # --max-connections",
        "insecure = true # --insecure",
        "history = 7 # tickcast.toml:5:11",
        "[[topics.pattern]] # 1",
        "match = \"a.*\" # tickcast.toml:7:9",
        "mode = \"latest\" # tickcast.toml:8:8",
    ] {
        assert!(squeezed.iter().any(|said| said == line), "{line}\nin\n{said}");
    }
    assert!(squeezed.iter().any(|line| line.starts_with("log_memory = \"0B\" # default, here \"")));

    // It is a configuration, and means the same.
    let again = Rig::new(&said);
    let (_, second, _) = again.run("config", &[]);
    let values = |text: &str| {
        text.lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&second), values(&said));

    let (_, json, _) = rig.run("config", &["--format", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let listen = serde_json::json!({
        "setting": "server.listen", "value": "127.0.0.1:2", "here": null,
        "origin": {"source": "environment", "variable": "TICKCAST__SERVER__LISTEN"},
    });
    assert_eq!(json["settings"][0], listen);
    assert_eq!(
        json["settings"].as_array().expect("a list").len(),
        tickcast::config::keys().count() + 2
    );
}

#[test]
fn a_broken_configuration_has_no_values() {
    let rig = Rig::new("[server]\nlistn = 1\n");
    let (code, said, complaints) = rig.run("config", &[]);
    assert_eq!((code, said.as_str()), (Some(2), ""));
    assert!(complaints.starts_with("tickcast.toml:2:1: error: unknown key `server.listn`"));
    let warned = Rig::new("").with("TICKCAST_SERVER_LISTEN", "127.0.0.1:1");
    let (code, _, complaints) = warned.run("config", &[]);
    assert_eq!(code, Some(0));
    assert!(complaints.contains("did you mean `TICKCAST__SERVER__LISTEN`?"), "{complaints}");
}

#[test]
fn no_output_tells_a_secret() {
    let url = format!("redis://app:{SECRET}@10.255.255.1:6379");
    let broken = format!("redis://app:{SECRET}@host:port");
    let hash = format!("sha256:{}", "5e".repeat(32));
    let key = format!("[[access.key]]\nname = 'a'\nhash = '{hash}'\nrights = ['publish']\n");
    let in_file = |url: &str| format!("[broker.redis]\nurl = '{url}'\n{key}");
    let rigs = [
        Rig::new(&in_file(&url)),
        Rig::new(&in_file(&broken)),
        Rig::new(&format!("[broker.redis]\nurl = ['{url}']\npassword = '{SECRET}'\n")),
        Rig::new(&format!("{}\nrate = '{SECRET}", in_file(&url))),
        Rig::new(&key.replace("sha256:", &format!("tck_{SECRET}"))),
        Rig::new("").with("TICKCAST__BROKER__REDIS__URL", &url),
        Rig::new("").with("TICKCAST__BROKER__REDIS__URL", &broken),
        Rig::new("").with("TICKCAST__BROKER__REDIS_URL", &url),
        Rig::new("").with("TICKCAST_BROKER_REDIS_URL", &url),
        Rig::new("")
            .with("TICKCAST__BROKER__REDIS", &format!("{{url = '{url}', pass = '{SECRET}'}}")),
        Rig::new("").with("TICKCAST__CLIENT__KEY", &format!("tck_{SECRET}")),
    ];
    for rig in rigs {
        let file = rig.add("url", &url);
        for flags in [&[][..], &["--redis", &url], &["--redis", &broken]] {
            let rig_flags = |more: &[&'static str]| [flags, more].concat();
            let mut said = String::new();
            for (verb, more) in [
                ("check", &[][..]),
                ("check", &["--format", "json"]),
                ("config", &[]),
                ("config", &["--format", "json"]),
                // It binds nothing that there is: it always ends.
                ("serve", &["--listen", "192.0.2.1:1", "--insecure"]),
            ] {
                let (_, out, complaints) = rig.run(verb, &rig_flags(more));
                said.extend([out, complaints]);
            }
            assert!(!said.contains(SECRET), "{flags:?}: {said}");
            assert!(!said.contains(&hash), "{flags:?}: {said}");
        }
        let text = format!("[broker.redis]\nurl_file = '{file}'\n");
        let (_, said, _) = Rig::new(&text).run("config", &[]);
        assert!(!said.contains(SECRET), "{said}");
        assert!(said.contains("url = \"***\"") && said.contains(&format!("# {file}")), "{said}");
    }
}

#[test]
fn the_reference_file_is_a_configuration() {
    let output = command(&["config", "--reference"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let rig = Rig::new(&text);
    assert_eq!(rig.run("check", &["--strict"]).0, Some(0));
    let (code, said, _) = rig.run("config", &[]);
    let of_nothing = Rig::new("").run("config", &[]).1;
    assert_eq!((code, said), (Some(0), of_nothing), "as it is, it changes nothing");
}

#[test]
fn dev_says_what_it_overrides() {
    let arguments = ["--no-feed", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let text = "[cors]\norigins = ['https://a.example']\n[websocket]\npublish = true\n";
    let rig = Rig::new(text).with("TICKCAST_SERVER_LISTEN", "127.0.0.1:1");
    let mut dev = rig.command("dev", &arguments);
    let dev = crate::process::Process::start("dev", &mut dev);
    let warned =
        dev.wait_for("a warning", |line| line.contains("`dev` makes it").then(|| line.to_owned()));
    assert!(warned.contains("tickcast.toml:2:11: `cors.origins` = [\"https://a.example\"] has no effect: `dev` makes it [\"*\"]"), "{warned}");
    dev.wait_for("the other warning", |line| {
        line.contains("did you mean `TICKCAST__SERVER__LISTEN`?").then_some(())
    });
    dev.wait_for("its page", |line| line.contains("Ctrl-C stops it").then_some(()));
    // What it would have set anyway is not overridden.
    assert_eq!(dev.log().matches("`dev` makes it").count(), 1, "{}", dev.log());
}

#[test]
fn a_port_in_use_names_the_process() {
    let node = Program::serve(&[]);
    let (address, pid) = (node.address.to_string(), node.pid().as_raw_nonzero());
    let (code, _, said) = Rig::new("").run("serve", &["--listen", &address]);
    assert_eq!(code, Some(1), "{said}");
    let expected = format!(
        "tickcast: cannot listen on {address} (`server.listen`): Address already in use (os error 98); \
         `tickcast` (process {pid}) listens there\n  fix: end that process, or choose another address with --listen\n  \
         see: docs/reference/configuration.md#server\n  run: ps -fp {pid}\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn client_verbs_warn_of_variables_that_are_not_read() {
    let mut health = command(&["health", "--admin-url", "http://127.0.0.1:1"]);
    let output = health.env("TICKCAST_CLIENT_KEY", SECRET).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(
        said.contains("`TICKCAST_CLIENT_KEY` is ignored; did you mean `TICKCAST__CLIENT__KEY`?")
    );
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn bash_completes_what_there_is() {
    let script = command(&["completions", "bash"]).output().expect("it runs").stdout;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tickcast");
    std::fs::write(&file, script).expect("a file");
    let complete = |words: &str| {
        let program = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _tickcast tickcast \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        let output = Command::new("bash").args(["-c", &program]).output().expect("bash");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(complete("tickcast che"), "check\n");
    assert_eq!(complete("tickcast check --str"), "--strict\n");
    assert_eq!(complete("tickcast check --format ''"), "text json\n");
    assert_eq!(complete("tickcast completions ''").trim_end(), "-h --help bash zsh fish");
    for shell in ["zsh", "fish"] {
        let output = command(&["completions", shell]).output().expect("it runs");
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && script.contains("admin-listen"), "{shell}: {script}");
    }
}
