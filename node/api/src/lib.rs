//! The doors of a node: how people and programs on this machine ask it, and hear from it.
//!
//! One door exists: the Unix socket in the node's home, on which `weft` speaks. It carries lines of
//! JSON whose shapes ([`json`]) are the same that `--json` prints, so whoever reads the one can
//! speak the other. A door understands requests and shows answers; it decides nothing. Words stay
//! words here: the node's shell reads them with `weft-intent`.
//!
//! Deliberately not here: what a command does (`weft-core`), what words mean (`weft-intent`), files
//! that words name (the command line opens them with the person's own rights and sends their bytes).
//!
//! One walk through it:
//!
//! 1. [`Door::open`] takes the home's socket, or says that a node runs there already.
//! 2. [`serve`] accepts clients of the same user, gives each [`Request`] line its own `DoorId`, and
//!    hands it to the node's loop as [`DoorInput::Asked`], with a channel for the answers.
//! 3. The loop answers with [`DoorMessage`]s: one reply or error, then events, until it drops the
//!    channel. Each goes out as a line that carries the request's number.
//! 4. A client that hangs up before that is a [`DoorInput::Closed`].
//! 5. [`Client`] is the other end.

mod client;
mod message;
mod problem;
mod request;
mod socket;

pub mod json;

pub use client::{Client, ClientError, Conversation, Message};
pub use message::{DoorMessage, Keys, ModelView, PlanView, ShellView};
pub use problem::{ErrorKind, Problem};
pub use request::{FILE_BYTES_MAX, REQUEST_BYTES_MAX, Request, Say, UnlockKey};
pub use socket::{
    ANSWERS_WAITING_MAX, Door, DoorInput, HomeLock, OpenError, REQUESTS_WAITING_MAX, SOCKET_NAME,
    serve, socket_path,
};
