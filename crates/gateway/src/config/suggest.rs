//! Guesses at what was meant: the name of a setting a few letters away, a value in another way of writing.

use toml::Value;

use super::list::List;
use super::setting::Form;
use super::{SECTIONS, keys};

/// The one that is nearest, if no more than so many letters are different.
pub(super) fn nearest<'a>(
    name: &str,
    letters: usize,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let distances = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    distances.min_by_key(|(distance, _)| *distance).filter(|(d, _)| *d <= letters).map(|(_, k)| k)
}

/// A third of the letters may differ; beyond that a guess would be noise.
fn third(text: &str) -> usize {
    text.len().div_ceil(3)
}

/// The setting or section that was probably meant: the same name in another section, or a name a few letters away.
pub(super) fn setting(path: &str) -> Option<String> {
    fn last(path: &str) -> &str {
        path.rsplit('.').next().unwrap_or_default()
    }
    let known: Vec<String> = match List::split(path) {
        Some((list, number, _)) => list.names().map(|key| list.place(number, key)).collect(),
        None => {
            let sections = SECTIONS.iter().map(|section| section.name.to_owned());
            keys().map(|key| key.name.to_owned()).chain(sections).collect()
        }
    };
    let same = known.iter().find(|name| last(name) == last(path));
    // Equal beginnings are no reason to take one name for another.
    let near = || nearest(path, third(last(path)), known.iter().map(String::as_str));
    same.map(String::as_str).or_else(near).map(str::to_owned)
}

/// The value that was probably meant; `fits` says which can be taken.
pub(super) fn value(form: Form, given: &Value, fits: impl Fn(&Value) -> bool) -> Option<Value> {
    candidates(form, given).into_iter().find(|value| fits(value))
}

fn candidates(form: Form, given: &Value) -> Vec<Value> {
    let plain = match given {
        Value::String(text) => text.trim().to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        _ => return in_list(form, given),
    };
    let text = |text: String| vec![Value::String(text)];
    match form {
        Form::Truth => match plain.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => vec![Value::Boolean(true)],
            "false" | "no" | "off" | "0" => vec![Value::Boolean(false)],
            _ => vec![],
        },
        Form::Number => {
            let digits: String = plain.chars().filter(|c| !matches!(c, '_' | ',' | ' ')).collect();
            digits.parse().map(Value::Integer).into_iter().collect()
        }
        Form::Size => unit(&plain, size_unit).map(text).unwrap_or_default(),
        Form::Duration => unit(&plain, time_unit).map(text).unwrap_or_default(),
        Form::Words(words) => {
            let plain = plain.to_ascii_lowercase();
            let word = nearest(&plain, third(&plain), words.iter().copied());
            word.map(|word| text(word.to_owned())).unwrap_or_default()
        }
        // An address without its host, or with a name for this machine.
        Form::Pattern(_) => {
            let this = [plain.replace("localhost", "127.0.0.1"), format!("127.0.0.1:{plain}")];
            let this = this.into_iter().chain([format!("127.0.0.1{plain}")]);
            this.map(Value::String).collect()
        }
        Form::Text => text(plain),
        Form::List { .. } => {
            let items = plain.split(',').map(|item| Value::String(item.trim().to_owned()));
            let items = Value::Array(items.collect());
            let better = in_list(form, &items);
            [items].into_iter().chain(better).collect()
        }
    }
}

/// The same list with the items that were probably meant.
fn in_list(form: Form, given: &Value) -> Vec<Value> {
    let (Form::List { items: form, .. }, Some(items)) = (form, given.as_array()) else {
        return Vec::new();
    };
    let better = |item: &Value| candidates(*form, item).into_iter().next();
    vec![Value::Array(items.iter().filter_map(better).collect())]
}

/// A number with the unit that was probably meant.
fn unit(text: &str, known: fn(&str) -> Option<&'static str>) -> Option<String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    Some(format!("{number}{}", known(&unit.trim().to_ascii_lowercase())?))
}

fn size_unit(unit: &str) -> Option<&'static str> {
    match unit {
        "b" | "byte" | "bytes" => Some("B"),
        "k" | "kb" | "kib" => Some("KiB"),
        "m" | "mb" | "mib" => Some("MiB"),
        "g" | "gb" | "gib" => Some("GiB"),
        _ => None,
    }
}

/// A number alone is mostly meant in seconds.
fn time_unit(unit: &str) -> Option<&'static str> {
    match unit {
        "ms" | "msec" | "millis" | "milliseconds" => Some("ms"),
        "" | "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_were_meant() {
        let check = |name: &str, given: &str, expected: &str| {
            let key = keys().find(|key| key.name == name).unwrap();
            let given = format!("x = {given}").parse::<toml::Table>().unwrap().remove("x").unwrap();
            let meant = value(key.form, &given, |value| (key.check)(value).is_ok());
            assert_eq!(meant.map(|v| v.to_string()).unwrap_or_default(), expected, "{given}");
        };
        check("server.insecure", "'yes'", "true");
        check("server.insecure", "0", "false");
        check("server.insecure", "'perhaps'", "");
        check("server.workers", "'4'", "4");
        check("server.workers", "'40,000'", "");
        check("drain.rate", "'40,000'", "40000");
        check("limits.payload_bytes", "'64kb'", "\"64KiB\"");
        check("limits.payload_bytes", "'64 parsecs'", "");
        check("limits.payload_bytes", "'64GB'", "");
        check("websocket.ping_interval", "25", "\"25s\"");
        check("websocket.ping_interval", "'2 Minutes'", "\"2m\"");
        check("websocket.ping_interval", "'2 days'", "");
        check("topics.mode", "'lastest'", "\"latest\"");
        check("topics.mode", "'newest'", "");
        check("server.listen", "'localhost:8080'", "\"127.0.0.1:8080\"");
        check("server.listen", "':8080'", "\"127.0.0.1:8080\"");
        check("server.listen", "8080", "\"127.0.0.1:8080\"");
        check(
            "cors.origins",
            "'https://a.example, https://b.example'",
            "[\"https://a.example\", \"https://b.example\"]",
        );
        check(
            "server.trusted_proxies",
            "['localhost', '10.0.0.0/8']",
            "[\"127.0.0.1\", \"10.0.0.0/8\"]",
        );
        check("broker.redis.prefix", "5", "\"5\"");
    }
}
