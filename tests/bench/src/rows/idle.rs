//! Row 12: what a node costs that does nothing.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{bench::Bench, program::Homes, report::Figure};

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let notes = bench.size(100, 10_000);
    let mut homes = Homes::new(bench.program()?)?;
    homes.init(notes)?;
    homes.up("laptop")?;
    homes.join("phone")?;
    homes.join("server")?;
    for device in ["laptop", "phone", "server"] {
        homes.wait(device, |status| {
            status["devices_here"] == 2 && status["documents"].as_u64() >= u64::try_from(notes).ok()
        })?;
    }
    // What pairing and synchronising left to do is done.
    let (rest, watch) = if bench.smoke { (1, 3) } else { (30, 300) };
    thread::sleep(Duration::from_secs(rest));
    let pid = homes.first()?;
    let (ticks, switches) = (ticks(pid)?, switches(pid)?);
    let start = Instant::now();
    thread::sleep(Duration::from_secs(watch));
    let seconds = start.elapsed().as_secs_f64();
    let ticked = self::ticks(pid)? - ticks;
    let switched = self::switches(pid)? - switches;
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .context("failed to read a node's memory")?;
    let megabytes = |field: &str| -> Result<f64> { Ok(kibibytes(&memory, field)? * 1_024.0 / 1e6) };
    let note = format!("{notes} notes, watched for {watch} s after {rest} s of rest");
    Ok(vec![
        Figure::amount("resident", megabytes("Rss:")?, "MB").noted(note),
        Figure::amount("proportional", megabytes("Pss:")?, "MB"),
        Figure::amount("processor", ticked as f64 * 60.0 / seconds, "ticks/min"),
        Figure::amount("context switches", switched as f64 / seconds, "/s"),
    ])
}

fn kibibytes(text: &str, field: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no such field")?;
    Ok(number.parse()?)
}

/// Processor time so far, in ticks of 10 ms.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("no process's line")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |at: usize| -> Result<u64> { Ok(fields.get(at).context("a short line")?.parse()?) };
    Ok(field(11)? + field(12)?)
}

/// Context switches of all threads so far, asked for or not.
fn switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for line in status.lines().filter(|line| line.contains("ctxt_switches:")) {
            let number = line.split_whitespace().last().context("no number")?;
            sum += number.parse::<u64>()?;
        }
    }
    Ok(sum)
}
