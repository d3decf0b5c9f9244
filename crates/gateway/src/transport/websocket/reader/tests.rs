use super::*;

const MAX: usize = 1000;

/// A client frame with the given first byte (FIN, reserved bits, opcode).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = [0x11, 0x22, 0x33, 0x44];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// Feeds `input` cut at the given places and tells what came out.
fn read_cut(input: &[u8], cuts: &[usize]) -> (Vec<String>, Option<u16>) {
    let (mut slot, mut events, mut at) = (None, Vec::new(), 0);
    for end in cuts.iter().copied().chain([input.len()]) {
        let mut part = input[at..end].to_vec();
        at = end;
        let result = Reader::read(&mut slot, &mut part, MAX, |event| {
            events.push(match event {
                Event::Text(text) => format!("text {text}"),
                Event::Binary => "binary".to_owned(),
                Event::Ping(payload) => format!("ping {}", payload.len()),
                Event::Pong(payload) => format!("pong {}", payload.len()),
                Event::Close(code) => format!("close {:?}", code.map(CloseCode::number)),
            });
            Flow::Continue
        });
        if let Err(violation) = result {
            return (events, Some(violation.code.number()));
        }
    }
    (events, None)
}

fn read(input: &[u8]) -> (Vec<String>, Option<u16>) {
    read_cut(input, &[])
}

#[test]
fn good_frames() {
    let check = |input: &[u8], expected: &[&str]| {
        let expected = expected.iter().map(|event| (*event).to_owned()).collect();
        assert_eq!(read(input), (expected, None));
    };
    check(&frame(0x81, b"hello"), &["text hello"]);
    check(&frame(0x81, b""), &["text "]);
    check(&frame(0x82, b"\xff"), &["binary"]);
    check(&frame(0x89, b"abc"), &["ping 3"]);
    check(&frame(0x8A, b""), &["pong 0"]);
    check(&frame(0x88, b""), &["close None"]);
    check(&frame(0x88, b"\x03\xe8bye"), &["close Some(1000)"]);
    check(
        &[frame(0x01, b"he"), frame(0x89, b"x"), frame(0x00, b"l"), frame(0x80, b"lo")].concat(),
        &["ping 1", "text hello"],
    );
    check(&[frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat(), &["text \u{20ac}"]);
    check(&[frame(0x88, b""), frame(0x81, b"ignored")].concat(), &["close None"]);
    let long = "x".repeat(MAX);
    check(&frame(0x81, long.as_bytes()), &[&format!("text {long}")]);
}

#[test]
fn violations_have_their_code() {
    let check = |input: &[u8], code: u16| {
        let (events, found) = read(input);
        assert_eq!((events.len(), found), (0, Some(code)), "{input:x?}");
    };
    check(&[0x81, 0x01, b'a'], 1002);
    check(&frame(0xC1, b"a"), 1002);
    check(&frame(0x91, b"a"), 1002);
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&frame(0x80 | opcode, b""), 1002);
    }
    for control in [8, 9, 10] {
        check(&frame(control, b""), 1002);
        check(&frame(0x80 | control, &[0; 126]), 1002);
    }
    check(&frame(0x80, b"a"), 1002);
    check(&[frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002);
    check(&[0x81, 0xFE, 0, 125, 0, 0, 0, 0], 1002);
    check(&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0], 1002);
    // A length is refused on the header: nothing is allocated for it, and no payload has to come.
    check(&[0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 1009);
    check(&[0x81, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0], 1009);
    check(&frame(0x81, &[b'a'; MAX + 1]), 1009);
    check(&[frame(0x01, &[b'a'; MAX]), frame(0x80, b"b")].concat(), 1009);
    check(
        &frame(0x01, b"a").into_iter().chain(frame(0x00, b"").repeat(64)).collect::<Vec<_>>(),
        1008,
    );
    check(&frame(0x81, b"\xff"), 1007);
    check(&[frame(0x01, b"\xe2\x82"), frame(0x80, b"")].concat(), 1007);
    check(&frame(0x88, b"\x03"), 1002);
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        check(&frame(0x88, &code.to_be_bytes()), 1002);
    }
    check(&frame(0x88, b"\x03\xe8\xff"), 1007);
}

#[test]
fn a_cut_at_any_two_places_changes_nothing() {
    let long = "y".repeat(300);
    let input = [
        frame(0x81, b"one"),
        frame(0x01, long.as_bytes()),
        frame(0x89, b"p"),
        frame(0x80, "\u{20ac}".as_bytes()),
        frame(0x88, b"\x03\xe8"),
    ]
    .concat();
    let whole = read(&input);
    assert_eq!(whole.0.len(), 4);
    for first in 0..input.len() {
        for second in (first..input.len()).step_by(7) {
            assert_eq!(read_cut(&input, &[first, second]), whole, "{first} {second}");
        }
    }
    let every_byte: Vec<usize> = (1..input.len()).collect();
    assert_eq!(read_cut(&input, &every_byte), whole);
}

#[test]
fn a_pause_keeps_the_rest_and_an_idle_connection_keeps_nothing() {
    let mut slot = None;
    let mut input = [frame(0x81, b"a"), frame(0x81, b"b")].concat();
    let mut seen = Vec::new();
    let mut take = |slot: &mut Option<Box<Reader>>, input: &mut [u8], flow| {
        Reader::read(slot, input, MAX, |event| {
            seen.push(format!("{event:?}"));
            flow
        })
        .unwrap();
        seen.len()
    };
    assert_eq!(take(&mut slot, &mut input, Flow::Pause), 1);
    assert!(slot.is_some());
    assert_eq!(take(&mut slot, &mut [], Flow::Pause), 2);
    assert!(slot.is_none());
}
