//! `GET /v1/ws`: what can be refused before the upgrade, where a client still gets a reason.
//!
//! The handshake itself belongs to the transport, and the connection to the worker.

use hyper::header::{HeaderMap, ORIGIN};
use tickcast_protocol::{ErrorCode, Mode, Rate, SubscribeItem, Topic};

use super::problem::Problem;
use super::{cors, text};

/// Pages of this origin may not connect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign(pub(crate) String);

impl From<Foreign> for Problem {
    fn from(Foreign(origin): Foreign) -> Self {
        Self::new(ErrorCode::BadOrigin, format!("pages of `{origin}` may not connect here"))
    }
}

/// Checks `access.origins`. A request without `Origin` does not come from a page.
pub(crate) fn check_origin(origins: &[String], headers: &HeaderMap) -> Result<(), Foreign> {
    if origins.is_empty() {
        return Ok(());
    }
    // A browser sends one; of several, each must be allowed.
    match headers.get_all(ORIGIN).into_iter().find(|origin| !cors::is_listed(origins, origin)) {
        Some(origin) => Err(Foreign(String::from_utf8_lossy(origin.as_bytes()).into_owned())),
        None => Ok(()),
    }
}

/// Reads the subscriptions of `?topics=a,b&mode=latest&max_rate=4`. Mode and rate hold for all topics.
pub(crate) fn read_subscriptions(
    query: Option<&str>,
    topics_max: usize,
) -> Result<Vec<SubscribeItem>, Problem> {
    let (mut topics, mut mode, mut max_rate) = (None, None, None);
    for (key, raw) in text::pairs(query) {
        let slot = match key {
            "topics" => &mut topics,
            "mode" => &mut mode,
            "max_rate" => &mut max_rate,
            _ => {
                return Err(bad_option(format!(
                    "there is no query option `{key}`; there are `topics`, `mode` and `max_rate`"
                )));
            }
        };
        let value = text::percent_decode(raw)
            .map_err(|error| bad_option(format!("`{key}` cannot be read: {error}")))?;
        if slot.replace(value).is_some() {
            return Err(bad_option(format!("`{key}` is given twice")));
        }
    }
    let max_rate = max_rate.as_deref().map(read_rate).transpose()?;
    let mode = Mode::choose(mode.as_deref(), max_rate).map_err(bad_option)?;
    // `topics=` is what a page sends that has nothing to show yet.
    let topics = topics.as_deref().filter(|topics| !topics.is_empty());
    // Split only now: clients often encode the commas too, and no topic has one.
    let names = topics.into_iter().flat_map(|topics| topics.split(','));
    let mut items = Vec::new();
    for name in names {
        if items.len() == topics_max {
            let detail = format!("one connection holds at most {topics_max} topics");
            return Err(Problem::new(ErrorCode::TooManySubscriptions, detail));
        }
        let topic = Topic::new(name).map_err(|error| {
            let detail = format!("topic {} of `topics`: {error}", items.len() + 1);
            Problem::new(ErrorCode::BadTopic, detail)
        })?;
        items.push(SubscribeItem { topic, mode, max_rate, since: None });
    }
    Ok(items)
}

/// As a JSON number, like in the subscribe command.
fn read_rate(text: &str) -> Result<Rate, Problem> {
    let hz: f64 = serde_json::from_str(text).map_err(|_wrong_type| {
        bad_option(format!("`max_rate` is `{text}`; it must be a number of updates per second"))
    })?;
    Rate::from_hz(hz).map_err(|error| bad_option(error.to_string()))
}

fn bad_option(detail: String) -> Problem {
    Problem::new(ErrorCode::BadOption, detail)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(query: &str) -> Result<Vec<SubscribeItem>, ErrorCode> {
        read_subscriptions(Some(query), 3).map_err(|problem| problem.code())
    }

    #[test]
    fn topics() {
        let check = |query: &str, expected: &[&str]| {
            let items = read(query).unwrap();
            let names: Vec<&str> = items.iter().map(|item| item.topic.as_str()).collect();
            assert_eq!(names, expected, "{query}");
            assert!(items.iter().all(|item| item.mode.is_none() && item.since.is_none()));
        };
        check("", &[]);
        check("topics=", &[]);
        check("topics=stocks.AAPL", &["stocks.AAPL"]);
        check("topics=a,b/c,d", &["a", "b/c", "d"]);
        check("topics=a%2Cb%2Fc", &["a", "b/c"]);
        assert!(read_subscriptions(None, 3).unwrap().is_empty());
    }

    #[test]
    fn modes_and_rates() {
        let check = |query: &str, mode: Option<Mode>, interval_ms: Option<u32>| {
            for item in read(query).unwrap() {
                let got = (item.mode, item.max_rate.map(Rate::interval_ms));
                assert_eq!(got, (mode, interval_ms), "{query}");
            }
        };
        check("topics=a,b&mode=all", Some(Mode::All), None);
        check("mode=latest&topics=a", Some(Mode::Latest), None);
        check("topics=a&max_rate=4", Some(Mode::Latest), Some(250));
        check("topics=a&max_rate=0.5&mode=latest", Some(Mode::Latest), Some(2000));
        check("topics=a&max_rate=%34", Some(Mode::Latest), Some(250));
    }

    #[test]
    fn what_is_refused() {
        let check = |query: &str, code: ErrorCode| assert_eq!(read(query), Err(code), "{query}");
        check("topics=a,", ErrorCode::BadTopic);
        check("topics=,", ErrorCode::BadTopic);
        check("topics=a,,b", ErrorCode::BadTopic);
        check("topics=a+b", ErrorCode::BadTopic);
        check("topics=*", ErrorCode::BadTopic);
        check("topics=$sys", ErrorCode::BadTopic);
        check("topics=..%2Fa", ErrorCode::BadTopic);
        check("topics=a,b,c,d", ErrorCode::TooManySubscriptions);
        check("topics=%zz", ErrorCode::BadOption);
        check("topics=%FF", ErrorCode::BadOption);
        check("topics=a&topics=b", ErrorCode::BadOption);
        check("topic=a", ErrorCode::BadOption);
        check("topics=a&mode=fast", ErrorCode::BadOption);
        check("topics=a&mode=", ErrorCode::BadOption);
        check("topics=a&mode=all&max_rate=1", ErrorCode::BadOption);
        for rate in ["", "0", "-1", "inf", "NaN", "1e999", "\"4\"", "4,", "0x4"] {
            check(&format!("topics=a&max_rate={rate}"), ErrorCode::BadOption);
        }
    }

    #[test]
    fn origins() {
        let check = |origins: &[&str], sent: &[&str], is_taken: bool| {
            let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
            let mut headers = HeaderMap::new();
            for origin in sent {
                headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            assert_eq!(check_origin(&origins, &headers).is_ok(), is_taken, "{origins:?} {sent:?}");
        };
        let listed = &["https://a.example", "https://b.example"][..];
        check(&[], &["https://evil.example"], true);
        check(&["*"], &["https://evil.example"], true);
        check(listed, &[], true);
        check(listed, &["https://b.example"], true);
        check(listed, &["https://evil.example"], false);
        check(listed, &["null"], false);
        check(listed, &["\u{e4}"], false);
        check(listed, &["https://a.example", "https://evil.example"], false);
    }
}
