//! A device with its own view of a fabric, for tests that read as a story.

use ed25519_dalek::SigningKey;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng as _};
use weft_protocol::{
    device::{Kind, Role},
    id::{DeviceId, StatementId},
    signed::{Domain, Signed},
    statement::{Generation, KeyId, Name, Statement, StatementBody},
    time::WallTime,
};

use crate::{
    author::{Author, AuthorError, NewDevice, NewFabric, genesis},
    graph::{Graph, statement_id},
    keyring::Keyring,
    recovery::RootSecret,
    secret::{AgreementSecret, DeviceSecret},
    state::{Device, Standing, State},
};

pub(crate) const NOON: WallTime = WallTime::from_unix_millis(1_800_000_000_000);

/// Somebody who can speak about the fabric, with what it knows.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) graph: Graph,
    pub(crate) keyring: Keyring,
    key: SigningKey,
    rng: ChaCha20Rng,
}

pub(crate) fn secret(number: u8) -> DeviceSecret {
    DeviceSecret::from_seed(&[number; 32])
}

pub(crate) fn root() -> RootSecret {
    RootSecret::from_entropy([200; 32])
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The first device of a fabric with a root.
pub(crate) fn laptop() -> Replica {
    first(Some(&root()))
}

/// The first device of a fabric.
pub(crate) fn first(root: Option<&RootSecret>) -> Replica {
    let secret = secret(1);
    let (fabric, device_name) = (name("home"), name("laptop"));
    let new = NewFabric {
        name: &fabric,
        root,
        device: &secret,
        device_name: &device_name,
        kind: Kind::Laptop,
    };
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let genesis = genesis(new, NOON, &mut rng);
    let graph = Graph::new(genesis).unwrap();
    Replica::new(graph, secret.agreement().clone(), secret.signing().clone(), 1)
}

pub(crate) fn new_device(secret: &DeviceSecret, text: &str, role: Role) -> NewDevice {
    NewDevice {
        device: secret.id(),
        agreement: secret.agreement().public(),
        name: name(text),
        kind: Kind::Phone,
        role,
        confirmed: true,
    }
}

impl Replica {
    pub(crate) fn new(graph: Graph, secret: AgreementSecret, key: SigningKey, seed: u8) -> Self {
        let mut keyring = Keyring::new(secret);
        keyring.learn(&graph);
        Self { graph, keyring, key, rng: ChaCha20Rng::from_seed([seed; 32]) }
    }

    /// Another device's view, equal to this one.
    pub(crate) fn seen_by(&self, number: u8) -> Self {
        let secret = secret(number);
        let key = secret.signing().clone();
        Self::new(self.graph.clone(), secret.agreement().clone(), key, number)
    }

    /// The root's view, equal to this one.
    pub(crate) fn seen_by_root(&self) -> Self {
        let root = root();
        Self::new(self.graph.clone(), root.agreement().clone(), root.signing().clone(), 200)
    }

    pub(crate) fn id(&self) -> DeviceId {
        DeviceId::from_bytes(self.key.verifying_key().to_bytes())
    }

    pub(crate) fn state(&self) -> &State {
        self.graph.state()
    }

    pub(crate) fn device(&self, number: u8) -> &Device {
        &self.state().devices[&secret(number).id()]
    }

    pub(crate) fn device_standing(&self, number: u8) -> Standing {
        self.device(number).standing
    }

    pub(crate) fn standing(&self, number: u8) -> &'static str {
        match self.state().devices.get(&secret(number).id()).map(|device| device.standing) {
            Some(Standing::Active) => "active",
            Some(Standing::Suspended { .. }) => "suspended",
            Some(Standing::Revoked { .. }) => "revoked",
            None => "unknown",
        }
    }

    /// Takes a statement that was made here or came from another.
    pub(crate) fn take(&mut self, signed: &Signed) -> StatementId {
        drop(self.graph.insert(signed.clone()));
        self.keyring.learn(&self.graph);
        statement_id(signed)
    }

    pub(crate) fn meet(&mut self, other: &Self) {
        for signed in other.graph.statements() {
            self.take(signed);
        }
    }

    pub(crate) fn author(&self) -> Author<'_> {
        Author::new(&self.graph, &self.keyring, &self.key)
    }

    pub(crate) fn try_say(
        &mut self,
        say: impl FnOnce(&Author<'_>, &mut ChaCha20Rng) -> Result<Signed, AuthorError>,
    ) -> Result<StatementId, AuthorError> {
        let author = Author::new(&self.graph, &self.keyring, &self.key);
        let signed = say(&author, &mut self.rng)?;
        Ok(self.take(&signed))
    }

    pub(crate) fn say(
        &mut self,
        say: impl FnOnce(&Author<'_>, &mut ChaCha20Rng) -> Result<Signed, AuthorError>,
    ) -> StatementId {
        self.try_say(say).unwrap()
    }

    pub(crate) fn add(&mut self, number: u8, role: Role) -> StatementId {
        let new = new_device(&secret(number), &format!("device-{number}"), role);
        self.say(|author, rng| author.add(new, NOON, rng))
    }

    pub(crate) fn revoke(&mut self, number: u8) -> StatementId {
        self.say(|author, rng| author.revoke(secret(number).id(), NOON, rng))
    }

    pub(crate) fn keep(&mut self, number: u8) -> StatementId {
        self.say(|author, rng| author.keep(secret(number).id(), None, NOON, rng))
    }

    pub(crate) fn set_role(&mut self, number: u8, role: Role) -> StatementId {
        self.say(|author, rng| author.set_role(secret(number).id(), role, NOON, rng))
    }

    pub(crate) fn rename(&mut self, number: u8, to: &str) -> StatementId {
        self.say(|author, _| author.rename(Some(secret(number).id()), name(to), NOON))
    }

    /// Signs whatever is asked, as a thief's program would, and takes it if the graph does.
    pub(crate) fn force(&mut self, body: StatementBody) -> Signed {
        let heads = self.graph.heads();
        self.force_at(heads, body)
    }

    /// Signs as if only `deps` were known.
    pub(crate) fn force_at(&mut self, deps: Vec<StatementId>, body: StatementBody) -> Signed {
        let prev = self.graph.newest_of(&self.id());
        let statement = Statement {
            fabric: Some(self.graph.fabric()),
            seq: prev.map_or(0, |(seq, _)| seq + 1),
            prev: prev.map(|(_, id)| id),
            deps,
            time: NOON,
            kind: body.kind(),
            body: body.encode(),
        };
        let signed = Signed::new(Domain::Statement, &statement, &self.key);
        self.take(&signed);
        signed
    }

    /// The data key that comes next, sealed to nobody.
    pub(crate) fn next_generation(&self) -> Generation {
        let number = self.state().next_generation().unwrap();
        Generation { number, id: KeyId::of(&[number.to_be_bytes()[3]; 32]) }
    }
}
