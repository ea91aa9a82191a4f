//! What a component is linked with, and how much of the machine it gets.

use minicbor::{Decode, Encode};
use weft_protocol::{host_call::HostCall, manifest::Permissions};

/// The part of a manifest's permissions that its process needs to know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Grants {
    /// The interface `documents` is linked.
    #[n(0)]
    pub(crate) documents: bool,
    /// The interface `timers` is linked.
    #[n(1)]
    pub(crate) timers: bool,
    /// The interface `capabilities` is linked.
    #[n(2)]
    pub(crate) capabilities: bool,
    /// Guest memory, in MiB.
    #[n(3)]
    pub(crate) memory_mib: u32,
    /// Guest processor time for one step, in milliseconds.
    #[n(4)]
    pub(crate) processor_ms: u32,
}

impl Grants {
    pub(crate) fn new(permissions: &Permissions, calls_granted: bool) -> Self {
        let documents =
            !permissions.documents_read.is_empty() || !permissions.documents_write.is_empty();
        Self {
            documents,
            timers: permissions.timers,
            capabilities: calls_granted,
            memory_mib: permissions.memory_mib,
            processor_ms: permissions.processor_ms,
        }
    }
}

/// Whether the manifest names what a call needs, as far as the call shows it: a document named by its
/// id is the node's to look up.
pub(crate) fn permits(permissions: &Permissions, calls_granted: bool, call: &HostCall) -> bool {
    let reads = &permissions.documents_read;
    let writes = &permissions.documents_write;
    match call {
        HostCall::DocumentList { kind, .. } => reads.contains(kind),
        HostCall::DocumentRead { .. } => !reads.is_empty(),
        HostCall::DocumentCreate { kind, .. } => writes.contains(kind),
        HostCall::DocumentUpdate { .. } | HostCall::DocumentDelete { .. } => !writes.is_empty(),
        HostCall::TimerSet { .. } | HostCall::TimerList | HostCall::TimerCancel { .. } => {
            permissions.timers
        }
        HostCall::Invoke { .. } => calls_granted,
        HostCall::Log { .. } => true,
    }
}
