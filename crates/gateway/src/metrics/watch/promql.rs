//! As much of `PromQL` as it takes to find the metrics of an expression.

/// One selector: a metric, what is asked of its labels, and the range behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector<'a> {
    pub(super) metric: &'a str,
    /// Label, operator, value.
    pub(super) matchers: Vec<(&'a str, &'a str, &'a str)>,
    pub(super) range: Option<&'a str>,
    /// The function that stands right in front of it.
    pub(super) function: Option<&'a str>,
}

impl Selector<'_> {
    /// The name of the metric that a series of a histogram belongs to.
    pub(super) fn family(&self, is_histogram: impl Fn(&str) -> bool) -> &str {
        let stem =
            ["_bucket", "_count", "_sum"].iter().find_map(|end| self.metric.strip_suffix(end));
        stem.filter(|stem| is_histogram(stem)).unwrap_or(self.metric)
    }
}

/// The selectors of an expression. A metric is known by its prefix; recorded series have colons in their names and are
/// found as well.
pub(super) fn selectors(expression: &str) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = next_metric(expression, at) {
        let name_end = end_of_name(expression, start);
        let (matchers, end) = matchers(expression, name_end);
        let (range, end) = range(expression, end);
        let function = function(&expression[..start]);
        found.push(Selector { metric: &expression[start..name_end], matchers, range, function });
        at = end;
    }
    found
}

/// The labels in `by (…)`, `on (…)` and the like.
pub(super) fn grouping_labels(expression: &str) -> Vec<&str> {
    let mut labels = Vec::new();
    for word in ["by (", "on (", "ignoring (", "without (", "group_left (", "group_right ("] {
        for (start, _) in expression.match_indices(word) {
            let inside = expression[start + word.len()..].split(')').next().unwrap_or_default();
            labels.extend(inside.split(',').map(str::trim).filter(|label| !label.is_empty()));
        }
    }
    labels
}

/// Prefixes of the metrics that there are.
const PREFIXES: [&str; 7] =
    ["tickcast_", "process_", "haproxy_", "job:", "instance:", "up{", "up "];

fn next_metric(expression: &str, from: usize) -> Option<usize> {
    let starts = PREFIXES.iter().flat_map(|prefix| {
        expression[from..].match_indices(prefix).map(|(at, _)| from + at).filter(|at| {
            let before = expression[..*at].chars().next_back();
            !before.is_some_and(|c| is_in_name(c) || c == '"')
        })
    });
    starts.min()
}

fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn end_of_name(expression: &str, start: usize) -> usize {
    let rest = &expression[start..];
    start + rest.find(|c| !is_in_name(c)).unwrap_or(rest.len())
}

fn matchers(expression: &str, start: usize) -> (Vec<(&str, &str, &str)>, usize) {
    let Some(inside) = expression[start..].strip_prefix('{') else { return (Vec::new(), start) };
    let length = inside.find('}').expect("a selector ends");
    let parts = inside[..length].split(',').filter(|part| !part.is_empty());
    let matchers = parts.map(|part| {
        let name_end = part.find(|c| !is_in_name(c)).expect("a matcher has an operator");
        let quote = part.find('"').expect("a matcher has a value in quotes");
        (&part[..name_end], &part[name_end..quote], part[quote..].trim_matches('"'))
    });
    (matchers.collect(), start + length + 2)
}

fn range(expression: &str, start: usize) -> (Option<&str>, usize) {
    let Some(inside) = expression[start..].strip_prefix('[') else { return (None, start) };
    let length = inside.find(']').expect("a range ends");
    (Some(&inside[..length]), start + length + 2)
}

/// The name in front of the bracket that the text ends with.
fn function(before: &str) -> Option<&str> {
    let before = before.trim_end().strip_suffix('(')?;
    let start = before.rfind(|c| !is_in_name(c)).map_or(0, |at| at + 1);
    Some(&before[start..]).filter(|name| !name.is_empty())
}

#[test]
fn selectors_are_found_with_all_their_parts() {
    let found = selectors(
        r#"sum by (le) (rate(tickcast_a_bucket{job=~"$job",reason!="x|y"}[5m])) / process_b > job:tickcast_c:sum and up{job="t"} == 0"#,
    );
    let metrics: Vec<_> = found.iter().map(|selector| selector.metric).collect();
    assert_eq!(metrics, ["tickcast_a_bucket", "process_b", "job:tickcast_c:sum", "up"]);
    assert_eq!(found[0].matchers, [("job", "=~", "$job"), ("reason", "!=", "x|y")]);
    assert_eq!((found[0].range, found[0].function), (Some("5m"), Some("rate")));
    assert_eq!((found[1].range, found[1].function), (None, None));
    assert_eq!(found[3].matchers, [("job", "=", "t")]);
    assert_eq!(found[0].family(|stem| stem == "tickcast_a"), "tickcast_a");
    assert_eq!(found[0].family(|_| false), "tickcast_a_bucket");
    assert_eq!(grouping_labels("sum by (a, b) (x) / on (c) y"), ["a", "b", "c"]);
}
