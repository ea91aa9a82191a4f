//! The statements: as they count on this device, and as others may hear of them.
//!
//! A statement that is made here counts at once: a device that is put out is out before the disk has
//! turned. Others hear of it when it is on the disk and not before. If the power went between, they would
//! hold what its author has forgotten, the author's next statement would stand in the same place, and
//! that is a fork, for which an honest device is suspended.
//!
//! What was learned from others is held back from nobody: its author told it, so it is on the author's
//! disk. Whoever forgets it in a crash hears it again, and no statement of its own has followed it, since
//! batches are written in order.

use std::collections::BTreeSet;

use weft_protocol::{id::StatementId, signed::Signed};
use weft_trust::graph::{Graph, Inserted};

/// All statements that this device knows.
#[derive(Debug)]
pub(super) struct Statements {
    counting: Graph,
    /// What others may hear of, where that is less.
    told: Option<Box<Graph>>,
    /// What was made here and is on its way to the disk.
    unstored: BTreeSet<StatementId>,
}

impl Statements {
    /// Those that are on the disk.
    pub(super) const fn new(graph: Graph) -> Self {
        Self { counting: graph, told: None, unstored: BTreeSet::new() }
    }

    /// As they count here.
    pub(super) const fn counting(&self) -> &Graph {
        &self.counting
    }

    /// As others may hear of them.
    pub(super) fn told(&self) -> &Graph {
        self.told.as_deref().unwrap_or(&self.counting)
    }

    /// Takes what others said, or what is on the disk. A bad one is passed over. Gives those that entered.
    pub(super) fn learn(&mut self, statements: Vec<Signed>) -> Vec<StatementId> {
        if let Some(told) = &mut self.told {
            insert(told, statements.clone());
        }
        insert(&mut self.counting, statements)
    }

    /// Takes what was made here: it counts, and nobody hears of it before [`Self::stored`]. Gives those that
    /// entered.
    pub(super) fn say(&mut self, statements: Vec<Signed>) -> Vec<StatementId> {
        let before = self.told.is_none().then(|| Box::new(self.counting.clone()));
        let added = insert(&mut self.counting, statements);
        if !added.is_empty() {
            self.told = before.or_else(|| self.told.take());
            self.unstored.extend(&added);
        }
        added
    }

    /// These are on the disk. Gives whether others may hear of more than before.
    pub(super) fn stored(&mut self, ids: &[StatementId]) -> bool {
        let mut stored: Vec<Signed> = Vec::new();
        for id in ids.iter().filter(|id| self.unstored.remove(*id)) {
            stored.extend(self.counting.get(id).cloned());
        }
        let may_tell = !stored.is_empty();
        if self.unstored.is_empty() {
            self.told = None;
        } else if let Some(told) = &mut self.told {
            insert(told, stored);
        }
        may_tell
    }

    /// The disk has refused these. What was made here and is not on it counts no more, all of it: the disk
    /// takes nothing behind what it refused. Gives whether anything counts no more.
    pub(super) fn refused(&mut self, ids: &[StatementId]) -> bool {
        if !ids.iter().any(|id| self.unstored.contains(id)) {
            return false;
        }
        self.unstored.clear();
        self.counting = *self.told.take().expect("what is not stored is not told");
        true
    }
}

fn insert(graph: &mut Graph, statements: Vec<Signed>) -> Vec<StatementId> {
    let mut added = Vec::new();
    for signed in statements {
        if let Ok(Inserted::Added(ids)) = graph.insert(signed) {
            added.extend(ids);
        }
    }
    added
}
