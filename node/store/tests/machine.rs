//! What only a real machine shows: processes that are killed, and a disk that is full.

#![expect(clippy::unwrap_used, clippy::unwrap_in_result, reason = "a test that can't go on stops")]

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use weft_protocol::row::{Durability, Item, Row, Table, Write};
use weft_store::{Batch, OpenError, Store, WriteError, key::StoreKey};

/// Where the child that is killed finds its store.
const CHILD_STORE: &str = "WEFT_TEST_CHILD_STORE";

fn key() -> StoreKey {
    StoreKey::from([3; 32])
}

fn row(number: u64) -> Row {
    Row::numbered(Table::Audit, b"chain", number)
}

fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(1 + usize::try_from(number % 200).unwrap())
}

/// Writes record after record, and says each one on stdout once it is acknowledged.
#[test]
#[ignore = "the child of `a_killed_writer_loses_nothing_that_it_acknowledged`"]
fn child() {
    let Some(path) = std::env::var_os(CHILD_STORE) else { return };
    let store = Store::open(Path::new(&path), &key()).unwrap();
    let writer = store.writer();
    let next = match store.scan_last(Table::Audit, b"chain").unwrap() {
        Some((Item::Numbered(number), _)) => number + 1,
        Some((Item::Named(_), _)) | None => 0,
    };
    let (done, outcome) = mpsc::channel();
    for number in next.. {
        let durability =
            if number.is_multiple_of(3) { Durability::Ordered } else { Durability::Synced };
        let batch = Batch { writes: vec![Write::Put(row(number), value(number))], durability };
        let done = done.clone();
        writer.submit(batch, move |result| {
            result.unwrap();
            if durability == Durability::Synced {
                writeln!(std::io::stdout(), "acknowledged {number}").unwrap();
            }
            done.send(()).unwrap();
        });
        // A few at once, so that groups form; never more are waited for than were submitted.
        if number % 4 == 3 && number - next >= 3 {
            outcome.iter().take(3).for_each(drop);
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (mut total, mut slowest, mut busy) = (0, Duration::ZERO, false);
    for kill in 0..30 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD_STORE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (said, first) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut acknowledged = Vec::new();
            while let Some(Ok(line)) = lines.next() {
                if let Some(number) = line.strip_prefix("acknowledged ") {
                    acknowledged.push(number.parse::<u64>().unwrap());
                    said.send(()).unwrap_or_default();
                }
            }
            acknowledged
        });
        first.recv_timeout(Duration::from_secs(60)).expect("the child writes");
        if kill == 0 {
            busy = matches!(Store::open(&path, &key()), Err(OpenError::InUse));
        }
        thread::sleep(Duration::from_micros(u64::from(rng.next_u32() % 40_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = reader.join().unwrap();

        let begun = Instant::now();
        let store = Store::open(&path, &key()).unwrap();
        slowest = slowest.max(begun.elapsed());
        let found = store.scan(Table::Audit, b"chain").unwrap();
        for (at, (item, found)) in found.iter().enumerate() {
            assert_eq!(*item, Item::Numbered(at as u64), "the chain has no gap");
            assert_eq!(*found, value(at as u64));
        }
        let newest = *acknowledged.iter().max().unwrap();
        assert!((found.len() as u64) > newest, "kill {kill}: {newest} is lost");
        total += acknowledged.len();
        store.close().unwrap();
    }
    assert!(busy, "a second process opened the store");
    eprintln!(
        "30 kills, {total} synced records acknowledged, 0 lost; slowest reopening {slowest:?}"
    );
}

/// A small file system of its own, gone at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

fn write(store: &Store, number: u64, value: Vec<u8>) -> Result<(), WriteError> {
    let (done, outcome) = mpsc::channel();
    let batch =
        Batch { writes: vec![Write::Put(row(number), value)], durability: Durability::Synced };
    store.writer().submit(batch, move |result| done.send(result).unwrap());
    outcome.recv().unwrap()
}

/// Takes all space that is left.
fn fill(path: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
}

#[test]
fn a_full_disk_is_named_and_survived() {
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(&home.path().join("disk"), 40) else {
        eprintln!("NOT RUN: no right to mount a file system");
        return;
    };
    let (path, ballast) = (disk.0.join("store"), disk.0.join("ballast"));
    let large = |number: u64| number.to_be_bytes().repeat(8192);
    let mut kept = 0;
    for cycle in 0..20 {
        let store = Store::open(&path, &key()).unwrap();
        assert!(store.reserve_held(), "cycle {cycle}");
        fill(&ballast);
        let error = loop {
            match write(&store, kept, large(kept)) {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, WriteError::DiskFull);
        assert_eq!(write(&store, kept, vec![]), Err(WriteError::DiskFull));
        assert_eq!(store.failure(), Some(WriteError::DiskFull));
        for number in 0..kept {
            assert_eq!(store.get(&row(number)).unwrap(), Some(large(number)), "cycle {cycle}");
        }

        // The reserve alone is room enough for the last records.
        store.release_reserve().unwrap();
        assert!(!store.reserve_held());
        drop(store);
        let store = Store::open(&path, &key()).unwrap();
        assert!(!store.reserve_held());
        for number in 0..100 {
            write(&store, u64::MAX - number, vec![7; 512]).unwrap();
        }
        drop(store);

        fs::remove_file(&ballast).unwrap();
        let store = Store::open(&path, &key()).unwrap();
        let found = store.scan_from(Table::Audit, b"chain", 0, usize::MAX).unwrap();
        for number in 0..kept {
            let at = usize::try_from(number).unwrap();
            assert_eq!(found[at], (Item::Numbered(number), large(number)), "cycle {cycle}");
        }
        assert_eq!(store.get(&row(u64::MAX)).unwrap(), Some(vec![7; 512]));
        // The last one may have got there, though nobody was told.
        let keep = kept / 2;
        let mut writes: Vec<_> =
            found.into_iter().map(|(item, _)| Row { item, ..row(0) }).map(Write::Delete).collect();
        writes.drain(..usize::try_from(keep).unwrap());
        let (done, outcome) = mpsc::channel();
        let batch = Batch { writes, durability: Durability::Synced };
        store.writer().submit(batch, move |result| done.send(result).unwrap());
        outcome.recv().unwrap().unwrap();
        kept = keep;
        store.close().unwrap();
    }
}
