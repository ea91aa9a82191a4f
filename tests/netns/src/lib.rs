//! A local network in a box, for tests of whole nodes: namespaces of the kernel, each with one
//! interface on a bridge that lies in a namespace of its own.
//!
//! [`Lan`] makes the network and takes it away again, also when a test panics. [`Device`] is one
//! machine on it: a namespace, a home, and the real program in it, typed at as a person would and
//! run as a node. A test walks so: make a LAN, plug devices in, `init`, `up`, invite and join, then
//! pull a cable, change addresses or kill a node, and ask [`until`] something holds, or have a
//! [`Watch`] say in which order the node noticed, and when.
//!
//! Nothing of it touches the network of the machine: no interface leaves the namespaces, there is
//! no route out of them and no IPv6. It needs root and `ip` (iproute2); where namespaces can't be
//! made, [`Lan::new`] says why and the tests say NOT RUN. Not here: routers, NAT and lossy links.

mod device;
mod lan;
mod process;
mod watch;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub use crate::{
    device::Device,
    lan::{Lan, Plug},
    watch::Watch,
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
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let answer = holds();
        let took = start.elapsed();
        if let Ok(true) = answer {
            eprintln!("  {what}: after {:.2} s", took.as_secs_f64());
            return Ok(took);
        }
        if took >= within {
            let last = answer.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("not within {} s: {what}{last}", within.as_secs());
        }
        thread::sleep(ASK_EVERY);
    }
}
