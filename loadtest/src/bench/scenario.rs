//! The measured rows of the budgets: what load, which gate. The numbers are those of the design, section 8.

use crate::fanout::FanoutArgs;
use crate::idle::IdleArgs;

/// The rows there are scenarios for.
pub(super) const ROWS: [u8; 3] = [1, 2, 3];
/// Open files that the largest scenario needs, in the generator and in each server.
pub(super) const OPEN_FILES: usize = 18_000 + 200;

/// A gateway that may wait for more before it writes.
const FLUSH_20_MS: &str = "[topics]\nflush_interval = \"20ms\"\n";
const FLUSH_200_MS: &str = "[topics]\nflush_interval = \"200ms\"\n";
/// Why no server can meet the gate of the row with 20 ms.
const TWO_UPDATES: &str = "a client gets an update every 10 ms, so 20 ms gather two of them into a write, and half of \
                           the bare loop's writes remain; 200 ms gather all twenty";
const DEFAULTS: &str = "";

/// What is run against each server.
#[derive(Debug, Clone)]
pub(super) enum Load {
    Fanout(Box<FanoutArgs>),
    Idle(Box<IdleArgs>),
}

/// What must hold for the median over the repetitions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Gate {
    /// Gateway over bare loop, in the same repetition.
    Ratio(f64),
    /// The gateway's own value, in the scenario's unit.
    Absolute(f64),
}

/// One measurement of the budgets.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    /// Row of the budgets table.
    pub(super) row: u8,
    pub(super) name: &'static str,
    /// What the gate is about.
    pub(super) unit: &'static str,
    /// What is shown beside it.
    pub(super) second_unit: &'static str,
    pub(super) gate: Gate,
    /// Why the gate cannot be met by anyone: it is shown and not counted as a failure. Empty for the others.
    pub(super) out_of_reach: &'static str,
    pub(super) load: Load,
    /// TOML for the gateway.
    pub(super) gateway_config: &'static str,
}

/// All scenarios, in the order of the budgets. A quick one has short windows and few idle connections.
pub(super) fn all(quick: bool) -> Vec<Scenario> {
    let (warmup, duration) = if quick { (0.5, 2.0) } else { (1.6, 8.0) };
    let base = FanoutArgs { warmup, duration, ..FanoutArgs::default() };
    // 9,000 sends cost about 0.12 s of the bare loop: at 4 per second it uses half of its core.
    let many = FanoutArgs { connections: 9_000, rate: 4.0, ..base.clone() };
    // 20 topics x 5 Hz for each of 1,000 clients: 100,000 updates per second, 70 % of the bare loop's core.
    let bursts = FanoutArgs {
        topics: 20,
        topics_per_connection: 20,
        rate: 100.0,
        burst: 20,
        ..base.clone()
    };
    let spread = FanoutArgs { spread: true, ..bursts.clone() };
    let (from, connections) = if quick { (1_000, 4_000) } else { (2_000, 18_000) };
    let (one_topic, a_topic_each) = if quick {
        ("idle, 1,000 to 4,000, one topic", "idle, 1,000 to 4,000, a topic each")
    } else {
        ("idle, 2,000 to 18,000, one topic", "idle, 2,000 to 18,000, a topic each")
    };
    let per_delivery = |row, name, load, gate| Scenario {
        row,
        name,
        unit: "us per delivery",
        second_unit: "p99 ms",
        gate: Gate::Ratio(gate),
        out_of_reach: "",
        load: Load::Fanout(Box::new(load)),
        gateway_config: DEFAULTS,
    };
    vec![
        per_delivery(1, "1,000 subscribers", base, 1.15),
        per_delivery(1, "9,000 subscribers", many, 1.15),
        per_delivery(2, "bursts of 20 topics", bursts, 0.10),
        Scenario {
            gateway_config: FLUSH_20_MS,
            out_of_reach: TWO_UPDATES,
            ..per_delivery(2, "20 topics spread, flush 20 ms", spread.clone(), 0.10)
        },
        Scenario {
            gateway_config: FLUSH_200_MS,
            ..per_delivery(2, "20 topics spread, flush 200 ms", spread, 0.10)
        },
        per_connection(one_topic, idle(from, connections, 1)),
        per_connection(a_topic_each, idle(from, connections, 0)),
    ]
}

fn per_connection(name: &'static str, load: IdleArgs) -> Scenario {
    Scenario {
        row: 3,
        name,
        unit: "bytes per connection",
        second_unit: "us per handshake",
        gate: Gate::Absolute(1024.0),
        out_of_reach: "",
        load: Load::Idle(Box::new(load)),
        gateway_config: DEFAULTS,
    }
}

fn idle(from: usize, connections: usize, topics: u32) -> IdleArgs {
    IdleArgs {
        key: None,
        url: String::new(),
        connections,
        from,
        topics,
        server_pid: 0,
        hold: 0.0,
        in_flight: 128,
        prefix: "idle".to_owned(),
        pin: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_row_and_fits_the_open_files() {
        for quick in [false, true] {
            for scenario in all(quick) {
                assert!(ROWS.contains(&scenario.row));
                let connections = match scenario.load {
                    Load::Fanout(load) => load.connections,
                    Load::Idle(load) => load.connections,
                };
                assert!(connections + 100 <= OPEN_FILES, "{}", scenario.name);
            }
        }
    }
}
