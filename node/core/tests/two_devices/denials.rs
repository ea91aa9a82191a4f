//! Denials: what a device that asks for what it may not have makes another write.

use std::time::Duration;

use weft_core::audit;
use weft_protocol::{
    audit::Body,
    decision::Effect,
    host_call::Refusal,
    id::RunId,
    row::{Rows as _, Table},
    run::RunMessage,
};

use super::{
    ALLOW, Fabric, Stub,
    once::{PHONE, offered},
    secret,
};

fn bodies(fabric: &Fabric) -> Vec<Body> {
    let rows = fabric.devices[1].rows.scan_from(Table::Audit, &[], 0, usize::MAX).unwrap();
    rows.into_iter().map(|(at, bytes)| audit::read(at, &bytes).unwrap().1.body).collect()
}

#[test]
fn a_device_that_is_denied_without_end_is_a_count_in_the_record() {
    let deny = Stub { executor: Effect::Deny, ..ALLOW };
    let mut fabric = Fabric::new(ALLOW, deny);
    fabric.phone();
    let before = bodies(&fabric).len();
    for number in 0..500u16 {
        let mut run = [7; 16];
        run[..2].copy_from_slice(&number.to_be_bytes());
        let offer = fabric.offer(3, RunId::from_bytes(run), &[1], "it", "echo.write");
        let answers = fabric.ask(PHONE, &offered(&offer));
        let [RunMessage::Refuse { failure, .. }] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(failure.refusal, Refusal::Denied);
        assert_eq!(failure.reason.contains("too many denials"), number >= 64, "{number}");
    }
    fabric.wait(Duration::from_secs(61));
    let after = bodies(&fabric);
    let intents = after[before..].iter().filter(|body| matches!(body, Body::Intent { .. }));
    assert_eq!(intents.count(), 64);
    assert!(after.contains(&Body::Denials { device: secret(3).id(), count: 436 }), "{after:?}");
}
