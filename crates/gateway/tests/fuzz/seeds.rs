//! The golden texts as inputs of the targets, and for what has no golden texts a few of each form.

use std::fs;

use serde::Deserialize;

use crate::root;

/// Longer ones teach nothing that shorter ones do not.
const BYTES_MAX: usize = 3000;

/// A row of a golden file, as far as it is needed here.
#[derive(Deserialize)]
struct Row {
    name: String,
    text: String,
}

/// Target, name and input.
pub(crate) fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, input: Vec<u8>| {
        if input.len() <= BYTES_MAX {
            seeds.push((target, name.to_owned(), input));
        }
    };
    for Row { name, text } in rows("client.json") {
        // Alone and as a frame: once masked with zeros, once by the script.
        add("frames", &name, [&[0b100][..], &frame(0x81, text.as_bytes())].concat());
        add("commands", &name, text.into_bytes());
    }
    for (name, input) in frames() {
        add("frames", name, input);
    }
    for (name, length) in [("at_the_bound", 62), ("above_the_bound", 63)] {
        let data = "x".repeat(length);
        let batch = format!("\x01[{{\"topic\":\"a\",\"data\":\"{data}\"}}]");
        add("http", &format!("payload_{name}"), batch.into_bytes());
        add("http", &format!("key_{name}"), [&[6][..], &[b'k'; 66], data.as_bytes()].concat());
    }
    for (name, part, text) in HTTP {
        add("http", name, [&[*part][..], text.as_bytes()].concat());
    }
    for (target, texts) in [("cursors", CURSORS), ("envelope", ENVELOPES)] {
        for (name, text) in texts {
            add(target, name, text.as_bytes().to_vec());
        }
    }
    let long = |length| "\0".repeat(length);
    let long = [
        ("tcp6_one_short", 0x21, 0x21, long(35)),
        ("at_the_bound", 0x21, 0x21, long(2048)),
        ("above_the_bound", 0x21, 0x21, long(2049)),
    ];
    let short = PROXY
        .iter()
        .map(|(name, command, family, rest)| (*name, *command, *family, (*rest).to_owned()));
    for (name, command, family, rest) in short.chain(long) {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let start = [&[16][..], b"\r\n\r\n\0\r\nQUIT\n", &[command, family]].concat();
        add("proxy", name, [&start[..], &length, rest.as_bytes(), b"GET /"].concat());
    }
    seeds
}

fn rows(file: &str) -> Vec<Row> {
    let path = root().join("crates/protocol/testdata").join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A client's frame, masked with zeros: its payload stays readable.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let header = match u8::try_from(length) {
        Ok(short @ 0..126) => vec![first, 0x80 | short],
        _ => [&[first, 0xFE][..], &length.to_be_bytes()].concat(),
    };
    [&header[..], &[0; 4], payload].concat()
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let raw = |frames: &[Vec<u8>]| [vec![0b100], frames.concat()].concat();
    let (start, more, end) = (frame(0x01, b"\xe2"), frame(0x00, b"\x82"), frame(0x80, b"\xac"));
    vec![
        ("fragments", raw(&[start.clone(), more.clone(), frame(0x89, b"p"), end.clone()])),
        ("half_a_character", raw(&[start.clone(), frame(0x80, b"")])),
        ("text_after_half_a_character", raw(&[start, frame(0x80, b""), frame(0x81, b"a")])),
        ("binary_fragments", raw(&[frame(0x02, b"\xff"), more, end.clone()])),
        ("continuation_of_nothing", raw(&[end])),
        ("close", raw(&[frame(0x88, b"\x03\xe8bye"), frame(0x81, b"late")])),
        ("close_reserved", raw(&[frame(0x88, b"\x03\xed")])),
        ("close_one_byte", raw(&[frame(0x88, b"\x03")])),
        ("close_inside_a_message", raw(&[frame(0x01, b"\xe2"), frame(0x88, b"")])),
        ("pong", raw(&[frame(0x8A, b"now")])),
        ("not_masked", raw(&[vec![0x81, 1, b'a']])),
        ("declared_1_gib", raw(&[vec![0x81, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]])),
        ("declared_too_much", raw(&[vec![0x81, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0]])),
        ("not_the_shortest_form", raw(&[vec![0x81, 0xFE, 0, 1, 0, 0, 0, 0, b'a']])),
        ("not_the_shortest_form_64", {
            vec![0b110, 0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]
        }),
        ("at_the_bound", [&[0b010][..], &frame(0x81, &[b'a'; 126])].concat()),
        ("above_the_bound", [&[0b010][..], &frame(0x81, &[b'a'; 127])].concat()),
        ("fragments_above_the_bound", {
            [&[0b010][..], &frame(0x01, &[b'a'; 126]), &frame(0x80, b"a")].concat()
        }),
        ("control_at_the_bound", raw(&[frame(0x89, &[b'a'; 125])])),
        ("control_above_the_bound", raw(&[frame(0x89, &[b'a'; 126])])),
        (
            "fragments_at_the_bound",
            raw(&[frame(0x01, b""), frame(0x00, b"").repeat(62), frame(0x80, b"a")]),
        ),
        ("many_fragments", raw(&[frame(0x01, b""), frame(0x00, b"").repeat(64)])),
        (
            "script",
            b"\x05\x81\x00\x05hello\x01\x20\x02\xe2\x82\x80\x00\x01\xac\x89\x00\x01p".to_vec(),
        ),
        ("script_large", b"\x07\x02\xe0\xffx\x80\xc0\x40y".to_vec()),
    ]
}

/// Name, part of the request as in the check, text.
const HTTP: &[(&str, u8, &str)] = &[
    ("payload", 0, " {\"px\" : 1.10, \"n\":[1e400,\"\\ud800\"]}\n"),
    ("payload_not_json", 0, "{\"a\":1,}"),
    ("payload_number", 0, "-0.00e+007"),
    (
        "batch_array",
        1,
        "[{\"topic\":\"a\",\"data\":1},{\"topic\":\"b/c\",\"data\":{},\"key\":\"k\"}]",
    ),
    (
        "batch_lines",
        2,
        "{\"topic\":\"a\",\"data\":1}\n\r\n{\"topic\":\"b\",\"data\":null,\"key\":\"k\"}\n",
    ),
    (
        "batch_refusals",
        1,
        "[1,{},{\"topic\":\"a b\",\"data\":1},{\"topic\":\"a\",\"data\":1,\"x\":1}]",
    ),
    ("batch_too_many", 1, "[1,2,3,4,5,6,7,8,9]"),
    ("batch_at_the_bound", 1, "[1,2,3,4,5,6,7,8]"),
    ("batch_half", 2, "[{\"topic\":\"a\",\"data\":1}"),
    ("topic", 3, "stocks.AAPL"),
    ("topic_escaped", 3, "a%2Fb%2fc%41"),
    ("topic_traversal", 3, "a/../b%2e"),
    ("topic_lines", 3, "a%0d%0aSet-Cookie:x"),
    ("subscriptions", 4, "topics=a,b%2Cc/d&mode=latest&max_rate=0.5"),
    ("subscriptions_all", 4, "mode=all&topics=a"),
    ("history", 5, "history=100"),
    ("history_twice", 5, "history=1&history=1"),
    ("key", 6, "3f8b4c-~!"),
    ("forwarded", 7, "1.1.1.1, [2001:db8::1]:4711, 10.0.0.7"),
    ("forwarded_nonsense", 7, "unknown, 10.0.0.7"),
];

const CURSORS: &[(&str, &str)] = &[
    ("epoch", "k3f9"),
    ("epoch_zero", "0"),
    ("epoch_leading_zero", "0k3f9"),
    ("epoch_largest", "3w5e11264sgsf"),
    ("epoch_too_large", "3w5e11264sgsg"),
    ("position", "k3f9 1042"),
    ("position_largest", "3w5e11264sgsf 9007199254740991"),
    ("position_too_large", "k3f9 9007199254740992"),
    ("since", "{\"epoch\":\"k3f9\",\"offset\":40}"),
    ("since_garbled", "{\"epoch\":\"K3F9\",\"offset\":-1}"),
    ("since_huge", "{\"epoch\":7,\"offset\":1e400}"),
    ("since_above_u64", "{\"offset\":18446744073709551616,\"epoch\":\"k3f9\"}"),
    ("since_unknown_key", "{\"epoch\":\"k3f9\",\"offset\":40,\"x\":0}"),
    ("since_null", "null"),
    ("tags", "\"a,b\", W/\"k3f9:7\",*"),
];

const ENVELOPES: &[(&str, &str)] = &[
    ("one", "1k3f9 41\n11795525552123 2\n{}"),
    ("three", "1k3f9 41\n11 2\n{}12 0\n13 1\n7"),
    ("cut", "1k3f9 41\n11795525552123 3\n{}"),
    ("too_long", "1k3f9 41\n11795525552123 1\n{}"),
    ("no_record", "1k3f9 41\n"),
    ("offset_largest", "1k3f9 9007199254740991\n11 1\n711 1\n8"),
    ("record", "11795525552123 2\n{}"),
    ("record_huge", "118446744073709551615 18446744073709551615\n"),
    ("element", "41 1795525552 123456 300000\n11795525552123 2\n{}"),
    ("element_time_overflow", "41 18446744073709551615 18446744073709551615 1\n11 0\n"),
    ("probe", "10 0\n10 2\n42"),
    ("comparison", "C7\nstocks.AAPL k3f9 41\nnba k3f9 0"),
    ("comparison_empty", "C7"),
    ("comparison_bad_line", "C7\nstocks.AAPL k3f9 41\nnba\n\nx y z"),
    ("channel", "tickcast:{2a}:c:stocks.AAPL"),
];

/// Name, version and command, family, what follows the start.
const PROXY: &[(&str, u8, u8, &str)] = &[
    ("tcp4", 0x21, 0x11, "\x01\x02\x03\x04\x7f\0\0\x01\x10\0\0\x50"),
    ("tcp4_with_more", 0x21, 0x11, "\x01\x02\x03\x04\x7f\0\0\x01\x10\0\0\x50\x04\0\x01\0"),
    ("tcp4_short", 0x21, 0x11, "\x01\x02\x03\x04\x7f\0\0\x01\x10\0\0"),
    (
        "tcp6",
        0x21,
        0x21,
        " \x01\x0d\x38\0\0\0\0\0\0\0\0\0\0\0\x01 \x01\x0d\x38\0\0\0\0\0\0\0\0\0\0\0\x02\x10\0\0\x50",
    ),
    (
        "tcp6_mapped",
        0x21,
        0x21,
        "\0\0\0\0\0\0\0\0\0\0\x7f\x7f\x01\x02\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\x50",
    ),
    ("tcp6_short", 0x21, 0x21, "\0\0\0\0"),
    ("local", 0x20, 0x00, ""),
    ("unknown", 0x21, 0x00, "\x01\x02\x03"),
    ("unix", 0x21, 0x31, ""),
    ("udp", 0x21, 0x12, "\x01\x02\x03\x04\x7f\0\0\x01\x10\0\0\x50"),
    ("version_1", 0x11, 0x11, ""),
    ("command", 0x22, 0x11, ""),
];
