//! Waiting for what must come true.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that needs no model. Found on two cores that compile beside the tests,
/// where a component's first use takes 20 s; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until `is_so`, and gives what was seen then.
///
/// # Panics
///
/// When it is not so within [`PATIENCE`], with `what` and what was seen last.
#[track_caller]
pub fn until<T: Debug>(what: &str, look: impl FnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    until_within(PATIENCE, what, look, is_so)
}

/// As [`until`], with another patience.
///
/// # Panics
///
/// As [`until`].
#[track_caller]
pub fn until_within<T: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> T,
    is_so: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        let seen = look();
        if is_so(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}; seen last: {seen:#?}");
        thread::sleep(LOOK_EVERY);
    }
}
