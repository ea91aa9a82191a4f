//! The streams: opened on the connection that serves, told of once they may be used.

use std::{sync::Arc, time::Duration};

use libp2p::{identify, swarm::ConnectionId};
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};
use weft_protocol::{frame::Protocol, id::BootId};

use super::{NetActor, Timer, name, protocol_of};
use crate::{
    Disconnection, Event, TurnedAway,
    gate::{GateEvent, Negotiated},
    stream::{Outgoing, Report, StreamActor, StreamEnd, StreamId},
};

/// How long a stream waits for trust to be merged here.
const HELD_TIME: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) connection: ConnectionId,
    pub(super) protocol: Protocol,
    pub(super) since: Instant,
    pub(super) outgoing: Outgoing,
    pub(super) release: Option<oneshot::Sender<()>>,
    pub(super) task: AbortHandle,
    pub(super) boot: Option<BootId>,
    /// Whether the node was told of it.
    pub(super) opened: bool,
}

impl NetActor {
    /// Opens a protocol on a connection where it is not open.
    pub(super) fn open(&mut self, id: ConnectionId, protocol: Protocol) {
        if let Some(connection) = self.connections.get(&id)
            && !connection.streams.contains_key(&protocol)
        {
            self.swarm.behaviour_mut().gate.open(id, name(protocol));
        }
    }

    pub(super) fn on_gate_event(&mut self, event: GateEvent) {
        let id = event.connection;
        match &event.outcome {
            Negotiated::Outbound(_) | Negotiated::Inbound(_) => self.on_heard(id),
            Negotiated::Failed(why) if event.protocol == identify::PROTOCOL_NAME => {
                tracing::debug!(connection = %id, %why, "asked for a sign of life");
            }
            Negotiated::Failed(_) => {}
        }
        let Some(protocol) = protocol_of(&event.protocol) else { return };
        let Some(connection) = self.connections.get(&id) else { return };
        let opens = connection.opens(self.local, protocol);
        match event.outcome {
            Negotiated::Outbound(stream) => self.start_stream(id, protocol, stream),
            Negotiated::Inbound(stream) if !opens => {
                let device = connection.device;
                match self.allowances.open(device, self.now()) {
                    Ok(()) => self.start_stream(id, protocol, stream),
                    Err(times) => {
                        tracing::warn!(%device, %protocol, times, "opens streams without end");
                        let why = "it opens streams without end".to_owned();
                        self.leave(id, Disconnection::Violation { why }, false);
                    }
                }
            }
            Negotiated::Inbound(_) => {
                tracing::debug!(device = %connection.device, %protocol, "opened by the wrong side");
            }
            Negotiated::Failed(why) => {
                tracing::debug!(device = %connection.device, %protocol, %why, "not opened");
                if protocol == Protocol::Trust && connection.boot.is_none() {
                    let why = format!("trust does not open: {why}");
                    self.leave(id, Disconnection::Violation { why }, false);
                } else {
                    self.reopen_later(id, protocol, None);
                }
            }
        }
    }

    fn start_stream(&mut self, id: ConnectionId, protocol: Protocol, stream: libp2p::Stream) {
        let stream_id = StreamId(self.next());
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (actor, outgoing, release) = StreamActor::new(
            stream_id,
            self.boot,
            Arc::clone(&connection.access),
            self.report_sender.clone(),
        );
        let replaced = connection.streams.insert(protocol, stream_id);
        let entry = Stream {
            connection: id,
            protocol,
            since: Instant::now(),
            outgoing,
            release: Some(release),
            task: self.tasks.spawn(actor.run(stream)),
            boot: None,
            opened: false,
        };
        self.streams.insert(stream_id, entry);
        if let Some(older) = replaced {
            self.remove_stream(older, StreamEnd::Replaced, false);
        }
    }

    pub(super) fn on_report(&mut self, report: Report) {
        if let Report::Greeted { stream, .. } | Report::Frame { stream, .. } = &report
            && let Some(entry) = self.streams.get(stream)
        {
            self.on_heard(entry.connection);
        }
        match report {
            Report::Greeted { stream, boot } => self.on_greeted(stream, boot),
            Report::Frame { stream, bytes } => self.on_frame(stream, bytes),
            Report::Moving { stream } => self.on_moving(stream),
            Report::Ended { stream, end } => self.on_stream_end(stream, end),
        }
    }

    fn on_frame(&mut self, stream: StreamId, bytes: Vec<u8>) {
        // What was under way when the stream closed is not heard.
        let Some(entry) = self.streams.get(&stream).filter(|entry| entry.opened) else { return };
        let protocol = entry.protocol;
        let Some(connection) = self.connections.get(&entry.connection) else { return };
        let device = connection.device;
        match self.allowances.frame(device, protocol, self.now()) {
            Ok(()) => self.outbox.push_back(Event::Frame { stream, bytes }),
            Err(times) => {
                tracing::warn!(%device, %protocol, times, "sends more frames than it may");
                self.on_stream_end(stream, StreamEnd::TooManyFrames { times });
            }
        }
    }

    fn on_greeted(&mut self, stream: StreamId, boot: BootId) {
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        entry.boot = Some(boot);
        let id = entry.connection;
        let Some(connection) = self.connections.get(&id) else { return };
        let device = connection.device;
        match connection.boot {
            None => {
                let rank = self.starts.rank(device, boot);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.boot = Some((boot, rank));
                }
                self.settle(device);
            }
            Some((known, _)) if known == boot => {}
            Some(_) => {
                let why = "it says two boot ids on one connection".to_owned();
                self.leave(id, Disconnection::Violation { why }, false);
                return;
            }
        }
        self.release(id);
        let waits = self.streams.get(&stream).is_some_and(|entry| !entry.opened);
        if waits {
            self.after(HELD_TIME, Timer::Held(stream));
        }
    }

    /// Tells the node of the streams that may be used now, and lets them read.
    pub(super) fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        if !connection.current {
            return;
        }
        for (&protocol, stream) in &connection.streams {
            if protocol != Protocol::Trust && !connection.admitted {
                continue;
            }
            let Some(entry) = self.streams.get_mut(stream) else { continue };
            if let Some(boot) = entry.boot
                && let Some(release) = entry.release.take()
            {
                entry.opened = true;
                self.outbox.push_back(Event::StreamOpened {
                    stream: *stream,
                    device: connection.device,
                    protocol,
                    member: connection.member,
                    boot,
                });
                // The task may have ended, which its report will say.
                release.send(()).ok();
            }
        }
    }

    /// Ends one stream while its connection stays, and arranges for the next.
    pub(super) fn on_stream_end(&mut self, stream: StreamId, end: StreamEnd) {
        let Some(entry) = self.streams.get(&stream) else { return };
        let (id, protocol, since) = (entry.connection, entry.protocol, entry.since);
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.streams.get(&protocol) == Some(&stream)
        {
            connection.streams.remove(&protocol);
        }
        let member = self.connections.get(&id).is_some_and(|connection| connection.member);
        let turned_away = match &end {
            StreamEnd::TooManyBytes => Some(TurnedAway::TooManyBytes),
            StreamEnd::TooManyFrames { .. } if !member => Some(TurnedAway::TooManyFrames),
            StreamEnd::FrameTooLong { .. } | StreamEnd::NoHello if !member => {
                Some(TurnedAway::Malformed)
            }
            StreamEnd::TooManyFrames { .. }
            | StreamEnd::FrameTooLong { .. }
            | StreamEnd::NoHello
            | StreamEnd::Local
            | StreamEnd::Remote
            | StreamEnd::Disconnected
            | StreamEnd::Replaced
            | StreamEnd::SlowPeer
            | StreamEnd::NotAdmitted
            | StreamEnd::Broken { .. } => None,
        };
        let drains = end == StreamEnd::Local;
        self.remove_stream(stream, end, drains);
        if let Some(why) = turned_away {
            self.turn_away(id, why);
        } else if self.connections.get(&id).is_some_and(|c| c.member && c.boot.is_none()) {
            let why = "no hello".to_owned();
            self.leave(id, Disconnection::Violation { why }, false);
        } else {
            self.reopen_later(id, protocol, Some(since));
        }
    }

    fn reopen_later(&mut self, id: ConnectionId, protocol: Protocol, since: Option<Instant>) {
        let local = self.local;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.opens(local, protocol) {
            return;
        }
        let lasted = since.map(|since| since.elapsed());
        let wait = connection.reopened.entry(protocol).or_default().wait(lasted);
        self.after(wait, Timer::Reopen(id, protocol));
    }

    /// Takes a stream off the books and tells the node; its task sends what is queued or ends.
    pub(super) fn remove_stream(&mut self, stream: StreamId, reason: StreamEnd, drains: bool) {
        let Some(entry) = self.streams.remove(&stream) else { return };
        if !drains {
            entry.task.abort();
        }
        if entry.opened {
            self.outbox.push_back(Event::StreamClosed { stream, reason });
        }
    }
}
