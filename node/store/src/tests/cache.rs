//! What of the file stays in memory.

use super::*;

#[test]
fn as_much_of_the_file_stays_in_memory_as_is_said() {
    let disk = FaultBackend::default();
    let store = open_on(&disk, Mode::New).unwrap();
    let rows: Vec<_> = (0..512).map(|n| Row::numbered(Table::Audit, &[], n)).collect();
    let writes = rows.iter().map(|row| Write::Put(row.clone(), vec![7; 4_000]));
    write(&store, writes.collect(), Durability::Synced).unwrap();
    store.close().unwrap();
    let read_again = |cache_bytes| {
        let store = open_cached(&disk, Mode::Verified, cache_bytes).unwrap();
        for row in &rows {
            assert!(store.get(row).unwrap().is_some());
        }
        let before = disk.reads();
        for row in &rows {
            assert!(store.get(row).unwrap().is_some());
        }
        disk.reads() - before
    };
    assert_eq!(read_again(16 << 20), 0, "all of it fits");
    let reads = read_again(256 << 10);
    assert!(reads >= 400, "an eighth of it fits, and {reads} pages were read again");
}
