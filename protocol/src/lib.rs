//! What crosses a wire, a disk or a QR code.
//!
//! Every type here has one encoding: deterministic CBOR with integer keys ([`codec`]). What is
//! signed is kept and forwarded as the bytes that came ([`signed`]), so an old node can pass on
//! what a newer one wrote. The modules stand in the order in which a reader needs them: ids and
//! time, the codec, then the nouns.
//!
//! Deliberately not here: behaviour. Nothing in this crate reads a clock, draws entropy, touches a
//! disk or a socket, or decides anything; it says what things are and whether bytes are one.

pub mod codec;
pub mod id;
pub mod signed;
pub mod time;
pub mod value;

pub mod device;
pub mod version;
pub mod statement;
pub mod ticket;
pub mod pairing;

pub mod manifest;
pub mod graph;
pub mod decision;
pub mod host_call;
pub mod run;
pub mod attempt;
pub mod audit;
pub mod witness;

pub mod document;
pub mod sync;
pub mod presence;
pub mod reach;
pub mod timer;

pub mod frame;
pub mod row;
