//! The shell in which a page is read: one folder, one shell, and whatever its blocks have started.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tempfile::TempDir;

use crate::compare;
use crate::packages::packages;
use crate::page::root;
use crate::ports::{ADMIN, PUBLIC, Ports};
use crate::programs::{self, Sign};

/// Time for a block to end, and for what is waited for to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for what was started to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(15);
/// How often files are looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// `curl` as a test needs it: without a progress meter, and a refusal is a failure.
const CURL: &str = "silent\nshow-error\nfail-with-body\n";
/// What `curl` says of a refusal only because of that.
const REFUSED: &str = "curl: (22) ";

/// What of the repository pages may use by its path. `deploy` is copied: its programs may write beside its files.
const LINKED: [&str; 4] = ["Makefile", "scripts", "loadtest", "crates"];

/// Where `scripts/cluster` puts what, unless it is told otherwise: it is told the page's ports.
const CLUSTER: [(&str, &[u16]); 4] = [
    ("BALANCER_PORTS", &[8000, 8443, 8404]),
    ("NODE_PORTS", &[8080, 8081, 8090, 8091, 8100, 8101]),
    ("REDIS_PORT", &[6390]),
    ("PROMETHEUS_PORT", &[9090]),
];

/// Where blocks and what they print are kept, in the folder.
const NOTES: &str = ".page";

/// A shell in a folder of its own. Ends with everything that was started in it.
#[derive(Debug)]
pub(crate) struct Session {
    folder: TempDir,
    pub(crate) ports: Ports,
    shell: Child,
    input: ChildStdin,
    /// Blocks so far.
    count: usize,
    jobs: Vec<Job>,
}

/// Something that runs in the background.
#[derive(Debug)]
struct Job {
    number: usize,
    name: Option<String>,
}

/// How a block must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every command must succeed.
    Well,
    /// The last command must fail.
    Badly,
}

impl Session {
    pub(crate) fn start() -> Self {
        let folder = TempDir::with_prefix("tickcast-page-").expect("a folder");
        let ports = Ports::free();
        furnish(folder.path());
        let path = std::env::var("PATH").expect("a path");
        let path = format!("{}:{path}", folder.path().join(".bin").display());
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile"]).current_dir(&folder).env_clear();
        command.envs([("PATH", path.as_str()), ("LANG", "C.UTF-8"), ("TERM", "dumb")]);
        command.env("HOME", folder.path()).env("PAGE_FOLDER", folder.path());
        command.env("REPOSITORY", root()).env("UNDER_TEST", env!("CARGO_BIN_EXE_tickcast"));
        command.env("PUBLIC", ports.address(PUBLIC).to_string());
        command.env("ADMIN", ports.address(ADMIN).to_string());
        for (name, known) in CLUSTER {
            let list: Vec<_> =
                known.iter().map(|port| ports.address(*port).port().to_string()).collect();
            command.env(name, list.join(" "));
        }
        command.env("TICKCAST__CLIENT__URL", format!("http://{}", ports.address(PUBLIC)));
        command.env("TICKCAST__CLIENT__ADMIN_URL", format!("http://{}", ports.address(ADMIN)));
        // A group of its own, so that everything that it starts can be ended.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut shell = command.spawn().expect("bash is there");
        let input = shell.stdin.take().expect("piped");
        let mut session = Self { folder, ports, shell, input, count: 0, jobs: Vec::new() };
        session.say("set -eo pipefail\n").expect("a fresh shell listens");
        session
    }

    /// Puts a text of a page into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("room on the disk");
        fs::write(&path, self.ports.fill_in(text)).expect("room on the disk");
        path
    }

    /// Runs commands to their end, and tells what they have printed.
    pub(crate) fn run(&mut self, text: &str, ending: Ending) -> Result<String, String> {
        let number = self.next_block(text);
        let (code, out, done) = (note(number, "sh"), note(number, "out"), note(number, "done"));
        let run = format!(". {code} </dev/null >{out} 2>&1");
        let line = match ending {
            Ending::Well => format!("{run}; echo 0 >{done}\n"),
            Ending::Badly => format!("{run} && echo 0 >{done} || echo $? >{done}\n"),
        };
        self.say(&line)?;
        let done = self.folder.path().join(done);
        let deadline = Instant::now() + PATIENCE;
        // The file is there a moment before its text is.
        let is_done = || fs::read_to_string(&done).is_ok_and(|text| text.ends_with('\n'));
        while !is_done() {
            let ended = self.shell.try_wait().expect("it is ours");
            if let Some(status) = ended.filter(|_| !is_done()) {
                return Err(format!("a command failed ({status}):\n{}", self.printed(number)));
            }
            if Instant::now() > deadline {
                let printed = self.printed(number);
                return Err(format!("it does not end; should it be `background`?\n{printed}"));
            }
            std::thread::park_timeout(GLANCE);
        }
        let has_succeeded = fs::read_to_string(&done).expect("it was read").trim() == "0";
        if has_succeeded != (ending == Ending::Well) {
            return Err(format!("it was to fail:\n{}", self.printed(number)));
        }
        Ok(self.printed(number))
    }

    /// Starts commands that stay, and waits until they do what they are for.
    pub(crate) fn start_job(&mut self, text: &str, name: Option<&str>) -> Result<(), String> {
        let subscriptions = self.subscriptions();
        let number = self.next_block(text);
        let (code, out, done) = (note(number, "sh"), note(number, "out"), note(number, "done"));
        let line = format!(
            "( export STAYS=1; . {code}; echo 0 >{done} ) </dev/null >{out} 2>&1 || echo $? >{done} &\n"
        );
        self.say(&line)?;
        self.jobs.push(Job { number, name: name.map(str::to_owned) });
        for sign in programs::signs(text) {
            self.wait(number, &format!("{sign:?}"), |session| match sign {
                Sign::Says(words, times) => {
                    let said = session.printed(number);
                    words.iter().map(|word| said.matches(word).count()).sum::<usize>() >= times
                }
                Sign::Subscribes => session.subscriptions() > subscriptions,
            })?;
        }
        Ok(())
    }

    /// Waits until a job has printed what is shown.
    pub(crate) fn wait_for_output(
        &mut self,
        name: Option<&str>,
        shown: &str,
        is_equal: fn(&str, &str) -> bool,
    ) -> Result<(), String> {
        let mut jobs = self.jobs.iter().rev();
        let job = jobs.find(|job| name.is_none() || job.name.as_deref() == name);
        let number = job.ok_or_else(|| format!("no background block is called {name:?}"))?.number;
        self.wait(number, "what is shown", |session| is_equal(shown, &session.printed(number)))
    }

    /// Jobs that have ended with a failure of their own.
    pub(crate) fn failed_jobs(&self) -> Vec<String> {
        let code = |job: &Job| {
            let text =
                fs::read_to_string(self.folder.path().join(note(job.number, "done"))).ok()?;
            let code: u8 = text.trim().parse().ok()?;
            // Beyond 128 a signal of the page has ended it.
            (1..128).contains(&code).then(|| {
                format!("a background block has ended with {code}:\n{}", self.printed(job.number))
            })
        };
        self.jobs.iter().filter_map(code).collect()
    }

    fn wait(
        &mut self,
        number: usize,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let done = self.folder.path().join(note(number, "done"));
        loop {
            let has_ended = done.exists();
            if holds(self) {
                return Ok(());
            }
            if has_ended || Instant::now() > deadline {
                let why = if has_ended { "it has ended" } else { "not in time" };
                return Err(format!(
                    "{why}, without {what}; it has printed:\n{}",
                    self.printed(number)
                ));
            }
            std::thread::park_timeout(GLANCE);
        }
    }

    /// Subscriptions that the page's nodes have, as far as they are there.
    fn subscriptions(&self) -> usize {
        [ADMIN, 8091, 8101]
            .into_iter()
            .filter_map(|port| {
                let metrics = programs::get(self.ports.address(port), "/metrics")?;
                let lines =
                    metrics.lines().filter(|line| line.starts_with("tickcast_subscriptions{"));
                Some(
                    lines
                        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
                        .sum::<usize>(),
                )
            })
            .sum()
    }

    fn next_block(&mut self, text: &str) -> usize {
        self.count += 1;
        self.write(&note(self.count, "sh"), text);
        self.count
    }

    fn printed(&self, number: usize) -> String {
        let bytes = fs::read(self.folder.path().join(note(number, "out"))).unwrap_or_default();
        let text = self.ports.take_back(&String::from_utf8_lossy(&bytes));
        let is_shown = |line: &&str| !line.starts_with(REFUSED);
        let lines: String = text.split_inclusive('\n').filter(is_shown).collect();
        lines.replace(&self.folder.path().display().to_string(), "")
    }

    fn say(&mut self, line: &str) -> Result<(), String> {
        let said = self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush());
        said.map_err(|error| format!("the shell has ended: {error}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.shell);
        signal(group, Signal::TERM);
        drop(self.shell.wait());
        let deadline = Instant::now() + FAREWELL;
        while test_kill_process_group(group).is_ok() && Instant::now() < deadline {
            std::thread::park_timeout(GLANCE);
        }
        signal(group, Signal::KILL);
    }
}

/// To whatever of the group is still there.
fn signal(group: Pid, signal: Signal) {
    let sent = kill_process_group(group, signal);
    assert!(matches!(sent, Ok(()) | Err(Errno::SRCH)), "{sent:?}");
}

fn note(number: usize, kind: &str) -> String {
    format!("{NOTES}/{number}.{kind}")
}

/// Puts into the folder what pages may use.
fn furnish(folder: &Path) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("room");
    for name in [".bin", NOTES, "target/release"] {
        fs::create_dir_all(folder.join(name)).expect("room on the disk");
    }
    write(".curlrc", CURL);
    let stubs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docs/stubs");
    for entry in fs::read_dir(stubs).expect("it is there") {
        let stub = entry.expect("readable").path();
        let copy = folder.join(".bin").join(stub.file_name().expect("a name"));
        fs::copy(&stub, &copy).expect("room on the disk");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    let validator = packages().join("venv/bin/check-jsonschema");
    symlink(validator, folder.join(".bin/check-jsonschema")).expect("room on the disk");
    symlink("../../.bin/tickcast", folder.join("target/release/tickcast")).expect("room");
    for name in LINKED {
        symlink(root().join(name), folder.join(name)).expect("room on the disk");
    }
    let deploy = root().join("deploy");
    for file in crate::page::files(&deploy) {
        let copy = folder.join("deploy").join(file.strip_prefix(&deploy).expect("below it"));
        fs::create_dir_all(copy.parent().expect("in the folder")).expect("room on the disk");
        fs::copy(&file, &copy).expect("room on the disk");
    }
}

#[test]
fn a_session() {
    let mut session = Session::start();
    assert_eq!(session.run("x=1\necho a; echo b >&2", Ending::Well), Ok("a\nb\n".to_owned()));
    assert_eq!(session.run("echo $x; pwd; false", Ending::Badly), Ok("1\n\n".to_owned()));
    session.start_job("echo begun $x; exec tail -f /dev/null", Some("tail")).unwrap();
    session.wait_for_output(Some("tail"), "begun …", compare::is_output).unwrap();
    assert!(session.wait_for_output(Some("head"), "…", compare::is_output).is_err());
    assert!(session.run("true", Ending::Badly).is_err());
    session.start_job("echo gone; exit 3", None).unwrap();
    assert!(session.wait_for_output(None, "here", compare::is_output).is_err());
    assert_eq!(session.failed_jobs(), ["a background block has ended with 3:\ngone\n"]);
    let error = session.run("echo before; false; echo after", Ending::Well).unwrap_err();
    assert!(error.contains("before") && !error.contains("after"), "{error}");
    let group = Pid::from_child(&session.shell);
    drop(session);
    assert!(test_kill_process_group(group).is_err(), "nothing is left");
}
