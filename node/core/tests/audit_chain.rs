//! The audit chain on disks that fail and are set back: nothing that claims to be recorded is missing,
//! and the chain goes on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{collections::BTreeMap, time::Duration};

use weft_core::{
    Input,
    audit::{self, Checked, Fault, Signatures},
    door::{Command, Reply, Status, Verification},
    witness::{Witnessed, witnessed},
};
use weft_protocol::{
    audit::{AuditMessage, Body, Head},
    codec,
    frame::Protocol,
    graph::{Argument, Step},
    id::{Digest, SegmentId},
    manifest::EffectClass,
    row::MemoryRows,
    witness::{Fork, SignedHead, WITNESS_BYTES_MAX},
};

mod support;

use support::{ALLOW, Disk, Fabric, secret, step};

/// The laptop (0) and the server (1), which have not met.
fn pair() -> Fabric {
    Fabric::pair(2, [ALLOW; 2])
}

impl Fabric {
    /// Starts the laptop anew on a disk that works.
    fn restart_on(&mut self, rows: MemoryRows) {
        self.part(0, 1);
        let laptop = &mut self.devices[0];
        (laptop.rows, laptop.disk) = (rows, Disk::Works);
        self.restart(0);
    }

    /// Has the laptop say something on itself.
    fn say(&mut self, text: &str) {
        let step = Step {
            arguments: BTreeMap::from([("text".into(), Argument::Literal(text.into()))]),
            ..step(1, "echo.say", EffectClass::ReadOnly, Some("laptop"))
        };
        self.carry_out_steps(0, vec![step], false);
    }

    fn said(&mut self, text: &str) {
        self.say(text);
        self.finish(0, Ok(text.into()));
    }

    fn status(&mut self) -> Status {
        let reply = self.ask(0, Command::Status);
        let Reply::Status(status) = reply else { panic!("{reply:?}") };
        *status
    }

    fn verification(&mut self) -> Verification {
        let reply = self.ask(0, Command::Verify { every_signature: false });
        let Reply::Verified(found) = reply else { panic!("{reply:?}") };
        found
    }

    /// Checks a device's chain on its disk against all countersignatures on both.
    fn check(&self, device: usize) -> Result<Checked, Fault> {
        let id = self.id(device);
        let heads = self.devices.iter().flat_map(|it| {
            let Witnessed { heads, bogus } = witnessed(id, &it.rows).unwrap();
            assert_eq!(bogus, []);
            heads.into_iter().map(|(_, head)| head)
        });
        let (heads, rows) = (heads.collect::<Vec<_>>(), &self.devices[device].rows);
        let quick = audit::verify(id, heads.clone(), rows, Signatures::Checkpoints);
        assert_eq!(quick, audit::verify(id, heads, rows, Signatures::Every));
        quick
    }
}

#[test]
fn a_disk_that_fails_ends_the_chain_that_is_claimed_where_the_disk_ends() {
    let mut fabric = pair();
    fabric.meet(0, 1);
    fabric.said("one");
    fabric.wait(Duration::from_secs(2));
    let head = fabric.status().audit_head;
    assert_eq!(fabric.check(0).unwrap().head, head);
    fabric.devices[0].disk = Disk::Full;
    for text in ["two", "three"] {
        fabric.say(text);
        fabric.wait(Duration::from_secs(2));
    }
    assert_eq!(fabric.devices[0].begun, 1, "no record, no effect");
    assert_eq!(fabric.status().audit_head, head, "what is not on the disk is not claimed");
    assert_eq!(fabric.check(0).unwrap().head, head);

    let rows = fabric.devices[0].rows.clone();
    fabric.restart_on(rows);
    fabric.meet(0, 1);
    fabric.said("four");
    fabric.wait(Duration::from_secs(2));
    let checked = fabric.check(0).unwrap();
    assert_eq!((checked.head, checked.setbacks), (fabric.status().audit_head, vec![]));
}

#[test]
fn records_come_to_the_disk_in_their_order_whichever_machine_made_them() {
    let mut fabric = pair();
    fabric.say("something long");
    assert_eq!(fabric.devices[0].executions.len(), 1);
    fabric.feed(0, Input::StrangerTurnedAway);
    fabric.devices[0].batches.clear();
    // The step's time is over at the same moment at which strangers are recorded.
    fabric.wait(Duration::from_secs(3_601));
    let bodies = fabric.devices[0].bodies();
    let batches = &fabric.devices[0].batches;
    assert!(bodies.contains(&Body::Strangers { count: 1 }));
    assert!(batches.concat().len() > 2, "{batches:?}");
    // A power cut between any two leaves no gap.
    for pair in batches.windows(2) {
        assert!(pair[0].iter().max() < pair[1].iter().min(), "{batches:?}");
    }
    assert!(fabric.check(0).is_ok());
}

#[test]
fn a_checkpoint_follows_within_a_minute_and_then_the_chain_rests() {
    let mut fabric = pair();
    for _ in 0..70 {
        fabric.wait(Duration::from_secs(1));
    }
    let is_checkpoint = |body: &Body| matches!(body, Body::Checkpoint { .. });
    let bodies = fabric.devices[0].bodies();
    assert_eq!(bodies.iter().filter(|body| is_checkpoint(body)).count(), 1, "{bodies:?}");
    for _ in 0..200 {
        fabric.wait(Duration::from_secs(1));
    }
    assert_eq!(fabric.devices[0].bodies(), bodies);
    fabric.said("one");
    fabric.wait(Duration::from_secs(61));
    assert_eq!(fabric.devices[0].bodies().iter().filter(|body| is_checkpoint(body)).count(), 2);
    assert!(fabric.check(0).is_ok());
}

#[test]
fn a_disk_that_is_set_back_is_recovered_when_the_first_device_is_met() {
    let mut fabric = pair();
    fabric.meet(0, 1);
    fabric.said("one");
    fabric.wait(Duration::from_secs(2));
    let old = fabric.devices[0].rows.clone();
    for text in ["two", "three", "four"] {
        fabric.said(text);
        fabric.wait(Duration::from_secs(2));
    }
    let lost = fabric.status().audit_head.unwrap();
    assert_eq!(fabric.check(0).unwrap().head, Some(lost));

    fabric.restart_on(old);
    fabric.said("five");
    assert_eq!(fabric.check(0), Err(Fault::CutOff(lost.position)), "the server knows better");
    fabric.meet(0, 1);
    let checked = fabric.check(0).unwrap();
    assert_eq!(checked.setbacks.len(), 1);
    let setback = checked.setbacks[0];
    assert_eq!((setback.lost, setback.at), (lost, lost.position + 1));
    let recovered: Vec<Body> = fabric.devices[0]
        .bodies()
        .into_iter()
        .filter(|body| matches!(body, Body::Segment { recovered: Some(_), .. }))
        .collect();
    assert_eq!(recovered.len(), 1, "{recovered:?}");

    // The chain goes on, the server goes along, and the gap stays named.
    fabric.said("six");
    fabric.wait(Duration::from_secs(2));
    fabric.wait(Duration::from_secs(2));
    let found = fabric.verification();
    let (first, last) = setback.missing.unwrap();
    let sentence = format!(
        "records {first} to {last} are missing: the disk was set back; recovered at record {}",
        setback.at
    );
    assert_eq!(found.fault, None);
    assert_eq!(found.setbacks, [(setback.at, sentence)]);
    assert_eq!(found.forks, []);
    let head = fabric.status().audit_head.unwrap();
    assert_eq!(found.witnesses, [("server".to_owned(), head.position)]);
    let warnings = fabric.status().warnings;
    assert!(warnings.iter().any(|it| it.contains("set back")), "{warnings:?}");

    // A further start says nothing again.
    let rows = fabric.devices[0].rows.clone();
    fabric.restart_on(rows);
    fabric.meet(0, 1);
    fabric.said("seven");
    fabric.wait(Duration::from_secs(2));
    assert_eq!(fabric.check(0).unwrap().setbacks, [setback]);
}

#[test]
fn a_device_that_is_copied_and_runs_twice_is_not_called_forked_but_set_back() {
    let mut fabric = pair();
    fabric.meet(0, 1);
    fabric.said("one");
    fabric.wait(Duration::from_secs(2));
    let copy = fabric.devices[0].rows.clone();
    fabric.restart_on(copy.clone());
    fabric.meet(0, 1);
    fabric.said("on the one");
    fabric.wait(Duration::from_secs(2));
    fabric.restart_on(copy);
    fabric.meet(0, 1);
    fabric.said("on the other");
    fabric.wait(Duration::from_secs(2));
    let checked = fabric.check(0).unwrap();
    assert_eq!(checked.setbacks.len(), 1);
    assert_eq!(fabric.verification().forks, []);
}

#[test]
fn a_fork_is_a_warning_and_its_proof_is_shown_also_after_a_start() {
    let mut fabric = pair();
    fabric.meet(0, 1);
    let head = |record: &[u8]| {
        let head = Head {
            device: secret(2).id(),
            segment: SegmentId::from_bytes([7; 16]),
            position: 3,
            digest: Digest::of(record),
        };
        SignedHead::new(head, secret(2).signing()).signed().clone()
    };
    let bytes = codec::encode(&AuditMessage::Fork(head(b"one"), head(b"other")));
    let stream = fabric.stream(0, 1, Protocol::Audit).unwrap();
    fabric.feed(0, Input::Frame { stream, bytes });
    fabric.settle();
    for _ in 0..2 {
        let warnings = fabric.status().warnings;
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(warning.starts_with("the audit chain of server is forked"), "{warning}");
        let found = fabric.verification();
        assert_eq!(found.fault, None, "this device's own chain is as it was");
        let [fork] = found.forks.as_slice() else { panic!("{:?}", found.forks) };
        assert_eq!((fork.device.as_str(), fork.position), ("server", 3));
        let signed = |bytes: &Vec<u8>| codec::decode(bytes, WITNESS_BYTES_MAX).unwrap();
        let [one, other] = fork.heads.each_ref().map(signed);
        assert!(Fork::open(one, other).is_some(), "whoever has the proof needs nothing else");
        let rows = fabric.devices[0].rows.clone();
        fabric.restart_on(rows);
    }
}
