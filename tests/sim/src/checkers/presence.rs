//! Who is here, as it is said, passed on, shown.
//!
//! What each device says of itself is so, what others pass on of it is its newest word and no younger than it is,
//! and what a node shows is what is so. Nothing of it is on a disk but addresses.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{Input, door::DeviceView, links::StreamId};
use weft_protocol::{
    codec,
    frame::{FRAME_BYTES_MAX, Protocol},
    id::DeviceId,
    presence::{PRESENCE_BYTES_MAX, Presence as Said, PresenceMessage},
    row::{Rows as _, Table},
    signed::Signed,
};

use crate::{
    checkers::replicas::{active, content},
    host::Host,
    look::Seen,
    network::{Network, SECOND},
    world::{Failures, World},
};

/// A device that is gone is shown as `near` for so long at most, in microseconds: until the one that saw it
/// notices (10 s), has told (1 s), and that has come through (two slow hops), or until it is noticed that
/// this one is gone too.
const NEAR_WITHIN: u64 = 30 * SECOND;
/// What lies under way makes a record that is passed on look younger, so much at each hop: a slow link, and
/// a stream whose frames wait for one another.
const UNDER_WAY: u64 = 6 * SECOND;
/// A word may be passed on so often: there are no more machines.
const HOPS_MAX: u64 = 9;

/// Where nothing of presence may lie: all but addresses and when a device was heard.
const KEPT: [Table; 14] = [
    Table::Node,
    Table::Trust,
    Table::Key,
    Table::Document,
    Table::Change,
    Table::Vouch,
    Table::Parked,
    Table::Index,
    Table::Run,
    Table::Timer,
    Table::Audit,
    Table::Witness,
    Table::Policy,
    Table::Setting,
];

/// The number of a record among all of its device: its start, and which of that.
type Place = (u64, u64);

/// A record as it was made.
#[derive(Clone, Copy, Debug)]
struct Made {
    at: u64,
    hash: blake3::Hash,
}

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    made: BTreeMap<(DeviceId, Place), Made>,
    /// The newest word on each device that a start of a node has passed on.
    passed_on: BTreeMap<(usize, DeviceId), Place>,
    /// The streams of presence that a node has.
    streams: BTreeMap<(usize, StreamId), DeviceId>,
    /// When a node last had one with a device that it has none with now.
    parted: BTreeMap<(usize, DeviceId), u64>,
}

impl Presence {
    /// A machine lost its power.
    pub(crate) fn crashed(&mut self, at: usize, time: u64) {
        self.passed_on.retain(|(host, _), _| *host != at);
        let (gone, left) = std::mem::take(&mut self.streams)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|((host, _), _)| *host == at);
        self.streams = left;
        self.parted.extend(gone.into_values().map(|device| ((at, device), time)));
    }

    /// A node takes something.
    pub(crate) fn takes(&mut self, at: usize, input: &Input, time: u64) {
        if let Input::StreamOpened { stream, device, protocol: Protocol::Presence } = input {
            self.streams.insert((at, *stream), *device);
        } else if let Input::StreamClosed { stream } = input
            && let Some(device) = self.streams.remove(&(at, *stream))
        {
            self.parted.insert((at, device), time);
        }
    }

    /// Whether a node has a stream of presence with a device, or had one not that long ago.
    fn met(&self, at: usize, device: &DeviceId, within: u64, time: u64) -> bool {
        let mut streams = self.streams.range((at, StreamId(0))..(at + 1, StreamId(0)));
        streams.any(|(_, other)| other == device)
            || self.parted.get(&(at, *device)).is_some_and(|parted| parted + within >= time)
    }

    /// A node sends a frame of presence.
    pub(crate) fn sent(
        &mut self,
        at: usize,
        hosts: &[Host],
        time: u64,
        bytes: &[u8],
        failures: &mut Failures,
    ) {
        let host = &hosts[at];
        let Ok(PresenceMessage::Records { records, ages_ms }) =
            codec::decode(bytes, FRAME_BYTES_MAX)
        else {
            failures.add("presence", format!("{} sends what is none at {time} µs", host.name));
            return;
        };
        let ages = ages_ms.into_iter().map(Some).chain(std::iter::repeat(None));
        for (signed, age_ms) in records.iter().zip(ages) {
            let Ok(said) = codec::decode::<Said>(&signed.bytes, PRESENCE_BYTES_MAX) else {
                failures.add("presence", format!("{} sends no record at {time} µs", host.name));
                continue;
            };
            let wrong = if said.device == host.id {
                self.speaks(at, host, &said, signed, time)
            } else {
                self.passes_on(at, hosts, &said, signed, age_ms, time)
            };
            if let Err(wrong) = wrong {
                let of = hosts.iter().find(|it| it.had(&said.device)).map_or("?", |it| it.name);
                let (name, start, number) = (host.name, said.boot.counter, said.sequence);
                let what = format!(
                    "{name} says at {time} µs, of {of} (start {start}, record {number}), {wrong}"
                );
                failures.add("presence", what);
            }
        }
    }

    /// A device says something of itself: what is so, under a later number than ever.
    fn speaks(
        &mut self,
        at: usize,
        host: &Host,
        said: &Said,
        signed: &Signed,
        time: u64,
    ) -> Result<(), String> {
        let place = (said.boot.counter, said.sequence);
        let made = Made { at: time, hash: blake3::hash(&signed.bytes) };
        let newest = self.made.range((host.id, (0, 0))..=(host.id, (u64::MAX, u64::MAX))).last();
        let newest = newest.map(|((_, place), made)| (*place, made.hash));
        if newest == Some((place, made.hash)) {
            // To another device.
            return Ok(());
        }
        self.made.insert((host.id, place), made);
        if host.set_back {
            return Ok(());
        }
        if newest.is_some_and(|(newest, _)| newest >= place) {
            return Err(format!("other than it said in {newest:?}"));
        }
        if !host.facts.are_said_by(said) {
            return Err(format!("{said:?}, and so it is: {:?}", host.facts));
        }
        if said.time != host.now(time).wall {
            return Err("another time than its clock shows".to_owned());
        }
        let with = |device: &&DeviceId| !self.met(at, device, 0, time);
        match said.connected.iter().find(with) {
            Some(device) => Err(format!("that it is connected with {}", device.short())),
            None => Ok(()),
        }
    }

    /// A device says what another said: the newest that it heard, as that one said it, and no younger.
    fn passes_on(
        &mut self,
        at: usize,
        hosts: &[Host],
        said: &Said,
        signed: &Signed,
        age_ms: Option<u64>,
        time: u64,
    ) -> Result<(), String> {
        let place = (said.boot.counter, said.sequence);
        let newest = self.passed_on.insert((at, said.device), place);
        let author = hosts.iter().find(|host| host.had(&said.device));
        if author.is_none_or(|host| host.set_back || host.stolen || host.put_out) {
            return Ok(());
        }
        if newest.is_some_and(|newest| newest > place) {
            return Err(format!("less than it passed on in {newest:?}"));
        }
        let Some(made) = self.made.get(&(said.device, place)) else {
            return Err("what that device never said".to_owned());
        };
        if made.hash != blake3::hash(&signed.bytes) || signed.author != said.device {
            return Err("other words than that device's".to_owned());
        }
        let age = time - made.at;
        match age_ms {
            Some(told) if told * 1_000 + HOPS_MAX * UNDER_WAY < age => {
                Err(format!("that it is {told} ms old, and it is {} ms", age / 1_000))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What a node shows of another, at any time: it is here if there is a connection, and near if a device
    /// that is here said so.
    fn shows(
        &self,
        at: usize,
        view: &DeviceView,
        hosts: &[Host],
        network: &Network,
        time: u64,
    ) -> Result<(), String> {
        let link = hosts[at].serving.values().find(|link| {
            let connection = &network.connections[*link];
            connection.devices[1 - connection.side_of(at)] == view.id
        });
        let is_relayed = link.map(|link| network.connections[link].is_relayed);
        if view.standing.is_some() {
            return Ok(());
        }
        if (view.state == "here") != link.is_some() {
            return Err(format!(
                "as {}, and there is {} connection",
                view.state,
                link.iter().count()
            ));
        }
        if view.is_relayed != is_relayed {
            return Err(format!("as relayed: {:?}, not {is_relayed:?}", view.is_relayed));
        }
        if (view.state == "near") == view.via.is_empty() {
            return Err(format!("as {}, by {:?}", view.state, view.via));
        }
        for by in &view.via {
            let Some(by) = hosts.iter().position(|host| host.name == by) else {
                return Err(format!("as near {by:?}, which is no device"));
            };
            let is_by = |peer: &&usize| hosts[**peer].id == hosts[by].id;
            if !hosts[at].serving.keys().any(|peer| is_by(&peer)) {
                return Err(format!("as near {}, which is not here itself", hosts[by].name));
            }
            if !self.met(by, &view.id, NEAR_WITHIN, time) && !hosts[by].set_back {
                return Err(format!("as near {}, which has not met it for long", hosts[by].name));
            }
        }
        if !view.models.is_empty() && !matches!(view.state.as_str(), "here" | "near") {
            return Err(format!("with {:?}, and it is {}", view.models, view.state));
        }
        Ok(())
    }
}

/// The one machine that runs under a key, and belongs.
fn only<'a>(hosts: &'a [Host], device: &DeviceId) -> Option<(usize, &'a Host)> {
    let mut found = hosts.iter().enumerate().filter(|(_, host)| host.id == *device);
    let it = found.next().filter(|(_, host)| host.belongs() && !host.set_back)?;
    found.next().is_none().then_some(it)
}

/// What a node shows of another when all is well and both belong.
fn shows_what_is_so(at: &Host, view: &DeviceView, seen: &Seen, other: &Host) -> Result<(), String> {
    if view.state != "here" {
        return Err(format!("as {}", view.state));
    }
    let models: Vec<&str> = other.facts.models.iter().map(|model| model.name.as_str()).collect();
    if view.models != models {
        return Err(format!("with {:?}, not {models:?}", view.models));
    }
    let Some(contact) = seen.contact(&view.id) else {
        return Err("among its devices, and not in its checkup".to_owned());
    };
    if contact.relays != other.facts.relays || at.relays.contains(&view.id) != other.facts.relays {
        return Err(format!("as a relay: {}", contact.relays));
    }
    if contact.addresses != other.facts.addresses {
        return Err(format!("at {:?}, not {:?}", contact.addresses, other.facts.addresses));
    }
    if let Some(failed) = &contact.contact.failed {
        return Err(format!("as if it had not been reached: {failed:?}"));
    }
    Ok(())
}

impl World {
    /// Holds what all nodes show against what is so, at any time.
    pub(crate) fn look_around(&mut self) {
        for at in 0..self.hosts.len() {
            let Some(seen) = self.look_at(at) else { continue };
            for view in seen.devices.iter().filter(|view| !view.this) {
                let shown =
                    self.checks.presence.shows(at, view, &self.hosts, &self.network, self.time);
                self.judge(at, &view.name, shown);
                let shown = self.shows_contact(at, view, &seen);
                self.judge(at, &view.name, shown);
                let shown = self.shows_clock(at, view, &seen, false);
                self.judge(at, &view.name, shown);
            }
            let shown = self.shows_own_clock(at, &seen);
            self.judge(at, "itself", shown);
        }
    }

    /// Holds what all nodes show against what is so, when all is well and has been for a while.
    pub(crate) fn look_at_rest(&mut self, are_clocks_known: bool) {
        self.look_around();
        for at in 0..self.hosts.len() {
            if only(&self.hosts, &self.hosts[at].id).is_none() {
                continue;
            }
            let Some(seen) = self.look_at(at) else { continue };
            for view in seen.devices.iter().filter(|view| !view.this) {
                let Some((_, other)) = only(&self.hosts, &view.id) else { continue };
                if !other.is_up() {
                    continue;
                }
                let shown = shows_what_is_so(&self.hosts[at], view, &seen, other);
                self.judge(at, &view.name, shown);
                let shown = self.shows_clock(at, view, &seen, are_clocks_known);
                self.judge(at, &view.name, shown);
            }
            self.weighs_what_is_so(at);
        }
        self.nothing_is_kept();
    }

    /// Nothing that presence says of machines is in a document or on a disk.
    fn nothing_is_kept(&mut self) {
        let secrets: BTreeSet<Vec<u8>> =
            self.hosts.iter().flat_map(|host| host.facts.secrets()).collect();
        let secret_in = |bytes: &[u8]| {
            let holds = |secret: &&Vec<u8>| bytes.windows(secret.len()).any(|it| it == **secret);
            secrets.iter().find(holds).map(|secret| String::from_utf8_lossy(secret).into_owned())
        };
        for host in &self.hosts {
            for table in KEPT {
                for (row, bytes) in host.disk.visible().scan_table(table).unwrap_or_default() {
                    if let Some(secret) = secret_in(&bytes) {
                        let what = format!("{} has kept {secret:?} in {row:?}", host.name);
                        self.failures.add("presence", what);
                    }
                }
            }
        }
        // A document is packed on the disk.
        if let Some((host, node)) = active(&self.hosts).next() {
            for (id, kind, value) in content(host, node) {
                if let Some(secret) = secret_in(format!("{value:?}").as_bytes()) {
                    let what = format!("{kind} {} tells {secret:?}", id.short());
                    self.failures.add("presence", what);
                }
            }
        }
    }

    /// What placement weighs of the others.
    fn weighs_what_is_so(&mut self, at: usize) {
        let Some(explained) = self.weighed(at) else { return };
        for candidate in explained.candidates {
            let Some((_, other)) = only(&self.hosts, &candidate.device) else { continue };
            if candidate.cost.is_none() || !other.is_up() || candidate.device == self.hosts[at].id {
                continue;
            }
            let says = |word: &str| candidate.reasons.iter().any(|it| it.starts_with(word));
            let facts = &other.facts;
            let shown = if says("metered link") != facts.metered {
                Err(format!("as metered: {}", !facts.metered))
            } else if says("on battery") != facts.battery.is_some() {
                Err(format!("as on battery: {}", facts.battery.is_none()))
            } else if candidate.reasons.iter().any(|it| it.contains("in its queue")) {
                Err(format!("as busy at rest: {:?}", candidate.reasons))
            } else {
                Ok(())
            };
            self.judge(at, other.name, shown);
        }
    }

    /// How a node looked for a device is what became of its dials since that was last connected.
    fn shows_contact(&self, at: usize, view: &DeviceView, seen: &Seen) -> Result<(), String> {
        let belong = view.standing.is_none() && !self.hosts[at].is_out;
        let contact = seen.contact(&view.id).filter(|_| belong);
        let Some(contact) = contact else { return Ok(()) };
        let expected = self.hosts[at].dials.get(&view.id);
        let found = contact.contact.failed.as_ref().map(|it| (it.times, it.attempts.clone()));
        if found.as_ref() == expected {
            Ok(())
        } else {
            Err(format!("as dialled in vain {found:?}, not {expected:?}"))
        }
    }

    pub(crate) fn judge(&mut self, at: usize, of: &str, shown: Result<(), String>) {
        if let Err(shown) = shown {
            let (name, time) = (self.hosts[at].name, self.time);
            self.failures.add("presence", format!("{name} shows {of} at {time} µs {shown}"));
        }
    }

    /// A machine is gone for good: nobody takes it for here or near, or counts on anything of it.
    pub(crate) fn is_gone_for_all(&mut self, gone: usize, is_forgotten: bool) {
        let (id, gone_name) = (self.hosts[gone].id, self.hosts[gone].name);
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        for at in all {
            let Some(seen) = self.look_at(at) else { continue };
            let Some(view) = seen.devices.iter().find(|view| view.id == id) else { continue };
            let relays = self.hosts[at].relays.contains(&id)
                || seen.contact(&id).is_some_and(|contact| contact.relays);
            let shown = if view.standing.is_some() {
                Ok(())
            } else if !matches!(view.state.as_str(), "away" | "never seen") || !view.via.is_empty()
            {
                Err(format!("as {} by {:?}, long after it fell silent", view.state, view.via))
            } else if is_forgotten && relays {
                Err("as a relay, long after it fell silent".to_owned())
            } else {
                Ok(())
            };
            self.judge(at, gone_name, shown);
        }
    }

    /// The machines whose silence can be told: they run alone under their key, and belong.
    pub(crate) fn sound(&self) -> Vec<usize> {
        let up = active(&self.hosts).map(|(host, _)| host.id);
        up.filter_map(|id| only(&self.hosts, &id)).map(|(at, _)| at).collect()
    }
}
