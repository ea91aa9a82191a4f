//! Every chain verifies, also against the heads of it that all other devices countersigned, and no
//! device ever says that a chain was cut or forked.

use weft_core::{
    audit::{self, Signatures},
    witness,
};
use weft_protocol::{audit::AuditMessage, codec, witness::SignedHead};

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

    /// A node sends a frame about audit chains: its own head must be safe by then.
    pub(crate) fn sent(&self, host: &Host, time: u64, bytes: &[u8], failures: &mut Failures) {
        let Ok(AuditMessage::Head(signed)) = codec::decode(bytes, bytes.len()) else { return };
        let Ok(head) = SignedHead::open(signed) else { return };
        let head = *head.head();
        let safe = audit::head_at(head.position, host.disk.durable());
        if safe.is_ok_and(|safe| safe != Some(head)) {
            let (name, position) = (host.name, head.position);
            let what = format!("{name} shows record {position} at {time} µs before it is safe");
            failures.add("audit", what);
        }
    }

    /// At the end: what is safe on each disk.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        for host in hosts {
            let mut witnessed = Vec::new();
            for other in hosts {
                match witness::witnessed(host.id, other.disk.durable()) {
                    Ok(found) => {
                        witnessed.extend(found.heads.into_iter().map(|(_, head)| head));
                        for by in found.bogus {
                            let (name, at) = (host.name, other.name);
                            let what = format!("{at} holds what {by} never signed of {name}");
                            failures.add("audit", what);
                        }
                    }
                    Err(error) => failures.add("audit", error.to_string()),
                }
            }
            let verify = |signatures| {
                audit::verify(host.id, witnessed.clone(), host.disk.durable(), signatures)
            };
            let (quick, thorough) = (verify(Signatures::Checkpoints), verify(Signatures::Every));
            if quick != thorough {
                let what = format!("the chain of {}: {quick:?}, but {thorough:?}", host.name);
                failures.add("audit", what);
            }
            match thorough {
                Ok(checked) => {
                    for setback in checked.setbacks {
                        failures.add("audit", format!("the chain of {}: {setback}", host.name));
                    }
                }
                Err(fault) => failures.add("audit", format!("the chain of {}: {fault}", host.name)),
            }
        }
    }
}
