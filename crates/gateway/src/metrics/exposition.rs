//! From the table to the text that Prometheus reads.

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::buckets::Buckets;
use super::process;
use super::snapshot::Snapshot;
use super::table::{Row, SECTIONS};

/// The series of one metric, as its row reads them.
#[derive(Debug)]
pub(super) struct Series {
    kind: MetricType,
    labels: &'static [&'static str],
    metrics: Vec<Metric>,
}

impl Series {
    /// A series with these values of the row's labels, and its value.
    pub(super) fn value(&mut self, labels: &[&str], value: u64) {
        // Exact up to 2^53; the format has floating point numbers only.
        self.number(labels, value as f64);
    }

    /// As [`Series::value`], for what is no whole number.
    pub(super) fn number(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.metric(labels);
        set_value(&mut metric, self.kind, value);
        self.metrics.push(metric);
    }

    /// A histogram with these values of the row's labels: the count of each bucket, the last for what is above all
    /// bounds, and the sum of all values.
    pub(super) fn histogram(
        &mut self,
        labels: &[&str],
        bounds: impl Iterator<Item = f64>,
        counts: &[u64],
        sum: f64,
    ) {
        let mut total = 0;
        let buckets = bounds.zip(counts).map(|(bound, count)| {
            total += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(total);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        // Counted from the buckets, so that they agree although requests are observed meanwhile.
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut metric = self.metric(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// A histogram of observations that were counted where they happened.
    pub(super) fn buckets(&mut self, labels: &[&str], buckets: &Buckets) {
        self.histogram(labels, buckets.bounds(), &buckets.counts(), buckets.sum());
    }

    fn metric(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(
            self.labels.len(),
            values.len(),
            "{values:?} are not values of {:?}",
            self.labels
        );
        let pairs = self.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        Metric::from_label(pairs.collect())
    }
}

/// One metric with all its series.
pub(super) fn family(row: &Row, snapshot: &Snapshot<'_>) -> MetricFamily {
    let mut series = Series { kind: row.kind, labels: row.labels, metrics: Vec::new() };
    (row.read)(snapshot, &mut series);
    let mut family = MetricFamily::default();
    family.set_name(row.name.to_owned());
    family.set_help(row.help.to_owned());
    family.set_field_type(row.kind);
    family.set_metric(series.metrics);
    family
}

/// All metrics that this node has, in the order of the table.
///
/// # Errors
/// When a metric cannot be written. The table rules it out.
pub(super) fn text(snapshot: &Snapshot<'_>) -> Result<String, prometheus::Error> {
    let rows = SECTIONS.iter().flat_map(|(_title, rows)| *rows);
    let families = rows.map(|row| family(row, snapshot));
    let mut families: Vec<MetricFamily> =
        families.filter(|family| !family.get_metric().is_empty()).collect();
    families.extend(process::families());
    TextEncoder::new().encode_to_string(&families)
}

/// Gives a counter or a gauge its value.
pub(super) fn set_value(metric: &mut Metric, kind: MetricType, value: f64) {
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
}
