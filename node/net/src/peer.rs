//! The names of peers: libp2p's `PeerId` and the Ed25519 key that it holds.

use libp2p::{
    PeerId,
    identity::{Keypair, PublicKey, ed25519},
};

/// The key pair of a seed.
pub(crate) fn keypair(mut seed: [u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(&mut seed).expect("any 32 bytes are an Ed25519 seed")
}

/// The peer whose key is `key`; `None` where the bytes are no point of the curve.
pub(crate) fn peer_id(key: &[u8; 32]) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(key).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The Ed25519 key of `peer`; `None` for a key of another kind, or one given by its hash only.
pub(crate) fn key(peer: &PeerId) -> Option<[u8; 32]> {
    let bytes = peer.to_bytes();
    // An inline key is the identity multihash: its code 0, its length, the key as protobuf.
    let (&[code, _], key) = bytes.split_first_chunk::<2>()?;
    if code != 0 {
        return None;
    }
    Some(PublicKey::try_decode_protobuf(key).ok()?.try_into_ed25519().ok()?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_peer_name_each_other() {
        let public = keypair([7; 32]).public();
        let bytes = public.clone().try_into_ed25519().unwrap().to_bytes();
        assert_eq!(peer_id(&bytes), Some(public.to_peer_id()));
        assert_eq!(key(&public.to_peer_id()), Some(bytes));
    }

    #[test]
    fn a_hashed_key_has_no_device() {
        let mut hashed = vec![0x12, 32];
        hashed.extend([9; 32]);
        assert_eq!(key(&PeerId::from_bytes(&hashed).unwrap()), None);
    }
}
