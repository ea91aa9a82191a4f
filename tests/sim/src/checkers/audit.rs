//! Every chain verifies, also against the heads of it that all other devices countersigned, and no
//! device ever says that a chain was cut or forked.

use weft_core::audit;

use crate::{host::Host, world::Failures};

/// The checker.
#[derive(Debug)]
pub(crate) struct Audit;

impl Audit {
    /// A node warns.
    pub(crate) fn warned(&self, name: &str, time: u64, text: &str, failures: &mut Failures) {
        if text.contains("set back") || text.contains("forked") {
            failures.add("audit", format!("{name} warns at {time} µs: {text}"));
        }
    }

    /// At the end: what is safe on each disk.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        for host in hosts {
            let mut witnessed = Vec::new();
            for other in hosts {
                match audit::witnessed(host.id, other.disk.durable()) {
                    Ok(heads) => witnessed.extend(heads.into_iter().map(|(_, head)| head)),
                    Err(error) => failures.add("audit", error.to_string()),
                }
            }
            if let Err(fault) = audit::verify(host.id, witnessed, host.disk.durable()) {
                failures.add("audit", format!("the chain of {}: {fault}", host.name));
            }
        }
    }
}
