//! What people and programs ask of a node, and what it tells them.

use std::{collections::BTreeMap, time::Duration};

use weft_protocol::{
    audit::{Head, Record},
    decision::Decision,
    device::{Kind, Role},
    graph::{Plan, StepId, StepIndex},
    host_call::Refusal,
    id::{AgreementKey, DeviceId, Digest, DocumentId, FabricId, RunId, StatementId, TimerId},
    manifest::{CapabilityName, EffectClass},
    run::{Candidate, Journal, Outcome, Progress, RunState},
    signed::Signed,
    statement::Name,
    time::WallTime,
    value::Value,
    version::Version,
};

pub use crate::{
    checkup::{Checkup, ContactView},
    trust_log::StatementView,
};

/// One conversation with a door: what it asks is answered to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DoorId(pub u64);

/// Something that is asked of the node. Each is answered by one [`Reply`]; [`Command::Do`] and
/// [`Command::Invite`] are followed by [`Event`]s for their door, up to [`Event::RunEnded`] and
/// [`Event::InvitationEnded`].
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// What this node is and how it fares → [`Reply::Status`].
    Status,
    /// What a checkup of this node needs beside the rest → [`Reply::Checkup`].
    Checkup,
    /// Who belongs → [`Reply::Devices`].
    Devices,
    /// One device → [`Reply::Device`].
    Device {
        /// Its name or id, or the beginning of that.
        device: String,
    },
    /// What was said about who belongs → [`Reply::TrustLog`].
    TrustLog {
        /// At most so many, the newest.
        limit: usize,
    },
    /// What can be done → [`Reply::Agents`].
    Agents,
    /// Carries out a plan → [`Reply::RunStarted`], then events.
    Do {
        /// What was said.
        words: String,
        /// What it means.
        plan: Plan,
        /// The files that the words name, by the path as said.
        files: BTreeMap<String, Vec<u8>>,
        /// The asking device's local time, ISO 8601 without an offset.
        local_time: String,
        /// Its IANA time zone.
        time_zone: String,
        /// Whether a person can be asked at this door.
        can_ask: bool,
    },
    /// Where each step of a plan would run, and what the rules say, without running it
    /// → [`Reply::Explained`].
    Explain {
        /// The plan.
        plan: Plan,
    },
    /// Stops a run → [`Reply::Done`].
    Cancel {
        /// Which.
        run: RunId,
    },
    /// A person's answer to [`Event::Asked`] → [`Reply::Done`].
    Consent {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// Yes or no.
        yes: bool,
    },
    /// Runs of this device, and those of others that were replicated → [`Reply::Runs`].
    Runs,
    /// One run with its journal → [`Reply::Run`].
    Run {
        /// Its id, or the beginning of its text form; empty: the newest.
        prefix: String,
    },
    /// Documents of a kind → [`Reply::Documents`].
    Documents {
        /// The kind.
        kind: String,
        /// Words that must stand in the content.
        query: String,
        /// At most so many.
        limit: usize,
    },
    /// Timers → [`Reply::Timers`].
    Timers,
    /// Opens an invitation → [`Reply::Invited`], then events.
    Invite {
        /// The most that the joiner may become.
        role: Role,
        /// Whether this side confirms by itself.
        confirmed_by_itself: bool,
        /// Whether a short code is shown instead of a ticket → [`Reply::InvitedByCode`].
        by_code: bool,
    },
    /// A person's answer to [`Event::InvitationMet`] → [`Reply::Done`].
    Confirm {
        /// Yes or no.
        yes: bool,
        /// The role that a person granted on a screen that names it.
        role: Role,
    },
    /// Closes the open invitation → [`Reply::Done`].
    CloseInvitation,
    /// Puts a device out → [`Reply::Done`].
    Revoke {
        /// Its name or id, or the beginning of that.
        device: String,
    },
    /// Gives a device or the fabric another name → [`Reply::Done`].
    Rename {
        /// Its name or id, or the beginning of that; `None`: the fabric.
        device: Option<String>,
        /// The new name.
        name: Name,
    },
    /// Gives a device another role → [`Reply::Done`].
    SetRole {
        /// Its name or id, or the beginning of that.
        device: String,
        /// The new role.
        role: Role,
        /// Whether a person said yes on a screen that names the role; without, nobody becomes admin.
        confirmed: bool,
    },
    /// Brings a suspended device back → [`Reply::Done`].
    Keep {
        /// Its name or id, or the beginning of that.
        device: String,
    },
    /// The statements about who belongs, as they are signed → [`Reply::Statements`].
    Statements,
    /// Statements that the root made at this door: the recovery words were typed into it, and never
    /// reach the node → [`Reply::Done`].
    TakeStatements {
        /// Parents first.
        statements: Vec<Signed>,
    },
    /// Records of this device's chain → [`Reply::Audit`].
    Audit {
        /// A key that this device had before, or the beginning of it; none: its key now.
        key: Option<String>,
        /// From where.
        position: u64,
        /// At most so many.
        limit: usize,
    },
    /// Checks this device's whole chain, and the heads that others countersigned
    /// → [`Reply::Verified`].
    Verify {
        /// Whether each record's own signature is checked, and not only those of the checkpoints, which
        /// cover the others.
        every_signature: bool,
    },
    /// From now on events come to this door → [`Reply::Done`].
    Watch,
}

/// The answer to a [`Command`].
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// It is done, or under way.
    Done,
    /// It could not be done.
    Refused {
        /// Which way.
        refusal: Refusal,
        /// Why, and what to do.
        reason: String,
    },
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Checkup`].
    Checkup(Box<Checkup>),
    /// To [`Command::Devices`].
    Devices(Vec<DeviceView>),
    /// To [`Command::Device`].
    Device(Box<DeviceView>),
    /// To [`Command::Statements`], parents first.
    Statements(Vec<Signed>),
    /// To [`Command::TrustLog`], each statement after those that it rests on.
    TrustLog(Vec<StatementView>),
    /// To [`Command::Agents`].
    Agents(Vec<AgentView>),
    /// To [`Command::Do`]; the run and its first journal entry are on this disk.
    RunStarted {
        /// Which.
        run: RunId,
    },
    /// To [`Command::Explain`].
    Explained(Vec<Explanation>),
    /// To [`Command::Runs`].
    Runs(Vec<RunView>),
    /// To [`Command::Run`].
    Run {
        /// The run.
        view: RunView,
        /// Its journal; empty for a run of another device.
        journal: Vec<Journal>,
        /// What its steps wait for at this moment.
        waits: Vec<WaitView>,
    },
    /// To [`Command::Documents`].
    Documents(Vec<DocumentView>),
    /// To [`Command::Timers`].
    Timers(Vec<TimerView>),
    /// To [`Command::Invite`].
    Invited {
        /// The ticket, as text.
        ticket: String,
        /// When it ends, by this device's clock.
        expires: WallTime,
    },
    /// To [`Command::Invite`] with a code.
    InvitedByCode {
        /// The code, as text.
        code: String,
        /// Where the endpoint listens, as multiaddrs, best first.
        addresses: Vec<String>,
        /// When it ends, by this device's clock.
        expires: WallTime,
    },
    /// Another key took the place of this device's, by [`Input::Rotate`](crate::Input::Rotate). That is on
    /// this disk, and said to all that are connected; this node does nothing more under the old key.
    Rotated {
        /// The key until now.
        former: DeviceId,
        /// The key from now on.
        device: DeviceId,
    },
    /// To [`Command::Audit`].
    Audit(Vec<AuditView>),
    /// To [`Command::Verify`].
    Verified(Verification),
}

/// What happens without having been asked for at that moment.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A step was offered to a device, and why to that.
    StepPlaced {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// What it does.
        capability: CapabilityName,
        /// The device's name.
        device: String,
        /// Those that were looked at.
        candidates: Vec<Candidate>,
    },
    /// A step says something while it runs.
    StepProgressed {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// What.
        progress: Progress,
    },
    /// A step ended.
    StepEnded {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// What it did.
        capability: CapabilityName,
        /// How.
        outcome: Outcome,
    },
    /// The rules want a person to be asked.
    Asked {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
        /// What would be done.
        capability: CapabilityName,
        /// Where.
        device: String,
        /// Why it is asked.
        reason: String,
    },
    /// A run ended.
    RunEnded {
        /// Which.
        run: RunId,
        /// How.
        state: RunState,
        /// What the steps that nothing else takes gave, in order.
        outputs: Vec<(StepIndex, Value)>,
        /// Why it did not end well.
        failure: Option<String>,
        /// The other devices that have what was written.
        also_on: Vec<String>,
    },
    /// A device came to this node's invitation: both sides now compare words.
    InvitationMet {
        /// The joiner's name.
        name: String,
        /// Its kind.
        kind: Kind,
        /// The four words.
        words: [String; 4],
        /// The role that the ticket allows.
        role: Role,
    },
    /// The invitation ended.
    InvitationEnded {
        /// One of `paired`, `refused`, `expired`, `already-used`, `could-not-reach`.
        outcome: String,
        /// Who joined, where one did.
        name: Option<String>,
        /// Why it was refused or has expired, without a full stop.
        reason: Option<String>,
    },
    /// A device is here.
    DeviceHere {
        /// Its name.
        name: String,
    },
    /// A device is away.
    DeviceAway {
        /// Its name.
        name: String,
    },
    /// A device joined, was put out, was renamed.
    DevicesChanged,
    /// A timer is due.
    TimerDue {
        /// Which.
        id: TimerId,
        /// What it is for.
        label: String,
        /// When it was due.
        due: WallTime,
        /// By how much it is late, in milliseconds.
        late_ms: u64,
    },
    /// A document changed.
    DocumentChanged {
        /// Which.
        id: DocumentId,
        /// Its kind.
        kind: String,
        /// Whether another device changed it.
        remote: bool,
    },
    /// Something a person should know.
    Warning {
        /// What, and what to do.
        text: String,
    },
}

/// A node, as `weft status` shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// The fabric.
    pub fabric: FabricId,
    /// Its name.
    pub fabric_name: String,
    /// This device.
    pub device: DeviceId,
    /// Its key for sealing.
    pub agreement: AgreementKey,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its role.
    pub role: Role,
    /// Why it does not belong any more; `None`: it does.
    pub standing: Option<StandingView>,
    /// Whether the fabric uses statements that this program does not know.
    pub update_needed: bool,
    /// Whether a root key exists that can bring the fabric back.
    pub recovery: bool,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Devices that are here, this one left out.
    pub devices_here: usize,
    /// Devices that belong, this one left out.
    pub devices: usize,
    /// Documents, without those deleted.
    pub documents: usize,
    /// Runs under way.
    pub runs: usize,
    /// The newest record of the audit chain.
    pub audit_head: Option<Head>,
    /// The rules in force.
    pub policy: Digest,
    /// Models that answer here.
    pub models: Vec<String>,
    /// What is wrong, in sentences.
    pub warnings: Vec<String>,
}

/// A device, as `weft devices` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceView {
    /// Its key.
    pub id: DeviceId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Its role.
    pub role: Role,
    /// `here` (connected), `near` (not here, but a device that is here has said since it left that it is
    /// there), `away`,
    /// `never seen` (away, and nothing was ever heard of it here), `suspended` or `revoked`.
    pub state: String,
    /// Why it does not belong any more; `None`: it does.
    pub standing: Option<StandingView>,
    /// Whether it is this one.
    pub this: bool,
    /// Where it is near: the names of the devices that are connected with it.
    pub via: Vec<String>,
    /// The address in use.
    pub address: Option<String>,
    /// Whether the address is a relay's; `None` while it is not connected.
    pub is_relayed: Option<bool>,
    /// The round trip, in microseconds.
    pub round_trip_micros: Option<u64>,
    /// Since when it is here or away, by this node's clock. One that falls silent is away since this node gave
    /// it up, which is some time after `last_heard`; `None`: it was away at this node's start, so that nobody
    /// here knows when it went.
    pub since: Option<WallTime>,
    /// When this device last heard it: a message, or the answer to a ping. An idle device says something each
    /// minute. Of one that it did not hear since its node's start up to ten minutes too early: that is written
    /// to the disk so seldom.
    pub last_heard: Option<WallTime>,
    /// Models that answer there.
    pub models: Vec<String>,
    /// The version that it runs, or ran when it was last heard since this node's start; `None`: it has not
    /// said, or is out.
    pub version: Option<Version>,
    /// Whether both persons' sides confirmed the pairing; nothing for the one that began the fabric.
    pub confirmed: Option<bool>,
    /// The name of the device that added it, or `the recovery words`.
    pub added_by: Option<String>,
    /// When, by that one's clock.
    pub added_at: Option<WallTime>,
    /// The statement that did.
    pub added: StatementId,
    /// The keys that it had before, the newest first.
    pub former: Vec<DeviceId>,
}

/// Why a device does not belong any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandingView {
    /// `suspended` or `revoked`.
    pub state: &'static str,
    /// Why, in words.
    pub why: String,
    /// What to type, and where.
    pub remedy: String,
    /// The name of whoever said what put it out or in doubt.
    pub by: String,
    /// When, by that one's clock.
    pub at: Option<WallTime>,
    /// The statement that did.
    pub statement: StatementId,
}

/// An agent, as `weft agents` shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct AgentView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its identity.
    pub digest: Digest,
    /// One sentence.
    pub description: String,
    /// What it provides: name, sentence, effect, an example of what to say.
    pub capabilities: Vec<(CapabilityName, String, EffectClass, Option<String>)>,
    /// The names of the devices that offer it.
    pub devices: Vec<String>,
}

/// Where a step would run, and what the rules say.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// The step.
    pub step: StepIndex,
    /// What it does.
    pub capability: CapabilityName,
    /// Where; `None`: nowhere.
    pub device: Option<String>,
    /// Those that were looked at.
    pub candidates: Vec<Candidate>,
    /// What the rules say to this device's asking for it there.
    pub decision: Decision,
}

/// A run, as `weft run list` shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct RunView {
    /// Which.
    pub run: RunId,
    /// What was said.
    pub words: String,
    /// How far it is.
    pub state: RunState,
    /// The owner's name.
    pub owner: String,
    /// When it began.
    pub started: WallTime,
    /// When it ended.
    pub ended: Option<WallTime>,
}

/// A step of a run that does not go on until something comes, as `weft run show` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitView {
    /// Which step.
    pub step: StepId,
    /// What it does.
    pub capability: CapabilityName,
    /// The name of the device that does it, or would.
    pub device: String,
    /// For what.
    pub what: WaitsFor,
    /// Since when.
    pub since: WallTime,
    /// For how long from now at most.
    pub most: Duration,
}

/// What a step waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitsFor {
    /// Its device, which is away.
    Device,
    /// Word of its device, which is here, of how the step stands.
    Word,
    /// A person's yes.
    Yes,
}

impl WaitsFor {
    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Word => "word",
            Self::Yes => "yes",
        }
    }
}

/// A document's content.
#[derive(Clone, PartialEq, Debug)]
pub struct DocumentView {
    /// Which.
    pub id: DocumentId,
    /// Its fields.
    pub content: Value,
    /// When it was last changed, by the changing device's clock.
    pub modified: WallTime,
}

/// A timer, as `weft do "what timers are running"` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimerView {
    /// Which.
    pub id: TimerId,
    /// What it is for.
    pub label: String,
    /// When it is due.
    pub due: WallTime,
    /// The local time that was meant.
    pub local: String,
    /// The name of the device that fires it.
    pub fires_on: String,
}

/// An audit record with its digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditView {
    /// Its digest.
    pub digest: Digest,
    /// What it says.
    pub record: Record,
}

/// What checking the chain found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verification {
    /// How many records were checked.
    pub records: u64,
    /// The newest.
    pub head: Option<Head>,
    /// The first record that is wrong, and how; `None`: all are right.
    pub fault: Option<(u64, String)>,
    /// Devices that countersigned a head of this chain, by name, with the furthest position.
    pub witnesses: Vec<(String, u64)>,
    /// Devices, by name, whose countersignature is on this disk and does not hold.
    pub bogus: Vec<String>,
    /// Where the chain itself says that the disk was set back: the record that says so, and the
    /// sentence.
    pub setbacks: Vec<(u64, String)>,
    /// Chains of the fabric that are forked.
    pub forks: Vec<ForkView>,
    /// The chains of the keys that this device had before, the newest first.
    pub former: Vec<FormerChainView>,
}

/// What checking the chain of a key found that this device had before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormerChainView {
    /// The key.
    pub key: DeviceId,
    /// How many records were checked.
    pub records: u64,
    /// The newest.
    pub head: Option<Head>,
    /// The first record that is wrong, and how; `None`: all are right.
    pub fault: Option<(u64, String)>,
    /// How many devices countersigned a head of it.
    pub witnesses: usize,
}

/// The proof that a chain is forked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForkView {
    /// The name of the device whose chain it is.
    pub device: String,
    /// The record of which there are two.
    pub position: u64,
    /// Both heads as their owner signed them, encoded: whoever has them needs to trust nobody.
    pub heads: [Vec<u8>; 2],
    /// The sentence that says so.
    pub warning: String,
}
