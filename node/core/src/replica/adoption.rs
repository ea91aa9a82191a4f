//! Adoptions: what a device made that does not belong any more, kept by the word of whoever had it applied.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    document::{DocumentKey, Vouch},
    id::DeviceId,
    row::{ReadError, Row, Rows, Table, Write},
    signed::{Domain, Signed},
};

use super::{
    Author, Context, Prepared, Replica,
    index::{Entry, Seen},
    vouching::{self, Vouches},
    writing::{Pending, Ticket},
};
use crate::document::exchange::Told;

/// The scope of the rows that name devices whose changes this device has adopted.
const ADOPTED: &[u8] = b"adopted";

/// What was adopted, by the document.
type Adopted = BTreeMap<DocumentKey, Vec<(Vouch, Signed)>>;

/// Adoptions that are not persisted yet.
#[derive(Debug, Default)]
pub(super) struct Adoptions(BTreeMap<Ticket, Adopted>);

impl Adoptions {
    /// Those of a document, which its rows may not hold yet.
    pub(super) fn of(&self, key: &DocumentKey) -> impl Iterator<Item = &(Vouch, Signed)> {
        self.0.values().filter_map(|adopted| adopted.get(key)).flatten()
    }

    pub(super) fn take(&mut self, ticket: Ticket) -> Adopted {
        self.0.remove(&ticket).unwrap_or_default()
    }
}

impl Author {
    /// Signs for what another device vouched for.
    fn adopt(&self, vouch: &Vouch, signed: &Signed) -> (Vouch, Signed) {
        let vouch = vouch.adopted(signed);
        let signed = Signed::new(Domain::Vouch, &vouch, &self.signing);
        (vouch, signed)
    }

    /// Signs what another device buried: this device deletes the same, in its own name.
    fn bury_anew(&self, device: &DeviceId, entry: &mut Entry) {
        for grave in entry.graves.iter_mut().filter(|grave| grave.author == *device) {
            let bytes = grave.bytes.clone();
            *grave = Signed::from_bytes(Domain::Tombstone, bytes, &self.signing);
        }
    }
}

impl Replica {
    /// Adopts what a device vouched for and deleted, so that nobody's own edits on top are lost and nothing
    /// comes back: all that is applied here at this moment, also where that is not persisted yet, and
    /// nothing that comes later. To be called when the device is put out or suspended, or another key took
    /// its place (which does the same for all that it wrote under the old one), and written in the
    /// transaction that stores the statement which says so.
    ///
    /// So those who stand hold the same also while a device is suspended. A `Keep` makes the rest of what it
    /// wrote count again; that it is put out after all changes nothing.
    ///
    /// What the device had adopted in turn is adopted, too: its word for that counts no more.
    ///
    /// # Errors
    ///
    /// A row of the vouches is damaged.
    pub fn adopt(
        &mut self,
        device: &DeviceId,
        context: &Context<'_>,
    ) -> Result<Prepared, ReadError> {
        let adopted = self.adopted_anew(device, context.rows)?;
        let buried = self.bury_again(device);
        let mut writes = vec![Write::Put(row(device), Vec::new())];
        let mut pending = BTreeMap::new();
        let touched: BTreeSet<DocumentKey> = adopted.keys().chain(buried.keys()).copied().collect();
        for key in touched {
            let vouches = adopted.get(&key).map(Vec::as_slice).unwrap_or_default();
            if let Some(loaded) = self.shelf.get_mut(&key) {
                for (vouch, signed) in vouches {
                    let voucher = (vouch.actor(), signed.author);
                    loaded.vouches.insert(voucher, (vouch.clone(), signed.clone()));
                }
            }
            let mut own: Vec<Write> =
                vouches.iter().map(|(vouch, signed)| vouching::write(vouch, signed)).collect();
            own.extend(buried.get(&key).map(|entry| entry.write(&key)));
            if let Some(entry) = self.writing.entry(&key) {
                let entry = buried.get(&key).unwrap_or(entry).clone();
                writes.extend(self.writing.repeat(&key));
                pending.insert(key, (entry, own.clone()));
            } else if let Some(entry) = buried.get(&key) {
                self.index.insert(key, entry.clone());
            }
            writes.extend(own);
        }
        let ticket = self.writing.open(pending.keys().copied().collect());
        for (key, (entry, writes)) in pending {
            let changes = Vec::new();
            let pending = Pending { ticket: Some(ticket), remote: true, entry, changes, writes };
            self.writing.add(key, Vec::new(), pending);
        }
        self.adoptions.0.insert(ticket, adopted);
        Ok(Prepared { ticket, writes, created: Vec::new() })
    }

    /// This device's word for all that a device vouched for and that it has not adopted yet.
    fn adopted_anew(&self, device: &DeviceId, rows: &dyn Rows) -> Result<Adopted, ReadError> {
        let mut vouched: BTreeMap<DocumentKey, Vouches> = BTreeMap::new();
        for (_, value) in rows.scan_table(Table::Vouch)? {
            let (vouch, signed) = vouching::decode(&value)?;
            if signed.author == *device || signed.author == self.author.device {
                let of = vouched.entry(vouch.key).or_default();
                of.insert((vouch.actor(), signed.author), (vouch, signed));
            }
        }
        let busy: Vec<DocumentKey> = self.writing.keys().copied().collect();
        for key in busy {
            vouched.insert(key, self.vouches(&key, rows)?);
        }
        for (key, adopted) in self.adoptions.0.values().flatten() {
            for (vouch, signed) in adopted {
                let of = vouched.entry(*key).or_default();
                of.insert((vouch.actor(), signed.author), (vouch.clone(), signed.clone()));
            }
        }
        let mut adopted: Adopted = BTreeMap::new();
        for (key, vouches) in vouched {
            let own = |vouch: &Vouch| vouches.get(&(vouch.actor(), self.author.device));
            let anew = vouches.values().filter(|(vouch, signed)| {
                signed.author == *device && own(vouch).is_none_or(|(own, _)| own.seq < vouch.seq)
            });
            let anew: Vec<_> =
                anew.map(|(vouch, signed)| self.author.adopt(vouch, signed)).collect();
            if !anew.is_empty() {
                adopted.insert(key, anew);
            }
        }
        Ok(adopted)
    }

    /// Whether what a device made was adopted when this device heard that it is gone.
    ///
    /// # Errors
    ///
    /// The rows cannot be read.
    pub fn has_adopted(device: &DeviceId, rows: &dyn Rows) -> Result<bool, ReadError> {
        Ok(rows.get(&row(device))?.is_some())
    }

    /// The vouches of a document with those that are being written.
    fn vouches(&self, key: &DocumentKey, rows: &dyn Rows) -> Result<Vouches, ReadError> {
        let mut vouches = vouching::load(key, rows)?;
        for pending in self.writing.pending(key) {
            pending.amend(&mut vouches)?;
        }
        Ok(vouches)
    }

    /// The entries of documents that a device deleted, with this device's word for it.
    fn bury_again(&self, device: &DeviceId) -> BTreeMap<DocumentKey, Entry> {
        let known = self.index.iter().map(|(key, _)| key).chain(self.writing.keys());
        let mut buried = BTreeMap::new();
        for key in known {
            let written = self.writing.entry(key).map(|entry| &entry.graves[..]);
            let graves = written.or_else(|| self.index.see(key).map(Seen::graves));
            if graves.is_some_and(|graves| graves.iter().any(|grave| grave.author == *device))
                && let Some(entry) = self.entry(key)
            {
                let mut entry = entry.into_owned();
                self.author.bury_anew(device, &mut entry);
                buried.insert(*key, entry);
            }
        }
        buried
    }

    /// Tells peers what was adopted of documents that they do not have as they are here: they may hold
    /// the changes and lack the word for them.
    pub(super) fn tell_adopted(&mut self, adopted: &Adopted) {
        for (key, vouches) in adopted {
            let Some(entry) = self.index.get(key).filter(|entry| !entry.state.is_deleted()) else {
                continue;
            };
            for session in self.sessions.values_mut() {
                if session.exchanges.contains_key(key) || session.differs.contains(key) {
                    let heads = entry.state.heads.clone();
                    let told = Told { heads, need: Vec::new(), have: None, asks: false };
                    let vouches = vouches.iter().map(|(vouch, signed)| (vouch, signed)).collect();
                    session.say(*key, &entry.kind, &[], vouches, told);
                }
            }
        }
    }
}

fn row(device: &DeviceId) -> Row {
    Row::named(Table::Peer, ADOPTED, device.as_bytes())
}
