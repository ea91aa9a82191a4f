use proptest::{collection::vec, prelude::*, sample::Index};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use weft_protocol::{
    codec,
    device::Role,
    id::{Digest, StatementId},
    statement::{RootRotate, Statement, StatementBody, TrustMessage},
    time::{Now, Timestamp},
};

use super::{
    fetch::{FETCH_TIME, Fetch, FetchError, Fetched, Output, view},
    speech::{Lost, Speech, SpeechError, Wish, speak, speak_of, vouch},
    *,
};
use crate::{
    author::AuthorError,
    exchange::{self, Exchange, Reason},
    graph::{GRAPH_BYTES_MAX, Graph, OWN_MAX, statement_id},
    replica::{NOON, Replica, first, laptop, name, new_device, root, secret},
    state::Standing,
};

const LAPTOP: u8 = 1;
const PHONE: u8 = 2;
const SERVER: u8 = 3;
const THIEF: u8 = 4;
/// The machine that has nothing but the words.
const FRESH: u8 = 9;

/// A fabric as `weft init` begins it: the root has spoken.
fn begun() -> Replica {
    let mut laptop = laptop();
    let first = vouch(&laptop.graph, &root(), NOON).unwrap();
    laptop.take(&first);
    laptop
}

/// Laptop and phone are admins, the server a member, and so is the thief's tablet an admin.
fn household() -> Replica {
    let mut laptop = begun();
    laptop.add(PHONE, Role::Admin);
    laptop.add(SERVER, Role::Member);
    laptop.add(THIEF, Role::Admin);
    laptop
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([77; 32])
}

fn id(number: u8) -> DeviceId {
    secret(number).id()
}

/// Says one message to an exchange, and gives what it answers, and whether it turned the peer away.
fn says(
    to: &mut Exchange,
    message: TrustMessage,
    graph: &Graph,
) -> (Vec<TrustMessage>, Option<Reason>) {
    to.handle_input(exchange::Input::Message(message), graph, Now::default());
    let (mut sent, mut away) = (Vec::new(), None);
    while let Some(output) = to.poll_output() {
        match output {
            exchange::Output::Send(message) => sent.push(message),
            exchange::Output::TurnedAway(reason) => away = Some(reason),
            exchange::Output::Learned(_)
            | exchange::Output::Merged
            | exchange::Output::SealFor { .. }
            | exchange::Output::Sealed(_) => {}
        }
    }
    (sent, away)
}

fn door(of: &Replica, peer: DeviceId) -> Exchange {
    Exchange::new(of.id(), peer, false, &of.graph, Now::default())
}

fn ended(fetch: &mut Fetch) -> Option<Result<Fetched, FetchError>> {
    while let Some(output) = fetch.poll_output() {
        match output {
            Output::Send(_) => {}
            Output::Ended(how) => return Some(*how),
        }
    }
    None
}

/// The fresh machine asks `peer` with these words.
fn fetch_with(words: &RootSecret, peer: &Replica) -> Result<Fetched, FetchError> {
    let mut fetch = Fetch::new(words.clone(), id(FRESH), peer.id(), Now::default());
    let mut door = door(peer, id(FRESH));
    let Some(Output::Send(ask)) = fetch.poll_output() else { panic!("it asks") };
    let (answers, away) = says(&mut door, ask, &peer.graph);
    for answer in answers {
        // As it would travel.
        let bytes = codec::encode(&answer);
        let Ok(message) = codec::decode(&bytes, 1 << 20) else { panic!("it is a message") };
        fetch.handle_message(message);
    }
    if away.is_some() {
        fetch.handle_closed();
    }
    let Some(end) = ended(&mut fetch) else { panic!("it ends") };
    end
}

fn fetch(peer: &Replica) -> Fetched {
    fetch_with(&root(), peer).unwrap()
}

fn comes_in() -> Wish {
    let add = Some(new_device(&secret(FRESH), "laptop", Role::Admin));
    Wish { add, ..Wish::default() }
}

fn out(number: u8, since: Option<StatementId>) -> Vec<Lost> {
    vec![Lost { device: id(number), since }]
}

/// What a device makes of the fresh machine that dials it: whether both end with one graph.
fn meets(peer: &mut Replica, speech: &Speech) -> Option<Reason> {
    let mut fresh = Replica::new(
        speech.graph.clone(),
        secret(FRESH).agreement().clone(),
        secret(FRESH).signing().clone(),
        FRESH,
    );
    let now = Now::default();
    let mut near = Exchange::new(fresh.id(), peer.id(), true, &fresh.graph, now);
    let mut far = door(peer, fresh.id());
    for _ in 0..64 {
        let mut moved = false;
        for here in [true, false] {
            let (from, to, own, others) = if here {
                (&mut near, &mut far, &mut fresh, &mut *peer)
            } else {
                (&mut far, &mut near, &mut *peer, &mut fresh)
            };
            while let Some(output) = from.poll_output() {
                moved = true;
                match output {
                    exchange::Output::Send(message) => {
                        to.handle_input(exchange::Input::Message(message), &others.graph, now);
                    }
                    exchange::Output::Learned(statements) => {
                        for signed in statements {
                            own.take(&signed);
                        }
                        from.handle_input(exchange::Input::Changed, &own.graph, now);
                    }
                    exchange::Output::TurnedAway(reason) => return Some(reason),
                    exchange::Output::Merged
                    | exchange::Output::SealFor { .. }
                    | exchange::Output::Sealed(_) => {}
                }
            }
        }
        if !moved {
            break;
        }
    }
    assert!(near.is_merged() || !peer.device(FRESH).is_active());
    None
}

#[test]
fn words_bring_a_person_in_through_whichever_device_is_left() {
    let household = household();
    for left in [LAPTOP, PHONE, SERVER] {
        let mut left = household.seen_by(left);
        let fetched = fetch(&left);
        assert!(fetched.is_vouched);
        assert_eq!(fetched.graph.set_digest(), left.graph.set_digest());
        let speech = speak(&root(), fetched, &comes_in(), NOON, &mut rng()).unwrap();
        assert_eq!(meets(&mut left, &speech), None);
        let device = left.device(FRESH);
        assert_eq!((device.role, device.standing), (Role::Admin, Standing::Active));
        assert!(device.confirmed);
        assert_eq!(device.name, name("laptop-2"), "there is another laptop");
        // It reads the fabric's data.
        let fresh = Replica::new(
            speech.graph.clone(),
            secret(FRESH).agreement().clone(),
            secret(FRESH).signing().clone(),
            FRESH,
        );
        assert_eq!(fresh.keyring.lacking(fresh.state()), []);
    }
}

#[test]
fn a_suspended_and_a_revoked_device_answer_too() {
    let mut laptop = household();
    let mut phone = laptop.seen_by(PHONE);
    laptop.revoke(PHONE);
    phone.revoke(LAPTOP);
    laptop.meet(&phone);
    assert_eq!((laptop.standing(LAPTOP), laptop.standing(PHONE)), ("suspended", "suspended"));
    assert_eq!(fetch(&laptop).graph.set_digest(), laptop.graph.set_digest());
    let mut thief = household().seen_by(THIEF);
    thief.revoke(LAPTOP);
    let mut out = household();
    out.meet(&thief);
    assert_eq!(out.standing(LAPTOP), "revoked");
    assert_eq!(fetch(&out).graph.set_digest(), out.graph.set_digest());
}

#[test]
fn other_words_learn_nothing() {
    let laptop = household();
    let other = RootSecret::from_entropy([201; 32]);
    assert_eq!(fetch_with(&other, &laptop).unwrap_err(), FetchError::Refused);
    let mut door = door(&laptop, id(FRESH));
    let proof = prove(other.signing(), id(FRESH), laptop.id());
    let (sent, away) = says(&mut door, TrustMessage::Recover { proof }, &laptop.graph);
    assert_eq!((sent, away), (vec![], Some(Reason::Stranger)));
    // Nor does a fabric without root answer anybody.
    assert_eq!(fetch_with(&root(), &first(None)).unwrap_err(), FetchError::Refused);
}

#[test]
fn a_proof_that_was_seen_is_of_no_use() {
    let laptop = household();
    let phone = laptop.seen_by(PHONE);
    let seen = prove(root().signing(), id(FRESH), laptop.id());
    let refused = |of: &Replica, from: DeviceId, proof: &Signed| {
        let mut door = door(of, from);
        let message = TrustMessage::Recover { proof: proof.clone() };
        assert_eq!(says(&mut door, message, &of.graph), (vec![], Some(Reason::Stranger)));
    };
    // By another, or to another.
    refused(&laptop, id(8), &seen);
    refused(&phone, id(FRESH), &seen);
    // Changed to fit, or signed for something else.
    let mut forged = prove(&SigningKey::from_bytes(&[8; 32]), id(8), laptop.id());
    forged.author = root().keys().key;
    refused(&laptop, id(8), &forged);
    let body = RecoveryProof { from: id(8), to: laptop.id() };
    refused(&laptop, id(8), &Signed::new(Domain::Pairing, &body, root().signing()));
    // By the machine itself, once it has been put out.
    let speech = speak(&root(), fetch(&laptop), &comes_in(), NOON, &mut rng()).unwrap();
    let mut after = laptop;
    after.graph = speech.graph;
    after.revoke(FRESH);
    let mut door = door(&after, id(FRESH));
    let (sent, away) = says(&mut door, TrustMessage::Recover { proof: seen }, &after.graph);
    assert_eq!((sent, away), (vec![], Some(Reason::Stranger)));
}

#[test]
fn it_is_asked_once_on_a_connection_and_by_nobody_who_belongs() {
    let laptop = household();
    let ask = || TrustMessage::Recover { proof: prove(root().signing(), id(FRESH), laptop.id()) };
    let mut stranger = door(&laptop, id(FRESH));
    let (sent, away) = says(&mut stranger, ask(), &laptop.graph);
    assert!(away.is_none() && sent.len() > 2, "{sent:?}");
    assert_eq!(says(&mut stranger, ask(), &laptop.graph), (vec![], Some(Reason::OutOfTurn)));
    let mut member = door(&laptop, id(PHONE));
    while member.poll_output().is_some() {}
    let proof = prove(root().signing(), id(PHONE), laptop.id());
    let said = says(&mut member, TrustMessage::Recover { proof }, &laptop.graph);
    assert_eq!(said, (vec![], Some(Reason::OutOfTurn)));
}

#[test]
fn a_fabric_of_another_root_is_refused() {
    let forged = first(Some(&RootSecret::from_entropy([5; 32])));
    assert_eq!(view(forged.graph, &root()).unwrap_err(), FetchError::OtherRoot);
    assert_eq!(view(first(None).graph, &root()).unwrap_err(), FetchError::OtherRoot);
}

#[test]
fn who_knows_the_roots_public_keys_makes_no_fabric_that_it_vouches_for() {
    assert!(view(begun().graph, &root()).unwrap().is_vouched);
    // Begun with them.
    assert!(!view(laptop().graph, &root()).unwrap().is_vouched);
    // Handed over to them by another root, which has spoken.
    let theirs = RootSecret::from_entropy([5; 32]);
    let mut forged = first(Some(&theirs));
    let key = theirs.signing().clone();
    let mut other = Replica::new(forged.graph.clone(), theirs.agreement().clone(), key, 5);
    let keyring = other.keyring.clone();
    let sealed = keyring.seal_all(other.state(), root().keys().agreement, &mut rng());
    let rotation = other.force(RootRotate { root: root().keys(), sealed }.into());
    forged.take(&rotation);
    assert!(!view(forged.graph.clone(), &root()).unwrap().is_vouched);
    // And what the root said elsewhere does not enter.
    let said = vouch(&laptop().graph, &root(), NOON).unwrap();
    let elsewhere = RootSecret::from_entropy([6; 32]);
    let mut other = first(Some(&elsewhere));
    assert!(other.graph.insert(said).is_err());
}

#[test]
fn a_member_that_says_what_it_may_blocks_no_recovery() {
    let laptop = household();
    let mut server = laptop.seen_by(SERVER);
    for number in 0..OWN_MAX + 8 {
        let device = Some(id(SERVER));
        let rename = weft_protocol::statement::Rename { device, name: name(&format!("{number}")) };
        server.force(rename.into());
    }
    let fetched = fetch(&server);
    assert_eq!(fetched.graph.ids().count(), laptop.graph.ids().count() + OWN_MAX);
    let speech = speak(&root(), fetched, &comes_in(), NOON, &mut rng());
    assert!(speech.is_ok());
}

#[test]
fn part_of_a_fabric_is_none() {
    let laptop = household();
    let all: Vec<Signed> = laptop.graph.statements().cloned().collect();
    let fabric = laptop.graph.fabric();
    let told = |messages: Vec<TrustMessage>| {
        let mut fetch = Fetch::new(root(), id(FRESH), laptop.id(), Now::default());
        for message in messages {
            fetch.handle_message(message);
        }
        ended(&mut fetch).expect("it ends").map(|_| ())
    };
    let have = || TrustMessage::Have { fabric, ids: vec![] };
    let set = laptop.graph.set_digest();
    let merged = || TrustMessage::Merged { set };
    let some = |statements: &[Signed]| TrustMessage::Statements { statements: statements.to_vec() };
    assert_eq!(told(vec![have(), some(&all), merged()]), Ok(()));
    for (why, messages) in [
        ("a part of it is missing", vec![have(), some(&all[..all.len() - 1]), merged()]),
        ("it has no good beginning", vec![have(), some(&all[1..]), merged()]),
        ("it does not name it", vec![some(&all), merged()]),
        ("it names two", vec![have(), have()]),
        ("it asks instead of answering", vec![TrustMessage::Want { keys: vec![] }]),
    ] {
        assert_eq!(told(messages), Err(FetchError::Malformed { why }));
    }
    // Many are taken, by their bytes.
    let again = vec![all[0].clone(); 8_192];
    let many = [have(), some(&all), some(&again), merged()];
    assert_eq!(told(many.to_vec()), Ok(()));
    let len = codec::encode(&all[0]).len();
    let many = vec![all[0].clone(); GRAPH_BYTES_MAX / len + 1];
    assert_eq!(told(vec![have(), some(&many)]), Err(FetchError::TooMuch));
    let mut silent = Fetch::new(root(), id(FRESH), laptop.id(), Now::default());
    silent.handle_timeout(Now { mono: Timestamp::ZERO + FETCH_TIME, ..Now::default() });
    assert_eq!(ended(&mut silent).unwrap().unwrap_err(), FetchError::TimedOut);
}

#[test]
fn a_revocation_that_rests_on_a_stale_copy_stands() {
    let mut laptop = household();
    // The server was away since before the thief's tablet made another admin.
    let server = laptop.seen_by(SERVER);
    let mut thief = laptop.seen_by(THIEF);
    thief.add(6, Role::Admin);
    laptop.meet(&thief);
    let wish = Wish { lost: out(THIEF, None), ..comes_in() };
    let speech = speak(&root(), fetch(&server), &wish, NOON, &mut rng()).unwrap();
    for signed in &speech.statements {
        laptop.take(signed);
    }
    assert_eq!((laptop.standing(THIEF), laptop.standing(FRESH)), ("revoked", "active"));
    // What the thief said that the root did not know does not count.
    assert_eq!(laptop.standing(6), "unknown");
}

/// The thief revokes everybody else. Gives what it holds, and its first statement of these.
fn taken() -> (Replica, StatementId) {
    let mut thief = household().seen_by(THIEF);
    let since = thief.revoke(LAPTOP);
    thief.revoke(PHONE);
    thief.revoke(SERVER);
    thief.add(6, Role::Admin);
    (thief, since)
}

#[test]
fn a_thief_who_revoked_everybody_is_undone_by_the_words() {
    let (thief, since) = taken();
    let mut laptop = household();
    laptop.meet(&thief);
    for number in [LAPTOP, PHONE, SERVER] {
        assert_eq!(laptop.standing(number), "revoked");
    }
    // Who was put out rightly can't be kept, and without --since it was.
    let keep = vec![id(LAPTOP), id(PHONE), id(SERVER)];
    let wish = Wish { keep: keep.clone(), ..comes_in() };
    let refused = speak(&root(), fetch(&laptop), &wish, NOON, &mut rng()).unwrap_err();
    assert_eq!(refused, SpeechError::StaysOut { device: id(LAPTOP) });
    let lost = out(THIEF, Some(since));
    let wish = Wish { lost, keep, ..comes_in() };
    let speech = speak(&root(), fetch(&laptop), &wish, NOON, &mut rng()).unwrap();
    for peer in [LAPTOP, PHONE, SERVER] {
        let mut peer = household().seen_by(peer);
        peer.meet(&thief);
        assert_eq!(meets(&mut peer, &speech), None);
        for number in [LAPTOP, PHONE, SERVER, FRESH] {
            assert_eq!(peer.standing(number), "active", "{number}");
        }
        assert_eq!(peer.standing(THIEF), "revoked");
        assert_eq!(peer.standing(6), "unknown", "whom the thief brought in");
        peer.keyring.learn(&peer.graph);
        assert!(peer.keyring.writing(peer.state()).is_some(), "it has the new key");
    }
    // The thief answers nothing.
    let mut deaf = thief;
    for signed in &speech.statements {
        deaf.take(signed);
    }
    assert_eq!(deaf.standing(THIEF), "revoked");
    assert!(deaf.keyring.writing(deaf.state()).is_none(), "it lacks the new key");
}

#[test]
fn a_theft_that_shows_after_the_recovery_is_still_undone() {
    let (thief, since) = taken();
    let mut laptop = household();
    laptop.meet(&thief);
    // First the person only gets in.
    let speech = speak(&root(), fetch(&laptop), &comes_in(), NOON, &mut rng()).unwrap();
    // A device that is out, for all that is known, is told nothing more.
    assert_eq!(meets(&mut laptop, &speech), Some(Reason::Revoked));
    laptop.graph = speech.graph;
    assert_eq!(laptop.standing(LAPTOP), "revoked");
    let keep = vec![id(LAPTOP), id(PHONE)];
    let wish = Wish { lost: out(THIEF, Some(since)), keep, ..Wish::default() };
    let graph = laptop.graph.clone();
    let speech = speak_of(&root(), graph, &wish, NOON, &mut rng()).unwrap();
    for signed in &speech.statements {
        laptop.take(signed);
    }
    for (number, standing) in
        [(LAPTOP, "active"), (PHONE, "active"), (SERVER, "suspended"), (THIEF, "revoked")]
    {
        assert_eq!(laptop.standing(number), standing, "{number}");
    }
    assert_eq!(laptop.standing(FRESH), "active", "the root had added it before");
}

#[test]
fn since_must_be_a_statement_of_the_lost_device() {
    let laptop = household();
    let (of_laptop, of_nobody) = (laptop.graph.heads()[0], StatementId::from_bytes([1; 32]));
    let first = statement_id(laptop.graph.statements().next().unwrap());
    for (device, since) in [(THIEF, of_laptop), (THIEF, of_nobody), (LAPTOP, first)] {
        let wish = Wish { lost: out(device, Some(since)), ..comes_in() };
        let refused = speak(&root(), fetch(&laptop), &wish, NOON, &mut rng()).unwrap_err();
        assert_eq!(refused, SpeechError::NotIts { since });
    }
    let wish = Wish { keep: vec![id(PHONE)], ..Wish::default() };
    let refused = speak(&root(), fetch(&laptop), &wish, NOON, &mut rng()).unwrap_err();
    assert_eq!(refused, SpeechError::NotSuspended { device: id(PHONE) });
    let wish = Wish { lost: out(8, None), ..Wish::default() };
    let refused = speak(&root(), fetch(&laptop), &wish, NOON, &mut rng()).unwrap_err();
    assert!(matches!(refused, SpeechError::Author(AuthorError::UnknownDevice { .. })));
}

#[test]
fn new_words_take_over_and_the_old_are_worth_nothing() {
    let laptop = household();
    let new = RootSecret::from_entropy([202; 32]);
    let wish = Wish { new_root: Some(new.clone()), ..comes_in() };
    let speech = speak(&root(), fetch(&laptop), &wish, NOON, &mut rng()).unwrap();
    let mut phone = laptop.seen_by(PHONE);
    assert_eq!(meets(&mut phone, &speech), None);
    // The machine that recovers next has another key.
    let ask = |words: &RootSecret| {
        let mut door = door(&phone, id(8));
        let proof = prove(words.signing(), id(8), phone.id());
        says(&mut door, TrustMessage::Recover { proof }, &phone.graph).1
    };
    assert_eq!((ask(&root()), ask(&new)), (Some(Reason::Stranger), None));
    let fetched = view(phone.graph.clone(), &new).unwrap();
    assert!(fetched.is_vouched);
    assert_eq!(fetched.keyring.lacking(fetched.graph.state()), []);
    assert_eq!(view(phone.graph.clone(), &root()).unwrap_err(), FetchError::OtherRoot);
}

#[test]
fn a_recovery_that_nobody_heard_of_has_not_happened() {
    let mut laptop = household();
    let fetched = fetch(&laptop);
    let before = laptop.graph.set_digest();
    let lost = speak(&root(), fetched, &comes_in(), NOON, &mut rng()).unwrap();
    assert_eq!(laptop.graph.set_digest(), before);
    // Another try, by a machine with another key, is another device.
    let wish = Wish { add: Some(new_device(&secret(8), "again", Role::Admin)), ..Wish::default() };
    let speech = speak(&root(), fetch(&laptop), &wish, NOON, &mut rng()).unwrap();
    for signed in &speech.statements {
        laptop.take(signed);
    }
    assert_eq!((laptop.standing(8), laptop.standing(FRESH)), ("active", "unknown"));
    // Should the first appear after all, both belong, and each can be put out.
    for signed in &lost.statements {
        laptop.take(signed);
    }
    assert_eq!((laptop.standing(8), laptop.standing(FRESH)), ("active", "active"));
    laptop.revoke(FRESH);
    assert_eq!(laptop.standing(FRESH), "revoked");
}

#[test]
fn proofs_stay_small() {
    let proof = prove(root().signing(), id(FRESH), id(LAPTOP));
    assert!(proof.bytes.len() <= RECOVERY_PROOF_BYTES_MAX);
}

/// Something that one of four devices does, as far as its view lets it.
#[derive(Clone, Debug)]
enum Deed {
    Adds(Index),
    Revokes(Index, Index),
    Keeps(Index, Index),
    Demotes(Index, Index),
    Meets(Index, Index),
}

fn deed() -> impl Strategy<Value = Deed> {
    let one = any::<Index>;
    prop_oneof![
        one().prop_map(Deed::Adds),
        (one(), one()).prop_map(|(a, b)| Deed::Revokes(a, b)),
        (one(), one()).prop_map(|(a, b)| Deed::Keeps(a, b)),
        (one(), one()).prop_map(|(a, b)| Deed::Demotes(a, b)),
        (one(), one()).prop_map(|(a, b)| Deed::Meets(a, b)),
    ]
}

/// The views of four devices after all of it.
fn history(deeds: Vec<Deed>) -> Vec<Replica> {
    const ALL: [u8; 4] = [LAPTOP, PHONE, SERVER, THIEF];
    let household = household();
    let mut views: Vec<Replica> = ALL.map(|number| household.seen_by(number)).into();
    let mut next = 20;
    for deed in deeds {
        let whom = |index: Index| secret(ALL[index.index(4)]).id();
        // What a device may not do it does not.
        match deed {
            Deed::Adds(by) => {
                next += 1;
                let new = new_device(&secret(next), "more", Role::Member);
                drop(views[by.index(4)].try_say(|author, rng| author.add(new, NOON, rng)));
            }
            Deed::Revokes(by, whose) => {
                drop(views[by.index(4)].try_say(|it, rng| it.revoke(whom(whose), NOON, rng)));
            }
            Deed::Keeps(by, whose) => {
                drop(views[by.index(4)].try_say(|it, rng| it.keep(whom(whose), None, NOON, rng)));
            }
            Deed::Demotes(by, whose) => {
                drop(
                    views[by.index(4)].try_say(|author, rng| {
                        author.set_role(whom(whose), Role::Member, NOON, rng)
                    }),
                );
            }
            Deed::Meets(a, b) => {
                let other = views[b.index(4)].clone();
                views[a.index(4)].meet(&other);
            }
        }
    }
    views
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happened, and whoever is left with however old a copy: the words bring their owner in
    /// as an admin, and the thief out, and that stays when all that was ever said comes together.
    #[test]
    fn words_always_bring_their_owner_in(
        deeds in vec(deed(), 0..14),
        left: Index,
        since: Option<Index>,
    ) {
        let views = history(deeds);
        let left = &views[left.index(4)];
        let fetched = fetch(left);
        let of_thief: Vec<StatementId> = left
            .graph
            .statements()
            .filter(|signed| signed.author == id(THIEF))
            .map(statement_id)
            .collect();
        let since = since.filter(|_| !of_thief.is_empty()).map(|at| *at.get(&of_thief));
        let wish = Wish { lost: out(THIEF, since), ..comes_in() };
        let speech = speak(&root(), fetched, &wish, NOON, &mut rng()).unwrap();
        let mut all = left.clone();
        all.graph = speech.graph;
        for view in &views {
            all.meet(view);
        }
        prop_assert_eq!(all.standing(FRESH), "active");
        prop_assert_eq!(all.device(FRESH).role, Role::Admin);
        prop_assert_eq!(all.standing(THIEF), "revoked");
        if let Some(since) = since {
            let statement: Statement =
                codec::decode(&all.graph.get(&since).unwrap().bytes, 64 << 10).unwrap();
            prop_assert!(!matches!(statement.body().unwrap(), StatementBody::Genesis(_)));
            let verdict = all.state().verdicts[&since];
            prop_assert_ne!(verdict, crate::state::Verdict::Counts);
        }
        // Whoever is suspended now stays if the root says so, of itself or of who added it.
        for (device, known) in all.state().devices.iter().filter(|(_, it)| it.is_suspended()) {
            let wish = Wish { keep: vec![*device], ..Wish::default() };
            let speech = speak_of(&root(), all.graph.clone(), &wish, NOON, &mut rng());
            match speech {
                Ok(speech) => {
                    prop_assert!(speech.graph.state().devices[device].is_active());
                }
                Err(error) => {
                    prop_assert_eq!(error, SpeechError::AddedInDoubt { device: *device });
                    prop_assert_eq!(known.standing, Standing::Suspended { cause: known.added });
                }
            }
        }
    }

    /// Whatever a device answers in whatever order, nothing is taken that is not the whole fabric.
    #[test]
    fn nothing_but_the_fabric_is_taken(said in vec((0u8..5, any::<Index>(), any::<Index>()), 0..12)) {
        let real = household();
        let all: Vec<Signed> = real.graph.statements().cloned().collect();
        let forged = first(Some(&RootSecret::from_entropy([5; 32])));
        let mut fetch = Fetch::new(root(), id(FRESH), real.id(), Now::default());
        for (what, from, to) in said {
            let (a, b) = (from.index(all.len() + 1), to.index(all.len() + 1));
            let statements = all[a.min(b)..a.max(b)].to_vec();
            let message = match what {
                0 => TrustMessage::Have { fabric: real.graph.fabric(), ids: vec![] },
                1 => TrustMessage::Statements { statements },
                2 => TrustMessage::Merged { set: real.graph.set_digest() },
                3 => TrustMessage::Statements {
                    statements: forged.graph.statements().cloned().collect(),
                },
                _ => TrustMessage::Merged { set: Digest::of(&[]) },
            };
            fetch.handle_message(message);
        }
        if let Some(Ok(fetched)) = ended(&mut fetch) {
            prop_assert_eq!(fetched.graph.set_digest(), real.graph.set_digest());
        }
        prop_assert!(ended(&mut fetch).is_none(), "it ends once");
    }
}
