//! Speech: what the root says of its fabric, in the order in which each thing can be said.

use std::collections::BTreeSet;

use rand_core::CryptoRng;
use thiserror::Error;
use weft_protocol::{
    id::{DeviceId, StatementId},
    signed::Signed,
    time::WallTime,
};

use super::{
    RootSecret,
    fetch::{FetchError, Fetched, view},
};
use crate::{
    author::{Author, AuthorError, NewDevice},
    graph::{Graph, statement_id},
    keyring::Keyring,
    state::Standing,
};

/// The most `Keep`s of one device: one for each who removed it and was removed.
const KEEPS_MAX: usize = 64;

/// What the person with the words wants.
#[derive(Clone, Default, Debug)]
pub struct Wish {
    /// Who is out.
    pub lost: Vec<Lost>,
    /// Which suspended devices stay.
    pub keep: Vec<DeviceId>,
    /// Who comes in.
    pub add: Option<NewDevice>,
    /// Who is root from now on.
    pub new_root: Option<RootSecret>,
}

/// A device that was lost or stolen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Which.
    pub device: DeviceId,
    /// Its first statement that does not count; none: all that it said until now does.
    pub since: Option<StatementId>,
}

/// Why the root does not say it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SpeechError {
    /// The fabric is not its own, or can't be read.
    #[error(transparent)]
    View(#[from] FetchError),
    /// It would have no effect.
    #[error(transparent)]
    Author(#[from] AuthorError),
    /// The statement from which on nothing counts is not of the lost device, or is its first.
    #[error(
        "revoke a device from a statement on: {} is not one that it made since it joined", since.short()
    )]
    NotIts {
        /// The statement.
        since: StatementId,
    },
    /// Only what is suspended can be kept.
    #[error(
        "keep {}: it was put out, and that counts; unless whoever did so is revoked from that statement on", device.short()
    )]
    StaysOut {
        /// The device.
        device: DeviceId,
    },
    /// It is suspended because what brought it in is frozen.
    #[error("keep {}: whoever added it is suspended; keep that one", device.short())]
    AddedInDoubt {
        /// The device.
        device: DeviceId,
    },
    /// Nobody asked.
    #[error("keep {}: it is not suspended", device.short())]
    NotSuspended {
        /// The device.
        device: DeviceId,
    },
    /// The graph is not taken with what was said.
    #[error("speak as the root: the statement has no effect")]
    NoEffect,
}

/// What was said.
#[derive(Clone, Debug)]
pub struct Speech {
    /// The fabric with it.
    pub graph: Graph,
    /// The statements, in order.
    pub statements: Vec<Signed>,
}

/// Says as the root of `fetched` all that is wished, or nothing.
///
/// # Errors
///
/// Part of it makes no sense for this fabric.
pub fn speak(
    root: &RootSecret,
    fetched: Fetched,
    wish: &Wish,
    wall: WallTime,
    rng: &mut impl CryptoRng,
) -> Result<Speech, SpeechError> {
    let mut speaker = Speaker { root, fetched, said: Vec::new() };
    for lost in &wish.lost {
        speaker.revoke(*lost, wall, rng)?;
    }
    let mut waiting = wish.keep.clone();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for device in &waiting {
            match speaker.keep(*device, wall, rng) {
                // Its turn may come when whoever added it was kept.
                Err(SpeechError::AddedInDoubt { .. }) => still.push(*device),
                kept => kept?,
            }
        }
        if still.len() == waiting.len() {
            return Err(SpeechError::AddedInDoubt { device: still[0] });
        }
        waiting = still;
    }
    if let Some(new) = &wish.add {
        // Last but for the root, so that the keys which the others made are sealed to it.
        let signed = speaker.author().add(new.clone(), wall, rng)?;
        speaker.say(signed)?;
    }
    if let Some(new) = &wish.new_root {
        let signed = speaker.author().rotate_root(new, wall, rng)?;
        speaker.say(signed)?;
        // A root that never spoke vouches for nothing.
        let signed = vouch(&speaker.fetched.graph, new, wall)?;
        speaker.say(signed)?;
    }
    Ok(Speech { graph: speaker.fetched.graph, statements: speaker.said })
}

/// As [`speak`], for a device that holds the statements: it needs no other.
///
/// # Errors
///
/// The words are of another fabric, or part of what is wished makes no sense for this one.
pub fn speak_of(
    root: &RootSecret,
    graph: Graph,
    wish: &Wish,
    wall: WallTime,
    rng: &mut impl CryptoRng,
) -> Result<Speech, SpeechError> {
    speak(root, view(graph, root)?, wish, wall, rng)
}

/// The root's first word, which changes nothing: it gives the fabric the name that it has.
///
/// Whoever was ever in the fabric knows the root's public keys and can begin another with them.
/// What shows the words' owner which one is theirs is that the root speaks in it.
///
/// # Errors
///
/// It is not the root of this fabric.
pub fn vouch(graph: &Graph, root: &RootSecret, wall: WallTime) -> Result<Signed, AuthorError> {
    let keyring = Keyring::new(root.agreement().clone());
    let name = graph.state().name.clone();
    Author::new(graph, &keyring, root.signing()).rename(None, name, wall)
}

struct Speaker<'a> {
    root: &'a RootSecret,
    fetched: Fetched,
    said: Vec<Signed>,
}

impl Speaker<'_> {
    fn author(&self) -> Author<'_> {
        Author::new(&self.fetched.graph, &self.fetched.keyring, self.root.signing())
    }

    fn say(&mut self, signed: Signed) -> Result<(), SpeechError> {
        self.fetched.graph.insert(signed.clone()).map_err(|_| SpeechError::NoEffect)?;
        self.fetched.keyring.learn(&self.fetched.graph);
        self.said.push(signed);
        Ok(())
    }

    fn revoke(
        &mut self,
        lost: Lost,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(), SpeechError> {
        let author = match lost.since {
            None => self.author(),
            Some(since) => {
                let graph = &self.fetched.graph;
                let is_its = graph.get(&since).is_some_and(|it| it.author == lost.device);
                let heads = heads_without(graph, &since);
                if !is_its || heads.is_empty() {
                    return Err(SpeechError::NotIts { since });
                }
                self.author().knowing(heads)
            }
        };
        let signed = author.revoke(lost.device, wall, rng)?;
        self.say(signed)
    }

    /// Keeps a device, whoever suspended it. What it said itself counts again: of two that put each
    /// other out, the first that is kept stays, and the other is out.
    fn keep(
        &mut self,
        device: DeviceId,
        wall: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(), SpeechError> {
        for round in 0..KEEPS_MAX {
            let known = self.fetched.graph.state().devices.get(&device);
            match known.map(|it| it.standing) {
                Some(Standing::Suspended { cause })
                    if known.is_some_and(|it| it.added == cause) =>
                {
                    return Err(SpeechError::AddedInDoubt { device });
                }
                Some(Standing::Suspended { .. }) => {
                    let signed = self.author().keep(device, None, wall, rng)?;
                    self.say(signed)?;
                }
                // It stands again, by this or by what was said before.
                Some(Standing::Active) if round > 0 || !self.said.is_empty() => return Ok(()),
                Some(Standing::Active) => return Err(SpeechError::NotSuspended { device }),
                Some(Standing::Revoked { .. }) => return Err(SpeechError::StaysOut { device }),
                None => {
                    let what = "keep a suspended device";
                    return Err(AuthorError::UnknownDevice { what, device }.into());
                }
            }
        }
        Err(SpeechError::NoEffect)
    }
}

/// The newest statements of those that don't rest on `since` and are not it.
fn heads_without(graph: &Graph, since: &StatementId) -> Vec<StatementId> {
    let mut covered: BTreeSet<StatementId> = BTreeSet::new();
    let mut heads = Vec::new();
    let order: Vec<StatementId> = graph.statements().map(statement_id).collect();
    for id in order.iter().rev() {
        if covered.contains(id) {
            continue;
        }
        let past: Vec<StatementId> = graph.ancestry(id).into_iter().map(statement_id).collect();
        if past.contains(since) {
            continue;
        }
        heads.push(*id);
        covered.extend(past);
    }
    heads
}
