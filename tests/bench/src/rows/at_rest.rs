//! Row 19: what a value costs on its way into the store.

use anyhow::{Context as _, Result};
use weft_protocol::row::{Durability, Row, Table, Write};
use weft_store::{Store, key::StoreKey};

use crate::{
    bench::{Bench, time},
    floor::Floor,
    member,
    report::Figure,
};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir().context("failed to make a folder")?;
    let store = Store::open(&folder.path().join("store.redb"), &StoreKey::from([5; 32]))?;
    let samples = bench.size(20, 1_000);
    let mut number = 0;
    let mut put = |len: usize, durability: Durability| {
        number += 1;
        let row = Row::numbered(Table::Document, b"bench", number);
        let writes = vec![Write::Put(row, vec![7; len])];
        time(|| member::write(&store, writes, durability))
    };
    let small =
        bench.compare(samples, &[Floor::Sha], Box::new(|_| put(256, Durability::Ordered)), None)?;
    let large = bench.compare(
        samples,
        &[Floor::Sha],
        Box::new(|_| put(4 << 10, Durability::Ordered)),
        None,
    )?;
    let note = "absolute: plain redb, the peer, may be used by the store's crate only";
    Ok(vec![Figure::timed("256 bytes", small, note), Figure::timed("4 KiB", large, "")])
}
