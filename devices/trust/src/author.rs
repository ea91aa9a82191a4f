//! Making statements.
//!
//! An [`Author`] speaks for one key, about one graph. What it makes counts at once: each statement
//! is tried on a copy of the graph, and one that would have no effect is an error instead.

use ed25519_dalek::SigningKey;
use rand_core::CryptoRng;
use thiserror::Error;
use weft_protocol::{
    codec,
    device::{Kind, Role},
    id::{AgreementKey, DeviceId, FabricId, StatementId},
    signed::{Domain, Signed},
    statement::{
        Add, DEPS_MAX, Epoch, Generation, Genesis, Keep, KeyName, Name, Rename, Revoke, RootRotate,
        Rotate, SealedKey, SetRole, Statement, StatementBody, Succession,
    },
    time::WallTime,
};

use crate::{
    graph::{Graph, StatementError, statement_id},
    keyring::{FabricKey, Keyring},
    recovery::RootSecret,
    secret::DeviceSecret,
    state::{Standing, State, Verdict},
};

/// Why a statement was not made.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum AuthorError {
    /// The author may not say this: it is no admin, or the device's standing forbids it.
    #[error("{what}: this device may not")]
    NotAllowed {
        /// What was to be said.
        what: &'static str,
    },
    /// Statements of a newer program are in the graph.
    #[error("{what}: the fabric uses a newer version of weft; update this device first")]
    UpdateNeeded {
        /// What was to be said.
        what: &'static str,
    },
    /// No such device.
    #[error("{what}: no device {} is in the fabric", device.short())]
    UnknownDevice {
        /// What was to be said.
        what: &'static str,
        /// Of whom.
        device: DeviceId,
    },
    /// The device that is asked to put itself out would know the next key.
    #[error("revoke this device: another admin must do it")]
    Oneself,
    /// A device that is no admin says only so much about itself.
    #[error("{what}: this device has renamed itself too often; an admin can")]
    TooOften {
        /// What was to be said.
        what: &'static str,
    },
    /// A key makes only so many statements.
    #[error("{what}: this key has made all statements that it may; replace it")]
    Spent {
        /// What was to be said.
        what: &'static str,
    },
    /// Afterwards nobody could change the fabric any more.
    #[error("{what}: it is the last admin and there are no recovery words")]
    LastAdmin {
        /// What was to be said.
        what: &'static str,
    },
}

/// A fabric that is to begin.
#[derive(Clone, Copy, Debug)]
pub struct NewFabric<'a> {
    /// Its name.
    pub name: &'a Name,
    /// Its root; none: there will be no recovery.
    pub root: Option<&'a RootSecret>,
    /// The first device's keys.
    pub device: &'a DeviceSecret,
    /// The first device's name.
    pub device_name: &'a Name,
    /// The first device's kind.
    pub kind: Kind,
}

/// A device that is to join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewDevice {
    /// Its key.
    pub device: DeviceId,
    /// Its agreement key.
    pub agreement: AgreementKey,
    /// The name that it asks for; a number is added where a member has it already.
    pub name: Name,
    /// Its kind.
    pub kind: Kind,
    /// Its role. Without `confirmed`, `admin` becomes `member`.
    pub role: Role,
    /// Whether a person compared the words and said yes on the author's screen.
    pub confirmed: bool,
}

/// Begins a fabric: makes its keys and its `Genesis`.
pub fn genesis(new: NewFabric<'_>, wall: WallTime, rng: &mut impl CryptoRng) -> Signed {
    let addressing = FabricKey::draw(rng);
    let data = FabricKey::draw(rng);
    let generation = Generation { number: 0, id: data.id() };
    let root = new.root.map(RootSecret::keys);
    let agreement = new.device.agreement().public();
    let mut sealed = Vec::new();
    for to in std::iter::once(agreement).chain(root.map(|root| root.agreement)) {
        sealed.extend(addressing.seal(KeyName::Addressing(addressing.id()), to, rng));
        sealed.extend(data.seal(KeyName::Data(generation), to, rng));
    }
    let body = StatementBody::from(Genesis {
        fabric: new.name.clone(),
        root,
        name: new.device_name.clone(),
        kind: new.kind,
        agreement,
        addressing: addressing.id(),
        generation,
        sealed,
    });
    let statement = Statement {
        fabric: None,
        seq: 0,
        prev: None,
        deps: Vec::new(),
        time: wall,
        kind: body.kind(),
        body: body.encode(),
    };
    Signed::new(Domain::Statement, &statement, new.device.signing())
}

/// Speaks for one key about one graph.
#[derive(Debug)]
pub struct Author<'a> {
    graph: &'a Graph,
    keyring: &'a Keyring,
    key: &'a SigningKey,
    /// What the author is taken to know; none: all of the graph.
    heads: Option<Vec<StatementId>>,
}

impl<'a> Author<'a> {
    /// Speaks for `key`, a device's or the root's, with the fabric's keys that it has.
    pub const fn new(graph: &'a Graph, keyring: &'a Keyring, key: &'a SigningKey) -> Self {
        Self { graph, keyring, key, heads: None }
    }

    /// Speaks as one who knows the graph only up to `heads`, so that what came after does not
    /// stand: how a revocation reaches back to before a theft.
    ///
    /// A device knows what it said itself all the same, else its statements would fork. The root's
    /// never do.
    #[must_use]
    pub fn knowing(mut self, heads: Vec<StatementId>) -> Self {
        self.heads = Some(heads);
        self
    }

    /// Adds a device.
    ///
    /// # Errors
    ///
    /// The author is no admin, or the device's key has been in the fabric before.
    pub fn add(
        &self,
        new: NewDevice,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Signed, AuthorError> {
        let state = self.state();
        let role = if new.confirmed { new.role } else { new.role.max(Role::Member) };
        let sealed = if role.holds_data() {
            self.keyring.seal_all(&state, new.agreement, rng)
        } else {
            Vec::new()
        };
        let body = Add {
            device: new.device,
            agreement: new.agreement,
            name: self.graph.state().free_name(&new.name),
            kind: new.kind,
            role,
            confirmed: new.confirmed,
            sealed,
        };
        self.say("add a device", body.into(), wall)
    }

    /// Puts a device out, and makes the data key for those who remain.
    ///
    /// Of a device that is out already it makes a new key: see
    /// [`State::exposed_to`](crate::state::State::exposed_to).
    ///
    /// # Errors
    ///
    /// The author is no admin, the device is unknown, the author itself, or the last admin of a
    /// fabric without root.
    pub fn revoke(
        &self,
        device: DeviceId,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Signed, AuthorError> {
        let what = "revoke a device";
        if device == self.id() {
            return Err(AuthorError::Oneself);
        }
        self.known(what, &device)?;
        let (generation, sealed) = self.next_key(what, &device, rng)?;
        self.say(what, Revoke { device, generation, sealed }.into(), wall)
    }

    /// Gives a device another role.
    ///
    /// # Errors
    ///
    /// The author is no admin, the device does not belong, or it is the last admin of a fabric
    /// without root.
    pub fn set_role(
        &self,
        device: DeviceId,
        role: Role,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Signed, AuthorError> {
        let what = "set a device's role";
        let state = self.state();
        let subject = self.known(what, &device)?;
        let (generation, sealed) = match (subject.role.holds_data(), role.holds_data()) {
            (true, false) => {
                let (generation, sealed) = self.next_key(what, &device, rng)?;
                (Some(generation), sealed)
            }
            (false, true) => (None, self.keyring.seal_all(&state, subject.agreement, rng)),
            (true, true) | (false, false) => (None, Vec::new()),
        };
        self.say(what, SetRole { device, role, generation, sealed }.into(), wall)
    }

    /// Gives a device, or the fabric, another name.
    ///
    /// # Errors
    ///
    /// The author is no admin and not that device, or the device is unknown.
    pub fn rename(
        &self,
        device: Option<DeviceId>,
        name: Name,
        wall: WallTime,
    ) -> Result<Signed, AuthorError> {
        let what = "rename";
        if let Some(device) = &device {
            self.known(what, device)?;
        }
        self.say(what, Rename { device, name }.into(), wall)
    }

    /// Lets a suspended device stay, for the cause that its standing names, or for `cause`.
    ///
    /// # Errors
    ///
    /// The author is neither root nor a standing admin, or the device is not suspended.
    pub fn keep(
        &self,
        device: DeviceId,
        cause: Option<StatementId>,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Signed, AuthorError> {
        let what = "keep a suspended device";
        let state = self.state();
        let subject = self.known(what, &device)?;
        let cause = match (cause, subject.standing) {
            (Some(cause), _) | (None, Standing::Suspended { cause }) => cause,
            (None, Standing::Active | Standing::Revoked { .. }) => {
                return Err(AuthorError::NotAllowed { what });
            }
        };
        let sealed = if subject.role.holds_data() {
            self.keyring.seal_all(&state, subject.agreement, rng)
        } else {
            Vec::new()
        };
        self.say(what, Keep { device, cause, sealed }.into(), wall)
    }

    /// Replaces the author's own device key by `new`.
    ///
    /// # Errors
    ///
    /// The author does not belong, or `new` has been in the fabric before.
    pub fn rotate(
        &self,
        new: &DeviceSecret,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Signed, AuthorError> {
        let state = self.state();
        let agreement = new.agreement().public();
        let succession = Succession { fabric: self.fabric(), old: self.id(), agreement };
        let body = Rotate {
            device: new.id(),
            agreement,
            consent: Signed::new(Domain::Pairing, &succession, new.signing()),
            sealed: self.keyring.seal_all(&state, agreement, rng),
        };
        self.say("replace the device key", body.into(), wall)
    }

    /// Replaces the root's key by `new`.
    ///
    /// # Errors
    ///
    /// The author is not the root.
    pub fn rotate_root(
        &self,
        new: &RootSecret,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Signed, AuthorError> {
        let root = new.keys();
        let sealed = self.keyring.seal_all(&self.state(), root.agreement, rng);
        self.say("replace the recovery words", RootRotate { root, sealed }.into(), wall)
    }

    /// Fixes what had happened by `heads`; whatever stands beside it is void.
    ///
    /// # Errors
    ///
    /// The author is not the root.
    pub fn epoch(
        &self,
        mut heads: Vec<StatementId>,
        wall: WallTime,
    ) -> Result<Signed, AuthorError> {
        heads.sort_unstable();
        heads.dedup();
        let author = Self { heads: Some(heads.clone()), ..*self };
        author.say("fix an epoch", Epoch { heads }.into(), wall)
    }

    fn id(&self) -> DeviceId {
        DeviceId::from_bytes(self.key.verifying_key().to_bytes())
    }

    const fn fabric(&self) -> FabricId {
        self.graph.fabric()
    }

    /// The statements that the next one rests on, and the author's last.
    fn parents(&self) -> (Vec<StatementId>, Option<(u64, StatementId)>) {
        let mut heads = self.heads.clone().unwrap_or_else(|| self.graph.heads());
        heads.sort_unstable();
        heads.truncate(DEPS_MAX);
        let prev = if self.heads.is_some() && self.graph.state().is_root(&self.id()) {
            self.graph.newest_of_within(&self.id(), &heads)
        } else {
            self.graph.newest_of(&self.id())
        };
        (heads, prev)
    }

    /// The state that the next statement rests on.
    fn state(&self) -> State {
        let (mut heads, prev) = self.parents();
        heads.extend(prev.map(|(_, id)| id));
        self.graph.state_at(&heads)
    }

    fn known(
        &self,
        what: &'static str,
        device: &DeviceId,
    ) -> Result<crate::state::Device, AuthorError> {
        let state = self.state();
        let device = *device;
        state.devices.get(&device).cloned().ok_or(AuthorError::UnknownDevice { what, device })
    }

    /// Makes the next data key and seals it to all holders but `without`.
    fn next_key(
        &self,
        what: &'static str,
        without: &DeviceId,
        rng: &mut impl CryptoRng,
    ) -> Result<(Generation, Vec<SealedKey>), AuthorError> {
        let state = self.state();
        let number = state.next_generation().ok_or(AuthorError::NotAllowed { what })?;
        let key = FabricKey::draw(rng);
        let generation = Generation { number, id: key.id() };
        // Those whom this author does not know yet ask for the key when they meet a holder; those
        // who are out by what it does not know yet must not get it.
        let mut holders = state.key_holders();
        for (id, device) in &self.graph.state().devices {
            if id == without || matches!(device.standing, Standing::Revoked { .. }) {
                holders.remove(&device.agreement);
            }
        }
        let sealed =
            holders.into_iter().filter_map(|to| key.seal(KeyName::Data(generation), to, rng));
        Ok((generation, sealed.collect()))
    }

    /// Signs the statement, if it counts.
    fn say(
        &self,
        what: &'static str,
        body: StatementBody,
        wall: WallTime,
    ) -> Result<Signed, AuthorError> {
        if self.graph.state().update_needed.is_some() {
            return Err(AuthorError::UpdateNeeded { what });
        }
        let (deps, prev) = self.parents();
        let statement = Statement {
            fabric: Some(self.fabric()),
            seq: prev.map_or(0, |(seq, _)| seq + 1),
            prev: prev.map(|(_, id)| id),
            deps,
            time: wall,
            kind: body.kind(),
            body: body.encode(),
        };
        let signed = Signed::from_bytes(Domain::Statement, codec::encode(&statement), self.key);
        let mut after = self.graph.clone();
        let inserted = after.insert(signed.clone());
        match inserted {
            Err(StatementError::TooOften { .. }) => return Err(AuthorError::TooOften { what }),
            Err(StatementError::Spent { .. }) => return Err(AuthorError::Spent { what }),
            Ok(_) | Err(_) => {}
        }
        let state = after.state();
        let counts = state.verdicts.get(&statement_id(&signed)) == Some(&Verdict::Counts);
        if inserted.is_err() || !counts {
            return Err(AuthorError::NotAllowed { what });
        }
        if state.root.is_none() && state.admins().next().is_none() {
            return Err(AuthorError::LastAdmin { what });
        }
        Ok(signed)
    }
}
