//! What the network says of a dial, as the core keeps it.

use weft_net::DialFailure;
use weft_protocol::attempt::{Attempt, Ending};

/// What was tried; empty where no address is known.
pub(super) fn attempts(failure: DialFailure) -> Vec<Attempt> {
    let DialFailure::Unreachable { attempts, why } = failure else { return Vec::new() };
    if attempts.is_empty() {
        return vec![Attempt { address: String::new(), ending: Ending::Other(why) }];
    }
    attempts
}
