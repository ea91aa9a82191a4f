//! Other devices: their connections, streams and frames.

use std::collections::BTreeSet;

use weft_protocol::{
    audit::AuditMessage,
    codec,
    frame::{FRAME_BYTES_MAX, Protocol},
    id::{DeviceId, RunId, SegmentId},
    presence::PresenceMessage,
    run::RunMessage,
    sync::SyncMessage,
    time::{Now, WallTime},
    witness::Fork,
};
use weft_trust::state::Standing;

use super::{After, Env, Node, draw};
use crate::{
    Context, Output,
    door::Event,
    env::Batch,
    membership,
    presence::{News, PresenceTable},
    replica,
    witness::{self, Seen},
};

impl Node {
    pub(super) fn disconnected(&mut self, device: DeviceId, context: Context<'_>) {
        if !self.links.disconnected(&device, context.now.wall) {
            return;
        }
        if let Some(write) = self.links.unheard(&device) {
            self.persist(Batch::ordered(vec![write]), After::Nothing);
        }
        if self.membership.state().devices.contains_key(&device) {
            self.presence.parted(device, context.now.mono);
        }
        self.tell_who_is_connected();
        self.membership.closed(&device);
        self.feed_replica(replica::Input::Closed(device), context);
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        self.executor.stream_cut(device, &mut env);
        self.dispatch.disconnected(device, &mut env);
        if let Some(subject) = self.membership.subject(&device) {
            self.tell_watchers(Event::DeviceAway { name: subject.name });
        }
    }

    pub(super) fn stream_opened(
        &mut self,
        device: DeviceId,
        protocol: Protocol,
        context: Context<'_>,
    ) {
        if protocol == Protocol::Trust {
            self.membership.opened(device, context.now);
            return;
        }
        if !self.serves(&device) {
            return;
        }
        match protocol {
            Protocol::Presence => {
                self.tell_who_is_connected();
                let greeting = self.presence.greeting(Some(&device), context.now);
                self.send(&device, Protocol::Presence, codec::encode(&greeting));
            }
            Protocol::Sync => self.feed_replica(replica::Input::Opened(device), context),
            Protocol::Run => {
                let open = RunMessage::Open(self.open_runs().into_iter().collect());
                self.send(&device, Protocol::Run, codec::encode(&open));
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch.connected(device, &mut env);
            }
            Protocol::Audit => {
                for greeting in self.witnesses.greeting(&device, &self.chain) {
                    self.send(&device, Protocol::Audit, codec::encode(&greeting));
                }
            }
            Protocol::Trust | Protocol::Blob | Protocol::Llm => {}
        }
    }

    pub(super) fn stream_closed(
        &mut self,
        device: DeviceId,
        protocol: Protocol,
        context: Context<'_>,
    ) {
        match protocol {
            Protocol::Trust => self.membership.closed(&device),
            Protocol::Sync => self.feed_replica(replica::Input::Closed(device), context),
            Protocol::Run => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.executor.stream_cut(device, &mut env);
                self.dispatch.stream_cut(device, &mut env);
            }
            Protocol::Presence => self.tell_who_is_connected(),
            Protocol::Blob | Protocol::Llm | Protocol::Audit => {}
        }
    }

    fn tell_who_is_connected(&mut self) {
        let speaking = self.links.speaking(Protocol::Presence);
        self.presence.own_mut().connected = speaking.into_iter().collect();
    }

    /// What a remote sends wrongly is logged and dropped; only trust is heard from strangers.
    pub(super) fn frame(
        &mut self,
        device: DeviceId,
        protocol: Protocol,
        bytes: &[u8],
        context: Context<'_>,
    ) {
        if protocol == Protocol::Trust {
            self.membership.frame(device, bytes, context.now);
            return;
        }
        let Some(subject) = self.membership.subject(&device) else { return };
        if !self.serves(&device) {
            return;
        }
        self.hear(device, context.now, false);
        let handled = match protocol {
            Protocol::Presence => codec::decode(bytes, FRAME_BYTES_MAX)
                .map(|message| self.heard(device, message, context.now)),
            Protocol::Sync => SyncMessage::decode(bytes).map(|message| {
                self.feed_replica(replica::Input::Message(device, message), context);
            }),
            Protocol::Run if self.is_too_late_for(protocol) => Ok(()),
            Protocol::Run => codec::decode(bytes, FRAME_BYTES_MAX)
                .map(|message| self.run_message(device, message, context)),
            Protocol::Audit => codec::decode(bytes, FRAME_BYTES_MAX)
                .map(|message| self.audit_message(device, &subject.name, message, context)),
            Protocol::Trust | Protocol::Blob | Protocol::Llm => Ok(()),
        };
        if let Err(error) = handled {
            let text = format!("{} sent what is no {protocol} message: {error}", subject.name);
            self.outputs.push_back(Output::Log { text });
        }
    }

    /// A head, a countersignature or the proof of a fork.
    fn audit_message(
        &mut self,
        from: DeviceId,
        name: &str,
        message: AuditMessage,
        context: Context<'_>,
    ) {
        let membership = &self.membership;
        let is_member = |device: &DeviceId| membership.subject(device).is_some();
        let (chain, rows) = (&self.chain, context.rows);
        let Seen { mut writes, answer, fork, lost, copied, warning } =
            self.witnesses.handle_message(from, name, message, is_member, chain, rows);
        if let Some(device) = copied {
            writes.push(self.witnesses.copied(device, context.now.wall));
            tracing::warn!(device = device.short(), "another machine runs with a device's key");
            let text = self.copy_warning(&device, context.now.wall, context.now.wall);
            self.tell_watchers(Event::Warning { text });
        }
        if let Some(lost) = lost {
            let segment = SegmentId::from_bytes(draw(&mut self.rng));
            writes.extend(self.chain.recover(segment, self.boot, lost, context.now.wall));
            self.persist(Batch::synced(writes), After::Nothing);
        } else if !writes.is_empty() {
            self.persist(Batch::ordered(writes), After::Nothing);
        }
        if let Some(answer) = answer {
            self.send(&from, Protocol::Audit, codec::encode(&answer));
        }
        if let Some(fork) = fork {
            let text = self.fork_warning(&fork);
            self.tell_watchers(Event::Warning { text });
            let message = codec::encode(&witness::told(&fork));
            self.broadcast(Protocol::Audit, &message, Some(from));
        }
        if let Some(text) = warning {
            self.warn(text);
        }
    }

    /// What a person should know of a chain that is forked.
    pub(super) fn fork_warning(&self, fork: &Fork) -> String {
        let (device, position) = (fork.device(), fork.position());
        let whose = if device == self.me { "this device".into() } else { self.name(&device) };
        format!(
            "the audit chain of {whose} is forked: two records {position} were signed with its key, so somebody else has the key, or the disk was copied; weft audit verify --json holds the proof"
        )
    }

    /// What a person should know of the devices with whose key another machine runs, where that key still
    /// counts.
    pub(super) fn copy_warnings(&self, now: WallTime) -> Vec<String> {
        let devices = &self.membership.state().devices;
        let is_out = |device: &DeviceId| {
            let standing = devices.get(device).map(|it| it.standing);
            !matches!(standing, Some(Standing::Active | Standing::Suspended { .. }))
        };
        let copies = self.witnesses.copies().filter(|(device, _)| !is_out(device));
        copies.map(|(device, since)| self.copy_warning(device, since, now)).collect()
    }

    fn copy_warning(&self, device: &DeviceId, since: WallTime, now: WallTime) -> String {
        let name = self.name(device);
        let (whose, other) = if *device == self.me {
            ("this device's key".to_owned(), "another admin")
        } else {
            (format!("the key of {name}"), "an admin")
        };
        let minutes = now.unix_millis().saturating_sub(since.unix_millis()).max(0) / 60_000;
        let ago = match minutes {
            0 => "now".to_owned(),
            1..=119 => format!("{minutes} min ago"),
            120..=2_879 => format!("{} h ago", minutes / 60),
            _ => format!("{} days ago", minutes / 1_440),
        };
        format!(
            "another machine runs with {whose} (first seen {ago}): a copied disk or a stolen key; stop \
             the other one, then on the real one: weft rotate; or on {other}: weft device revoke {name}"
        )
    }

    pub(super) fn heard(&mut self, from: DeviceId, message: PresenceMessage, now: Now) {
        let membership = &self.membership;
        let is_member = |device: &DeviceId| membership.subject(device).is_some();
        let news = self.presence.learn(&from, message, is_member, now.mono);
        if news.is_empty() {
            return;
        }
        for News { presence, .. } in &news {
            let device = presence.device;
            if device == from {
                self.skew.heard(device, presence.time, now.wall);
            }
            let addresses = presence.addresses.clone();
            if self.addresses.insert(device, addresses.clone()).as_ref() == Some(&addresses) {
                continue;
            }
            let write = membership::remember(&device, &addresses);
            self.persist(Batch::ordered(vec![write]), After::Nothing);
            self.outputs.push_back(Output::Remember { device, addresses });
        }
        self.find_relays();
        for device in self.links.speaking(Protocol::Presence) {
            if device != from
                && let Some(message) = PresenceTable::for_others(&device, &news)
            {
                self.send(&device, Protocol::Presence, codec::encode(&message));
            }
        }
    }

    /// Says which members relay, where presence makes them others than before.
    pub(super) fn find_relays(&mut self) {
        let relays = |device: &DeviceId| self.presence.relays(device);
        let relays = self.membership.others().into_iter().filter(relays).collect();
        if let Some(relays) = self.reach.found(relays) {
            self.outputs.push_back(Output::Relays(relays));
        }
    }

    pub(super) fn run_message(
        &mut self,
        from: DeviceId,
        message: RunMessage,
        context: Context<'_>,
    ) {
        let neighbours = self.neighbours();
        let mut env = environment!(self, context, neighbours);
        match message {
            RunMessage::Offer(_)
            | RunMessage::IntentAck(_)
            | RunMessage::DoneAck(_)
            | RunMessage::Cancel(_)
            | RunMessage::Inquire(_)
            | RunMessage::Open(_) => self.executor.handle_message(from, message, &mut env),
            RunMessage::Accept(_)
            | RunMessage::Refuse { .. }
            | RunMessage::Intent(_)
            | RunMessage::NotBegun(_)
            | RunMessage::Progress { .. }
            | RunMessage::Done { .. } => self.dispatch.handle_message(from, message, &mut env),
        }
    }

    /// The runs of which this device may still ask somebody for a step.
    pub(super) fn open_runs(&self) -> BTreeSet<RunId> {
        self.runs.open().chain(self.dispatch.runs()).chain(self.executor.runs()).collect()
    }

    /// Has a device, which may be this one, forget the steps of runs that are settled.
    pub(super) fn settle_kept(&mut self, device: DeviceId, context: Context<'_>) {
        let open = RunMessage::Open(self.open_runs().into_iter().collect());
        self.tell(device, open, context);
    }

    /// Has devices that were asked for steps of other owners' runs forget them, where nothing of the run is
    /// left here.
    pub(super) fn settle_asked(&mut self, context: Context<'_>) {
        if self.asked.is_empty() {
            return;
        }
        let open = self.open_runs();
        let settled: Vec<RunId> =
            self.asked.keys().filter(|run| !open.contains(run)).copied().collect();
        let asked: BTreeSet<DeviceId> =
            settled.iter().filter_map(|run| self.asked.remove(run)).flatten().collect();
        for device in asked {
            self.settle_kept(device, context);
        }
    }

    /// A message of a run, to another device or to this one.
    pub(super) fn tell(&mut self, device: DeviceId, message: RunMessage, context: Context<'_>) {
        if device == self.me {
            self.run_message(device, message, context);
        } else {
            self.send(&device, Protocol::Run, codec::encode(&message));
        }
    }

    /// Sends where the protocol is spoken; elsewhere what is said is said again when it is.
    pub(super) fn send(&mut self, device: &DeviceId, protocol: Protocol, bytes: Vec<u8>) {
        let may_hear = protocol == Protocol::Trust || self.serves(device);
        if let Some(stream) = self.links.to(device, protocol).filter(|_| may_hear) {
            self.outputs.push_back(Output::Send { stream, bytes });
        }
    }

    pub(super) fn broadcast(&mut self, protocol: Protocol, bytes: &[u8], except: Option<DeviceId>) {
        for device in self.links.speaking(protocol) {
            if Some(device) != except {
                self.send(&device, protocol, bytes.to_vec());
            }
        }
    }
}
