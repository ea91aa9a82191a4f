//! All devices that belong hold the same statements and the same documents, by hash and by value, also
//! while it is open whether some device belongs.

use weft_core::Node;
use weft_protocol::{document::DocumentKind, id::DocumentId, value::Value};

use crate::{host::Host, world::Failures};

/// The checker.
#[derive(Debug)]
pub(crate) struct Replicas;

/// The kinds of documents in this world.
fn kinds() -> Vec<DocumentKind> {
    let own = "ledger".parse().expect("it is a kind of document");
    vec![DocumentKind::NOTE, DocumentKind::TIMER, DocumentKind::RUN, own]
}

/// All documents by value.
pub(crate) fn content(host: &Host, node: &Node) -> Vec<Document> {
    let rows = host.disk.visible();
    let mut all = Vec::new();
    for kind in kinds() {
        for listed in node.replica().list(&kind, "", usize::MAX, rows) {
            all.push((listed.id, kind.clone(), listed.content));
        }
    }
    let fabric = node.membership().fabric();
    for kind in DocumentKind::SINGLETONS {
        let id = DocumentId::singleton(&fabric, &kind);
        if let Ok(Some(value)) = node.replica().read(&id, rows) {
            all.push((id, kind, value));
        }
    }
    all.sort_by_key(|(id, _, _)| *id);
    all
}

/// The machines that belong to the fabric, with their nodes.
pub(crate) fn active(hosts: &[Host]) -> impl Iterator<Item = (&Host, &Node)> {
    hosts.iter().filter(|host| host.belongs()).filter_map(|host| Some((host, host.node.as_ref()?)))
}

impl Replicas {
    /// Whether all have come to the same, by hash.
    pub(crate) fn are_equal(&self, hosts: &[Host]) -> bool {
        let mut states = active(hosts).map(|(_, node)| {
            (node.membership().graph().set_digest(), node.replica().fingerprint())
        });
        let Some(first) = states.next() else { return true };
        states.all(|state| state == first)
    }

    /// At the end.
    pub(crate) fn finish(&self, hosts: &[Host], failures: &mut Failures) {
        Self::know_of_each_other(hosts, failures);
        let mut nodes = active(hosts);
        let Some((host, node)) = nodes.next() else { return };
        let expected = content(host, node);
        for (other, peer) in nodes {
            let (one, two) = (host.name, other.name);
            if node.membership().graph().set_digest() != peer.membership().graph().set_digest() {
                failures.add("replicas", format!("{one} and {two} hold different statements"));
            }
            let found = content(other, peer);
            let same_hash = node.replica().fingerprint() == peer.replica().fingerprint();
            if found == expected && same_hash {
                continue;
            }
            let differ: Vec<String> = difference(&expected, &found)
                .into_iter()
                .take(5)
                .map(|(id, kind)| format!("{kind} {}", id.short()))
                .collect();
            failures.add(
                "replicas",
                format!(
                    "{one} has {} documents, {two} {}; hashes {}; they differ in {}",
                    expected.len(),
                    found.len(),
                    if same_hash { "equal" } else { "differ" },
                    differ.join(", "),
                ),
            );
        }
    }

    /// Two devices that are connected not only have the same, they know it: otherwise something was
    /// lost between them, and the others only covered it up. Of two machines with one key each device is
    /// connected with the one or the other, by turns.
    fn know_of_each_other(hosts: &[Host], failures: &mut Failures) {
        let is_one = |id| active(hosts).filter(|(host, _)| host.id == id).count() == 1;
        for (host, node) in active(hosts) {
            for (other, peer) in active(hosts) {
                let parked = node.replica().counts().parked + peer.replica().counts().parked;
                if parked > 0 || ![host.id, other.id].into_iter().all(is_one) || host.id == other.id
                {
                    continue;
                }
                let documents = content(host, node);
                let open: Vec<String> = documents
                    .iter()
                    .filter(|(id, _, _)| !node.replica().has_latest(&other.id, id))
                    .map(|(id, kind, _)| format!("{kind} {}", id.short()))
                    .collect();
                if !open.is_empty() {
                    let (one, two, open) = (host.name, other.name, open.join(", "));
                    let what = format!("{one} does not know that {two} has the same of {open}");
                    failures.add("replicas", what);
                }
            }
        }
    }
}

type Document = (DocumentId, DocumentKind, Value);

fn difference<'a>(one: &'a [Document], two: &'a [Document]) -> Vec<(&'a DocumentId, &'a str)> {
    let only = |these: &'a [Document], those: &'a [Document]| {
        let lacking = move |it: &&Document| !those.contains(it);
        these.iter().filter(lacking).map(|(id, kind, _)| (id, kind.as_str()))
    };
    only(one, two).chain(only(two, one)).collect()
}
