//! The panels as a dashboard of Grafana: `deploy/grafana/dashboards/tickcast.json`.

use serde_json::{Map, Value, json};

use super::panels::{Kind, Panel, Query, SECTIONS, Section};

/// Columns of Grafana's grid.
const COLUMNS: usize = 24;

/// The whole file.
pub(super) fn text() -> String {
    let mut text = serde_json::to_string_pretty(&dashboard()).unwrap();
    text.push('\n');
    text
}

/// The dashboard as a value.
pub(super) fn dashboard() -> Value {
    json!({
        "uid": "tickcast",
        "title": "Tickcast",
        "description": "A cluster of Tickcast nodes: who is connected, what arrives and how fast, and what the nodes need. Generated from the table of metrics in the code.",
        "tags": ["tickcast"],
        "editable": false,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [],
        "annotations": {"list": annotations()},
        "templating": {"list": variables()},
        "panels": panels(),
    })
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// What nodes and load balancers always have.
const THERE: &str = r#"__name__=~"tickcast_build_info|haproxy_process_build_info""#;

/// Which data source, which jobs, which nodes and load balancers.
fn variables() -> Value {
    json!([
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
            "hide": 0,
            "refresh": 1,
        },
        choice("job", "Job", &format!(r#"label_values({{{THERE}}}, job)"#)),
        choice(
            "instance",
            "Instance",
            &format!(r#"label_values({{{THERE},job=~"$job"}}, instance)"#),
        ),
    ])
}

fn choice(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": source(),
        "query": {"query": query, "refId": "variable"},
        "definition": query,
        "includeAll": true,
        "allValue": ".+",
        "multi": true,
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    })
}

/// What explains a step in a curve.
fn annotations() -> Value {
    json!([
        mark("Node started", "green", "time() - process_start_time_seconds{*} < 30"),
        mark("Node leaves", "orange", "tickcast_draining{*} == 1"),
        mark("Broker down", "red", "tickcast_broker_up{*} == 0"),
        mark(
            "Configuration read anew",
            "blue",
            "changes(tickcast_config_last_reload_success_timestamp_seconds{*}[~]) > 0",
        ),
    ])
}

fn mark(name: &str, color: &str, expression: &'static str) -> Value {
    json!({
        "name": name,
        "datasource": source(),
        "enable": true,
        "hide": false,
        "iconColor": color,
        "expr": Query { expression, legend: "" }.dashboard(),
        "step": "10s",
        "titleFormat": name,
        "textFormat": "{{instance}}",
    })
}

/// Lays the panels out from left to right, section by section.
fn panels() -> Vec<Value> {
    let (mut laid, mut top, mut id) = (Vec::new(), 0, 0);
    for section in SECTIONS {
        id += 1;
        let mut row = row(section, id, top);
        top += 1;
        let mut inside = Vec::new();
        let (mut left, mut height) = (0, 0);
        for panel in section.panels {
            let (width, high) = size(panel);
            if left + width > COLUMNS {
                (left, top) = (0, top + height);
            }
            id += 1;
            inside.push(draw(panel, id, &json!({"x": left, "y": top, "w": width, "h": high})));
            (left, height) = (left + width, high);
        }
        if section.is_closed {
            row.insert("panels".to_owned(), inside.into());
            laid.push(Value::Object(row));
        } else {
            top += height;
            laid.push(Value::Object(row));
            laid.append(&mut inside);
        }
    }
    laid
}

fn row(section: &Section, id: usize, top: usize) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("type".to_owned(), "row".into());
    row.insert("id".to_owned(), id.into());
    row.insert("title".to_owned(), section.title.into());
    row.insert("collapsed".to_owned(), section.is_closed.into());
    row.insert("gridPos".to_owned(), json!({"x": 0, "y": top, "w": COLUMNS, "h": 1}));
    row.insert("panels".to_owned(), json!([]));
    row
}

/// Columns and rows that a panel takes: eight numbers or three graphs fill a line.
fn size(panel: &Panel) -> (usize, usize) {
    match panel.kind {
        Kind::Number { .. } | Kind::UpOrDown => (3, 5),
        Kind::Lines | Kind::Stack | Kind::Heatmap => (8, 8),
    }
}

fn draw(panel: &Panel, id: usize, place: &Value) -> Value {
    let targets: Vec<_> =
        panel.queries.iter().zip('A'..).map(|(query, name)| target(panel, query, name)).collect();
    let (kind, defaults, options) = match panel.kind {
        Kind::Number { warn, alarm } => number(warn, alarm),
        Kind::UpOrDown => up_or_down(),
        Kind::Lines => lines("none", 0),
        Kind::Stack => lines("normal", 30),
        Kind::Heatmap => heatmap(panel),
    };
    let mut defaults = defaults;
    defaults["unit"] = panel.unit.id().into();
    json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": source(),
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    })
}

fn target(panel: &Panel, query: &Query, name: char) -> Value {
    let format = if panel.kind == Kind::Heatmap { "heatmap" } else { "time_series" };
    json!({
        "refId": name,
        "datasource": source(),
        "expr": query.dashboard(),
        "legendFormat": query.legend,
        "format": format,
        "range": true,
        "instant": false,
    })
}

fn number(warn: Option<f64>, alarm: Option<f64>) -> (&'static str, Value, Value) {
    let mut steps = vec![json!({"color": "green", "value": null})];
    let bounds = [("orange", warn), ("red", alarm)];
    steps.extend(
        bounds.iter().filter_map(|(color, value)| {
            value.map(|value| json!({"color": color, "value": value}))
        }),
    );
    let defaults = json!({"min": 0, "thresholds": {"mode": "absolute", "steps": steps}});
    ("stat", defaults, large("area"))
}

fn up_or_down() -> (&'static str, Value, Value) {
    let words =
        json!({"0": {"text": "down", "color": "red"}, "1": {"text": "up", "color": "green"}});
    let defaults = json!({"mappings": [{"type": "value", "options": words}]});
    ("stat", defaults, large("none"))
}

fn large(graph: &str) -> Value {
    json!({
        "colorMode": "value",
        "graphMode": graph,
        "textMode": "value",
        "justifyMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
    })
}

fn lines(stacking: &str, fill: u8) -> (&'static str, Value, Value) {
    let defaults = json!({
        "min": 0,
        "custom": {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": fill,
            "showPoints": "never",
            "spanNulls": false,
            "stacking": {"mode": stacking, "group": "A"},
        },
    });
    let options = json!({
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    });
    ("timeseries", defaults, options)
}

fn heatmap(panel: &Panel) -> (&'static str, Value, Value) {
    let options = json!({
        "calculate": false,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
        "filterValues": {"le": 1e-9},
        "rowsFrame": {"layout": "le"},
        "yAxis": {"unit": panel.unit.id(), "axisPlacement": "left"},
        "legend": {"show": true},
        "tooltip": {"mode": "single", "yHistogram": true},
    });
    ("heatmap", json!({}), options)
}
