use std::io::Write as _;

use expect_test::expect;
use flate2::{Compression, write::DeflateEncoder};
use proptest::prelude::*;

use super::*;

fn actor(byte: u8) -> ActorId {
    ActorId::from_bytes([byte; 16])
}

fn time(millis: i64) -> WallTime {
    WallTime::from_unix_millis(millis)
}

fn note(byte: u8) -> Document {
    Document::new(&DocumentKind::NOTE, actor(byte)).unwrap()
}

fn text(entries: &[(&str, &str)]) -> Value {
    Value::map(entries.iter().map(|(key, value)| (*key, Value::from(*value))))
}

fn parse(bytes: &[u8]) -> Result<Change, ChunkError> {
    Change::parse(bytes, &mut (16 << 20))
}

/// Skeletons are in every document of every fabric: other bytes here are other documents.
#[test]
fn skeletons_never_change() {
    let hashes: Vec<_> = ["root", "registry", "settings", "note", "timer", "run"]
        .into_iter()
        .map(|kind| {
            let change = Document::skeleton(&kind.parse().unwrap()).unwrap();
            let hash: String = change.hash().0.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{kind} {hash}")
        })
        .collect();
    expect![[r#"
        root aa4ad0855048dfe381872ac66441f8ccbd5d9e27ec7e581c8a1df2f8dde2a4cf
        registry 261c7c1916f5cac073d61d6ff1e2770b12cadd97012e559ea850067e48fa560a
        settings 8c424dbb142d64d8f1c859120d19757c3e8d0b674225214f958d308841561032
        note e30969ede1e9b34706a7c45d53cc6819ae2f55bc440d9ada693f67810651dabb
        timer 50898fa9b9bd0b10afae83a7296c2bf078e0ca842cf0c9a20d046f1f2e8e36d1
        run 6a2c3b741a10fab641adc48921384fc4ad03d365440c4e4d40a6a4d25da1cedb"#]]
    .assert_eq(&hashes.join("\n"));
}

#[test]
fn a_document_is_the_same_whether_its_skeleton_is_made_or_kept() {
    let content = text(&[("title", "a")]);
    for number in 0..SKELETONS_MAX + 4 {
        let kind: DocumentKind = format!("kind{number}").parse().unwrap();
        let skeleton = Document::skeleton(&kind).unwrap();
        let made = Document { inner: empty(actor(1)), skeleton: skeleton.hash() };
        let (mut made, hash) = (made, skeleton.hash());
        made.apply(vec![skeleton]).unwrap();
        let edited = made.edit(&content, time(5)).unwrap().unwrap();
        for _ in 0..3 {
            let mut document = Document::new(&kind, actor(1)).unwrap();
            assert_eq!((document.heads(), document.skeleton_hash()), (vec![hash], hash));
            let change = document.edit(&content, time(5)).unwrap().unwrap();
            assert_eq!((change.bytes(), change.seq()), (edited.bytes(), 1));
            assert_eq!(document.save().unwrap(), made.save().unwrap());
        }
    }
    assert_eq!(SKELETONS.with_borrow(BTreeMap::len), SKELETONS_MAX);
}

#[test]
fn content_is_read_as_it_was_written() {
    let nested = Value::map([
        ("title", Value::from("a")),
        ("done", true.into()),
        ("count", 7.into()),
        ("part", Value::Float(0.5)),
        ("bytes", Value::Bytes(vec![1, 2, 3])),
        ("none", Value::List(vec![Value::Null])),
        ("list", Value::List(vec![1.into(), text(&[("deep", "x")]), Value::List(vec![])])),
        ("map", Value::map([("inner", text(&[("key", "value")]))])),
    ]);
    let mut document = note(1);
    let change = document.edit(&nested, time(5)).unwrap().unwrap();
    assert_eq!(document.content().unwrap(), nested);
    assert_eq!((change.actor(), change.seq(), change.time()), (actor(1), 1, time(5)));
    assert_eq!(document.edit(&nested, time(6)).unwrap().map(|change| change.hash()), None);
    assert_eq!(document.newest().unwrap(), (time(5), actor(1)));
    assert_eq!(document.clock().unwrap(), Clock([(actor(1), 1)].into()));
}

#[test]
fn an_edit_sets_what_it_names() {
    let mut document = note(1);
    let list = |values: &[i64]| Value::List(values.iter().map(|int| Value::Int(*int)).collect());
    document
        .edit(&Value::map([("a", "x".into()), ("b", "y".into()), ("l", list(&[1, 2, 3]))]), time(1))
        .unwrap();
    let edit = Value::map([("a", Value::Null), ("zz", Value::Null), ("l", list(&[1, 9, 3, 4]))]);
    document.edit(&edit, time(2)).unwrap();
    let expected = Value::map([("b", "y".into()), ("l", list(&[1, 9, 3, 4]))]);
    assert_eq!(document.content().unwrap(), expected);
    assert_eq!(
        document.edit(&text(&[("@kind", "root")]), time(3)).unwrap_err(),
        DocumentError::Content("fields that begin with @ are the fabric's own")
    );
    assert!(document.edit(&Value::Null, time(3)).is_err());
}

#[test]
fn entries_that_two_add_to_a_map_both_stay() {
    let mut one = Document::new(&DocumentKind::REGISTRY, actor(1)).unwrap();
    let mut other = Document::new(&DocumentKind::REGISTRY, actor(2)).unwrap();
    let agents = |name: &str| Value::map([("agents", text(&[(name, "1")]))]);
    let first = one.edit(&agents("notes"), time(1)).unwrap().unwrap();
    let second = other.edit(&agents("timer"), time(1)).unwrap().unwrap();
    one.apply(vec![second]).unwrap();
    other.apply(vec![first]).unwrap();
    assert_eq!(one.content().unwrap(), other.content().unwrap());
    let agents = one.content().unwrap();
    assert_eq!(agents.get("agents"), Some(&text(&[("notes", "1"), ("timer", "1")])));
}

#[test]
fn words_that_two_write_at_once_both_stay() {
    let mut one = note(1);
    let first = one.edit(&text(&[("text", "Milch für Øyvind 🥛")]), time(1)).unwrap().unwrap();
    let mut other = note(2);
    other.apply(vec![first]).unwrap();
    let left = one.edit(&text(&[("text", "Mehr Milch für Øyvind 🥛")]), time(2)).unwrap().unwrap();
    let right = other.edit(&text(&[("text", "Milch für Øyvind 🥛🥛")]), time(2)).unwrap().unwrap();
    one.apply(vec![right]).unwrap();
    other.apply(vec![left]).unwrap();
    for document in [one, other] {
        let expected = text(&[("text", "Mehr Milch für Øyvind 🥛🥛")]);
        assert_eq!(document.content().unwrap(), expected);
    }
}

#[test]
fn loads_what_was_saved() {
    let mut document = note(1);
    document.edit(&text(&[("a", "x")]), time(1)).unwrap();
    let saved = document.save().unwrap();
    let change = document.edit(&text(&[("b", "y")]), time(2)).unwrap().unwrap();
    let change = parse(change.bytes()).unwrap();
    let loaded = Document::load(&DocumentKind::NOTE, actor(2), Some(&saved), vec![change]).unwrap();
    assert_eq!(loaded.content().unwrap(), document.content().unwrap());
    assert_eq!(loaded.heads(), document.heads());
    assert!(Document::load(&DocumentKind::RUN, actor(2), Some(&saved), vec![]).is_err());
    let mut damaged = saved;
    damaged[20] ^= 1;
    assert!(Document::load(&DocumentKind::NOTE, actor(2), Some(&damaged), vec![]).is_err());
}

#[test]
fn applies_only_what_fits() {
    let mut document = note(1);
    let first = document.edit(&text(&[("a", "x")]), time(1)).unwrap().unwrap();
    let second = document.edit(&text(&[("a", "y")]), time(2)).unwrap().unwrap();
    assert!(note(2).apply(vec![second.clone()]).is_err(), "a dependency is missing");
    let mut other = note(2);
    other.apply(vec![first.clone(), second]).unwrap();
    assert_eq!(other.content().unwrap(), document.content().unwrap());

    // The same number of the same actor again, which is what a reused start would give.
    let mut twin = note(1);
    let other_first = twin.edit(&text(&[("a", "z")]), time(1)).unwrap().unwrap();
    assert_ne!(other_first.hash(), first.hash());
    assert!(document.apply(vec![other_first]).is_err());
}

#[test]
fn chunks_are_deflated_for_the_wire_and_parsed_again() {
    let mut document = note(1);
    let long = "all work and no play ".repeat(500);
    let change = document.edit(&text(&[("a", &long)]), time(1)).unwrap().unwrap();
    let chunk = change.to_chunk();
    assert!(chunk.0.len() < change.bytes().len() / 10);
    let mut budget = 16 << 20;
    let parsed = Change::parse(&chunk.0, &mut budget).unwrap();
    assert_eq!((parsed.hash(), parsed.bytes()), (change.hash(), change.bytes()));
    assert!(budget < 16 << 20);
    assert_eq!(Change::parse(&chunk.0, &mut 5_000).unwrap_err(), ChunkError::TooLarge);
}

fn uleb(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, kind], uleb(body.len() as u64).as_slice(), body].concat()
}

/// A change whose only column of operations is `column`.
fn with_column(specification: u64, column: &[u8]) -> Vec<u8> {
    let actor = [&[16], [1u8; 16].as_slice()].concat();
    // No dependencies; number 1, first operation 1, time 0, no message, no other actors.
    let head = [&[0], actor.as_slice(), &[1, 1, 0, 0, 0]].concat();
    let columns = [uleb(1), uleb(specification), uleb(column.len() as u64)].concat();
    chunk(1, &[head, columns, column.to_vec()].concat())
}

#[test]
fn bombs_are_refused() {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    for _ in 0..40 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let deflated = encoder.finish().unwrap();
    assert!(deflated.len() < 64 << 10);
    assert_eq!(parse(&chunk(2, &deflated)).unwrap_err(), ChunkError::TooLarge);

    let many = ChunkError::Malformed("too many operations");
    // 2^40 times an action, nulls, flags; 2^20 operations with 2^30 ancestors each.
    let run = |count: u64| [uleb(count), vec![1]].concat();
    let cases = [
        with_column(4 << 4 | 2, &run(1 << 40)),
        with_column(4 << 4 | 2, &[vec![0], uleb(1 << 40)].concat()),
        with_column(3 << 4 | 4, &uleb(1 << 40)),
        with_column(7 << 4, &[vec![1], uleb(1 << 30)].concat()),
    ];
    for bytes in cases {
        assert_eq!(parse(&bytes).unwrap_err(), many);
    }
    let deflated_column = with_column(4 << 4 | 8 | 2, &run(1));
    assert!(matches!(parse(&deflated_column), Err(ChunkError::Malformed(_))));
    for kind in [0, 3, 9] {
        assert_eq!(parse(&chunk(kind, &[])).unwrap_err(), ChunkError::Malformed("not a change"));
    }
}

proptest! {
    #[test]
    fn parsing_survives_arbitrary_bytes(bytes: Vec<u8>, kind in 0u8..4) {
        drop(parse(&bytes));
        drop(parse(&chunk(kind, &bytes)));
    }

    #[test]
    fn parsing_survives_mutated_changes(at: prop::sample::Index, byte: u8) {
        let mut document = note(1);
        let change = document.edit(&text(&[("a", "x"), ("b", "y")]), time(1)).unwrap().unwrap();
        let mut bytes = change.bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(parsed) = parse(&bytes) {
            // Only what has the hash that it says it has is taken.
            prop_assert_eq!(parsed.hash(), change.hash());
        }
    }

    #[test]
    fn words_become_what_was_written(versions in prop::collection::vec("[aö🥛 ]{0,12}", 1..6)) {
        let mut document = note(1);
        for (at, version) in versions.iter().enumerate() {
            document.edit(&text(&[("text", version)]), time(at as i64)).unwrap();
            prop_assert_eq!(document.content().unwrap(), text(&[("text", version)]));
            prop_assert!(document.edit(&text(&[("text", version)]), time(9)).unwrap().is_none());
        }
    }

    #[test]
    fn edits_give_the_same_bytes_again(words in prop::collection::vec("[a-z]{1,9}", 1..9)) {
        let make = || {
            let mut document = note(3);
            for (at, word) in words.iter().enumerate() {
                document.edit(&text(&[(word, "x"), ("last", word)]), time(at as i64)).unwrap();
            }
            document.save().unwrap()
        };
        prop_assert_eq!(make(), make());
    }
}
