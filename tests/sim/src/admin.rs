//! What persons decide about devices while the world is bad: to put them out, to keep them, to give
//! them another role; and what is left to decide when all is well.

use weft_core::{
    Input,
    door::{Command, DoorId},
    membership,
};
use weft_protocol::{
    codec,
    device::Role,
    id::DeviceId,
    row::{MemoryRows, Rows as _, Table},
    signed::Signed,
    statement::SealedKey,
};
use weft_trust::{
    author::{Author, AuthorError},
    graph::Graph,
    keyring::Keyring,
    recovery::{
        RootSecret,
        fetch::view,
        speech::{Lost, SpeechError, Wish, speak},
    },
    secret::DeviceSecret,
    state::{Device, Standing},
};

use crate::{
    dice::Dice,
    fault::{BAD_TIME, Fault},
    host::Host,
    network::SECOND,
    pairing::PairingHappening,
    world::{Happening, World},
};

/// A person decides again what is left to decide, so often and so long after all is well.
const SETTLED_WITHIN: u64 = 24 * SECOND;
const SETTLE_EVERY: u64 = 6 * SECOND;

/// A revocation that a node took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PutOut {
    /// Where it was said.
    pub(crate) by: usize,
    /// Of which device.
    pub(crate) device: DeviceId,
    /// The node said that it is on the disk.
    pub(crate) is_done: bool,
}

/// What persons decided.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    /// By the number of its door.
    pub(crate) put_out: Vec<PutOut>,
    /// When the last one was made.
    pub(crate) last: u64,
    /// No more are made when all is well.
    pub(crate) leaves_open: bool,
}

/// The doors at which devices are put out are numbered from here.
const DOORS: u64 = 1 << 41;

impl Decisions {
    /// A node said that a revocation is on its disk.
    pub(crate) fn done(&mut self, door: DoorId) {
        let at = door.0.checked_sub(DOORS).and_then(|at| usize::try_from(at).ok());
        if let Some(put_out) = at.and_then(|at| self.put_out.get_mut(at)) {
            put_out.is_done = true;
        }
    }
}

impl World {
    /// Draws what persons will decide.
    pub(crate) fn draw_decisions(&mut self, count: usize) {
        let dice = &mut self.dice.trust;
        let mut faults = Vec::new();
        for _ in 0..dice.pick(&[0, 0, 1, 1, 2]) {
            let host = dice.index(count);
            let stolen = dice.chance(40);
            let at = dice.between(10 * SECOND, BAD_TIME - 15 * SECOND);
            faults.push((at, Fault::Revoke { host, stolen }));
        }
        if dice.chance(12) {
            let lasts = dice.between(SECOND, 15 * SECOND);
            faults.push((dice.between(8 * SECOND, BAD_TIME), Fault::Duel { lasts }));
        }
        if dice.chance(25) {
            let host = dice.index(count);
            let crashes = dice.chance(50);
            faults.push((dice.between(8 * SECOND, BAD_TIME), Fault::Rotate { host, crashes }));
        }
        if dice.chance(7) {
            let host = dice.index(count);
            let (from, lasts) =
                (dice.between(4 * SECOND, 25 * SECOND), dice.between(SECOND, 12 * SECOND));
            faults.push((from, Fault::Image { host }));
            faults.push((from + lasts, Fault::SetBack { host }));
        }
        if dice.chance(4) {
            // A member, so that an admin is left who can put it out.
            let host = 2 + dice.index(count - 2);
            faults.push((dice.between(5 * SECOND, 20 * SECOND), Fault::Copy { host }));
        }
        if dice.chance(15) {
            let host = dice.index(count);
            let role = if dice.chance(60) { Role::Admin } else { Role::Member };
            faults.push((dice.between(5 * SECOND, BAD_TIME), Fault::SetRole { host, role }));
        }
        for (at, fault) in faults {
            self.at(at, Happening::Fault(fault));
        }
        self.decisions.leaves_open = self.dice.trust.chance(25);
        for _ in 0..self.dice.pairing.pick(&[0, 0, 1, 1, 2]) {
            let at = self.dice.pairing.between(3 * SECOND, BAD_TIME - 5 * SECOND);
            self.at(at, Happening::Pairing(PairingHappening::Invite));
        }
    }

    /// The machines whose nodes are up, write, and say of themselves that they are admins.
    pub(crate) fn admins(&self) -> Vec<usize> {
        let is_admin = |at: &usize| {
            let host = &self.hosts[*at];
            let role = host.node.as_ref().and_then(|node| node.membership().role());
            role == Some(Role::Admin) && !host.disk.failing
        };
        (0..self.hosts.len()).filter(is_admin).collect()
    }

    /// A person puts a device out, on whatever admin's machine.
    pub(crate) fn revoke(&mut self, host: usize, stolen: bool) {
        if self.hosts[host].put_out {
            return;
        }
        let admins: Vec<usize> = self
            .admins()
            .into_iter()
            .filter(|at| *at != host && self.known_as(*at, host).is_some())
            .collect();
        if admins.is_empty() || !self.hosts[host].joined {
            self.later(SECOND, Happening::Fault(Fault::Revoke { host, stolen }));
            return;
        }
        let by = self.dice.trust.pick(&admins);
        if !self.put_out(by, host) {
            self.later(SECOND, Happening::Fault(Fault::Revoke { host, stolen }));
            return;
        }
        if stolen {
            self.crash(host);
            self.settle_key(host);
            self.hosts[host].stolen = true;
            for at in 0..self.hosts.len() {
                if at != host {
                    let after = self.dice.faults.between(SECOND, 12 * SECOND);
                    self.later(after, Happening::Fault(Fault::Intrude { host, at }));
                }
            }
        }
    }

    /// Puts a machine's device out. Gives whether the node took it.
    pub(crate) fn put_out(&mut self, by: usize, host: usize) -> bool {
        let Some(device) = self.known_as(by, host) else { return false };
        self.say_put_out(by, device);
        let taken = !self.hosts[by].members.contains(&device);
        for it in self.hosts.iter_mut().filter(|it| taken && it.had(&device)) {
            it.put_out = true;
        }
        self.hosts[host].put_out |= taken;
        if taken {
            self.leak_the_key(by, host);
        }
        taken
    }

    fn say_put_out(&mut self, by: usize, device: DeviceId) {
        let door = DoorId(DOORS + self.decisions.put_out.len() as u64);
        self.say(Some(by), || format!("is told to put {device} out"));
        self.decisions.put_out.push(PutOut { by, device, is_done: false });
        self.decisions.last = self.time;
        let command = Command::Revoke { device: device.to_string() };
        self.feed(by, Input::Command { door, command });
    }

    /// Two admins that can't reach each other put each other out.
    pub(crate) fn duel(&mut self, lasts: u64) {
        let admins = self.admins();
        let &[a, b, ..] = admins.as_slice() else { return };
        self.bar(a, b, lasts);
        self.put_out(a, b);
        if self.hosts[b].is_up() {
            self.put_out(b, a);
        }
    }

    /// A person gives a device another role.
    pub(crate) fn set_role(&mut self, host: usize, role: Role) {
        let admins: Vec<usize> = self.admins().into_iter().filter(|at| *at != host).collect();
        if admins.is_empty() {
            return;
        }
        let by = self.dice.trust.pick(&admins);
        if let Some(device) = self.known_as(by, host) {
            self.say(Some(by), || format!("is told to make {device} {role}"));
            let device = device.to_string();
            self.order(by, Command::SetRole { device, role, confirmed: true });
        }
    }

    /// A person lets a suspended device stay.
    pub(crate) fn keep(&mut self, by: usize, device: DeviceId) {
        self.say(Some(by), || format!("is told to keep {device}"));
        self.order(by, Command::Keep { device: device.to_string() });
    }

    /// Somebody types the recovery words at a machine. Gives whether there was anything to say.
    pub(crate) fn speak_as_root(&mut self, by: usize, root: &RootSecret, wish: &Wish) -> bool {
        let host = &self.hosts[by];
        let Some(node) = &host.node else { return false };
        let wall = host.now(self.time).wall;
        let graph = node.membership().graph().clone();
        let rng = self.dice.trust.rng();
        let said = view(graph, root)
            .map_err(SpeechError::from)
            .and_then(|fetched| speak(root, fetched, wish, wall, rng));
        match said {
            Ok(speech) => {
                self.say(Some(by), || "hears the words".to_owned());
                self.order(by, Command::TakeStatements { statements: speech.statements });
                true
            }
            Err(error) => {
                self.say(Some(by), || format!("hears the words, which can't say it: {error}"));
                false
            }
        }
    }

    fn order(&mut self, by: usize, command: Command) {
        self.decisions.last = self.time;
        self.feed(by, Input::Command { door: DoorId(u64::MAX), command });
    }

    /// The key under which a node knows a machine to belong.
    pub(crate) fn known_as(&self, at: usize, host: usize) -> Option<DeviceId> {
        let next = self.hosts[host].next.as_ref().map(DeviceSecret::id);
        let mut keys = next.into_iter().chain(self.hosts[host].keys());
        keys.find(|key| self.hosts[at].members.contains(key))
    }

    /// Stops a node, has its device state something, and starts it again.
    pub(crate) fn write_at(
        &mut self,
        by: usize,
        make: impl FnOnce(&Author<'_>, &mut Dice) -> Result<Signed, AuthorError>,
    ) -> bool {
        self.crash(by);
        self.later(SECOND / 20, Happening::Start(by));
        let host = &self.hosts[by];
        let Some((graph, keyring)) = known(host, host.disk.durable()) else { return false };
        let key = host.secret.signing();
        let mut dice = self.dice.trust.clone();
        let made = make(&Author::new(&graph, &keyring, key), &mut dice);
        self.dice.trust = dice;
        self.decisions.last = self.time;
        match made {
            Ok(signed) => {
                self.say(Some(by), || "has a statement written".to_owned());
                self.hosts[by].disk.prepare(membership::store(&[signed]));
                true
            }
            Err(error) => {
                self.say(Some(by), || format!("may not: {error}"));
                false
            }
        }
    }

    /// All is well: what is left to decide is decided, again and again until nothing is.
    pub(crate) fn settle(&mut self) {
        let since = self.time - self.healed.unwrap_or(self.time);
        let doubled = self.doubled();
        if self.decisions.leaves_open && doubled.is_none() || since > SETTLED_WITHIN {
            return;
        }
        self.later(SETTLE_EVERY, Happening::Settle);
        self.take_stock();
        if let Some(host) = doubled {
            let admins = self.admins();
            if !admins.is_empty() {
                let by = self.dice.trust.pick(&admins);
                self.put_out(by, host);
            }
            return;
        }
        let Some(state) = self.checks.trust.state().cloned() else { return };
        // Whoever was brought in by one of them comes back with that one.
        let by_itself = |device: &Device| match device.standing {
            Standing::Suspended { cause } => cause != device.added,
            Standing::Active | Standing::Revoked { .. } => false,
        };
        let doubted = state.devices.iter().find(|(_, it)| by_itself(it)).map(|(id, _)| *id);
        if let Some(device) = doubted {
            self.decide(device);
            return;
        }
        let standing: Vec<usize> =
            self.admins().into_iter().filter(|at| self.hosts[*at].belongs()).collect();
        if let Some(device) = state.exposed_to
            && !standing.is_empty()
        {
            let by = self.dice.trust.pick(&standing);
            self.say_put_out(by, device);
        }
    }

    /// Somebody who may lets a suspended device stay, or puts it out if it was stolen.
    fn decide(&mut self, device: DeviceId) {
        let standing: Vec<usize> =
            (0..self.hosts.len()).filter(|at| self.hosts[*at].belongs()).collect();
        let admins: Vec<usize> =
            self.admins().into_iter().filter(|at| standing.contains(at)).collect();
        let root = self.root.take();
        let stolen = self.hosts.iter().any(|host| host.had(&device) && host.stolen);
        if !admins.is_empty() && self.dice.trust.chance(60) {
            let by = self.dice.trust.pick(&admins);
            if stolen {
                self.say_put_out(by, device);
            } else {
                self.keep(by, device);
            }
        } else if let Some(root) = &root {
            let all: Vec<usize> = (0..self.hosts.len())
                .filter(|at| self.hosts[*at].is_up() && !self.hosts[*at].put_out)
                .collect();
            let of = if standing.is_empty() { all } else { standing };
            if !of.is_empty() {
                let by = self.dice.trust.pick(&of);
                let wish = if stolen {
                    Wish { lost: vec![Lost { device, since: None }], ..Wish::default() }
                } else {
                    Wish { keep: vec![device], ..Wish::default() }
                };
                self.speak_as_root(by, root, &wish);
            }
        }
        self.root = root;
    }
}

/// The statements and the keys on a disk.
fn known(host: &Host, rows: &MemoryRows) -> Option<(Graph, Keyring)> {
    let read = |(_, bytes): (_, Vec<u8>)| codec::decode::<Signed>(&bytes, usize::MAX).ok();
    let statements = rows.scan(Table::Trust, &[]).ok()?.into_iter().filter_map(read);
    let graph = Graph::from_statements(statements).ok()?;
    let mut keyring = Keyring::new(host.secret.agreement().clone());
    keyring.learn(&graph);
    for (_, bytes) in rows.scan(Table::Key, &[]).ok()? {
        let sealed: SealedKey = codec::decode(&bytes, usize::MAX).ok()?;
        keyring.open(&sealed).ok()?;
    }
    Some((graph, keyring))
}

/// Whether a device stands, in a word.
pub(crate) const fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Suspended { .. } => "suspended",
        Standing::Revoked { .. } => "revoked",
    }
}
