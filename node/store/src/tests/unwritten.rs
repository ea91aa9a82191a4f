//! What was acknowledged and is not in the file yet is read like all else.

use std::thread::ThreadId;

use super::*;

/// What a model has in a scope, from an item on.
fn expected(model: &Model, table: Table, scope: &[u8], first: Item) -> Vec<(Item, Vec<u8>)> {
    let first = Row { table, scope: scope.to_vec(), item: first };
    let rows = model.range(first..).take_while(|(row, _)| row.table == table && row.scope == scope);
    rows.map(|(row, value)| (row.item.clone(), value.clone())).collect()
}

#[test]
fn every_read_sees_the_open_group_over_the_file() {
    let mut unwritten = 0;
    for seed in 0..6 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let disk = FaultBackend::default();
        let store = open_on(&disk, Mode::Verified).unwrap();
        let mut batches = Vec::new();
        for _ in 0..120 {
            let mut batch = random_batch(&mut rng);
            if below(&mut rng, 8) > 0 {
                batch.durability = Durability::Ordered;
            }
            write(&store, batch.writes.clone(), batch.durability).unwrap();
            batches.push(batch);
            let models = models(&batches);
            let model = models.last().unwrap();
            unwritten += usize::from(store.inner.queue.state().unwritten()[1].bytes() > 0);

            let table = TABLES[below(&mut rng, 4) as usize];
            let scope = [b"".as_slice(), b"one", b"two"][below(&mut rng, 3) as usize];
            let all = expected(model, table, scope, Item::Named(Vec::new()));
            assert_eq!(store.scan(table, scope).unwrap(), all);
            let (from, limit) = (u64::from(below(&mut rng, 4)), below(&mut rng, 3) as usize);
            let mut numbered = expected(model, table, scope, Item::Numbered(from));
            numbered.truncate(limit);
            assert_eq!(store.scan_from(table, scope, from, limit).unwrap(), numbered);
            let last = all.iter().rfind(|(item, _)| matches!(item, Item::Numbered(_))).cloned();
            assert_eq!(store.scan_last(table, scope).unwrap(), last);
            assert_eq!(&dump(&store), model);
            for table in TABLES {
                let rows = store.scan_table(table).unwrap();
                assert_eq!(store.scan_readable(table).unwrap(), Readable { rows, damaged: 0 });
            }
            for row in batches.last().unwrap().writes.iter().map(row_of) {
                assert_eq!(store.get(row).unwrap().as_ref(), model.get(row));
            }
        }
        store.close().unwrap();
        let store = open_on(&FaultBackend::with(disk.durable()), Mode::Verified).unwrap();
        assert_eq!(&dump(&store), models(&batches).last().unwrap());
    }
    assert!(unwritten > 300, "{unwritten} states of 720 had something unwritten");
}

fn row_of(write: &Write) -> &Row {
    match write {
        Write::Put(row, _) | Write::Delete(row) => row,
    }
}

/// A sync that takes until this is dropped.
struct Stall {
    entered: mpsc::Receiver<()>,
    _leave: mpsc::Sender<()>,
}

impl Stall {
    /// The next sync of the disk.
    fn of(disk: &FaultBackend) -> Self {
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel();
        let mut next = Some((enter, left));
        disk.on_sync(move |_, _| {
            if let Some((enter, left)) = next.take() {
                enter.send(()).unwrap();
                // Nothing is sent: it ends with its sender.
                left.recv().unwrap_err();
            }
        });
        Self { entered, _leave: leave }
    }

    /// Waits until the disk is at it.
    fn wait(&self) {
        self.entered.recv().unwrap();
    }
}

/// Gives the store numbered batches; what each answers has its number, and the thread that it came on.
fn answered(store: &Store) -> (impl Fn(u64, Durability) + '_, mpsc::Receiver<(u64, ThreadId)>) {
    let (done, outcome) = mpsc::channel();
    let submit = move |number, durability| {
        let writes = vec![Write::Put(Row::numbered(Table::Audit, b"", number), vec![1])];
        let done = done.clone();
        store.writer().submit(Batch { writes, durability }, move |result| {
            result.unwrap();
            done.send((number, std::thread::current().id())).unwrap();
        });
    };
    (submit, outcome)
}

#[test]
fn an_ordered_batch_is_answered_where_it_is_submitted_unless_it_waits_for_another() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let (submit, outcome) = answered(&store);
    let me = std::thread::current().id();
    submit(1, Durability::Ordered);
    assert_eq!(outcome.try_recv(), Ok((1, me)));
    {
        let stall = Stall::of(&disk);
        submit(2, Durability::Synced);
        stall.wait();
        submit(3, Durability::Ordered);
        submit(4, Durability::Synced);
        submit(5, Durability::Ordered);
        assert_eq!(outcome.try_recv(), Err(mpsc::TryRecvError::Empty));
    }
    let order: Vec<u64> = (0..4)
        .map(|_| {
            let (number, thread) = outcome.recv().unwrap();
            assert_ne!(thread, me);
            number
        })
        .collect();
    assert_eq!(order, [2, 3, 4, 5]);
    // Whoever is answered last may be so a moment before the queue is empty.
    while store.inner.queue.state().unanswered() > 0 {
        std::thread::yield_now();
    }
    submit(6, Durability::Ordered);
    assert_eq!(outcome.try_recv(), Ok((6, me)));
}

#[test]
fn a_row_that_is_written_again_and_again_is_one_commit() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let syncs = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&syncs);
    disk.on_sync(move |_, _| *counted.lock().unwrap() += 1);
    let row = Row::named(Table::Run, b"", b"stage");
    let begun = Instant::now();
    for n in 0..2_000u32 {
        let writes = vec![Write::Put(row.clone(), n.to_be_bytes().to_vec())];
        write(&store, writes, Durability::Ordered).unwrap();
    }
    let windows = u32::try_from(begun.elapsed().as_millis() / 40).unwrap() + 1;
    let syncs = *syncs.lock().unwrap();
    assert!(syncs <= windows, "{syncs} syncs in {windows} windows");
    assert_eq!(store.get(&row).unwrap(), Some(1_999u32.to_be_bytes().to_vec()));
}

#[test]
fn a_full_group_is_written_before_its_window_ends_and_holds_nobody_up() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let (done, outcome) = mpsc::channel();
    for number in 0..24u64 {
        let writes = vec![Write::Put(Row::numbered(Table::Blob, b"", number), vec![7; 1 << 20])];
        let done = done.clone();
        let batch = Batch { writes, durability: Durability::Ordered };
        store.writer().submit(batch, move |result| done.send((number, result)).unwrap());
    }
    drop(done);
    let order: Vec<_> = outcome.iter().collect();
    assert_eq!(order, (0..24).map(|number| (number, Ok(()))).collect::<Vec<_>>());
    assert_eq!(store.scan(Table::Blob, b"").unwrap().len(), 24);
    store.close().unwrap();
    let store = open_on(&FaultBackend::with(disk.durable()), Mode::Verified).unwrap();
    assert_eq!(store.scan(Table::Blob, b"").unwrap().len(), 24);
}

#[test]
fn what_was_acknowledged_is_read_after_its_commit_failed() {
    for failing in 1..12 {
        let disk = FaultBackend::with(empty_store());
        let store = open_on(&disk, Mode::Verified).unwrap();
        disk.fail_at(disk.operations() + failing, io::ErrorKind::StorageFull);
        let row = |number| Row::numbered(Table::Audit, b"", number);
        let mut acknowledged = 0;
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.failure().is_none() && Instant::now() < deadline {
            let writes = vec![Write::Put(row(acknowledged), vec![3; 50])];
            if write(&store, writes, Durability::Ordered).is_err() {
                break;
            }
            acknowledged += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(store.failure(), Some(WriteError::DiskFull), "failing {failing}");
        assert_eq!(write(&store, vec![], Durability::Ordered), Err(WriteError::DiskFull));
        assert_eq!(write(&store, vec![], Durability::Synced), Err(WriteError::DiskFull));
        let found = store.scan_from(Table::Audit, b"", 0, usize::MAX).unwrap();
        let numbers: Vec<_> = found.into_iter().map(|(item, _)| item).collect();
        assert_eq!(numbers, (0..acknowledged).map(Item::Numbered).collect::<Vec<_>>());
        assert_eq!(store.close(), Err(WriteError::DiskFull));
    }
}

#[test]
fn while_the_disk_stalls_no_more_is_acknowledged_than_it_may_lose() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::Verified).unwrap();
    let (submit, outcome) = answered(&store);
    let stall = Stall::of(&disk);
    submit(1, Durability::Ordered);
    stall.wait();
    submit(2, Durability::Ordered);
    std::thread::sleep(Duration::from_millis(60));
    submit(3, Durability::Ordered);
    let numbers: Vec<u64> = outcome.try_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [1, 2], "the third waits for the disk");
    drop(stall);
    assert_eq!(outcome.recv().unwrap().0, 3);
}
