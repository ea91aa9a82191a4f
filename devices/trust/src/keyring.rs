//! The keyring: the fabric's keys, as far as this device has them.
//!
//! Keys of the fabric travel only sealed to one agreement key. What is opened is checked against
//! the id in its name, so nobody can pass a key off as another, or give two devices different ones.

use std::{collections::BTreeMap, fmt};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use rand_core::CryptoRng;
use thiserror::Error;
use weft_protocol::{
    codec,
    id::AgreementKey,
    statement::{Generation, KeyId, KeyName, SealedKey},
};
use zeroize::Zeroizing;

use crate::{
    graph::Graph,
    secret::AgreementSecret,
    state::{Effect, State},
};

/// Why a sealed key does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum OpenKeyError {
    /// Sealed to somebody else.
    #[error("open a key of the fabric: it is sealed to another device")]
    NotForMe,
    /// Changed, or sealed wrongly.
    #[error("open a key of the fabric: it is damaged")]
    Damaged,
    /// It opens to another key than its name says.
    #[error("open a key of the fabric: it is not the key that it is said to be")]
    Misnamed,
}

/// A key of the fabric. It does not show itself, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct FabricKey(Zeroizing<[u8; 32]>);

impl FabricKey {
    /// Draws a new key.
    pub(crate) fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        Self(bytes)
    }

    /// What names it.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.0)
    }

    /// The bytes, for the cipher that uses them.
    pub const fn expose(&self) -> &Zeroizing<[u8; 32]> {
        &self.0
    }

    /// Seals the key, named `which`, to the holder of `to`; none if `to` is no good public key.
    pub(crate) fn seal(
        &self,
        which: KeyName,
        to: AgreementKey,
        rng: &mut impl CryptoRng,
    ) -> Option<SealedKey> {
        debug_assert_eq!(which.id(), self.id(), "a key is sealed under its own name");
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let fresh = AgreementSecret::from_bytes(*seed);
        let ephemeral = fresh.public();
        let shared = fresh.shared(&to)?;
        let cipher = Envelope::cipher(&shared, &ephemeral, &to);
        let aad = codec::encode(&which);
        let payload = Payload { msg: self.0.as_slice(), aad: &aad };
        let ciphertext = cipher.aead.encrypt(&cipher.nonce, payload).ok()?;
        Some(SealedKey { to, which, ephemeral, ciphertext: ciphertext.try_into().ok()? })
    }
}

impl fmt::Debug for FabricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FabricKey({:?})", self.id())
    }
}

/// The cipher of one sealing. Its key is used once, so the nonce may follow from the same secret.
struct Envelope {
    aead: XChaCha20Poly1305,
    nonce: XNonce,
}

impl Envelope {
    fn cipher(shared: &[u8; 32], ephemeral: &AgreementKey, to: &AgreementKey) -> Self {
        let mut material = Zeroizing::new([0u8; 96]);
        material[..32].copy_from_slice(shared);
        material[32..64].copy_from_slice(ephemeral.as_bytes());
        material[64..].copy_from_slice(to.as_bytes());
        let key = Zeroizing::new(blake3::derive_key("weft seal key v1", &*material));
        let nonce = blake3::derive_key("weft seal nonce v1", &*material);
        let nonce: [u8; 24] = nonce[..24].try_into().expect("24 of 32 bytes");
        Self { aead: XChaCha20Poly1305::new((&*key).into()), nonce: nonce.into() }
    }
}

/// The fabric's keys, as far as they were sealed to one agreement key.
#[derive(Clone)]
pub struct Keyring {
    secret: AgreementSecret,
    keys: BTreeMap<KeyName, FabricKey>,
}

impl Keyring {
    /// Begins with none.
    pub const fn new(secret: AgreementSecret) -> Self {
        Self { secret, keys: BTreeMap::new() }
    }

    /// Opens all that the statements of `graph` seal to this device.
    pub fn learn(&mut self, graph: &Graph) {
        for entry in graph.entries() {
            for sealed in Effect::of(entry).sealed {
                if sealed.to == self.secret.public() && !self.keys.contains_key(&sealed.which) {
                    // A bad one is as good as none; it shows in `lacking`.
                    let _known_by_lacking = self.open(sealed);
                }
            }
        }
    }

    /// Opens one key that a peer sealed to this device.
    ///
    /// # Errors
    ///
    /// It is not for this device, damaged, or not the key that its name says.
    pub fn open(&mut self, sealed: &SealedKey) -> Result<(), OpenKeyError> {
        if sealed.to != self.secret.public() {
            return Err(OpenKeyError::NotForMe);
        }
        let shared = self.secret.shared(&sealed.ephemeral).ok_or(OpenKeyError::Damaged)?;
        let cipher = Envelope::cipher(&shared, &sealed.ephemeral, &sealed.to);
        let aad = codec::encode(&sealed.which);
        let payload = Payload { msg: &sealed.ciphertext, aad: &aad };
        let opened = cipher.aead.decrypt(&cipher.nonce, payload);
        let opened = Zeroizing::new(opened.map_err(|_| OpenKeyError::Damaged)?);
        let bytes = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| OpenKeyError::Damaged)?;
        let key = FabricKey(Zeroizing::new(bytes));
        if key.id() != sealed.which.id() {
            return Err(OpenKeyError::Misnamed);
        }
        self.keys.insert(sealed.which, key);
        Ok(())
    }

    /// The key of that name.
    pub fn get(&self, which: &KeyName) -> Option<&FabricKey> {
        self.keys.get(which)
    }

    /// The fabric's addressing key.
    pub fn addressing(&self, state: &State) -> Option<&FabricKey> {
        self.get(&KeyName::Addressing(state.addressing))
    }

    /// The data key of a generation.
    pub fn data(&self, generation: Generation) -> Option<&FabricKey> {
        self.get(&KeyName::Data(generation))
    }

    /// The data key that writes; none if it is not here.
    pub fn writing(&self, state: &State) -> Option<(Generation, &FabricKey)> {
        Some((state.writing, self.data(state.writing)?))
    }

    /// The keys of the fabric that are not here, in order.
    pub fn lacking(&self, state: &State) -> Vec<KeyName> {
        let wanted = needed(state);
        wanted.filter(|which| !self.keys.contains_key(which)).collect()
    }

    /// Seals those of the `wanted` keys that are here to a device, if it may have them.
    ///
    /// A key that no statement of the fabric names is never sealed.
    pub fn seal_for(
        &self,
        state: &State,
        to: AgreementKey,
        wanted: &[KeyName],
        rng: &mut impl CryptoRng,
    ) -> Vec<SealedKey> {
        if !state.key_holders().contains(&to) {
            return Vec::new();
        }
        let asked = needed(state).filter(|which| wanted.contains(which));
        asked.filter_map(|which| self.get(&which)?.seal(which, to, rng)).collect()
    }

    /// Seals all keys of the fabric that are here to `to`, who is about to be one of its holders.
    pub(crate) fn seal_all(
        &self,
        state: &State,
        to: AgreementKey,
        rng: &mut impl CryptoRng,
    ) -> Vec<SealedKey> {
        needed(state).filter_map(|which| self.get(&which)?.seal(which, to, rng)).collect()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.keys.keys()).finish()
    }
}

/// All keys that a holder of data needs.
fn needed(state: &State) -> impl Iterator<Item = KeyName> {
    let data = state.generations.iter().copied().map(KeyName::Data);
    std::iter::once(KeyName::Addressing(state.addressing)).chain(data)
}
