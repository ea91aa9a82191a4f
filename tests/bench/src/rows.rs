//! The rows, in the order of their numbers.

mod agent;
mod agent_cold;
mod agent_durable;
mod agent_warm;
mod at_rest;
mod audit;
mod dag;
mod dag_two;
mod discover;
mod flatness;
mod idle;
mod intent;
mod launcher;
mod phrases;
mod policy;
mod remote_call;
mod resync;
mod size;
mod start;
mod sync_one;
mod task_rate;

use anyhow::Result;

use crate::{bench::Bench, report::Figure};

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) workload: &'static str,
    pub(crate) goal: &'static str,
    run: Run,
}

#[derive(Debug)]
enum Run {
    By(fn(&mut Bench) -> Result<Vec<Figure>>),
    /// Not to be measured honestly by now, and why.
    NotYet(&'static str),
}

impl Row {
    /// Whether it is called so.
    pub(crate) fn is(&self, name: &str) -> bool {
        name == self.name || name == self.number.to_string()
    }

    /// Measures it.
    pub(crate) fn measure(&self, bench: &mut Bench) -> Result<Vec<Figure>> {
        match self.run {
            Run::By(run) => run(bench),
            Run::NotYet(why) => Ok(vec![Figure::not_yet(why)]),
        }
    }
}

/// The names of all.
pub(crate) fn names() -> String {
    ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}

const fn row(
    number: u8,
    name: &'static str,
    workload: &'static str,
    goal: &'static str,
    run: fn(&mut Bench) -> Result<Vec<Figure>>,
) -> Row {
    Row { number, name, workload, goal, run: Run::By(run) }
}

const fn not_yet(
    number: u8,
    name: &'static str,
    workload: &'static str,
    goal: &'static str,
    why: &'static str,
) -> Row {
    Row { number, name, workload, goal, run: Run::NotYet(why) }
}

/// All rows.
pub(crate) const ROWS: &[Row] = &[
    row(
        1,
        "agent-warm",
        "decide, two audit records (buffered), a step of a component in its child",
        "≤ 1.3x the sum",
        agent_warm::run,
    ),
    row(
        2,
        "agent-warm-durable",
        "as agent-warm, the intent synced before the step",
        "≤ 1.3x the sum",
        agent_durable::run,
    ),
    row(
        3,
        "agent-cold",
        "the first step: child started, walled, loaded with compiled code from the cache",
        "p99 ≤ 8 ms",
        agent_cold::run,
    ),
    row(
        4,
        "policy",
        "one decision of the embedded rules, question and input built",
        "≤ 1.3x regorus",
        policy::run,
    ),
    row(
        5,
        "remote-call",
        "a read-only step on the other node: loopback, decided and recorded on both sides",
        "≤ NATS; stretch 2x quinn",
        remote_call::run,
    ),
    row(6, "dag-10", "ten dependent steps, journal on disk, one node", "≤ 5 ms", dag::run),
    row(
        7,
        "dag-10-2nodes",
        "ten dependent steps, every other one on the other node",
        "≤ 1.5x",
        dag_two::run,
    ),
    row(8, "task-rate", "independent steps, 64 to a run", "≤ 0.25x Ray", task_rate::run),
    row(
        9,
        "sync-1",
        "a change made and persisted here, visible and persisted there; 1,000 changes of history",
        "≤ 2 ms",
        sync_one::run,
    ),
    row(
        10,
        "history-flatness",
        "sync-1 with few and with 100 times as many changes in the data set",
        "≤ 2 : 1",
        flatness::run,
    ),
    row(
        11,
        "resync-10k",
        "two copies of many documents, 100 changed on each side, then compared",
        "≤ 1 s; ≤ 3x the changes",
        resync::run,
    ),
    row(
        12,
        "idle",
        "three paired nodes that do nothing",
        "≤ 30 MB, phone ≤ 20 MB; ≤ 1 tick/min; ≤ 2 wake-ups/s",
        idle::run,
    ),
    row(13, "start", "from exec to the first answer", "≤ 150 ms; ≤ 0.15x Syncthing", start::run),
    row(14, "intent", "a sentence to its plan, over the corpus", "p99 ≤ 1 ms", intent::run),
    row(
        15,
        "launcher-e2e",
        "`weft do` from exec to exit: a step here, and on another node",
        "p95 ≤ 100 ms; remote 250 ms",
        launcher::run,
    ),
    row(
        16,
        "discover+pair",
        "two fresh nodes on a local network: found by a code, paired, started, first document",
        "p95 ≤ 300 ms; ≤ 3 s at 30 % loss",
        discover::run,
    ),
    not_yet(
        17,
        "bulk",
        "a blob of 1 GiB from node to node",
        "≥ 0.8x quinn",
        "there are no blobs yet",
    ),
    row(
        18,
        "audit-append",
        "a record appended; a chain verified",
        "≤ 1.3x a signature; 1 M ≤ 2 s",
        audit::run,
    ),
    row(
        19,
        "at-rest",
        "a value of 256 bytes and of 4 KiB into the encrypted store, ordered",
        "≤ 1.05x plain redb",
        at_rest::run,
    ),
    not_yet(
        20,
        "success-rate",
        "10,000 mixed runs on three nodes, one of which comes and goes",
        "≥ 99.9 %, none twice",
        "the simulator checks that nothing happens twice; a real fabric that flaps is not driven yet",
    ),
    not_yet(
        21,
        "scale-agents",
        "1,000 agents installed, 200 steps at once",
        "p99 ≤ 10x p50",
        "agents are those that the program carries; at most 32 children live at once",
    ),
    not_yet(
        22,
        "model-offload",
        "a streamed answer of the server's model, asked on the phone",
        "tokens/s ≥ 0.97x",
        "the peer, llama.cpp asked directly, is not built here yet",
    ),
    row(23, "phrase-scale", "intent with 200 agents and 5,000 phrases", "≤ 100 µs", phrases::run),
    row(24, "size", "the program's file", "≤ 60 MB", size::run),
    not_yet(
        25,
        "blob-fanin",
        "a blob of 1 GiB from two peers at once",
        "≥ 1.6x",
        "there are no blobs yet",
    ),
    not_yet(
        26,
        "growth",
        "rows 1, 5, 9 and 13 from 3 to 20 nodes, and more documents, agents, records",
        "≤ 1.5 : 1",
        "rows 10 and 23 hold the parts that can be grown by now: documents and phrases",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_number_and_its_own_name() {
        let numbers: Vec<u8> = ROWS.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (1..=26).collect::<Vec<u8>>());
        for row in ROWS {
            assert_eq!(ROWS.iter().filter(|other| other.is(row.name)).count(), 1, "{}", row.name);
        }
    }
}
