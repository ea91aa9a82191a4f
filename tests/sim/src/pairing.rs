//! Pairing: tickets, the endpoints behind them, the program that joins, and the persons at both.
//!
//! Who joins is the real machine of `weft join`, on a home that holds nothing until all is stored.

use std::collections::BTreeMap;

use weft_core::{
    Input,
    door::{Command, DoorId, Reply},
    membership,
};
use weft_protocol::{
    codec,
    device::Role,
    id::{DeviceId, EndpointId},
    pairing::Contacts,
    ticket::Ticket,
    time::Timestamp,
};
use weft_trust::{
    pairing::{Answer, Joined, Joiner, JoinerInput, JoinerOutput, Outcome},
    secret::DeviceSecret,
};

use crate::{
    endpoint::{Link, endpoint_of},
    fault::Moment,
    network::SECOND,
    world::{Happening, World},
};

/// The doors at which invitations are opened are numbered from here.
const DOORS: u64 = 1 << 40;

/// What is going to happen to a pairing.
#[derive(Clone, Debug)]
pub(crate) enum PairingHappening {
    /// A person opens an invitation.
    Invite,
    /// A person gives a ticket to a machine.
    Join {
        host: usize,
        invitation: usize,
    },
    /// The endpoint of a node listens.
    Listening {
        host: usize,
        boot: u64,
        endpoint: u64,
    },
    /// What came of dialling.
    Dialled {
        host: usize,
        attempt: usize,
    },
    /// A frame arrives at the inviting node.
    ToInviter {
        link: u64,
        bytes: Vec<u8>,
    },
    /// A frame arrives at the joining program.
    ToJoiner {
        link: u64,
        bytes: Vec<u8>,
    },
    /// An end notices that the connection is gone.
    GoneAtInviter {
        link: u64,
    },
    GoneAtJoiner {
        link: u64,
    },
    /// The joining program is woken.
    Alarm {
        host: usize,
        attempt: usize,
        wish: u64,
    },
    /// A person at the joining machine answers.
    Answered {
        host: usize,
        attempt: usize,
        answer: Answer,
    },
    /// A person at the inviting machine answers.
    Confirmed {
        invitation: usize,
        yes: bool,
    },
    /// A person at the inviting machine closes the invitation.
    Closed {
        invitation: usize,
    },
    /// What was joined is on the disk.
    Stored {
        host: usize,
        attempt: usize,
    },
}

/// All that is known of pairings, from outside.
#[derive(Debug, Default)]
pub(crate) struct Pairings {
    pub(crate) invitations: Vec<Invitation>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) next: u64,
    /// Persons always say yes, and no connection is cut by chance.
    pub(crate) smooth: bool,
    /// Tickets are lost on their way.
    pub(crate) nobody_joins: bool,
    /// Frames so far.
    pub(crate) frames: usize,
}

/// An invitation that a person asked for.
#[derive(Debug)]
pub(crate) struct Invitation {
    pub(crate) host: usize,
    boot: u64,
    pub(crate) role: Role,
    pub(crate) unasked: bool,
    /// Whom the person means.
    intended: usize,
    pub(crate) ticket: Option<Ticket>,
    /// How the node said that it ended: once.
    pub(crate) ended: Vec<String>,
    /// It was refused, or its machine lost its power.
    pub(crate) lost: bool,
}

/// A ticket given to a machine.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) host: usize,
    pub(crate) invitation: usize,
    pub(crate) device: DeviceId,
    pub(crate) outcome: Option<Outcome>,
    /// What was joined is on its disk.
    pub(crate) stored: bool,
    /// The machine lost its power before the program ended.
    pub(crate) lost: bool,
}

/// The program that joins.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) attempt: usize,
    joiner: Joiner,
    pub(crate) key: EndpointId,
    pub(crate) target: EndpointId,
    pub(crate) link: Option<u64>,
    store: Option<Box<Joined>>,
    alarm: (Option<u64>, u64),
}

impl Pairings {
    /// Whether nothing more is to be heard of any.
    pub(crate) fn are_over(&self) -> bool {
        self.invitations.iter().all(|it| it.lost || !it.ended.is_empty())
            && self.attempts.iter().all(|it| it.lost || it.outcome.is_some())
    }

    /// The machine of a door at which an invitation was asked for lost its power.
    pub(crate) fn crashed(&mut self, host: usize) {
        for it in self.invitations.iter_mut().filter(|it| it.host == host && it.ended.is_empty()) {
            it.lost = true;
        }
        for it in self.attempts.iter_mut().filter(|it| it.host == host && it.outcome.is_none()) {
            it.lost = true;
        }
    }

    /// A machine came in by an invitation, as if it had joined.
    pub(crate) fn brought_in(&mut self, host: usize, device: DeviceId, invitation: usize) {
        let outcome = Some(Outcome::Paired);
        let attempt = Attempt { host, invitation, device, outcome, stored: true, lost: false };
        self.attempts.push(attempt);
    }

    fn of_door(&mut self, door: DoorId) -> Option<(usize, &mut Invitation)> {
        let at = usize::try_from(door.0.checked_sub(DOORS)?).ok()?;
        Some((at, self.invitations.get_mut(at)?))
    }
}

impl World {
    pub(crate) fn pairing_happens(&mut self, what: PairingHappening) {
        match what {
            PairingHappening::Invite => self.invite(),
            PairingHappening::Join { host, invitation } => self.join(host, invitation),
            PairingHappening::Listening { host, boot, endpoint } => {
                if self.runs(host, boot) {
                    let addresses = vec![format!("/ip4/10.0.0.{host}/udp/4001/quic-v1")];
                    self.feed(host, Input::PairingListening { endpoint, addresses });
                }
            }
            PairingHappening::Dialled { host, attempt } => self.dialled(host, attempt),
            PairingHappening::ToInviter { link, bytes } => self.inviter_hears(link, bytes),
            PairingHappening::ToJoiner { link, bytes } => self.joiner_hears(link, &bytes),
            PairingHappening::GoneAtInviter { link } => self.gone_at_inviter(link),
            PairingHappening::GoneAtJoiner { link } => self.gone_at_joiner(link),
            PairingHappening::Alarm { host, attempt, wish } => {
                let now = self.hosts[host].now(self.time);
                self.with_joining(host, attempt, |joining| {
                    if joining.alarm.1 == wish {
                        joining.alarm.0 = None;
                        joining.joiner.handle_timeout(now);
                    }
                });
            }
            PairingHappening::Answered { host, attempt, answer } => {
                self.feed_joiner(host, attempt, JoinerInput::Answer(answer));
            }
            PairingHappening::Confirmed { invitation, yes } => {
                let Invitation { host, boot, role, .. } = self.pairings.invitations[invitation];
                if self.runs(host, boot) {
                    let door = DoorId(u64::MAX - 2);
                    let command = Command::Confirm { yes, role };
                    self.feed(host, Input::Command { door, command });
                }
            }
            PairingHappening::Closed { invitation } => {
                let Invitation { host, boot, .. } = self.pairings.invitations[invitation];
                if self.runs(host, boot) && self.pairings.invitations[invitation].ended.is_empty() {
                    let door = DoorId(u64::MAX - 2);
                    self.feed(host, Input::Command { door, command: Command::CloseInvitation });
                }
            }
            PairingHappening::Stored { host, attempt } => self.stored(host, attempt),
        }
    }

    pub(crate) fn pairing_later(&mut self, after: u64, what: PairingHappening) {
        self.later(after, Happening::Pairing(what));
    }

    /// A person opens an invitation on some admin's machine, for some machine that is new.
    fn invite(&mut self) {
        let new: Vec<usize> = (0..self.hosts.len())
            .filter(|at| !self.hosts[*at].joined && self.hosts[*at].joining.is_none())
            .collect();
        let admins = self.admins();
        if self.healed.is_some() || new.is_empty() {
            return;
        }
        if admins.is_empty() {
            self.pairing_later(SECOND, PairingHappening::Invite);
            return;
        }
        let (host, intended) = (self.dice.pairing.pick(&admins), self.dice.pairing.pick(&new));
        let role = if self.dice.pairing.chance(25) { Role::Admin } else { Role::Member };
        let unasked = self.dice.pairing.chance(25);
        self.open_invitation(host, intended, role, unasked);
    }

    /// Opens an invitation.
    pub(crate) fn open_invitation(
        &mut self,
        host: usize,
        intended: usize,
        role: Role,
        unasked: bool,
    ) {
        let (boot, door) = (self.hosts[host].boots, DOORS + self.pairings.invitations.len() as u64);
        let name = self.hosts[intended].name;
        self.say(Some(host), || format!("is told to invite {name} as {role}, unasked {unasked}"));
        self.pairings.invitations.push(Invitation {
            host,
            boot,
            role,
            unasked,
            intended,
            ticket: None,
            ended: Vec::new(),
            lost: false,
        });
        let command = Command::Invite { role, confirmed_by_itself: unasked, by_code: false };
        self.feed(host, Input::Command { door: DoorId(door), command });
    }

    /// A node answers the door of an invitation.
    pub(crate) fn invited(&mut self, door: DoorId, reply: &Reply) {
        let Some((at, invitation)) = self.pairings.of_door(door) else { return };
        let Reply::Invited { ticket, .. } = reply else {
            invitation.lost = true;
            return;
        };
        match ticket.parse() {
            Ok(ticket) => invitation.ticket = Some(ticket),
            Err(error) => {
                self.failures.add("pairing", format!("a ticket can't be read: {error}"));
                return;
            }
        }
        let intended = invitation.intended;
        let wait = self.dice.pairing.between(SECOND / 10, 2 * SECOND);
        self.pairing_later(wait, PairingHappening::Join { host: intended, invitation: at });
        if self.pairings.smooth {
            return;
        }
        // Somebody has photographed the ticket.
        let others: Vec<usize> =
            (0..self.hosts.len()).filter(|it| *it != intended && !self.hosts[*it].joined).collect();
        if !others.is_empty() && self.dice.pairing.chance(35) {
            let host = self.dice.pairing.pick(&others);
            let wait = self.dice.pairing.between(SECOND / 10, 4 * SECOND);
            self.pairing_later(wait, PairingHappening::Join { host, invitation: at });
        }
        if self.dice.pairing.chance(10) {
            let wait = self.dice.pairing.between(SECOND / 10, 6 * SECOND);
            self.pairing_later(wait, PairingHappening::Closed { invitation: at });
        }
        if self.dice.pairing.chance(35) {
            let nth = u32::try_from(self.dice.pairing.between(1, 9)).unwrap_or(1);
            let ends = [self.pairings.invitations[at].host, intended];
            let host = self.dice.pairing.pick(&ends);
            self.hosts[host].doom = Some((Moment::SentPairing, nth));
        }
    }

    /// A device came to an invitation: the person there looks at its name.
    pub(crate) fn invitation_met(&mut self, door: DoorId, name: &str) {
        let smooth = self.pairings.smooth;
        let Some((at, invitation)) = self.pairings.of_door(door) else { return };
        let meant = self.hosts[invitation.intended].name == name;
        let wait = self.dice.pairing.between(SECOND / 20, 3 * SECOND);
        let answer = match self.dice.pairing.between(0, 100) {
            _ if smooth => Some(meant),
            0..80 => Some(meant),
            80..90 => Some(false),
            _ => None,
        };
        if let Some(yes) = answer {
            self.pairing_later(wait, PairingHappening::Confirmed { invitation: at, yes });
        }
    }

    /// An invitation ended.
    pub(crate) fn invitation_ended(&mut self, door: DoorId, outcome: &str) {
        if let Some((at, invitation)) = self.pairings.of_door(door) {
            invitation.ended.push(outcome.to_owned());
            let host = invitation.host;
            self.say(Some(host), || format!("says of invitation {at}: {outcome}"));
            if outcome == "paired" {
                self.redeem_again(at, host);
            }
        }
    }

    /// A ticket is given to a machine that is new.
    pub(crate) fn join(&mut self, host: usize, invitation: usize) {
        let machine = &self.hosts[host];
        if self.pairings.nobody_joins {
            return;
        }
        if machine.joined || machine.joining.is_some() || machine.stolen {
            return;
        }
        let Some(ticket) = self.pairings.invitations[invitation].ticket.clone() else { return };
        // The program draws its keys anew each time: it keeps none before it has joined.
        let secret = DeviceSecret::from_seed(&self.dice.pairing.bytes());
        let (key, target) = (endpoint_of(&self.dice.pairing.bytes()), ticket.endpoint);
        let attempt = self.pairings.attempts.len();
        self.pairings.attempts.push(Attempt {
            host,
            invitation,
            device: secret.id(),
            outcome: None,
            stored: false,
            lost: false,
        });
        let machine = &mut self.hosts[host];
        machine.id = secret.id();
        machine.secret = secret.clone();
        let name = machine.name.parse().expect("it is a name");
        let (kind, now) = (machine.kind, machine.now(self.time));
        let seed = self.dice.pairing.bytes();
        let joiner = Joiner::new(ticket, secret, name, kind, key, seed, now);
        let alarm = (None, 0);
        let joining = Joining { attempt, joiner, key, target, link: None, store: None, alarm };
        self.hosts[host].joining = Some(Box::new(joining));
        self.say(Some(host), || format!("joins by invitation {invitation}"));
        self.drain_joiner(host);
    }

    /// Hands the joining program what happened, if it is still that one.
    pub(crate) fn feed_joiner(&mut self, host: usize, attempt: usize, input: JoinerInput) {
        let now = self.hosts[host].now(self.time);
        self.with_joining(host, attempt, |joining| joining.joiner.handle_input(input, now));
    }

    fn with_joining(&mut self, host: usize, attempt: usize, f: impl FnOnce(&mut Joining)) {
        let joining = self.hosts[host].joining.as_mut();
        if let Some(joining) = joining.filter(|joining| joining.attempt == attempt) {
            f(joining);
            self.drain_joiner(host);
        }
    }

    fn drain_joiner(&mut self, host: usize) {
        let Some(mut joining) = self.hosts[host].joining.take() else { return };
        let attempt = joining.attempt;
        while let Some(output) = joining.joiner.poll_output() {
            match output {
                JoinerOutput::Dial => {
                    let wait = self.dice.pairing.between(1_000, 40_000);
                    self.pairing_later(wait, PairingHappening::Dialled { host, attempt });
                }
                JoinerOutput::Send(message) => {
                    if let Some(link) = joining.link {
                        let bytes = codec::encode(&message);
                        self.pairing_frame(link, 0, bytes);
                        self.moment(host, Moment::SentPairing);
                    }
                }
                JoinerOutput::Close => {
                    if let Some(link) = joining.link.take() {
                        let at = self.pairings.links[&link].last[0] + 1;
                        let gone = PairingHappening::GoneAtInviter { link };
                        self.at(at, Happening::Pairing(gone));
                    }
                }
                JoinerOutput::Ask(_) => {
                    let wait = self.dice.pairing.between(SECOND / 20, 3 * SECOND);
                    let answer = match self.dice.pairing.between(0, 100) {
                        _ if self.pairings.smooth => Some(Answer::Yes),
                        0..85 => Some(Answer::Yes),
                        85..92 => Some(Answer::No),
                        _ => None,
                    };
                    if let Some(answer) = answer {
                        let answered = PairingHappening::Answered { host, attempt, answer };
                        self.pairing_later(wait, answered);
                    }
                }
                JoinerOutput::Store(joined) => {
                    joining.store = Some(joined);
                    let wait = self.dice.pairing.between(500, 60_000);
                    self.pairing_later(wait, PairingHappening::Stored { host, attempt });
                }
                JoinerOutput::Ended(outcome) => {
                    self.pairings.attempts[attempt].outcome = Some(outcome);
                    self.say(Some(host), || format!("says of joining: {outcome:?}"));
                }
            }
        }
        let now = self.hosts[host].now(self.time);
        let over = self.pairings.attempts[attempt].outcome.is_some();
        let wish = joining.joiner.poll_timeout().map(|(at, _)| at);
        if over && (joining.link.is_none() || wish.is_none()) {
            self.leave(host);
            return;
        }
        let wish = wish.map(|at: Timestamp| self.hosts[host].world_time(at.max(now.mono)));
        if wish != joining.alarm.0 {
            joining.alarm = (wish, joining.alarm.1 + 1);
            if let Some(at) = wish {
                let alarm = PairingHappening::Alarm { host, attempt, wish: joining.alarm.1 };
                self.at(at, Happening::Pairing(alarm));
            }
        }
        self.hosts[host].joining = Some(joining);
    }

    /// The joining program has ended; a device that belongs now starts its node.
    fn leave(&mut self, host: usize) {
        if self.hosts[host].joined {
            let wait = self.dice.pairing.between(SECOND / 10, 2 * SECOND);
            self.later(wait, Happening::Start(host));
        }
    }

    /// What was joined is on the disk of its machine.
    fn stored(&mut self, host: usize, attempt: usize) {
        let Some(joining) = &mut self.hosts[host].joining else { return };
        if joining.attempt != attempt {
            return;
        }
        let Some(joined) = joining.store.take() else { return };
        let statements: Vec<_> = joined.graph.statements().cloned().collect();
        let machine = &mut self.hosts[host];
        machine.disk.prepare(membership::store(&statements));
        machine.joined = true;
        self.pairings.attempts[attempt].stored = true;
        self.say(Some(host), || "has stored what it joined".to_owned());
        self.feed_joiner(host, attempt, JoinerInput::Stored(Contacts::default()));
    }

    /// The power of a machine goes, with the endpoints and the joining program on it.
    pub(crate) fn unplug_pairing(&mut self, host: usize) {
        self.pairings.crashed(host);
        self.hosts[host].endpoints.clear();
        let joined = self.hosts[host].joined;
        if self.hosts[host].joining.take().is_some() && !joined {
            self.say(Some(host), || "loses its power while it joins".to_owned());
        }
        self.cut_pairings(|link| link.inviter == host || link.joiner == host);
    }

    /// A machine that lost its power while it joined has it back: the person tries the ticket again.
    pub(crate) fn join_again(&mut self, host: usize) {
        let last = self.pairings.attempts.iter().rfind(|it| it.host == host && it.lost);
        if let Some(invitation) = last.map(|it| it.invitation)
            && self.dice.pairing.chance(60)
        {
            self.join(host, invitation);
        }
    }
}
