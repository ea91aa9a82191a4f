//! Denials: what a device that asks for what it may not have makes another write.

use std::time::Duration;

use weft_protocol::{
    audit::Body, decision::Effect, host_call::Refusal, id::RunId, run::RunMessage,
};

use super::{
    ALLOW, Rules, connected,
    once::{PHONE, offered},
    support::secret,
};

#[test]
fn a_device_that_is_denied_without_end_is_a_count_in_the_record() {
    let deny = Rules { executor: Effect::Deny, ..ALLOW };
    let mut fabric = connected(ALLOW, deny);
    fabric.phone();
    let before = fabric.devices[1].bodies().len();
    for number in 0..500u16 {
        let mut run = [7; 16];
        run[..2].copy_from_slice(&number.to_be_bytes());
        let offer = fabric.offer(3, RunId::from_bytes(run), &[1], "it", "echo.write");
        let answers = fabric.hand(PHONE, &offered(&offer));
        let [RunMessage::Refuse { failure, .. }] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(failure.refusal, Refusal::Denied);
        assert_eq!(failure.reason.contains("too many denials"), number >= 64, "{number}");
    }
    fabric.wait(Duration::from_secs(61));
    let after = fabric.devices[1].bodies();
    let intents = after[before..].iter().filter(|body| matches!(body, Body::Intent { .. }));
    assert_eq!(intents.count(), 64);
    assert!(after.contains(&Body::Denials { device: secret(3).id(), count: 436 }), "{after:?}");
}
