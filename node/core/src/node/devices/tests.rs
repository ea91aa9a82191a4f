use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use weft_protocol::{
    device::Kind,
    id::BootId,
    row::{MemoryRows, Rows as _, Table},
    signed::Signed,
};
use weft_trust::{
    author::{Author, AuthorError, NewDevice, NewFabric, genesis},
    graph::Graph,
    keyring::Keyring,
    recovery::RootSecret,
    secret::DeviceSecret,
};

use super::*;
use crate::{Input, NodeConfig, Output, audit, door::Command, membership, node::tests::context};

const LAPTOP: u8 = 1;
const PHONE: u8 = 2;
const SERVER: u8 = 3;
const OLD_PHONE: u8 = 4;

fn secret(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[number; 32])
}

/// What was said so far.
#[derive(Clone)]
struct Fabric(Graph);

impl Fabric {
    fn begun(root: Option<&RootSecret>) -> Self {
        let new = NewFabric {
            name: &"home".parse().unwrap(),
            root,
            device: &secret(LAPTOP),
            device_name: &"laptop".parse().unwrap(),
            kind: Kind::Laptop,
        };
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        Self(Graph::new(genesis(new, WallTime::default(), &mut rng)).unwrap())
    }

    /// Laptop and phone are admins, the server is a member, and there was another phone before.
    fn of_three() -> Self {
        let mut it = Self::begun(None);
        it.add(OLD_PHONE, "phone", Role::Member, false);
        it.revoke(LAPTOP, OLD_PHONE);
        it.add(PHONE, "phone", Role::Admin, true);
        it.add(SERVER, "server", Role::Member, false);
        it
    }

    fn say(
        &mut self,
        by: u8,
        say: impl FnOnce(&Author<'_>, &mut ChaCha20Rng) -> Result<Signed, AuthorError>,
    ) {
        let secret = secret(by);
        let mut keyring = Keyring::new(secret.agreement().clone());
        keyring.learn(&self.0);
        let mut rng = ChaCha20Rng::from_seed([by; 32]);
        let signed = say(&Author::new(&self.0, &keyring, secret.signing()), &mut rng).unwrap();
        self.0.insert(signed).unwrap();
    }

    fn add(&mut self, number: u8, name: &str, role: Role, confirmed: bool) {
        let new = NewDevice {
            device: secret(number).id(),
            agreement: secret(number).agreement().public(),
            name: name.parse().unwrap(),
            kind: Kind::Phone,
            role,
            confirmed,
        };
        self.say(LAPTOP, |author, rng| author.add(new, WallTime::default(), rng));
    }

    fn revoke(&mut self, by: u8, number: u8) {
        self.say(by, |author, rng| author.revoke(secret(number).id(), WallTime::default(), rng));
    }

    fn meet(&mut self, other: &Self) {
        for signed in other.0.statements() {
            self.0.insert(signed.clone()).unwrap();
        }
    }

    /// The node of one of the devices.
    fn seen_by(&self, number: u8) -> Seen {
        let mut rows = MemoryRows::default();
        rows.apply(membership::store(&self.0.statements().cloned().collect::<Vec<_>>()));
        let config = NodeConfig {
            secret: secret(number),
            boot: BootId { counter: 1, random: 1 },
            seed: [number; 32],
            agents: vec![],
        };
        let node = Node::start(config, context(&rows)).unwrap();
        let mut it = Seen { node, rows, replies: vec![] };
        it.settle();
        it
    }
}

/// A node alone, and its disk.
struct Seen {
    node: Node,
    rows: MemoryRows,
    replies: Vec<Reply>,
}

impl Seen {
    fn feed(&mut self, input: Input) {
        self.node.handle_input(input, context(&self.rows));
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.node.poll_output() {
            if let Output::Persist { ticket, writes, .. } = output {
                self.rows.apply(writes);
                self.node.handle_input(Input::Persisted(ticket), context(&self.rows));
            } else if let Output::Reply { reply, .. } = output {
                self.replies.push(reply);
            }
        }
    }

    fn ask(&mut self, command: Command) -> Reply {
        self.feed(Input::Command { door: DoorId(1), command });
        self.replies.pop().expect("each command is answered")
    }

    /// The way and the words of a refusal.
    fn refused(&mut self, command: Command) -> (Refusal, String) {
        let Reply::Refused { refusal, reason } = self.ask(command) else {
            panic!("it was not refused")
        };
        (refusal, reason)
    }

    fn view(&mut self, device: &str) -> DeviceView {
        let Reply::Device(view) = self.ask(Command::Device { device: device.into() }) else {
            panic!("there is no device {device}")
        };
        *view
    }

    fn warnings(&mut self) -> Vec<String> {
        let Reply::Status(status) = self.ask(Command::Status) else { panic!("it answers") };
        status.warnings
    }

    /// What the audit chain says of statements.
    fn recorded(&self) -> Vec<String> {
        let rows = self.rows.scan_from(Table::Audit, &[], 0, usize::MAX).unwrap();
        let bodies = rows.into_iter().map(|(at, it)| audit::read(at, &it).unwrap().1.body);
        bodies
            .filter_map(|body| if let Body::Trust { said, .. } = body { said } else { None })
            .collect()
    }
}

fn revoke(device: &str) -> Command {
    Command::Revoke { device: device.into() }
}

fn keep(device: &str) -> Command {
    Command::Keep { device: device.into() }
}

fn role(device: &str, role: Role, confirmed: bool) -> Command {
    Command::SetRole { device: device.into(), role, confirmed }
}

fn rename(device: &str, name: &str) -> Command {
    Command::Rename { device: Some(device.into()), name: name.parse().unwrap() }
}

#[test]
fn of_two_of_one_name_the_one_that_belongs_is_meant_and_ids_name_the_others() {
    let mut laptop = Fabric::of_three().seen_by(LAPTOP);
    let (phone, old) = (secret(PHONE).id(), secret(OLD_PHONE).id());
    assert_eq!(laptop.view("phone").id, phone);
    assert_eq!(laptop.view("PHONE").id, phone);
    assert_eq!(laptop.view(&old.to_string()).id, old);
    assert_eq!(laptop.view(&old.short()).state, "revoked");
    let (refusal, why) = laptop.refused(Command::Device { device: "toaster".into() });
    assert_eq!(refusal, Refusal::NotFound);
    assert_eq!(why, "there is no device \"toaster\"; there are laptop, phone, server");
    // When both are out, the name alone says too little.
    assert_eq!(laptop.ask(revoke("phone")), Reply::Done);
    let (refusal, why) = laptop.refused(revoke("phone"));
    assert_eq!(refusal, Refusal::Invalid);
    assert!(why.contains(&phone.short()) && why.contains(&old.short()), "{why}");
    let (refusal, why) = laptop.refused(revoke(&phone.short()));
    assert_eq!((refusal, &*why), (Refusal::NotFound, "phone was put out already"));
}

#[test]
fn who_may_not_is_told_who_may() {
    let fabric = Fabric::of_three();
    let mut server = fabric.seen_by(SERVER);
    for command in [revoke("phone"), rename("phone", "x"), role("phone", Role::Member, true)] {
        let (refusal, why) = server.refused(command.clone());
        assert_eq!(refusal, Refusal::Denied, "{command:?}");
        assert!(why.contains("only an admin may"), "{why}");
        assert!(why.ends_with("the admins are laptop, phone"), "{why}");
    }
    let fabric_name = Command::Rename { device: None, name: "house".parse().unwrap() };
    assert_eq!(server.refused(fabric_name.clone()).0, Refusal::Denied);
    // Its own name is its own.
    assert_eq!(server.ask(rename("server", "attic")), Reply::Done);
    assert!(server.view("attic").this);

    let mut laptop = fabric.seen_by(LAPTOP);
    let (_, why) = laptop.refused(revoke("laptop"));
    assert!(why.ends_with("another admin must do it: phone"), "{why}");
    assert_eq!(laptop.ask(fabric_name), Reply::Done);
    assert_eq!(laptop.node.membership().state().name.as_str(), "house");
    let (refusal, why) = laptop.refused(rename("server", "Phone"));
    assert_eq!((refusal, &*why), (Refusal::Invalid, "another device is called Phone"));
}

#[test]
fn the_last_admin_stays_one() {
    let mut laptop = Fabric::of_three().seen_by(LAPTOP);
    assert_eq!(laptop.ask(role("phone", Role::Member, false)), Reply::Done);
    let (refusal, why) = laptop.refused(role("laptop", Role::Member, false));
    assert_eq!(refusal, Refusal::Denied);
    assert!(why.contains("laptop is the last admin; make another device an admin first"), "{why}");
    let (_, why) = laptop.refused(revoke("laptop"));
    assert!(why.contains("there is no other admin; make one first"), "{why}");
}

#[test]
fn nobody_becomes_admin_without_a_yes_on_a_screen() {
    let mut laptop = Fabric::of_three().seen_by(LAPTOP);
    let (refusal, why) = laptop.refused(role("server", Role::Admin, false));
    assert_eq!(refusal, Refusal::Denied);
    assert!(why.contains("only by a person's yes"), "{why}");
    assert_eq!(laptop.view("server").role, Role::Member);
    assert_eq!(laptop.ask(role("server", Role::Admin, true)), Reply::Done);
    assert_eq!(laptop.view("server").role, Role::Admin);
    for unbuilt in [Role::Keeper, Role::Guest] {
        let (refusal, why) = laptop.refused(role("server", unbuilt, true));
        assert_eq!(refusal, Refusal::Invalid);
        assert!(why.contains("is not built yet"), "{why}");
    }
    let (refusal, why) = laptop.refused(role("phone", Role::Admin, true));
    assert_eq!((refusal, &*why), (Refusal::Invalid, "phone is admin already"));
}

/// Laptop and phone put each other out; the server is an admin too.
fn duel() -> Fabric {
    let mut fabric = Fabric::of_three();
    let id = secret(SERVER).id();
    fabric.say(LAPTOP, |author, rng| author.set_role(id, Role::Admin, WallTime::default(), rng));
    let mut other = fabric.clone();
    fabric.revoke(LAPTOP, PHONE);
    other.revoke(PHONE, LAPTOP);
    fabric.meet(&other);
    fabric
}

#[test]
fn a_suspended_device_says_why_and_how_it_comes_back() {
    let fabric = duel();
    let mut laptop = fabric.seen_by(LAPTOP);
    let warnings = laptop.warnings();
    // There was another phone before, so this one comes with its id.
    let phone = secret(PHONE).id().short();
    let own = format!(
        "this device is suspended: phone ({phone}) revoked it, and is in doubt itself; weft device \
         keep laptop on server"
    );
    assert_eq!(warnings.first(), Some(&own));
    let (refusal, why) = laptop.refused(keep("laptop"));
    assert_eq!(refusal, Refusal::Denied);
    assert!(why.contains("this device is suspended and may not"), "{why}");

    let mut server = fabric.seen_by(SERVER);
    let standing = server.view("laptop").standing.expect("it is suspended");
    assert_eq!((standing.state, &*standing.remedy), ("suspended", "weft device keep laptop"));
    assert_eq!(standing.by, format!("phone ({phone})"));
    assert!(server.warnings().iter().any(|it| it.starts_with("phone is suspended: ")));
    let (refusal, why) = server.refused(role("laptop", Role::Member, true));
    assert_eq!(refusal, Refusal::Denied);
    assert_eq!(why, "laptop is suspended; first weft device keep laptop");

    assert_eq!(server.ask(keep("laptop")), Reply::Done);
    assert_eq!(server.view("laptop").standing, None);
    // The laptop stands again, and so does what it said of the phone.
    let id = secret(PHONE).id().to_string();
    assert_eq!(server.view(&id).state, "revoked");
    assert_eq!(server.refused(keep("laptop")).0, Refusal::Invalid);
    let (refusal, why) = server.refused(keep(&id));
    assert_eq!(refusal, Refusal::NotFound);
    assert!(why.contains("which is for good") && why.contains("weft invite"), "{why}");
}

#[test]
fn a_device_that_a_suspended_one_added_follows_it() {
    let mut fabric = Fabric::of_three();
    let id = secret(SERVER).id();
    fabric.say(LAPTOP, |author, rng| author.set_role(id, Role::Admin, WallTime::default(), rng));
    let mut other = fabric.clone();
    other.revoke(PHONE, LAPTOP);
    fabric.revoke(LAPTOP, PHONE);
    fabric.add(5, "tablet", Role::Member, true);
    fabric.meet(&other);
    let mut server = fabric.seen_by(SERVER);
    let (refusal, why) = server.refused(keep("tablet"));
    assert_eq!(refusal, Refusal::Denied);
    let expected = "tablet can't be kept: laptop added it, and is in doubt itself; it follows \
                    when laptop stands again: weft device keep laptop";
    assert_eq!(why, expected);
    assert_eq!(server.ask(keep("laptop")), Reply::Done);
    assert_eq!(server.view("tablet").standing, None);
}

#[test]
fn a_data_key_that_one_who_is_out_has_is_told_and_mended() {
    let mut fabric = Fabric::of_three();
    fabric.add(5, "tablet", Role::Member, true);
    let mut other = fabric.clone();
    fabric.revoke(LAPTOP, SERVER);
    other.revoke(PHONE, 5);
    fabric.meet(&other);
    let exposed = fabric.0.state().exposed_to.expect("each sealed its key to the other's subject");
    let mut laptop = fabric.seen_by(LAPTOP);
    let says_so = |it: &String| it.contains(&format!("weft device revoke {}", exposed.short()));
    assert!(laptop.warnings().iter().any(says_so), "{:?}", laptop.warnings());
    assert_eq!(laptop.ask(revoke(&exposed.short())), Reply::Done);
    assert_eq!(laptop.node.membership().state().exposed_to, None);
    assert!(!laptop.warnings().iter().any(says_so));
}

#[test]
fn the_audit_record_names_what_was_said_and_who_was_not_confirmed() {
    let mut server = Fabric::of_three().seen_by(SERVER);
    let known = server.recorded();
    let unconfirmed = "laptop added server (member; unconfirmed: invite --yes)";
    assert_eq!(
        known.first().map(String::as_str),
        Some("laptop began the fabric home (without recovery words)")
    );
    assert!(known.iter().any(|it| it == unconfirmed), "{known:#?}");
    assert_eq!(server.ask(rename("server", "attic")), Reply::Done);
    assert_eq!(server.recorded().last().map(String::as_str), Some("server renamed itself attic"));
}

#[test]
fn of_a_device_is_known_who_added_it_and_how() {
    let mut laptop = Fabric::of_three().seen_by(LAPTOP);
    let phone = laptop.view("phone");
    assert_eq!((phone.added_by.as_deref(), phone.confirmed), (Some("laptop"), Some(true)));
    assert_eq!(laptop.view("laptop").confirmed, None, "it began the fabric");
    assert_eq!(
        (phone.state.as_str(), phone.last_heard, phone.is_relayed),
        ("never seen", None, None)
    );
    let device = secret(PHONE).id();
    laptop.feed(Input::Connected { device, address: "/ip4/127.0.0.1/tcp/1/p2p-circuit".into() });
    laptop.feed(Input::RoundTrip { device, micros: 700 });
    let phone = laptop.view("phone");
    assert_eq!((phone.state.as_str(), phone.is_relayed), ("here", Some(true)));
    assert_eq!((phone.round_trip_micros, phone.last_heard), (Some(700), Some(WallTime::default())));
    laptop.feed(Input::Disconnected { device });
    assert_eq!(laptop.view("phone").round_trip_micros, None);
}
