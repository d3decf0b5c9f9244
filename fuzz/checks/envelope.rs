//! What comes from Redis, which others may write to: envelopes, elements of histories, comparisons, channels.

use tickcast_broker::redis::fuzzing::{
    Element, Own, read_channel, read_element, read_envelope, read_own, read_record, write_record,
};
use tickcast_protocol::{Position, Topic};

/// The scripts count in double precision.
const OFFSET_MAX: u64 = 1 << 53;

pub(crate) fn check(input: &[u8]) {
    let Ok(topic) = Topic::new("stocks.AAPL") else { return };
    check_envelope(input, &topic);
    check_record(input);
    check_element(input);
    check_own(input);
    check_channel(input);
}

/// What is whole says itself where it ends: it can be written again, and no shorter text is whole too.
fn check_envelope(bytes: &[u8], topic: &Topic) {
    let Some(run) = read_envelope(bytes, topic) else { return };
    assert!(!run.is_whole || !run.publications.is_empty());
    let Some(first) = run.publications.first() else { return };
    let Position { epoch, offset } = first.position();
    assert!(offset < OFFSET_MAX);
    let mut written = format!("1{epoch} {offset}\n").into_bytes();
    for (publication, place) in run.publications.iter().zip(offset..) {
        assert_eq!(publication.position(), Position { epoch, offset: place });
        assert!(publication.data().len() < bytes.len());
        assert!(write_record(publication.time_ms(), publication.data(), &mut written).is_ok());
    }
    // Leading zeros in numbers are all that is lost.
    assert!(!run.is_whole || written.len() <= bytes.len());
    let again = read_envelope(&written, topic);
    assert!(again.is_some_and(|again| {
        let frames = |run: &[std::sync::Arc<tickcast_protocol::Publication>]| {
            run.iter().map(|publication| publication.frame().to_vec()).collect::<Vec<_>>()
        };
        again.is_whole && frames(&again.publications) == frames(&run.publications)
    }));
    let short = read_envelope(&written[..written.len() - 1], topic);
    // Without the last byte the last record is cut short, unless it was all of the header that had one.
    assert!(short.is_none_or(|short| !short.is_whole));
    written.push(b'?');
    assert!(read_envelope(&written, topic).is_some_and(|long| !long.is_whole));
}

fn check_record(bytes: &[u8]) {
    let Some((time_ms, data)) = read_record(bytes) else { return };
    assert!(bytes.ends_with(data));
    let mut written = Vec::new();
    assert!(write_record(time_ms, data, &mut written).is_ok());
    assert_eq!(read_record(&written), Some((time_ms, data)));
}

fn check_element(bytes: &[u8]) {
    let Some(element) = read_element(bytes) else { return };
    let Element { offset, at, age_max, record: (time_ms, data) } = element;
    let header = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    assert_eq!(header.split(|byte| *byte == b' ').count(), 4);
    let (seconds, micros) = (at.as_secs(), at.subsec_micros());
    let mut written = format!("{offset} {seconds} {micros} {}\n", age_max.as_millis()).into_bytes();
    assert!(write_record(time_ms, data, &mut written).is_ok());
    assert_eq!(read_element(&written).as_ref(), Some(&element));
}

fn check_own(bytes: &[u8]) {
    let written = match read_own(bytes) {
        None => return,
        Some(Own::Probe(number)) => {
            let number = number.to_string();
            let mut written = b"10 0\n".to_vec();
            assert!(write_record(0, number.as_bytes(), &mut written).is_ok());
            written
        }
        Some(Own::Comparison(number, lines)) => {
            // A line that cannot be read must not hide the others.
            assert!(lines.len() <= bytes.len());
            let lines = lines.iter().map(|line| match line {
                Some((topic, Position { epoch, offset })) => format!("\n{topic} {epoch} {offset}"),
                None => "\n?".to_owned(),
            });
            format!("C{number}{}", lines.collect::<String>()).into_bytes()
        }
    };
    assert_eq!(read_own(&written), read_own(bytes));
}

/// Each topic has one channel, and each channel one topic: no bytes may pass for the channel of another topic.
fn check_channel(bytes: &[u8]) {
    let Some((topic, channel)) = read_channel(bytes) else { return };
    let again = read_channel(channel.as_bytes());
    assert_eq!(again, Some((topic, channel)));
}
