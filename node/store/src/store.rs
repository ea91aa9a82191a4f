//! The open store: its header, and reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    ops::RangeInclusive,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadableDatabase as _, StorageBackend, StorageError,
    TableDefinition, TableError, TransactionError, backends::FileBackend,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use thiserror::Error;
use weft_protocol::row::{Item, Row, Table, Write};

use crate::{
    disk::{Disk, Health},
    key::{StoreKey, parent, sync_parent},
    queue::Queue,
    reserve::Reserve,
    seal::{Damage, Sealer, VERSION},
    unwritten::{self, FIRST},
    writer::{self, WriteError, Writer},
};

/// All rows. One redb table for all of them: a batch that touches four tables then changes one
/// tree, and the file does not name the tables or count their rows.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// One row: `version ‖ sealed store id`.
const HEADER: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("header");
const HEADER_KEY: u8 = 0;
/// Associated data of the header; no row key is this short.
const HEADER_PLACE: &[u8] = b"header";
/// Memory for pages of the file where nobody says how much, in bytes.
const CACHE_BYTES: usize = 8 << 20;

/// Why the store did not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it, or this one a second time.
    #[error("open the store: the home is in use by another node")]
    InUse,
    /// The header does not unseal.
    #[error("open the store: the key of this home does not fit it")]
    WrongKey,
    /// A later format.
    #[error("open the store: it was made by a newer weft (format {version})")]
    Newer {
        /// Its format.
        version: u8,
    },
    /// The file is not what was written, beyond what a crash explains. [`Store::salvage`] reads
    /// what is left.
    #[error("open the store: its file is damaged: {why}")]
    Damaged {
        /// What was found.
        why: String,
    },
    /// Opening writes a little, and there is no space for it.
    #[error("open the store: the disk is full")]
    DiskFull,
    /// The system refuses.
    #[error("open the store at {}", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The disk failed while the file was recovered or its header written.
    #[error("open the store: {why}")]
    Disk {
        /// What the system says.
        why: String,
    },
}

/// Why a row was not read.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ReadError {
    /// Its bytes were changed, moved, or can't be reached through the file's damaged pages.
    #[error("read table {table}: a row is damaged")]
    Damaged {
        /// The table asked for.
        table: Table,
    },
    /// The disk failed.
    #[error("read table {table}: {why}")]
    Disk {
        /// The table asked for.
        table: Table,
        /// What the system says.
        why: String,
    },
}

/// What of a table can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readable {
    /// The rows, in the order of scopes and items.
    pub rows: Vec<(Row, Vec<u8>)>,
    /// How many more there are that are damaged.
    pub damaged: usize,
}

/// What readers and the writer thread share.
pub(crate) struct Inner {
    /// There until it is dropped.
    db: Option<Database>,
    sealer: Sealer,
    pub(crate) queue: Arc<Queue>,
    pub(crate) health: Arc<Health>,
}

/// The encrypted store of one node. Dropping it writes what is queued, syncs, and frees the lock.
///
/// Reads block the calling thread for as long as the disk takes, a few microseconds when the pages
/// are in memory; each call is one snapshot.
pub struct Store {
    // Before `inner`, whose last reference closes the file.
    writer: Writer,
    thread: Option<JoinHandle<()>>,
    inner: Arc<Inner>,
    reserve: Reserve,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("failure", &self.failure()).finish_non_exhaustive()
    }
}

/// How far to trust the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// An empty file is made a store.
    New,
    /// Each page is verified before anything is read.
    Verified,
    /// Nothing is verified beforehand and nothing written.
    Salvage,
}

impl Store {
    /// Opens the store in the file at `path`, or makes it there (0600, missing folders 0700).
    ///
    /// Every page is verified first, so the time grows with the file. A file that a crash left is
    /// recovered. 4 MiB beside it are kept back (see [`release_reserve`](Self::release_reserve));
    /// on a full disk they are spent on opening, if that is what it takes. 8 MiB of the file stay in
    /// memory.
    ///
    /// # Errors
    ///
    /// Another node has it, the key does not fit, it is newer or damaged, or the disk refuses.
    pub fn open(path: &Path, key: &StoreKey) -> Result<Self, OpenError> {
        Self::open_with(path, key, CACHE_BYTES)
    }

    /// Opens the store as [`open`](Self::open) does, and keeps so many bytes of the file in memory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, key: &StoreKey, cache_bytes: usize) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let reserve = Reserve::new(parent(path).join("reserve"));
        DirBuilder::new().recursive(true).mode(0o700).create(parent(path)).map_err(io)?;
        if !path.try_exists().map_err(io)? {
            match Self::create(path, key, &[]) {
                // Another process was faster; its store is found next, with its lock.
                Err(OpenError::Io { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        let opened = Self::open_file(path, key, Mode::Verified, cache_bytes);
        let inner = if let Err(OpenError::DiskFull) = &opened {
            reserve.release().map_err(io)?;
            Self::open_file(path, key, Mode::Verified, cache_bytes)?
        } else {
            opened?
        };
        remove_unfinished(path).map_err(io)?;
        if let Err(error) = reserve.hold() {
            tracing::warn!(%error, "no space is kept back for the audit");
        }
        Self::start(inner, reserve).map_err(io)
    }

    /// Makes a store in the file at `path`, where none is, that begins with these rows. All of it is on the
    /// disk when this returns, or nothing is.
    ///
    /// The file gets its name when it is whole, since redb does not open one that a crash has left half made.
    /// So one sync is enough, however much is written before.
    ///
    /// # Errors
    ///
    /// A file is there, a row is too large, or the disk refuses.
    pub fn create(path: &Path, key: &StoreKey, writes: &[Write]) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let mut tail = [0; 8];
        getrandom::fill(&mut tail).map_err(|error| OpenError::Disk { why: error.to_string() })?;
        let mut unfinished = unfinished(path);
        unfinished.push(format!("{:016x}", u64::from_be_bytes(tail)));
        let unfinished = parent(path).join(unfinished);
        let made = Self::make(&unfinished, key, writes);
        let named = made.and_then(|()| {
            renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE)
                .map_err(|error| io(error.into()))
        });
        if named.is_err()
            && let Err(error) = fs::remove_file(&unfinished)
        {
            tracing::debug!(%error, "an unfinished store stays until the next start");
        }
        named.and_then(|()| sync_parent(path).map_err(io))
    }

    /// Makes the file at `path`, and syncs it at its end.
    fn make(path: &Path, key: &StoreKey, writes: &[Write]) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        writer::check(writes).map_err(from_write)?;
        let file = Self::file(path, Mode::New)?;
        let whole = file.try_clone().map_err(io)?;
        let backend = FileBackend::new(file).map_err(|error| from_database(error, path))?;
        let disk = Disk::unsynced(backend, Arc::default());
        let inner = Inner::open_disk(disk, key, Mode::New, CACHE_BYTES, path)?;
        inner.apply(writes.iter().map(writer::parts)).map_err(from_write)?;
        let health = Arc::clone(&inner.health);
        // Closing it writes the last of it.
        drop(inner);
        health.check().map_err(from_write)?;
        whole.sync_all().map_err(io)
    }

    /// Opens a damaged store to read what is left of it. Writes nothing to the file and fails
    /// every batch; a row that is missing may be one that the damage hides.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); damage to the pages that lead to all others is beyond it.
    pub fn salvage(path: &Path, key: &StoreKey) -> Result<Self, OpenError> {
        let inner = Self::open_file(path, key, Mode::Salvage, CACHE_BYTES)?;
        let reserve = Reserve::new(parent(path).join("reserve"));
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        Self::start(inner, reserve).map_err(io)
    }

    fn open_file(
        path: &Path,
        key: &StoreKey,
        mode: Mode,
        cache_bytes: usize,
    ) -> Result<Inner, OpenError> {
        let file = Self::file(path, mode)?;
        let backend = FileBackend::new(file).map_err(|error| from_database(error, path))?;
        Inner::open(backend, key, mode, cache_bytes, path)
    }

    fn file(path: &Path, mode: Mode) -> Result<File, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(mode == Mode::New)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        restrict(&file).map_err(io)?;
        Ok(file)
    }

    fn start(inner: Inner, reserve: Reserve) -> io::Result<Self> {
        let inner = Arc::new(inner);
        let (writer, thread) = writer::start(Arc::clone(&inner))?;
        Ok(Self { writer, thread: Some(thread), inner, reserve })
    }

    /// A handle for writing.
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Why the store takes no more writes, if it does not.
    pub fn failure(&self) -> Option<WriteError> {
        self.inner.health.failure().cloned()
    }

    /// Whether 4 MiB of disk are kept back for the audit. Without them no effect should begin.
    pub fn reserve_held(&self) -> bool {
        self.reserve.held()
    }

    /// Gives the space that is kept back to the file system, so that a store that failed with
    /// [`WriteError::DiskFull`] can be opened again and the last records written. An
    /// [`open`](Self::open) that finds 8 MiB free takes it back.
    ///
    /// # Errors
    ///
    /// The file can't be removed.
    pub fn release_reserve(&self) -> io::Result<()> {
        self.reserve.release()
    }

    /// Writes what is queued, syncs, and closes the file.
    ///
    /// # Errors
    ///
    /// The store had failed, or failed now.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.stop();
        self.inner.health.check()
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.writer.close();
            if thread.join().is_err() {
                tracing::error!("the store's writer ended early: an acknowledgement panicked");
            }
        }
    }

    /// The value of `row`.
    ///
    /// # Errors
    ///
    /// It is damaged, or the disk fails.
    pub fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, ReadError> {
        let unwritten = self.inner.queue.state().get(row).cloned();
        if let Some(value) = unwritten {
            return Ok(value);
        }
        let key = self.inner.sealer.key(row);
        self.inner.read(row.table, |rows| {
            let Some(sealed) = rows.get(key.as_slice())? else { return Ok(None) };
            let (found, value) = self.inner.sealer.open(row.table, &key, sealed.value())?;
            if found == *row { Ok(Some(value)) } else { Err(Damage.into()) }
        })
    }

    /// All rows of a scope, in the order of their items.
    ///
    /// # Errors
    ///
    /// One of them is damaged, or the disk fails.
    pub fn scan(&self, table: Table, scope: &[u8]) -> Result<Vec<(Item, Vec<u8>)>, ReadError> {
        let keys = self.inner.sealer.scope_range(table, scope);
        let rows = unwritten::from(table, scope, FIRST);
        Ok(items(self.inner.range(table, keys, &rows, usize::MAX)?))
    }

    /// Up to `limit` numbered rows of a scope, from `number` on, in order.
    ///
    /// # Errors
    ///
    /// One of them is damaged, or the disk fails.
    pub fn scan_from(
        &self,
        table: Table,
        scope: &[u8],
        number: u64,
        limit: usize,
    ) -> Result<Vec<(Item, Vec<u8>)>, ReadError> {
        let keys = self.inner.sealer.numbers_from(table, scope, number);
        let rows = unwritten::from(table, scope, Item::Numbered(number));
        Ok(items(self.inner.range(table, keys, &rows, limit)?))
    }

    /// The numbered row of a scope with the greatest number.
    ///
    /// # Errors
    ///
    /// It is damaged, or the disk fails.
    pub fn scan_last(
        &self,
        table: Table,
        scope: &[u8],
    ) -> Result<Option<(Item, Vec<u8>)>, ReadError> {
        let (first, last) = self.inner.sealer.numbers_from(table, scope, 0);
        let rows = unwritten::from(table, scope, Item::Numbered(0));
        let found = self.inner.read_over(table, &rows, |rows, over| {
            let newest = over.put.last();
            for entry in rows.range(first.as_slice()..=last.as_slice())?.rev() {
                let (key, sealed) = entry?;
                if over.hides(key.value()) {
                    continue;
                }
                let (row, value) = self.inner.sealer.open(table, key.value(), sealed.value())?;
                return Ok(newest.cloned().filter(|it| it.0 > row).or(Some((row, value))));
            }
            Ok(newest.cloned())
        })?;
        Ok(found.map(|(row, value)| (row.item, value)))
    }

    /// All rows of a table, in the order of scopes and items.
    ///
    /// # Errors
    ///
    /// One of them is damaged, or the disk fails.
    pub fn scan_table(&self, table: Table) -> Result<Vec<(Row, Vec<u8>)>, ReadError> {
        let keys = self.inner.sealer.table_range(table);
        self.inner.range(table, keys, &unwritten::all(table), usize::MAX)
    }

    /// All rows of a table that can be read, and how many can't.
    ///
    /// # Errors
    ///
    /// The pages that lead to the rows are damaged, or the disk fails.
    pub fn scan_readable(&self, table: Table) -> Result<Readable, ReadError> {
        let (first, last) = self.inner.sealer.table_range(table);
        let (mut found, damaged) =
            self.inner.read_over(table, &unwritten::all(table), |rows, over| {
                let (mut found, mut damaged) = (over.put.clone(), 0);
                for entry in rows.range(first.as_slice()..=last.as_slice())? {
                    let (key, sealed) = entry?;
                    if over.hides(key.value()) {
                        continue;
                    }
                    match self.inner.sealer.open(table, key.value(), sealed.value()) {
                        Ok(row) => found.push(row),
                        Err(Damage) => damaged += 1,
                    }
                }
                Ok((found, damaged))
            })?;
        found.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(Readable { rows: found, damaged })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

fn items(rows: Vec<(Row, Vec<u8>)>) -> Vec<(Item, Vec<u8>)> {
    rows.into_iter().map(|(row, value)| (row.item, value)).collect()
}

/// What the names of stores that are being made at `path` begin with.
fn unfinished(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new-");
    name
}

/// Removes what a crash left of stores that were being made at `path`, where one now is.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    let prefix = unfinished(path);
    for entry in fs::read_dir(parent(path))? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Takes the file's permissions for others away.
fn restrict(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { file.set_permissions(Permissions::from_mode(0o600)) }
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What was acknowledged of some rows and is not in the file.
struct Over {
    /// The keys of the rows whose state in the file does not count.
    keys: BTreeSet<Vec<u8>>,
    /// Those of them that are not deleted, in order.
    put: Vec<(Row, Vec<u8>)>,
}

impl Over {
    fn hides(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }
}

/// What reading meets, before it is known in which table.
enum Fault {
    Damage,
    Redb(redb::Error),
}

impl From<Damage> for Fault {
    fn from(Damage: Damage) -> Self {
        Self::Damage
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        if is_io(&error) { Self::Redb(error) } else { Self::Damage }
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<TransactionError> for Fault {
    fn from(error: TransactionError) -> Self {
        redb::Error::from(error).into()
    }
}

impl Inner {
    fn open(
        backend: impl StorageBackend,
        key: &StoreKey,
        mode: Mode,
        cache_bytes: usize,
        path: &Path,
    ) -> Result<Self, OpenError> {
        Self::open_disk(Disk::new(backend, Arc::default()), key, mode, cache_bytes, path)
    }

    fn open_disk(
        disk: Disk<impl StorageBackend>,
        key: &StoreKey,
        mode: Mode,
        cache_bytes: usize,
        path: &Path,
    ) -> Result<Self, OpenError> {
        let health = Arc::clone(disk.health());
        if mode == Mode::Salvage {
            health.fail(WriteError::ReadOnly);
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = Database::builder()
                .set_cache_size(cache_bytes)
                .set_check_integrity_on_open(mode == Mode::Verified)
                .create_with_backend(disk)
                .map_err(|error| from_database(error, path))?;
            let sealer = Sealer::new(key);
            let queue = Arc::new(Queue::new(Arc::clone(&health)));
            let inner = Self { db: Some(db), sealer, queue, health: Arc::clone(&health) };
            if mode == Mode::New {
                inner.write_header()?;
            }
            inner.check_header()?;
            Ok(inner)
        }))
        .unwrap_or_else(|_| Err(OpenError::Damaged { why: "its pages make no sense".to_owned() }));
        match (mode, health.failure()) {
            (Mode::New | Mode::Verified, Some(error)) => Err(from_write(error.clone())),
            (Mode::New | Mode::Verified, None) | (Mode::Salvage, _) => opened,
        }
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is there until it is dropped")
    }

    /// Checks that the file is a store of this format under this key.
    fn check_header(&self) -> Result<(), OpenError> {
        let damaged = |why: &str| OpenError::Damaged { why: why.to_owned() };
        let read = self.db().begin_read().map_err(from_redb)?;
        let table = match read.open_table(HEADER) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Err(damaged("it has no header")),
            Err(error) => return Err(from_redb(error)),
        };
        let header = table.get(HEADER_KEY).map_err(from_redb)?;
        let header = header.as_ref().map(|header| header.value()).unwrap_or_default();
        match header.first() {
            None => Err(damaged("its header is empty")),
            Some(&version) if version > VERSION => Err(OpenError::Newer { version }),
            Some(_) => match self.sealer.open_bytes(HEADER_PLACE, header) {
                Ok(_store_id) => Ok(()),
                Err(Damage) => Err(OpenError::WrongKey),
            },
        }
    }

    fn write_header(&self) -> Result<(), OpenError> {
        let mut store_id = [0; 16];
        let entropy = |error: getrandom::Error| OpenError::Disk { why: error.to_string() };
        getrandom::fill(&mut store_id).map_err(entropy)?;
        let header = self.sealer.seal_bytes(HEADER_PLACE, &[&store_id]).map_err(entropy)?;
        let write = self.db().begin_write().map_err(from_redb)?;
        write
            .open_table(HEADER)
            .map_err(from_redb)?
            .insert(HEADER_KEY, header.as_slice())
            .map_err(from_redb)?;
        write.open_table(ROWS).map_err(from_redb)?;
        write.commit().map_err(from_redb)
    }

    fn read<T>(
        &self,
        table: Table,
        read: impl FnOnce(&Rows) -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        self.guarded(table, || read(&self.db().begin_read()?.open_table(ROWS)?))
    }

    /// Reads the file together with what was acknowledged of `rows` and is not in it, both of one moment.
    fn read_over<T>(
        &self,
        table: Table,
        rows: &RangeInclusive<Row>,
        read: impl FnOnce(&Rows, &Over) -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        self.guarded(table, || {
            let mut unwritten = BTreeMap::new();
            let file = {
                let state = self.queue.state();
                for group in state.unwritten() {
                    let found = group.range(rows);
                    unwritten.extend(found.map(|(row, value)| (row.clone(), value.clone())));
                }
                // Under the lock: what leaves the queue is in the file before.
                self.db().begin_read()?
            };
            let keys = unwritten.keys().map(|row| self.sealer.key(row)).collect();
            let put = unwritten.into_iter().filter_map(|(row, value)| Some((row, value?)));
            let over = Over { keys, put: put.collect() };
            read(&file.open_table(ROWS)?, &over)
        })
    }

    /// redb may panic on pages that were changed behind its back.
    fn guarded<T>(
        &self,
        table: Table,
        read: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(Fault::Damage)).map_err(|fault| {
            match fault {
                Fault::Damage => ReadError::Damaged { table },
                Fault::Redb(error) => ReadError::Disk { table, why: error.to_string() },
            }
        })
    }

    fn range(
        &self,
        table: Table,
        (first, last): (Vec<u8>, Vec<u8>),
        rows: &RangeInclusive<Row>,
        limit: usize,
    ) -> Result<Vec<(Row, Vec<u8>)>, ReadError> {
        let mut found = self.read_over(table, rows, |rows, over| {
            let mut found = over.put.clone();
            for entry in rows.range(first.as_slice()..=last.as_slice())? {
                if found.len() - over.put.len() == limit {
                    break;
                }
                let (key, sealed) = entry?;
                if !over.hides(key.value()) {
                    found.push(self.sealer.open(table, key.value(), sealed.value())?);
                }
            }
            Ok(found)
        })?;
        // On disk they lie in the order of hashes, which differs from store to store.
        found.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        found.truncate(limit);
        Ok(found)
    }

    /// Commits writes as one transaction that is on the disk when this returns: each row with its value, or
    /// `None` where it is deleted.
    pub(crate) fn apply<'a>(
        &self,
        writes: impl Iterator<Item = (&'a Row, Option<&'a [u8]>)>,
    ) -> Result<(), WriteError> {
        let redb = WriteError::from_redb;
        let transaction = self.db().begin_write().map_err(|error| redb(error.into()))?;
        {
            let mut rows = transaction.open_table(ROWS).map_err(|error| redb(error.into()))?;
            for (row, value) in writes {
                let key = self.sealer.key(row);
                match value {
                    Some(value) => {
                        let sealed = self
                            .sealer
                            .seal(row, &key, value)
                            .map_err(|error| WriteError::Disk { why: error.to_string() })?;
                        rows.insert(key.as_slice(), sealed.as_slice())
                    }
                    None => rows.remove(key.as_slice()),
                }
                .map_err(|error| redb(error.into()))?;
            }
        }
        transaction.commit().map_err(|error| redb(error.into()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing tidies the file, and redb may panic on pages that were changed behind its back.
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::error!("the store was closed untidily: its pages are damaged");
        }
    }
}

fn from_write(error: WriteError) -> OpenError {
    match error {
        WriteError::DiskFull => OpenError::DiskFull,
        WriteError::Disk { why } => OpenError::Disk { why },
        error @ (WriteError::TooLarge { .. } | WriteError::ReadOnly | WriteError::Closed) => {
            OpenError::Disk { why: error.to_string() }
        }
    }
}

fn from_redb(error: impl Into<redb::Error>) -> OpenError {
    let error = error.into();
    if is_io(&error) {
        from_write(WriteError::from_redb(error))
    } else {
        OpenError::Damaged { why: error.to_string() }
    }
}

/// Whether the disk failed; all else that redb says of a file that it made itself is damage.
const fn is_io(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb's errors grow")]
fn from_database(error: DatabaseError, path: &Path) -> OpenError {
    match redb::Error::from(error) {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => OpenError::InUse,
        redb::Error::UpgradeRequired(format) => {
            OpenError::Damaged { why: format!("its pages have format {format}") }
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            OpenError::Damaged { why: error.to_string() }
        }
        redb::Error::Io(source) if WriteError::from_io(&source) != WriteError::DiskFull => {
            OpenError::Io { path: path.to_owned(), source }
        }
        error => from_redb(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_in_result, reason = "a test that can't go on stops")]
#[path = "tests.rs"]
mod tests;
