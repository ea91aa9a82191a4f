//! Which devices are connected, and on which stream each protocol is spoken with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weft_protocol::{
    codec,
    frame::Protocol,
    id::DeviceId,
    row::{Item, ReadError, Row, Rows, Table, Write},
    time::WallTime,
};

/// That a device was heard is written at most so often while it stays connected: after a crash of this node
/// the time is too early by no more than this.
const HEARD_EVERY: Duration = Duration::from_secs(600);
/// The most bytes of a stored time.
const HEARD_BYTES_MAX: usize = 16;
/// What an address through a relay has in it.
const CIRCUIT: &str = "p2p-circuit";

/// One stream, as the network numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// A connected device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The address in use.
    pub address: String,
    /// Since when.
    pub since: WallTime,
    /// The round trip in microseconds, where it was measured.
    pub round_trip_micros: Option<u64>,
    streams: BTreeMap<Protocol, StreamId>,
}

impl Link {
    /// Whether what is said goes through a relay.
    pub fn is_relayed(&self) -> bool {
        self.address.split('/').any(|part| part == CIRCUIT)
    }
}

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    devices: BTreeMap<DeviceId, Link>,
    streams: BTreeMap<StreamId, (DeviceId, Protocol)>,
    away_since: BTreeMap<DeviceId, WallTime>,
    heard: BTreeMap<DeviceId, Heard>,
    watched: BTreeSet<DeviceId>,
}

/// When a device was last heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: WallTime,
    /// As the disk has it.
    stored: WallTime,
}

impl Links {
    /// Takes up when devices were last heard.
    ///
    /// # Errors
    ///
    /// The rows cannot be read.
    pub fn open(rows: &dyn Rows) -> Result<Self, ReadError> {
        let mut links = Self::default();
        for (item, bytes) in rows.scan(Table::Peer, b"heard")? {
            let Item::Named(device) = item else { continue };
            if let (Ok(device), Ok(at)) =
                (device.try_into(), codec::decode(&bytes, HEARD_BYTES_MAX))
            {
                let device = DeviceId::from_bytes(device);
                links.heard.insert(device, Heard { at, stored: at });
            }
        }
        Ok(links)
    }

    /// A device was heard now. Gives what is to be persisted of that, if it is long since it was, or if
    /// the connection begins (`is_new`).
    pub fn hear(&mut self, device: DeviceId, now: WallTime, is_new: bool) -> Option<Write> {
        let heard = self.heard.get(&device);
        let is_old = heard.is_none_or(|it| it.stored + HEARD_EVERY <= now || it.stored > now);
        let stored = if is_new || is_old { now } else { heard?.stored };
        self.heard.insert(device, Heard { at: now, stored });
        (is_new || is_old).then(|| write_heard(&device, now))
    }

    /// A device is not heard any more. Gives what is to be persisted of when it was last, if the disk has an
    /// earlier time. That its connection is given up is no word of the device: it may have been silent for long.
    pub fn unheard(&mut self, device: &DeviceId) -> Option<Write> {
        let heard = self.heard.get_mut(device).filter(|it| it.stored != it.at)?;
        heard.stored = heard.at;
        Some(write_heard(device, heard.at))
    }

    /// When a device was last heard; of one that was not since this start, by up to ten minutes too early.
    pub fn heard(&self, device: &DeviceId) -> Option<WallTime> {
        self.heard.get(device).map(|it| it.at)
    }

    /// A connection serves a device now.
    pub fn connected(&mut self, device: DeviceId, address: String, now: WallTime) {
        self.away_since.remove(&device);
        let link = self.devices.entry(device).or_insert_with(|| Link {
            address: String::new(),
            since: now,
            round_trip_micros: None,
            streams: BTreeMap::new(),
        });
        link.address = address;
    }

    /// The connection is gone. Gives whether there was one.
    pub fn disconnected(&mut self, device: &DeviceId, now: WallTime) -> bool {
        self.streams.retain(|_, (of, _)| of != device);
        let was = self.devices.remove(device).is_some();
        if was {
            self.away_since.insert(*device, now);
        }
        was
    }

    /// A stream serves a protocol from now on.
    pub fn opened(&mut self, stream: StreamId, device: DeviceId, protocol: Protocol) {
        if let Some(link) = self.devices.get_mut(&device) {
            link.streams.insert(protocol, stream);
            self.streams.insert(stream, (device, protocol));
        }
    }

    /// A stream is closed. Gives what it served.
    pub fn closed(&mut self, stream: StreamId) -> Option<(DeviceId, Protocol)> {
        let (device, protocol) = self.streams.remove(&stream)?;
        let link = self.devices.get_mut(&device)?;
        if link.streams.get(&protocol) == Some(&stream) {
            link.streams.remove(&protocol);
            return Some((device, protocol));
        }
        None
    }

    /// What a stream serves.
    pub fn stream(&self, stream: StreamId) -> Option<(DeviceId, Protocol)> {
        self.streams.get(&stream).copied()
    }

    /// The stream on which a protocol is spoken with a device.
    pub fn to(&self, device: &DeviceId, protocol: Protocol) -> Option<StreamId> {
        self.devices.get(device)?.streams.get(&protocol).copied()
    }

    /// All devices with which a protocol is spoken.
    pub fn speaking(&self, protocol: Protocol) -> Vec<DeviceId> {
        let speaks = |(_, link): &(&DeviceId, &Link)| link.streams.contains_key(&protocol);
        self.devices.iter().filter(speaks).map(|(device, _)| *device).collect()
    }

    /// The link to a device.
    pub fn of(&self, device: &DeviceId) -> Option<&Link> {
        self.devices.get(device)
    }

    /// Connected devices.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.keys()
    }

    /// Something is under way with these devices and no others. Gives those for whom that is new.
    pub fn watch(&mut self, wanted: BTreeSet<DeviceId>) -> Vec<(DeviceId, bool)> {
        if self.watched == wanted {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.watched, wanted);
        let over = before.difference(&self.watched).map(|device| (*device, false));
        let begun = self.watched.difference(&before).map(|device| (*device, true));
        over.chain(begun).collect()
    }

    /// When the connection with a device that is away was given up, which may be some time after it was
    /// [heard](Self::heard) last; `None`: this start did not see it go, and nothing says when it did.
    pub fn away_since(&self, device: &DeviceId) -> Option<WallTime> {
        self.away_since.get(device).copied()
    }

    /// A round trip was measured.
    pub fn measured(&mut self, device: &DeviceId, round_trip_micros: u64) {
        if let Some(link) = self.devices.get_mut(device) {
            link.round_trip_micros = Some(round_trip_micros);
        }
    }
}

fn write_heard(device: &DeviceId, at: WallTime) -> Write {
    Write::Put(Row::named(Table::Peer, b"heard", device.as_bytes()), codec::encode(&at))
}

#[cfg(test)]
mod tests {
    use weft_protocol::row::MemoryRows;

    use super::*;

    const PHONE: DeviceId = DeviceId::from_bytes([2; 32]);

    fn at(seconds: i64) -> WallTime {
        WallTime::from_unix_millis(seconds * 1_000)
    }

    #[test]
    fn an_address_says_whether_it_is_a_relays() {
        let mut links = Links::default();
        let relay = "/ip4/10.0.0.1/udp/4001/quic-v1/p2p/12D3KooW/p2p-circuit";
        for (address, expected) in [
            ("/ip4/10.0.0.2/udp/4001/quic-v1", false),
            (relay, true),
            ("/dns4/p2p-circuit.example/tcp/1", false),
        ] {
            links.connected(PHONE, address.to_owned(), at(0));
            assert_eq!(links.of(&PHONE).map(Link::is_relayed), Some(expected), "{address}");
        }
    }

    #[test]
    fn that_something_is_under_way_is_said_once() {
        let mut links = Links::default();
        let other = DeviceId::from_bytes([3; 32]);
        assert_eq!(links.watch([PHONE].into()), [(PHONE, true)]);
        assert_eq!(links.watch([PHONE].into()), []);
        assert_eq!(links.watch([other].into()), [(PHONE, false), (other, true)]);
        assert_eq!(links.watch(BTreeSet::new()), [(other, false)]);
    }

    #[test]
    fn a_round_trip_belongs_to_one_connection() {
        let mut links = Links::default();
        links.measured(&PHONE, 9);
        assert_eq!(links.of(&PHONE), None, "nobody is connected");
        links.connected(PHONE, String::new(), at(0));
        links.measured(&PHONE, 1_250);
        assert_eq!(links.of(&PHONE).and_then(|it| it.round_trip_micros), Some(1_250));
        links.disconnected(&PHONE, at(1));
        links.connected(PHONE, String::new(), at(2));
        assert_eq!(links.of(&PHONE).and_then(|it| it.round_trip_micros), None);
    }

    #[test]
    fn who_was_heard_when_is_written_seldom_and_known_after_a_start() {
        let mut links = Links::default();
        let mut rows = MemoryRows::default();
        assert_eq!(links.heard(&PHONE), None);
        let heard = [(0, true), (15, false), (30, false), (700, false), (715, false), (720, true)];
        let written: Vec<i64> = heard
            .into_iter()
            .filter_map(|(seconds, is_new)| {
                let write = links.hear(PHONE, at(seconds), is_new)?;
                rows.apply(vec![write]);
                Some(seconds)
            })
            .collect();
        assert_eq!(written, [0, 700, 720]);
        links.hear(PHONE, at(750), false);
        assert_eq!(links.heard(&PHONE), Some(at(750)));
        let links = Links::open(&rows).expect("rows in memory can be read");
        assert_eq!((links.heard(&PHONE), links.away_since(&PHONE)), (Some(at(720)), None));
        // A clock that was set back is no reason to be silent for ever.
        let mut links = links;
        assert!(links.hear(PHONE, at(5), false).is_some());
        // Of one that this start saw go, it is known.
        links.connected(PHONE, String::new(), at(900));
        assert!(links.disconnected(&PHONE, at(960)));
        assert_eq!(links.away_since(&PHONE), Some(at(960)));
    }

    #[test]
    fn to_give_a_device_up_is_not_to_hear_it() {
        let mut links = Links::default();
        let mut rows = MemoryRows::default();
        assert_eq!(links.unheard(&PHONE), None, "it never was");
        links.connected(PHONE, String::new(), at(0));
        for seconds in [0, 15, 30] {
            rows.apply(links.hear(PHONE, at(seconds), seconds == 0));
        }
        // It falls silent, which is noticed half a minute later.
        assert!(links.disconnected(&PHONE, at(60)));
        rows.apply(links.unheard(&PHONE));
        assert_eq!(links.unheard(&PHONE), None, "the disk has it");
        assert_eq!((links.heard(&PHONE), links.away_since(&PHONE)), (Some(at(30)), Some(at(60))));
        let after = Links::open(&rows).expect("rows in memory can be read");
        assert_eq!(after.heard(&PHONE), Some(at(30)));
    }
}
