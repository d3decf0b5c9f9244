//! The payload of a publication: its planned send time, padded to the wished size.
//!
//! `{"at":1000000000123456789,"pad":"xxx…"}`. The time is the reading of the generator's clock for which the publication
//! was planned, not the one at which it left: a late generator or a slow server cannot hide a delay (coordinated omission).

use std::io::Write as _;

use crate::wire::leading_number;

/// Added to every time so that it always has 19 digits and all payloads of a run have one size.
const AT_BASE: u64 = 1_000_000_000_000_000_000;
const FRONT: &[u8] = b"{\"at\":";
const MIDDLE: &[u8] = b",\"pad\":\"";
const END: &[u8] = b"\"}";

/// Smallest payload, in bytes: the time with no padding.
pub const PAYLOAD_BYTES_MIN: usize = FRONT.len() + 19 + MIDDLE.len() + END.len();
/// Largest payload, in bytes: the gateway's default limit.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Makes payloads of one size.
#[derive(Debug, Clone)]
pub struct Payload {
    tail: Vec<u8>,
}

impl Payload {
    /// Payloads of `size` bytes, which is raised to [`PAYLOAD_BYTES_MIN`] if it is less.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let padding = vec![b'x'; size.saturating_sub(PAYLOAD_BYTES_MIN)];
        Self { tail: [MIDDLE, &padding, END].concat() }
    }

    /// The size of each payload, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        FRONT.len() + 19 + self.tail.len()
    }

    /// Appends the payload of a publication planned for `planned` nanoseconds of the generator's clock.
    pub fn append(&self, out: &mut Vec<u8>, planned: u64) {
        out.extend_from_slice(FRONT);
        // Writing to a vector cannot fail.
        drop(write!(out, "{}", AT_BASE.saturating_add(planned)));
        out.extend_from_slice(&self.tail);
    }
}

/// Reads the planned time from what [`publication_head`](crate::wire::publication_head) left over;
/// `None` if the data is not this generator's.
#[must_use]
pub fn planned_at(rest: &[u8]) -> Option<u64> {
    let (_, behind_time) = leading_number(rest.strip_prefix(b",\"time\":")?)?;
    let data = behind_time.strip_prefix(b",\"data\":")?.strip_prefix(FRONT)?;
    leading_number(data)?.0.checked_sub(AT_BASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_the_wished_size_and_carry_their_time() {
        for size in [PAYLOAD_BYTES_MIN, 128, 4096] {
            let payload = Payload::new(size);
            for planned in [0, 42, 86_400_000_000_000] {
                let mut frame_rest = b",\"time\":1795525552301,\"data\":".to_vec();
                let front = frame_rest.len();
                payload.append(&mut frame_rest, planned);
                assert_eq!((frame_rest.len() - front, payload.size()), (size, size));
                assert!(serde_json::from_slice::<serde_json::Value>(&frame_rest[front..]).is_ok());
                assert_eq!(planned_at(&frame_rest), Some(planned));
            }
        }
    }

    #[test]
    fn foreign_data_has_no_time() {
        for rest in
            [&b",\"time\":1,\"data\":{\"price\":1}}"[..], b",\"time\":1,\"data\":{\"at\":7}}", b""]
        {
            assert_eq!(planned_at(rest), None);
        }
    }
}
