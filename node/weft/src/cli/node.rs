//! The running node, as commands reach it.

use serde_json::{Value, json};
use weft_api::{Client, ClientError, Conversation, ErrorKind, Message};

use super::{Session, error::CommandError};

/// A connection to the node that runs in the session's home.
#[derive(Debug)]
pub(super) struct Node(Client);

impl Node {
    pub(super) async fn reach(session: &Session) -> Result<Self, CommandError> {
        Ok(Self(Client::connect(&session.home).await?))
    }

    /// Asks what is answered by one reply.
    pub(super) async fn get(&mut self, request: Value) -> Result<Value, CommandError> {
        Ok(self.0.get(request).await??)
    }

    /// Asks what goes on after the reply.
    pub(super) async fn ask(&mut self, request: Value) -> Result<Conversation, CommandError> {
        Ok(self.0.ask(request).await?)
    }

    /// What the node says next: a reply or an event. Safe to drop.
    pub(super) async fn next(
        &mut self,
        conversation: &mut Conversation,
    ) -> Result<Said, CommandError> {
        match self.0.next(conversation).await? {
            Message::Reply(value) => Ok(Said::Reply(value)),
            Message::Event(value) => Ok(Said::Event(value)),
            Message::Error(problem) => Err(problem.into()),
            Message::End => {
                let message = "the node ended the conversation before its outcome";
                Err(CommandError::new(ErrorKind::Other, message).hint("see weft run list"))
            }
        }
    }
}

/// How the node fares that runs in the session's home, locked or not; null where it does not say.
pub(super) async fn state(session: &Session) -> Result<Value, ClientError> {
    let mut node = Client::connect(&session.home).await?;
    Ok(node.get(json!({"ask": "status"})).await?.unwrap_or_default())
}

/// What the node says.
#[derive(Debug)]
pub(super) enum Said {
    /// The answer.
    Reply(Value),
    /// Something happened.
    Event(Value),
}
