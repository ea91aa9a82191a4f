//! Who belongs, as this node knows it: the trust graph, its exchange with each peer, the fabric's keys.
//!
//! Composes the machines of `weft-trust`; what they learn is stored, told to the exchanges of all
//! peers, and takes effect at once. What this device says itself takes effect at once, too, and is told
//! when it is on the disk ([`Membership::stored`]).

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha20Rng;
use thiserror::Error;
use weft_protocol::{
    codec,
    decision::Subject,
    device::Role,
    document::DocumentKind,
    frame::FRAME_BYTES_MAX,
    id::{AgreementKey, DeviceId, DocumentId, FabricId, StatementId},
    row::{Item, ReadError, Row, Rows, Table, Write},
    signed::Signed,
    statement::{KeyName, Name, SealedKey, TrustMessage},
    time::{Now, Timestamp},
};
use weft_trust::{
    author::{Author, AuthorError, NewDevice},
    exchange::{self, Exchange, Reason},
    graph::{Graph, StatementError, statement_id},
    keyring::Keyring,
    secret::DeviceSecret,
    state::{Device, Standing, State},
};

use crate::replica;

mod statements;

use statements::Statements;

/// The most bytes of a stored statement.
const STATEMENT_ROW_BYTES_MAX: usize = 64 << 10;
/// The most bytes of the addresses that are remembered of a device.
const ADDRESSES_BYTES_MAX: usize = 16 << 10;

/// Why a node cannot take up its membership.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The rows cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored statement is damaged.
    #[error("read a stored statement: {0}")]
    Statement(String),
    /// The statements do not make a fabric.
    #[error("take up the fabric")]
    Graph(#[from] StatementError),
    /// The fabric's keys are not sealed to this device.
    #[error("open the fabric's keys: they are not sealed to this device")]
    NoKeys,
}

/// What the machine wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipOutput {
    /// Send on the trust stream.
    Send(DeviceId, Vec<u8>),
    /// Both sides hold the same statements: other protocols may open.
    Admit(DeviceId),
    /// Close the connection; what was sent before goes out first.
    TurnAway(DeviceId, &'static str),
    /// Statements entered the graph. [`Membership::stored`] or [`Membership::refused`] follows.
    Learned {
        /// Which.
        statements: Vec<StatementId>,
        /// What stores them.
        writes: Vec<Write>,
    },
    /// Persist keys that were learned.
    Persist(Vec<Write>),
}

/// The machine.
#[derive(Debug)]
pub struct Membership {
    secret: DeviceSecret,
    statements: Statements,
    keyring: Keyring,
    addressing: [u8; 32],
    exchanges: BTreeMap<DeviceId, Exchange>,
    rng: ChaCha20Rng,
    outputs: Vec<MembershipOutput>,
}

/// The writes that store statements.
pub fn store(statements: &[Signed]) -> Vec<Write> {
    let row = |signed: &Signed| Row::named(Table::Trust, &[], statement_id(signed).as_bytes());
    statements.iter().map(|signed| Write::Put(row(signed), codec::encode(signed))).collect()
}

/// The statements that are stored.
///
/// # Errors
///
/// They cannot be read, or make no fabric.
pub fn graph(rows: &dyn Rows) -> Result<Graph, OpenError> {
    let statements = rows
        .scan(Table::Trust, &[])?
        .into_iter()
        .map(|(_, bytes)| {
            codec::decode(&bytes, STATEMENT_ROW_BYTES_MAX)
                .map_err(|error| OpenError::Statement(error.to_string()))
        })
        .collect::<Result<Vec<Signed>, _>>()?;
    Ok(Graph::from_statements(statements)?)
}

/// The write that remembers where a device was last heard of.
pub fn remember(device: &DeviceId, addresses: &Vec<String>) -> Write {
    let row = Row::named(Table::Peer, b"addresses", device.as_bytes());
    Write::Put(row, codec::encode(addresses))
}

impl Membership {
    /// Takes up the statements and keys that are stored.
    ///
    /// # Errors
    ///
    /// They cannot be read, or make no fabric whose keys this device can open.
    pub fn open(
        secret: DeviceSecret,
        rng: ChaCha20Rng,
        rows: &dyn Rows,
    ) -> Result<Self, OpenError> {
        let graph = graph(rows)?;
        let mut keyring = Keyring::new(secret.agreement().clone());
        keyring.learn(&graph);
        for (_, bytes) in rows.scan(Table::Key, &[])? {
            // What another device once sealed to this one; a damaged one is asked for again.
            // One that was sealed to a former key of this device came along with the statement that replaced it.
            if let Ok(sealed) = codec::decode::<SealedKey>(&bytes, STATEMENT_ROW_BYTES_MAX)
                && sealed.to == secret.agreement().public()
                && keyring.open(&sealed).is_err()
            {
                tracing::warn!("a stored key of the fabric is damaged");
            }
        }
        let addressing = **keyring.addressing(graph.state()).ok_or(OpenError::NoKeys)?.expose();
        Ok(Self {
            secret,
            statements: Statements::new(graph),
            keyring,
            addressing,
            exchanges: BTreeMap::new(),
            rng,
            outputs: Vec::new(),
        })
    }

    /// What is to be done, in order.
    pub fn poll_outputs(&mut self) -> Vec<MembershipOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        self.exchanges.values().filter_map(Exchange::poll_timeout).min_by_key(|(at, _)| *at)
    }

    /// Gives up on peers that took too long.
    pub fn handle_timeout(&mut self, now: Now) {
        for exchange in self.exchanges.values_mut() {
            exchange.handle_timeout(self.statements.told(), now);
        }
        self.drain(now);
    }

    /// The fabric.
    pub fn fabric(&self) -> FabricId {
        self.graph().fabric()
    }

    /// This device.
    pub fn me(&self) -> DeviceId {
        self.secret.id()
    }

    /// What the statements add up to.
    pub fn state(&self) -> &State {
        self.graph().state()
    }

    /// The statements.
    pub fn graph(&self) -> &Graph {
        self.statements.counting()
    }

    /// The statements that others may hear of: without those of this device that are not on its disk yet.
    pub fn told(&self) -> &Graph {
        self.statements.told()
    }

    /// The fabric's keys that are here.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// This device's keys.
    pub fn secret(&self) -> &DeviceSecret {
        &self.secret
    }

    /// The key under which inputs and outputs are hashed and blobs are named.
    pub fn addressing_key(&self) -> &[u8; 32] {
        &self.addressing
    }

    /// All devices that belong, but for this one.
    pub fn others(&self) -> BTreeSet<DeviceId> {
        let me = self.me();
        self.state().members().map(|(id, _)| *id).filter(|id| *id != me).collect()
    }

    /// All devices that belonged and do not now.
    pub fn gone(&self) -> Vec<DeviceId> {
        let out = |(_, device): &(&DeviceId, &Device)| !matches!(device.standing, Standing::Active);
        self.state().devices.iter().filter(out).map(|(id, _)| *id).collect()
    }

    /// A device as rules see it, if it belongs.
    pub fn subject(&self, device: &DeviceId) -> Option<Subject> {
        self.state().member(device).map(|known| subject(device, known))
    }

    /// All devices that belong, as rules see them.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.state().members().map(|(id, device)| subject(id, device))
    }

    /// Where other devices were last heard of.
    ///
    /// # Errors
    ///
    /// The rows cannot be read.
    pub fn remembered(&self, rows: &dyn Rows) -> Result<Vec<(DeviceId, Vec<String>)>, ReadError> {
        let rows = rows.scan(Table::Peer, b"addresses")?;
        Ok(rows
            .into_iter()
            .filter_map(|(item, bytes)| {
                let Item::Named(device) = item else { return None };
                let device = DeviceId::from_bytes(device.try_into().ok()?);
                let addresses = codec::decode(&bytes, ADDRESSES_BYTES_MAX).ok()?;
                self.state().member(&device).map(|_| (device, addresses))
            })
            .collect())
    }

    /// A trust stream serves a peer.
    pub fn opened(&mut self, peer: DeviceId, now: Now) {
        let exchange = Exchange::new(self.me(), peer, false, self.told(), now);
        self.exchanges.insert(peer, exchange);
        self.drain(now);
    }

    /// The trust stream is gone.
    pub fn closed(&mut self, peer: &DeviceId) {
        self.exchanges.remove(peer);
    }

    /// A frame came on the trust stream. What is no message turns the peer away.
    pub fn frame(&mut self, peer: DeviceId, bytes: &[u8], now: Now) {
        let Some(exchange) = self.exchanges.get_mut(&peer) else { return };
        match codec::decode::<TrustMessage>(bytes, FRAME_BYTES_MAX) {
            Ok(message) => {
                exchange.handle_input(
                    exchange::Input::Message(message),
                    self.statements.told(),
                    now,
                );
                self.drain(now);
            }
            Err(_) => {
                self.exchanges.remove(&peer);
                let why = "it sent what is no message";
                self.outputs.push(MembershipOutput::TurnAway(peer, why));
            }
        }
    }

    /// Carries what the exchanges want to where it belongs, until nothing is left.
    fn drain(&mut self, now: Now) {
        loop {
            let next = self
                .exchanges
                .iter_mut()
                .find_map(|(peer, exchange)| Some((*peer, exchange.poll_output()?)));
            let Some((peer, output)) = next else { return };
            match output {
                exchange::Output::Send(message) => {
                    self.outputs.push(MembershipOutput::Send(peer, codec::encode(&message)));
                }
                exchange::Output::Learned(statements) => {
                    let added = self.statements.learn(statements);
                    self.entered(added);
                    self.tell(now);
                }
                // One that was put out a moment ago does not know yet.
                exchange::Output::Merged if self.state().member(&peer).is_none() => {}
                exchange::Output::Merged => {
                    self.outputs.push(MembershipOutput::Admit(peer));
                    self.want_keys(peer, now);
                }
                exchange::Output::SealFor { to, keys } => self.seal(peer, to, &keys, now),
                exchange::Output::Sealed(sealed) => self.open_keys(&sealed),
                exchange::Output::TurnedAway(reason) => {
                    self.exchanges.remove(&peer);
                    self.outputs.push(MembershipOutput::TurnAway(peer, why(reason)));
                }
            }
        }
    }

    /// Statements entered the graph: they are stored, and count.
    fn entered(&mut self, added: Vec<StatementId>) {
        if added.is_empty() {
            return;
        }
        self.keyring.learn(self.statements.counting());
        let signed: Vec<Signed> =
            added.iter().filter_map(|id| self.graph().get(id)).cloned().collect();
        self.outputs.push(MembershipOutput::Learned { statements: added, writes: store(&signed) });
    }

    /// Others may hear of more than before.
    fn tell(&mut self, now: Now) {
        for exchange in self.exchanges.values_mut() {
            exchange.handle_input(exchange::Input::Changed, self.statements.told(), now);
        }
    }

    /// Statements are on the disk. Those of this device are told to all.
    pub fn stored(&mut self, statements: &[StatementId], now: Now) {
        if self.statements.stored(statements) {
            self.tell(now);
            self.drain(now);
        }
    }

    /// The disk did not take statements. Those of this device count no more, and nobody has heard of them.
    /// Gives whether there are such.
    pub fn refused(&mut self, statements: &[StatementId]) -> bool {
        self.statements.refused(statements)
    }

    fn want_keys(&mut self, peer: DeviceId, now: Now) {
        let lacking = self.keyring.lacking(self.state());
        if let Some(exchange) = self.exchanges.get_mut(&peer)
            && !lacking.is_empty()
        {
            let told = self.statements.told();
            exchange.handle_input(exchange::Input::Want(lacking), told, now);
        }
    }

    fn seal(&mut self, peer: DeviceId, to: AgreementKey, keys: &[KeyName], now: Now) {
        let sealed =
            self.keyring.seal_for(self.statements.counting().state(), to, keys, &mut self.rng);
        if let Some(exchange) = self.exchanges.get_mut(&peer) {
            let told = self.statements.told();
            exchange.handle_input(exchange::Input::Keys(sealed), told, now);
        }
    }

    fn open_keys(&mut self, sealed: &[SealedKey]) {
        let mut writes = Vec::new();
        for sealed in sealed {
            let known = self.keyring.get(&sealed.which).is_some();
            if !known && self.keyring.open(sealed).is_ok() {
                let row = Row::named(Table::Key, &[], &codec::encode(&sealed.which));
                writes.push(Write::Put(row, codec::encode(sealed)));
            }
        }
        if !writes.is_empty() {
            self.outputs.push(MembershipOutput::Persist(writes));
        }
    }

    /// Adds a device.
    ///
    /// # Errors
    ///
    /// This device may not.
    pub fn add(&mut self, new: NewDevice, now: Now) -> Result<(), AuthorError> {
        self.make_known(|author, rng| author.add(new, now.wall, rng))
    }

    /// Puts a device out.
    ///
    /// # Errors
    ///
    /// This device may not.
    pub fn revoke(&mut self, device: DeviceId, now: Now) -> Result<(), AuthorError> {
        self.make_known(|author, rng| author.revoke(device, now.wall, rng))
    }

    /// Gives a device, or the fabric, another name.
    ///
    /// # Errors
    ///
    /// This device may not.
    pub fn rename(
        &mut self,
        device: Option<DeviceId>,
        name: Name,
        now: Now,
    ) -> Result<(), AuthorError> {
        self.make_known(|author, _| author.rename(device, name, now.wall))
    }

    /// Gives a device another role.
    ///
    /// # Errors
    ///
    /// This device may not.
    pub fn set_role(&mut self, device: DeviceId, role: Role, now: Now) -> Result<(), AuthorError> {
        self.make_known(|author, rng| author.set_role(device, role, now.wall, rng))
    }

    /// Brings a suspended device back: answers one after the other all that suspends it.
    ///
    /// # Errors
    ///
    /// This device may not.
    pub fn keep(&mut self, device: DeviceId, now: Now) -> Result<(), AuthorError> {
        let is_suspended =
            |state: &State| state.devices.get(&device).is_some_and(Device::is_suspended);
        loop {
            let before = self.state().devices.get(&device).map(|it| it.standing);
            self.make_known(|author, rng| author.keep(device, None, now.wall, rng))?;
            let after = self.state().devices.get(&device).map(|it| it.standing);
            // Each answers one cause for good, so the next cause is another.
            if !is_suspended(self.state()) || before == after {
                return Ok(());
            }
        }
    }

    /// Takes statements that the root made here. Gives how many entered.
    pub fn take(&mut self, statements: Vec<Signed>) -> usize {
        let added = self.statements.say(statements);
        let count = added.len();
        self.entered(added);
        count
    }

    /// Makes the statement that puts `next` in the place of this device's key. It is not entered: that is
    /// [`Self::take_stored`], when it is on the disk.
    ///
    /// # Errors
    ///
    /// This device may not.
    pub fn rotate(&mut self, next: &DeviceSecret, now: Now) -> Result<Signed, AuthorError> {
        self.make(|author, rng| author.rotate(next, now.wall, rng))
    }

    /// Enters a statement that is on the disk already, and tells the peers.
    pub fn take_stored(&mut self, signed: Signed, now: Now) {
        if self.statements.learn(vec![signed]).is_empty() {
            return;
        }
        self.keyring.learn(self.statements.counting());
        self.tell(now);
        self.drain(now);
    }

    /// Makes a statement of this device. It is not entered.
    fn make(
        &mut self,
        make: impl FnOnce(&Author<'_>, &mut ChaCha20Rng) -> Result<Signed, AuthorError>,
    ) -> Result<Signed, AuthorError> {
        let author = Author::new(self.statements.counting(), &self.keyring, self.secret.signing());
        make(&author, &mut self.rng)
    }

    /// Makes a statement of this device, which counts from now on.
    fn make_known(
        &mut self,
        make: impl FnOnce(&Author<'_>, &mut ChaCha20Rng) -> Result<Signed, AuthorError>,
    ) -> Result<(), AuthorError> {
        let signed = self.make(make)?;
        let added = self.statements.say(vec![signed]);
        self.entered(added);
        Ok(())
    }

    /// This device's role.
    pub fn role(&self) -> Option<Role> {
        self.state().member(&self.me()).map(|device| device.role)
    }
}

impl replica::Members for Membership {
    fn may_write(&self, device: &DeviceId, _: &DocumentId, _: &DocumentKind) -> bool {
        self.state().may_write(device)
    }

    fn is_gone(&self, device: &DeviceId) -> bool {
        self.state().devices.get(device).is_some_and(|device| !device.is_active())
    }
}

fn subject(id: &DeviceId, device: &Device) -> Subject {
    Subject { id: *id, name: device.name.as_str().to_owned(), kind: device.kind, role: device.role }
}

const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::OtherFabric => "it is of another fabric",
        Reason::Stranger => "it has not proved that it belongs",
        Reason::Revoked => "it was put out",
        Reason::TooMuch => "it sent too much",
        Reason::OutOfTurn => "it spoke out of turn",
        Reason::TooLate => "it took too long",
    }
}
