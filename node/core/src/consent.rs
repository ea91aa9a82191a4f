//! A person's yes, signed on the device where it was given, and spent once.
//!
//! A yes holds for one try of one step, with those arguments, on that executor, under those rules, for a
//! minute. The executor writes its nonce in the batch of the intent that spends it, and takes no nonce
//! that is written.

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode, bytes::ByteArray};
use weft_protocol::{
    codec,
    decision::{Decision, Effect},
    id::{DeviceId, Digest},
    row::{ReadError, Row, Table, Write},
    run::{Attempt, Offer},
    signed::{Domain, Signed},
    time::WallTime,
};

use crate::env::Env;

/// How long a yes may be used, in milliseconds: the time to carry it to another device and start.
const VALID_MS: i64 = 60_000;
/// A yes that holds for longer than this from now, by the executor's clock, is none, in milliseconds: its
/// spent nonce would be kept for as long. Far above what clocks of one fabric differ by.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1_000;
/// A spent nonce is kept for so long after its consent expired, in milliseconds: a day, so that a clock
/// that was set wrong and right again does not make the consent new.
const KEPT_MS: i64 = 24 * 3_600 * 1_000;
/// The most bytes of a consent.
const CONSENT_BYTES_MAX: usize = 1 << 10;
/// The scope of the rows that hold spent nonces.
const SPENT: &[u8] = b"consent";

/// What a person agreed to.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Consent {
    /// Which try of which step.
    #[n(0)]
    pub attempt: Attempt,
    /// The arguments, hashed under the fabric's addressing key.
    #[n(1)]
    pub arguments: Digest,
    /// Where.
    #[n(2)]
    pub executor: DeviceId,
    /// The rules that the executor is known to have.
    #[n(3)]
    pub policy: Digest,
    /// Until when, by the consenting device's clock.
    #[n(4)]
    pub expires: WallTime,
    /// Tells this yes from any other.
    #[n(5)]
    pub nonce: ByteArray<16>,
}

/// Signs a person's yes to an offer's being carried out on `executor`.
pub(crate) fn give(
    key: &SigningKey,
    offer: &Offer,
    arguments: Digest,
    executor: DeviceId,
    nonce: [u8; 16],
    env: &Env<'_>,
) -> Signed {
    let consent = Consent {
        attempt: offer.attempt.clone(),
        arguments,
        executor,
        policy: env.policy_digest(),
        expires: WallTime::from_unix_millis(env.now.wall.unix_millis().saturating_add(VALID_MS)),
        nonce: nonce.into(),
    };
    Signed::new(Domain::Consent, &consent, key)
}

/// Turns an `ask` into an `allow` where the offer carries the owner's unspent consent to exactly this,
/// else into a `deny`. Gives the writes that spend it: they belong into the intent's batch.
pub(crate) fn settle(
    decision: Decision,
    offer: &Offer,
    arguments: Digest,
    env: &Env<'_>,
) -> (Decision, Vec<Write>) {
    let reason = decision.reason.clone();
    let no = |why: &str| (Decision::deny(format!("{reason}: {why}")), Vec::new());
    let Some(signed) = &offer.consent else { return no("nobody was asked") };
    let Ok(consent) = signed.open::<Consent>(Domain::Consent, CONSENT_BYTES_MAX) else {
        return no("the consent is not genuine");
    };
    let is_this = signed.author == offer.attempt.owner
        && consent.attempt == offer.attempt
        && consent.arguments == arguments
        && consent.executor == env.me
        && consent.policy == env.policy_digest();
    if !is_this {
        return no("the consent is for something else");
    }
    if consent.expires < env.now.wall {
        return no("the consent has expired");
    }
    if consent.expires.unix_millis().saturating_sub(env.now.wall.unix_millis()) > AHEAD_MS_MAX {
        return no("the consent holds for longer than one may");
    }
    match spend(&consent, env) {
        Ok(Some(writes)) => {
            let reason = format!("{reason}: a person agreed");
            (Decision { effect: Effect::Allow, reason, ..decision }, writes)
        }
        Ok(None) => no("the consent was spent"),
        Err(error) => no(&format!("whether the consent was spent can't be read: {error}")),
    }
}

/// The writes that spend a consent, and forget those that expired long ago; `None`: it was spent.
fn spend(consent: &Consent, env: &Env<'_>) -> Result<Option<Vec<Write>>, ReadError> {
    let row = Row::named(Table::Run, SPENT, &*consent.nonce);
    if env.rows.get(&row)?.is_some() {
        return Ok(None);
    }
    let mut writes = vec![Write::Put(row, codec::encode(&consent.expires))];
    let now = env.now.wall.unix_millis();
    for (item, expires) in env.rows.scan(Table::Run, SPENT)? {
        let expired = codec::decode::<WallTime>(&expires, 64)
            .is_ok_and(|expires| expires.unix_millis().saturating_add(KEPT_MS) < now);
        if expired {
            writes.push(Write::Delete(Row { table: Table::Run, scope: SPENT.to_vec(), item }));
        }
    }
    Ok(Some(writes))
}
