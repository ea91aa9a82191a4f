//! Networks in a box, for tests of whole nodes: namespaces of the kernel, cables between them, and
//! routers.
//!
//! A [`Lan`] is a switch with places plugged into it, which nothing leads out of. An [`Internet`] has
//! hosts with public addresses and homes behind a [`Router`], whose kind of address translation
//! ([`Nat`]) is chosen, and which may map ports for its devices ([`Gateway`]); each cable has its
//! [`Weather`], and a [`Counter`] says what passed. All of it is
//! taken away again, also when a test panics, and by the next test where one was killed. [`Device`] is
//! one machine: a namespace, a home, and the real program in it, typed at as a person would and run as a
//! node; [`Home`] is a fabric of three. A test walks so: make a network, plug devices in, pair them, then
//! pull a cable, change addresses, move a device or kill a node, and ask [`until`] something holds, or
//! have a [`Watch`] say in which order the node noticed, and when.
//!
//! Nothing of it touches the network of the machine: no interface leaves the namespaces, and there is no
//! route out of them. It needs root, `ip` (iproute2), and for all but a [`Lan`] `nft` (nftables); where
//! they are missing, the tests say NOT RUN and why. Not here: delay, since that takes netem, which a
//! kernel need not have.

mod counter;
mod device;
mod gateway;
mod home;
mod internet;
mod lan;
mod plug;
mod process;
mod router;
mod space;
mod tally;
mod watch;
mod weather;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

pub use crate::{
    counter::{Counted, Counter},
    device::{Device, Keyboard},
    gateway::{Gateway, Mapping},
    home::{Home, SOON},
    internet::Internet,
    lan::Lan,
    plug::{Outlet, Plug},
    process::Ended,
    router::{EXPOSED, Nat, Router},
    tally::Tally,
    watch::Watch,
    weather::Weather,
};

/// How often a question is asked again.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Asks until `holds` says so, and tells on standard error how long that took. Any answer but
/// `Ok(true)` is asked again.
///
/// # Errors
///
/// It did not hold within the time; says the last answer.
pub fn until(
    what: &str,
    within: Duration,
    holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let took = until_quietly(within, holds).with_context(|| format!("it never held: {what}"))?;
    eprintln!("  {what}: after {:.2} s", took.as_secs_f64());
    Ok(took)
}

/// As [`until`], without a word.
///
/// # Errors
///
/// As [`until`].
pub fn until_quietly(
    within: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let answer = holds();
        let took = start.elapsed();
        if let Ok(true) = answer {
            return Ok(took);
        }
        if took >= within {
            let last = answer.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("not within {} s{last}", within.as_secs());
        }
        thread::sleep(ASK_EVERY);
    }
}
