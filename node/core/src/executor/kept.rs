//! What this device keeps of the steps that it was asked for, and what that means for another asking.
//!
//! A row is written with the step's intent and with its end. It is what makes a repeated offer give the
//! same answer, a cut one say that nothing was begun, and one that a crash caught while it acted stay
//! uncertain. Once the asker has the outcome, what is left of a step that writes is its last try, so
//! that this never runs again; the row goes when the asker says that the run is settled.

use std::collections::BTreeSet;

use weft_protocol::{
    codec,
    graph::{Label, StepId},
    id::{DeviceId, Digest, RunId},
    manifest::EffectClass,
    row::{ReadError, Row, Rows, Table, Write},
    run::{Attempt, Executed, Failure, Offer, Outcome, Stage},
    value::Value,
};

use crate::{audit::keyed_digest, env::Env};

/// What is kept of a step at most: its outcome travels within a message.
const EXECUTED_BYTES_MAX: usize = 1 << 20;

/// Which step, and who asks for it: what another device asks for never meets it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StepKey {
    /// The device that asks: the owner, or where an agent that called the step runs.
    pub from: DeviceId,
    /// Whose run it is.
    pub owner: DeviceId,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
}

impl StepKey {
    /// The step of an attempt that `from` asks for.
    pub fn of(from: DeviceId, attempt: &Attempt) -> Self {
        let Attempt { owner, run, step, .. } = attempt;
        Self { from, owner: *owner, run: *run, step: step.clone() }
    }
}

/// The row of a step that `from` asks for.
pub fn row(from: &DeviceId, attempt: &Attempt) -> Row {
    let step = attempt.step.to_string();
    let name = [attempt.owner.as_bytes().as_slice(), attempt.run.as_bytes(), step.as_bytes()];
    Row::named(Table::Run, &scope(from), &name.concat())
}

fn scope(from: &DeviceId) -> Vec<u8> {
    [b"executed:", from.as_bytes().as_slice()].concat()
}

pub(super) fn write(executed: &Executed) -> Write {
    Write::Put(row(&executed.from, &executed.attempt), codec::encode(executed))
}

pub(super) fn read(
    from: &DeviceId,
    attempt: &Attempt,
    rows: &dyn Rows,
) -> Result<Option<Executed>, ReadError> {
    rows.get(&row(from, attempt))?.map(|bytes| decode(&bytes)).transpose()
}

fn decode(bytes: &[u8]) -> Result<Executed, ReadError> {
    codec::decode(bytes, EXECUTED_BYTES_MAX)
        .map_err(|error| ReadError { table: Table::Run, why: error.to_string() })
}

/// What an offer asks for, as it is held against what was asked for before.
pub(super) fn asked(offer: &Offer, env: &Env<'_>) -> Digest {
    let asked = Value::List(vec![
        Value::from(offer.capability.as_str()),
        Value::Bytes(offer.agent.as_bytes().to_vec()),
        offer.arguments.clone(),
    ]);
    keyed_digest(env.addressing_key, &asked)
}

/// What is kept of a step means for another asking.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Standing {
    /// It may be tried.
    Free,
    /// This is how it ended.
    Ended(Outcome, BTreeSet<Label>),
    /// Nothing was begun under this try.
    Closed(Option<Failure>),
    /// Nothing was begun under this try, and it must be closed before that is said.
    ToClose,
    /// Its effect may have happened: a crash caught it while it acted. To be recorded.
    ToSettle,
    /// It ended, and how is kept no longer.
    Forgotten,
    /// The asking is not one to be answered, and why.
    Void(&'static str),
}

/// How a kept step stands to another asking for it: for `asked`, or, where that is `None`, only for how
/// it stands.
pub(super) fn standing(kept: &Executed, attempt: &Attempt, asked: Option<Digest>) -> Standing {
    if attempt.order() < kept.attempt.order() {
        return Standing::Void("a later try of this step is known here");
    }
    let later = attempt.order() > kept.attempt.order();
    let same = asked.is_none_or(|asked| asked == kept.asked);
    let once = kept.effect == EffectClass::AtMostOnce;
    match &kept.stage {
        Stage::Closed(_) if later => Standing::Free,
        Stage::Ended { .. } | Stage::Closed(Some(_)) if !same && (once || !later) => {
            Standing::Void("something else was asked for as this step")
        }
        Stage::Closed(why) => Standing::Closed(why.clone()),
        Stage::Ended { outcome, labels } => {
            let value = matches!(outcome, Outcome::Value { .. });
            let stands = once || !later || (value && same && kept.attempt.above == attempt.above);
            if stands { Standing::Ended(outcome.clone(), labels.clone()) } else { Standing::Free }
        }
        Stage::Intended if later => Standing::Free,
        Stage::Intended => Standing::ToClose,
        Stage::Acting if once => Standing::ToSettle,
        // Nothing of what it wrote is on the disk without its outcome.
        Stage::Acting if asked.is_none() => Standing::ToClose,
        Stage::Acting => Standing::Free,
        Stage::Settled if once || !later => Standing::Forgotten,
        Stage::Settled => Standing::Free,
    }
}

/// The writes after the asker said that it knows how a try ended.
pub(super) fn settle(mut kept: Executed, attempt: &Attempt) -> Option<Write> {
    if attempt.above != kept.attempt.above || attempt.epoch < kept.attempt.epoch {
        return None;
    }
    match kept.stage {
        Stage::Ended { .. } | Stage::Closed(_) => {}
        Stage::Intended | Stage::Acting | Stage::Settled => return None,
    }
    match kept.effect {
        EffectClass::Pure | EffectClass::ReadOnly => {
            Some(Write::Delete(row(&kept.from, &kept.attempt)))
        }
        EffectClass::Idempotent | EffectClass::AtMostOnce => {
            kept.attempt.epoch = attempt.epoch;
            kept.stage = Stage::Settled;
            Some(write(&kept))
        }
    }
}

/// The rows of an asker, with what they hold. What can't be read is passed over: it is asked for by its
/// own name, where that is an error.
pub(super) fn all(from: &DeviceId, rows: &dyn Rows) -> Result<Vec<(Row, Executed)>, ReadError> {
    let scope = scope(from);
    let rows = rows.scan(Table::Run, &scope)?;
    let read = |(item, bytes): (_, Vec<u8>)| {
        Some((Row { table: Table::Run, scope: scope.clone(), item }, decode(&bytes).ok()?))
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

/// How many rows an asker has.
pub(super) fn count(from: &DeviceId, rows: &dyn Rows) -> Result<usize, ReadError> {
    Ok(rows.scan(Table::Run, &scope(from))?.len())
}

#[cfg(test)]
mod tests {
    use weft_protocol::host_call::Refusal;

    use super::*;

    const ASKED: Digest = Digest::from_bytes([1; 32]);
    const OTHER: Digest = Digest::from_bytes([2; 32]);

    fn attempt(above: u32, epoch: u32) -> Attempt {
        Attempt {
            owner: DeviceId::from_bytes([1; 32]),
            run: RunId::from_bytes([2; 16]),
            step: StepId(vec![1, 1]),
            above: vec![above],
            epoch,
        }
    }

    fn kept(effect: EffectClass, stage: Stage) -> Executed {
        Executed {
            from: DeviceId::from_bytes([3; 32]),
            attempt: attempt(2, 2),
            asked: ASKED,
            effect,
            intent: Some(7),
            policy: OTHER,
            stage,
        }
    }

    fn ended(outcome: Outcome) -> Stage {
        Stage::Ended { outcome, labels: BTreeSet::new() }
    }

    fn value() -> Stage {
        ended(Outcome::Value { value: Value::Int(1), labels: BTreeSet::new() })
    }

    fn failed() -> Stage {
        ended(Outcome::Failed(Failure { refusal: Refusal::Failed, reason: "no".into() }))
    }

    /// How it stands, in a word.
    fn word(kept: &Executed, above: u32, epoch: u32, asked: Option<Digest>) -> &'static str {
        match standing(kept, &attempt(above, epoch), asked) {
            Standing::Free => "free",
            Standing::Ended(..) => "ended",
            Standing::Closed(_) => "closed",
            Standing::ToClose => "to close",
            Standing::ToSettle => "to settle",
            Standing::Forgotten => "forgotten",
            Standing::Void(_) => "void",
        }
    }

    #[test]
    fn what_is_kept_answers_the_same_asking_alone() {
        use EffectClass::{AtMostOnce, Idempotent, ReadOnly};
        let closed = || Stage::Closed(None);
        // Kept; then the words for: an earlier try, the same, the same for something else, only how it
        // stands, the next try, the next try for something else, the next try of the step above.
        let cases = [
            (ReadOnly, value(), ["void", "ended", "void", "ended", "ended", "free", "free"]),
            (ReadOnly, failed(), ["void", "ended", "void", "ended", "free", "free", "free"]),
            (ReadOnly, Stage::Acting, ["void", "free", "free", "to close", "free", "free", "free"]),
            (Idempotent, value(), ["void", "ended", "void", "ended", "ended", "free", "free"]),
            (
                Idempotent,
                Stage::Settled,
                ["void", "forgotten", "forgotten", "forgotten", "free", "free", "free"],
            ),
            (AtMostOnce, value(), ["void", "ended", "void", "ended", "ended", "void", "ended"]),
            (AtMostOnce, failed(), ["void", "ended", "void", "ended", "ended", "void", "ended"]),
            (
                AtMostOnce,
                Stage::Intended,
                ["void", "to close", "to close", "to close", "free", "free", "free"],
            ),
            (
                AtMostOnce,
                Stage::Acting,
                [
                    "void",
                    "to settle",
                    "to settle",
                    "to settle",
                    "to settle",
                    "to settle",
                    "to settle",
                ],
            ),
            (AtMostOnce, closed(), ["void", "closed", "closed", "closed", "free", "free", "free"]),
            (
                AtMostOnce,
                Stage::Settled,
                [
                    "void",
                    "forgotten",
                    "forgotten",
                    "forgotten",
                    "forgotten",
                    "forgotten",
                    "forgotten",
                ],
            ),
        ];
        for (effect, stage, expected) in cases {
            let kept = kept(effect, stage);
            let found = [
                word(&kept, 1, 9, Some(ASKED)),
                word(&kept, 2, 2, Some(ASKED)),
                word(&kept, 2, 2, Some(OTHER)),
                word(&kept, 2, 2, None),
                word(&kept, 2, 3, Some(ASKED)),
                word(&kept, 2, 3, Some(OTHER)),
                word(&kept, 3, 1, Some(ASKED)),
            ];
            assert_eq!(found, expected, "{kept:?}");
        }
    }

    #[test]
    fn what_the_asker_knows_is_forgotten_but_for_the_try_of_what_writes() {
        assert_eq!(settle(kept(EffectClass::AtMostOnce, value()), &attempt(2, 1)), None);
        assert_eq!(settle(kept(EffectClass::AtMostOnce, value()), &attempt(3, 1)), None);
        assert_eq!(settle(kept(EffectClass::AtMostOnce, Stage::Acting), &attempt(2, 2)), None);
        let read = kept(EffectClass::ReadOnly, value());
        let deleted = Write::Delete(row(&read.from, &read.attempt));
        assert_eq!(settle(read, &attempt(2, 2)), Some(deleted));
        let Some(Write::Put(_, bytes)) =
            settle(kept(EffectClass::AtMostOnce, value()), &attempt(2, 3))
        else {
            panic!("its try is kept");
        };
        assert!(bytes.len() < 300, "{} bytes are left", bytes.len());
        let left = decode(&bytes).unwrap();
        assert_eq!((left.attempt.epoch, left.stage), (3, Stage::Settled));
    }
}
