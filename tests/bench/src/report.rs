//! The table, and the same as JSON.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    bench::{Quantiles, Timed},
    floor::Range,
    rows::Row,
};

/// One figure of a row.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// What it is a figure of, where a row has several.
    pub(crate) what: String,
    pub(crate) value: Measure,
    /// What must be known to read it.
    pub(crate) note: String,
}

/// A figure's value.
#[derive(Clone, Debug)]
pub(crate) enum Measure {
    Timed(Box<Timed>),
    /// The ratio is to ours, where it is a peer's.
    Amount {
        amount: f64,
        unit: &'static str,
        ratio: Option<f64>,
    },
    /// It can't be measured yet, or not here; the note says why.
    NotYet,
    /// A peer is not there; the note says what would bring it.
    LeftOut,
}

impl Figure {
    pub(crate) fn timed(what: impl Into<String>, timed: Timed, note: impl Into<String>) -> Self {
        Self { what: what.into(), value: Measure::Timed(Box::new(timed)), note: note.into() }
    }

    pub(crate) fn amount(what: impl Into<String>, amount: f64, unit: &'static str) -> Self {
        let value = Measure::Amount { amount, unit, ratio: None };
        Self { what: what.into(), value, note: String::new() }
    }

    /// What a peer's amount is, and ours to it.
    pub(crate) fn beside(
        what: impl Into<String>,
        ours: f64,
        amount: f64,
        unit: &'static str,
    ) -> Self {
        let ratio = (amount > 0.0).then(|| ours / amount);
        Self {
            what: what.into(),
            value: Measure::Amount { amount, unit, ratio },
            note: String::new(),
        }
    }

    /// A comparison that is left out, and why.
    pub(crate) fn left_out(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), value: Measure::LeftOut, note: why.into() }
    }

    pub(crate) fn not_yet(why: impl Into<String>) -> Self {
        Self { what: String::new(), value: Measure::NotYet, note: why.into() }
    }

    pub(crate) fn noted(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// What all rows gave.
#[derive(Debug)]
pub(crate) struct Report {
    smoke: bool,
    rows: Vec<(&'static Row, Result<Vec<Figure>>)>,
}

const HEADINGS: [&str; 10] =
    ["#", "row", "figure", "p50", "p95", "p99", "n", "peer (p50, p99)", "ratio", "goal"];

impl Report {
    pub(crate) const fn new(smoke: bool) -> Self {
        Self { smoke, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: &'static Row, figures: Result<Vec<Figure>>) {
        self.rows.push((row, figures));
    }

    /// Whether no row failed.
    pub(crate) fn all_ran(&self) -> bool {
        self.rows.iter().all(|(_, figures)| figures.is_ok())
    }

    fn caveat(&self) -> Option<&'static str> {
        if cfg!(debug_assertions) {
            Some("a debug build: these figures say that the rows run, and nothing about speed")
        } else if self.smoke {
            Some("a smoke run: too few rounds for these figures to say anything about speed")
        } else {
            None
        }
    }

    pub(crate) fn print(&self) -> io::Result<()> {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        let mut notes = Vec::new();
        for (row, figures) in &self.rows {
            match figures {
                Ok(figures) => {
                    for (at, figure) in figures.iter().enumerate() {
                        lines.push(line(row, figure, at == 0));
                        if !figure.note.is_empty() {
                            notes.push(format!("{:>3} {}: {}", row.number, row.name, figure.note));
                        }
                    }
                    if let Some(machine) = machine(figures) {
                        notes.push(format!("{:>3} {}: {machine}", row.number, row.name));
                    }
                }
                Err(error) => {
                    let mut cells = line(row, &Figure::not_yet(""), true);
                    "FAILED".clone_into(&mut cells[2]);
                    lines.push(cells);
                    notes.push(format!("{:>3} {}: FAILED: {error:#}", row.number, row.name));
                }
            }
        }
        let mut widths = [0; HEADINGS.len()];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = io::stdout().lock();
        for line in &lines {
            let cells: Vec<String> =
                line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        if !notes.is_empty() {
            writeln!(out)?;
        }
        for note in notes {
            writeln!(out, "{note}")?;
        }
        if let Some(caveat) = self.caveat() {
            writeln!(out, "\n({caveat})")?;
        }
        out.flush()
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(row, figures)| {
                let mut entry = json!({
                    "row": row.number,
                    "name": row.name,
                    "workload": row.workload,
                    "goal": row.goal,
                });
                match figures {
                    Ok(figures) => entry["figures"] = figures.iter().map(figure_json).collect(),
                    Err(error) => entry["failed"] = format!("{error:#}").into(),
                }
                entry
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "smoke": self.smoke,
            "caveat": self.caveat(),
            "rows": rows,
        })
    }
}

fn line(row: &Row, figure: &Figure, first: bool) -> [String; HEADINGS.len()] {
    let head = |text: &str| if first { text.to_owned() } else { String::new() };
    let ratio_shown = |ratio: Option<f64>| ratio.map(|it| format!("{it:.2}")).unwrap_or_default();
    let [p50, p95, p99, n, peer, ratio] = match &figure.value {
        Measure::Timed(timed) => {
            let peer = timed.peer.as_ref();
            let peer =
                peer.map(|(name, it)| format!("{name} ({}, {})", shown(it.p50), shown(it.p99)));
            [
                shown(timed.ours.p50),
                shown(timed.ours.p95),
                shown(timed.ours.p99),
                timed.ours.n.to_string(),
                peer.unwrap_or_default(),
                ratio_shown(timed.ratio),
            ]
        }
        Measure::Amount { amount, unit, ratio } => {
            let amount =
                if amount.fract() == 0.0 { format!("{amount}") } else { format!("{amount:.2}") };
            let mut cells = [const { String::new() }; 6];
            cells[0] = format!("{amount} {unit}");
            cells[5] = ratio_shown(*ratio);
            cells
        }
        Measure::NotYet => {
            let mut cells = [const { String::new() }; 6];
            "not yet".clone_into(&mut cells[0]);
            cells
        }
        Measure::LeftOut => {
            let mut cells = [const { String::new() }; 6];
            "left out".clone_into(&mut cells[0]);
            cells
        }
    };
    let number = head(&row.number.to_string());
    [number, head(row.name), figure.what.clone(), p50, p95, p99, n, peer, ratio, head(row.goal)]
}

/// What the machine could do while a row was timed.
fn machine(figures: &[Figure]) -> Option<String> {
    let timed = || {
        figures.iter().filter_map(|figure| match &figure.value {
            Measure::Timed(timed) => Some(timed.as_ref()),
            Measure::Amount { .. } | Measure::NotYet | Measure::LeftOut => None,
        })
    };
    let Range { least, most } = Range::around(timed().filter_map(|timed| timed.floors))?;
    let range = |least, most| format!("{} to {}", shown(least), shown(most));
    Some(format!(
        "floors: UDP echo {}, fdatasync {}, SHA-256 of 1 MiB {}; steady rounds: {}, rounds that drifted: {}{}",
        range(least.udp, most.udp),
        range(least.sync, most.sync),
        range(least.sha, most.sha),
        timed().map(|timed| timed.rounds).sum::<usize>(),
        timed().map(|timed| timed.drifted).sum::<usize>(),
        if timed().any(|timed| timed.floors.is_some() && timed.rounds == 0) {
            "; where none was steady, those that drifted are shown"
        } else {
            ""
        },
    ))
}

fn figure_json(figure: &Figure) -> Value {
    let quantiles = |it: &Quantiles| {
        json!({
            "p50_us": micros(it.p50),
            "p95_us": micros(it.p95),
            "p99_us": micros(it.p99),
            "n": it.n,
        })
    };
    let mut entry = match &figure.value {
        Measure::Timed(timed) => json!({
            "ours": quantiles(&timed.ours),
            "peer": timed.peer.as_ref().map(|(name, it)| {
                let mut peer = quantiles(it);
                peer["name"] = (*name).into();
                peer
            }),
            "ratio": timed.ratio,
            "rounds": timed.rounds,
            "rounds_drifted": timed.drifted,
            "floors_us": timed.floors.map(floors_json),
        }),
        Measure::Amount { amount, unit, ratio } => {
            json!({"amount": amount, "unit": unit, "ratio": ratio})
        }
        Measure::NotYet => json!({"not_yet": figure.note}),
        Measure::LeftOut => json!({"left_out": figure.note}),
    };
    entry["what"] = figure.what.clone().into();
    if !figure.note.is_empty() {
        entry["note"] = figure.note.clone().into();
    }
    entry
}

fn floors_json(Range { least, most }: Range) -> Value {
    json!({
        "udp": [micros(least.udp), micros(most.udp)],
        "fdatasync": [micros(least.sync), micros(most.sync)],
        "sha256": [micros(least.sha), micros(most.sha)],
    })
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A time in the unit that suits it.
fn shown(time: Duration) -> String {
    match micros(time) {
        micros if micros < 1.0 => format!("{:.0} ns", micros * 1e3),
        micros if micros < 1_000.0 => format!("{micros:.1} µs"),
        micros if micros < 1e6 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_the_unit_that_suits_it() {
        let times =
            [400, 1_500, 2_340_000, 1_500_000_000].map(|ns| shown(Duration::from_nanos(ns)));
        assert_eq!(times, ["400 ns", "1.5 µs", "2.34 ms", "1.50 s"]);
    }

    #[test]
    fn a_peer_that_holds_half_as_much_makes_the_ratio_two() {
        let figure = Figure::beside("libp2p: resident", 30.0, 15.0, "MB");
        assert_eq!(figure_json(&figure)["ratio"], 2.0);
        // Nothing is so many times nothing.
        let figure = Figure::beside("libp2p: processor", 1.0, 0.0, "ticks/min");
        assert_eq!(figure_json(&figure)["ratio"], Value::Null);
        let figure = Figure::left_out("beside iroh", "peer-iroh is not there");
        assert_eq!(figure_json(&figure)["left_out"], "peer-iroh is not there");
    }

    #[test]
    fn a_row_that_failed_is_no_success() {
        let mut report = Report::new(true);
        report.add(&crate::rows::ROWS[0], Ok(vec![Figure::not_yet("no peer")]));
        assert!(report.all_ran());
        report.add(&crate::rows::ROWS[1], Err(anyhow::anyhow!("no disk")));
        assert!(!report.all_ran());
        assert_eq!(report.json()["rows"][1]["failed"], "no disk");
        assert_eq!(report.json()["rows"][0]["figures"][0]["not_yet"], "no peer");
    }
}
