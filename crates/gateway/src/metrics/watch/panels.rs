//! The panels of the dashboard: what each shows, in which unit, and why one would look at it.
//!
//! In an expression `{*}` stands for the matchers of the dashboard's variables (`{*,result="accepted"}` adds one), and
//! `[~]` for the range that suits the width of the panel. [`Query::dashboard`] and [`Query::live`] write them out.

mod balancer;
mod broker;
mod connections;
mod delivery;
mod deploys;
mod node;
mod overview;
mod publishing;
mod recovery;

/// A row of the dashboard with its panels.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    /// Shown closed: it concerns only some nodes.
    pub(super) is_closed: bool,
    pub(super) panels: &'static [Panel],
}

/// One panel.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// What it says, and what to think of it.
    pub(super) about: &'static str,
    pub(super) queries: &'static [Query],
}

/// How a panel looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// The newest value as a large number, with the values from which it turns orange and red.
    Number { warn: Option<f64>, alarm: Option<f64> },
    /// 1 is good, 0 is not.
    UpOrDown,
    /// Lines over time.
    Lines,
    /// Areas on top of each other: parts of a whole.
    Stack,
    /// Buckets over time.
    Heatmap,
}

/// Units by their names in Grafana.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A plain number.
    Count,
    /// Things per second.
    PerSecond,
    Seconds,
    Bytes,
    BytesPerSecond,
    /// 0 to 1, shown in percent.
    Share,
}

impl Unit {
    /// The identifier that Grafana knows.
    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "cps",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
            Self::Share => "percentunit",
        }
    }
}

/// One query of a panel.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) expression: &'static str,
    /// The name of its lines; `{{label}}` stands for a label's value.
    pub(super) legend: &'static str,
}

impl Query {
    /// The expression with the variables of the dashboard.
    pub(super) fn dashboard(&self) -> String {
        self.write_out(r#"job=~"$job",instance=~"$instance""#, "[$__rate_interval]")
    }

    /// The expression without variables, over all nodes.
    pub(super) fn live(&self) -> String {
        self.write_out(r#"job=~".+",instance=~".+""#, "[1m]")
    }

    fn write_out(&self, matchers: &str, range: &str) -> String {
        self.expression.replace("{*", &format!("{{{matchers}")).replace("[~]", range)
    }
}

const fn query(legend: &'static str, expression: &'static str) -> Query {
    Query { expression, legend }
}

const fn number(
    title: &'static str,
    unit: Unit,
    (warn, alarm): (Option<f64>, Option<f64>),
    about: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { title, kind: Kind::Number { warn, alarm }, unit, about, queries }
}

const fn lines(
    title: &'static str,
    unit: Unit,
    about: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { title, kind: Kind::Lines, unit, about, queries }
}

const fn stack(
    title: &'static str,
    unit: Unit,
    about: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { title, kind: Kind::Stack, unit, about, queries }
}

const fn heatmap(
    title: &'static str,
    unit: Unit,
    about: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { title, kind: Kind::Heatmap, unit, about, queries }
}

const fn section(title: &'static str, panels: &'static [Panel]) -> Section {
    Section { title, is_closed: false, panels }
}

/// The whole dashboard, from the top.
pub(super) const SECTIONS: &[Section] = &[
    section("Overview", overview::PANELS),
    section("Connections", connections::PANELS),
    section("Delivery", delivery::PANELS),
    section("Publishing and HTTP", publishing::PANELS),
    section("Broker", broker::PANELS),
    Section { title: MEMORY, is_closed: true, panels: broker::MEMORY_PANELS },
    section("Recovery", recovery::PANELS),
    section("Nodes", node::PANELS),
    section("Deploys", deploys::PANELS),
    Section { title: "Load balancer", is_closed: true, panels: balancer::PANELS },
];

/// The section about nodes that run without Redis.
pub(super) const MEMORY: &str = "Broker inside the node (without Redis)";
