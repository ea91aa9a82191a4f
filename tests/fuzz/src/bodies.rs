//! The bodies, by the message, text or file that each takes from outside.

use std::{str::from_utf8, sync::OnceLock};

use weft_api::Request;
use weft_core::{
    audit::{Signatures, Verifier},
    document::{Change, Document},
    presence::PresenceTable,
};
use weft_engine::Rules;
use weft_intent::{Catalog, Context, DeviceName};
use weft_protocol::{
    audit::{AuditMessage, Record},
    codec::{DEPTH_MAX, check, decode, encode},
    decision::{Decision, Policy as _, Question},
    device::Kind,
    document::{DocumentKind, StartNonce, Tombstone, VOUCH_BYTES_MAX, Vouch},
    frame::{FRAME_BYTES_MAX, Hello},
    graph::Plan,
    host_call::{HOST_CALL_BYTES_MAX, HostCall},
    id::{ActorId, BootId, DeviceId, Digest, RunId},
    manifest::{CapabilityName, Manifest},
    pairing::PairingMessage,
    presence::{Presence, PresenceMessage},
    run::{Executed, Offer, RunMessage},
    signed::{Domain, Signed},
    statement::{Name, STATEMENT_BYTES_MAX, Statement, StatementBody, TrustMessage},
    sync::{ASSEMBLED_BYTES_MAX, SyncMessage},
    ticket::{TICKET_CHARS_MAX, Ticket, TicketAddress},
    value::Value,
    witness::Fork,
};
use weft_trust::{
    exchange::{self, Exchange},
    pairing::Code,
};

use crate::{
    Body,
    corpus::{self, NOW, graph, secret},
};

/// All of them.
pub const BODIES: &[Body] = &[
    Body { name: "codec", run: codec, corpus: codec_corpus, executions: 180_000 },
    Body {
        name: "statement",
        run: statement,
        corpus: corpus::signed_statements,
        executions: 24_000,
    },
    Body {
        name: "statement of a member",
        run: statement_of_a_member,
        corpus: corpus::statements,
        executions: 12_000,
    },
    Body { name: "trust", run: trust, corpus: corpus::trust, executions: 12_000 },
    Body { name: "presence", run: presence, corpus: corpus::presence, executions: 48_000 },
    Body { name: "sync", run: sync, corpus: corpus::sync, executions: 48_000 },
    Body { name: "run", run, corpus: corpus::run, executions: 120_000 },
    Body { name: "audit", run: audit, corpus: corpus::audit, executions: 60_000 },
    Body { name: "record", run: record, corpus: corpus::records, executions: 48_000 },
    Body { name: "pairing", run: pairing, corpus: corpus::pairing, executions: 60_000 },
    Body { name: "vouch", run: vouch, corpus: corpus::vouches, executions: 48_000 },
    Body { name: "change", run: change, corpus: corpus::changes, executions: 24_000 },
    Body { name: "document", run: document, corpus: corpus::documents, executions: 12_000 },
    Body { name: "plan", run: plan, corpus: corpus::plans, executions: 120_000 },
    Body { name: "question", run: question, corpus: corpus::questions, executions: 18_000 },
    Body { name: "host call", run: host_call, corpus: corpus::host_calls, executions: 120_000 },
    Body { name: "ticket", run: ticket, corpus: corpus::tickets, executions: 120_000 },
    Body { name: "manifest", run: manifest, corpus: corpus::manifests, executions: 12_000 },
    Body { name: "request", run: request, corpus: corpus::requests, executions: 120_000 },
    Body { name: "words", run: words, corpus: corpus::words, executions: 9_000 },
    Body { name: "text", run: text, corpus: corpus::texts, executions: 120_000 },
];

fn codec_corpus() -> Vec<Vec<u8>> {
    [corpus::run(), corpus::audit(), corpus::sync(), vec![vec![0x81; DEPTH_MAX]]].concat()
}

/// What the codec takes it writes again byte for byte, where nothing is unknown in it.
fn codec(bytes: &[u8]) {
    if check(bytes).is_err() {
        return;
    }
    if let Ok(value) = decode::<Value>(bytes, FRAME_BYTES_MAX) {
        assert_eq!(encode(&value), bytes, "one value has one encoding");
    }
    drop(decode::<Hello>(bytes, 256));
    drop(decode::<Executed>(bytes, FRAME_BYTES_MAX));
    drop(decode::<Tombstone>(bytes, FRAME_BYTES_MAX));
}

/// From anybody.
fn statement(bytes: &[u8]) {
    let Ok(signed) = decode::<Signed>(bytes, 2 * STATEMENT_BYTES_MAX) else { return };
    drop(signed.open::<Statement>(Domain::Statement, STATEMENT_BYTES_MAX));
    let mut graph = graph().clone();
    // What it holds already changes nothing; what is forged does not enter.
    drop(graph.insert(signed));
}

/// Well signed, whatever it says.
fn statement_of_a_member(bytes: &[u8]) {
    if let Ok(statement) = decode::<Statement>(bytes, STATEMENT_BYTES_MAX) {
        drop(StatementBody::decode(statement.kind, &statement.body));
    }
    for seed in [1, 2, 9] {
        let signed = Signed::from_bytes(Domain::Statement, bytes.to_vec(), secret(seed).signing());
        let mut graph = graph().clone();
        if graph.insert(signed).is_ok() {
            drop(graph.state().clone());
        }
    }
}

/// To a device that knows the peer, and to one that does not, whoever dialled.
fn trust(bytes: &[u8]) {
    let Ok(message) = decode::<TrustMessage>(bytes, FRAME_BYTES_MAX) else { return };
    for peer in corpus::peers() {
        for dialled in [false, true] {
            let mut graph = graph().clone();
            let mut exchange = Exchange::new(secret(1).id(), peer, dialled, &graph, NOW);
            for _ in 0..2 {
                exchange.handle_input(exchange::Input::Message(message.clone()), &graph, NOW);
                while let Some(output) = exchange.poll_output() {
                    if let exchange::Output::Learned(statements) = output {
                        for statement in statements {
                            drop(graph.insert(statement));
                        }
                        exchange.handle_input(exchange::Input::Changed, &graph, NOW);
                    }
                }
            }
        }
    }
}

fn presence(bytes: &[u8]) {
    let sender = secret(2).id();
    let mut table =
        PresenceTable::new(secret(1).signing().clone(), BootId { counter: 1, random: 2 });
    if let Ok(message) = decode::<PresenceMessage>(bytes, FRAME_BYTES_MAX) {
        drop(table.learn(&sender, message, |_| true, NOW.mono));
    }
    if let Ok(presence) = decode::<Presence>(bytes, FRAME_BYTES_MAX) {
        let signed = Signed::new(Domain::Presence, &presence, secret(2).signing());
        let records = PresenceMessage::of_now(signed);
        drop(table.learn(&sender, records, |_| true, NOW.mono));
    }
}

fn sync(bytes: &[u8]) {
    let Ok(message) = SyncMessage::decode(bytes) else { return };
    drop(message.encode());
    if let SyncMessage::Documents(documents) = message {
        for document in documents {
            let mut budget = ASSEMBLED_BYTES_MAX;
            for chunk in document.changes {
                drop(Change::parse(&chunk.0, &mut budget));
            }
        }
    }
}

fn run(bytes: &[u8]) {
    drop(decode::<RunMessage>(bytes, FRAME_BYTES_MAX));
    drop(decode::<Offer>(bytes, FRAME_BYTES_MAX));
}

fn audit(bytes: &[u8]) {
    drop(decode::<AuditMessage>(bytes, FRAME_BYTES_MAX));
    drop(Fork::decode(bytes));
}

/// In the place of each record of a chain, as it lies on a disk that was tampered with, and well signed.
fn record(bytes: &[u8]) {
    static RECORDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let records = RECORDS.get_or_init(corpus::records);
    let signed = Signed::from_bytes(Domain::Audit, bytes.to_vec(), secret(1).signing());
    drop(decode::<Record>(bytes, FRAME_BYTES_MAX));
    for tampered in [bytes.to_vec(), encode(&signed)] {
        let mut verifier = Verifier::new(secret(1).id(), Vec::new(), Signatures::Every);
        for (position, record) in records.iter().enumerate() {
            let record = if position == 2 { &tampered } else { record };
            if verifier.record(position as u64, record).is_err() {
                break;
            }
        }
        drop(verifier.finish());
    }
}

fn pairing(bytes: &[u8]) {
    drop(decode::<PairingMessage>(bytes, FRAME_BYTES_MAX));
}

fn vouch(bytes: &[u8]) {
    let Ok(vouch) = decode::<Vouch>(bytes, VOUCH_BYTES_MAX) else { return };
    let signed = Signed::new(Domain::Vouch, &vouch, secret(1).signing());
    let adopted = vouch.adopted(&signed);
    drop((vouch.original(), adopted.original(), vouch.actor()));
}

fn actor() -> ActorId {
    ActorId::of(&secret(2).id(), &StartNonce([5; 16]))
}

/// Onto a document that it belongs to.
fn change(bytes: &[u8]) {
    let Ok(change) = Change::parse(bytes, &mut ASSEMBLED_BYTES_MAX.clone()) else { return };
    let (mut document, _) = corpus::document();
    drop(document.apply(vec![change]));
    drop((document.content(), document.newest(), document.clock(), document.heads()));
}

/// As it lies on a disk.
fn document(bytes: &[u8]) {
    let Ok(document) = Document::load(&corpus::kind(), actor(), Some(bytes), Vec::new()) else {
        return;
    };
    drop((document.content(), document.newest(), document.clock()));
    drop(document.change(&corpus::hash()));
}

fn plan(bytes: &[u8]) {
    let Ok(plan) = decode::<Plan>(bytes, FRAME_BYTES_MAX) else { return };
    drop(plan.steps.iter().map(|step| step.dependencies()).collect::<Vec<_>>());
    drop(Plan::new(plan.route, plan.steps));
}

fn question(bytes: &[u8]) {
    static RULES: OnceLock<Rules> = OnceLock::new();
    drop(decode::<Decision>(bytes, FRAME_BYTES_MAX));
    let Ok(question) = decode::<Question>(bytes, FRAME_BYTES_MAX) else { return };
    let rules = RULES.get_or_init(|| Rules::embedded().expect("they compile"));
    drop(rules.decide(&question));
}

fn host_call(bytes: &[u8]) {
    drop(decode::<HostCall>(bytes, HOST_CALL_BYTES_MAX));
}

fn ticket(bytes: &[u8]) {
    // What is behind the checksum, which changed text seldom gets past.
    if let Ok(ticket) = decode::<Ticket>(bytes, TICKET_CHARS_MAX) {
        drop(ticket.to_string());
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse().ok(), Some(ticket), "it is written as it was read");
    }
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(&String::from_utf8_lossy(bytes)) else { return };
    drop(Catalog::new(&[manifest]));
}

fn request(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    drop(Request::try_from(&value));
}

fn words(bytes: &[u8]) {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    let catalog = CATALOG.get_or_init(|| {
        let manifests: Vec<Manifest> = corpus::manifests()
            .iter()
            .map(|text| Manifest::parse(from_utf8(text).expect("text")).expect("a manifest"))
            .collect();
        Catalog::new(&manifests).0
    });
    let context = Context {
        now: jiff::civil::date(2026, 2, 28).at(23, 59, 59, 0),
        devices: vec![DeviceName { name: "server".into(), kind: Kind::Server }],
        here: "laptop".into(),
    };
    drop(catalog.parse(&String::from_utf8_lossy(bytes), &context));
}

fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    drop((text.parse::<Name>(), text.parse::<DocumentKind>(), text.parse::<CapabilityName>()));
    drop((text.parse::<DeviceId>(), text.parse::<Digest>(), text.parse::<RunId>()));
    drop((text.parse::<TicketAddress>(), text.parse::<Code>()));
}
