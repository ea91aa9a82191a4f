use proptest::{collection::vec, prelude::*};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use weft_protocol::{
    device::Role,
    id::FabricId,
    signed::Domain,
    statement::{Add, StatementBody},
};

use super::*;
use crate::replica::{NOON, Replica, laptop, name, secret};

const LAPTOP: u8 = 1;
const PHONE: u8 = 2;
const SERVER: u8 = 3;
const TABLET: u8 = 4;

/// One end of a connection.
struct End {
    replica: Replica,
    exchange: Exchange,
    merged: usize,
    away: Option<Reason>,
    /// Statements that are on their way to the disk.
    writing: Vec<Signed>,
    out: VecDeque<TrustMessage>,
    sent: Vec<TrustMessage>,
}

impl End {
    fn new(replica: Replica, peer: DeviceId, dialled: bool) -> Self {
        let exchange = Exchange::new(replica.id(), peer, dialled, &replica.graph, Now::default());
        let (writing, out, sent) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { replica, exchange, merged: 0, away: None, writing, out, sent }
    }

    fn input(&mut self, input: Input) {
        self.exchange.handle_input(input, &self.replica.graph, Now::default());
        self.act();
    }

    fn act(&mut self) {
        while let Some(output) = self.exchange.poll_output() {
            assert_eq!(self.away, None, "nothing follows the end");
            match output {
                Output::Send(message) => {
                    self.sent.push(message.clone());
                    self.out.push_back(message);
                }
                Output::Learned(statements) => self.writing.extend(statements),
                Output::Merged => self.merged += 1,
                Output::SealFor { to, keys } => {
                    let mut rng = ChaCha20Rng::from_seed([3; 32]);
                    let state = self.replica.state();
                    let sealed = self.replica.keyring.seal_for(state, to, &keys, &mut rng);
                    self.input(Input::Keys(sealed));
                }
                Output::Sealed(sealed) => {
                    for key in &sealed {
                        self.replica.keyring.open(key).unwrap();
                    }
                }
                Output::TurnedAway(reason) => self.away = Some(reason),
            }
        }
    }

    /// The disk has written what was learned.
    fn written(&mut self) {
        let statements = std::mem::take(&mut self.writing);
        if statements.is_empty() {
            return;
        }
        for signed in statements {
            self.replica.take(&signed);
        }
        self.input(Input::Changed);
    }
}

struct Pair {
    left: End,
    right: End,
}

impl Pair {
    /// The left one dials.
    fn new(left: Replica, right: Replica) -> Self {
        let (left_id, right_id) = (left.id(), right.id());
        let mut pair =
            Self { left: End::new(left, right_id, true), right: End::new(right, left_id, false) };
        pair.left.act();
        pair.right.act();
        pair
    }

    fn settle(&mut self) {
        loop {
            if let Some(message) = self.left.out.pop_front() {
                self.right.input(Input::Message(message));
            } else if let Some(message) = self.right.out.pop_front() {
                self.left.input(Input::Message(message));
            } else if !self.left.writing.is_empty() || !self.right.writing.is_empty() {
                self.left.written();
                self.right.written();
            } else {
                return;
            }
        }
    }

    fn settled(left: Replica, right: Replica) -> Self {
        let mut pair = Self::new(left, right);
        pair.settle();
        pair
    }

    fn assert_merged(&self) {
        assert_eq!((self.left.merged, self.right.merged), (1, 1));
        assert_eq!((self.left.away, self.right.away), (None, None));
        assert_eq!(self.left.replica.state(), self.right.replica.state());
        assert!(self.left.exchange.is_merged() && self.right.exchange.is_merged());
    }
}

fn two_admins() -> (Replica, Replica) {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Admin);
    let phone = laptop.seen_by(PHONE);
    (laptop, phone)
}

#[test]
fn two_devices_that_know_the_same_say_little() {
    let (laptop, phone) = two_admins();
    let pair = Pair::settled(laptop, phone);
    pair.assert_merged();
    assert_eq!(pair.left.sent.len(), 2);
    assert_eq!(pair.right.sent.len(), 2);
}

#[test]
fn both_sides_bring_news() {
    let (mut laptop, mut phone) = two_admins();
    laptop.add(SERVER, Role::Member);
    phone.rename(PHONE, "pocket");
    phone.add(TABLET, Role::Member);
    let pair = Pair::settled(laptop, phone);
    pair.assert_merged();
    assert_eq!(pair.left.replica.state().members().count(), 4);
}

#[test]
fn a_later_statement_follows_at_once() {
    let (laptop, phone) = two_admins();
    let mut pair = Pair::settled(laptop, phone);
    pair.left.replica.add(SERVER, Role::Member);
    pair.left.input(Input::Changed);
    pair.right.replica.rename(PHONE, "pocket");
    pair.right.input(Input::Changed);
    pair.settle();
    pair.assert_merged();
    assert_eq!(pair.right.replica.standing(SERVER), "active");
}

#[test]
fn a_device_that_was_added_while_another_was_away_is_admitted_by_its_proof() {
    for tablet_dials in [true, false] {
        let (mut laptop, phone) = two_admins();
        laptop.add(TABLET, Role::Member);
        let tablet = laptop.seen_by(TABLET);
        let pair =
            if tablet_dials { Pair::settled(tablet, phone) } else { Pair::settled(phone, tablet) };
        pair.assert_merged();
    }
}

#[test]
fn a_stranger_learns_nothing_and_is_cut() {
    let (laptop, phone) = two_admins();
    let mut stranger = laptop.seen_by(TABLET);
    stranger.graph = crate::replica::first(None).graph;
    // It dials, and speaks of another fabric.
    let pair = Pair::settled(stranger.clone(), phone.clone());
    assert_eq!(pair.right.away, Some(Reason::OtherFabric));
    assert_eq!(pair.right.sent, []);
    // It knows the fabric's id and holds nothing that proves it.
    let mut door = End::new(phone.clone(), stranger.id(), false);
    let fabric = phone.graph.fabric();
    door.input(Input::Message(TrustMessage::Have { fabric, ids: vec![] }));
    assert_eq!(door.away, Some(Reason::Stranger));
    assert!(door.sent.iter().all(|message| matches!(message, TrustMessage::Have { .. })));
    // It says nothing.
    let mut silent = End::new(phone.clone(), stranger.id(), false);
    let (until, _) = silent.exchange.poll_timeout().unwrap();
    assert_eq!(until, Timestamp::ZERO + PROOF_TIME);
    let late = Now { mono: until, ..Now::default() };
    silent.exchange.handle_timeout(&phone.graph, late);
    silent.act();
    assert_eq!(silent.away, Some(Reason::Stranger));
    // It asks for keys.
    let mut door = End::new(phone, stranger.id(), false);
    door.input(Input::Message(TrustMessage::Want { keys: vec![] }));
    assert_eq!(door.away, Some(Reason::OutOfTurn));
}

#[test]
fn a_stranger_who_adds_itself_is_no_member() {
    let (laptop, phone) = two_admins();
    let mut stranger = laptop.seen_by(TABLET);
    let add = Add {
        device: stranger.id(),
        agreement: secret(TABLET).agreement().public(),
        name: name("friend"),
        kind: weft_protocol::device::Kind::Phone,
        role: Role::Admin,
        confirmed: true,
        sealed: vec![],
    };
    let forged = stranger.force(add.into());
    let mut door = End::new(phone, stranger.id(), false);
    let fabric = stranger.graph.fabric();
    let ids = vec![statement_id(&forged)];
    door.input(Input::Message(TrustMessage::Have { fabric, ids }));
    door.input(Input::Message(TrustMessage::Statements { statements: vec![forged] }));
    assert_eq!(door.writing, []);
    door.input(Input::Message(TrustMessage::Merged { set: Digest::of(b"") }));
    assert_eq!(door.away, Some(Reason::Stranger));
}

#[test]
fn a_stranger_who_sends_too_much_is_cut() {
    let (laptop, phone) = two_admins();
    let stranger = laptop.seen_by(TABLET);
    let mut door = End::new(phone, stranger.id(), false);
    let fabric = stranger.graph.fabric();
    let ids = vec![StatementId::from_bytes([1; 32])];
    door.input(Input::Message(TrustMessage::Have { fabric, ids }));
    let large = Signed::from_bytes(Domain::Statement, vec![0; 30 << 10], secret(TABLET).signing());
    for _ in 0..2 {
        let statements = vec![large.clone()];
        door.input(Input::Message(TrustMessage::Statements { statements }));
        assert_eq!(door.away, None);
    }
    door.input(Input::Message(TrustMessage::Statements { statements: vec![large] }));
    assert_eq!(door.away, Some(Reason::TooMuch));
}

#[test]
fn a_revoked_device_is_given_its_revoke() {
    let (mut laptop, phone) = two_admins();
    laptop.revoke(PHONE);
    for phone_dials in [true, false] {
        let pair = if phone_dials {
            Pair::settled(phone.clone(), laptop.clone())
        } else {
            Pair::settled(laptop.clone(), phone.clone())
        };
        let (laptop, phone) =
            if phone_dials { (pair.right, pair.left) } else { (pair.left, pair.right) };
        assert_eq!(laptop.away, Some(Reason::Revoked));
        assert_eq!(laptop.merged, 0);
        assert_eq!(phone.merged, 0);
        assert_eq!(phone.replica.standing(PHONE), "revoked", "it knows now");
    }
}

/// What `peer` holds and `of` lacks, presented as a peer that is not listed does it.
fn presented(of: &Replica, peer: &Replica) -> End {
    let mut door = End::new(of.clone(), peer.id(), false);
    let (fabric, ids) = (peer.graph.fabric(), peer.graph.ids().copied().collect());
    door.input(Input::Message(TrustMessage::Have { fabric, ids }));
    let lacking = peer.graph.statements().filter(|it| !of.graph.contains(&statement_id(it)));
    let statements = lacking.cloned().collect();
    door.input(Input::Message(TrustMessage::Statements { statements }));
    door
}

#[test]
fn one_that_is_out_writes_nothing_into_the_graph() {
    let (mut laptop, mut phone) = two_admins();
    laptop.add(SERVER, Role::Member);
    laptop.add(TABLET, Role::Admin);
    phone.meet(&laptop);
    let mut server = laptop.seen_by(SERVER);
    laptop.revoke(SERVER);
    laptop.revoke(PHONE);
    // A member's junk, and an admin's `Revoke` of a third that it dates back.
    server.rename(SERVER, "rack");
    let generation = server.next_generation();
    let device = laptop.id();
    let junk = weft_protocol::statement::Revoke { device, generation, sealed: vec![] };
    server.force(junk.into());
    phone.revoke(TABLET);
    for out in [&server, &phone] {
        let mut door = presented(&laptop, out);
        assert_eq!((door.writing.as_slice(), door.away), (&[][..], None));
        door.input(Input::Message(TrustMessage::Merged { set: out.graph.set_digest() }));
        assert_eq!((door.writing.as_slice(), door.away), (&[][..], Some(Reason::Revoked)));
    }
    // What puts its own `Revoke` in doubt is heard.
    phone.revoke(LAPTOP);
    let mut door = presented(&laptop, &phone);
    door.written();
    assert_eq!(door.replica.standing(PHONE), "suspended");
}

#[test]
fn a_new_key_of_one_that_is_out_hears_of_it_and_writes_nothing() {
    let (mut laptop, mut phone) = two_admins();
    laptop.revoke(PHONE);
    phone.say(|author, rng| author.rotate(&secret(20), NOON, rng));
    let renewed = phone.seen_by(20);
    for dials in [true, false] {
        let pair = if dials {
            Pair::settled(renewed.clone(), laptop.clone())
        } else {
            Pair::settled(laptop.clone(), renewed.clone())
        };
        let (out, door) = if dials { (&pair.left, &pair.right) } else { (&pair.right, &pair.left) };
        assert_eq!(door.away, Some(Reason::Revoked));
        assert_eq!(door.replica.graph.set_digest(), laptop.graph.set_digest());
        assert_eq!(out.replica.standing(20), "revoked", "it knows now");
    }
}

#[test]
fn a_member_that_is_out_is_heard_once_it_brings_what_keeps_it() {
    let (mut laptop, mut phone) = two_admins();
    laptop.add(SERVER, Role::Member);
    phone.meet(&laptop);
    let mut server = laptop.seen_by(SERVER);
    phone.revoke(SERVER);
    laptop.meet(&phone);
    let mut root = server.seen_by_root();
    root.revoke(PHONE);
    root.meet(&phone);
    root.keep(SERVER);
    server.rename(SERVER, "rack");
    assert_eq!(presented(&laptop, &server).writing, [], "before the `Keep`");
    server.meet(&root);
    let mut door = presented(&laptop, &server);
    door.written();
    assert_eq!((door.replica.standing(SERVER), door.away), ("active", None));
    assert_eq!(door.replica.device(SERVER).name, name("rack"));
}

#[test]
fn one_that_is_not_listed_may_hold_a_large_graph_but_no_endless_one() {
    let (laptop, phone) = two_admins();
    let fabric = phone.graph.fabric();
    let ids = |count: usize| {
        let id = |at: usize| StatementId::from_bytes(*Digest::of(&at.to_be_bytes()).as_bytes());
        (0..count).map(id).collect::<Vec<_>>()
    };
    let most = STRANGER_IDS_BYTES_MAX / StatementId::LEN;
    // 64 devices that all said as much as they may.
    assert!(most > 64 * (crate::graph::OWN_MAX + crate::graph::ROTATIONS_MAX));
    for (count, away) in [(most, None), (most + 1, Some(Reason::TooMuch))] {
        let mut door = End::new(phone.clone(), laptop.seen_by(TABLET).id(), false);
        door.input(Input::Message(TrustMessage::Have { fabric, ids: ids(count) }));
        assert_eq!(door.away, away, "{count} ids");
    }
}

/// Laptop and phone, which both know of it, and a third admin that has said nothing yet.
fn two_who_put_each_other_out() -> (Replica, Replica, Replica) {
    let (mut laptop, mut phone) = two_admins();
    laptop.add(SERVER, Role::Admin);
    phone.meet(&laptop);
    let mut server = laptop.seen_by(SERVER);
    laptop.revoke(PHONE);
    phone.revoke(LAPTOP);
    laptop.meet(&phone);
    phone.meet(&laptop);
    server.meet(&phone);
    (laptop, phone, server)
}

#[test]
fn one_that_thinks_itself_suspended_is_given_what_settled_its_revoke() {
    let (_, phone, mut server) = two_who_put_each_other_out();
    assert_eq!(phone.standing(PHONE), "suspended");
    server.keep(LAPTOP);
    assert_eq!(server.standing(PHONE), "revoked");
    let pair = Pair::settled(phone, server);
    assert_eq!(pair.right.away, Some(Reason::Revoked));
    assert_eq!(pair.left.replica.standing(PHONE), "revoked", "it knows now");
    assert_eq!(pair.left.replica.standing(LAPTOP), "active");
}

#[test]
fn a_revoke_that_arrives_ends_the_exchange_with_the_one_who_is_out() {
    let (mut laptop, _) = two_admins();
    laptop.add(SERVER, Role::Admin);
    let (phone, server) = (laptop.seen_by(PHONE), laptop.seen_by(SERVER));
    let mut pair = Pair::settled(phone, server);
    pair.assert_merged();
    let revoke = laptop.revoke(SERVER);
    let signed = laptop.graph.get(&revoke).unwrap().clone();
    pair.left.replica.take(&signed);
    pair.left.input(Input::Changed);
    pair.settle();
    assert_eq!(pair.left.away, Some(Reason::Revoked));
    assert_eq!(pair.right.replica.standing(SERVER), "revoked");
}

#[test]
fn a_device_that_was_kept_comes_back_though_this_one_only_knows_its_revoke() {
    let (mut laptop, mut phone) = two_admins();
    laptop.add(SERVER, Role::Admin);
    phone.meet(&laptop);
    let mut server = laptop.seen_by(SERVER);
    let away = {
        // The phone, stolen, revokes the server, and the laptop hears only that.
        phone.revoke(SERVER);
        laptop.meet(&phone);
        laptop
    };
    assert_eq!(away.standing(SERVER), "revoked");
    let mut root = server.seen_by_root();
    root.revoke(PHONE);
    root.meet(&phone);
    root.keep(SERVER);
    server.meet(&root);
    assert_eq!(server.standing(SERVER), "active");
    let pair = Pair::settled(server, away);
    pair.assert_merged();
    assert_eq!(pair.right.replica.standing(SERVER), "active");
    assert_eq!(pair.right.replica.standing(PHONE), "revoked");
}

#[test]
fn a_suspended_device_is_served_statements_and_nothing_else_until_it_is_kept() {
    let (laptop, _, server) = two_who_put_each_other_out();
    let mut pair = Pair::settled(server, laptop);
    assert_eq!((pair.left.merged, pair.left.away), (0, None));
    pair.left.replica.keep(LAPTOP);
    pair.left.input(Input::Changed);
    pair.settle();
    pair.assert_merged();
}

#[test]
fn a_lacking_key_is_asked_for_and_given() {
    let (mut laptop, mut phone) = two_admins();
    laptop.add(SERVER, Role::Member);
    phone.meet(&laptop);
    laptop.revoke(SERVER);
    phone.add(TABLET, Role::Member);
    let tablet = phone.seen_by(TABLET);
    let mut pair = Pair::settled(tablet, laptop);
    pair.assert_merged();
    let lacking = pair.left.replica.keyring.lacking(pair.left.replica.state());
    assert_eq!(lacking.len(), 1);
    pair.left.input(Input::Want(lacking));
    pair.settle();
    assert_eq!(pair.left.replica.keyring.lacking(pair.left.replica.state()), []);
}

#[test]
fn an_unknown_kind_is_passed_on_and_opens_nothing() {
    let (mut laptop, phone) = two_admins();
    laptop.force(StatementBody::Unknown(99));
    let pair = Pair::settled(laptop, phone);
    assert_eq!((pair.left.merged, pair.right.merged), (0, 0));
    assert_eq!(pair.right.replica.state().update_needed, Some(99));
    assert_eq!((pair.left.away, pair.right.away), (None, None));
}

#[test]
fn a_graph_larger_than_one_message_arrives_whole() {
    let (mut laptop, phone) = two_admins();
    let mut bytes = 0;
    while bytes < CHUNK_BYTES_MAX * 2 {
        let powerless = laptop.force(
            weft_protocol::statement::Keep {
                device: laptop.id(),
                cause: StatementId::from_bytes([1; 32]),
                sealed: vec![filler(); 150],
            }
            .into(),
        );
        bytes += powerless.bytes.len();
    }
    let pair = Pair::settled(laptop, phone);
    pair.assert_merged();
    let parts = pair.left.sent.iter();
    let parts = parts.filter(|message| matches!(message, TrustMessage::Statements { .. }));
    assert!(parts.count() >= 2);
}

fn filler() -> SealedKey {
    SealedKey {
        to: AgreementKey::from_bytes([1; 32]),
        which: KeyName::Addressing(weft_protocol::statement::KeyId::of(&[1; 32])),
        ephemeral: AgreementKey::from_bytes([1; 32]),
        ciphertext: [1; 48],
    }
}

fn message(graph: &Graph) -> impl Strategy<Value = TrustMessage> + use<> {
    let fabric = graph.fabric();
    let ids: Vec<StatementId> = graph.ids().copied().collect();
    let statements: Vec<Signed> = graph.statements().cloned().collect();
    prop_oneof![
        Just(TrustMessage::Have { fabric, ids }),
        any::<[u8; 32]>().prop_map(|bytes| TrustMessage::Have {
            fabric: FabricId::from_bytes(bytes),
            ids: vec![]
        }),
        vec(any::<[u8; 32]>(), 0..4).prop_map(move |ids| TrustMessage::Have {
            fabric,
            ids: ids.into_iter().map(StatementId::from_bytes).collect()
        }),
        prop::sample::subsequence(statements.clone(), 0..statements.len())
            .prop_map(|statements| TrustMessage::Statements { statements }),
        any::<[u8; 32]>().prop_map(|set| TrustMessage::Merged { set: Digest::from_bytes(set) }),
        Just(TrustMessage::Want { keys: vec![] }),
        Just(TrustMessage::Keys { sealed: vec![] }),
    ]
}

proptest! {
    /// Whatever an unlisted peer says in whatever order, it neither merges nor gets a statement.
    #[test]
    fn a_stranger_gets_nowhere(messages in vec(message(&two_admins().0.graph), 0..12)) {
        let (laptop, phone) = two_admins();
        let stranger = laptop.seen_by(TABLET);
        let mut door = End::new(phone, stranger.id(), false);
        for message in messages {
            door.input(Input::Message(message));
            door.written();
        }
        prop_assert_eq!(door.merged, 0);
        let told = door.sent.iter().any(|sent| !matches!(sent, TrustMessage::Have { .. }));
        prop_assert!(!told);
    }

    /// Two devices that grow while they talk hold the same in the end.
    #[test]
    fn growth_while_merging_converges(grow in vec((any::<bool>(), 0usize..6), 0..6)) {
        let (laptop, phone) = two_admins();
        let mut pair = Pair::new(laptop, phone);
        for (at, (left, deliver)) in grow.into_iter().enumerate() {
            for _ in 0..deliver {
                if let Some(message) = pair.left.out.pop_front() {
                    pair.right.input(Input::Message(message));
                }
                if let Some(message) = pair.right.out.pop_front() {
                    pair.left.input(Input::Message(message));
                }
            }
            let end = if left { &mut pair.left } else { &mut pair.right };
            end.replica.say(|author, _| {
                author.rename(None, name(&format!("home {at}")), NOON)
            });
            end.input(Input::Changed);
        }
        pair.settle();
        pair.assert_merged();
    }
}
