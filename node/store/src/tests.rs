use std::{
    collections::BTreeMap,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng as _};
use redb::ReadableTable as _;
use weft_protocol::row::Durability;

use super::*;
use crate::{
    Batch,
    fault::{self, FaultBackend},
};

#[path = "tests/cache.rs"]
mod cache;
#[path = "tests/unwritten.rs"]
mod unwritten;

const TABLES: [Table; 4] = [Table::Audit, Table::Run, Table::Change, Table::Peer];

type Model = BTreeMap<Row, Vec<u8>>;

fn key() -> StoreKey {
    StoreKey::from([3; 32])
}

/// A file in a home that is gone when the test ends.
fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("node/store");
    (home, path)
}

fn open_on(disk: &FaultBackend, mode: Mode) -> Result<Store, OpenError> {
    open_cached(disk, mode, CACHE_BYTES)
}

fn open_cached(disk: &FaultBackend, mode: Mode, cache_bytes: usize) -> Result<Store, OpenError> {
    let mode = if disk.current().is_empty() { Mode::New } else { mode };
    let inner = Inner::open(disk.clone(), &key(), mode, cache_bytes, Path::new("memory"))?;
    Ok(Store::start(inner, Reserve::new(PathBuf::new())).unwrap())
}

/// Submits and waits.
fn write(store: &Store, writes: Vec<Write>, durability: Durability) -> Result<(), WriteError> {
    let (done, outcome) = mpsc::channel();
    store.writer().submit(Batch { writes, durability }, move |result| done.send(result).unwrap());
    outcome.recv().unwrap()
}

fn put(store: &Store, row: &Row, value: &[u8]) {
    write(store, vec![Write::Put(row.clone(), value.to_vec())], Durability::Synced).unwrap();
}

/// All rows.
fn dump(store: &Store) -> Model {
    TABLES.iter().flat_map(|table| store.scan_table(*table).unwrap()).collect()
}

/// The file of a store that was made and closed.
fn empty_store() -> Vec<u8> {
    let disk = FaultBackend::default();
    open_on(&disk, Mode::New).unwrap().close().unwrap();
    disk.current()
}

fn below(rng: &mut impl Rng, n: u32) -> u32 {
    rng.next_u32() % n
}

/// A batch over few enough rows that they are often overwritten and removed.
fn random_batch(rng: &mut ChaCha8Rng) -> Batch {
    let writes = (0..=below(rng, 5))
        .map(|_| {
            let table = TABLES[below(rng, 4) as usize];
            let scope = [b"".as_slice(), b"one", b"two"][below(rng, 3) as usize];
            let row = match below(rng, 2) {
                0 => Row::named(table, scope, &[below(rng, 4) as u8]),
                _ => Row::numbered(table, scope, u64::from(below(rng, 4))),
            };
            match below(rng, 4) {
                0 => Write::Delete(row),
                _ => {
                    let len = [0, 40, 700, 9000][below(rng, 4) as usize];
                    let mut value = vec![0; len];
                    rng.fill_bytes(&mut value);
                    Write::Put(row, value)
                }
            }
        })
        .collect();
    let durability = if below(rng, 3) == 0 { Durability::Ordered } else { Durability::Synced };
    Batch { writes, durability }
}

/// The states after each of `batches`, the empty one first.
fn models(batches: &[Batch]) -> Vec<Model> {
    let mut models = vec![Model::new()];
    for batch in batches {
        let mut model = models.last().unwrap().clone();
        for write in &batch.writes {
            match write {
                Write::Put(row, value) => drop(model.insert(row.clone(), value.clone())),
                Write::Delete(row) => drop(model.remove(row)),
            }
        }
        models.push(model);
    }
    models
}

/// How many batches were acknowledged: all of them, and up to the last synced one.
#[derive(Clone, Copy, Default, Debug)]
struct Acknowledged {
    any: usize,
    synced: usize,
}

/// Submits `batches` in bursts, the acknowledgements counted outside the store.
fn run(store: &Store, batches: &[Batch], counted: &Arc<Mutex<Acknowledged>>, rng: &mut impl Rng) {
    let writer = store.writer();
    let mut at = 0;
    while at < batches.len() {
        let end = (at + 1 + below(rng, 6) as usize).min(batches.len());
        let (done, outcome) = mpsc::channel();
        for (at, batch) in batches.iter().enumerate().take(end).skip(at) {
            let (counted, done, synced) =
                (Arc::clone(counted), done.clone(), batch.durability == Durability::Synced);
            writer.submit(batch.clone(), move |result| {
                if result.is_ok() {
                    let mut counted = counted.lock().unwrap();
                    assert_eq!(counted.any, at, "acknowledged out of order, or after a failure");
                    counted.any = at + 1;
                    if synced {
                        counted.synced = at + 1;
                    }
                }
                done.send(()).unwrap();
            });
        }
        drop(done);
        assert_eq!(outcome.iter().count(), end - at, "each batch is answered once");
        at = end;
    }
}

/// That `found` is the state after at least `least` of the batches.
fn assert_prefix(found: &Model, models: &[Model], least: usize, context: &str) {
    assert!(
        models[least..].contains(found),
        "{context}: not the state after {least} or more batches; after {:?}",
        models.iter().position(|model| model == found)
    );
}

#[test]
fn what_is_written_is_read_back_by_row_scope_number_and_table() {
    let (_home, path) = home();
    let store = Store::open(&path, &key()).unwrap();
    let rows = [
        (Row::named(Table::Peer, b"b", b"name"), b"1".to_vec()),
        (Row::named(Table::Peer, b"", b""), b"".to_vec()),
        (Row::named(Table::Peer, b"b", b"another"), vec![7; 300_000]),
        (Row::numbered(Table::Peer, b"b", 0), b"zero".to_vec()),
        (Row::numbered(Table::Peer, b"b", 256), b"256".to_vec()),
        (Row::numbered(Table::Peer, b"b", 3), b"three".to_vec()),
        (Row::numbered(Table::Run, b"b", 9), b"other table".to_vec()),
    ];
    let writes = rows.iter().map(|(row, value)| Write::Put(row.clone(), value.clone())).collect();
    write(&store, writes, Durability::Synced).unwrap();
    store.close().unwrap();

    let store = Store::open(&path, &key()).unwrap();
    for (row, value) in &rows {
        assert_eq!(store.get(row).unwrap().as_ref(), Some(value), "{row:?}");
    }
    assert_eq!(store.get(&Row::numbered(Table::Run, b"b", 3)).unwrap(), None);
    let numbers = |found: Vec<(Item, Vec<u8>)>| {
        found.into_iter().map(|(item, value)| (item, value.len())).collect::<Vec<_>>()
    };
    let named = |name: &[u8]| Item::Named(name.to_vec());
    assert_eq!(
        numbers(store.scan(Table::Peer, b"b").unwrap()),
        [
            (named(b"another"), 300_000),
            (named(b"name"), 1),
            (Item::Numbered(0), 4),
            (Item::Numbered(3), 5),
            (Item::Numbered(256), 3)
        ]
    );
    assert_eq!(
        numbers(store.scan_from(Table::Peer, b"b", 1, 1).unwrap()),
        [(Item::Numbered(3), 5)]
    );
    assert_eq!(
        numbers(store.scan_from(Table::Peer, b"b", 3, 9).unwrap()),
        [(Item::Numbered(3), 5), (Item::Numbered(256), 3)]
    );
    assert_eq!(store.scan_from(Table::Peer, b"b", 257, 9).unwrap(), []);
    assert_eq!(
        store.scan_last(Table::Peer, b"b").unwrap(),
        Some((Item::Numbered(256), b"256".to_vec()))
    );
    assert_eq!(store.scan_last(Table::Peer, b"").unwrap(), None);
    let mut expected: Vec<_> = rows[..6].to_vec();
    expected.sort();
    assert_eq!(store.scan_table(Table::Peer).unwrap(), expected);
    write(&store, vec![Write::Delete(rows[4].0.clone())], Durability::Synced).unwrap();
    assert_eq!(
        store.scan_last(Table::Peer, b"b").unwrap(),
        Some((Item::Numbered(3), b"three".to_vec()))
    );
}

#[test]
fn a_new_store_is_readable_by_its_owner_only() {
    let (_home, path) = home();
    let store = Store::open(&path, &key()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(parent(&path)), 0o700);
    assert_eq!(mode(&parent(&path).join("reserve")), 0o600);
    drop(store);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let _store = Store::open(&path, &key()).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_crash_while_the_store_is_made_is_no_store_and_no_harm() {
    let (_home, path) = home();
    fs::create_dir(parent(&path)).unwrap();
    let unfinished = parent(&path).join("store.new-0123456789abcdef");
    fs::write(&unfinished, [0; 5000]).unwrap();
    let neighbour = parent(&path).join("store.news");
    fs::write(&neighbour, []).unwrap();
    drop(Store::open(&path, &key()).unwrap());
    assert!(!unfinished.exists() && neighbour.exists());
    let mut names: Vec<_> =
        fs::read_dir(parent(&path)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["reserve", "store", "store.news"]);
}

#[test]
fn a_store_begins_with_its_rows_or_not_at_all() {
    let (_home, path) = home();
    fs::create_dir(parent(&path)).unwrap();
    let names = || fs::read_dir(parent(&path)).unwrap().count();
    let row = Row::named(Table::Node, b"", b"name");
    let put = |value: &[u8]| [Write::Put(row.clone(), value.to_vec())];

    let too_large =
        [put(b"laptop"), put(&vec![0; weft_protocol::row::VALUE_BYTES_MAX + 1])].concat();
    let error = Store::create(&path, &key(), &too_large).unwrap_err();
    assert!(error.to_string().contains("at most"), "{error}");
    assert_eq!(names(), 0, "nothing is left of it");

    Store::create(&path, &key(), &put(b"laptop")).unwrap();
    assert_eq!(names(), 1);
    let taken = Store::create(&path, &key(), &put(b"phone")).unwrap_err();
    assert!(
        matches!(&taken, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists),
        "{taken}"
    );
    assert_eq!(names(), 1);
    let store = Store::open(&path, &key()).unwrap();
    assert_eq!(store.get(&row).unwrap().as_deref(), Some(&b"laptop"[..]));
}

#[test]
fn another_key_a_second_node_and_a_newer_store_are_refused() {
    let (_home, path) = home();
    let store = Store::open(&path, &key()).unwrap();
    put(&store, &Row::named(Table::Node, b"", b"name"), b"laptop");
    let error = Store::open(&path, &key()).unwrap_err();
    assert_eq!(error.to_string(), "open the store: the home is in use by another node");
    drop(store);

    let error = Store::open(&path, &StoreKey::from([4; 32])).unwrap_err();
    assert!(matches!(error, OpenError::WrongKey), "{error}");
    drop(Store::open(&path, &key()).unwrap());

    let raw = Database::create(&path).unwrap();
    let change = raw.begin_write().unwrap();
    {
        let mut table = change.open_table(HEADER).unwrap();
        let mut header = table.get(HEADER_KEY).unwrap().unwrap().value().to_vec();
        header[0] = VERSION + 1;
        table.insert(HEADER_KEY, header.as_slice()).unwrap();
    }
    change.commit().unwrap();
    drop(raw);
    let error = Store::open(&path, &key()).unwrap_err();
    assert_eq!(error.to_string(), "open the store: it was made by a newer weft (format 2)");
}

#[test]
fn a_file_that_is_no_store_is_damaged() {
    let (_home, path) = home();
    fs::create_dir(parent(&path)).unwrap();
    for content in [b"not a store".to_vec(), vec![0; 5000]] {
        fs::write(&path, content).unwrap();
        let error = Store::open(&path, &key()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
}

#[test]
fn the_file_shows_no_name_and_no_value() {
    let (_home, path) = home();
    let store = Store::open(&path, &key()).unwrap();
    for n in 0..200u32 {
        let canary = |what: &str| format!("canary-{what}-{n}").into_bytes();
        let row = Row::named(Table::Key, &canary("scope"), &canary("name"));
        put(&store, &row, &canary("value").repeat(1 + n as usize));
        put(&store, &Row::numbered(Table::Audit, &canary("chain"), 1), &canary("record"));
    }
    let live = fs::read(&path).unwrap();
    store.close().unwrap();
    let closed = fs::read(&path).unwrap();
    for bytes in [live, closed] {
        assert!(bytes.len() > 100_000);
        assert!(!bytes.windows(7).any(|window| window == b"canary-"));
    }
}

#[test]
fn values_that_changed_places_are_damage() {
    let (_home, path) = home();
    let rows = [
        Row::named(Table::Run, b"a", b"x"),
        Row::named(Table::Run, b"b", b"x"),
        Row::numbered(Table::Audit, b"a", 1),
        Row::numbered(Table::Audit, b"a", 2),
    ];
    let sealer = Sealer::new(&key());
    for (one, other) in [(0, 1), (2, 3), (0, 2)] {
        let store = Store::open(&path, &key()).unwrap();
        for row in &rows {
            put(&store, row, b"value");
        }
        drop(store);
        let raw = Database::create(&path).unwrap();
        let change = raw.begin_write().unwrap();
        {
            let mut table = change.open_table(ROWS).unwrap();
            let keys = [sealer.key(&rows[one]), sealer.key(&rows[other])];
            let values = keys
                .clone()
                .map(|key| table.get(key.as_slice()).unwrap().unwrap().value().to_vec());
            table.insert(keys[0].as_slice(), values[1].as_slice()).unwrap();
            table.insert(keys[1].as_slice(), values[0].as_slice()).unwrap();
        }
        change.commit().unwrap();
        drop(raw);
        let store = Store::open(&path, &key()).unwrap();
        for (at, row) in rows.iter().enumerate() {
            if at == one || at == other {
                assert_eq!(store.get(row), Err(ReadError::Damaged { table: row.table }));
            } else {
                assert_eq!(store.get(row).unwrap().as_deref(), Some(&b"value"[..]));
            }
        }
        let readable = store.scan_readable(rows[one].table).unwrap();
        assert_eq!(readable.rows.len() + readable.damaged, 2);
        assert!(readable.damaged > 0);
        assert_eq!(
            store.scan_table(rows[one].table),
            Err(ReadError::Damaged { table: rows[one].table })
        );
    }
}

#[test]
fn a_bit_flipped_in_a_value_costs_that_row_only() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let rows = [Row::named(Table::Run, b"", b"one"), Row::numbered(Table::Audit, b"", 1)];
    for row in &rows {
        put(&store, row, &[5; 100]);
    }
    let sealed = {
        let read = store.inner.db().begin_read().unwrap().open_table(ROWS).unwrap();
        let key = store.inner.sealer.key(&rows[1]);
        read.get(key.as_slice()).unwrap().unwrap().value().to_vec()
    };
    store.close().unwrap();
    let mut image = disk.current();
    let places: Vec<_> = image
        .windows(sealed.len())
        .enumerate()
        .filter_map(|(at, bytes)| (bytes == sealed).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        image[at + 60] ^= 1;
    }
    let error = open_on(&FaultBackend::with(image.clone()), Mode::Verified).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    let store = open_on(&FaultBackend::with(image), Mode::Salvage).unwrap();
    assert_eq!(store.get(&rows[0]).unwrap(), Some(vec![5; 100]));
    let error = store.get(&rows[1]).unwrap_err();
    assert_eq!(error.to_string(), "read table audit: a row is damaged");
    assert_eq!(store.scan_last(Table::Audit, b"").unwrap_err(), error);
    let readable = store.scan_readable(Table::Audit).unwrap();
    assert_eq!(readable, Readable { rows: vec![], damaged: 1 });
}

#[test]
fn a_flipped_bit_is_never_misread() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let mut model = Model::new();
    for n in 0..120u8 {
        let table = TABLES[usize::from(n) % 4];
        let row = Row::named(table, &[n % 7], &[n]);
        let value = vec![n; usize::from(n) * 8];
        put(&store, &row, &value);
        model.insert(row, value);
    }
    store.close().unwrap();
    let image = disk.current();

    let (mut refused, mut named, mut harmless) = (0, 0, 0);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for _ in 0..1000u32 {
        let mut flipped = image.clone();
        let bit = rng.next_u64() as usize % (flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        match open_on(&FaultBackend::with(flipped.clone()), Mode::Verified) {
            Ok(store) => {
                assert_eq!(dump(&store), model, "bit {bit}");
                harmless += 1;
            }
            Err(error) => {
                assert!(!matches!(error, OpenError::InUse | OpenError::DiskFull), "{error}");
                refused += 1;
                // redb panics on some of them, and each panic takes its time.
                if refused % 4 != 0 {
                    continue;
                }
                let disk = FaultBackend::with(flipped.clone());
                let Ok(store) = open_on(&disk, Mode::Salvage) else { continue };
                let damaged = model
                    .iter()
                    .filter(|(row, value)| match store.get(row) {
                        Ok(Some(found)) => {
                            assert_eq!(found, **value, "bit {bit} misread {row:?}");
                            false
                        }
                        Ok(None) => false,
                        Err(ReadError::Damaged { table }) => table == row.table,
                        Err(error @ ReadError::Disk { .. }) => panic!("bit {bit}: {error}"),
                    })
                    .count();
                named += usize::from(damaged > 0);
                let refused = write(&store, vec![], Durability::Synced);
                assert_eq!(refused, Err(WriteError::ReadOnly));
                drop(store);
                assert_eq!(disk.current(), flipped, "salvage writes nothing");
            }
        }
    }
    eprintln!("1000 flips: {harmless} in unused bytes, {refused} refused, {named} named a table");
    assert!(refused > 100 && named > 20);
}

#[test]
fn a_power_cut_at_any_sync_keeps_what_was_acknowledged_as_synced() {
    let mut cuts = 0;
    for seed in 0..3 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let batches: Vec<_> = (0..100).map(|_| random_batch(&mut rng)).collect();
        let counted = Arc::new(Mutex::new(Acknowledged::default()));
        let images = Arc::new(Mutex::new(Vec::new()));
        let disk = FaultBackend::with(empty_store());
        {
            let (counted, images) = (Arc::clone(&counted), Arc::clone(&images));
            let mut rng = ChaCha8Rng::seed_from_u64(seed + 1000);
            disk.on_sync(move |durable, unsynced| {
                let synced = counted.lock().unwrap().synced;
                let mut images = images.lock().unwrap();
                images.push((synced, durable.to_vec()));
                for _ in 0..3 {
                    images.push((synced, fault::cut(durable, unsynced, &mut rng)));
                }
            });
        }
        let store = open_on(&disk, Mode::Verified).unwrap();
        run(&store, &batches, &counted, &mut rng);
        store.close().unwrap();
        assert_eq!(counted.lock().unwrap().any, batches.len());

        let models = models(&batches);
        for (at, (synced, image)) in images.lock().unwrap().drain(..).enumerate() {
            let context = format!("seed {seed}, image {at}");
            let store = open_on(&FaultBackend::with(image), Mode::Verified)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_prefix(&dump(&store), &models, synced, &context);
            cuts += 1;
        }
        let store = open_on(&FaultBackend::with(disk.durable()), Mode::Verified).unwrap();
        assert_eq!(&dump(&store), models.last().unwrap());
    }
    eprintln!("{cuts} images of power cuts opened");
    assert!(cuts >= 400, "{cuts}");
}

#[test]
fn after_the_nth_operation_failed_nothing_is_acknowledged_or_written_and_reads_go_on() {
    let batches: Vec<_> = {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        (0..30).map(|_| random_batch(&mut rng)).collect()
    };
    let models = models(&batches);
    let mut met = [0; 2];
    for n in 1..=200 {
        let which = n as usize % 2;
        let (kind, expected) = [
            (io::ErrorKind::StorageFull, WriteError::DiskFull),
            (io::ErrorKind::Other, WriteError::Disk { why: "other error".to_owned() }),
        ][which]
            .clone();
        let context = format!("operation {n}, {kind}");
        let mut rng = ChaCha8Rng::seed_from_u64(n);
        let disk = FaultBackend::with(empty_store());
        disk.fail_at(n, kind);
        let counted = Arc::new(Mutex::new(Acknowledged::default()));
        match open_on(&disk, Mode::Verified) {
            Err(OpenError::DiskFull) => assert_eq!(kind, io::ErrorKind::StorageFull),
            Err(OpenError::Disk { .. }) => assert_eq!(kind, io::ErrorKind::Other),
            Err(error) => panic!("{context}: {error}"),
            Ok(store) => {
                run(&store, &batches, &counted, &mut rng);
                let counted = *counted.lock().unwrap();
                assert_prefix(&dump(&store), &models, counted.any, &context);
                if disk.operations() < n {
                    assert_eq!(counted.any, batches.len());
                    continue;
                }
                met[which] += 1;
                assert_eq!(store.failure(), Some(expected.clone()), "{context}");
                let again = write(&store, vec![], Durability::Ordered);
                assert_eq!(again, Err(expected.clone()), "{context}");
                assert_eq!(store.close(), Err(expected), "{context}");
            }
        }
        assert_eq!(disk.operations(), n, "{context}: the disk was touched after it failed");
        let image = if below(&mut rng, 2) == 0 { disk.cut(&mut rng) } else { disk.current() };
        let store = open_on(&FaultBackend::with(image), Mode::Verified)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        let synced = counted.lock().unwrap().synced;
        assert_prefix(&dump(&store), &models, synced, &context);
    }
    eprintln!("failures met after opening: {met:?}");
    assert!(met.iter().all(|met| *met > 50));
}

#[test]
fn after_a_failure_rows_that_are_not_in_memory_are_read() {
    for after in [1, 3, 40] {
        let disk = FaultBackend::default();
        let store = open_on(&disk, Mode::Verified).unwrap();
        let rows: Vec<_> = (0..40).map(|n| Row::numbered(Table::Change, b"", n)).collect();
        let value = |n: usize| vec![n as u8; CACHE_BYTES / 16];
        for (n, row) in rows.iter().enumerate() {
            put(&store, row, &value(n));
        }
        disk.fail_at(disk.operations() + after, io::ErrorKind::StorageFull);
        let writes = rows.iter().take(20).cloned().map(|row| Write::Put(row, value(99))).collect();
        assert_eq!(write(&store, writes, Durability::Synced), Err(WriteError::DiskFull));
        let read = |row| store.get(row).unwrap().unwrap();
        let changed = read(&rows[0]) == value(99);
        for (n, row) in rows.iter().enumerate() {
            let expected = if changed && n < 20 { value(99) } else { value(n) };
            assert!(read(row) == expected, "row {n}, failed at {after}");
        }
    }
}

#[test]
fn an_ordered_batch_is_read_at_once_and_on_disk_after_the_window() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let row = Row::numbered(Table::Audit, b"", 1);
    let on_disk = || {
        let store = open_on(&FaultBackend::with(disk.durable()), Mode::Verified).unwrap();
        store.get(&row).unwrap()
    };
    let before = disk.operations();
    let begun = Instant::now();
    write(&store, vec![Write::Put(row.clone(), b"record".to_vec())], Durability::Ordered).unwrap();
    assert_eq!(store.get(&row).unwrap().as_deref(), Some(&b"record"[..]));
    if begun.elapsed() < Duration::from_millis(30) {
        assert_eq!(disk.operations(), before, "acknowledged before the disk was touched");
        assert_eq!(on_disk(), None);
    }
    while on_disk().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the window never closed");
        std::thread::sleep(Duration::from_millis(5));
    }
    let operations = disk.operations();
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(disk.operations(), operations, "an idle store leaves the disk alone");

    // A synced batch takes the ordered ones before it along.
    let other = Row::numbered(Table::Audit, b"", 2);
    let (done, outcome) = mpsc::channel();
    for (row, durability) in [(&row, Durability::Ordered), (&other, Durability::Synced)] {
        let writes = vec![Write::Put(row.clone(), b"second".to_vec())];
        let done = done.clone();
        store.writer().submit(Batch { writes, durability }, move |it| done.send(it).unwrap());
    }
    assert_eq!(outcome.recv().unwrap(), Ok(()));
    assert_eq!(outcome.recv().unwrap(), Ok(()));
    assert_eq!(on_disk().as_deref(), Some(&b"second"[..]));
}

#[test]
fn batches_that_wait_share_a_sync() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let syncs = Arc::new(Mutex::new(0));
    {
        let syncs = Arc::clone(&syncs);
        disk.on_sync(move |_, _| {
            *syncs.lock().unwrap() += 1;
            std::thread::sleep(Duration::from_millis(20));
        });
    }
    let (done, outcome) = mpsc::channel();
    for n in 0..200 {
        let writes = vec![Write::Put(Row::numbered(Table::Run, b"", n), vec![1])];
        let done = done.clone();
        let batch = Batch { writes, durability: Durability::Synced };
        store.writer().submit(batch, move |it| done.send((n, it)).unwrap());
    }
    drop(done);
    let order: Vec<_> = outcome.iter().collect();
    assert_eq!(order, (0..200).map(|n| (n, Ok(()))).collect::<Vec<_>>());
    let syncs = *syncs.lock().unwrap();
    assert!(syncs < 20, "{syncs} syncs for 200 batches");
}

#[test]
fn a_row_that_is_too_large_is_refused_alone() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let large = [
        Write::Put(Row::named(Table::Blob, b"", b""), vec![0; 16 * 1024 * 1024 + 1]),
        Write::Put(Row::named(Table::Blob, &[0; 4097], b""), vec![]),
        Write::Delete(Row::named(Table::Blob, b"", &[0; 4097])),
    ];
    let fine = Write::Put(Row::named(Table::Blob, b"", b"fine"), vec![]);
    for write_too_large in large {
        let result = write(&store, vec![fine.clone(), write_too_large], Durability::Synced);
        assert!(matches!(result, Err(WriteError::TooLarge { .. })), "{result:?}");
    }
    assert_eq!(store.scan_table(Table::Blob).unwrap(), []);
    put(&store, &Row::named(Table::Blob, &[0; 4096], &[1; 4096]), &vec![2; 16 * 1024 * 1024]);
    assert_eq!(store.scan_table(Table::Blob).unwrap().len(), 1);
}

#[test]
fn a_closed_store_answers_its_writers() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let writer = store.writer();
    let row = Row::named(Table::Node, b"", b"boot");
    let batch =
        Batch { writes: vec![Write::Put(row.clone(), vec![1])], durability: Durability::Ordered };
    writer.submit(batch.clone(), |result| assert_eq!(result, Ok(())));
    store.close().unwrap();
    let (done, outcome) = mpsc::channel();
    writer.submit(batch, move |result| done.send(result).unwrap());
    assert_eq!(outcome.recv().unwrap(), Err(WriteError::Closed));
    let store = open_on(&FaultBackend::with(disk.durable()), Mode::Verified).unwrap();
    assert_eq!(store.get(&row).unwrap(), Some(vec![1]), "closing syncs what was ordered");
}

#[test]
fn a_batch_can_be_awaited() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let row = Row::named(Table::Node, b"", b"boot");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for durability in [Durability::Ordered, Durability::Synced] {
        let writes = vec![Write::Put(row.clone(), vec![durability as u8])];
        runtime.block_on(store.writer().write(Batch { writes, durability })).unwrap();
        assert_eq!(store.get(&row).unwrap(), Some(vec![durability as u8]));
    }
}
