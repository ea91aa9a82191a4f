//! Who is here and what they can do now: the newest signed record of each device.
//!
//! A device makes a new record at once when what others decide by has changed: where it listens, what
//! it can do, what its network costs, that its battery gets low. What comes and goes within a moment (a
//! step that runs, a connection that is replaced) has to last before it is told; the rest, as the load of the
//! processors, rides along with the renewal. So an idle fabric says little.
//!
//! Records are passed on, so that a device hears of one that it is not connected with. Each record says with
//! whom its device is connected: those hear it themselves, and to them it is not passed on. By the same word a
//! device is *near*: one that is connected here says that it is connected there. Who has lost a device itself
//! believes that of nobody who may not have noticed yet: that record, or one of the lost device itself, must have
//! been made after the loss, which is when either of the two says that they are connected no more.
//!
//! Nothing of this is ever written to a disk but the addresses; no presence means away. A record of a later
//! start, or a later one of the same, takes the place of another; never the other way round, except that a
//! device's own word on its own connection counts, whatever was passed on.
//!
//! What is passed on grows no younger by it. Two devices share no clock, so whoever hands a record on says
//! how old it is: how old it was when it came, and how long it lay there. The way between two devices is
//! measured by nobody; a flat second for it is added at its end, which is also why what goes round between
//! devices that start anew comes to an end. Of a record whose age is not told nothing is believed but where
//! the device listened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use weft_protocol::{
    codec,
    id::{BootId, DeviceId},
    presence::{CONNECTED_MAX, Machine, ModelReady, PRESENCE_BYTES_MAX, Presence, PresenceMessage},
    signed::{Domain, Signed},
    time::{Now, Timestamp},
    version::Version,
};

/// A record is renewed so often while nothing that matters changes: load and battery are of use to
/// placement for minutes, and with twenty devices an idle one wakes for this once in three seconds.
pub const RENEW: Duration = Duration::from_secs(60);

/// What was not renewed for so long is not believed any more: two renewals may get lost.
const FRESH: Duration = Duration::from_secs(3 * 60);

/// So much older is a record on each device that it was handed on to. The way takes less but where a
/// connection stalls, and with twenty devices in a row nothing gets old by it.
const HANDED_ON: Duration = Duration::from_secs(1);

/// What may be over in a moment is told when it has lasted so long. A step that is quicker is of no
/// concern to those who place the next one.
const LASTS: Duration = Duration::from_secs(1);

/// Charges, in percent, whose crossing is told at once, if by [`BATTERY_JITTER`] at least.
const BATTERY_MARKS: [u8; 3] = [10, 20, 50];
const BATTERY_JITTER: u8 = 2;

/// The most records of one message that are looked at: a greeting has one of each device.
const RECORDS_MAX: usize = 64;

/// What this node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Own {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Steps that wait or run here.
    pub queue: u32,
    /// Charge in percent; `None`: not on battery.
    pub battery: Option<u8>,
    /// Whether the network costs money.
    pub metered: bool,
    /// Models that answer here.
    pub models: Vec<ModelReady>,
    /// Whether it carries other members' connections.
    pub relays: bool,
    /// What this machine has.
    pub machine: Option<Machine>,
    /// The members with whom presence is spoken.
    pub connected: BTreeSet<DeviceId>,
    /// Which program it is.
    pub version: Option<Version>,
}

impl Own {
    /// Whether others are to know at once what was not so in `told`.
    fn matters_after(&self, told: &Self) -> bool {
        let crosses = |mark: u8| match (told.battery, self.battery) {
            (Some(told), Some(now)) => {
                (told < mark) != (now < mark) && told.abs_diff(now) >= BATTERY_JITTER
            }
            (told, now) => told.is_some() != now.is_some(),
        };
        self.addresses != told.addresses
            || self.models != told.models
            || self.metered != told.metered
            || self.relays != told.relays
            || BATTERY_MARKS.into_iter().any(crosses)
    }

    /// Whether others are to know, if it lasts, what was not so in `told`.
    fn may_matter_after(&self, told: &Self) -> bool {
        self.queue.checked_ilog2() != told.queue.checked_ilog2()
            || self.connected != told.connected
            || self.machine.is_some() != told.machine.is_some()
    }
}

/// What was said last, and when.
#[derive(Debug)]
struct Told {
    own: Own,
    at: Timestamp,
    /// Since when it is not so any more, or was told otherwise.
    differs_since: Option<Timestamp>,
    /// A device that came was told otherwise since, and nobody else.
    is_apart: bool,
}

/// The newest record of another device.
#[derive(Debug)]
struct Known {
    presence: Presence,
    signed: Signed,
    heard: Timestamp,
    /// How old it was then.
    age: Duration,
    /// How old it was then at most: a device's own word is under way, too.
    age_most: Duration,
    /// The device itself said it.
    is_first_hand: bool,
}

impl Known {
    fn age(&self, now: Timestamp) -> Duration {
        self.age.saturating_add(now.since(self.heard))
    }

    fn age_most(&self, now: Timestamp) -> Duration {
        self.age_most.saturating_add(now.since(self.heard))
    }

    /// Whether it was surely made after `then`.
    fn is_later_than(&self, then: Timestamp) -> bool {
        then + self.age_most < self.heard
    }
}

/// A record that was news.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// What it says.
    pub presence: Presence,
    /// As it is passed on.
    pub signed: Signed,
    /// How old it is now.
    pub age: Duration,
}

/// A record that may be news, if it is its device's.
struct Candidate {
    presence: Presence,
    signed: Signed,
    /// As its sender says.
    age: Option<Duration>,
}

/// The machine: this device's record, and the newest of the others.
#[derive(Debug)]
pub struct PresenceTable {
    key: SigningKey,
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    own: Own,
    told: Option<Told>,
    /// The time as it was handed in last.
    now: Timestamp,
    others: BTreeMap<DeviceId, Known>,
    /// When this node's own connection with a device began last.
    met: BTreeMap<DeviceId, Timestamp>,
    /// When it ended last.
    parted: BTreeMap<DeviceId, Timestamp>,
}

impl PresenceTable {
    /// Knows nobody yet.
    pub fn new(key: SigningKey, boot: BootId) -> Self {
        let device = DeviceId::from_bytes(key.verifying_key().to_bytes());
        Self {
            key,
            device,
            boot,
            sequence: 0,
            own: Own { version: Some(Version::of_this_program()), ..Own::default() },
            told: None,
            now: Timestamp::ZERO,
            others: BTreeMap::new(),
            met: BTreeMap::new(),
            parted: BTreeMap::new(),
        }
    }

    /// What this node says of itself, to be changed in place; told to others at the next poll.
    pub fn own_mut(&mut self) -> &mut Own {
        &mut self.own
    }

    /// What this node says of itself.
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// The newest record of a device, however old.
    pub fn of(&self, device: &DeviceId) -> Option<&Presence> {
        self.others.get(device).map(|known| &known.presence)
    }

    /// The newest record of a device, if it is new enough to be believed.
    pub fn fresh(&self, device: &DeviceId) -> Option<&Presence> {
        let known = self.others.get(device)?;
        (known.age(self.now) < FRESH).then_some(&known.presence)
    }

    /// Whether a device carries others' connections. One that is connected here is believed for longer: after
    /// this machine slept, its word is old for a moment and it is still there.
    pub fn relays(&self, device: &DeviceId) -> bool {
        let is_here = self.own.connected.contains(device);
        let believed = if is_here { self.of(device) } else { self.fresh(device) };
        believed.is_some_and(|it| it.relays)
    }

    /// Devices that are connected here and say that they are with `device`. Where this node
    /// [lost](Self::parted) that itself, either has to have said something since: when a device goes, all lose
    /// it, and not all at once.
    pub fn near(&self, device: &DeviceId) -> impl Iterator<Item = &DeviceId> {
        let parted = self.parted.get(device).copied();
        let spoke = move |it: &DeviceId| {
            parted.is_none_or(|then| self.others.get(it).is_some_and(|it| it.is_later_than(then)))
        };
        let lives = spoke(device) || self.has_let_go(device);
        let says_so = move |by: &&DeviceId| {
            (lives || spoke(by)) && self.fresh(by).is_some_and(|it| it.connected.contains(device))
        };
        self.own.connected.iter().filter(says_so)
    }

    /// Whether a device said, since this node's last connection with it began, that there is none: it has
    /// outlived that.
    fn has_let_go(&self, device: &DeviceId) -> bool {
        let met = self.met.get(device).copied();
        self.others.get(device).is_some_and(|it| {
            let is_later = met.is_none_or(|then| it.is_later_than(then));
            is_later && !it.presence.connected.contains(&self.device)
        })
    }

    /// This node's own connection with a device begins.
    pub fn met(&mut self, device: DeviceId, now: Timestamp) {
        self.met.insert(device, now);
    }

    /// This node's own connection with a device ended. Kept for good: what is passed on may be old.
    pub fn parted(&mut self, device: DeviceId, now: Timestamp) {
        self.parted.insert(device, now);
    }

    /// A new record of this device, if somebody hears it and there is something new to say or the last one
    /// is old.
    pub fn poll(&mut self, now: Now) -> Option<PresenceMessage> {
        self.now = now.mono;
        if let Some(told) = &mut self.told {
            let differs = told.is_apart || self.own.may_matter_after(&told.own);
            told.differs_since = differs.then(|| told.differs_since.unwrap_or(now.mono));
        }
        let due = self.due()?;
        (due <= now.mono).then(|| PresenceMessage::of_now(self.sign(now)))
    }

    /// When [`Self::poll`] has something to say.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.due()
    }

    fn due(&self) -> Option<Timestamp> {
        if self.own.connected.is_empty() {
            return None;
        }
        let Some(told) = &self.told else { return Some(Timestamp::ZERO) };
        if self.own.matters_after(&told.own) {
            return Some(Timestamp::ZERO);
        }
        let renewed = told.at + RENEW;
        Some(told.differs_since.map_or(renewed, |since| renewed.min(since + LASTS)))
    }

    /// All that is known, for a device that just came or that is to join.
    pub fn greeting(&mut self, peer: Option<&DeviceId>, now: Now) -> PresenceMessage {
        self.now = now.mono;
        let told = self.told.take();
        let own = self.sign(now);
        // Only the one that is greeted hears it; soon all do, or it would be left with what may be over.
        if let Some(mut told) = told {
            told.is_apart |= self.own.may_matter_after(&told.own);
            if told.is_apart {
                told.differs_since.get_or_insert(now.mono);
            }
            self.told = Some(told);
        }
        let others = self.others.iter().filter(|(device, _)| Some(*device) != peer);
        let others = others.map(|(_, known)| (known.signed.clone(), known.age(now.mono)));
        message(std::iter::once((own, Duration::ZERO)).chain(others))
    }

    fn sign(&mut self, now: Now) -> Signed {
        self.sequence += 1;
        let own = self.own.clone();
        self.told = Some(Told { own, at: now.mono, differs_since: None, is_apart: false });
        let mut presence = Presence {
            device: self.device,
            boot: self.boot,
            sequence: self.sequence,
            addresses: self.own.addresses.clone(),
            queue: self.own.queue,
            battery: self.own.battery,
            metered: self.own.metered,
            models: self.own.models.clone(),
            time: now.wall,
            relays: self.own.relays,
            machine: self.own.machine,
            connected: self.own.connected.iter().take(CONNECTED_MAX).copied().collect(),
            version: self.own.version,
        };
        // Where it listens comes before with whom it is connected.
        while codec::encode(&presence).len() > PRESENCE_BYTES_MAX && !presence.connected.is_empty()
        {
            presence.connected.truncate(presence.connected.len() / 2);
        }
        Signed::new(Domain::Presence, &presence, &self.key)
    }

    /// Takes in records that a device sent, and gives those that were news: to pass on, and to remember
    /// addresses from.
    ///
    /// What is forged, too old, or of a device that `is_member` does not know is passed over.
    pub fn learn(
        &mut self,
        from: &DeviceId,
        message: PresenceMessage,
        is_member: impl Fn(&DeviceId) -> bool,
        now: Timestamp,
    ) -> Vec<News> {
        self.now = now;
        let mut news = Vec::new();
        for (device, candidate) in self.candidates(from, message, is_member) {
            let Candidate { presence, signed, age } = candidate;
            if signed.verify(Domain::Presence).is_err() {
                continue;
            }
            let is_first_hand = device == *from;
            let age = match age {
                _ if is_first_hand => Duration::ZERO,
                None => FRESH,
                Some(age) => age.saturating_add(HANDED_ON),
            };
            let before = self.others.get(&device).filter(|it| it.presence.boot == presence.boot);
            // What was said later is no older.
            let age_most = age.max(HANDED_ON);
            let age_most = before.map_or(age_most, |it| age_most.min(it.age_most(now)));
            let age = before.map_or(age, |before| age.min(before.age(now)));
            news.push(News { presence: presence.clone(), signed: signed.clone(), age });
            let known = Known { presence, signed, heard: now, age, age_most, is_first_hand };
            self.others.insert(device, known);
        }
        news
    }

    /// Of each device that belongs, the newest record of a message by what it says, where that would be news.
    /// Only these are verified: what a message costs is bounded by how many devices there are. Whoever puts a
    /// forged one above a true one keeps no more back than by sending neither.
    fn candidates(
        &self,
        from: &DeviceId,
        message: PresenceMessage,
        is_member: impl Fn(&DeviceId) -> bool,
    ) -> BTreeMap<DeviceId, Candidate> {
        let PresenceMessage::Records { records, ages_ms } = message;
        let ages = ages_ms.into_iter().map(|age| Some(Duration::from_millis(age)));
        let ages = ages.chain(std::iter::repeat(None));
        let mut candidates = BTreeMap::<DeviceId, Candidate>::new();
        for (signed, age) in records.into_iter().zip(ages).take(RECORDS_MAX) {
            let device = signed.author;
            if device == self.device || !is_member(&device) {
                continue;
            }
            let Ok(presence) = codec::decode::<Presence>(&signed.bytes, PRESENCE_BYTES_MAX) else {
                continue;
            };
            let place = |it: &Presence| (it.boot.counter, it.sequence);
            let is_newest = candidates
                .get(&device)
                .is_none_or(|newest| place(&newest.presence) < place(&presence));
            if is_newest && presence.device == device && self.is_news(&presence, *from) {
                candidates.insert(device, Candidate { presence, signed, age });
            }
        }
        candidates
    }

    fn is_news(&self, presence: &Presence, from: DeviceId) -> bool {
        let Some(known) = self.others.get(&presence.device) else { return true };
        let is_same_start = known.presence.boot == presence.boot;
        let is_first_hand = presence.device == from;
        let says_so_itself = known.is_first_hand && self.own.connected.contains(&presence.device);
        if is_same_start {
            known.presence.sequence < presence.sequence
        } else {
            // A start is over for good when another speaks on the device's own connection, also where that
            // has the lower number, as after a backup was put back.
            is_first_hand
                || (known.presence.boot.counter < presence.boot.counter && !says_so_itself)
        }
    }

    /// What is to be passed on to a device: records that it does not hear from those that made them.
    pub fn for_others(device: &DeviceId, news: &[News]) -> Option<PresenceMessage> {
        let misses =
            |record: &Presence| record.device != *device && !record.connected.contains(device);
        let missed = news.iter().filter(|it| misses(&it.presence));
        let mut missed = missed.map(|it| (it.signed.clone(), it.age)).peekable();
        missed.peek().is_some().then(|| message(missed))
    }

    /// Forgets a device that no longer belongs.
    pub fn forget(&mut self, device: &DeviceId) {
        self.others.remove(device);
    }
}

fn message(records: impl Iterator<Item = (Signed, Duration)>) -> PresenceMessage {
    let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let (records, ages_ms) = records.map(|(signed, age)| (signed, millis(age))).unzip();
    PresenceMessage::Records { records, ages_ms }
}

#[cfg(test)]
mod ages;
#[cfg(test)]
mod nearness;
#[cfg(test)]
mod tests;
