//! A network of a test's own. Its packets are filtered and its links pulled out without the machine noticing.
//!
//! A test that needs one is run a second time, by itself in a process whose network has nothing but its loopback.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::alone;

/// Tells the process in a new network which one it has left: the link of the namespace, as in `/proc`.
const LEFT: &str = "TICKCAST_STORM_LEFT_NETWORK";

/// Ways to get a network of one's own: as root, and where everybody may be root in a namespace.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];

/// Tools of an administrator are there, whoever runs the tests.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// Where clients live whose way is to be harmed.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The link that has that address.
const LINK: &str = "far";

/// The table with the filter.
const TABLE: &str = "inet storm";

/// The network of this process.
#[derive(Debug)]
pub(crate) struct Network(());

/// Runs the body of the test with this name in a network of its own.
pub(crate) fn in_own_network(test: &str, body: impl FnOnce(&Network)) {
    if std::env::var_os(LEFT).is_some_and(|left| left != *namespace()) {
        let network = Network(());
        tool("ip", &["link", "set", "lo", "up"], "");
        network.plug_in();
        return body(&network);
    }
    let _turn = alone();
    let Some(way) =
        WAYS.iter().find(|way| unshare(way).arg("true").status().is_ok_and(|s| s.success()))
    else {
        panic!("this test needs a network of its own: run it as root, or allow user namespaces");
    };
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = unshare(way);
    command.arg(program).args([test, "--exact", "--nocapture"]).env(LEFT, namespace());
    let output = command.stdin(Stdio::null()).output().expect("unshare ran a moment ago");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "it failed in its network");
    assert!(said.contains("1 passed"), "there is no test {test}");
}

/// Runs what follows in a new namespace.
fn unshare(way: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).arg("--").env("PATH", path());
    command
}

fn path() -> String {
    let given = std::env::var("PATH").unwrap_or_default();
    format!("{given}:{PATH}")
}

/// The network that this process is in.
fn namespace() -> PathBuf {
    std::fs::read_link("/proc/self/ns/net").expect("Linux has namespaces")
}

/// Runs a tool that must succeed, and returns what it prints.
fn tool(name: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(name);
    command.args(arguments).env("PATH", path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}; scripts/setup installs it"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it is ours");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Network {
    /// Clients at [`FAR`] get no packet any more, and no packet of theirs arrives.
    pub(crate) fn drop_all(&self) {
        self.filter("counter name lost drop");
    }

    /// The same happens to so many packets in a hundred, each by chance.
    pub(crate) fn drop_percent(&self, percent: u32) {
        self.filter(&format!("numgen random mod 100 < {percent} counter name lost drop"));
    }

    /// A rule for all packets from and to [`FAR`]. Each of them comes in once at the loopback.
    fn filter(&self, rule: &str) {
        let mine = format!("ip saddr != {FAR} ip daddr != {FAR} accept");
        let chain = "type filter hook input priority filter; policy accept;";
        let counters = "counter seen {}\ncounter lost {}";
        let rules = format!("{mine}\ncounter name seen\n{rule}");
        let table =
            format!("table {TABLE} {{\n{counters}\nchain way {{\n{chain}\n{rules}\n}}\n}}\n");
        tool("nft", &["-f", "-"], &table);
    }

    /// Lets all packets through again. Returns how many there were meanwhile, and how many of them were dropped.
    pub(crate) fn let_through(&self) -> (u64, u64) {
        let counts =
            ["seen", "lost"].map(|name| packets(&["list", "counter", "inet", "storm", name]));
        tool("nft", &["delete", "table", "inet", "storm"], "");
        counts.into()
    }

    /// There is no [`FAR`] any more: who wants to send there, or from there, has no route.
    pub(crate) fn pull_out(&self) {
        tool("ip", &["link", "delete", LINK], "");
    }

    /// Ends that.
    pub(crate) fn plug_in(&self) {
        let other = format!("{LINK}-end");
        tool("ip", &["link", "add", LINK, "type", "veth", "peer", "name", &other], "");
        tool("ip", &["address", "add", &format!("{FAR}/32"), "dev", LINK], "");
        tool("ip", &["link", "set", &other, "up"], "");
        tool("ip", &["link", "set", LINK, "up"], "");
    }
}

/// The number behind the word `packets` in what the filter prints.
fn packets(arguments: &[&str]) -> u64 {
    let printed = tool("nft", arguments, "");
    let mut words = printed.split_whitespace().skip_while(|word| *word != "packets");
    let number = words.nth(1).and_then(|word| word.parse().ok());
    number.unwrap_or_else(|| panic!("no count in {printed}"))
}
