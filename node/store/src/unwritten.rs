//! Rows that were acknowledged and are not in the file yet, each as it was written last.

use std::{collections::BTreeMap, ops::RangeInclusive};

use weft_protocol::row::{Item, NAME_BYTES_MAX, Row, Table, Write};

/// What a row takes in memory beside its value, about.
const ROW_BYTES: usize = 128;

/// The last item that a row may have.
const LAST: Item = Item::Numbered(u64::MAX);

/// No scope lies behind this.
const LAST_SCOPE: [u8; NAME_BYTES_MAX + 1] = [0xff; NAME_BYTES_MAX + 1];

/// The rows; one whose value is `None` is deleted.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    rows: BTreeMap<Row, Option<Vec<u8>>>,
    bytes: usize,
}

impl Unwritten {
    /// Takes the writes of one batch over those before it.
    pub(crate) fn add(&mut self, writes: Vec<Write>) {
        for write in writes {
            let (row, value) = match write {
                Write::Put(row, value) => (row, Some(value)),
                Write::Delete(row) => (row, None),
            };
            self.bytes += ROW_BYTES + value.as_ref().map_or(0, Vec::len);
            if let Some(before) = self.rows.insert(row, value) {
                self.bytes -= ROW_BYTES + before.map_or(0, |before| before.len());
            }
        }
    }

    /// About how much memory they take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is to become of a row, if anything is.
    pub(crate) fn get(&self, row: &Row) -> Option<&Option<Vec<u8>>> {
        self.rows.get(row)
    }

    /// All rows, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Row, &Option<Vec<u8>>)> {
        self.rows.iter()
    }

    /// The rows of a range, in order.
    pub(crate) fn range(
        &self,
        range: &RangeInclusive<Row>,
    ) -> impl Iterator<Item = (&Row, &Option<Vec<u8>>)> {
        self.rows.range(range.clone())
    }
}

/// The first item that a row may have.
pub(crate) const FIRST: Item = Item::Named(Vec::new());

/// All rows of a scope from `item` on.
pub(crate) fn from(table: Table, scope: &[u8], item: Item) -> RangeInclusive<Row> {
    let row = |item| Row { table, scope: scope.to_vec(), item };
    row(item)..=row(LAST)
}

/// All rows of a table.
pub(crate) fn all(table: Table) -> RangeInclusive<Row> {
    Row { table, scope: Vec::new(), item: FIRST }..=Row {
        table,
        scope: LAST_SCOPE.into(),
        item: LAST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_last_counts_and_takes_the_room() {
        let (one, other) = (Row::numbered(Table::Run, b"a", 1), Row::named(Table::Run, b"a", b"x"));
        let mut rows = Unwritten::default();
        rows.add(vec![Write::Put(one.clone(), vec![1; 300]), Write::Put(other.clone(), vec![2])]);
        assert_eq!(rows.bytes(), 2 * ROW_BYTES + 301);
        rows.add(vec![Write::Delete(one.clone()), Write::Put(other.clone(), vec![3; 7])]);
        assert_eq!(rows.bytes(), 2 * ROW_BYTES + 7);
        assert_eq!(rows.get(&one), Some(&None));
        assert_eq!(rows.get(&other), Some(&Some(vec![3; 7])));
        assert_eq!(rows.get(&Row::numbered(Table::Run, b"a", 2)), None);
    }

    #[test]
    fn a_scope_is_a_range() {
        let mut rows = Unwritten::default();
        let named = |scope: &[u8], name: &[u8]| Row::named(Table::Run, scope, name);
        let numbered = |scope: &[u8], number| Row::numbered(Table::Run, scope, number);
        let all = [
            named(b"a", b""),
            named(b"a", &[0xff; 40]),
            numbered(b"a", 0),
            numbered(b"a", u64::MAX),
            named(b"ab", b""),
            numbered(b"", 3),
        ];
        rows.add(all.iter().map(|row| Write::Put(row.clone(), Vec::new())).collect());
        let found = |first| {
            let range = from(Table::Run, b"a", first);
            rows.range(&range).map(|(row, _)| row.clone()).collect::<Vec<_>>()
        };
        assert_eq!(found(FIRST), all[..4]);
        assert_eq!(found(Item::Numbered(0)), all[2..4]);
        assert_eq!(found(Item::Numbered(1)), all[3..4]);
    }
}
