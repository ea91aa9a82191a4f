//! The encrypted store on disk: rows by table, scope and item, in one redb file that shows none of
//! them.
//!
//! One walk: [`LockedFile`](key::LockedFile) is the home's secrets as they lie on the disk, wrapped by
//! a passphrase, a keychain's key, a systemd credential or nothing; opened, it is a
//! [`KeyFile`](key::KeyFile) that yields the [`StoreKey`](key::StoreKey). [`Store::open`] takes the
//! store's lock, verifies every page, unseals the header. A [`Batch`] given to a [`Writer`] joins the
//! queue of the one writer thread. The thread takes what has queued up as one group, seals each value
//! under its row, commits the group in one redb transaction with its fsync, and calls each batch's
//! `on_done` in the order of submission. A batch that is only [`Durability::Ordered`] does not wait for
//! that: it is acknowledged as it joins the open group, which lies in memory and is committed with the next
//! [`Durability::Synced`] batch or within 50 ms. Reads are snapshots of both, block on no writer, and see
//! whatever has been acknowledged.
//!
//! After the first write that fails, the disk gets no more bytes from this process: what it holds
//! is what a crash at that moment would have left. Later batches fail with the reason, reads go on.
//!
//! What the disk still shows: how many rows there are, which ones share a table or a scope (not
//! which table or scope), the numbers of numbered rows, lengths, and which rows change together.
//! Whoever can write the disk can put back an older state of the whole file; the other devices'
//! countersignatures on the audit chain show that, not this crate. Nor can it tell a bit that rots in
//! the newest commit from a commit that a crash tore, if the process crashes as well: both end at
//! the commit before. (Commits in two phases would tell, at a second fsync for each.)
//!
//! Deliberately not here: what rows mean, keys of the fabric, asking a person for a passphrase, and
//! blobs as files.
//!
//! [`Durability::Synced`]: weft_protocol::row::Durability::Synced
//! [`Durability::Ordered`]: weft_protocol::row::Durability::Ordered

pub mod key;
mod store;
mod queue;
mod unwritten;
mod writer;
mod view;

mod disk;
mod reserve;
mod seal;

#[cfg(test)]
#[expect(clippy::unwrap_in_result, reason = "a test that can't go on stops")]
mod fault;

pub use store::{OpenError, ReadError, Readable, Store};
pub use writer::{Batch, WriteError, Writer};
