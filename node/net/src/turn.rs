//! What one turn of a node's loop asks of the network.

use crate::{Command, NetHandle, Stopped};

/// A turn is given with so many commands, though the node goes on: what a network that is behind has not taken
/// waits at most once more in memory, and the node waits for it.
const COMMANDS_MAX: usize = 256;

/// Commands that are given together, in order: the network's task wakes once for all of them, after the
/// node's own work is done.
#[derive(Debug, Default)]
pub struct Turn {
    commands: Vec<Command>,
}

impl Turn {
    /// Adds a command. Of a device that is watched and is not any more, before anybody was told, nothing is
    /// told; nor the other way round.
    pub fn add(&mut self, command: Command) {
        if let Command::Watch { device, is_watched } = &command {
            let undoes = |it: &Command| {
                matches!(it, Command::Watch { device: of, is_watched: was }
                    if of == device && was != is_watched)
            };
            if let Some(at) = self.commands.iter().position(undoes) {
                self.commands.remove(at);
                return;
            }
        }
        self.commands.push(command);
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Whether it is to be given before more is added.
    pub fn is_full(&self) -> bool {
        self.commands.len() >= COMMANDS_MAX
    }
}

impl NetHandle {
    /// Gives the commands of a turn, and leaves it empty. Dropping the future gives some of them.
    ///
    /// # Errors
    ///
    /// The network has stopped.
    pub async fn give(&self, turn: &mut Turn) -> Result<(), Stopped> {
        for command in turn.commands.drain(..) {
            self.send(command).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use weft_protocol::id::DeviceId;

    use super::*;

    fn watch(device: u8, is_watched: bool) -> Command {
        Command::Watch { device: DeviceId::from_bytes([device; 32]), is_watched }
    }

    fn given(commands: Vec<Command>) -> Vec<String> {
        let (sender, mut inbox) = mpsc::channel(16);
        let handle = NetHandle { commands: sender };
        let mut turn = Turn::default();
        commands.into_iter().for_each(|command| turn.add(command));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(handle.give(&mut turn)).unwrap();
        assert!(turn.commands.is_empty());
        std::iter::from_fn(|| inbox.try_recv().ok()).map(|it| format!("{it:?}")).collect()
    }

    #[test]
    fn a_turn_is_given_in_order() {
        let [one, other] =
            [1, 2].map(|it| Command::Dial { device: DeviceId::from_bytes([it; 32]) });
        let expected = [&one, &watch(1, true), &other].map(|it| format!("{it:?}"));
        assert_eq!(given(vec![one, watch(1, true), other]), expected);
    }

    #[test]
    fn a_turn_that_goes_on_and_on_is_given_in_parts() {
        let mut turn = Turn::default();
        let mut added = 0;
        while !turn.is_full() {
            turn.add(watch(u8::try_from(added % 250).unwrap(), true));
            added += 1;
        }
        assert_eq!((turn.commands.len(), added), (COMMANDS_MAX, COMMANDS_MAX));
    }

    #[test]
    fn what_is_watched_for_a_turn_only_is_not_told() {
        assert_eq!(given(vec![watch(1, true), watch(1, false)]).len(), 0);
        assert_eq!(given(vec![watch(1, false), watch(1, true)]).len(), 0);
        let kept = given(vec![watch(1, true), watch(2, true), watch(1, false), watch(1, true)]);
        assert_eq!(kept, [watch(2, true), watch(1, true)].map(|it| format!("{it:?}")));
    }
}
