//! What the network says of a dial, as the core keeps it.

use weft_core::contact::{Attempt, Ending};
use weft_net::DialFailure;

/// What was tried; empty where no address is known.
pub(super) fn attempts(failure: DialFailure) -> Vec<Attempt> {
    let DialFailure::Unreachable { attempts, why } = failure else { return Vec::new() };
    if attempts.is_empty() {
        return vec![Attempt { address: String::new(), ending: Ending::Other(why) }];
    }
    attempts.into_iter().map(attempt).collect()
}

fn attempt(it: weft_net::Attempt) -> Attempt {
    let ending = match it.ending {
        weft_net::Ending::Refused => Ending::Refused,
        weft_net::Ending::NoAnswer => Ending::NoAnswer,
        weft_net::Ending::NoRoute => Ending::NoRoute,
        weft_net::Ending::OtherDevice => Ending::OtherDevice,
        weft_net::Ending::Other(words) => Ending::Other(words),
    };
    Attempt { address: it.address, ending }
}
