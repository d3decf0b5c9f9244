use super::*;

const MAX: usize = 1000;

fn bounds(second: u32) -> Bounds {
    Bounds { message_max: MAX, fragments_max: FRAGMENTS_MAX, second }
}

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
        let result = Reader::read(&mut slot, &mut part, bounds(0), |event| {
            events.push(match event {
                Event::Text(text) => format!("text {text}"),
                Event::Binary(payload) => format!("binary {}", payload.len()),
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
    check(&frame(0x82, b"\xff"), &["binary 1"]);
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
        Reader::read(slot, input, bounds(0), |event| {
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

#[test]
fn what_is_no_text_ends_the_message_in_the_fragment_where_it_stands() {
    let check = |fragments: &[&[u8]], expected: Option<u16>| {
        let first = frame(0x01, fragments[0]);
        let rest = fragments[1..].iter().flat_map(|payload| frame(0x00, payload));
        let input: Vec<u8> = first.into_iter().chain(rest).collect();
        assert_eq!(read(&input), (Vec::new(), expected), "{fragments:x?}");
    };
    check(&[b"a", b"\xff"], Some(1007));
    check(&[b"\xf4\x90", b""], Some(1007));
    check(&[b"\xe2", b"\x82", b"("], Some(1007));
    check(&[b"\xe2", b"\x82", b"\xac", b"\xe2"], None);
    // What is not whole at the end of the message is no text either.
    let cut = [frame(0x01, b"a"), frame(0x80, b"\xe2\x82")].concat();
    assert_eq!(read(&cut), (Vec::new(), Some(1007)));
}

#[test]
fn fragments_and_bytes_are_bounded_at_their_limits() {
    let fragments = |count: u32| {
        let continuations = frame(0x00, b"").repeat(count as usize - 2);
        [frame(0x01, b"a"), continuations, frame(0x80, b"b")].concat()
    };
    for count in [FRAGMENTS_MAX - 1, FRAGMENTS_MAX] {
        assert_eq!(read(&fragments(count)), (vec!["text ab".to_owned()], None), "{count}");
    }
    assert_eq!(read(&fragments(FRAGMENTS_MAX + 1)), (Vec::new(), Some(1008)));
    for length in [MAX - 1, MAX] {
        let halves = [frame(0x02, &vec![0; length - 1]), frame(0x80, &[0])].concat();
        assert_eq!(read(&halves), (vec![format!("binary {length}")], None));
    }
}

/// The second in which what is left began, after reads in the given seconds.
fn begun(reads: &[(u32, &[u8])]) -> Option<u32> {
    let mut slot = None;
    for (second, input) in reads {
        Reader::read(&mut slot, &mut input.to_vec(), bounds(*second), |_| Flow::Continue).unwrap();
    }
    slot.map(|reader| reader.begun())
}

#[test]
fn time_runs_from_the_first_byte_of_what_is_incomplete() {
    let (text, ping, first) = (frame(0x81, b"text"), frame(0x89, b"p"), frame(0x01, b"a"));
    let more = frame(0x00, b"b");
    assert_eq!(begun(&[(1, &text)]), None);
    assert_eq!(begun(&[(1, &text[..1]), (2, &text[1..3]), (9, &text[3..5])]), Some(1));
    assert_eq!(begun(&[(1, &text[..3]), (5, &[&text[3..], &text[..2]].concat())]), Some(5));
    assert_eq!(begun(&[(1, &first), (2, &more), (3, &ping), (4, &more), (5, &ping[..2])]), Some(1));
    assert_eq!(begun(&[(1, &ping[..2]), (3, &[&ping[2..], &text[..2]].concat())]), Some(3));
    let next = [&frame(0x80, b"end")[..], &first].concat();
    assert_eq!(begun(&[(1, &first), (4, &next)]), Some(4));
}

#[test]
fn no_memory_is_held_for_a_declared_length() {
    let mut slot = None;
    let large = Bounds { message_max: 1 << 40, ..bounds(0) };
    let mut input = [&[0x82, 0xFF][..], &(1_u64 << 30).to_be_bytes(), &[0; 4], b"few"].concat();
    Reader::read(&mut slot, &mut input, large, |_| Flow::Continue).unwrap();
    let held = slot.unwrap().held_bytes();
    assert!((17..1024).contains(&held), "{held}");
}

#[test]
fn one_call_reads_so_many_frames_and_the_next_goes_on() {
    let mut slot = None;
    let mut input = frame(0x81, b"a").repeat(2 * FRAMES_MAX + 1);
    let mut seen = 0;
    let mut take = |slot: &mut Option<Box<Reader>>, input: &mut [u8]| {
        let has_more = Reader::read(slot, input, bounds(0), |_| {
            seen += 1;
            Flow::Continue
        });
        (has_more.unwrap(), seen)
    };
    assert_eq!(take(&mut slot, &mut input), (true, FRAMES_MAX));
    assert_eq!(take(&mut slot, &mut []), (true, 2 * FRAMES_MAX));
    assert_eq!(take(&mut slot, &mut []), (false, 2 * FRAMES_MAX + 1));
    assert!(slot.is_none());
    // As many as may be, and no more: that is all.
    let mut input = frame(0x81, b"a").repeat(FRAMES_MAX);
    assert!(!Reader::read(&mut slot, &mut input, bounds(0), |_| Flow::Continue).unwrap());
}
