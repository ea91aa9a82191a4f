//! A network that loses, repeats, turns around and cuts.

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Drop,
    Duplicate,
    Swap,
    Cut,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Drop),
        1 => Just(Fault::Duplicate),
        1 => Just(Fault::Swap),
        2 => Just(Fault::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever the network does, it ends on both sides, at most one device is added, and a joiner
    /// that says `paired` is in the fabric.
    #[test]
    fn a_bad_network_pairs_nobody_wrongly(faults in vec(fault(), 0..60), is_by_code: bool) {
        let begin = if is_by_code { Room::by_code } else { Room::new };
        let mut room = begin(Role::Member, BOTH_YES);
        let mut faults = faults.into_iter();
        for _ in 0..600 {
            room.act();
            let fault = faults.next().unwrap_or(Fault::None);
            let Some((id, to_guest, message)) = room.wire.pop_front() else {
                room.pass(Duration::from_secs(1));
                continue;
            };
            match fault {
                Fault::None => room.deliver(id, to_guest, message),
                Fault::Drop => {}
                Fault::Duplicate => {
                    room.deliver(id, to_guest, message.clone());
                    room.deliver(id, to_guest, message);
                }
                Fault::Swap => room.wire.push_back((id, to_guest, message)),
                Fault::Cut => room.cut(id),
            }
        }
        room.pass(Duration::from_secs(900));
        prop_assert!(room.outcome(0).is_some());
        prop_assert_eq!(room.outcomes.len(), 1);
        prop_assert!(room.admitted <= 1);
        prop_assert!(room.redemptions.len() <= 1);
        if room.outcome(0) == Some(Outcome::Paired) {
            prop_assert_eq!(room.replica.standing(PHONE), "active");
            prop_assert!(room.guests[0].joined.is_some());
        }
        if room.outcomes == [Outcome::Paired] {
            prop_assert_eq!(room.outcome(0), Some(Outcome::Paired));
        }
    }

    /// A connection that only breaks heals, as long as it breaks less often than it is made.
    #[test]
    fn a_connection_that_is_cut_once_still_pairs(at in 0usize..12, is_by_code: bool) {
        let begin = if is_by_code { Room::by_code } else { Room::new };
        let mut room = begin(Role::Member, BOTH_YES);
        room.act();
        let mut delivered = 0;
        while let Some((id, to_guest, message)) = room.wire.pop_front() {
            if delivered == at {
                room.cut(id);
            } else {
                room.deliver(id, to_guest, message);
            }
            delivered += 1;
            room.act();
        }
        room.pass(Duration::from_secs(10));
        prop_assert_eq!(room.outcome(0), Some(Outcome::Paired));
        prop_assert_eq!(room.admitted, 1);
    }
}
