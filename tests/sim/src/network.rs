//! The network between the machines, as `weft-net` shows it to a node.
//!
//! A connection begins with the trust stream; when both nodes have admitted each other, the one with
//! the smaller id opens the others. Streams are ordered and lose nothing while they live; across
//! streams anything overtakes anything. What is cut loses what was under way, and each end notices
//! in its own time. A machine that is not listed may speak trust only.

use std::collections::{BTreeMap, BTreeSet};

use weft_core::{Input, links::StreamId};
use weft_protocol::{
    attempt::{Attempt, Ending},
    frame::Protocol,
    id::DeviceId,
};

use crate::{
    bug::Bug,
    fault::Moment,
    sever::Sever,
    world::{Happening, World},
};

/// A second, in microseconds.
pub(crate) const SECOND: u64 = 1_000_000;

/// All connections, and what stands between machines.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) connections: BTreeMap<u64, Connection>,
    /// The newest connection of each pair, the smaller machine first.
    pub(crate) pairs: BTreeMap<(usize, usize), u64>,
    /// Pairs that can't reach each other until that time.
    pub(crate) barred: BTreeMap<(usize, usize), u64>,
    /// Pairs on which everything takes long until that time.
    pub(crate) slow: BTreeMap<(usize, usize), u64>,
    /// A link goes after so many frames of runs.
    pub(crate) sever: Option<Sever>,
    /// That a connection is cut is noticed within so long, where that is not drawn otherwise.
    pub(crate) noticed_within: Option<u64>,
    streams: BTreeMap<StreamId, (u64, Protocol, usize)>,
    next: u64,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The machines, the smaller first.
    pub(crate) ends: [usize; 2],
    /// The keys that they had when it came up.
    pub(crate) devices: [DeviceId; 2],
    boots: [u64; 2],
    pub(crate) sides: [Side; 2],
    streams: BTreeMap<Protocol, Stream>,
    /// Nothing gets through any more.
    pub(crate) dead: bool,
    spoken: bool,
    /// One way, in microseconds.
    delay: u64,
    /// Whether it goes through a relay.
    pub(crate) is_relayed: bool,
    /// The connection whose place it takes, without either node being told that the other was away.
    pub(crate) supersedes: Option<u64>,
    /// The end that is played by somebody with stolen keys.
    pub(crate) thief: Option<usize>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Side {
    /// The node knows of it.
    told: bool,
    /// The machine neither sends nor takes on it any more.
    pub(crate) deaf: bool,
    /// The node knows that it is gone.
    lost: bool,
    member: bool,
    admitted: bool,
}

#[derive(Debug)]
struct Stream {
    ids: [StreamId; 2],
    opened: [bool; 2],
    closed: [bool; 2],
    opens: [u64; 2],
    /// When the last frame towards each side arrives.
    last: [u64; 2],
    cut: bool,
}

impl Network {
    /// The newest stream of a protocol from one machine to another, whether or not it lives.
    pub(crate) fn stream_between(
        &self,
        from: usize,
        to: usize,
        protocol: Protocol,
    ) -> Option<StreamId> {
        let of = |(id, (link, spoken, side)): (&StreamId, &(u64, Protocol, usize))| {
            let ends = self.connections.get(link)?.ends;
            (*spoken == protocol && ends[*side] == from && ends[1 - side] == to).then_some(*id)
        };
        self.streams.iter().rev().find_map(of)
    }

    /// The newest stream of a protocol from a machine to any of these keys, whether or not it lives.
    pub(crate) fn stream_to(
        &self,
        from: usize,
        keys: &BTreeSet<DeviceId>,
        protocol: Protocol,
    ) -> Option<StreamId> {
        let of = |(id, (link, spoken, side)): (&StreamId, &(u64, Protocol, usize))| {
            let Connection { ends, devices, .. } = self.connections.get(link)?;
            let is_to = ends[*side] == from && keys.contains(&devices[1 - side]);
            (*spoken == protocol && is_to).then_some(*id)
        };
        self.streams.iter().rev().find_map(of)
    }
}

/// A pair, the smaller first.
pub(crate) fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Connection {
    /// The address at which a machine is reached by it.
    fn address(&self, of: usize) -> String {
        if self.is_relayed {
            format!("/ip4/10.0.9.9/udp/4000/quic-v1/p2p/12D3KooW/p2p-circuit/p2p/{of}")
        } else {
            format!("/ip4/10.0.0.{of}/udp/4000/quic-v1")
        }
    }

    pub(crate) fn side_of(&self, host: usize) -> usize {
        usize::from(self.ends[0] != host)
    }
}

impl World {
    /// Whether two machines can't reach each other.
    pub(crate) fn is_barred(&self, a: usize, b: usize) -> bool {
        self.network.barred.get(&pair(a, b)).is_some_and(|until| *until > self.time)
    }

    fn delay(&mut self, link: u64) -> u64 {
        let connection = &self.network.connections[&link];
        let (a, b) = (connection.ends[0], connection.ends[1]);
        let base = connection.delay;
        let slow = self.network.slow.get(&(a, b)).is_some_and(|until| *until > self.time);
        let jitter = if slow {
            self.dice.network.between(0, 2 * SECOND)
        } else if self.dice.network.chance(2) {
            self.dice.network.between(0, 300_000)
        } else {
            self.dice.network.between(0, 1_000)
        };
        base + jitter
    }

    /// Each pair tries again and again to be connected.
    pub(crate) fn redial(&mut self, a: usize, b: usize) {
        let pause = if self.healed.is_some() { 400_000 } else { 2 * SECOND };
        let pause = self.dice.network.between(pause / 2, pause);
        self.later(pause, Happening::Redial(a, b));
        if !self.hosts[a].is_up() || !self.hosts[b].is_up() || self.is_barred(a, b) {
            self.dial_in_vain(a, b);
            return;
        }
        let free = match self.network.pairs.get(&(a, b)) {
            None => [true, true],
            Some(link) => {
                let connection = &self.network.connections[link];
                if connection.thief.is_none()
                    && !connection.dead
                    && !connection.sides.iter().any(|side| side.deaf)
                {
                    return;
                }
                connection.sides.map(|side| side.deaf)
            }
        };
        let lists = |x: usize, y: usize| self.hosts[x].members.contains(&self.hosts[y].id);
        let diallers: Vec<usize> = [(a, b, free[0]), (b, a, free[1])]
            .into_iter()
            .filter(|(x, y, free)| *free && lists(*x, *y))
            .map(|(x, _, _)| x)
            .collect();
        if diallers.is_empty() {
            return;
        }
        let dialler = self.dice.network.pick(&diallers);
        self.connect(a, b, dialler, None);
    }

    /// One of two machines that can't reach each other may have tried, and hears how that ended.
    fn dial_in_vain(&mut self, a: usize, b: usize) {
        let dice = &mut self.dice.facts;
        if self.healed.is_some() || !dice.chance(30) {
            return;
        }
        let (at, other) = dice.pick(&[(a, b), (b, a)]);
        let ending = match dice.between(0, 4) {
            0 => Ending::Refused,
            1 => Ending::NoAnswer,
            2 => Ending::NoRoute,
            _ => Ending::Other("the line is bad".into()),
        };
        let address = self.hosts[other].facts.addresses[0].clone();
        let attempts = if dice.chance(10) { vec![] } else { vec![Attempt { address, ending }] };
        let (device, host) = (self.hosts[other].id, &mut self.hosts[at]);
        let is_known = host
            .node
            .as_ref()
            .is_some_and(|node| node.membership().state().member(&device).is_some());
        if !is_known || host.serving.contains_key(&other) {
            return;
        }
        let (times, last) = host.dials.entry(device).or_default();
        *times += 1;
        last.clone_from(&attempts);
        let device = self.mix_up(at, device);
        self.feed(at, Input::DialFailed { device, attempts });
    }

    /// Brings a connection up.
    pub(crate) fn connect(
        &mut self,
        a: usize,
        b: usize,
        dialler: usize,
        thief: Option<usize>,
    ) -> u64 {
        self.network.next += 1;
        let link = self.network.next;
        let delay = self.dice.network.between(200, 30_000);
        let ends = [a.min(b), a.max(b)];
        let connection = Connection {
            ends,
            devices: ends.map(|host| self.hosts[host].id),
            boots: ends.map(|host| self.hosts[host].boots),
            sides: [Side::default(); 2],
            streams: BTreeMap::new(),
            dead: false,
            spoken: false,
            delay,
            is_relayed: self.dice.facts.chance(25),
            supersedes: None,
            thief,
        };
        self.network.connections.insert(link, connection);
        if thief.is_none() {
            self.network.pairs.insert(pair(a, b), link);
        }
        let at = ends.map(|host| self.time + delay * if host == dialler { 2 } else { 3 });
        self.add_stream(link, Protocol::Trust, at);
        for (side, at) in at.into_iter().enumerate() {
            self.at(at, Happening::Greeted(link, side));
        }
        link
    }

    fn add_stream(&mut self, link: u64, protocol: Protocol, opens: [u64; 2]) {
        let ids = [0, 1].map(|side| {
            self.network.next += 1;
            let id = StreamId(self.network.next);
            self.network.streams.insert(id, (link, protocol, side));
            id
        });
        let stream =
            Stream { ids, opened: [false; 2], closed: [false; 2], opens, last: [0; 2], cut: false };
        if let Some(connection) = self.network.connections.get_mut(&link) {
            connection.streams.insert(protocol, stream);
        }
    }

    /// Whether the machine at that end is the one that the connection was made with, and is played by
    /// its own node.
    fn is_there(&self, link: u64, side: usize) -> bool {
        self.network.connections.get(&link).is_some_and(|connection| {
            let host = connection.ends[side];
            connection.thief != Some(host)
                && self.hosts[host].is_up()
                && self.hosts[host].boots == connection.boots[side]
        })
    }

    /// The peer's hello came to one end: the connection serves there.
    pub(crate) fn greeted(&mut self, link: u64, side: usize) {
        if !self.is_there(link, side) {
            return;
        }
        let connection = &self.network.connections[&link];
        if connection.dead || connection.sides[side].deaf {
            return;
        }
        let (host, peer) = (connection.ends[side], connection.ends[1 - side]);
        // Of two machines with one key the last to come is served, as of two connections of one.
        let device = connection.devices[1 - side];
        let serving = self.hosts[host].serving.iter();
        let same = serving.filter(|(other, _)| self.hosts[**other].id == device);
        for old in same.map(|(_, link)| *link).collect::<Vec<_>>() {
            let old_side = self.network.connections[&old].side_of(host);
            if self.network.connections[&link].supersedes == Some(old) {
                self.superseded(old, old_side);
            } else {
                self.kill(old);
                self.lost(old, old_side);
            }
        }
        self.hosts[host].serving.insert(peer, link);
        let member = self.hosts[host].members.contains(&device);
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        connection.sides[side].told = true;
        connection.sides[side].member = member;
        let micros = connection.delay * 2;
        let stream = connection.streams[&Protocol::Trust].ids[side];
        let address = connection.address(peer);
        self.feed(host, Input::Connected { device, address });
        self.stream_up(link, Protocol::Trust, stream, side);
        if self.is_there(link, side) {
            self.feed(host, Input::RoundTrip { device, micros });
        }
    }

    /// A stream serves at one end.
    pub(crate) fn stream_up(&mut self, link: u64, protocol: Protocol, id: StreamId, side: usize) {
        if !self.is_there(link, side) {
            return;
        }
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        let serves = connection.sides[side].told && !connection.sides[side].deaf;
        let Some(stream) = connection.streams.get_mut(&protocol) else { return };
        if !serves || connection.dead || stream.cut || stream.ids[side] != id {
            return;
        }
        stream.opened[side] = true;
        let (host, device) = (connection.ends[side], connection.devices[1 - side]);
        self.feed(host, Input::StreamOpened { stream: id, device, protocol });
    }

    /// A node sends a frame.
    pub(crate) fn send(&mut self, host: usize, id: StreamId, mut bytes: Vec<u8>) {
        let Some((link, protocol, side)) = self.network.streams.get(&id).copied() else { return };
        if protocol == Protocol::Presence {
            bytes = self.spoil_words(host, bytes);
        }
        let connection = &self.network.connections[&link];
        let (peer, device) = (connection.ends[1 - side], connection.devices[1 - side]);
        let (from, to) = (&self.hosts[host], &self.hosts[peer]);
        self.checks.serving.sent(from, to, &device, protocol, &mut self.failures);
        self.checks.trust.sent(&self.hosts[host], protocol, &bytes, &mut self.failures);
        if protocol == Protocol::Audit {
            self.checks.audit.sent(&self.hosts[host], self.time, &bytes, &mut self.failures);
        }
        let stream = &connection.streams[&protocol];
        let lives = stream.ids[side] == id
            && stream.opened[side]
            && !stream.closed[side]
            && !stream.cut
            && !connection.dead
            && !connection.sides[side].deaf;
        let moment = match protocol {
            Protocol::Run => Some(Moment::SentRun),
            Protocol::Audit => Some(Moment::SentAudit),
            Protocol::Sync => Some(Moment::SentSync),
            Protocol::Trust | Protocol::Presence | Protocol::Blob | Protocol::Llm => None,
        };
        if protocol == Protocol::Presence {
            self.checks.presence.sent(host, &self.hosts, self.time, &bytes, &mut self.failures);
        }
        if let Some(moment) = moment {
            self.moment(host, moment);
        }
        if protocol == Protocol::Run {
            self.spoke_of_a_run(host, peer);
        }
        if !lives || self.loses(peer, protocol, &bytes) {
            return;
        }
        self.transmit(link, protocol, 1 - side, bytes);
    }

    /// Puts a frame on its way to one end.
    pub(crate) fn transmit(&mut self, link: u64, protocol: Protocol, to: usize, bytes: Vec<u8>) {
        let delay = self.delay(link);
        let at = self.time + delay;
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        let Some(stream) = connection.streams.get_mut(&protocol) else { return };
        let at = at.max(stream.last[to] + 1).max(stream.opens[to] + 1);
        stream.last[to] = at;
        let id = stream.ids[to];
        self.at(at, Happening::Frame { link, protocol, id, to, bytes });
    }

    /// A frame arrives.
    pub(crate) fn arrive(
        &mut self,
        link: u64,
        protocol: Protocol,
        id: StreamId,
        to: usize,
        bytes: Vec<u8>,
    ) {
        if !self.is_there(link, to) {
            return;
        }
        let connection = &self.network.connections[&link];
        let stream = &connection.streams[&protocol];
        let lives = stream.ids[to] == id
            && stream.opened[to]
            && !stream.closed[to]
            && !stream.cut
            && !connection.dead
            && !connection.sides[to].deaf;
        if lives {
            self.feed(connection.ends[to], Input::Frame { stream: id, bytes });
        }
    }

    /// A node says that a device may speak all protocols.
    pub(crate) fn admit(&mut self, host: usize, device: DeviceId) {
        let Some(peer) = self.peer_of(host, &device) else { return };
        let Some(link) = self.hosts[host].serving.get(&peer).copied() else { return };
        let smaller = usize::from(self.hosts[host].id > device);
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        let side = connection.side_of(host);
        if connection.dead || connection.sides[side].deaf || !connection.sides[side].member {
            return;
        }
        connection.sides[side].admitted = true;
        let opener = if smaller == 0 { side } else { 1 - side };
        if connection.spoken || !connection.sides[1 - side].admitted {
            return;
        }
        connection.spoken = true;
        for protocol in Protocol::SPOKEN {
            if protocol != Protocol::Trust {
                self.open(link, protocol, opener);
            }
        }
    }

    /// Opens a stream from one end.
    pub(crate) fn open(&mut self, link: u64, protocol: Protocol, opener: usize) {
        let delay = self.delay(link);
        let mut opens = [self.time + 3 * delay; 2];
        opens[opener] = self.time + 2 * delay;
        self.add_stream(link, protocol, opens);
        let ids = self.network.connections[&link].streams[&protocol].ids;
        for side in 0..2 {
            self.at(opens[side], Happening::StreamUp(link, protocol, ids[side], side));
        }
    }

    /// A node says who belongs. Who left is cut at once.
    pub(crate) fn set_members(&mut self, host: usize, members: BTreeSet<DeviceId>) {
        let it = &mut self.hosts[host];
        let is_out = it.node.as_ref().is_some_and(|node| {
            node.membership().state().member(&node.membership().me()).is_none()
        });
        // Who is out looks for nobody.
        let was_out = std::mem::replace(&mut it.is_out, is_out);
        let is_news = is_out && !was_out;
        it.dials.retain(|device, _| members.contains(device) && !is_news);
        self.hosts[host].members = members;
        for link in self.hosts[host].serving.clone().into_values() {
            let Some(connection) = self.network.connections.get_mut(&link) else { continue };
            let side = connection.side_of(host);
            let device = connection.devices[1 - side];
            let belongs = self.hosts[host].members.contains(&device);
            let was = std::mem::replace(&mut connection.sides[side].member, belongs);
            if was && !belongs {
                self.kill(link);
                let delay = self.delay(link);
                let notices = self.dice.network.between(50, 20_000);
                self.later(notices, Happening::Lost(link, side));
                self.later(delay, Happening::Lost(link, 1 - side));
            } else if !was && belongs {
                self.later(50, Happening::Recognised(link, side));
            }
        }
    }

    /// A connected stranger is a member now.
    pub(crate) fn recognised(&mut self, link: u64, side: usize) {
        let Some(connection) = self.network.connections.get(&link) else { return };
        let (host, peer) = (connection.ends[side], connection.ends[1 - side]);
        if self.is_there(link, side) && !connection.dead && !connection.sides[side].deaf {
            let address = connection.address(peer);
            let device = connection.devices[1 - side];
            self.feed(host, Input::Connected { device, address });
        }
    }

    /// A node closes a connection: what it sent goes out first.
    pub(crate) fn hang_up(&mut self, host: usize, device: DeviceId) {
        let Some(peer) = self.peer_of(host, &device) else { return };
        let Some(link) = self.hosts[host].serving.get(&peer).copied() else { return };
        let delay = self.delay(link);
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        let side = connection.side_of(host);
        connection.sides[side].deaf = true;
        let last = connection.streams.values().map(|stream| stream.last[1 - side]).max();
        let at = last.unwrap_or(0).max(self.time + delay) + 1;
        self.later(100, Happening::Lost(link, side));
        self.at(at, Happening::Lost(link, 1 - side));
    }

    /// Nothing gets through any more; nobody knows yet.
    pub(crate) fn kill(&mut self, link: u64) {
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        connection.dead = true;
        for side in &mut connection.sides {
            side.deaf |= !side.told;
        }
    }

    /// Cuts a connection; each end notices in its own time.
    pub(crate) fn cut(&mut self, link: u64) {
        self.kill(link);
        for side in 0..2 {
            let notices = match self.healed {
                _ if self.network.noticed_within.is_some() => {
                    self.dice.network.between(0, self.network.noticed_within.unwrap_or(1))
                }
                Some(_) => self.dice.network.between(0, 300_000),
                None if self.dice.network.chance(30) => self.dice.network.between(0, 10 * SECOND),
                None => self.dice.network.between(0, 200_000),
            };
            self.later(notices, Happening::Lost(link, side));
        }
    }

    /// One end notices that a connection is gone.
    pub(crate) fn lost(&mut self, link: u64, side: usize) {
        if let Some((host, device)) = self.ended(link, side)
            && self.bug != Some(Bug::UntoldLoss)
        {
            self.feed(host, Input::Disconnected { device });
        }
    }

    /// At one end another connection takes the place of one: what was said on it is not heard any more, and
    /// the node stays connected.
    fn superseded(&mut self, link: u64, side: usize) {
        self.ended(link, side);
    }

    /// Ends a connection at one end with all its streams. Gives whose it was there and with which device, if
    /// the node knew of it and did not know that it is gone.
    fn ended(&mut self, link: u64, side: usize) -> Option<(usize, DeviceId)> {
        let there = self.is_there(link, side);
        let connection = self.network.connections.get_mut(&link)?;
        connection.sides[side].deaf = true;
        let told = connection.sides[side].told;
        if std::mem::replace(&mut connection.sides[side].lost, true) || !told || !there {
            return None;
        }
        let (host, peer) = (connection.ends[side], connection.ends[1 - side]);
        let device = connection.devices[1 - side];
        let mut closed = Vec::new();
        for stream in connection.streams.values_mut() {
            if stream.opened[side] && !std::mem::replace(&mut stream.closed[side], true) {
                closed.push(stream.ids[side]);
            }
        }
        if self.hosts[host].serving.get(&peer) == Some(&link) {
            self.hosts[host].serving.remove(&peer);
        }
        for stream in closed {
            self.feed(host, Input::StreamClosed { stream });
        }
        Some((host, device))
    }

    /// Cuts one stream of a connection that lives on; it is opened again after a while.
    pub(crate) fn cut_stream(&mut self, link: u64, protocol: Protocol) {
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        let Some(stream) = connection.streams.get_mut(&protocol) else { return };
        if connection.dead || stream.cut || stream.opened != [true; 2] {
            return;
        }
        stream.cut = true;
        let ids = stream.ids;
        let mut latest = 0;
        for (side, id) in ids.into_iter().enumerate() {
            let notices = self.dice.network.between(100, SECOND);
            latest = latest.max(notices);
            self.later(notices, Happening::StreamGone(link, protocol, id, side));
        }
        self.later(latest + SECOND, Happening::Reopen(link, protocol));
    }

    /// One end notices that a stream is gone.
    pub(crate) fn stream_gone(&mut self, link: u64, protocol: Protocol, id: StreamId, side: usize) {
        if !self.is_there(link, side) {
            return;
        }
        let Some(connection) = self.network.connections.get_mut(&link) else { return };
        let host = connection.ends[side];
        let deaf = connection.sides[side].deaf;
        let Some(stream) = connection.streams.get_mut(&protocol) else { return };
        if stream.ids[side] != id || deaf || std::mem::replace(&mut stream.closed[side], true) {
            return;
        }
        self.feed(host, Input::StreamClosed { stream: id });
    }

    /// A stream that was cut is opened again.
    pub(crate) fn reopen(&mut self, link: u64, protocol: Protocol) {
        let Some(connection) = self.network.connections.get(&link) else { return };
        if connection.dead || connection.sides.iter().any(|side| side.deaf) {
            return;
        }
        let smaller = connection.devices[0] < connection.devices[1];
        self.open(link, protocol, usize::from(!smaller));
    }

    /// The power of a machine goes: what it was connected to notices sooner or later.
    pub(crate) fn unplug(&mut self, host: usize) {
        let links: Vec<u64> = self
            .network
            .connections
            .iter()
            .filter(|(_, it)| it.ends.contains(&host) && !it.sides.iter().all(|side| side.lost))
            .map(|(link, _)| *link)
            .collect();
        for link in links {
            self.cut(link);
            let Some(connection) = self.network.connections.get_mut(&link) else { continue };
            let side = connection.side_of(host);
            connection.sides[side].deaf = true;
            connection.sides[side].lost = true;
        }
        self.hosts[host].serving.clear();
    }

    /// The link that lives between two machines.
    pub(crate) fn link(&self, a: usize, b: usize) -> Option<u64> {
        let link = *self.network.pairs.get(&pair(a, b))?;
        let connection = &self.network.connections[&link];
        let lives = !connection.dead && connection.sides.iter().all(|side| side.told && !side.deaf);
        lives.then_some(link)
    }

    /// The machine of a device, as another sees it: of several with one key that which it is connected to.
    fn peer_of(&self, host: usize, device: &DeviceId) -> Option<usize> {
        let has = |at: &usize| self.hosts[*at].id == *device;
        let connected = self.hosts[host].serving.keys().copied().find(has);
        connected.or_else(|| (0..self.hosts.len()).find(has))
    }
}
