//! What operators watch: the dashboard, the alerts and the recorded series.
//!
//! They are tables beside the table of metrics, and the files that Grafana and Prometheus read are written from them
//! (`make docs`). So a metric that is renamed, or a label value that does not exist, is found by a test and not by
//! whoever looks at an empty panel at night. Nothing of this is in the program itself.

mod alerts;
mod dashboard;
mod panels;
mod promql;
mod reference;
mod rules;
mod tests;
