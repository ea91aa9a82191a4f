//! What the node reads of its machine, once a minute and when the network changes.

use std::{path::PathBuf, time::Duration};

use tokio::{runtime::Handle, sync::mpsc};
use weft_core::Input;
use weft_probe::Probe;
use weft_protocol::time::Timestamp;

use super::{agents::FromStep, home::Metered};

/// Charge, load and room move slowly.
const EVERY: Duration = Duration::from_secs(60);
/// Whether the network costs money changes with the network, which is told, or when a person says so to
/// the system, which is not.
const METERED_EVERY: Duration = Duration::from_secs(600);

/// The readings, and when they were made.
#[derive(Debug)]
pub(super) struct Readings {
    probe: Probe,
    home: PathBuf,
    metered: Metered,
    read: Option<Timestamp>,
    asked: Option<Timestamp>,
}

impl Readings {
    /// Nothing was read yet of the machine whose node keeps its data there.
    pub(super) fn new(home: PathBuf, metered: Metered) -> Self {
        Self { probe: Probe::default(), home, metered, read: None, asked: None }
    }

    /// What is due to be told to the core.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Input> {
        if self.read.is_some_and(|read| now.since(read) < EVERY) {
            return Vec::new();
        }
        self.read = Some(now);
        vec![Input::Battery(self.probe.battery()), Input::Machine(self.probe.machine(&self.home))]
    }

    /// Finds out whether the network costs money, if that is due; the answer comes to `out`.
    pub(super) fn look_at_network(
        &mut self,
        now: Timestamp,
        runtime: &Handle,
        out: &mpsc::Sender<FromStep>,
    ) {
        if self.asked.is_some_and(|asked| now.since(asked) < METERED_EVERY) {
            return;
        }
        self.asked = Some(now);
        let (probe, metered, out) = (self.probe.clone(), self.metered, out.clone());
        runtime.spawn(async move {
            let metered = match metered {
                Metered::Yes => true,
                Metered::No => false,
                Metered::Auto => probe.metered().await.unwrap_or(false),
            };
            // A loop that has ended does not want to know.
            drop(out.send(FromStep::Input(Input::Metered(metered))).await);
        });
    }

    /// The network is another than it was.
    pub(super) fn network_changed(&mut self) {
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn the_machine_is_read_at_the_start_and_once_a_minute() {
        let mut readings = Readings::new(PathBuf::from("/"), Metered::Auto);
        let counts = [0, 1, 59, 60, 61, 300].map(|seconds| readings.due(at(seconds)).len());
        assert_eq!(counts, [2, 0, 0, 2, 0, 2]);
    }

    #[tokio::test]
    async fn what_the_person_says_of_the_network_counts_before_the_system() {
        for (metered, expected) in [(Metered::Yes, true), (Metered::No, false)] {
            let mut readings = Readings::new(PathBuf::from("/"), metered);
            let (out, mut inbox) = mpsc::channel(4);
            for seconds in [0, 1, 599] {
                readings.look_at_network(at(seconds), &Handle::current(), &out);
            }
            readings.network_changed();
            readings.look_at_network(at(599), &Handle::current(), &out);
            drop(out);
            let mut answers = Vec::new();
            while let Some(FromStep::Input(Input::Metered(metered))) = inbox.recv().await {
                answers.push(metered);
            }
            assert_eq!(answers, [expected; 2], "once, and again when it changed");
        }
    }
}
