//! Vouches, true and forged.

use super::*;

/// Signs vouches of node 0's anew, so that they say something else.
fn forge(message: &mut SyncMessage, change: impl Fn(&mut Vouch), key: &SigningKey) {
    if let SyncMessage::Documents(documents) = message {
        for document in documents {
            let changes = document.changes.iter();
            let mut changes = changes.map(|chunk| Change::parse(&chunk.0, &mut 1_000_000).unwrap());
            for sent in &mut document.vouches {
                let SentVouch::Newest { device, start, .. } = *sent else {
                    panic!("{sent:?} is not short")
                };
                let newest = changes.next().expect("each is vouched for by one");
                let (seq, hash) = (newest.seq(), newest.hash());
                let mut vouch = Vouch { key: document.key, device, start, seq, hash, own: None };
                change(&mut vouch);
                *sent = SentVouch::Whole(Signed::new(Domain::Vouch, &vouch, key));
            }
        }
    }
}

#[test]
fn forged_vouches_are_refused() {
    let author = SigningKey::from_bytes(&[1; 32]);
    let other = SigningKey::from_bytes(&[2; 32]);
    type Tamper<'a> = Box<dyn Fn(&mut SyncMessage) + 'a>;
    let cases: [(&str, Tamper<'_>); 4] = [
        ("a member vouches for another's", Box::new(|message| forge(message, |_| {}, &other))),
        (
            "a number that is not the change's",
            Box::new(|message| forge(message, |vouch| vouch.seq += 1, &author)),
        ),
        (
            "another document's",
            Box::new(|message| forge(message, |vouch| vouch.key.epoch += 1, &author)),
        ),
        (
            "a broken signature",
            Box::new(|message| {
                if let SyncMessage::Documents(documents) = message {
                    for sent in documents.iter_mut().flat_map(|document| &mut document.vouches) {
                        if let SentVouch::Newest { signature, .. } = sent {
                            signature[3] ^= 1;
                        }
                    }
                }
            }),
        ),
    ];
    for (what, change) in cases {
        let mut fabric = Fabric::new(2);
        fabric.open(0, 1);
        fabric.settle();
        fabric.nodes[0].edit(vec![create(1, "milk")]).unwrap();
        fabric.settle_tampered(0, 1, change);
        assert_eq!(fabric.nodes[1].content(1), None, "{what}");
        assert_eq!(fabric.nodes[1].replica.counts().parked, 1, "{what}");
    }
}

#[test]
fn what_a_revoked_device_wrote_before_is_kept_by_the_word_of_who_had_it() {
    let mut fabric = Fabric::new(3);
    let thief = fabric.nodes[0].me;
    fabric.open(0, 1);
    fabric.edit(0, vec![create(1, "milk")]);
    fabric.edit(1, vec![update(1, "more", "on top")]);
    fabric.close(0, 1);
    fabric.edit(0, vec![update(1, "late", "nobody has it")]);
    for at in [1, 2] {
        fabric.nodes[at].hear_revoke(thief);
    }
    fabric.settle();
    fabric.restart(1);
    fabric.open(1, 2);
    fabric.settle();
    let expected = fields(&[("text", "milk"), ("more", "on top")]);
    assert_eq!(fabric.nodes[2].content(1), Some(expected.clone()));
    fabric.open(0, 2);
    fabric.settle();
    assert_eq!(fabric.nodes[2].content(1), Some(expected), "what nobody had stays out");
    assert!(fabric.nodes[2].replica.counts().parked > 0);
}
