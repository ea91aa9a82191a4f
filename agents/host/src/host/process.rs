//! A child process, from the node's side.

use std::path::PathBuf;

use weft_wall::{Child, Spawn};

use crate::{error::AgentError, message::Connection};

/// A child and the socket to it. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) connection: Connection,
    /// `None` once it is being ended.
    child: Option<Child>,
}

impl Process {
    /// Starts a child of the given role.
    pub(super) async fn start(
        role: &'static str,
        program: Option<PathBuf>,
    ) -> Result<Self, AgentError> {
        let spawned = tokio::task::spawn_blocking(move || {
            let spawn = Spawn::new(role);
            let spawn = if let Some(program) = program { spawn.program(program) } else { spawn };
            let child = spawn.spawn().map_err(|error| error.to_string())?;
            let socket = child.socket_owned().map_err(|error| error.to_string())?;
            Ok((child, socket))
        });
        let (child, socket) = match spawned.await {
            Ok(started) => started.map_err(|reason| AgentError::Start { reason })?,
            Err(panic) => return Err(AgentError::Start { reason: panic.to_string() }),
        };
        let connection = Connection::new(socket)
            .map_err(|error| AgentError::Start { reason: error.to_string() })?;
        Ok(Self { connection, child: Some(child) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    /// Asks the kernel whether the child stands behind its wall.
    pub(super) fn require_wall(&self) -> Result<(), AgentError> {
        let unwalled = |reason| AgentError::Start { reason };
        let child = self.child.as_ref().ok_or_else(|| unwalled("it ended".to_owned()))?;
        let seen = child.observe().map_err(|error| unwalled(error.to_string()))?;
        if seen.walls >= 1 && seen.no_new_privs && seen.threads == 1 {
            Ok(())
        } else {
            Err(unwalled(format!("the kernel knows of no wall: {seen:?}")))
        }
    }

    /// Ends the child after its socket failed, and says how it had ended.
    pub(super) async fn died(&mut self, error: &std::io::Error) -> AgentError {
        let Some(mut child) = self.child.take() else {
            return AgentError::Died { reason: error.to_string() };
        };
        let closed = crate::child::is_gone(error);
        let status = tokio::task::spawn_blocking(move || {
            // A child that closed its socket is ending by itself; any other would not.
            if !closed {
                child.kill().ok();
            }
            child.wait().ok()
        });
        let reason = match status.await {
            Ok(Some(status)) if closed => status.to_string(),
            _ => error.to_string(),
        };
        AgentError::Died { reason }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Dropping a child waits for its end, so it is done where waiting harms nobody.
        if let (Some(child), Ok(runtime)) =
            (self.child.take(), tokio::runtime::Handle::try_current())
        {
            drop(runtime.spawn_blocking(move || drop(child)));
        }
    }
}
