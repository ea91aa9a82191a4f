//! What a process holds and has used, as the kernel counts it.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// What a process has used since it began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time, in ticks of 10 ms.
    ticks: u64,
    /// How often one of its threads went to sleep: each time it was woken before.
    sleeps: u64,
    /// How often one of its threads was put aside for another.
    put_aside: u64,
}

/// What it used in a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) ticks_per_minute: f64,
    pub(crate) wake_ups_per_second: f64,
    pub(crate) switches_per_second: f64,
}

/// What it holds, in megabytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All its pages that are in memory.
    pub(crate) resident: f64,
    /// The same, each page divided by how many processes hold it.
    pub(crate) proportional: f64,
    /// Pages that no file backs: what the program itself has made.
    pub(crate) anonymous: f64,
}

impl Usage {
    /// Of a process by now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .context("failed to read a process's line")?;
        // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
        let (_, fields) = stat.rsplit_once(')').context("no process's line")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field =
            |at: usize| -> Result<u64> { Ok(fields.get(at).context("a short line")?.parse()?) };
        let (mut sleeps, mut put_aside) = (0, 0);
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            sleeps += number(&status, "voluntary_ctxt_switches:")?;
            put_aside += number(&status, "nonvoluntary_ctxt_switches:")?;
        }
        Ok(Self { ticks: field(11)? + field(12)?, sleeps, put_aside })
    }

    /// What was used between two moments. A thread that ended meanwhile takes its counts along.
    pub(crate) fn until(self, later: Self, after: Duration) -> Spent {
        let seconds = after.as_secs_f64();
        let per_second = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let wake_ups_per_second = per_second(self.sleeps, later.sleeps);
        Spent {
            ticks_per_minute: per_second(self.ticks, later.ticks) * 60.0,
            wake_ups_per_second,
            switches_per_second: wake_ups_per_second + per_second(self.put_aside, later.put_aside),
        }
    }
}

impl Memory {
    /// Of a process by now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .context("failed to read a process's memory")?;
        let megabytes =
            |field: &str| -> Result<f64> { Ok(number(&text, field)? as f64 * 1_024.0 / 1e6) };
        Ok(Self {
            resident: megabytes("Rss:")?,
            proportional: megabytes("Pss:")?,
            anonymous: megabytes("Anonymous:")?,
        })
    }
}

/// The number on the line that begins so.
fn number(text: &str, field: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no field {field}"))?.parse()?)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use super::*;
    use crate::process::Process;

    /// What a shell spends that runs this.
    fn spent(script: &str) -> Spent {
        let shell = Process::start(Command::new("sh").args(["-c", script])).unwrap();
        let before = Usage::of(shell.id()).unwrap();
        thread::sleep(Duration::from_millis(500));
        before.until(Usage::of(shell.id()).unwrap(), Duration::from_millis(500))
    }

    #[test]
    fn who_sleeps_is_woken() {
        let spent = spent("while :; do sleep 0.01; done");
        assert!(spent.wake_ups_per_second > 1.0, "{spent:?}");
        assert!(spent.switches_per_second >= spent.wake_ups_per_second, "{spent:?}");
    }

    #[test]
    fn who_works_has_ticks() {
        let spent = spent("while :; do :; done");
        assert!(spent.ticks_per_minute > 0.0, "{spent:?}");
    }

    #[test]
    fn what_is_held_is_not_less_than_its_share() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident >= memory.proportional && memory.proportional > 0.0, "{memory:?}");
        assert!(memory.resident >= memory.anonymous, "{memory:?}");
    }
}
