//! The model's process: loads the file it was given, walls itself in, answers.

use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use weft_wall::frame::{self, FrameError};
use weft_wall::{InheritError, WallError};

use crate::wire::{Answer, FRAME_MAX, Request, encode};

#[cfg(all(feature = "llama", not(target_os = "android")))]
mod engine;
#[cfg(all(feature = "llama", not(target_os = "android")))]
mod text;

/// Runs the model's process until the node closes the socket. `main` calls it in the role
/// [`crate::CHILD_ROLE`], before it starts any thread.
#[must_use]
pub fn run_child() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why the process ends before the node closed the socket.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    #[error(transparent)]
    Inherit(#[from] InheritError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("read the node's message: {0}")]
    Decode(#[from] minicbor::decode::Error),
    #[error("follow the node: it said {0} out of turn")]
    OutOfTurn(&'static str),
    #[error(transparent)]
    Wall(#[from] WallError),
    #[error("load the model: {0}")]
    Load(String),
    #[error("wait for the node: {0}")]
    Wait(#[from] rustix::io::Errno),
    /// The node is gone; the process ends without a word.
    #[error("reach the node: it closed the socket")]
    Closed,
}

fn serve() -> Result<(), ChildError> {
    let mut node = Node { socket: weft_wall::socket()? };
    match load_first(&mut node) {
        Ok(()) | Err(ChildError::Closed) => Ok(()),
        Err(error) => {
            // Said on both ways: the node may already have stopped reading one of them.
            drop(node.write(&Answer::Failed(error.to_string())));
            Err(error)
        }
    }
}

fn load_first(node: &mut Node) -> Result<(), ChildError> {
    match node.read()?.ok_or(ChildError::Closed)? {
        Request::Load { context_tokens, threads } => load_and_serve(node, context_tokens, threads),
        Request::Generate(_) | Request::Count { .. } | Request::Cancel => {
            Err(ChildError::OutOfTurn("a request before Load"))
        }
    }
}

#[cfg(all(feature = "llama", not(target_os = "android")))]
use engine::load_and_serve;

#[cfg(any(not(feature = "llama"), target_os = "android"))]
fn load_and_serve(_node: &mut Node, _context_tokens: u32, _threads: u32) -> Result<(), ChildError> {
    Err(ChildError::Load("this program was built without llama.cpp".to_owned()))
}

/// The socket to the node.
struct Node {
    socket: UnixStream,
}

impl Node {
    /// The next message; `None` when the node closed the socket.
    fn read(&mut self) -> Result<Option<Request>, ChildError> {
        let frame = frame::read(&mut self.socket, FRAME_MAX)?;
        Ok(frame.map(|frame| minicbor::decode(&frame)).transpose()?)
    }

    fn write(&mut self, answer: &Answer) -> Result<(), ChildError> {
        Ok(frame::write(&mut self.socket, &encode(answer), FRAME_MAX)?)
    }

    /// Whether the node has cancelled, without waiting. Only a cancel can come here.
    #[cfg(all(feature = "llama", not(target_os = "android")))]
    fn has_cancelled(&mut self) -> Result<bool, ChildError> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};

        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        if poll(&mut sockets, Some(&at_once))? == 0 {
            return Ok(false);
        }
        match self.read()?.ok_or(ChildError::Closed)? {
            Request::Cancel => Ok(true),
            Request::Load { .. } | Request::Generate(_) | Request::Count { .. } => {
                Err(ChildError::OutOfTurn("a second request"))
            }
        }
    }
}
