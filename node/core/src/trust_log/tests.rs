use expect_test::expect;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_protocol::{device::Kind, signed::Signed};
use weft_trust::{
    author::{Author, AuthorError, NewDevice, NewFabric, genesis},
    keyring::Keyring,
    recovery::RootSecret,
    secret::DeviceSecret,
};

use super::*;

const NOON: WallTime = WallTime::from_unix_millis(1_800_000_000_000);

fn secret(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[number; 32])
}

fn root() -> RootSecret {
    RootSecret::from_entropy([200; 32])
}

fn begun() -> Graph {
    let new = NewFabric {
        name: &"home".parse().unwrap(),
        root: Some(&root()),
        device: &secret(1),
        device_name: &"laptop".parse().unwrap(),
        kind: Kind::Laptop,
    };
    Graph::new(genesis(new, NOON, &mut ChaCha20Rng::from_seed([1; 32]))).unwrap()
}

/// Says something as a device, or as the root (0), and gives its id.
fn say(
    graph: &mut Graph,
    by: u8,
    say: impl FnOnce(&Author<'_>, &mut ChaCha20Rng) -> Result<Signed, AuthorError>,
) -> StatementId {
    let (agreement, key) = if by == 0 {
        (root().agreement().clone(), root().signing().clone())
    } else {
        (secret(by).agreement().clone(), secret(by).signing().clone())
    };
    let mut keyring = Keyring::new(agreement);
    keyring.learn(graph);
    let signed = say(
        &Author::new(graph, &keyring, &key),
        &mut ChaCha20Rng::from_seed([by.wrapping_add(7); 32]),
    )
    .unwrap();
    graph.insert(signed.clone()).unwrap();
    statement_id(&signed)
}

fn add(graph: &mut Graph, by: u8, number: u8, name: &str, role: Role, confirmed: bool) {
    let new = NewDevice {
        device: secret(number).id(),
        agreement: secret(number).agreement().public(),
        name: name.parse().unwrap(),
        kind: Kind::Phone,
        role,
        confirmed,
    };
    say(graph, by, |author, rng| author.add(new, NOON, rng));
}

fn revoke(graph: &mut Graph, by: u8, number: u8) -> StatementId {
    say(graph, by, |author, rng| author.revoke(secret(number).id(), NOON, rng))
}

fn lines(graph: &Graph) -> String {
    let line = |it: StatementView| {
        let verdict = match it.why {
            Some(why) => format!(" [{}: {why}]", it.verdict),
            None => String::new(),
        };
        format!("{}: {}{verdict}\n", it.kind, it.sentence)
    };
    trust_log(graph).into_iter().map(line).collect()
}

#[test]
fn a_life_of_a_fabric_reads_as_sentences() {
    let mut graph = begun();
    let id = |number: u8| secret(number).id();
    add(&mut graph, 1, 2, "phone", Role::Admin, true);
    add(&mut graph, 1, 3, "server", Role::Member, false);
    let name = |text: &str| text.parse::<Name>().unwrap();
    say(&mut graph, 1, |author, _| author.rename(Some(id(3)), name("attic"), NOON));
    say(&mut graph, 3, |author, _| author.rename(Some(id(3)), name("cellar"), NOON));
    say(&mut graph, 1, |author, _| author.rename(None, name("house"), NOON));
    say(&mut graph, 0, |author, _| author.rename(None, name("house"), NOON));
    say(&mut graph, 1, |author, rng| author.set_role(id(3), Role::Admin, NOON, rng));
    say(&mut graph, 3, |author, rng| author.set_role(id(2), Role::Member, NOON, rng));
    say(&mut graph, 2, |author, rng| author.rotate(&secret(4), NOON, rng));
    revoke(&mut graph, 1, 4);
    add(&mut graph, 1, 5, "phone", Role::Member, true);
    say(&mut graph, 0, |author, rng| {
        author.rotate_root(&RootSecret::from_entropy([201; 32]), NOON, rng)
    });
    expect![[r#"
        genesis: laptop began the fabric home (with recovery words)
        add: laptop added phone (qe4xodvi) (admin; words compared)
        add: laptop added server (member; unconfirmed: invite --yes)
        rename: laptop renamed server to attic
        rename: attic renamed itself cellar
        rename: laptop renamed the fabric to house
        rename: the recovery words vouched for the fabric
        set-role: laptop made cellar an admin
        set-role: cellar made phone (qe4xodvi) a member
        rotate: phone (qe4xodvi) replaced its key: qe4xodvi became zkj2yfyf
        revoke: laptop revoked phone (zkj2yfyf)
        add: laptop added phone (nz5bzxjj) (member; words compared)
        root-rotate: the recovery words were replaced by new ones
    "#]]
    .assert_eq(&lines(&graph));
}

#[test]
fn what_does_not_count_says_why() {
    let mut laptop = begun();
    add(&mut laptop, 1, 2, "phone", Role::Admin, true);
    add(&mut laptop, 1, 3, "server", Role::Admin, true);
    let mut phone = laptop.clone();
    revoke(&mut laptop, 1, 2);
    revoke(&mut phone, 2, 1);
    add(&mut phone, 2, 4, "tablet", Role::Member, true);
    for signed in phone.statements() {
        laptop.insert(signed.clone()).unwrap();
    }
    let duel = lines(&laptop);
    for line in [
        "revoke: laptop revoked phone [frozen: laptop is suspended]\n",
        "revoke: phone revoked laptop [frozen: phone is suspended]\n",
        "add: phone added tablet (member; words compared) [frozen: phone is suspended]\n",
    ] {
        assert!(duel.contains(line), "{line} is not in\n{duel}");
    }
    let against_laptop = trust_log(&laptop)
        .into_iter()
        .find(|it| it.sentence == "phone revoked laptop")
        .map(|it| it.id.short())
        .unwrap();
    say(&mut laptop, 3, |author, rng| author.keep(secret(1).id(), None, NOON, rng));
    let kept = lines(&laptop);
    for line in [
        "revoke: laptop revoked phone\n".to_owned(),
        "revoke: phone revoked laptop [void: phone is out, and who put it out did not know of this]\n"
            .to_owned(),
        format!("keep: server kept laptop, in spite of {against_laptop}\n"),
    ] {
        assert!(kept.contains(&line), "{line} is not in\n{kept}");
    }
}

proptest! {
    /// The log is a function of the set: in whatever order statements came, and however often.
    #[test]
    fn the_order_in_which_statements_came_changes_nothing(seed: u64, twice: bool) {
        let mut graph = begun();
        add(&mut graph, 1, 2, "phone", Role::Admin, true);
        add(&mut graph, 1, 3, "server", Role::Admin, true);
        let mut other = graph.clone();
        revoke(&mut graph, 1, 2);
        revoke(&mut other, 2, 1);
        add(&mut other, 2, 4, "phone", Role::Member, true);
        for signed in other.statements() {
            graph.insert(signed.clone()).unwrap();
        }
        say(&mut graph, 3, |author, rng| author.keep(secret(1).id(), None, NOON, rng));
        let mut statements: Vec<Signed> = graph.statements().cloned().collect();
        let genesis = statements.remove(0);
        if twice {
            statements.extend(statements.clone());
        }
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        for at in (1..statements.len()).rev() {
            let with = usize::try_from(rng.next_u64() % (at as u64 + 1)).unwrap();
            statements.swap(at, with);
        }
        let mut again = Graph::new(genesis).unwrap();
        for signed in statements {
            again.insert(signed).unwrap();
        }
        prop_assert_eq!(trust_log(&again), trust_log(&graph));
    }
}
