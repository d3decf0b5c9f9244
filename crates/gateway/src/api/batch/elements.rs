//! The elements of a JSON array, one after another, without a list of them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tickcast_protocol::ErrorCode;

use crate::api::problem::Problem;

/// Calls `take` with each element, as it is written, until it refuses one.
///
/// # Errors
/// The refusal of `take`, or what is wrong with the text. In both cases elements may have been taken already.
pub(super) fn for_each<F>(text: &str, take: &mut F) -> Result<(), Problem>
where
    F: FnMut(&str) -> Result<(), Problem>,
{
    let mut refusal = None;
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Elements { take, refusal: &mut refusal }.deserialize(&mut reader);
    let read = read.and_then(|()| reader.end());
    // A refusal ends the reading with an error of its own, so it comes first.
    match (refusal, read) {
        (Some(problem), _) => Err(problem),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => {
            let detail = format!("the body is not one JSON array: {error}");
            Err(Problem::new(ErrorCode::BadJson, detail))
        }
    }
}

struct Elements<'a, F> {
    take: &'a mut F,
    refusal: &'a mut Option<Problem>,
}

impl<'de, F> DeserializeSeed<'de> for Elements<'_, F>
where
    F: FnMut(&str) -> Result<(), Problem>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F> Visitor<'de> for Elements<'_, F>
where
    F: FnMut(&str) -> Result<(), Problem>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&RawValue>()? {
            if let Err(problem) = (self.take)(element.get()) {
                *self.refusal = Some(problem);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
