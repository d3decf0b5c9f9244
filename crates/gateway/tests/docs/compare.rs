//! What a page shows, compared with what came out.

/// Stands for anything on its line; on a line of its own for any lines.
const ANYTHING: char = '…';

/// Lines are compared without the white space at their ends, and without empty lines at the beginning and the end.
pub(crate) fn is_output(shown: &str, printed: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.trim_matches(['\n', '\r']).lines().map(|line| line.trim_end().to_owned()).collect()
    };
    lines_match(&lines(shown), &lines(printed))
}

/// JSON may be laid out in another way than it came.
pub(crate) fn is_json_output(shown: &str, printed: &str) -> bool {
    line_matches(&compact(shown), &compact(printed))
}

fn lines_match(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first.trim() == ANYTHING.to_string() => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, others)| line_matches(first, line) && lines_match(rest, others)),
    }
}

/// Whether the pieces between the wildcards occur in order, the first at the beginning and the last at the end.
pub(crate) fn line_matches(shown: &str, printed: &str) -> bool {
    let mut pieces: Vec<&str> = shown.split(ANYTHING).collect();
    let last = pieces.pop().unwrap_or_default();
    let Some((first, middle)) = pieces.split_first() else { return printed == last };
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for piece in middle {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Leaves white space outside of strings out.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let is_kept = |c: &char| {
        let kept = in_string || !c.is_whitespace();
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        kept
    };
    json.chars().filter(is_kept).collect()
}

#[test]
fn wildcards() {
    assert!(line_matches("abc", "abc") && !line_matches("abc", "abcd"));
    assert!(
        line_matches("a…c", "abbc") && line_matches("a…c", "ac") && !line_matches("a…c", "acd")
    );
    assert!(line_matches("…b…", "abc") && !line_matches("…b…b…", "abc"));
    // The last piece must not be found twice over.
    assert!(!line_matches("ab…b", "ab") && line_matches("…", ""));
    assert!(is_output("a\n…\nd\n", "\na\nb \nc\r\nd\n\n") && is_output("a\n…\n", "a\n"));
    assert!(!is_output("a\n…\nd\n", "a\nb\nc\n") && !is_output("a\n", "a\nb\n"));
    assert!(is_json_output(
        "{\n  \"a b\": [1, …],\n \"c\": \"\\\" x\"}",
        "{\"a b\":[1,2],\"c\":\"\\\" x\"}"
    ));
    assert!(!is_json_output("{\"a b\": 1}", "{\"ab\":1}"));
}
