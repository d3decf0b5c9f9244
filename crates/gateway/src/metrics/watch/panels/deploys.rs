//! Which versions run, and what happens while they change.

use super::Unit::{Count, PerSecond, Seconds};
use super::{Panel, lines, query, stack};

pub(super) const PANELS: &[Panel] = &[
    stack(
        "Versions",
        Count,
        "Nodes by version and revision.",
        &[query(
            "{{version}} ({{revision}})",
            "count by (version, revision) (tickcast_build_info{*})",
        )],
    ),
    lines(
        "Draining",
        Count,
        "1 from the moment a node begins to leave. It ends within `drain.timeout`.",
        &[query("{{instance}}", "max by (instance) (tickcast_draining{*})")],
    ),
    lines(
        "Asked to reconnect",
        PerSecond,
        "Goaway messages: clients connect anew, through the load balancer, and resume.",
        &[query("{{reason}}", "sum by (reason) (rate(tickcast_goaways_total{*}[~]))")],
    ),
    lines(
        "Uptime",
        Seconds,
        "Since the process began. A step down is a restart.",
        &[query("{{instance}}", "time() - min by (instance) (process_start_time_seconds{*})")],
    ),
    lines(
        "Configuration reloads",
        PerSecond,
        "Reloads by result. A configuration with an error changes nothing: the old one stays.",
        &[query("{{result}}", "sum by (result) (rate(tickcast_config_reloads_total{*}[~]))")],
    ),
    lines(
        "Age of the configuration",
        Seconds,
        "Since it was last read without an error. Nodes that differ run on different configurations.",
        &[query(
            "{{instance}}",
            "time() - min by (instance) (tickcast_config_last_reload_success_timestamp_seconds{*})",
        )],
    ),
];
