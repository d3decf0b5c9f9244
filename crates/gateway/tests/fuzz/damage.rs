//! Inputs of the corpus, damaged: what libFuzzer does, without its feedback, but on every machine and with a seed.

use std::fs;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{TestRng, TestRunner};

use crate::{Check, corpus, root};

/// Damaged inputs of each target.
const CASES: u32 = 50_000;

/// One change of an input.
#[derive(Debug, Clone)]
enum Change {
    /// A byte becomes another.
    Byte(Index, u8),
    /// A part goes.
    Cut(Index, Index),
    /// A part comes twice.
    Repeat(Index, Index),
    /// A piece is put in: of the dictionary, or the end of another input.
    Insert(Index, Vec<u8>),
}

impl Change {
    fn apply(&self, input: &mut Vec<u8>) {
        let length = input.len();
        let range = |from: &Index, to: &Index| {
            let (from, to) = (from.index(length + 1), to.index(length + 1));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Byte(_, _) if length == 0 => {}
            Self::Byte(at, byte) => input[at.index(length)] = *byte,
            Self::Cut(from, to) => drop(input.drain(range(from, to))),
            Self::Repeat(from, to) => input.extend_from_within(range(from, to)),
            Self::Insert(at, piece) => {
                let at = at.index(length + 1);
                input.splice(at..at, piece.iter().copied());
            }
        }
    }
}

fn damaged(inputs: Vec<Vec<u8>>, pieces: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let place = any::<Index>;
    let tail = (select(inputs.clone()), place())
        .prop_map(|(input, at)| input[at.index(input.len() + 1)..].to_vec());
    let piece = prop_oneof![3 => select(pieces), 1 => tail];
    let change = prop_oneof![
        3 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        2 => (place(), place()).prop_map(|(from, to)| Change::Cut(from, to)),
        1 => (place(), place()).prop_map(|(from, to)| Change::Repeat(from, to)),
        3 => (place(), piece).prop_map(|(at, piece)| Change::Insert(at, piece)),
    ];
    (select(inputs), prop::collection::vec(change, 0..8)).prop_map(|(mut input, changes)| {
        changes.iter().for_each(|change| change.apply(&mut input));
        input
    })
}

/// The words of a dictionary of libFuzzer: one in quotes per line, with `\xNN` for what cannot be shown.
fn dictionary(target: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(root().join("fuzz/dictionaries").join(target)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.map(|line| {
        let quoted = line.strip_prefix('"').and_then(|line| line.strip_suffix('"')).unwrap();
        let mut parts = quoted.split("\\x");
        let mut word = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            let (digits, rest) = part.split_at(2);
            word.push(u8::from_str_radix(digits, 16).unwrap());
            word.extend(rest.bytes());
        }
        word
    });
    words.collect()
}

fn run(target: &str, check: Check) {
    let inputs = corpus(target).into_values().collect();
    // The same inputs on every run; what finds new ones is libFuzzer.
    let config =
        ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&damaged(inputs, dictionary(target)), |input| {
        check(&input);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

macro_rules! damaged {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            run(stringify!($target), crate::$target::check);
        }
    )*};
}

damaged! { commands cursors envelope frames http proxy }
