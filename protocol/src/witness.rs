//! Heads of audit chains: signed by whose chain it is, and countersigned by who saw them.
//!
//! A device shows others its [`SignedHead`]. Each signs it back as a [`Witness`], which holds the head
//! as its owner signed it: nobody can say of a device that it showed what it never made. Two heads that
//! one device signed for the same place are a [`Fork`], which proves itself to anybody. Values of these
//! types were checked when they were made.

use ed25519_dalek::SigningKey;
use thiserror::Error;

use crate::{
    audit::Head,
    codec,
    id::DeviceId,
    signed::{Domain, Signed, SignedError},
};

/// The most bytes of a head that is signed and countersigned; one has about 340.
pub const WITNESS_BYTES_MAX: usize = 1 << 10;

/// The most bytes of a head, which has about 100: so that one that is signed, countersigned or held
/// against another stays below [`WITNESS_BYTES_MAX`].
const HEAD_BYTES_MAX: usize = 256;

/// No chain gets this long: at a thousand records a second it takes 280,000 years.
const POSITION_MAX: u64 = 1 << 53;

/// Why bytes are no head that its owner signed, or no countersignature of one.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum WitnessError {
    /// A signature does not hold, or what is signed is no head.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It was signed by another device than the one whose chain it names.
    #[error("read a head of {owner:?}: {author:?} signed it")]
    NotItsOwner {
        /// Whose chain it names.
        owner: DeviceId,
        /// Who signed.
        author: DeviceId,
    },
    /// No chain is that long.
    #[error("read a head: no chain has a record {position}")]
    TooFar {
        /// Where it says that it stands.
        position: u64,
    },
}

/// A head, signed by the device whose chain it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedHead {
    head: Head,
    signed: Signed,
}

impl SignedHead {
    /// Signs a head of the chain of the device that `key` is.
    pub fn new(head: Head, key: &SigningKey) -> Self {
        let signed = Signed::new(Domain::Head, &head, key);
        assert_eq!(signed.author, head.device, "a device signs heads of its own chain only");
        Self { head, signed }
    }

    /// Checks that a head was signed by its owner.
    ///
    /// # Errors
    ///
    /// It was not.
    pub fn open(signed: Signed) -> Result<Self, WitnessError> {
        let head: Head = signed.open(Domain::Head, HEAD_BYTES_MAX)?;
        if signed.author != head.device {
            let (owner, author) = (head.device, signed.author);
            return Err(WitnessError::NotItsOwner { owner, author });
        }
        if head.position > POSITION_MAX {
            return Err(WitnessError::TooFar { position: head.position });
        }
        Ok(Self { head, signed })
    }

    /// What it says.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// As it was signed.
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }
}

/// A head, signed by its owner, and by a device that saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    head: SignedHead,
    signed: Signed,
}

impl Witness {
    /// Countersigns a head.
    pub fn new(head: SignedHead, key: &SigningKey) -> Self {
        let signed = Signed::new(Domain::Witness, &head.signed, key);
        Self { head, signed }
    }

    /// Checks both signatures.
    ///
    /// # Errors
    ///
    /// One of them does not hold.
    pub fn open(signed: Signed) -> Result<Self, WitnessError> {
        let head: Signed = signed.open(Domain::Witness, WITNESS_BYTES_MAX / 2)?;
        Ok(Self { head: SignedHead::open(head)?, signed })
    }

    /// Who saw it.
    pub const fn by(&self) -> DeviceId {
        self.signed.author
    }

    /// What was seen.
    pub const fn head(&self) -> &SignedHead {
        &self.head
    }

    /// As it was countersigned.
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }
}

/// Proof that a device signed two records for one place of its chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fork([SignedHead; 2]);

impl Fork {
    /// The proof, if these two are one: of one chain, segment and position, with different records.
    pub fn of(one: SignedHead, other: SignedHead) -> Option<Self> {
        let place = |it: &SignedHead| (it.head.device, it.head.segment, it.head.position);
        let forked = place(&one) == place(&other) && one.head.digest != other.head.digest;
        let in_order = one.head.digest < other.head.digest;
        forked.then_some(Self(if in_order { [one, other] } else { [other, one] }))
    }

    /// Checks a proof that came from elsewhere; `None`: it is none.
    pub fn open(one: Signed, other: Signed) -> Option<Self> {
        Self::of(SignedHead::open(one).ok()?, SignedHead::open(other).ok()?)
    }

    /// Whose chain is forked.
    pub const fn device(&self) -> DeviceId {
        self.0[0].head.device
    }

    /// Where.
    pub const fn position(&self) -> u64 {
        self.0[0].head.position
    }

    /// Both heads, the one with the smaller digest first.
    pub const fn heads(&self) -> &[SignedHead; 2] {
        &self.0
    }

    /// As it lies on a disk.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&self.0.each_ref().map(SignedHead::signed).map(Clone::clone))
    }

    /// Checks a proof that lay on a disk; `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [one, other]: [Signed; 2] = codec::decode(bytes, WITNESS_BYTES_MAX).ok()?;
        Self::open(one, other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Digest, SegmentId};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn head(seed: u8, position: u64, record: &[u8]) -> Head {
        Head {
            device: DeviceId::from_bytes(key(seed).verifying_key().to_bytes()),
            segment: SegmentId::from_bytes([1; 16]),
            position,
            digest: Digest::of(record),
        }
    }

    #[test]
    fn nobody_signs_a_head_for_another() {
        let signed = Signed::new(Domain::Head, &head(1, 5, b"five"), &key(2));
        assert!(matches!(SignedHead::open(signed.clone()), Err(WitnessError::NotItsOwner { .. })));
        let framed = Signed::new(Domain::Witness, &signed, &key(2));
        assert!(matches!(Witness::open(framed), Err(WitnessError::NotItsOwner { .. })));
        let bare = Signed::new(Domain::Witness, &head(1, 5, b"five"), &key(2));
        assert!(Witness::open(bare).is_err());
        // What is signed as something else is not a head.
        let other = Signed::new(Domain::Witness, &head(1, 5, b"five"), &key(1));
        assert!(SignedHead::open(other).is_err());
        let far = Signed::new(Domain::Head, &head(1, u64::MAX, b"five"), &key(1));
        assert_eq!(SignedHead::open(far), Err(WitnessError::TooFar { position: u64::MAX }));
    }

    #[test]
    fn a_head_is_not_made_so_long_that_its_witnesses_could_not_keep_it() {
        // With a field that a later release may add.
        let padded = |len: u8| {
            let mut bytes = codec::encode(&head(1, 5, b"five"));
            assert_eq!(bytes[0], 0xa4, "a map of four");
            bytes[0] += 1;
            bytes.extend([9, 0x58, len]);
            bytes.extend(vec![0; len.into()]);
            SignedHead::open(Signed::from_bytes(Domain::Head, bytes, &key(1)))
        };
        assert!(matches!(padded(250), Err(WitnessError::Signed(_))));
        let (one, other) = (padded(100).unwrap(), padded(120).unwrap());
        let witness = Witness::new(one.clone(), &key(2));
        let bytes = codec::encode(witness.signed());
        assert!(bytes.len() <= WITNESS_BYTES_MAX);
        assert!(Witness::open(codec::decode(&bytes, WITNESS_BYTES_MAX).unwrap()).is_ok());
        let [one, other] = [one.signed, other.signed].map(|it| codec::encode(&it).len());
        assert!(one + other < WITNESS_BYTES_MAX);
    }

    #[test]
    fn a_head_and_its_countersignature_open_as_they_were_made() {
        let head = SignedHead::new(head(1, 5, b"five"), &key(1));
        assert_eq!(SignedHead::open(head.signed().clone()), Ok(head.clone()));
        let witness = Witness::new(head.clone(), &key(2));
        assert!(codec::encode(witness.signed()).len() < WITNESS_BYTES_MAX / 2);
        assert_eq!(Witness::open(witness.signed().clone()), Ok(witness.clone()));
        assert_eq!((witness.by(), witness.head()), (self::head(2, 0, b"").device, &head));
    }

    #[test]
    fn two_heads_for_one_place_prove_a_fork_to_anybody() {
        let head = |position, record: &[u8]| SignedHead::new(head(1, position, record), &key(1));
        let fork = Fork::of(head(5, b"five"), head(5, b"cinq")).unwrap();
        assert_eq!(Fork::of(head(5, b"cinq"), head(5, b"five")).as_ref(), Some(&fork));
        assert_eq!(Fork::decode(&fork.encode()).as_ref(), Some(&fork));
        assert_eq!((fork.device(), fork.position()), (head(5, b"").head().device, 5));
        assert_eq!(Fork::of(head(5, b"five"), head(5, b"five")), None);
        assert_eq!(Fork::of(head(5, b"five"), head(6, b"six")), None);
        let forged = Signed::new(Domain::Head, head(5, b"cinq").head(), &key(2));
        assert_eq!(Fork::open(head(5, b"five").signed().clone(), forged), None);
    }

    proptest! {
        #[test]
        fn no_changed_byte_is_believed(at in 0..400_usize, by in 1..=255_u8) {
            let witness = Witness::new(SignedHead::new(head(1, 5, b"five"), &key(1)), &key(2));
            let mut bytes = codec::encode(witness.signed());
            let at = at % bytes.len();
            bytes[at] ^= by;
            let read: Result<Signed, _> = codec::decode(&bytes, WITNESS_BYTES_MAX);
            prop_assert!(read.ok().is_none_or(|signed| Witness::open(signed).is_err()));
        }

        #[test]
        fn survives_arbitrary_bytes(bytes: Vec<u8>) {
            prop_assert_eq!(Fork::decode(&bytes), None);
        }
    }
}
