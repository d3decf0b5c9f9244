//! Real market data, line by line: share prices by month, an index by month, and the same index by day.

use std::path::Path;

use crate::packages::packages;

/// One line of a file, as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tick {
    pub(crate) topic: String,
    pub(crate) payload: String,
}

/// Share prices: one topic per symbol.
pub(crate) fn shares() -> Vec<Tick> {
    read("stocks.csv", |fields| {
        let [("symbol", symbol), rest @ ..] = fields else { panic!("a symbol first: {fields:?}") };
        Tick { topic: format!("stocks.{symbol}"), payload: json(rest) }
    })
}

/// An index by month.
pub(crate) fn index_by_month() -> Vec<Tick> {
    read("sp500.csv", |fields| Tick {
        topic: "index.sp500.month".to_owned(),
        payload: json(fields),
    })
}

/// The same index by day, with numbers whose digits matter (`1469.250000`).
pub(crate) fn index_by_day() -> Vec<Tick> {
    read("sp500-2000.csv", |fields| Tick {
        topic: "index.sp500.day".to_owned(),
        payload: json(fields),
    })
}

/// The topics of some ticks, each once.
pub(crate) fn topics(ticks: &[Tick]) -> Vec<String> {
    let mut topics: Vec<_> = ticks.iter().map(|tick| tick.topic.clone()).collect();
    topics.sort();
    topics.dedup();
    topics
}

/// The ticks as a file that `tickcast pub` and `POST /v1/publish` take.
pub(crate) fn lines(ticks: &[Tick]) -> String {
    let line =
        |Tick { topic, payload }: &Tick| format!("{{\"topic\":\"{topic}\",\"data\":{payload}}}\n");
    ticks.iter().map(line).collect()
}

fn read(file: &str, tick: impl Fn(&[(&str, &str)]) -> Tick) -> Vec<Tick> {
    let path = packages().join("node_modules/vega-datasets/data").join(file);
    let text = read_text(&path);
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().expect("a header").split(',').collect();
    let ticks = lines.map(|line| {
        let fields: Vec<_> = names.iter().copied().zip(line.split(',')).collect();
        assert_eq!(fields.len(), names.len(), "{line}");
        tick(&fields)
    });
    ticks.collect()
}

fn read_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An object of the fields. Numbers are written with the digits that they have in the file.
fn json(fields: &[(&str, &str)]) -> String {
    let members = fields.iter().map(|(name, value)| {
        let is_number = value.parse::<f64>().is_ok();
        if is_number { format!("\"{name}\":{value}") } else { format!("\"{name}\":\"{value}\"") }
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}
