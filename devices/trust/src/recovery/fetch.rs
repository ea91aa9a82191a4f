//! Fetching: a machine with nothing but the words is given a fabric's statements by one device.
//!
//! What comes is judged by itself. The device may be anybody, or a thief's: it can keep statements
//! back, which others bring later, but it can't make any up.

use std::{collections::VecDeque, time::Duration};

use thiserror::Error;
use weft_protocol::{
    id::{DeviceId, FabricId},
    signed::Signed,
    statement::TrustMessage,
    time::{Now, Timestamp},
};

use super::{RootSecret, prove};
use crate::{
    exchange::bytes_of,
    graph::{GRAPH_BYTES_MAX, Graph},
    keyring::Keyring,
    state::Verdict,
};

/// How long the device has to send its statements.
pub(super) const FETCH_TIME: Duration = Duration::from_secs(10);

/// Why no statements were fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FetchError {
    /// The device hung up. It does so for wrong words, too: it tells nobody whether they were close.
    #[error("recover: that device does not know these words, or runs a version that can't recover")]
    Refused,
    /// It said nothing, or not all.
    #[error("recover: that device did not answer in time")]
    TimedOut,
    /// It said what makes no sense.
    #[error("recover: what that device says is not a fabric: {why}")]
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The fabric that it shows has another root.
    #[error("recover: that device shows a fabric that these words are not the root of")]
    OtherRoot,
    /// It sends more than a fabric has.
    #[error("recover: that device sends more than a fabric has")]
    TooMuch,
    /// Statements of a newer program are among them.
    #[error("recover: the fabric uses a newer version of weft; recover with that")]
    UpdateNeeded,
}

/// A fabric, as one device showed it.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its statements.
    pub graph: Graph,
    /// Its keys, as far as they are sealed to the root.
    pub keyring: Keyring,
    /// Whether the root itself spoke in this fabric. If not, whoever was ever in a fabric of this
    /// root, and so knows its public keys, may have made this one up.
    pub is_vouched: bool,
}

/// What the machine wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this to the device.
    Send(TrustMessage),
    /// It is over. The last output.
    Ended(Box<Result<Fetched, FetchError>>),
}

/// The machine, for one device that was reached.
#[derive(Debug)]
pub struct Fetch {
    root: RootSecret,
    until: Timestamp,
    fabric: Option<FabricId>,
    statements: Vec<Signed>,
    bytes: usize,
    has_ended: bool,
    outputs: VecDeque<Output>,
}

impl Fetch {
    /// Begins on the new device `me`, with a `peer` whose key the connection has proved.
    pub fn new(root: RootSecret, me: DeviceId, peer: DeviceId, now: Now) -> Self {
        let proof = prove(root.signing(), me, peer);
        Self {
            root,
            until: now.mono + FETCH_TIME,
            fabric: None,
            statements: Vec::new(),
            bytes: 0,
            has_ended: false,
            outputs: VecDeque::from([Output::Send(TrustMessage::Recover { proof })]),
        }
    }

    /// Takes what the device says.
    pub fn handle_message(&mut self, message: TrustMessage) {
        if self.has_ended {
            return;
        }
        match message {
            TrustMessage::Have { fabric, .. } => {
                if self.fabric.replace(fabric).is_some() {
                    self.end(Err(FetchError::Malformed { why: "it names two" }));
                }
            }
            TrustMessage::Statements { statements } => {
                self.bytes += bytes_of(&statements);
                self.statements.extend(statements);
                if self.bytes > GRAPH_BYTES_MAX {
                    self.end(Err(FetchError::TooMuch));
                }
            }
            TrustMessage::Merged { set } => {
                let conclusion = self.conclude().and_then(|fetched| {
                    if fetched.graph.set_digest() == set {
                        Ok(fetched)
                    } else {
                        Err(FetchError::Malformed { why: "a part of it is missing" })
                    }
                });
                self.end(conclusion);
            }
            TrustMessage::Want { .. }
            | TrustMessage::Keys { .. }
            | TrustMessage::Recover { .. } => {
                self.end(Err(FetchError::Malformed { why: "it asks instead of answering" }));
            }
        }
    }

    /// The device is gone, or sent what is no message.
    pub fn handle_closed(&mut self) {
        self.end(Err(FetchError::Refused));
    }

    /// Takes that time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.poll_timeout().is_some_and(|(at, _)| at <= now.mono) {
            self.end(Err(FetchError::TimedOut));
        }
    }

    /// When [`Self::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        (!self.has_ended).then_some((self.until, "a device sends its statements"))
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn conclude(&mut self) -> Result<Fetched, FetchError> {
        let malformed = |why| FetchError::Malformed { why };
        let fabric = self.fabric.ok_or(malformed("it does not name it"))?;
        let graph = Graph::from_statements(std::mem::take(&mut self.statements))
            .map_err(|_| malformed("it has no good beginning"))?;
        if graph.fabric() != fabric {
            return Err(malformed("it names another"));
        }
        view(graph, &self.root)
    }

    fn end(&mut self, how: Result<Fetched, FetchError>) {
        if !self.has_ended {
            self.has_ended = true;
            self.outputs.push_back(Output::Ended(Box::new(how)));
        }
    }
}

/// The fabric as the root sees it who has these statements.
///
/// # Errors
///
/// The root is another, its keys don't open, or the program is too old.
pub fn view(graph: Graph, root: &RootSecret) -> Result<Fetched, FetchError> {
    let state = graph.state();
    // The key for sealing is told to no stranger, so it shows that the fabric was once seen.
    if state.root != Some(root.keys()) {
        return Err(FetchError::OtherRoot);
    }
    if state.update_needed.is_some() {
        return Err(FetchError::UpdateNeeded);
    }
    let mut keyring = Keyring::new(root.agreement().clone());
    keyring.learn(&graph);
    if keyring.addressing(state).is_none() {
        return Err(FetchError::Malformed { why: "its keys are not sealed to the root" });
    }
    let is_vouched = is_vouched(&graph, root);
    Ok(Fetched { graph, keyring, is_vouched })
}

/// Whether this root itself spoke in the fabric. A root before it may be anybody, who made this one
/// its successor without asking.
fn is_vouched(graph: &Graph, root: &RootSecret) -> bool {
    let (key, verdicts) = (root.keys().key, &graph.state().verdicts);
    graph
        .entries()
        .iter()
        .any(|entry| entry.author == key && verdicts.get(&entry.id) == Some(&Verdict::Counts))
}
