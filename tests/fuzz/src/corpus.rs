//! Inputs: valid ones, made by what writes them, and hostile ones.

use std::{collections::BTreeSet, sync::OnceLock};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_core::{
    audit::Chain,
    document::{Change, Document},
    presence::{Own, PresenceTable},
};
use weft_protocol::{
    audit::{AuditMessage, Body, Ending, Touched},
    codec::encode,
    decision::{Actor, CallSubject, Decision, Effect, Point, Question, Subject},
    device::{Kind, Role},
    document::{ChangeHash, DocumentKey, DocumentKind, StartNonce, Vouch},
    graph::{Argument, Label, Plan, Route, Step, StepId, StepIndex},
    host_call::{HostCall, Refusal},
    id::{
        ActorId, BootId, DeviceId, Digest, DocumentId, EndpointId, FabricId, RunId, SegmentId,
        StatementId,
    },
    manifest::EffectClass,
    pairing::{Contacts, Nonce, PAIRING_VERSION, PairingMessage, Party},
    presence::{Machine, ModelReady, PresenceMessage},
    row::{MemoryRows, Write},
    run::{Attempt, Failure, Offer, Outcome, Progress, RunMessage},
    signed::{Domain, Signed},
    statement::TrustMessage,
    sync::{DocumentMessage, SentVouch, SyncMessage},
    ticket::{Ticket, TicketSecret},
    time::{Now, Timestamp, WallTime},
    value::Value,
    version::Version,
};
use weft_trust::{
    author::{Author, NewDevice, NewFabric, genesis},
    graph::Graph,
    keyring::Keyring,
    secret::DeviceSecret,
};

/// What is hostile to any decoder, by what is hostile in it.
pub const HOSTILE: &[(&str, &[u8])] = &[
    ("nothing", &[]),
    ("arrays in arrays", &[0x81; 4_096]),
    ("maps in maps", &[0xa1; 4_096]),
    ("an array as long as memory", &[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("a map as long as memory", &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("a text as long as memory", &[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("bytes as long as memory", &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("an array of four billion", &[0x9a, 0xff, 0xff, 0xff, 0xff, 0x00]),
    ("an indefinite array", &[0x9f, 0x01, 0xff]),
    ("a float that is none", &[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
    ("the greatest number", &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("the least number", &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("text that is no UTF-8", &[0x63, 0xed, 0xa0, 0x80]),
    ("JSON in JSON", &[b'['; 8_192]),
    ("letters that grow when they are lowered", "İİİİ ﬃ ß ǅ \u{301}\u{301}".as_bytes()),
];

/// What made a body panic once: which body, what it was, the input.
pub const REGRESSIONS: &[(&str, &str, &[u8])] = &[];

/// A moment of the corpus.
pub(crate) const NOW: Now = Now { mono: Timestamp::ZERO, wall: WallTime::from_unix_millis(7_000) };

pub(crate) fn secret(seed: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[seed; 32])
}

/// Makes a statement of an author.
type Say<'a> = &'a dyn Fn(&Author<'_>, &mut ChaCha20Rng) -> Signed;

/// A fabric with an admin, a member, one that was revoked, names and roles.
pub(crate) fn graph() -> &'static Graph {
    static GRAPH: OnceLock<Graph> = OnceLock::new();
    GRAPH.get_or_init(|| {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let admin = secret(1);
        let new = NewFabric {
            name: &"home".parse().expect("a name"),
            root: None,
            device: &admin,
            device_name: &"laptop".parse().expect("a name"),
            kind: Kind::Laptop,
        };
        let mut graph = Graph::new(genesis(new, NOW.wall, &mut rng)).expect("it begins a fabric");
        let mut keyring = Keyring::new(admin.agreement().clone());
        keyring.learn(&graph);
        for (seed, kind, role) in [(2, Kind::Server, Role::Member), (3, Kind::Phone, Role::Admin)] {
            let device = secret(seed);
            let new = NewDevice {
                device: device.id(),
                agreement: device.agreement().public(),
                name: "other".parse().expect("a name"),
                kind,
                role,
                confirmed: true,
            };
            let author = Author::new(&graph, &keyring, admin.signing());
            let added = author.add(new, NOW.wall, &mut rng).expect("it may be added");
            graph.insert(added).expect("it is good");
            keyring.learn(&graph);
        }
        let (member, other) = (secret(2).id(), secret(3).id());
        let said: [Say<'_>; 3] = [
            &|author, rng| {
                author.set_role(member, Role::Admin, NOW.wall, rng).expect("it may be said")
            },
            &|author, _| {
                let name = "den".parse().expect("a name");
                author.rename(Some(member), name, NOW.wall).expect("it may be said")
            },
            &|author, rng| author.revoke(other, NOW.wall, rng).expect("it may be said"),
        ];
        for say in said {
            let signed = say(&Author::new(&graph, &keyring, admin.signing()), &mut rng);
            graph.insert(signed).expect("it is good");
            keyring.learn(&graph);
        }
        graph
    })
}

pub(crate) fn signed_statements() -> Vec<Vec<u8>> {
    graph().statements().map(encode).collect()
}

pub(crate) fn statements() -> Vec<Vec<u8>> {
    graph().statements().map(|signed| signed.bytes.clone()).collect()
}

pub(crate) fn trust() -> Vec<Vec<u8>> {
    let statements: Vec<Signed> = graph().statements().cloned().collect();
    let first = statements.first().expect("there is a Genesis");
    let fabric = FabricId::from_bytes(*weft_trust::graph::statement_id(first).as_bytes());
    let ids: Vec<StatementId> = graph().ids().copied().collect();
    [
        TrustMessage::Have { fabric, ids },
        TrustMessage::Have { fabric, ids: Vec::new() },
        TrustMessage::Statements { statements },
        TrustMessage::Merged { set: graph().set_digest() },
        TrustMessage::Want { keys: Vec::new() },
        TrustMessage::Keys { sealed: Vec::new() },
    ]
    .iter()
    .map(encode)
    .collect()
}

pub(crate) fn presence() -> Vec<Vec<u8>> {
    let boot = BootId { counter: 1, random: 2 };
    let mut table = PresenceTable::new(secret(2).signing().clone(), boot);
    *table.own_mut() = Own {
        addresses: vec!["/ip4/127.0.0.1/udp/1/quic-v1".into()],
        queue: 1,
        battery: Some(50),
        metered: true,
        models: vec![ModelReady { name: "small".into(), speed_milli: 20_000 }],
        relays: true,
        machine: Some(Machine {
            cores: 4,
            load_percent: Some(20),
            memory_bytes: Some(8 << 30),
            storage_free_bytes: None,
        }),
        connected: [secret(3).id()].into(),
        version: Some(Version::of_this_program()),
    };
    let message = table.greeting(None, NOW);
    let PresenceMessage::Records { records, .. } = &message;
    let inner = records.iter().map(|record| record.bytes.clone());
    [encode(&message)].into_iter().chain(inner).collect()
}

pub(crate) fn kind() -> DocumentKind {
    "note".parse().expect("a kind")
}

/// A document with three changes, and these.
pub(crate) fn document() -> (Document, Vec<Change>) {
    let actor = ActorId::of(&secret(1).id(), &StartNonce([3; 16]));
    let mut document = Document::new(&kind(), actor).expect("it begins");
    let mut changes = Vec::new();
    for text in ["hello", "hello there", "there: é ﬃ"] {
        let content = Value::map([
            ("text", Value::from(text)),
            ("list", Value::List(vec![Value::Int(1), Value::Null, Value::Bytes(vec![1, 2])])),
        ]);
        changes.extend(document.edit(&content, NOW.wall).expect("it is content"));
    }
    (document, changes)
}

pub(crate) fn documents() -> Vec<Vec<u8>> {
    vec![document().0.save().expect("it saves")]
}

pub(crate) fn changes() -> Vec<Vec<u8>> {
    let (_, changes) = document();
    changes.iter().map(|change| change.to_chunk().0).collect()
}

fn vouch() -> Vouch {
    let (_, changes) = document();
    let last = changes.last().expect("it was edited");
    Vouch {
        key: DocumentKey::first(DocumentId::from_bytes([7; 16])),
        device: secret(1).id(),
        start: StartNonce([3; 16]),
        seq: last.seq(),
        hash: last.hash(),
        own: None,
    }
}

pub(crate) fn vouches() -> Vec<Vec<u8>> {
    let signed = Signed::new(Domain::Vouch, &vouch(), secret(1).signing());
    let adopted = Vouch { own: Some(signed.signature.into()), ..vouch() };
    vec![signed.bytes.clone(), encode(&adopted), encode(&signed)]
}

pub(crate) fn sync() -> Vec<Vec<u8>> {
    let (_, changes) = document();
    let key = DocumentKey::first(DocumentId::from_bytes([7; 16]));
    let vouch = Signed::new(Domain::Vouch, &vouch(), secret(1).signing());
    [
        SyncMessage::Documents(vec![DocumentMessage {
            key,
            kind: kind(),
            changes: changes.iter().map(Change::to_chunk).collect(),
            vouches: vec![
                SentVouch::Newest {
                    device: secret(1).id(),
                    start: StartNonce([3; 16]),
                    signature: vouch.signature,
                },
                SentVouch::Whole(vouch),
            ],
            advance: None,
        }]),
        SyncMessage::Tombstones { tombstones: Vec::new(), gone: vec![key] },
        SyncMessage::Rest(vec![key, DocumentKey::MAX]),
        SyncMessage::Ranges(Vec::new()),
        SyncMessage::Took(Vec::new()),
    ]
    .iter()
    .map(SyncMessage::encode)
    .collect()
}

fn attempt() -> Attempt {
    Attempt {
        owner: secret(1).id(),
        run: RunId::from_bytes([2; 16]),
        step: StepId(vec![1, 2]),
        above: vec![1],
        epoch: 3,
    }
}

pub(crate) fn run() -> Vec<Vec<u8>> {
    let name = || "notes.save".parse().expect("a capability");
    let offer = Offer {
        attempt: attempt(),
        capability: name(),
        agent: Digest::of(b"notes"),
        arguments: arguments(),
        labels: BTreeSet::from([Label::Private, Label::Untrusted]),
        effect: EffectClass::AtMostOnce,
        lease_ms: 15_000,
        deadline_ms: 60_000,
        callers: vec![name()],
        local_time: "2026-01-01T00:00:00".into(),
        time_zone: "Europe/Berlin".into(),
        consent: None,
    };
    let failure = Failure { refusal: Refusal::Denied, reason: "no".into() };
    [
        RunMessage::Offer(Box::new(offer)),
        RunMessage::Accept(attempt()),
        RunMessage::Refuse { attempt: attempt(), failure: failure.clone() },
        RunMessage::IntentAck(attempt()),
        RunMessage::Progress { attempt: attempt(), progress: Progress::Text("word".into()) },
        RunMessage::Done {
            attempt: attempt(),
            outcome: Outcome::Value {
                value: arguments(),
                labels: BTreeSet::from([Label::Private]),
            },
            labels: BTreeSet::from([Label::Private]),
        },
        RunMessage::Done {
            attempt: attempt(),
            outcome: Outcome::Failed(failure),
            labels: BTreeSet::new(),
        },
        RunMessage::Open(vec![RunId::from_bytes([2; 16])]),
    ]
    .iter()
    .map(encode)
    .collect()
}

fn arguments() -> Value {
    Value::map([
        ("text", Value::from("hello")),
        ("n", Value::Int(-3)),
        ("x", Value::Float(0.5)),
        ("deep", Value::List(vec![Value::map([("a", Value::Bytes(vec![0; 40]))])])),
    ])
}

pub(crate) fn host_calls() -> Vec<Vec<u8>> {
    [
        HostCall::DocumentList { kind: "note".into(), query: "q".into(), limit: 3 },
        HostCall::DocumentCreate { kind: "note".into(), content: arguments() },
        HostCall::DocumentRead { id: DocumentId::from_bytes([7; 16]) },
    ]
    .iter()
    .map(encode)
    .collect()
}

pub(crate) fn plans() -> Vec<Vec<u8>> {
    let step = |index, argument| Step {
        index: StepIndex(index),
        capability: "notes.save".parse().expect("a capability"),
        arguments: [("text".to_owned(), argument)].into(),
        device: Some("server".into()),
        after: BTreeSet::new(),
        effect: EffectClass::Idempotent,
        may_call: vec!["text.extract".parse().expect("a capability")],
    };
    let steps = vec![
        step(1, Argument::Literal(arguments())),
        step(2, Argument::Output(StepIndex(1))),
        step(3, Argument::Path("a/b.pdf".into())),
    ];
    vec![encode(&Plan { route: Route::Phrases, steps })]
}

pub(crate) fn questions() -> Vec<Vec<u8>> {
    let subject = |seed, name: &str, role| Subject {
        id: secret(seed).id(),
        name: name.into(),
        kind: Kind::Laptop,
        role,
    };
    let question = Question {
        point: Point::HostCall,
        run: RunId::from_bytes([2; 16]),
        step: StepId(vec![1]),
        capability: "notes.save".parse().expect("a capability"),
        effect: EffectClass::Idempotent,
        arguments: arguments(),
        labels: vec![Label::Untrusted],
        agent: Actor {
            name: "notes".into(),
            digest: Digest::of(b"notes"),
            embedded: true,
            documents_read: vec!["note".into()],
            documents_write: vec!["note".into()],
            timers: false,
            calls: Vec::new(),
        },
        owner: subject(1, "laptop", Role::Admin),
        executor: subject(2, "server", Role::Member),
        call: Some(CallSubject { what: "document.create".into(), target: "note".into() }),
        now: NOW.wall,
    };
    let owner = Question { point: Point::Owner, call: None, ..question.clone() };
    vec![encode(&question), encode(&owner)]
}

/// The records of a chain, in order.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let (key, segment) = (secret(1).signing().clone(), SegmentId::from_bytes([4; 16]));
    let mut chain = Chain::open(key, segment, &MemoryRows::default()).expect("nothing can be read");
    let mut writes = chain.start(BootId { counter: 1, random: 2 }, NOW.wall);
    let decision =
        Decision { effect: Effect::Allow, reason: "mine".into(), obligations: Vec::new() };
    let (intent, more) = chain.append(
        Body::Intent {
            point: Point::Executor,
            run: RunId::from_bytes([2; 16]),
            step: StepId(vec![1]),
            device: secret(2).id(),
            agent: Digest::of(b"notes"),
            capability: "notes.save".parse().expect("a capability"),
            input: Digest::of(b"input"),
            decision,
            policy: Digest::of(b"rules"),
            owner: secret(1).id(),
        },
        NOW.wall,
    );
    writes.extend(more);
    for body in [
        Body::Outcome {
            intent,
            ending: Ending::Done,
            output: Some(Digest::of(b"output")),
            reads: Touched::NONE,
            writes: Touched::NONE,
        },
        Body::Trust { statement: StatementId::from_bytes([1; 32]), said: Some("said".into()) },
        Body::Operator { action: "revoke".into() },
        Body::Strangers { count: 3 },
        Body::Denials { device: secret(2).id(), count: 3 },
        Body::Withdrawn,
    ] {
        writes.extend(chain.append(body, NOW.wall).1);
    }
    let value = |write| match write {
        Write::Put(_, value) => Some(value),
        Write::Delete(_) => None,
    };
    writes.into_iter().filter_map(value).collect()
}

pub(crate) fn audit() -> Vec<Vec<u8>> {
    let (key, segment) = (secret(1).signing().clone(), SegmentId::from_bytes([4; 16]));
    let mut chain = Chain::open(key, segment, &MemoryRows::default()).expect("nothing can be read");
    drop(chain.start(BootId { counter: 1, random: 2 }, NOW.wall));
    let records: Vec<Signed> = records()
        .iter()
        .filter_map(|bytes| weft_protocol::codec::decode(bytes, bytes.len()).ok())
        .collect();
    let record = records.first().expect("a chain has a first record").clone();
    [
        AuditMessage::Head(record.clone()),
        AuditMessage::Witness(record),
        AuditMessage::Want { device: secret(1).id(), position: 3 },
        AuditMessage::Records { device: secret(1).id(), position: 0, records },
    ]
    .iter()
    .map(encode)
    .collect()
}

pub(crate) fn pairing() -> Vec<Vec<u8>> {
    let party = || Party {
        device: secret(2).id(),
        agreement: secret(2).agreement().public(),
        name: "server".parse().expect("a name"),
        kind: Kind::Server,
    };
    let contacts = || Contacts {
        addresses: vec!["/ip4/127.0.0.1/tcp/1".into()],
        presences: vec![Signed::new(Domain::Presence, &7u64, secret(2).signing())],
    };
    let (tag, signature) = (Digest::of(b"tag"), [5; 64]);
    let nonce = || Nonce::from_bytes([4; 32]);
    [
        PairingMessage::Hello {
            version: PAIRING_VERSION,
            fabric: FabricId::from_bytes([9; 32]).into(),
            commitment: tag,
        },
        PairingMessage::Challenge { nonce: nonce(), device: secret(1).id() },
        PairingMessage::Prove { nonce: nonce(), party: party(), tag, signature },
        PairingMessage::Accept {
            fabric: "home".parse().expect("a name"),
            party: party(),
            tag,
            signature,
        },
        PairingMessage::Confirm { tag },
        PairingMessage::Statements { statements: graph().statements().cloned().collect() },
        PairingMessage::Welcome { contacts: contacts() },
        PairingMessage::Stored { tag, contacts: contacts() },
        PairingMessage::Done,
    ]
    .iter()
    .map(encode)
    .collect()
}

pub(crate) fn tickets() -> Vec<Vec<u8>> {
    let addresses =
        ["/ip4/192.168.1.2/udp/4001/quic-v1", "/ip6/fe80::1/tcp/4001", "/dns/a.b/tcp/1"];
    let ticket = Ticket {
        fabric: FabricId::from_bytes([9; 32]).into(),
        endpoint: EndpointId::from_bytes([8; 32]),
        addresses: addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        secret: TicketSecret::from_bytes([7; 16]),
        valid_s: 120,
        role: Role::Member,
    };
    let text = ticket.to_string();
    let other = b"WEFT2:ABC".to_vec();
    vec![text.to_lowercase().into_bytes(), text.into_bytes(), other, encode(&ticket)]
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    [
        include_str!("../../../agents/notes/agent.toml"),
        include_str!("../../../agents/timer/agent.toml"),
        include_str!("../../../agents/text/agent.toml"),
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn words() -> Vec<Vec<u8>> {
    [
        "note that the boiler is loud and set a timer for ten minutes",
        "summarise report.pdf on the server, then note it",
        "wake me in 1 h 30 min",
        "\u{202e}note\u{0} that \u{1f9ff} é",
        "set a timer for 99999999999999999999 hours at 25:61",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    [
        r#"{"id":1,"ask":"status"}"#,
        r#"{"id":2,"ask":"say","words":"note that","local_time":"2026-01-01T00:00:00","time_zone":"UTC","plan_only":true,"files":{"a":"aGk="},"can_ask":false}"#,
        r#"{"id":3,"ask":"audit","position":18446744073709551615,"limit":0}"#,
        r#"{"id":4,"ask":"documents","kind":"note","query":"q","limit":5}"#,
        r#"{"id":5,"ask":"invite","role":"member","confirmed_by_itself":true}"#,
        r#"{"id":6,"ask":"run","prefix":"abc"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Anybody's names and ids.
pub(crate) fn texts() -> Vec<Vec<u8>> {
    let id = secret(1).id().to_string();
    ["laptop", "notes.save", "note", "/ip4/127.0.0.1/udp/1/quic-v1", &id, "4711-apple-river-stone"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// Whose changes a document body takes in.
pub(crate) fn hash() -> ChangeHash {
    document().1.first().expect("it was edited").hash()
}

/// A peer that the graph knows, and one that it does not.
pub(crate) fn peers() -> [DeviceId; 2] {
    [secret(2).id(), secret(9).id()]
}
