//! A lineage: the keys that one home had, each in the place of the one before, and where their chains lie.
//!
//! Each key has a chain of its own, which its signatures alone prove. The first record of a key that took
//! another's place names the end of that one's chain, so that nobody who has the old key can cut it or go
//! on with it unseen.

use weft_protocol::{
    audit::Head,
    id::DeviceId,
    row::{ReadError, Rows, Table},
};

use super::{
    Checked, Fault, Signatures,
    verifier::{self, Verifier},
};

/// The keys of a home, and where the chain of each lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lineage {
    /// The first key first.
    chains: Vec<(DeviceId, Vec<u8>)>,
}

/// What checking the chain of a key found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Whose chain.
    pub key: DeviceId,
    /// What checking it found.
    pub result: Result<Checked, Fault>,
}

impl Lineage {
    /// That of `device`, which had the `former` keys, the newest first.
    ///
    /// A home's first key has its chain in the empty scope, where it lay before keys could be replaced; each
    /// later one has its own. Which key was the first never changes, so a chain is found by this for ever.
    pub fn new(device: DeviceId, former: &[DeviceId]) -> Self {
        let keys = former.iter().rev().copied().chain([device]);
        let scope = |at, key: &DeviceId| if at == 0 { Vec::new() } else { key.as_bytes().to_vec() };
        Self { chains: keys.enumerate().map(|(at, key)| (key, scope(at, &key))).collect() }
    }

    /// Where the chain of the last key lies.
    pub(super) fn scope(&self) -> &[u8] {
        self.chains.last().map_or(&[], |(_, scope)| scope)
    }

    /// Where the chain of the key before it lies; `None`: there was none.
    pub(super) fn scope_before(&self) -> Option<&[u8]> {
        self.chains.iter().rev().nth(1).map(|(_, scope)| scope.as_slice())
    }

    /// The keys, the last one first.
    pub fn keys(&self) -> impl Iterator<Item = &DeviceId> {
        self.chains.iter().rev().map(|(key, _)| key)
    }

    /// Records of a key's chain as they lie on the disk, from a position on; none of a key that this home
    /// never had.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn records(
        &self,
        key: &DeviceId,
        from: u64,
        limit: usize,
        rows: &dyn Rows,
    ) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        match self.chains.iter().find(|(known, _)| known == key) {
            Some((_, scope)) => rows.scan_from(Table::Audit, scope, from, limit),
            None => Ok(Vec::new()),
        }
    }

    /// Checks the chains of all keys in `rows`, the last key's first, each against the heads that others
    /// countersigned of it, and each former one against the end that the one after it names.
    ///
    /// # Errors
    ///
    /// What others countersigned cannot be read.
    pub fn verify(
        &self,
        witnessed: impl Fn(&DeviceId) -> Result<Vec<Head>, ReadError>,
        rows: &dyn Rows,
        signatures: Signatures,
    ) -> Result<Vec<Found>, ReadError> {
        let mut found: Vec<Found> = Vec::new();
        for (key, scope) in self.chains.iter().rev() {
            let mut heads = witnessed(key)?;
            let end = found.last().and_then(|after| after.result.as_ref().ok());
            let end = end.map(|after| after.former);
            heads.extend(end.flatten());
            let checked = verifier::verify_in(Verifier::new(*key, heads, signatures), scope, rows);
            let result = match (checked, end) {
                (Ok(checked), Some(end)) if checked.head != end => Err(match end {
                    Some(end) => Fault::Outlived(end.position.saturating_add(1)),
                    None => Fault::Unnamed,
                }),
                (checked, _) => checked,
            };
            found.push(Found { key: *key, result });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use weft_protocol::{
        audit::Body,
        id::{BootId, SegmentId},
        row::{MemoryRows, Row, Write},
        time::WallTime,
    };

    use super::*;
    use crate::audit::Chain;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn id(n: u8) -> DeviceId {
        DeviceId::from_bytes(key(n).verifying_key().to_bytes())
    }

    /// The lineage of keys 1 to `last`.
    fn lineage(last: u8) -> Lineage {
        Lineage::new(id(last), &(1..last).rev().map(id).collect::<Vec<_>>())
    }

    /// A start under a key, and some records.
    fn start(last: u8, counter: u64, records: u64, rows: &mut MemoryRows) -> Head {
        let segment = SegmentId::from_bytes([u8::try_from(counter).unwrap(); 16]);
        let mut chain = Chain::open_last(key(last), segment, &lineage(last), rows).unwrap();
        rows.apply(chain.start(BootId { counter, random: 1 }, WallTime::default()));
        for n in 0..records {
            let body = Body::Operator { action: format!("action {n}") };
            rows.apply(chain.append(body, WallTime::default()).1);
        }
        chain.head().unwrap()
    }

    fn verified(last: u8, rows: &MemoryRows) -> Vec<Result<u64, Fault>> {
        let find = |signatures| lineage(last).verify(|_| Ok(Vec::new()), rows, signatures).unwrap();
        let (quick, thorough) = (find(Signatures::Checkpoints), find(Signatures::Every));
        assert_eq!(quick, thorough);
        quick.into_iter().map(|it| it.result.map(|checked| checked.records)).collect()
    }

    #[test]
    fn each_key_has_its_chain_and_names_the_end_of_the_one_before() {
        let mut rows = MemoryRows::default();
        start(1, 1, 3, &mut rows);
        start(1, 2, 1, &mut rows);
        assert_eq!(verified(1, &rows), [Ok(6)]);
        start(2, 3, 2, &mut rows);
        start(2, 4, 0, &mut rows);
        start(3, 5, 0, &mut rows);
        assert_eq!(verified(3, &rows), [Ok(1), Ok(4), Ok(6)]);
    }

    #[test]
    fn a_former_chain_that_goes_on_after_its_key_was_replaced_is_named() {
        let mut rows = MemoryRows::default();
        start(1, 1, 3, &mut rows);
        start(2, 2, 0, &mut rows);
        start(1, 3, 0, &mut rows);
        assert_eq!(verified(2, &rows), [Ok(1), Err(Fault::Outlived(4))]);
    }

    #[test]
    fn a_former_chain_that_was_cut_or_written_anew_is_named_without_any_witness() {
        let mut rows = MemoryRows::default();
        start(1, 1, 3, &mut rows);
        start(2, 2, 0, &mut rows);
        let mut cut = rows.clone();
        cut.apply([Write::Delete(Row::numbered(Table::Audit, &[], 3))]);
        assert_eq!(verified(2, &cut), [Ok(1), Err(Fault::CutOff(3))]);
        // Whoever has the old key signs another history of the same length.
        for at in 0..4 {
            rows.apply([Write::Delete(Row::numbered(Table::Audit, &[], at))]);
        }
        start(1, 7, 3, &mut rows);
        let [Ok(1), Err(Fault::Rewritten(3))] = verified(2, &rows)[..] else {
            panic!("{:?}", verified(2, &rows))
        };
    }

    #[test]
    fn a_new_key_that_hides_where_the_old_chain_ends_is_named() {
        let mut rows = MemoryRows::default();
        let segment = SegmentId::from_bytes([9; 16]);
        let mut chain = Chain::open_last(key(2), segment, &lineage(2), &rows).unwrap();
        let first = chain.start(BootId { counter: 1, random: 1 }, WallTime::default());
        start(1, 1, 1, &mut rows);
        rows.apply(first);
        assert_eq!(verified(2, &rows), [Ok(1), Err(Fault::Unnamed)]);
    }

    proptest! {
        #[test]
        fn any_starts_under_any_keys_hold_and_any_lost_record_is_named(
            starts in proptest::collection::vec((0u64..120, any::<bool>()), 1..6),
            lost in any::<proptest::sample::Index>(),
        ) {
            let mut rows = MemoryRows::default();
            let mut last = 1;
            for (at, (records, rotates)) in starts.iter().enumerate() {
                last += u8::from(*rotates && at > 0);
                start(last, at as u64 + 1, *records, &mut rows);
            }
            let found = verified(last, &rows);
            prop_assert!(found.iter().all(Result::is_ok), "{found:?}");
            prop_assert_eq!(found.len(), usize::from(last));
            // The own chain's last record is missed only by others.
            let chains = lineage(last).chains;
            let records: Vec<(Vec<u8>, u64)> = chains
                .iter()
                .flat_map(|(_, scope)| {
                    let rows = rows.scan_from(Table::Audit, scope, 0, usize::MAX).unwrap();
                    rows.into_iter().map(|(at, _)| (scope.clone(), at))
                })
                .collect();
            let (scope, at) = records[..records.len() - 1].get(lost.index(records.len().max(2) - 1))
                .cloned()
                .unwrap_or_default();
            prop_assume!(records.len() > 1);
            rows.apply([Write::Delete(Row::numbered(Table::Audit, &scope, at))]);
            prop_assert!(verified(last, &rows).iter().any(Result::is_err));
        }
    }
}
