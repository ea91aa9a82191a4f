//! A disk in memory that can fail at a chosen operation and show what a power cut would leave.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand_core::Rng;
use redb::StorageBackend;

/// A change that no sync has covered yet.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// Called at each sync, before it takes effect, with what is durable and what is not.
type OnSync = Box<dyn FnMut(&[u8], &[Change]) + Send>;

#[derive(Default)]
struct State {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    current: Vec<u8>,
    /// Writes, syncs and changes of length so far.
    operations: u64,
    reads: u64,
    fail_at: Option<(u64, io::ErrorKind)>,
    on_sync: Option<OnSync>,
}

/// A handle on the disk; its clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct FaultBackend(Arc<Mutex<State>>);

impl fmt::Debug for FaultBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultBackend")
    }
}

impl FaultBackend {
    pub(crate) fn with(image: Vec<u8>) -> Self {
        let state = State { durable: image.clone(), current: image, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Reads so far.
    pub(crate) fn reads(&self) -> u64 {
        self.state().reads
    }

    /// Lets the `n`-th write, sync or change of length fail, counted from 1.
    pub(crate) fn fail_at(&self, n: u64, kind: io::ErrorKind) {
        self.state().fail_at = Some((n, kind));
    }

    pub(crate) fn on_sync(&self, on_sync: impl FnMut(&[u8], &[Change]) + Send + 'static) {
        self.state().on_sync = Some(Box::new(on_sync));
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// What the process sees.
    pub(crate) fn current(&self) -> Vec<u8> {
        self.state().current.clone()
    }

    /// What is certain to survive a power cut.
    pub(crate) fn durable(&self) -> Vec<u8> {
        self.state().durable.clone()
    }

    /// What a power cut now might leave.
    pub(crate) fn cut(&self, rng: &mut impl Rng) -> Vec<u8> {
        let state = self.state();
        cut(&state.durable, &state.unsynced, rng)
    }

    fn begin(state: &mut State) -> io::Result<()> {
        state.operations += 1;
        match state.fail_at {
            Some((n, kind)) if n == state.operations => Err(kind.into()),
            Some(_) | None => Ok(()),
        }
    }
}

/// A power cut: any of the unsynced changes may have reached the disk, and one of them in part.
pub(crate) fn cut(durable: &[u8], unsynced: &[Change], rng: &mut impl Rng) -> Vec<u8> {
    let mut image = durable.to_vec();
    let torn = (rng.next_u32() as usize) % unsynced.len().max(1);
    for (at, change) in unsynced.iter().enumerate() {
        match change {
            Change::Write(offset, data) if at == torn => {
                let kept = (rng.next_u32() as usize) % (data.len() + 1);
                Change::Write(*offset, data[..kept].to_vec()).apply(&mut image);
            }
            change if rng.next_u32().is_multiple_of(2) => change.apply(&mut image),
            Change::Write(..) | Change::SetLen(_) => {}
        }
    }
    image
}

impl Change {
    pub(crate) fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => image.resize(usize::try_from(*len).unwrap(), 0),
            Self::Write(offset, data) => {
                let start = usize::try_from(*offset).unwrap();
                let end = start + data.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[start..end].copy_from_slice(data);
            }
        }
    }
}

impl StorageBackend for FaultBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.reads += 1;
        let start = usize::try_from(offset).unwrap();
        let bytes =
            state.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        Self::begin(&mut state)?;
        let change = Change::SetLen(len);
        change.apply(&mut state.current);
        state.unsynced.push(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        Self::begin(&mut state)?;
        let State { durable, unsynced, on_sync, .. } = &mut *state;
        if let Some(on_sync) = on_sync {
            on_sync(durable, unsynced);
        }
        for change in unsynced.drain(..) {
            change.apply(durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if let Err(error) = Self::begin(&mut state) {
            // A write that fails may have got half of its bytes out.
            let change = Change::Write(offset, data[..data.len() / 2].to_vec());
            change.apply(&mut state.current);
            state.unsynced.push(change);
            return Err(error);
        }
        let change = Change::Write(offset, data.to_vec());
        change.apply(&mut state.current);
        state.unsynced.push(change);
        Ok(())
    }
}
