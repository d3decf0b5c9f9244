//! The budget run as a whole, with the floor in the gateway's clothes. It needs two cores, as any budget run does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::child::{self, PROGRAM};

#[test]
fn a_gateway_is_started_measured_judged_and_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = folder.path().join("gateway");
    // serve --workers 1 --listen ADDRESS --admin-listen ADDRESS --config FILE
    let script = format!("#!/bin/sh\nexec {PROGRAM} floor --listen \"$5\"\n");
    fs::write(&gateway, script).expect("a script");
    fs::set_permissions(&gateway, fs::Permissions::from_mode(0o755)).expect("executable");
    let out = folder.path().join("performance.md");
    fs::write(&out, "# Ours\n\n<!-- bench:begin -->\nold\n<!-- bench:end -->\n\nkept\n")
        .expect("a file");

    let (server, file) = (gateway.display().to_string(), out.display().to_string());
    let output = child::run(&[
        "bench", "--quick", "--reps", "1", "--row", "3", "--server", &server, "--out", &file,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("idle, 1,000 to 4,000") && table.contains("met"), "{table}");
    let text = fs::read_to_string(&out).expect("the file");
    assert!(text.starts_with("# Ours\n\n<!-- bench:begin -->\n**Quick run"), "{text}");
    assert!(text.ends_with("<!-- bench:end -->\n\nkept\n") && !text.contains("old\n"), "{text}");
    assert!(!text.contains(&server), "a machine's path is in {text}");
}
