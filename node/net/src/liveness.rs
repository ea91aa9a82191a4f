//! Which connections are asked for a sign of life, when, and when one is given up.
//!
//! Four things call for an answer, and each has its own patience. While something is under way with
//! a device (`Watched`), it is asked once nothing was heard of it for [`ASK_WATCHED`], and given up
//! after [`SILENCE_WATCHED`]. When it was sent something that is answered (`Sent`), it is asked if it says
//! nothing for [`ASK_OWED`], and given up after [`SILENCE_OWED`]. An idle connection whose transport tells
//! by itself that the other program is silent (QUIC) is left to it: no timer runs for it here. One whose
//! transport answers for a program that hangs, as a kernel does on TCP and a relay in between, is asked
//! after [`ASK_IDLE`] and given up after [`SILENCE_IDLE`]. And when this node's own network came back
//! (`Moved`), whoever is connected has a short time to answer, whatever was heard before.
//!
//! Whatever is heard is an answer: a frame or a part of one, a ping, a question of the other side. So a peer
//! that talks is never asked, and one that answers is never given up. Nor does the machine hold its own
//! absence against others: if it was itself called so late that it may have stood still ([`LATE`]), it asks
//! once more.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use libp2p::swarm::ConnectionId;
use weft_protocol::{id::DeviceId, time::Timestamp};

/// A watched device that was not heard for so long is asked: a step that runs says so each second, and
/// then nobody has to ask.
pub(crate) const ASK_WATCHED: Duration = Duration::from_millis(1_250);

/// A watched device that was not heard for so long is given up.
pub(crate) const SILENCE_WATCHED: Duration = Duration::from_secs(3);

/// It is asked anew so often meanwhile: each question is sent at once, while what is lost is sent again
/// only after waits that double. Where two packets of five are lost each way, a question is answered with a
/// chance of 0.36, and all twelve that find room are in vain once in two hundred times.
pub(crate) const AGAIN_WATCHED: Duration = Duration::from_millis(150);

/// The same for one that was sent something and does not answer. It costs a new connection if it is wrong, and
/// no step: of eleven questions one in a hundred and forty times none comes back.
pub(crate) const ASK_OWED: Duration = Duration::from_millis(1_250);
pub(crate) const SILENCE_OWED: Duration = Duration::from_secs(4);
pub(crate) const AGAIN_OWED: Duration = Duration::from_millis(250);

/// The same where nothing is under way: together well below 30 s, with two tries more.
pub(crate) const ASK_IDLE: Duration = Duration::from_secs(14);
pub(crate) const SILENCE_IDLE: Duration = Duration::from_secs(28);
pub(crate) const AGAIN_IDLE: Duration = Duration::from_secs(5);

/// Whoever is called later than this after what was due may have stood still as a whole, and then has
/// not read what was answered.
pub(crate) const LATE: Duration = Duration::from_millis(500);

/// Why a connection was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Silence {
    /// While something was under way.
    Watched,
    /// After something was sent.
    Owed,
    /// While nothing was.
    Idle,
    /// After this node's own network came back.
    Moved,
}

impl Silence {
    /// For a person.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Watched => "no sign of life for 3 s while something was under way",
            Self::Owed => "no sign of life for 4 s after something was sent",
            Self::Idle => "no sign of life for 28 s",
            Self::Moved => "no sign of life after the network moved",
        }
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// A connection to a member is up.
    Opened {
        connection: ConnectionId,
        device: DeviceId,
        /// Whether its transport itself tells that the other program is silent.
        tells_silence: bool,
    },
    /// A connection is gone.
    Closed(ConnectionId),
    /// Whether something is under way with a device.
    Watched { device: DeviceId, is_watched: bool },
    /// Whatever says that the peer lives.
    Heard(ConnectionId),
    /// The peer was sent something that it answers.
    Sent(ConnectionId),
    /// This node's own network came back: the peer has so long to say something from now on.
    Moved { connection: ConnectionId, patience: Duration },
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Ask the peer for a sign of life.
    Ask(ConnectionId),
    /// Close the connection.
    GiveUp(ConnectionId, Silence),
}

#[derive(Clone, Copy, Debug)]
struct Life {
    device: DeviceId,
    tells_silence: bool,
    /// Since when its silence counts: it was heard, or is watched since.
    since: Timestamp,
    asked: Option<Timestamp>,
    /// Since when it owes an answer.
    owed: Option<Timestamp>,
    /// The network moved: by when it must be heard, and how long it had for that.
    moved: Option<(Timestamp, Duration)>,
}

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
struct Terms {
    ask: Duration,
    again: Duration,
    give_up: Duration,
    silence: Silence,
}

const WATCHED: Terms = Terms {
    ask: ASK_WATCHED,
    again: AGAIN_WATCHED,
    give_up: SILENCE_WATCHED,
    silence: Silence::Watched,
};

const OWED: Terms =
    Terms { ask: ASK_OWED, again: AGAIN_OWED, give_up: SILENCE_OWED, silence: Silence::Owed };

const IDLE: Terms =
    Terms { ask: ASK_IDLE, again: AGAIN_IDLE, give_up: SILENCE_IDLE, silence: Silence::Idle };

/// What is due next on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Ask,
    GiveUp(Silence),
}

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    lives: BTreeMap<ConnectionId, Life>,
    watched: BTreeSet<DeviceId>,
    outputs: VecDeque<Output>,
}

impl Liveness {
    pub(crate) fn handle_input(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Opened { connection, device, tells_silence } => {
                let life = Life {
                    device,
                    tells_silence,
                    since: now,
                    asked: None,
                    owed: None,
                    moved: None,
                };
                self.lives.insert(connection, life);
            }
            Input::Closed(connection) => {
                self.lives.remove(&connection);
                self.outputs.retain(|output| match output {
                    Output::Ask(of) | Output::GiveUp(of, _) => *of != connection,
                });
            }
            Input::Watched { device, is_watched } => self.on_watched(device, is_watched, now),
            Input::Heard(connection) => {
                if let Some(life) = self.lives.get_mut(&connection) {
                    life.heard(now);
                }
            }
            Input::Sent(connection) => {
                if let Some(life) = self.lives.get_mut(&connection) {
                    life.owed.get_or_insert(now);
                }
            }
            Input::Moved { connection, patience } => {
                if let Some(life) = self.lives.get_mut(&connection)
                    && life.moved.is_none()
                {
                    life.moved = Some((now + patience, patience));
                    life.asked = Some(now);
                    self.outputs.push_back(Output::Ask(connection));
                }
            }
        }
    }

    /// What was silent before it was watched may have been so for good reasons.
    fn on_watched(&mut self, device: DeviceId, is_watched: bool, now: Timestamp) {
        let changed =
            if is_watched { self.watched.insert(device) } else { self.watched.remove(&device) };
        for life in self.lives.values_mut().filter(|life| changed && life.device == device) {
            life.since = now;
            life.asked = None;
            life.owed = life.owed.map(|_| now);
        }
    }

    /// Asks and gives up whoever is due.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        for (&connection, life) in &mut self.lives {
            let terms = terms(life, &self.watched);
            let Some((at, due)) = life.due(terms) else { continue };
            if now < at {
                continue;
            }
            match due {
                Due::GiveUp(silence) if now.since(at) <= LATE => {
                    self.outputs.push_back(Output::GiveUp(connection, silence));
                    // Whoever closes it says so; until then it is not given up again.
                    life.heard(now);
                }
                Due::Ask | Due::GiveUp(_) => {
                    if now.since(at) > LATE {
                        life.forgive(now, terms);
                    }
                    life.asked = Some(now);
                    self.outputs.push_back(Output::Ask(connection));
                }
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let due = |life: &Life| life.due(terms(life, &self.watched)).map(|(at, _)| at);
        self.lives.values().filter_map(due).min()
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// The terms that hold for a connection; `None`: its transport watches over it alone.
fn terms(life: &Life, watched: &BTreeSet<DeviceId>) -> Option<Terms> {
    if watched.contains(&life.device) {
        Some(WATCHED)
    } else {
        (!life.tells_silence).then_some(IDLE)
    }
}

impl Life {
    fn heard(&mut self, now: Timestamp) {
        self.since = now;
        self.asked = None;
        self.owed = None;
        self.moved = None;
    }

    fn due(&self, terms: Option<Terms>) -> Option<(Timestamp, Due)> {
        let moved = self.moved.map(|(at, _)| (at, Due::GiveUp(Silence::Moved)));
        let silent = terms.map(|it| (self.since + it.give_up, Due::GiveUp(it.silence)));
        let ask = terms.map(|it| {
            let at = self.asked.map_or(self.since + it.ask, |asked| asked + it.again);
            (at, Due::Ask)
        });
        let owes = self.owed.map(|owed| (owed + OWED.give_up, Due::GiveUp(OWED.silence)));
        let ask_owed = self.owed.map(|owed| {
            let again = self.asked.map_or(owed, |asked| asked + OWED.again);
            (again.max(owed + OWED.ask), Due::Ask)
        });
        // Of what is due at one moment the end comes first.
        [moved, silent, owes, ask, ask_owed].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// This node stood still: the peer has as long as if it were asked now for the first time.
    fn forgive(&mut self, now: Timestamp, terms: Option<Terms>) {
        let before = |ask| Timestamp::ZERO + now.since(Timestamp::ZERO).saturating_sub(ask);
        if let Some((until, patience)) = &mut self.moved {
            *until = now + *patience;
        }
        if let Some(terms) = terms {
            self.since = self.since.max(before(terms.ask));
        }
        self.owed = self.owed.map(|owed| owed.max(before(OWED.ask)));
    }
}

#[cfg(test)]
mod tests;
