//! The bound on what a guest may hold.

use wasmtime::ResourceLimiter;

/// Elements of all tables together: functions of a large program, and room to spare.
const ELEMENTS_MAX: usize = 1 << 20;

/// Core instances, memories and tables of one component; those from common toolchains have under ten.
const PARTS_MAX: usize = 64;

/// Counts all memories and tables of a store together.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    bytes_max: usize,
    bytes: usize,
    elements: usize,
    /// The guest wanted more than it was granted.
    pub(super) was_reached: bool,
}

impl MemoryLimit {
    pub(super) fn new(mib: u32) -> Self {
        let bytes_max = usize::try_from(u64::from(mib) << 20).unwrap_or(usize::MAX);
        Self { bytes_max, bytes: 0, elements: 0, was_reached: false }
    }
}

/// Adds growth to what is held if that stays within `max`.
fn grow(held: &mut usize, current: usize, desired: usize, max: usize) -> bool {
    let after = held.saturating_add(desired.saturating_sub(current));
    let fits = after <= max;
    if fits {
        *held = after;
    }
    fits
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = grow(&mut self.bytes, current, desired, self.bytes_max);
        self.was_reached |= !fits;
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = grow(&mut self.elements, current, desired, ELEMENTS_MAX);
        self.was_reached |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }
}
