//! Every file is good for the program that reads it, and the numbers in different files fit together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tickcast::config::{Config, Flags};

use super::deployment::root;
use crate::harness::Node;
use crate::packages::packages;
use crate::port::Port;
use crate::process::{PATIENCE, Process, until};
use crate::redis::Redis;

fn deploy(file: &str) -> PathBuf {
    root().join("deploy").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(deploy(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs a checker and gives what it said; it must be content.
fn check(command: &mut Command) -> String {
    let run = command.output();
    let Output { status, stdout, stderr } =
        run.unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/setup installs it"));
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {said}");
    said
}

/// Where programs are. Those of the system are not for everybody to find.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin"
}

/// A Python program of the packages for tests.
fn python(name: &str) -> Command {
    Command::new(packages().join("venv/bin").join(name))
}

/// A file of YAML, with its references resolved.
fn yaml(file: &str) -> Value {
    let program = "import json, sys; from ruamel.yaml import YAML; \
                   json.dump(YAML(typ='safe').load(open(sys.argv[1])), sys.stdout)";
    let said = check(python("python").args(["-c", program]).arg(deploy(file)));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// `5s` or `500ms`, as most of these files write times.
fn time(text: &str) -> Duration {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = text[..text.len() - unit.len()].parse().expect("a number");
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "h" => Duration::from_secs(3600 * number),
        _ => panic!("{text} is not a time"),
    }
}

/// The word after `key` in a text of words.
fn word<'a>(text: &'a str, key: &str) -> &'a str {
    let mut words = text.split_whitespace();
    words.find(|word| *word == key).and_then(|_| words.next()).unwrap_or_else(|| panic!("no {key}"))
}

/// The lines that are not comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The configuration of the nodes as the program reads it, with a file of keys that is there.
fn config() -> Config {
    let keys = tempfile::NamedTempFile::new().expect("room on the disk");
    let hash = "0".repeat(64);
    let key =
        format!("[[access.key]]\nname = \"a\"\nhash = \"sha256:{hash}\"\nrights = [\"publish\"]\n");
    fs::write(keys.path(), key).expect("room on the disk");
    let path = keys.path().to_str().expect("a readable path").to_owned();
    let env = std::iter::once(("TICKCAST__ACCESS__KEYS_FILE".to_owned(), path));
    let loaded = Config::load(Some(&deploy("tickcast.toml")), env, Flags::default());
    let (config, warnings) = loaded.unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

#[test]
fn the_load_balancer_takes_its_file_without_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = folder.path().join("tls.pem");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout"]);
    check(openssl.arg(&certificate).arg("-out").arg(folder.path().join("crt")));
    let crt = fs::read_to_string(folder.path().join("crt")).expect("a certificate");
    let key = fs::read_to_string(&certificate).expect("a key");
    fs::write(&certificate, crt + &key).expect("room on the disk");

    let file = deploy("haproxy/haproxy.cfg");
    let haproxy = || {
        let mut command = Command::new("haproxy");
        command.arg("-c").arg("-f").arg(&file).env_clear().env("PATH", path());
        (1..=3).for_each(|node| {
            command.env(format!("NODE_{node}"), format!("127.0.0.1:{node}"));
        });
        command
    };
    for said in [check(&mut haproxy()), check(haproxy().env("TLS_FILE", &certificate))] {
        assert!(!said.contains("[WARNING]") && !said.contains("[ALERT]"), "{said}");
    }
    // Without any variable it is for the names in compose.yaml, which are known there only.
    let mut command = Command::new("haproxy");
    check(command.arg("-c").arg("-f").arg(&file).env_clear().env("PATH", path()));
}

/// The lines of a backend of the load balancer.
fn backend<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let section = text.split("\nbackend ").find(|section| section.starts_with(name));
    let section = section.unwrap_or_else(|| panic!("no {name}"));
    lines(section.split("\nfrontend ").next().unwrap_or_default()).collect()
}

#[test]
fn the_load_balancer_has_the_same_nodes_for_everything_and_is_quick_enough() {
    let text = read("haproxy/haproxy.cfg");
    let servers = |name: &str| {
        backend(&text, name)
            .into_iter()
            .filter(|line| line.starts_with("server ") || line.starts_with("default-server "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (publish, subscribe) = (servers("publish"), servers("subscribe"));
    assert_eq!(publish, subscribe);
    let targets = yaml("prometheus/targets/tickcast.yaml");
    for target in targets.as_array().expect("a list") {
        let name = target["labels"]["instance"].as_str().expect("a name");
        let line = publish.iter().find(|line| line.starts_with(&format!("server {name} ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {publish:?}"));
        assert!(line.contains(&format!("-{name}:8080}}\"")), "{line}");
    }
    let count = publish.iter().filter(|line| line.starts_with("server ")).count();
    assert_eq!(Some(count), targets.as_array().map(Vec::len));

    let config = config();
    // The first check that fails comes after `inter` at the latest, the others sooner one after another.
    let server = publish.iter().find(|line| line.contains(" inter ")).expect("checks");
    let again: u32 = word(server, "fall").parse().expect("a number");
    let noticed = time(word(server, "inter")) + (again - 1) * time(word(server, "fastinter"));
    assert!(2 * noticed < config.drain.delay, "{noticed:?} and {:?}", config.drain.delay);
    let silence = text.lines().find_map(|line| line.trim().strip_prefix("timeout tunnel "));
    assert!(2 * config.websocket.ping_interval < time(silence.expect("a time")));
    // Idle connections end here before they end there, after two looks at the latest if there is one.
    let look = publish.iter().find(|line| line.contains(" pool-purge-delay ")).expect("a time");
    assert!(2 * time(word(look, "pool-purge-delay")) < config.http.header_timeout);
}

/// Who was told to go before its turn would stand at the end of another line, and be told the same there.
#[test]
fn the_load_balancer_waits_longer_than_the_line_of_a_node_is() {
    const RATE: u32 = 100;
    let text = read("haproxy/haproxy.cfg");
    let lines = backend(&text, "subscribe");
    let patience = lines.iter().find_map(|line| line.strip_prefix("timeout server "));
    let retries = lines.iter().find(|line| line.starts_with("retry-on ")).expect("a list");
    assert!(!retries.contains("response-timeout"), "{retries}");
    let redis = Redis::start(&[]);
    let node = Node::start(&redis.url(), &[("server.accept_rate", &RATE.to_string())]);
    // As many may stand in line as are let in within the longest wait.
    let places = node.metric("tickcast_connections_waiting_max");
    let wait = Duration::from_secs_f64(places / f64::from(RATE));
    assert!(wait > Duration::from_secs(1), "{wait:?}");
    let patience = time(patience.expect("a time"));
    assert!(patience > wait + Duration::from_secs(1), "{patience:?} and {wait:?}");
    let client = text.lines().find_map(|line| line.trim().strip_prefix("timeout client "));
    assert!(time(client.expect("a time")) > patience);
}

#[test]
fn redis_takes_its_file_and_doctor_finds_nothing() {
    let (port, folder) = (Port::free(), tempfile::tempdir().expect("a folder"));
    let mut command = Command::new("redis-server");
    command.arg(deploy("redis/redis.conf")).arg("--dir").arg(folder.path());
    command.args(["--port", &port.address.port().to_string()]);
    let _redis = Process::start("redis", &mut command);
    let url = format!("redis://{}", port.address);
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
        command.env_clear().args(["doctor", "--json", "--redis", &url]);
        let output = command.output().expect("it runs");
        serde_json::from_slice::<Value>(&output.stdout).expect("a report")
    };
    until("reachable", PATIENCE, || doctor()["ok"] == true);
    let report = doctor();
    for finding in report["findings"].as_array().expect("a list") {
        assert!(finding["section"] != "Broker" || finding["level"] == "ok", "{finding}");
    }
}

#[test]
fn prometheus_takes_its_files() {
    let said = check(
        Command::new("promtool").args(["check", "config"]).arg(deploy("prometheus/prometheus.yml")),
    );
    assert!(said.contains("rule files found"), "{said}");
}

#[test]
fn the_unit_is_good_and_gives_a_node_the_time_to_drain() {
    let text = read("systemd/tickcast.service");
    let folder = TempDir::new().expect("a folder");
    let unit = folder.path().join("tickcast.service");
    // The program is not installed here.
    let path = "/usr/local/bin/tickcast";
    assert!(text.contains(path));
    fs::write(&unit, text.replace(path, env!("CARGO_BIN_EXE_tickcast"))).expect("room on the disk");
    let said = check(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
    assert_eq!(said, "");
    // From 0, which nobody reaches who has a network, to 100.
    let security = ["security", "--offline=true", "--threshold=20", "--no-pager"];
    check(Command::new("systemd-analyze").args(security).arg(&unit));

    let setting = |key: &str| {
        let key = format!("{key}=");
        lines(&text).find_map(|line| line.strip_prefix(&key)).unwrap_or_else(|| panic!("no {key}"))
    };
    assert_eq!(setting("Type"), "notify");
    assert!(time(setting("TimeoutStopSec")) > config().drain.timeout);
    assert!(text.contains("kill -HUP $MAINPID"));
    assert_eq!(setting("LimitNOFILE"), "1048576");
    // A credential would be as it was at the start, and keys change with a reload.
    assert!(lines(&text).all(|line| !line.starts_with("LoadCredential")), "{text}");
}

#[test]
fn the_user_of_the_unit_is_made_with_its_group() {
    let folder = TempDir::new().expect("a folder");
    let files = folder.path().join("etc/sysusers.d");
    fs::create_dir_all(&files).expect("room on the disk");
    fs::copy(deploy("systemd/sysusers.d/tickcast.conf"), files.join("tickcast.conf"))
        .expect("room on the disk");
    check(Command::new("systemd-sysusers").arg("--root").arg(folder.path()));
    let unit = read("systemd/tickcast.service");
    for (setting, made) in [("User", "passwd"), ("Group", "group")] {
        let setting = format!("{setting}=");
        let name = lines(&unit).find_map(|line| line.strip_prefix(&setting)).expect("a name");
        let made = fs::read_to_string(folder.path().join("etc").join(made)).expect("it was made");
        assert!(made.lines().any(|line| line.starts_with(&format!("{name}:"))), "{name}: {made}");
    }
}

#[test]
fn the_kernel_knows_its_settings() {
    let text = read("systemd/sysctl.d/90-tickcast.conf");
    let mut count = 0;
    for line in lines(&text) {
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        assert!(file.exists(), "{key} is unknown");
        assert!(value.split(' ').all(|number| number.parse::<u32>().is_ok()), "{line}");
        count += 1;
    }
    assert!(count >= 4, "{text}");
}

#[test]
fn the_composition_is_good() {
    let file = deploy("compose.yaml");
    let schema = ["--builtin-schema", "vendor.compose-spec"];
    check(python("check-jsonschema").args(schema).arg(&file));
    let composition = yaml("compose.yaml");
    let services = composition["services"].as_object().expect("services");
    for (name, service) in services {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        assert!(image == "tickcast" || image.contains(':'), "{name}: {image} is any version");
        assert!(service["healthcheck"].is_object(), "{name} would not be waited for");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().expect("a text");
            let source = volume.split(':').next().unwrap_or_default();
            assert!(deploy(source).exists(), "{name}: {volume}");
            assert!(volume.ends_with(":ro"), "{name}: {volume}");
        }
    }
    // The image of the feed is that of the nodes, whoever has one of this name elsewhere.
    assert_eq!(services["feed"]["pull_policy"], "never");
    for name in ["node-1", "node-2", "node-3"] {
        let node = &services[name];
        let revision = &node["build"]["args"]["TICKCAST_REVISION"];
        assert_eq!(revision, "${TICKCAST_REVISION:-unknown}");
        let grace = node["stop_grace_period"].as_str().expect("a time");
        assert!(time(grace) > config().drain.timeout, "{grace}");
        assert_eq!(node["ulimits"]["nofile"]["soft"], 1_048_576);
        assert_eq!(node["read_only"], true);
    }
    // Only the gateway itself is there for others.
    for (name, service) in services {
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().expect("a text");
            let is_public = matches!(port, "8000:8000" | "8443:8443");
            assert!(is_public || port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn the_image_is_built_with_the_compiler_of_this_repository() {
    check(python("hadolint").arg(deploy("Dockerfile")));
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).expect("a toolchain");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = "));
    let version = version.expect("a version").trim_matches('"');
    assert!(read("Dockerfile").contains(&format!("FROM rust:{version}-")), "not {version}");
    assert!(read("Dockerfile").contains(&format!("RUSTUP_TOOLCHAIN={version}")), "not {version}");
}

#[test]
fn the_scripts_can_be_read() {
    for script in ["cluster", "secrets", "setup"] {
        check(Command::new("bash").arg("-n").arg(root().join("scripts").join(script)));
    }
}
