//! Properties of any history, however it is heard.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{graph::Graph, keyring::Keyring};

// A random history: who speaks, knowing what, and what it says.

#[derive(Clone, Debug)]
struct Step {
    author: u8,
    /// Which earlier statements it knows, besides its own.
    knows: [Index; 2],
    /// Whether it knows its own earlier ones: if not, it is a clone.
    honest: bool,
    what: What,
    subject: u8,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Add(Role),
    Revoke,
    Demote,
    Promote,
    Keep,
    Rename,
    Epoch,
    Rotate,
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        5 => Just(What::Add(Role::Admin)),
        1 => Just(What::Add(Role::Member)),
        4 => Just(What::Revoke),
        1 => Just(What::Demote),
        1 => Just(What::Promote),
        4 => Just(What::Keep),
        1 => Just(What::Rename),
        1 => Just(What::Epoch),
        1 => Just(What::Rotate),
    ];
    // The root is 0.
    (0u8..6, any::<[Index; 2]>(), prop::bool::weighted(0.93), what, 1u8..6).prop_map(
        |(author, knows, honest, what, subject)| Step { author, knows, honest, what, subject },
    )
}

/// Plays the steps; those that nobody could take are left out.
fn play(steps: &[Step]) -> Vec<Signed> {
    let mut laptop = laptop();
    laptop.add(PHONE, Role::Admin);
    laptop.add(SERVER, Role::Admin);
    let mut all: Vec<Signed> = laptop.graph.statements().cloned().collect();
    let whole = |all: &[Signed]| Graph::from_statements(all.iter().cloned()).unwrap();
    for step in steps {
        let graph = whole(&all);
        let author = if step.author == 0 { root().keys().key } else { secret(step.author).id() };
        let own = all.iter().filter(|signed| step.honest && signed.author == author);
        let tops: Vec<StatementId> = step
            .knows
            .iter()
            .map(|index| statement_id(index.get(&all)))
            .chain(own.map(statement_id))
            .collect();
        let known: Vec<Signed> = tops.iter().flat_map(|top| graph.ancestry(top)).cloned().collect();
        let past = whole(&known);
        let mut speaker = if step.author == 0 {
            let root = root();
            Replica::new(past, root.agreement().clone(), root.signing().clone(), 0)
        } else {
            let secret = secret(step.author);
            Replica::new(past, secret.agreement().clone(), secret.signing().clone(), 0)
        };
        let subject = secret(step.subject).id();
        let said = speaker.try_say(|author, rng| match step.what {
            What::Add(role) => {
                author.add(new_device(&secret(step.subject), "device", role), NOON, rng)
            }
            What::Revoke => author.revoke(subject, NOON, rng),
            What::Demote => author.set_role(subject, Role::Guest, NOON, rng),
            What::Promote => author.set_role(subject, Role::Admin, NOON, rng),
            What::Keep => author.keep(subject, None, NOON, rng),
            What::Rename => author.rename(Some(subject), name("other"), NOON),
            What::Epoch => author.epoch(vec![statement_id(&known[0])], NOON),
            What::Rotate => author.rotate(&secret(step.subject + 10), NOON, rng),
        });
        if let Ok(id) = said {
            let signed = speaker.graph.get(&id).unwrap().clone();
            if !graph.contains(&id) {
                all.push(signed);
            }
        }
    }
    all
}

/// What is against a device: removals of it, and its forks.
fn questioned(state: &State, graph: &Graph, device: &DeviceId) -> bool {
    let Some(found) = state.devices.get(device) else { return false };
    match found.standing {
        Standing::Active => false,
        Standing::Revoked { .. } => true,
        // One whose adder is suspended waits for that one.
        Standing::Suspended { cause } => match graph.body(&cause) {
            Some(StatementBody::Add(add)) => add.device != *device,
            Some(StatementBody::Rotate(rotate)) => rotate.device != *device,
            _ => true,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_same_set_gives_the_same_state(
        steps in vec(step(), 1..20),
        order in vec(any::<Index>(), 60),
    ) {
        let all = play(&steps);
        let expected = Graph::from_statements(all.clone()).unwrap();
        let mut graph = Graph::new(all[0].clone()).unwrap();
        // In any order, and some more than once.
        for index in &order {
            drop(graph.insert(index.get(&all).clone()));
        }
        for signed in all.iter().rev() {
            drop(graph.insert(signed.clone()));
        }
        prop_assert_eq!(graph.state(), expected.state());
        prop_assert_eq!(graph.heads(), expected.heads());
        prop_assert_eq!(graph.set_digest(), expected.set_digest());
        prop_assert!(graph.missing().is_empty());
        let again: Vec<&Signed> = graph.statements().collect();
        prop_assert_eq!(again, expected.statements().collect::<Vec<_>>());
    }

    #[test]
    fn more_statements_bring_a_device_back_only_by_a_keep(
        steps in vec(step(), 1..24),
        some in vec(any::<Index>(), 1..5),
        more in vec(any::<Index>(), 1..5),
    ) {
        let all = play(&steps);
        let whole = Graph::from_statements(all.clone()).unwrap();
        let closure = |indices: &[Index]| -> Vec<Signed> {
            let tops = indices.iter().map(|index| statement_id(index.get(&all)));
            tops.flat_map(|top| whole.ancestry(&top)).cloned().collect()
        };
        let less = closure(&some);
        let greater = [less.clone(), closure(&more)].concat();
        let less = Graph::from_statements(less).unwrap();
        let greater = Graph::from_statements(greater).unwrap();
        for (id, device) in &greater.state().devices {
            if !device.is_active() || !questioned(less.state(), &less, id) {
                continue;
            }
            let kept = greater.ids().any(|statement| {
                matches!(greater.body(statement), Some(StatementBody::Keep(keep)) if keep.device == *id)
                    && greater.state().verdicts[statement] == Verdict::Counts
            });
            prop_assert!(kept, "{id:?} came back: {:?}", less.state().devices[id].standing);
        }
    }

    #[test]
    fn a_relay_that_changes_statements_adds_nobody(
        steps in vec(step(), 1..12), at: Index, byte: Index, bit in 0u8..8,
    ) {
        let all = play(&steps);
        let expected = Graph::from_statements(all.clone()).unwrap();
        let mut changed = at.get(&all).clone();
        *byte.get_mut(&mut changed.bytes) ^= 1 << bit;
        let mut graph = Graph::new(all[0].clone()).unwrap();
        prop_assert!(graph.insert(changed).is_err());
        for signed in &all {
            drop(graph.insert(signed.clone()));
        }
        prop_assert_eq!(graph.state(), expected.state());
    }

    #[test]
    fn every_member_was_let_in_by_one_who_might(steps in vec(step(), 1..24)) {
        let all = play(&steps);
        let graph = Graph::from_statements(all).unwrap();
        let state = graph.state();
        for (id, device) in state.members() {
            prop_assert_eq!(state.verdicts[&device.added], Verdict::Counts);
            prop_assert!(state.revocation(id).is_none());
        }
        // Nobody who is out was sealed the key that writes, unless status says so.
        if state.exposed_to.is_none() {
            for (id, device) in &state.devices {
                let replaced = matches!(device.standing, Standing::Revoked { by }
                    if matches!(graph.body(&by), Some(StatementBody::Rotate(_))));
                if state.revocation(id).is_some() && !replaced {
                    let number = (1u8..40).find(|number| secret(*number).id() == *id).unwrap();
                    let mut keyring = Keyring::new(secret(number).agreement().clone());
                    keyring.learn(&graph);
                    prop_assert_eq!(keyring.data(state.writing), None);
                }
            }
        }
    }
}
