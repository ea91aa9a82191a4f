//! The store as the core reads it.

use weft_protocol::row::{Item, ReadError as RowError, Row, Rows, Table};

use crate::store::{ReadError, Store};

impl Rows for Store {
    fn get(&self, row: &Row) -> Result<Option<Vec<u8>>, RowError> {
        Self::get(self, row).map_err(|error| failed(row.table, &error))
    }

    fn scan(&self, table: Table, scope: &[u8]) -> Result<Vec<(Item, Vec<u8>)>, RowError> {
        Self::scan(self, table, scope).map_err(|error| failed(table, &error))
    }

    fn scan_from(
        &self,
        table: Table,
        scope: &[u8],
        number: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, RowError> {
        let rows = Self::scan_from(self, table, scope, number, limit)
            .map_err(|error| failed(table, &error))?;
        Ok(rows.into_iter().filter_map(numbered).collect())
    }

    fn last(&self, table: Table, scope: &[u8]) -> Result<Option<(u64, Vec<u8>)>, RowError> {
        let row = self.scan_last(table, scope).map_err(|error| failed(table, &error))?;
        Ok(row.and_then(numbered))
    }

    fn scan_table(&self, table: Table) -> Result<Vec<(Row, Vec<u8>)>, RowError> {
        Self::scan_table(self, table).map_err(|error| failed(table, &error))
    }
}

fn numbered((item, value): (Item, Vec<u8>)) -> Option<(u64, Vec<u8>)> {
    match item {
        Item::Numbered(number) => Some((number, value)),
        Item::Named(_) => None,
    }
}

fn failed(table: Table, error: &ReadError) -> RowError {
    RowError { table, why: error.to_string() }
}
