//! A person's yes, signed on the device where it was given, and spent once.

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use weft_protocol::{
    decision::{Decision, Effect},
    graph::StepId,
    id::{DeviceId, Digest, RunId},
    run::Offer,
    signed::{Domain, Signed},
    time::WallTime,
};

use crate::env::Env;

/// How long a yes may be used, in milliseconds: the time to carry it to another device and start.
const VALID_MS: i64 = 60_000;
/// The most bytes of a consent.
const CONSENT_BYTES_MAX: usize = 1 << 10;

/// What a person agreed to.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Consent {
    /// The run.
    #[n(0)]
    pub run: RunId,
    /// The step.
    #[n(1)]
    pub step: StepId,
    /// The arguments, hashed under the fabric's addressing key.
    #[n(2)]
    pub arguments: Digest,
    /// Where.
    #[n(3)]
    pub executor: DeviceId,
    /// The rules that the executor is known to have.
    #[n(4)]
    pub policy: Digest,
    /// Until when, by the consenting device's clock.
    #[n(5)]
    pub expires: WallTime,
}

/// Signs a person's yes to an offer's being carried out on `executor`.
pub(crate) fn give(
    key: &SigningKey,
    offer: &Offer,
    arguments: Digest,
    executor: DeviceId,
    policy: Digest,
    now: WallTime,
) -> Signed {
    let consent = Consent {
        run: offer.attempt.run,
        step: offer.attempt.step.clone(),
        arguments,
        executor,
        policy,
        expires: WallTime::from_unix_millis(now.unix_millis().saturating_add(VALID_MS)),
    };
    Signed::new(Domain::Consent, &consent, key)
}

/// Turns an `ask` into an `allow` where the offer carries the owner's consent to exactly this, else
/// into a `deny`. A step runs once under one consent, since the outcome of a step is kept.
pub(crate) fn settle(
    decision: Decision,
    offer: &Offer,
    arguments: Digest,
    env: &Env<'_>,
) -> Decision {
    let reason = decision.reason.clone();
    let no = |why: &str| Decision::deny(format!("{reason}: {why}"));
    let Some(signed) = &offer.consent else { return no("nobody was asked") };
    let Ok(consent) = signed.open::<Consent>(Domain::Consent, CONSENT_BYTES_MAX) else {
        return no("the consent is not genuine");
    };
    let is_this = signed.author == offer.owner
        && consent.run == offer.attempt.run
        && consent.step == offer.attempt.step
        && consent.arguments == arguments
        && consent.executor == env.me
        && consent.policy == env.policy_digest();
    if !is_this {
        return no("the consent is for something else");
    }
    if consent.expires < env.now.wall {
        return no("the consent has expired");
    }
    Decision { effect: Effect::Allow, reason: format!("{reason}: a person agreed"), ..decision }
}
