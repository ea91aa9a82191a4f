//! Every chain verifies, also against the heads of it that all other devices countersigned, and no
//! device ever says that a chain was cut or forked.

use weft_core::audit;
use weft_protocol::{
    audit::{AuditMessage, Head, RECORD_BYTES_MAX},
    codec,
    row::{Row, Rows as _, Table},
    signed::{Domain, Signed},
};

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
        let Ok(head) = signed.open::<Head>(Domain::Witness, RECORD_BYTES_MAX) else { return };
        let row = Row::numbered(Table::Audit, &[], head.position);
        let safe = host.disk.durable().get(&row).ok().flatten();
        let safe = safe.and_then(|bytes| codec::decode::<Signed>(&bytes, bytes.len()).ok());
        if safe.is_none_or(|safe| safe.digest() != head.digest) {
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
