//! Each body, for a fixed number of inputs of a fixed seed.

use std::{collections::BTreeSet, fmt::Write as _};

use weft_fuzz::{BODIES, Body, corpus::REGRESSIONS};

/// `WEFT_FUZZ_SEED` names another.
fn seed() -> u64 {
    let named = std::env::var("WEFT_FUZZ_SEED").ok();
    named.map_or(0, |seed| seed.parse().expect("WEFT_FUZZ_SEED is a number"))
}

#[test]
fn no_input_makes_a_decoder_panic() {
    let (mut said, mut total, mut failed) = (String::new(), 0, Vec::new());
    for body in BODIES {
        match body.fuzz(seed()) {
            Ok(count) => {
                total += count;
                writeln!(said, "{count:>7}  {}", body.name).expect("a String takes all");
            }
            Err(panicked) => failed.push(format!(
                "{}: {}\n  on {}",
                body.name,
                panicked.why,
                panicked.input.iter().fold(String::new(), |mut hex, byte| {
                    write!(hex, "{byte:02x}").expect("a String takes all");
                    hex
                })
            )),
        }
    }
    println!("{said}{total:>7}  inputs in all, {} panics", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_panic_is_found_and_given_with_its_input() {
    let corpus = || vec![b"weft".to_vec()];
    fn is_bad(bytes: &[u8]) -> bool {
        bytes.windows(2).any(|pair| pair == [b'f', 0xff])
    }
    let run = |bytes: &[u8]| assert!(!is_bad(bytes), "planted");
    let planted = Body { name: "planted", run, corpus, executions: 1_000_000 };
    let panicked = planted.fuzz(0).expect_err("a changed input ends so");
    assert!(is_bad(&panicked.input) && panicked.why.contains("planted"), "{panicked:?}");
}

#[test]
fn what_failed_once_is_about_a_body_that_there_is() {
    let names: BTreeSet<&str> = BODIES.iter().map(|body| body.name).collect();
    assert_eq!(names.len(), BODIES.len(), "two bodies have one name");
    for (body, what, _) in REGRESSIONS {
        assert!(names.contains(body), "{what} is about {body}, which is none");
    }
}
