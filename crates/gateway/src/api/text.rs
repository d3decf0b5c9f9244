//! What paths, queries and keys are made of.

use std::borrow::Cow;

/// Why a text is not percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EncodingError {
    /// A `%` without two hexadecimal digits.
    #[error("the `%` at byte {0} is not followed by two hexadecimal digits")]
    Escape(usize),
    /// Bytes that are not UTF-8.
    #[error("the percent-decoded text is not UTF-8 from byte {0} on")]
    Utf8(usize),
}

/// Decodes `%XX`. Nothing is copied if there is none; a `+` stays a `+`.
pub(super) fn percent_decode(text: &str) -> Result<Cow<'_, str>, EncodingError> {
    let Some(first) = text.find('%') else { return Ok(Cow::Borrowed(text)) };
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digit = |offset| bytes.get(at + offset).and_then(|digit| hex_digit(*digit));
            let (Some(high), Some(low)) = (digit(1), digit(2)) else {
                return Err(EncodingError::Escape(at));
            };
            decoded.push(high << 4 | low);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    let decoded = String::from_utf8(decoded)
        .map_err(|error| EncodingError::Utf8(error.utf8_error().valid_up_to()))?;
    Ok(Cow::Owned(decoded))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The options of a query, still percent-encoded.
pub(super) fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Most bytes of a text that are shown where it is no JSON.
const NEAR_BYTES_MAX: usize = 20;

/// What stands where a text was found to be no JSON, as the end of a sentence; nothing where the text ends too early.
pub(super) fn near(text: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return String::new();
    }
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let rest = line.and_then(|line| line.get(error.column().saturating_sub(1)..));
    let Some(rest) = rest.map(<[u8]>::trim_ascii_end).filter(|rest| !rest.is_empty()) else {
        return String::new();
    };
    let (shown, more) = match rest.get(..NEAR_BYTES_MAX) {
        Some(beginning) if beginning.len() < rest.len() => (beginning, "…"),
        _ => (rest, ""),
    };
    format!(", where `{}{more}` stands", String::from_utf8_lossy(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding() {
        let check = |text: &str, expected: Result<&str, EncodingError>| {
            assert_eq!(percent_decode(text).as_deref(), expected.as_ref().copied(), "{text}");
        };
        check("", Ok(""));
        check("stocks.AAPL", Ok("stocks.AAPL"));
        check("a+b", Ok("a+b"));
        check("a%2Fb%2fc", Ok("a/b/c"));
        check("%61", Ok("a"));
        check("%25%32%35", Ok("%25"));
        check("%C3%A4", Ok("\u{e4}"));
        check("\u{e4}%41", Ok("\u{e4}A"));
        check("%00", Ok("\0"));
        check("%", Err(EncodingError::Escape(0)));
        check("ab%4", Err(EncodingError::Escape(2)));
        check("%4G", Err(EncodingError::Escape(0)));
        check("%+4", Err(EncodingError::Escape(0)));
        check("%\u{e4}", Err(EncodingError::Escape(0)));
        check("a%FF", Err(EncodingError::Utf8(1)));
        check("%C3", Err(EncodingError::Utf8(0)));
        assert!(matches!(percent_decode("plain"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn queries() {
        let check = |query: Option<&str>, expected: &[(&str, &str)]| {
            assert_eq!(pairs(query).collect::<Vec<_>>(), expected, "{query:?}");
        };
        check(None, &[]);
        check(Some(""), &[]);
        check(Some("&&"), &[]);
        check(Some("a=1&b=2=3&&c"), &[("a", "1"), ("b", "2=3"), ("c", "")]);
        check(Some("=x"), &[("", "x")]);
    }

    #[test]
    fn what_stands_where_there_is_no_json() {
        let check = |text: &str, expected: &str| {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(near(text.as_bytes(), &error), expected, "{text}");
        };
        check("hello", ", where `hello` stands");
        check("{\"a\":\n1,}\n2", ", where `}` stands");
        check(&"x".repeat(21), &format!(", where `{}…` stands", "x".repeat(20)));
        check(&"x".repeat(20), &format!(", where `{}` stands", "x".repeat(20)));
        check(
            &format!("{}\u{e4}", "x".repeat(19)),
            &format!(", where `{}\u{fffd}…` stands", "x".repeat(19)),
        );
        check("{\"a\":", "");
        check("", "");
    }
}
