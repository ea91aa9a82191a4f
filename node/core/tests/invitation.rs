//! Invitations of a whole node: what doors are told, what lies on the disk, and what a yes is worth.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test carries out what it looks at")]

use std::time::Duration;

use ed25519_dalek::SigningKey;
use weft_core::{
    Input, Output,
    door::{Command, DoorId, Event, Reply},
};
use weft_protocol::{
    codec,
    device::{Kind, Role},
    frame::FRAME_BYTES_MAX,
    host_call::Refusal,
    id::EndpointId,
    pairing::{Contacts, PairingMessage},
    row::{Row, Rows as _, Table},
    time::Now,
};
use weft_trust::pairing::{Answer, Code, Joiner, JoinerInput, JoinerOutput, Outcome, Reason};

mod support;

use support::{ALLOW, Fabric, secret};

const LAPTOP: usize = 0;
const PHONE: u8 = 9;

/// The person who invites.
const DOOR: DoorId = DoorId(2);

/// An inviting laptop, and a phone with its connection.
struct Room {
    fabric: Fabric,
    endpoint: Option<EndpointId>,
    /// The number of its newest endpoint.
    opened: u64,
    joiner: Option<Joiner>,
    outcome: Option<Outcome>,
    /// Whether the phone goes away for good before it says that it has stored all.
    is_lost: bool,
}

impl Room {
    fn new() -> Self {
        Self {
            fabric: Fabric::new(1, &[], ALLOW),
            endpoint: None,
            opened: 0,
            joiner: None,
            outcome: None,
            is_lost: false,
        }
    }

    /// Asks the laptop, and carries out what comes of it.
    fn ask(&mut self, command: Command) -> Reply {
        self.feed(Input::Command { door: DOOR, command });
        self.fabric.devices[LAPTOP].replies.pop().expect("it answers")
    }

    fn invite(&mut self, role: Role, by_code: bool) -> Reply {
        self.ask(Command::Invite { role, confirmed_by_itself: false, by_code })
    }

    /// Invites by a code, and gives it.
    fn code(&mut self, role: Role) -> Code {
        match self.invite(role, true) {
            Reply::InvitedByCode { code, addresses, .. } => {
                assert_eq!(addresses, ["/ip4/127.0.0.1/udp/4001/quic-v1"]);
                code.parse().unwrap()
            }
            other => panic!("no code but {other:?}"),
        }
    }

    /// The phone comes with a code.
    fn join(&mut self, code: Code) {
        let own = EndpointId::from_bytes([8; 32]);
        let (name, seed, now) = ("phone".parse().unwrap(), [8; 32], self.fabric.now);
        self.outcome = None;
        self.joiner =
            Some(Joiner::with_code(code, secret(PHONE), name, Kind::Phone, own, seed, now));
        self.settle();
    }

    fn feed(&mut self, input: Input) {
        self.fabric.feed(LAPTOP, input);
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        let now = self.fabric.now;
        self.fabric.now = Now { mono: now.mono + time, wall: now.wall + time };
        self.fabric.time_out(LAPTOP);
        self.settle();
    }

    fn answer(&mut self, answer: Answer) {
        let now = self.fabric.now;
        self.joiner.as_mut().unwrap().handle_input(JoinerInput::Answer(answer), now);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            while let Some(output) = self.fabric.devices[LAPTOP].node.poll_output() {
                self.carry_out(output);
            }
            let Some(output) = self.joiner.as_mut().and_then(Joiner::poll_output) else { return };
            self.carry_out_of_joiner(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        let now = self.fabric.now;
        match output {
            Output::OpenPairing { endpoint, seed, .. } => {
                let key = SigningKey::from_bytes(&seed).verifying_key();
                self.opened = endpoint;
                self.endpoint = Some(EndpointId::from_bytes(key.to_bytes()));
                let addresses = vec!["/ip4/127.0.0.1/udp/4001/quic-v1".to_owned()];
                self.fabric.feed(LAPTOP, Input::PairingListening { endpoint, addresses });
            }
            Output::SendPairing { bytes, .. } => {
                let message: PairingMessage = codec::decode(&bytes, FRAME_BYTES_MAX).unwrap();
                if let Some(joiner) = &mut self.joiner {
                    joiner.handle_input(JoinerInput::Message(message), now);
                }
            }
            other => self.fabric.devices[LAPTOP].carry_out(other, now),
        }
    }

    fn carry_out_of_joiner(&mut self, output: JoinerOutput) {
        let now = self.fabric.now;
        // Each endpoint has one guest.
        let (endpoint, link) = (self.opened, 1);
        match output {
            JoinerOutput::Dial => {
                let remote = EndpointId::from_bytes([8; 32]);
                self.fabric.feed(LAPTOP, Input::PairingConnected { endpoint, link, remote });
                let reached = JoinerInput::Connected(self.endpoint.unwrap());
                self.joiner.as_mut().unwrap().handle_input(reached, now);
            }
            JoinerOutput::Send(message) => {
                let bytes = codec::encode(&message);
                self.fabric.feed(LAPTOP, Input::PairingFrame { endpoint, link, bytes });
            }
            JoinerOutput::Store(_) if self.is_lost => self.joiner = None,
            JoinerOutput::Store(_) => {
                let stored = JoinerInput::Stored(Contacts::default());
                self.joiner.as_mut().unwrap().handle_input(stored, now);
            }
            JoinerOutput::Ended(outcome) => self.outcome = Some(outcome),
            JoinerOutput::Ask(_) | JoinerOutput::Close => {}
        }
    }

    /// The last invitation's end, as its person is told.
    fn ended(&self) -> Option<(&str, Option<&str>)> {
        self.fabric.devices[LAPTOP].events.iter().rev().find_map(|event| match event {
            Event::InvitationEnded { outcome, reason, .. } => {
                Some((outcome.as_str(), reason.as_deref()))
            }
            _ => None,
        })
    }
}

#[test]
fn nobody_is_invited_as_admin_unseen() {
    let mut room = Room::new();
    let command = Command::Invite { role: Role::Admin, confirmed_by_itself: true, by_code: false };
    let reply = room.ask(command);
    assert!(matches!(reply, Reply::Refused { refusal: Refusal::Invalid, .. }), "{reply:?}");
}

#[test]
fn a_yes_on_a_screen_that_named_another_role_counts_for_nothing() {
    let mut room = Room::new();
    let code = room.code(Role::Admin);
    room.join(code);
    assert!(matches!(
        room.fabric.devices[LAPTOP].events.last(),
        Some(Event::InvitationMet { role: Role::Admin, .. })
    ));
    let reply = room.ask(Command::Confirm { yes: true, role: Role::Member });
    assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    assert_eq!(room.ask(Command::Confirm { yes: true, role: Role::Admin }), Reply::Done);
    room.answer(Answer::Yes);
    assert_eq!(room.outcome, Some(Outcome::Paired));
    assert_eq!(room.ended(), Some(("paired", None)));
    let state = room.fabric.devices[LAPTOP].node.membership().state();
    assert_eq!(state.member(&secret(PHONE).id()).unwrap().role, Role::Admin);
}

#[test]
fn a_wrong_code_lies_on_the_disk_as_spent_before_anybody_hears_of_it() {
    let mut room = Room::new();
    let right = room.code(Role::Member);
    let wrong = Code::new(&room.endpoint.unwrap(), [1; 8]);
    assert_ne!(wrong, right);
    room.join(wrong);
    assert_eq!(room.outcome, Some(Outcome::Refused));
    let reason = room.joiner.as_ref().unwrap().reason();
    assert_eq!(reason, Some(Reason::WrongCode));
    assert_eq!(room.ended(), Some(("refused", Some(Reason::WrongCode.sentence()))));
    let spent = Row::named(Table::Setting, b"redeemed", room.endpoint.unwrap().as_bytes());
    let rows = &room.fabric.devices[LAPTOP].rows;
    assert!(rows.get(&spent).unwrap().is_some());
}

#[test]
fn one_that_was_added_and_never_heard_of_can_be_put_out_by_what_its_inviter_is_told() {
    let mut room = Room::new();
    room.is_lost = true;
    let code = room.code(Role::Member);
    room.join(code);
    assert_eq!(room.ask(Command::Confirm { yes: true, role: Role::Member }), Reply::Done);
    room.answer(Answer::Yes);
    assert_eq!(room.ended(), None);
    // Two minutes of the invitation, and one to store what came.
    room.pass(Duration::from_secs(181));
    let told = "phone was added and was not heard from since; if it does not come, run \
                `weft device revoke phone` before it is invited again";
    assert_eq!(room.ended(), Some(("could-not-reach", Some(told))));
    let revoke = Command::Revoke { device: "phone".to_owned() };
    room.ask(revoke);
    let state = room.fabric.devices[LAPTOP].node.membership().state();
    assert!(state.member(&secret(PHONE).id()).is_none());
}

#[test]
fn the_next_invitation_takes_the_place_of_the_one_before() {
    let mut room = Room::new();
    let first = room.code(Role::Member);
    let second = room.code(Role::Member);
    assert_ne!(first, second);
    assert_eq!(room.ended(), Some(("expired", Some("replaced by a newer invitation"))));
    room.join(second);
    assert_eq!(room.ask(Command::Confirm { yes: true, role: Role::Member }), Reply::Done);
    room.answer(Answer::Yes);
    assert_eq!(room.ended(), Some(("paired", None)));
    // And one that nobody came to is closed, not refused.
    room.code(Role::Member);
    assert_eq!(room.ask(Command::CloseInvitation), Reply::Done);
    assert_eq!(room.ended(), Some(("expired", Some("the invitation was closed"))));
}
