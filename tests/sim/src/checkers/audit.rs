//! Every chain verifies, also against the heads of it that all other devices countersigned, and no
//! device ever says that a chain was cut or forked.

use weft_core::{
    audit::{self, Lineage, Signatures},
    witness,
};
use weft_protocol::{audit::AuditMessage, codec, id::DeviceId, witness::SignedHead};

use crate::{host::Host, world::Failures};

/// The checker.
#[derive(Debug)]
pub(crate) struct Audit;

impl Audit {
    /// A node warns.
    pub(crate) fn warned(&self, name: &str, time: u64, text: &str, failures: &mut Failures) {
        let grave = ["set back", "forked", "another machine"];
        if grave.iter().any(|words| text.contains(words)) {
            failures.add("audit", format!("{name} warns at {time} µs: {text}"));
        }
    }

    /// A node sends a frame about audit chains: its own head must be safe by then.
    pub(crate) fn sent(&self, host: &Host, time: u64, bytes: &[u8], failures: &mut Failures) {
        let Ok(AuditMessage::Head(signed)) = codec::decode(bytes, bytes.len()) else { return };
        let Ok(head) = SignedHead::open(signed) else { return };
        let head = *head.head();
        let lineage = host.lineage();
        let rows = lineage.records(&head.device, head.position, 1, host.disk.durable());
        let safe = rows.ok().and_then(|rows| rows.into_iter().next());
        let safe = safe.and_then(|(position, bytes)| audit::read(position, &bytes).ok());
        if safe.is_none_or(|(signed, _)| signed.digest() != head.digest) {
            let (name, position) = (host.name, head.position);
            let what = format!("{name} shows record {position} at {time} µs before it is safe");
            failures.add("audit", what);
        }
    }

    /// At the end: what is safe on each disk.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        for host in hosts.iter().filter(|host| host.joined) {
            let mut bogus = Vec::new();
            for other in hosts {
                for key in host.keys() {
                    match witness::witnessed(key, other.disk.durable()) {
                        Ok(found) => bogus.extend(found.bogus.iter().map(|by| (other.name, *by))),
                        Err(error) => failures.add("audit", error.to_string()),
                    }
                }
            }
            for (at, by) in bogus {
                let what = format!("{at} holds what {by} never signed of {}", host.name);
                failures.add("audit", what);
            }
            let heads = |key: &DeviceId| {
                let mut heads = Vec::new();
                for other in hosts {
                    let found = witness::witnessed(*key, other.disk.durable())?;
                    heads.extend(found.heads.into_iter().map(|(_, head)| head));
                }
                Ok(heads)
            };
            let lineage = begun(host);
            let verify = |signatures| lineage.verify(heads, host.disk.durable(), signatures);
            let (quick, thorough) = (verify(Signatures::Checkpoints), verify(Signatures::Every));
            if quick.as_ref().ok() != thorough.as_ref().ok() {
                let what = format!("the chains of {}: {quick:?}, but {thorough:?}", host.name);
                failures.add("audit", what);
            }
            match thorough {
                Ok(found) => {
                    for found in found {
                        let setbacks = found.result.map(|checked| checked.setbacks);
                        let wrong = match setbacks {
                            Ok(setbacks) => setbacks.iter().map(ToString::to_string).collect(),
                            Err(fault) => vec![fault.to_string()],
                        };
                        for what in wrong {
                            failures.add("audit", format!("the chain of {}: {what}", host.name));
                        }
                    }
                }
                Err(error) => failures.add("audit", format!("the chain of {}: {error}", host.name)),
            }
        }
    }
}

/// The keys that a machine's chains are under. One that was stolen after another key took the place of its own, and
/// before it started under that, never begins a chain under it.
fn begun(host: &Host) -> Lineage {
    let lineage = host.lineage();
    match &host.former[..] {
        [last, former @ ..]
            if host.stolen
                && lineage
                    .records(&host.id, 0, 1, host.disk.durable())
                    .is_ok_and(|it| it.is_empty()) =>
        {
            Lineage::new(*last, former)
        }
        _ => lineage,
    }
}
