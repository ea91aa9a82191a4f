//! Which devices are connected, and on which stream each protocol is spoken with them.

use std::collections::BTreeMap;

use weft_protocol::{frame::Protocol, id::DeviceId, time::WallTime};

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

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    devices: BTreeMap<DeviceId, Link>,
    streams: BTreeMap<StreamId, (DeviceId, Protocol)>,
    away_since: BTreeMap<DeviceId, WallTime>,
}

impl Links {
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

    /// Since when a device is away, where this start saw it go.
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
