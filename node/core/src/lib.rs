//! The behaviour of a node: machines without I/O, clock or entropy, and their composition.
//!
//! A [`Node`] takes an [`Input`] together with a [`Context`] (both clocks, the rows that are persisted,
//! the rules) and gives [`Output`]s: frames to send, batches to persist, agents to start, answers to
//! doors. One walk through the loop: the shell hands an input over, the node routes it to the machine
//! whose concern it is, that machine's outputs go to the next machine or out, until nothing is left;
//! then the shell carries the outputs out and comes back with what they gave. So a fabric of many
//! nodes runs inside one test on virtual time, from a seed.
//!
//! The machines, in the order in which a command meets them: [`runs`] carries a plan out step by step,
//! [`dispatch`] decides and places each step by [`placement`], [`executor`] decides again and runs it,
//! [`replica`] keeps and synchronises what it wrote, [`audit`] chains the records, [`witness`] shows
//! them to other devices. Beside them: [`membership`] says who belongs, [`presence`] who is here,
//! [`registry`] what can be done, [`schedule`] when a timer is due.
//!
//! Deliberately not here: sockets, disks, processes, models, words (`weft-intent`), and rules
//! (`weft-engine`, behind [`weft_protocol::decision::Policy`]).

pub mod door;
pub mod env;
pub mod node;

pub mod runs;
pub mod dispatch;
pub mod placement;
pub mod executor;
pub mod consent;
pub mod clock;

pub mod document;
pub mod replica;

pub mod audit;
pub mod witness;

pub mod membership;
pub mod invitation;
pub mod links;
pub mod presence;
pub mod registry;
pub mod schedule;

pub use node::{Context, Input, Node, NodeConfig, Output, StartError, Ticket};
