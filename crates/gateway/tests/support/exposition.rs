//! Reads one number out of the metrics.

/// The value of a series, written as in the exposition: `name` or `name{label="value"}`. None if there is no such series.
pub(crate) fn value(exposition: &str, series: &str) -> Option<f64> {
    exposition.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then(|| value.parse().ok())?
    })
}
