//! Statements: who belongs to a fabric, and who said so.
//!
//! A statement is a [`Signed`] under
//! [`Domain::Statement`](crate::signed::Domain::Statement) whose bytes are a [`Statement`]. It names
//! its author's previous statement and the newest statements that its author knew, so that all
//! statements of a fabric form one graph with `Genesis` at its bottom. What they add up to is
//! decided by `weft-trust`.
//!
//! On `/weft/trust/1` two devices make their graphs equal:
//!
//! ```text
//! both       Have        the fabric and the ids of all statements that I hold
//! both       Statements  those of mine that you did not name, parents first
//! both       Merged      I hold all of yours and mine; this is the hash of my set
//! ```
//!
//! A later statement follows as `Statements` and a new `Merged`. A device that lacks a key of the
//! fabric asks with `Want` and is answered with `Keys`. A machine that has nothing but the recovery
//! words opens with `Recover`, and is given `Have`, all `Statements` and `Merged`.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use thiserror::Error;

use crate::{
    codec::{self, DecodeError},
    device::{Kind, Role},
    id::{AgreementKey, DeviceId, Digest, FabricId, StatementId},
    signed::Signed,
    time::WallTime,
};

/// The largest signed bytes of one statement: a `Revoke` that seals to over two hundred devices.
pub const STATEMENT_BYTES_MAX: usize = 32 << 10;

/// The most parents that one statement names. More heads than devices are never seen in honest use.
pub const DEPS_MAX: usize = 64;

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What one author says once, about its fabric.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Statement {
    /// The fabric; none in `Genesis`, whose hash is the fabric's id.
    #[n(0)]
    pub fabric: Option<FabricId>,
    /// How many statements this author made before.
    #[n(1)]
    pub seq: u64,
    /// The author's statement before; none at its first.
    #[n(2)]
    pub prev: Option<StatementId>,
    /// The newest statements that the author knew, sorted; empty only in `Genesis`.
    #[n(3)]
    pub deps: Vec<StatementId>,
    /// When, by the author's clock. Shown to people; decides nothing.
    #[n(4)]
    pub time: WallTime,
    /// Which [`StatementBody`] the body is.
    #[n(5)]
    pub kind: u16,
    /// The encoded body.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

impl Statement {
    /// Reads the body.
    ///
    /// # Errors
    ///
    /// The kind is known and the bytes are not of it.
    pub fn body(&self) -> Result<StatementBody, DecodeError> {
        StatementBody::decode(self.kind, &self.body)
    }
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $n:literal $variant:ident),* $(,)?) => {
        /// What a statement says.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum StatementBody {
            $($(#[$doc])* $variant($variant),)*
            /// Written by a newer program. It stops the evaluation; it is never skipped.
            Unknown(u16),
        }

        impl StatementBody {
            /// The number of the kind on the wire.
            pub const fn kind(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => $n,)*
                    Self::Unknown(kind) => *kind,
                }
            }

            /// The word for the kind that people read.
            pub const fn word(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($variant),)*
                    Self::Unknown(_) => "Unknown",
                }
            }

            /// Encodes the body; nothing for an unknown kind.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$variant(body) => codec::encode(body),)*
                    Self::Unknown(_) => Vec::new(),
                }
            }

            /// Decodes a body of the given kind.
            ///
            /// # Errors
            ///
            /// The kind is known and the bytes are not of it.
            pub fn decode(kind: u16, bytes: &[u8]) -> Result<Self, DecodeError> {
                Ok(match kind {
                    $($n => Self::$variant(codec::decode(bytes, STATEMENT_BYTES_MAX)?),)*
                    _ => Self::Unknown(kind),
                })
            }
        }

        $(impl From<$variant> for StatementBody {
            fn from(body: $variant) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

bodies! {
    /// The fabric and its first device begin.
    0 Genesis,
    /// A device joins.
    1 Add,
    /// A device is put out for good.
    2 Revoke,
    /// A device replaces its key.
    3 Rotate,
    /// The root replaces its key.
    4 RootRotate,
    /// The root fixes what had happened by then.
    5 Epoch,
    /// Changes need several admins.
    6 Require,
    /// An admin joins in a statement of another.
    7 Cosign,
    /// A device gets another role.
    8 SetRole,
    /// A device or the fabric gets another name.
    9 Rename,
    /// A suspended device stays.
    10 Keep,
}

/// The root's public keys. The secret ones are 24 words on paper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RootKeys {
    /// Verifies what the root signs.
    #[n(0)]
    pub key: DeviceId,
    /// The fabric's keys are sealed to it.
    #[n(1)]
    pub agreement: AgreementKey,
}

/// The fabric and its first device begin. The author is that device, and an admin.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Genesis {
    /// The fabric's name.
    #[n(0)]
    pub fabric: Name,
    /// None: a fabric without recovery, for ever.
    #[n(1)]
    pub root: Option<RootKeys>,
    /// The first device's name.
    #[n(2)]
    pub name: Name,
    /// The first device's kind.
    #[n(3)]
    pub kind: Kind,
    /// The first device's agreement key.
    #[n(4)]
    pub agreement: AgreementKey,
    /// Which addressing key is the fabric's.
    #[n(5)]
    pub addressing: KeyId,
    /// The first data key.
    #[n(6)]
    pub generation: Generation,
    /// Both keys, to the first device and to root.
    #[n(7)]
    pub sealed: Vec<SealedKey>,
}

/// A device joins.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Add {
    /// Who.
    #[n(0)]
    pub device: DeviceId,
    /// Its agreement key.
    #[n(1)]
    pub agreement: AgreementKey,
    /// Its name, as it asked for and the author granted.
    #[n(2)]
    pub name: Name,
    /// Its kind, as it says.
    #[n(3)]
    pub kind: Kind,
    /// Its role. An `admin` that is not confirmed is a `member`.
    #[n(4)]
    pub role: Role,
    /// Whether a person compared the words and said yes on the author's screen.
    #[n(5)]
    pub confirmed: bool,
    /// The fabric's keys, to the device; empty for one that holds no data.
    #[n(6)]
    pub sealed: Vec<SealedKey>,
}

/// A device is put out for good.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Revoke {
    /// Who.
    #[n(0)]
    pub device: DeviceId,
    /// The data key from now on.
    #[n(1)]
    pub generation: Generation,
    /// That key, to those who remain and to root.
    #[n(2)]
    pub sealed: Vec<SealedKey>,
}

/// A device replaces its key. The author is the old key.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Rotate {
    /// The new key.
    #[n(0)]
    pub device: DeviceId,
    /// The new agreement key.
    #[n(1)]
    pub agreement: AgreementKey,
    /// A [`Succession`], signed by the new key under
    /// [`Domain::Pairing`](crate::signed::Domain::Pairing).
    #[n(2)]
    pub consent: Signed,
    /// The fabric's keys, to the new agreement key.
    #[n(3)]
    pub sealed: Vec<SealedKey>,
}

/// What a new key signs to say that it takes the place of an old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Succession {
    /// In which fabric.
    #[n(0)]
    pub fabric: FabricId,
    /// The old key.
    #[n(1)]
    pub old: DeviceId,
    /// The new agreement key.
    #[n(2)]
    pub agreement: AgreementKey,
}

/// The root replaces its key. The author is the old root.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RootRotate {
    /// The new root.
    #[n(0)]
    pub root: RootKeys,
    /// The fabric's keys, to the new root.
    #[n(1)]
    pub sealed: Vec<SealedKey>,
}

/// The root fixes what had happened by then: what neither leads to these heads nor follows this
/// statement is void.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Epoch {
    /// The newest statements that stand, sorted.
    #[n(0)]
    pub heads: Vec<StatementId>,
}

/// Changes need several admins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Require {
    /// How many.
    #[n(0)]
    pub admins: u8,
}

/// An admin joins in a statement of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Cosign {
    /// Which.
    #[n(0)]
    pub statement: StatementId,
}

/// A device gets another role.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct SetRole {
    /// Who.
    #[n(0)]
    pub device: DeviceId,
    /// What it is from now on.
    #[n(1)]
    pub role: Role,
    /// The data key from now on, where the device may no longer hold it.
    #[n(2)]
    pub generation: Option<Generation>,
    /// That key to those who hold data; or the keys to a device that newly does.
    #[n(3)]
    pub sealed: Vec<SealedKey>,
}

/// A device or the fabric gets another name.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Rename {
    /// Who; none: the fabric.
    #[n(0)]
    pub device: Option<DeviceId>,
    /// The new name.
    #[n(1)]
    pub name: Name,
}

/// A suspended device stays.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Keep {
    /// Who.
    #[n(0)]
    pub device: DeviceId,
    /// What suspended it: a `Revoke` or demotion that does not count, or of its own forked
    /// statements the side that stands.
    #[n(1)]
    pub cause: StatementId,
    /// The fabric's keys, to the device.
    #[n(2)]
    pub sealed: Vec<SealedKey>,
}

/// A text is not a name.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "read {text:?} as a name: expected 1 to {NAME_BYTES_MAX} bytes without control characters or spaces around"
)]
pub struct ParseNameError {
    text: String,
}

/// The name of a device or a fabric: short, and harmless on a terminal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        // Characters that turn or hide what stands beside them.
        let hides = |c: char| {
            matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
        };
        let fits = !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && text.trim() == text
            && !text.chars().any(|c| c.is_control() || hides(c));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseNameError { text: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl<C> Encode<C> for Name {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(|_| decode::Error::message("a name"))
    }
}

/// Which key it is: a hash that only the key gives, so that none is passed off as another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyId(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    [u8; 16],
);

impl KeyId {
    /// Computes the id of a key of the fabric.
    pub fn of(key: &[u8; 32]) -> Self {
        let hash = blake3::derive_key("weft key id v1", key);
        Self(hash[..16].try_into().expect("sixteen of 32 bytes"))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// Which data key. Of two, the greater writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Generation {
    /// One more than the greatest that its author knew.
    #[n(0)]
    pub number: u32,
    /// Tells concurrent ones apart.
    #[n(1)]
    pub id: KeyId,
}

/// A key that the fabric shares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(map)]
pub enum KeyName {
    /// Blob ids and input hashes. Made at `Genesis`, never replaced.
    #[n(0)]
    Addressing(#[n(0)] KeyId),
    /// Data at rest outside a device.
    #[n(1)]
    Data(#[n(0)] Generation),
}

impl KeyName {
    /// The hash that the key must give.
    pub const fn id(&self) -> KeyId {
        match self {
            Self::Addressing(id) => *id,
            Self::Data(generation) => generation.id,
        }
    }
}

/// A key of the fabric that one agreement key opens.
///
/// X25519 with a fresh key, and XChaCha20-Poly1305 with the key's name as associated data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct SealedKey {
    /// Who opens it.
    #[n(0)]
    pub to: AgreementKey,
    /// What is inside.
    #[n(1)]
    pub which: KeyName,
    /// The fresh public key.
    #[n(2)]
    pub ephemeral: AgreementKey,
    /// 32 bytes and their tag.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub ciphertext: [u8; 48],
}

/// What two devices say on `/weft/trust/1`; one frame each.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub enum TrustMessage {
    /// Opens the exchange.
    #[n(0)]
    Have {
        /// Of this fabric
        #[n(0)]
        fabric: FabricId,
        /// these statements are here, sorted.
        #[n(1)]
        ids: Vec<StatementId>,
    },
    /// Statements, parents first.
    #[n(1)]
    Statements {
        /// As they came from their authors.
        #[n(0)]
        statements: Vec<Signed>,
    },
    /// Nothing that the other announced is lacking here.
    #[n(2)]
    Merged {
        /// The hash of all ids that are here, sorted.
        #[n(0)]
        set: Digest,
    },
    /// Asks for keys of the fabric.
    #[n(3)]
    Want {
        /// Which.
        #[n(0)]
        keys: Vec<KeyName>,
    },
    /// Keys that were asked for.
    #[n(4)]
    Keys {
        /// Sealed to the device that asked.
        #[n(0)]
        sealed: Vec<SealedKey>,
    },
    /// Asks for all statements, as the root that outranks them.
    #[n(5)]
    Recover {
        /// A [`RecoveryProof`], signed by the root under
        /// [`Domain::Recovery`](crate::signed::Domain::Recovery).
        #[n(0)]
        proof: Signed,
    },
}

/// The largest [`RecoveryProof`], in bytes.
pub const RECOVERY_PROOF_BYTES_MAX: usize = 256;

/// What the root signs to be given a fabric's statements: who asks whom. Both are proven by the
/// connection, so that one who was shown a proof can't use it anywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct RecoveryProof {
    /// Who asks: a device that belongs to no fabric yet.
    #[n(0)]
    pub from: DeviceId,
    /// Who is asked.
    #[n(1)]
    pub to: DeviceId,
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::{frame::FRAME_BYTES_MAX, signed::Domain};

    #[test]
    fn every_kind_round_trips() {
        for body in bodies() {
            let bytes = body.encode();
            assert_eq!(StatementBody::decode(body.kind(), &bytes), Ok(body.clone()));
            let statement = Statement {
                fabric: Some(FabricId::from_bytes([1; 32])),
                seq: 3,
                prev: Some(StatementId::from_bytes([2; 32])),
                deps: vec![StatementId::from_bytes([2; 32]), StatementId::from_bytes([3; 32])],
                time: WallTime::from_unix_millis(1_700_000_000_000),
                kind: body.kind(),
                body: bytes,
            };
            let encoded = codec::encode(&statement);
            let decoded: Statement = codec::decode(&encoded, STATEMENT_BYTES_MAX).unwrap();
            assert_eq!(decoded, statement);
            assert_eq!(decoded.body(), Ok(body));
        }
    }

    #[test]
    fn an_unknown_kind_is_kept_apart() {
        assert_eq!(StatementBody::decode(99, b"anything"), Ok(StatementBody::Unknown(99)));
    }

    #[test]
    fn a_name_that_deceives_is_no_name() {
        for bad in ["", " phone", "pho\u{1b}[2Jne", "pho\u{202e}ne", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert_eq!("Küche 2".parse::<Name>().unwrap().as_str(), "Küche 2");
    }

    #[test]
    fn messages_round_trip() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let id = StatementId::from_bytes([4; 32]);
        let messages = [
            TrustMessage::Have { fabric: FabricId::from_bytes([1; 32]), ids: vec![id] },
            TrustMessage::Statements {
                statements: vec![Signed::new(Domain::Statement, &1u64, &key)],
            },
            TrustMessage::Merged { set: Digest::of(b"set") },
            TrustMessage::Want { keys: vec![sealed().which] },
            TrustMessage::Keys { sealed: vec![sealed()] },
            TrustMessage::Recover { proof: Signed::new(Domain::Recovery, &1u64, &key) },
        ];
        for message in messages {
            let bytes = codec::encode(&message);
            assert_eq!(codec::decode::<TrustMessage>(&bytes, FRAME_BYTES_MAX), Ok(message));
        }
    }

    proptest! {
        #[test]
        fn survives_arbitrary_bytes(kind in 0u16..12, bytes: Vec<u8>) {
            drop(StatementBody::decode(kind, &bytes));
            drop(codec::decode::<Statement>(&bytes, STATEMENT_BYTES_MAX));
            drop(codec::decode::<TrustMessage>(&bytes, FRAME_BYTES_MAX));
        }

        /// Bytes near to valid ones reach deeper than arbitrary ones.
        #[test]
        fn survives_damaged_bodies(which in 0usize..11, at: usize, byte: u8) {
            let body = &bodies()[which];
            let mut bytes = body.encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            drop(StatementBody::decode(body.kind(), &bytes));
        }
    }

    fn sealed() -> SealedKey {
        SealedKey {
            to: AgreementKey::from_bytes([6; 32]),
            which: KeyName::Data(generation()),
            ephemeral: AgreementKey::from_bytes([7; 32]),
            ciphertext: [8; 48],
        }
    }

    fn generation() -> Generation {
        Generation { number: 300, id: KeyId::of(&[9; 32]) }
    }

    fn bodies() -> Vec<StatementBody> {
        let device = DeviceId::from_bytes([1; 32]);
        let agreement = AgreementKey::from_bytes([2; 32]);
        let name: Name = "phone".parse().unwrap();
        let root = RootKeys { key: device, agreement };
        let id = StatementId::from_bytes([3; 32]);
        let key = SigningKey::from_bytes(&[5; 32]);
        let sealed = vec![sealed()];
        vec![
            Genesis {
                fabric: "home".parse().unwrap(),
                root: Some(root),
                name: name.clone(),
                kind: Kind::Laptop,
                agreement,
                addressing: KeyId::of(&[1; 32]),
                generation: generation(),
                sealed: sealed.clone(),
            }
            .into(),
            Add {
                device,
                agreement,
                name: name.clone(),
                kind: Kind::Phone,
                role: Role::Member,
                confirmed: true,
                sealed: sealed.clone(),
            }
            .into(),
            Revoke { device, generation: generation(), sealed: sealed.clone() }.into(),
            Rotate {
                device,
                agreement,
                consent: Signed::new(Domain::Pairing, &1u64, &key),
                sealed: sealed.clone(),
            }
            .into(),
            RootRotate { root, sealed: sealed.clone() }.into(),
            Epoch { heads: vec![id] }.into(),
            Require { admins: 2 }.into(),
            Cosign { statement: id }.into(),
            SetRole { device, role: Role::Keeper, generation: None, sealed: sealed.clone() }.into(),
            Rename { device: None, name }.into(),
            Keep { device, cause: id, sealed }.into(),
        ]
    }
}
