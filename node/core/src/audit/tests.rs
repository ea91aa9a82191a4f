use proptest::prelude::*;
use weft_protocol::row::MemoryRows;

use super::*;

const BOTH: [Signatures; 2] = [Signatures::Checkpoints, Signatures::Every];

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn device() -> DeviceId {
    DeviceId::from_bytes(key().verifying_key().to_bytes())
}

fn action(n: u64) -> Body {
    Body::Operator { action: format!("action {n}") }
}

fn boot(counter: u64) -> BootId {
    BootId { counter, random: 7 }
}

fn opened(segment: u8, rows: &mut MemoryRows) -> Chain {
    let mut chain = Chain::open(key(), SegmentId::from_bytes([segment; 16]), rows).unwrap();
    rows.apply(chain.start(boot(segment.into()), WallTime::default()));
    chain
}

fn act(chain: &mut Chain, records: u64, rows: &mut MemoryRows) {
    for n in 0..records {
        rows.apply(chain.append(action(n), WallTime::default()).1);
    }
}

fn chain(records: u64) -> (MemoryRows, Chain) {
    let mut rows = MemoryRows::default();
    let mut chain = opened(1, &mut rows);
    act(&mut chain, records, &mut rows);
    (rows, chain)
}

/// What both ways of checking find, which is the same.
fn check(witnessed: &[Head], rows: &MemoryRows) -> Result<Checked, Fault> {
    let [quick, thorough] =
        BOTH.map(|signatures| verify(device(), witnessed.to_vec(), rows, signatures));
    assert_eq!(quick, thorough);
    quick
}

fn row(position: u64) -> Row {
    Row::numbered(Table::Audit, &[], position)
}

fn value(position: u64, rows: &MemoryRows) -> Vec<u8> {
    rows.get(&row(position)).unwrap().unwrap()
}

fn bodies(rows: &MemoryRows) -> Vec<Body> {
    let records = rows.scan_from(Table::Audit, &[], 0, usize::MAX).unwrap();
    records.into_iter().map(|(at, bytes)| read(at, &bytes).unwrap().1.body).collect()
}

#[test]
fn a_chain_verifies_over_starts_and_checkpoints() {
    let (mut rows, first) = chain(250);
    let second = opened(2, &mut rows);
    let checked = check(&[first.head().unwrap()], &rows).unwrap();
    assert_eq!(checked.records, 1 + 250 + 2 + 1);
    assert_eq!((checked.head, checked.setbacks), (second.head(), vec![]));
}

#[test]
fn each_kind_of_tampering_is_named() {
    let (rows, chain) = chain(20);
    let head = chain.head().unwrap();

    let mut missing = rows.clone();
    missing.apply([Write::Delete(row(7))]);
    assert_eq!(check(&[], &missing), Err(Fault::Missing(7)));

    let mut swapped = rows.clone();
    swapped.apply([Write::Put(row(7), value(8, &rows)), Write::Put(row(8), value(7, &rows))]);
    assert_eq!(check(&[], &swapped), Err(Fault::Moved { at: 7, says: 8 }));

    let mut changed = rows.clone();
    let (mut signed, mut record) = read(7, &value(7, &rows)).unwrap();
    record.body = action(99);
    signed.bytes = codec::encode(&record);
    changed.apply([Write::Put(row(7), codec::encode(&signed))]);
    assert_eq!(check(&[], &changed), Err(Fault::Forged(7)));

    let mut resigned = rows.clone();
    let record = Signed::new(Domain::Audit, &record, &key());
    resigned.apply([Write::Put(row(7), codec::encode(&record))]);
    assert_eq!(check(&[], &resigned), Err(Fault::Unchained(8)));

    let mut cut = rows.clone();
    cut.apply([Write::Delete(row(20))]);
    assert!(check(&[], &cut).is_ok());
    assert_eq!(check(&[head], &cut), Err(Fault::CutOff(20)));

    let mut rewritten = rows.clone();
    let mut last = read(20, &value(20, &rows)).unwrap().1;
    last.body = action(99);
    let last = Signed::new(Domain::Audit, &last, &key());
    rewritten.apply([Write::Put(row(20), codec::encode(&last))]);
    assert!(check(&[], &rewritten).is_ok());
    assert_eq!(check(&[head], &rewritten), Err(Fault::Rewritten(20)));
}

#[test]
fn whoever_rewrites_a_chain_without_its_key_is_named_at_the_first_record() {
    let (mut rows, _) = chain(150);
    let mut previous = read(41, &value(41, &rows)).unwrap().0.digest();
    for position in 42..=151 {
        let (mut signed, mut record) = read(position, &value(position, &rows)).unwrap();
        if position == 42 {
            record.body = action(99);
        }
        record.previous = Some(previous);
        signed.bytes = codec::encode(&record);
        previous = signed.digest();
        rows.apply([Write::Put(row(position), codec::encode(&signed))]);
    }
    assert_eq!(check(&[], &rows), Err(Fault::Forged(42)));
}

#[test]
fn a_checkpoint_follows_after_a_minute() {
    let (mut rows, mut chain) = chain(3);
    let now = |millis| Now { mono: Timestamp::from_millis(millis), wall: WallTime::default() };
    assert_eq!(chain.poll_timeout(), None, "nothing was handed over");
    chain.handed_over(now(5_000).mono);
    rows.apply(chain.append(action(3), WallTime::default()).1);
    chain.handed_over(now(50_000).mono);
    assert_eq!(chain.poll_timeout(), Some(Timestamp::from_millis(65_000)));
    assert_eq!(chain.handle_timeout(now(64_999)), vec![]);
    let checkpoint = chain.handle_timeout(now(65_000));
    assert_eq!(checkpoint.len(), 1);
    rows.apply(checkpoint);
    chain.handed_over(now(65_000).mono);
    assert_eq!(chain.poll_timeout(), None, "all is covered");
    assert!(matches!(bodies(&rows)[5], Body::Checkpoint { .. }));
    assert_eq!(check(&[], &rows).unwrap().records, 6);
}

#[test]
fn a_disk_that_was_set_back_shows_as_a_gap_that_the_chain_owns_up_to() {
    let (mut rows, first) = chain(14);
    let old = rows.clone();
    let mut before = first;
    act(&mut before, 6, &mut rows);
    let (lost, earlier) = (before.head().unwrap(), before.head_at(17, &rows).unwrap().unwrap());
    assert_eq!(lost.position, 20);

    let mut rows = old;
    let mut chain = opened(2, &mut rows);
    assert_eq!(check(&[lost], &rows), Err(Fault::CutOff(20)));
    rows.apply(chain.recover(SegmentId::from_bytes([3; 16]), boot(2), lost, WallTime::default()));
    act(&mut chain, 2, &mut rows);
    // What any device countersigned before or since is accounted for.
    let checked = check(&[earlier, lost, chain.head().unwrap()], &rows).unwrap();
    assert_eq!((checked.records, checked.head), (15 + 2 + 3, chain.head()));
    let setback = Setback { at: 21, lost, missing: Some((17, 20)) };
    assert_eq!(checked.setbacks, [setback]);
    assert_eq!(
        setback.to_string(),
        "records 17 to 20 are missing: the disk was set back; recovered at record 21"
    );

    // No more may be missing than it says, and nothing but what it says was lost.
    let mut cut = rows.clone();
    cut.apply([Write::Delete(row(16))]);
    assert_eq!(check(&[], &cut), Err(Fault::Unchained(21)));
    let mut cut = rows.clone();
    cut.apply([Write::Delete(row(22))]);
    assert_eq!(check(&[], &cut), Err(Fault::Missing(22)));
    let other = Head { segment: SegmentId::from_bytes([8; 16]), ..lost };
    assert_eq!(check(&[other], &rows), Err(Fault::Missing(20)));
    let further = Head { position: 30, ..lost };
    assert_eq!(check(&[further], &rows), Err(Fault::CutOff(30)));

    // It goes on over further starts.
    opened(4, &mut rows);
    assert_eq!(check(&[lost], &rows).unwrap().setbacks, [setback]);
}

#[test]
fn records_that_were_written_anew_on_a_disk_that_was_set_back_are_owned_up_to() {
    let (mut rows, mut first) = chain(14);
    let old = rows.clone();
    act(&mut first, 6, &mut rows);
    let lost = first.head().unwrap();

    let mut rows = old;
    let mut chain = opened(2, &mut rows);
    act(&mut chain, 30, &mut rows);
    assert_eq!(check(&[lost], &rows), Err(Fault::Rewritten(20)));
    rows.apply(chain.recover(SegmentId::from_bytes([3; 16]), boot(2), lost, WallTime::default()));
    let checked = check(&[lost, chain.head().unwrap()], &rows).unwrap();
    // A checkpoint closes the segment that was under way.
    assert_eq!(checked.setbacks, [Setback { at: 47, lost, missing: None }]);
    assert_eq!(
        checked.setbacks[0].to_string(),
        "records up to 20 were written anew: the disk was set back; recovered at record 47"
    );
}

#[test]
fn a_device_that_rewrites_its_own_segment_cannot_talk_itself_out() {
    let (rows, mut first) = chain(14);
    let shown = first.head().unwrap();
    let mut rows_of_another = MemoryRows::default();
    let mut chain = opened(1, &mut rows_of_another);
    act(&mut chain, 13, &mut rows_of_another);
    rows_of_another.apply(chain.append(action(99), WallTime::default()).1);
    rows_of_another.apply(chain.recover(
        SegmentId::from_bytes([3; 16]),
        boot(1),
        shown,
        WallTime::default(),
    ));
    assert_eq!(check(&[shown], &rows_of_another), Err(Fault::Rewritten(14)));
    assert!(first.append(action(1), WallTime::default()).0 == 15 && check(&[shown], &rows).is_ok());
}

#[test]
fn what_no_disk_takes_leaves_a_chain_without_a_gap() {
    let (mut rows, mut chain) = chain(3);
    chain.handed_over(Timestamp::ZERO);
    let (_, mut one) = chain.append(action(10), WallTime::default());
    let (refused, mut two) = chain.append(action(11), WallTime::default());
    two.push(Write::Delete(Row::named(Table::Run, b"run", b"step")));
    let (_, mut three) = chain.append(action(12), WallTime::default());
    let stand_ins = chain.withdraw(&mut [(&mut one, false), (&mut two, true), (&mut three, false)]);
    assert_eq!(two, [Write::Delete(Row::named(Table::Run, b"run", b"step"))]);
    rows.apply(one);
    rows.apply(stand_ins);
    rows.apply(three);
    chain.handed_over(Timestamp::ZERO);
    act(&mut chain, 1, &mut rows);
    assert_eq!(bodies(&rows)[4..], [action(10), Body::Withdrawn, action(12), action(0)]);
    assert_eq!(refused, 5);
    assert_eq!(check(&[], &rows).unwrap().head, chain.head());
}

/// How a chain is spoiled.
#[derive(Clone, Debug)]
enum Tampering {
    Flip { at: u64, byte: usize, by: u8 },
    Delete { at: u64 },
    Swap { at: u64, with: u64 },
    Copy { at: u64, from: u64 },
    CutOff { at: u64 },
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        3 => (any::<u64>(), any::<usize>(), 1..=255_u8)
            .prop_map(|(at, byte, by)| Tampering::Flip { at, byte, by }),
        1 => any::<u64>().prop_map(|at| Tampering::Delete { at }),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(at, with)| Tampering::Swap { at, with }),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(at, from)| Tampering::Copy { at, from }),
        1 => any::<u64>().prop_map(|at| Tampering::CutOff { at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Both ways of checking name the very record, whichever it is and however it was spoiled.
    #[test]
    fn whatever_is_done_to_a_record_is_named(
        starts in prop::collection::vec(0..160_u64, 1..4),
        tampering in tampering(),
    ) {
        let mut rows = MemoryRows::default();
        let mut head = None;
        for (segment, records) in (1..).zip(starts) {
            let mut chain = opened(segment, &mut rows);
            act(&mut chain, records, &mut rows);
            head = chain.head();
        }
        let head = head.unwrap();
        let len = head.position + 1;
        prop_assert_eq!(check(&[head], &rows).map(|it| it.records), Ok(len));
        let spoiled = match tampering {
            Tampering::Flip { at, byte, by } => {
                let at = at % len;
                let mut value = value(at, &rows);
                let byte = byte % value.len();
                value[byte] ^= by;
                rows.apply([Write::Put(row(at), value)]);
                at
            }
            Tampering::Delete { at } => {
                rows.apply([Write::Delete(row(at % len))]);
                at % len
            }
            Tampering::Swap { at, with } => {
                let (at, with) = (at % len, with % len);
                prop_assume!(at != with);
                let (one, other) = (value(at, &rows), value(with, &rows));
                rows.apply([Write::Put(row(at), other), Write::Put(row(with), one)]);
                at.min(with)
            }
            Tampering::Copy { at, from } => {
                let (at, from) = (at % len, from % len);
                prop_assume!(at != from);
                let other = value(from, &rows);
                rows.apply([Write::Put(row(at), other)]);
                at
            }
            Tampering::CutOff { at } => {
                let at = at % len;
                rows.apply((at..len).map(|at| Write::Delete(row(at))));
                prop_assert_eq!(check(&[head], &rows), Err(Fault::CutOff(head.position)));
                return Ok(());
            }
        };
        // The last record is missed by who countersigned it alone.
        let fault = check(&[head], &rows).unwrap_err();
        prop_assert_eq!(fault.position(), spoiled, "{}", fault);
    }

    /// Of batches of any order, some of which no disk takes, what is written makes a whole chain with
    /// each record in its place, and those withdrawn in theirs.
    #[test]
    fn a_chain_is_whole_whatever_is_withdrawn(
        turns in prop::collection::vec(
            prop::collection::vec((1..60_u64, prop::bool::weighted(0.2)), 1..5),
            1..5,
        ),
    ) {
        let (mut rows, mut chain) = chain(0);
        chain.handed_over(Timestamp::ZERO);
        let mut expected = vec![None];
        let mut n = 0;
        for turn in turns {
            let mut batches: Vec<(Vec<Write>, bool)> = Vec::new();
            for (records, refused) in turn {
                let mut writes = Vec::new();
                for _ in 0..records {
                    n += 1;
                    writes.extend(chain.append(action(n), WallTime::default()).1);
                    expected.push(Some(if refused { Body::Withdrawn } else { action(n) }));
                }
                batches.push((writes, refused));
            }
            let mut views: Vec<_> =
                batches.iter_mut().map(|(writes, refused)| (writes, *refused)).collect();
            let stand_ins = chain.withdraw(&mut views);
            chain.handed_over(Timestamp::ZERO);
            rows.apply(stand_ins);
            for (writes, refused) in batches {
                prop_assert!(!refused || writes.is_empty());
                rows.apply(writes);
            }
            let checked = check(&[], &rows);
            prop_assert_eq!(checked.map(|it| it.head), Ok(chain.head()));
        }
        let kept: Vec<Option<Body>> = bodies(&rows)
            .into_iter()
            .filter(|body| !matches!(body, Body::Checkpoint { .. }))
            .map(|body| (!matches!(body, Body::Segment { .. })).then_some(body))
            .collect();
        prop_assert_eq!(kept, expected);
    }
}
