//! How a row looks on disk.
//!
//! The key is `table[8] ‖ scope[16] ‖ item`: keyed BLAKE3 of the table, of table and scope, and
//! `0x00 ‖ hash[32]` of table, scope and name, or `0x01 ‖ number` in big-endian. The table's 8
//! bytes make one table a range; for 16 tables they collide once in 2^57 stores. The value is
//! `version ‖ nonce[24] ‖ XChaCha20-Poly1305(scope ‖ name ‖ value)` with version and key as
//! associated data, so a value opens only in its own row. Scope and name lie inside, since a scan
//! can't get them back from their hashes.

use blake3::Hasher;
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{AeadInOut as _, KeyInit as _},
};
use weft_protocol::{
    codec,
    row::{Item, Row, Table},
};
use zeroize::Zeroizing;

use crate::key::StoreKey;

/// The format that this version writes, of the header and of each value.
pub(crate) const VERSION: u8 = 1;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
const TABLE_LEN: usize = 8;
const SCOPE_LEN: usize = 24;
const NAMED: u8 = 0;
const NUMBERED: u8 = 1;
/// No key is longer than this many bytes after its table's prefix.
const REST_LEN: usize = 64;

/// Bytes that do not open: changed, moved to another row, or sealed under another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damage;

/// The keys derived from the store key.
pub(crate) struct Sealer {
    names: Zeroizing<[u8; 32]>,
    values: XChaCha20Poly1305,
}

impl Sealer {
    pub(crate) fn new(key: &StoreKey) -> Self {
        let values = Zeroizing::new(blake3::derive_key("weft store v1: values", key.as_bytes()));
        Self {
            names: Zeroizing::new(blake3::derive_key("weft store v1: row keys", key.as_bytes())),
            values: XChaCha20Poly1305::new((&*values).into()),
        }
    }

    /// First and last possible key of a table.
    pub(crate) fn table_range(&self, table: Table) -> (Vec<u8>, Vec<u8>) {
        bounds(&self.hash(0, table, &[], &[])[..TABLE_LEN])
    }

    /// First and last possible key of a scope.
    pub(crate) fn scope_range(&self, table: Table, scope: &[u8]) -> (Vec<u8>, Vec<u8>) {
        bounds(&self.prefix(table, scope))
    }

    /// The key of the numbered row `number`, and the last that a numbered row of its scope can have.
    pub(crate) fn numbers_from(
        &self,
        table: Table,
        scope: &[u8],
        number: u64,
    ) -> (Vec<u8>, Vec<u8>) {
        let prefix = self.prefix(table, scope);
        (numbered(&prefix, number), numbered(&prefix, u64::MAX))
    }

    /// The key of `row`.
    pub(crate) fn key(&self, row: &Row) -> Vec<u8> {
        let prefix = self.prefix(row.table, &row.scope);
        match &row.item {
            Item::Named(name) => {
                [&prefix[..], &[NAMED], &self.hash(2, row.table, &row.scope, name)].concat()
            }
            Item::Numbered(number) => numbered(&prefix, *number),
        }
    }

    /// Seals `value` as the content of `row`, whose key is `key`.
    pub(crate) fn seal(
        &self,
        row: &Row,
        key: &[u8],
        value: &[u8],
    ) -> Result<Vec<u8>, getrandom::Error> {
        let name: &[u8] = match &row.item {
            Item::Named(name) => name,
            Item::Numbered(_) => &[],
        };
        let parts = [
            &short_len(&row.scope).to_be_bytes()[..],
            &row.scope,
            &short_len(name).to_be_bytes(),
            name,
            value,
        ];
        self.seal_bytes(key, &parts)
    }

    /// Opens what lies under `key` in `table`.
    pub(crate) fn open(
        &self,
        table: Table,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<(Row, Vec<u8>), Damage> {
        let mut plain = self.open_bytes(key, sealed)?;
        let (scope, rest) = split(&plain)?;
        let (name, value) = split(rest)?;
        let item = match key.get(SCOPE_LEN..).and_then(<[u8]>::split_first).ok_or(Damage)? {
            (&NAMED, _) => Item::Named(name.to_vec()),
            (&NUMBERED, number) => {
                Item::Numbered(u64::from_be_bytes(number.try_into().map_err(|_| Damage)?))
            }
            _ => return Err(Damage),
        };
        let row = Row { table, scope: scope.to_vec(), item };
        if self.key(&row) != key {
            return Err(Damage);
        }
        let value_at = plain.len() - value.len();
        plain.drain(..value_at);
        Ok((row, plain))
    }

    /// Seals the concatenated `parts` under a fresh nonce, bound to `place`.
    ///
    /// Nonces are random: at 192 bits, 2^64 seals under one key repeat one with probability 2^-65.
    pub(crate) fn seal_bytes(
        &self,
        place: &[u8],
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, getrandom::Error> {
        let mut nonce = XNonce::default();
        getrandom::fill(&mut nonce)?;
        Ok(self.seal_with(&nonce, place, parts))
    }

    fn seal_with(&self, nonce: &XNonce, place: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + len + TAG_LEN);
        sealed.push(VERSION);
        sealed.extend_from_slice(nonce);
        for part in parts {
            sealed.extend_from_slice(part);
        }
        let body = &mut sealed[1 + NONCE_LEN..];
        let tag = self
            .values
            .encrypt_inout_detached(nonce, &bound(place), body.into())
            .expect("a value is far below the cipher's limit");
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens what [`Self::seal_bytes`] sealed for `place`.
    pub(crate) fn open_bytes(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Damage> {
        let (&version, rest) = sealed.split_first().ok_or(Damage)?;
        if version != VERSION {
            return Err(Damage);
        }
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(Damage)?;
        let body_len = rest.len().checked_sub(TAG_LEN).ok_or(Damage)?;
        let (body, tag) = rest.split_at(body_len);
        let nonce = XNonce::try_from(nonce).map_err(|_| Damage)?;
        let tag = tag.try_into().map_err(|_| Damage)?;
        let mut plain = body.to_vec();
        self.values
            .decrypt_inout_detached(&nonce, &bound(place), plain.as_mut_slice().into(), &tag)
            .map_err(|_| Damage)?;
        Ok(plain)
    }

    fn prefix(&self, table: Table, scope: &[u8]) -> [u8; SCOPE_LEN] {
        let mut prefix = [0; SCOPE_LEN];
        prefix[..TABLE_LEN].copy_from_slice(&self.hash(0, table, &[], &[])[..TABLE_LEN]);
        let scope = self.hash(1, table, scope, &[]);
        prefix[TABLE_LEN..].copy_from_slice(&scope[..SCOPE_LEN - TABLE_LEN]);
        prefix
    }

    /// Keyed hash for one of the three parts of a key.
    fn hash(&self, part: u8, table: Table, scope: &[u8], name: &[u8]) -> [u8; 32] {
        let mut hasher = Hasher::new_keyed(&self.names);
        hasher.update(&[part]);
        hasher.update(&codec::encode(&table));
        hasher.update(&(scope.len() as u64).to_be_bytes());
        hasher.update(scope);
        hasher.update(name);
        *hasher.finalize().as_bytes()
    }
}

/// Associated data of what lies at `place`.
fn bound(place: &[u8]) -> Vec<u8> {
    [&[VERSION], place].concat()
}

fn bounds(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (prefix.to_vec(), [prefix, &[0xff; REST_LEN]].concat())
}

fn numbered(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &[NUMBERED], &number.to_be_bytes()].concat()
}

fn short_len(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).expect("names over NAME_BYTES_MAX are refused before")
}

/// Takes a part with its length from the front.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Damage> {
    let (len, rest) = bytes.split_first_chunk().ok_or(Damage)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or(Damage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&StoreKey::from([byte; 32]))
    }

    fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        for table in [Table::Run, Table::Audit] {
            for scope in [&b""[..], b"a", b"ab"] {
                rows.extend([
                    Row::named(table, scope, b""),
                    Row::named(table, scope, b"b"),
                    Row::numbered(table, scope, 0),
                    Row::numbered(table, scope, u64::MAX),
                ]);
            }
        }
        rows
    }

    #[test]
    fn a_value_opens_in_its_own_row_only() {
        let one = sealer(1);
        for row in &rows() {
            let key = one.key(row);
            let sealed = one.seal(row, &key, b"value").unwrap();
            for other in &rows() {
                let opened = one.open(other.table, &one.key(other), &sealed);
                if other == row {
                    assert_eq!(opened, Ok((row.clone(), b"value".to_vec())));
                } else {
                    assert_eq!(opened, Err(Damage), "{row:?} opened as {other:?}");
                }
            }
            assert_eq!(sealer(2).open(row.table, &key, &sealed), Err(Damage));
        }
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_damage() {
        let one = sealer(1);
        let row = Row::named(Table::Key, b"scope", b"name");
        let key = one.key(&row);
        let sealed = one.seal(&row, &key, b"some value").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(one.open(row.table, &key, &changed), Err(Damage), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert_eq!(one.open(row.table, &key, &sealed[..len]), Err(Damage), "{len} bytes");
        }
    }

    #[test]
    fn a_nonce_does_not_repeat() {
        let one = sealer(1);
        let nonces: std::collections::BTreeSet<_> = (0..20_000)
            .map(|_| one.seal_bytes(b"place", &[b"x"]).unwrap()[1..=NONCE_LEN].to_vec())
            .collect();
        assert_eq!(nonces.len(), 20_000);
    }

    #[test]
    fn keys_lie_in_their_ranges_and_in_no_other() {
        let one = sealer(1);
        for row in &rows() {
            let key = one.key(row);
            for other in &rows() {
                let (first, last) = one.table_range(other.table);
                assert_eq!((first..=last).contains(&key), row.table == other.table);
                let (first, last) = one.scope_range(other.table, &other.scope);
                let same = (row.table, &row.scope) == (other.table, &other.scope);
                assert_eq!((first..=last).contains(&key), same);
            }
        }
    }
}
