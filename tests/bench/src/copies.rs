//! Two replicas of the same documents, without nodes: frames go from one to the other by hand.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ed25519_dalek::SigningKey;
use tempfile::TempDir;
use weft_core::replica::{Context, Edit, Input, Members, Output, Replica};
use weft_protocol::{
    document::{DocumentKind, StartNonce},
    id::{DeviceId, DocumentId, FabricId},
    row::{Durability, MemoryRows, Rows, Write},
    sync::SyncMessage,
    time::{Now, Timestamp, WallTime},
    value::Value,
};
use weft_store::{Store, key::StoreKey};

use crate::member;

/// Turns of the exchange after which it is taken to go round in circles.
const TURNS_MAX: usize = 1_000_000;

/// Everybody may write everything.
struct Everybody;

impl Members for Everybody {
    fn may_write(&self, _: &DeviceId, _: &DocumentId, _: &DocumentKind) -> bool {
        true
    }

    fn is_gone(&self, _: &DeviceId) -> bool {
        false
    }
}

/// Where a copy lies.
pub(crate) enum Disk {
    Memory(MemoryRows),
    File { store: Store, _folder: TempDir },
}

impl Disk {
    pub(crate) fn memory() -> Self {
        Self::Memory(MemoryRows::default())
    }

    /// An encrypted store on the disk.
    pub(crate) fn file() -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let store = Store::open(&folder.path().join("store.redb"), &StoreKey::from([5; 32]))?;
        Ok(Self::File { store, _folder: folder })
    }

    fn rows(&self) -> &dyn Rows {
        match self {
            Self::Memory(rows) => rows,
            Self::File { store, .. } => store,
        }
    }

    fn write(&mut self, writes: Vec<Write>, durability: Durability) -> Result<()> {
        match self {
            Self::Memory(rows) => rows.apply(writes),
            Self::File { store, .. } => member::write(store, writes, durability)?,
        }
        Ok(())
    }
}

/// One device's copy.
pub(crate) struct Copy {
    pub(crate) id: DeviceId,
    replica: Replica,
    disk: Disk,
    edits: i64,
}

/// The document of that number.
pub(crate) fn note(number: u64) -> DocumentId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(&number.to_be_bytes()).as_bytes()[..16]);
    DocumentId::from_bytes(bytes)
}

/// A document with a text.
pub(crate) fn create(number: u64, text: &str) -> Edit {
    let content = Value::map([("text", Value::from(text))]);
    Edit::Create { id: note(number), kind: DocumentKind::NOTE, content }
}

/// Another text for it.
pub(crate) fn update(number: u64, text: &str) -> Edit {
    Edit::Update { id: note(number), content: Value::map([("text", Value::from(text))]) }
}

impl Copy {
    /// A device's copy of what lies on a disk.
    pub(crate) fn open(device: u8, disk: Disk) -> Result<Self> {
        let signing = SigningKey::from_bytes(&[device; 32]);
        let fabric = FabricId::from_bytes([7; 32]);
        let replica =
            Replica::new(signing.clone(), &fabric, StartNonce([device; 16]), disk.rows())?;
        let id = DeviceId::from_bytes(signing.verifying_key().to_bytes());
        Ok(Self { id, replica, disk, edits: 0 })
    }

    /// What it holds.
    pub(crate) fn memory(&self) -> Option<&MemoryRows> {
        match &self.disk {
            Disk::Memory(rows) => Some(rows),
            Disk::File { .. } => None,
        }
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Replica, &Context<'_>) -> T) -> T {
        let wall = WallTime::from_unix_millis(1_773_133_200_000 + self.edits);
        let now = Now { mono: Timestamp::ZERO, wall };
        call(&mut self.replica, &Context { now, rows: self.disk.rows(), members: &Everybody })
    }

    fn handle(&mut self, input: Input) {
        self.with(|replica, context| replica.handle_input(input, context));
    }

    /// Makes edits, and persists them.
    pub(crate) fn edit(&mut self, edits: Vec<Edit>, durability: Durability) -> Result<()> {
        self.edits += 1;
        let prepared = self.with(|replica, context| replica.prepare(edits, context))?;
        self.disk.write(prepared.writes, durability)?;
        self.handle(Input::Persisted(prepared.ticket));
        Ok(())
    }

    fn fingerprint(&self) -> weft_protocol::sync::Fingerprint {
        self.replica.fingerprint()
    }
}

/// Two copies.
pub(crate) struct Copies {
    pub(crate) both: [Copy; 2],
    /// Bytes of frames so far.
    pub(crate) bytes: usize,
}

impl Copies {
    pub(crate) const fn new(both: [Copy; 2]) -> Self {
        Self { both, bytes: 0 }
    }

    /// Opens the stream between them.
    pub(crate) fn open(&mut self) {
        let ids = [self.both[1].id, self.both[0].id];
        for (copy, peer) in self.both.iter_mut().zip(ids) {
            copy.handle(Input::Opened(peer));
        }
    }

    /// Cuts the stream.
    pub(crate) fn close(&mut self) {
        let ids = [self.both[1].id, self.both[0].id];
        for (copy, peer) in self.both.iter_mut().zip(ids) {
            copy.handle(Input::Closed(peer));
        }
    }

    /// Exchanges frames until nothing is under way. Gives the moment at which the second saw the first
    /// change of the other.
    pub(crate) fn settle(&mut self) -> Result<Option<Instant>> {
        let mut seen = None;
        for _ in 0..TURNS_MAX {
            let mut rests = true;
            for at in 0..2 {
                let [first, second] = &mut self.both;
                let (from, to) = if at == 0 { (first, second) } else { (second, first) };
                while let Some(output) = from.replica.poll_output() {
                    rests = false;
                    match output {
                        Output::Send { message, .. } => {
                            let frame = message.encode();
                            self.bytes += frame.len();
                            let message = SyncMessage::decode(&frame)?;
                            to.handle(Input::Message(from.id, message));
                        }
                        Output::Persist { ticket, writes, durability } => {
                            from.disk.write(writes, durability)?;
                            from.handle(Input::Persisted(ticket));
                        }
                        Output::Changed { remote, .. } => {
                            if at == 1 && remote && seen.is_none() {
                                seen = Some(Instant::now());
                            }
                        }
                        Output::PeerSynced(_) => {}
                        Output::SetAside { reason, .. } => bail!("set aside: {reason}"),
                    }
                }
            }
            if rests {
                return Ok(seen);
            }
        }
        bail!("the copies do not come to rest")
    }

    /// Whether both hold the same.
    pub(crate) fn ensure_equal(&self) -> Result<()> {
        let [first, second] = &self.both;
        ensure!(first.fingerprint() == second.fingerprint(), "the copies differ");
        Ok(())
    }

    /// Edits one document at the first, and gives how long the second took to see it.
    pub(crate) fn change(&mut self, number: u64, text: &str) -> Result<Duration> {
        let start = Instant::now();
        self.both[0].edit(vec![update(number, text)], Durability::Synced)?;
        let seen = self.settle()?.context("the change did not arrive")?;
        Ok(seen.duration_since(start))
    }
}

/// Two copies that hold one document with so many changes, and as many others as told, and are equal.
pub(crate) fn with_history(changes: usize, others: usize, disks: [Disk; 2]) -> Result<Copies> {
    let [first, second] = disks;
    let mut copies = Copies::new([Copy::open(1, first)?, Copy::open(2, second)?]);
    let first = &mut copies.both[0];
    first.edit(vec![create(0, "the first of many")], Durability::Ordered)?;
    for change in 1..changes {
        first.edit(vec![update(0, &format!("change {change}"))], Durability::Ordered)?;
    }
    fill(first, 1, others)?;
    copies.open();
    copies.settle()?;
    copies.ensure_equal()?;
    Ok(copies)
}

/// Makes so many documents of one change each.
pub(crate) fn fill(copy: &mut Copy, from: u64, count: usize) -> Result<()> {
    let numbers: Vec<u64> = (from..).take(count).collect();
    for some in numbers.chunks(100) {
        let edits = some.iter().map(|it| create(*it, &format!("note number {it}"))).collect();
        copy.edit(edits, Durability::Ordered)?;
    }
    Ok(())
}
