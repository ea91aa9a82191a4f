//! The words: the root's keys from 24 of them, on paper.
//!
//! They are BIP-39's encoding of 32 drawn bytes. The keys come from those bytes, not from
//! BIP-39's stretched seed, which is meant for wallets.

use std::fmt;

use bip39::{Language, Mnemonic};
use ed25519_dalek::SigningKey;
use thiserror::Error;
use weft_protocol::{
    id::{DeviceId, Digest},
    statement::RootKeys,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::secret::AgreementSecret;

/// How many words a person keeps.
pub const WORD_COUNT: usize = 24;

/// Why words are not a root.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum WordsError {
    /// Too few or too many.
    #[error("read the recovery words: {0} words were given, {WORD_COUNT} are needed")]
    Count(usize),
    /// Not in the list.
    #[error("read the recovery words: word {0} is not in the list; check its spelling")]
    Unknown(usize),
    /// All in the list, and not in this order.
    #[error("read the recovery words: they do not belong together; check their order")]
    Checksum,
}

/// The root's keys.
#[derive(Clone)]
pub struct RootSecret {
    entropy: Zeroizing<[u8; 32]>,
    signing: SigningKey,
    agreement: AgreementSecret,
}

impl RootSecret {
    /// Derives the keys of drawn bytes.
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        let entropy = Zeroizing::new(entropy);
        let seed = Zeroizing::new(blake3::derive_key("weft root v1", &*entropy));
        Self {
            signing: SigningKey::from_bytes(&seed),
            agreement: AgreementSecret::derive("weft root agreement v1", &entropy),
            entropy,
        }
    }

    /// Reads the words, in any case and with any space between.
    ///
    /// # Errors
    ///
    /// Their number, one of them, or their order is wrong.
    pub fn from_words(words: &str) -> Result<Self, WordsError> {
        let words = Zeroizing::new(words.to_lowercase());
        let count = words.split_whitespace().count();
        if count != WORD_COUNT {
            return Err(WordsError::Count(count));
        }
        let unknown =
            words.split_whitespace().position(|word| Language::English.find_word(word).is_none());
        if let Some(at) = unknown {
            return Err(WordsError::Unknown(at + 1));
        }
        let joined = Zeroizing::new(words.split_whitespace().collect::<Vec<_>>().join(" "));
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &joined)
            .map_err(|_| WordsError::Checksum)?;
        let (mut padded, _) = mnemonic.to_entropy_array();
        let mut entropy = Zeroizing::new([0; 32]);
        entropy.copy_from_slice(&padded[..32]);
        padded.zeroize();
        Ok(Self::from_entropy(*entropy))
    }

    /// The words, for the one time that they are shown.
    pub fn words(&self) -> Zeroizing<String> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, &*self.entropy)
            .expect("32 bytes are a valid length");
        Zeroizing::new(mnemonic.words().collect::<Vec<_>>().join(" "))
    }

    /// The public keys, for `Genesis`.
    pub fn keys(&self) -> RootKeys {
        RootKeys {
            key: DeviceId::from_bytes(self.signing.verifying_key().to_bytes()),
            agreement: self.agreement.public(),
        }
    }

    /// Signs as the root.
    pub const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Opens what is sealed to the root.
    pub const fn agreement(&self) -> &AgreementSecret {
        &self.agreement
    }
}

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootSecret(..)")
    }
}

/// Four words for the first 44 bits of a hash: what two persons compare.
pub fn four_words(digest: &Digest) -> [&'static str; 4] {
    words_of(u64::from_be_bytes(digest.as_bytes()[..8].try_into().expect("eight of 32 bytes")))
}

/// A word for each 11 bits, the highest first; five at most.
pub(crate) fn words_of<const COUNT: usize>(bits: u64) -> [&'static str; COUNT] {
    let list = Language::English.word_list();
    std::array::from_fn(|at| list[(bits >> (53 - 11 * at) & 0x7ff) as usize])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn words_and_keys_stay_as_they_are() {
        let root = RootSecret::from_entropy([7; 32]);
        expect!["alpha deal scrub asthma idea logic bright thought alpha deal scrub asthma idea logic bright thought alpha deal scrub asthma idea logic bright truly"].assert_eq(&root.words());
        expect!["augmk6emanjgq3znk4o2jpiced4l53rxiiw5gnum6ah5x7hvpkpq"]
            .assert_eq(&root.keys().key.to_string());
        expect!["zfz66bx7lrijxbyhigb2c6fgvuf6mo6ofr3g6bnbawpehivqb4rq"]
            .assert_eq(&root.keys().agreement.to_string());
    }

    #[test]
    fn words_bring_the_root_back() {
        let root = RootSecret::from_entropy([42; 32]);
        let again = RootSecret::from_words(&root.words()).unwrap();
        assert_eq!(again.keys(), root.keys());
        let sloppy = format!("  {}\n", root.words().to_uppercase().replace(' ', "\n "));
        assert_eq!(RootSecret::from_words(&sloppy).unwrap().keys(), root.keys());
    }

    #[test]
    fn wrong_words_are_named() {
        let words = RootSecret::from_entropy([42; 32]).words();
        let mut list: Vec<&str> = words.split(' ').collect();
        assert_eq!(RootSecret::from_words("").unwrap_err(), WordsError::Count(0));
        assert_eq!(
            RootSecret::from_words(&list[..23].join(" ")).unwrap_err(),
            WordsError::Count(23)
        );
        list.swap(0, 12);
        assert_eq!(RootSecret::from_words(&list.join(" ")).unwrap_err(), WordsError::Checksum);
        list[5] = "weft";
        assert_eq!(RootSecret::from_words(&list.join(" ")).unwrap_err(), WordsError::Unknown(6));
    }

    #[test]
    fn secrets_do_not_show() {
        let root = RootSecret::from_entropy([42; 32]);
        assert_eq!(
            format!("{root:?} {:?}", root.agreement()),
            "RootSecret(..) AgreementSecret(..)"
        );
    }

    #[test]
    fn four_words_are_44_bits() {
        let mut bytes = [0; 32];
        assert_eq!(four_words(&Digest::from_bytes(bytes)), ["abandon"; 4]);
        bytes[..6].fill(0xff);
        assert_eq!(four_words(&Digest::from_bytes(bytes)), ["zoo"; 4]);
        bytes[5] = 0xef;
        assert_eq!(four_words(&Digest::from_bytes(bytes)), ["zoo", "zoo", "zoo", "zone"]);
    }
}
