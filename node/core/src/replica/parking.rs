//! Parking: changes and vouches that came and may not be applied yet, bounded for each peer.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use weft_protocol::{
    codec,
    document::{ChangeHash, DocumentKey, DocumentKind, Vouch},
    id::DeviceId,
    row::{Item, ReadError, Row, Rows, Table, Write},
    signed::Signed,
    sync::Chunk,
};

use super::vouching::{Voucher, Vouches};
use crate::document::Change;

/// How many changes and vouches one peer may have parked.
pub(super) const PARKED_MAX: usize = 4_096;

/// How many bytes they may have together.
pub(super) const PARKED_BYTES_MAX: usize = 4 << 20;

/// The most bytes of a parked row: a change as it is stored, which is not deflated, and what tells of it.
const ROW_BYTES_MAX: usize = PARKED_BYTES_MAX + (1 << 10);

/// A parked row.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
struct Parked {
    /// Who sent it.
    #[n(0)]
    peer: DeviceId,
    /// Later things have greater numbers.
    #[n(1)]
    order: u64,
    #[n(2)]
    kind: DocumentKind,
    #[n(3)]
    what: What,
}

#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
enum What {
    #[n(0)]
    Change(#[n(0)] Chunk),
    #[n(1)]
    Vouch(#[n(0)] Signed),
}

/// What is parked for one document.
#[derive(Debug)]
struct Lot {
    kind: DocumentKind,
    changes: BTreeMap<ChangeHash, (Change, Place)>,
    vouches: BTreeMap<Voucher, (Vouch, Signed, Place)>,
}

/// Who sent it, and when.
type Place = (DeviceId, u64);

#[derive(Clone, Copy, Debug)]
enum Name {
    Change(ChangeHash),
    Vouch(Voucher),
}

impl Name {
    fn row(&self, key: &DocumentKey) -> Row {
        let name = match self {
            Self::Change(hash) => [b"c".as_slice(), &hash.0].concat(),
            Self::Vouch((actor, author)) => {
                [b"v".as_slice(), actor.as_bytes(), author.as_bytes()].concat()
            }
        };
        Row::named(Table::Parked, &key.to_bytes(), &name)
    }
}

/// What one peer has parked, in order, and the bytes of it.
type Account = (BTreeMap<u64, (DocumentKey, Name, usize)>, usize);

/// What is parked, of all documents.
#[derive(Default, Debug)]
pub(super) struct Parking {
    lots: BTreeMap<DocumentKey, Lot>,
    peers: BTreeMap<DeviceId, Account>,
    order: u64,
    dropped: u64,
}

impl Parking {
    pub(super) fn load(rows: &dyn Rows) -> Result<Self, ReadError> {
        let mut parking = Self::default();
        let mut writes = Vec::new();
        for (row, value) in rows.scan_table(Table::Parked)? {
            let Item::Named(_) = row.item else { continue };
            let damaged = |why: String| ReadError { table: Table::Parked, why };
            let key = DocumentKey::from_bytes(&row.scope)
                .ok_or_else(|| damaged("a scope that is no key".to_owned()))?;
            let parked: Parked =
                codec::decode(&value, ROW_BYTES_MAX).map_err(|error| damaged(error.to_string()))?;
            parking.order = parking.order.max(parked.order);
            match parked.what {
                What::Change(chunk) => {
                    let mut budget = PARKED_BYTES_MAX;
                    let change = Change::parse(&chunk.0, &mut budget)
                        .map_err(|error| damaged(error.to_string()))?;
                    parking.put_change(
                        key,
                        &parked.kind,
                        change,
                        (parked.peer, parked.order),
                        &mut writes,
                    );
                }
                What::Vouch(signed) => {
                    let vouch = codec::decode(&signed.bytes, signed.bytes.len())
                        .map_err(|error| damaged(error.to_string()))?;
                    let place = (parked.peer, parked.order);
                    parking.put_vouch(key, &parked.kind, vouch, signed, place, &mut writes);
                }
            }
        }
        Ok(parking)
    }

    /// Documents with parked changes.
    pub(super) fn documents(&self) -> Vec<(DocumentKey, DocumentKind)> {
        self.lots.iter().map(|(key, lot)| (*key, lot.kind.clone())).collect()
    }

    /// How many changes wait, over all documents.
    pub(super) fn len(&self) -> usize {
        self.lots.values().map(|lot| lot.changes.len()).sum()
    }

    /// How many were dropped since the start because a peer had too many.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn changes(&self, key: &DocumentKey) -> BTreeMap<ChangeHash, Change> {
        let changes = self.lots.get(key).into_iter().flat_map(|lot| &lot.changes);
        changes.map(|(hash, (change, _))| (*hash, change.clone())).collect()
    }

    pub(super) fn vouches(&self, key: &DocumentKey) -> Vouches {
        let vouches = self.lots.get(key).into_iter().flat_map(|lot| &lot.vouches);
        vouches
            .map(|(voucher, (vouch, signed, _))| (*voucher, (vouch.clone(), signed.clone())))
            .collect()
    }

    /// The parked changes of a document, ordered, and those that they need and that are neither
    /// parked nor `there`.
    pub(super) fn needs(
        &self,
        key: &DocumentKey,
        there: impl Fn(&ChangeHash) -> bool,
    ) -> (Vec<ChangeHash>, Vec<ChangeHash>) {
        let Some(lot) = self.lots.get(key) else { return Default::default() };
        let held: Vec<_> = lot.changes.keys().copied().collect();
        let deps = lot.changes.values().flat_map(|(change, _)| change.deps());
        let lacking = deps.filter(|dep| !lot.changes.contains_key(dep) && !there(dep));
        (held, lacking.copied().collect())
    }

    /// Parks a change that `peer` sent. What the peer parked first goes if it has too much.
    pub(super) fn park_change(
        &mut self,
        key: DocumentKey,
        kind: &DocumentKind,
        change: &Change,
        peer: DeviceId,
        writes: &mut Vec<Write>,
    ) {
        let parked =
            self.lots.get(&key).is_some_and(|lot| lot.changes.contains_key(&change.hash()));
        if parked || change.bytes().len() > PARKED_BYTES_MAX {
            return;
        }
        self.order += 1;
        let what = What::Change(Chunk(change.bytes().to_vec()));
        let row = Name::Change(change.hash()).row(&key);
        let value = codec::encode(&Parked { peer, order: self.order, kind: kind.clone(), what });
        writes.push(Write::Put(row, value));
        self.put_change(key, kind, change.clone(), (peer, self.order), writes);
    }

    /// Parks a vouch that `peer` sent, in place of an older one for the same changes.
    pub(super) fn park_vouch(
        &mut self,
        key: DocumentKey,
        kind: &DocumentKind,
        vouch: &Vouch,
        signed: &Signed,
        peer: DeviceId,
        writes: &mut Vec<Write>,
    ) {
        let voucher = (vouch.actor(), signed.author);
        if let Some((old, ..)) = self.lots.get(&key).and_then(|lot| lot.vouches.get(&voucher)) {
            if old.seq >= vouch.seq {
                return;
            }
            self.remove(&key, Name::Vouch(voucher), writes);
        }
        self.order += 1;
        let what = What::Vouch(signed.clone());
        let value = codec::encode(&Parked { peer, order: self.order, kind: kind.clone(), what });
        writes.push(Write::Put(Name::Vouch(voucher).row(&key), value));
        self.put_vouch(key, kind, vouch.clone(), signed.clone(), (peer, self.order), writes);
    }

    fn put_change(
        &mut self,
        key: DocumentKey,
        kind: &DocumentKind,
        change: Change,
        place: Place,
        writes: &mut Vec<Write>,
    ) {
        let (name, bytes) = (Name::Change(change.hash()), change.bytes().len());
        self.lot(key, kind).changes.insert(change.hash(), (change, place));
        self.account(key, name, bytes, place, writes);
    }

    fn put_vouch(
        &mut self,
        key: DocumentKey,
        kind: &DocumentKind,
        vouch: Vouch,
        signed: Signed,
        place: Place,
        writes: &mut Vec<Write>,
    ) {
        let voucher = (vouch.actor(), signed.author);
        let bytes = signed.bytes.len();
        self.lot(key, kind).vouches.insert(voucher, (vouch, signed, place));
        self.account(key, Name::Vouch(voucher), bytes, place, writes);
    }

    fn lot(&mut self, key: DocumentKey, kind: &DocumentKind) -> &mut Lot {
        self.lots.entry(key).or_insert_with(|| Lot {
            kind: kind.clone(),
            changes: BTreeMap::new(),
            vouches: BTreeMap::new(),
        })
    }

    fn account(
        &mut self,
        key: DocumentKey,
        name: Name,
        bytes: usize,
        (peer, order): Place,
        writes: &mut Vec<Write>,
    ) {
        let (things, total) = self.peers.entry(peer).or_default();
        things.insert(order, (key, name, bytes));
        *total += bytes;
        while let Some((things, total)) = self.peers.get(&peer)
            && (things.len() > PARKED_MAX || *total > PARKED_BYTES_MAX)
            && let Some((key, name, _)) = things.first_key_value().map(|(_, thing)| *thing)
        {
            self.dropped += 1;
            self.remove(&key, name, writes);
        }
    }

    fn remove(&mut self, key: &DocumentKey, name: Name, writes: &mut Vec<Write>) {
        let Some(lot) = self.lots.get_mut(key) else { return };
        let place = match name {
            Name::Change(hash) => lot.changes.remove(&hash).map(|(_, place)| place),
            Name::Vouch(voucher) => lot.vouches.remove(&voucher).map(|(.., place)| place),
        };
        if lot.changes.is_empty() && lot.vouches.is_empty() {
            self.lots.remove(key);
        }
        let Some((peer, order)) = place else { return };
        writes.push(Write::Delete(name.row(key)));
        if let Some((things, total)) = self.peers.get_mut(&peer) {
            if let Some((.., bytes)) = things.remove(&order) {
                *total -= bytes;
            }
            if things.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }

    /// Takes out what was applied, and vouches that are stored now.
    pub(super) fn release(
        &mut self,
        key: &DocumentKey,
        changes: &[Change],
        vouchers: &[Voucher],
        writes: &mut Vec<Write>,
    ) {
        for change in changes {
            self.remove(key, Name::Change(change.hash()), writes);
        }
        for voucher in vouchers {
            self.remove(key, Name::Vouch(*voucher), writes);
        }
    }

    /// Takes out all of a document.
    pub(super) fn clear(&mut self, key: &DocumentKey, writes: &mut Vec<Write>) {
        let Some(lot) = self.lots.get(key) else { return };
        let names: Vec<_> = lot
            .changes
            .keys()
            .copied()
            .map(Name::Change)
            .chain(lot.vouches.keys().copied().map(Name::Vouch))
            .collect();
        for name in names {
            self.remove(key, name, writes);
        }
    }
}
