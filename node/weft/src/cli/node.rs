//! The running node, as commands reach it.

use std::time::Duration;

use serde_json::{Value, json};
use weft_api::{Client, ClientError, Conversation, ErrorKind, Message, Problem};

use super::{Session, error::CommandError};

/// A node that does not answer for so long has stopped answering.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);
/// A long record takes some seconds to read, and more to check.
pub(super) const RECORD_TIME: Duration = Duration::from_secs(120);

/// A connection to the node that runs in the session's home.
#[derive(Debug)]
pub(super) struct Node {
    client: Client,
    /// The command that tells what became of what was asked, where that acts.
    told_by: Option<&'static str>,
}

impl Node {
    pub(super) async fn reach(session: &Session) -> Result<Self, CommandError> {
        let client = in_time(ANSWER_TIME, Client::connect(&session.home)).await??;
        Ok(Self { client, told_by: None })
    }

    /// What is asked acts: if the node goes before it says how that ended, nobody here knows whether it was
    /// done. The command `told_by` says it later.
    pub(super) const fn acts(&mut self, told_by: &'static str) {
        self.told_by = Some(told_by);
    }

    /// Asks for what the node knows, which changes nothing and is answered at once.
    pub(super) async fn read(&mut self, request: Value) -> Result<Value, CommandError> {
        self.read_within(ANSWER_TIME, request).await
    }

    /// The same of the record, which may be long.
    pub(super) async fn read_record(&mut self, request: Value) -> Result<Value, CommandError> {
        self.read_within(RECORD_TIME, request).await
    }

    async fn read_within(
        &mut self,
        limit: Duration,
        request: Value,
    ) -> Result<Value, CommandError> {
        in_time(limit, self.get(request)).await?
    }

    /// Asks what is answered by one reply, which may lawfully take long, as where it acts.
    pub(super) async fn get(&mut self, request: Value) -> Result<Value, CommandError> {
        let answer = self.client.get(request).await.map_err(|error| self.lost(error))?;
        answer.map_err(|problem| self.refused(problem))
    }

    /// Asks what goes on after the reply.
    pub(super) async fn ask(&mut self, request: Value) -> Result<Conversation, CommandError> {
        self.client.ask(request).await.map_err(|error| self.lost(error))
    }

    /// What the node says next: a reply or an event. Safe to drop.
    pub(super) async fn next(
        &mut self,
        conversation: &mut Conversation,
    ) -> Result<Said, CommandError> {
        let said = self.hear(conversation).await?;
        said.ok_or_else(|| self.lost(ClientError::HungUp))
    }

    /// The same; `None`: the node says nothing more, since it stopped or let go of this end. Safe to drop.
    pub(super) async fn hear(
        &mut self,
        conversation: &mut Conversation,
    ) -> Result<Option<Said>, CommandError> {
        match self.client.next(conversation).await {
            Ok(Message::Reply(value)) => Ok(Some(Said::Reply(value))),
            Ok(Message::Event(value)) => Ok(Some(Said::Event(value))),
            Ok(Message::Error(problem)) => Err(self.refused(problem)),
            Ok(Message::End) | Err(ClientError::HungUp) => Ok(None),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// The node did not say how it ended.
    fn lost(&self, error: ClientError) -> CommandError {
        let is_gone = match &error {
            ClientError::HungUp | ClientError::Garbled(_) | ClientError::Io(_) => true,
            ClientError::NotRunning { .. } | ClientError::TooLong { .. } => false,
        };
        let Some(told_by) = self.told_by.filter(|_| is_gone) else { return error.into() };
        tracing::debug!(%error, "the node is lost");
        let message =
            "the node went before it said how this ended: it may have been done, and may not";
        CommandError::new(ErrorKind::Uncertain, message)
            .hint(format!("{told_by} says what became of it, when the node runs again"))
    }

    /// The node said no; or, where it stopped without an answer, its socket said so.
    fn refused(&self, problem: Problem) -> CommandError {
        if problem.kind == ErrorKind::NotRunning && self.told_by.is_some() {
            return self.lost(ClientError::HungUp);
        }
        problem.into()
    }
}

/// How the node fares that runs in the session's home, locked or not; null where it does not say.
pub(super) async fn state(session: &Session) -> Result<Value, CommandError> {
    let mut node = Node::reach(session).await?;
    let answer = in_time(ANSWER_TIME, node.client.get(json!({"ask": "status"}))).await??;
    Ok(answer.unwrap_or_default())
}

/// What comes within the limit.
async fn in_time<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T, CommandError> {
    tokio::time::timeout(limit, answer).await.map_err(|_| {
        let message = format!("the node did not answer within {} s", limit.as_secs());
        CommandError::new(ErrorKind::NotRunning, message).hint("weft doctor says more")
    })
}

/// What the node says.
#[derive(Debug)]
pub(super) enum Said {
    /// The answer.
    Reply(Value),
    /// Something happened.
    Event(Value),
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use weft_api::{Door, DoorInput, DoorMessage};
    use weft_core::door::Reply;
    use weft_protocol::id::RunId;

    use super::*;
    use crate::cli::terminal::Terminal;

    /// How a node goes that was asked something.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Going {
        /// It is killed after it has begun to answer.
        Killed,
        /// It stops after it has begun to answer.
        Stopped,
        /// It stops before it has answered.
        Unanswered,
    }

    /// What is heard of a node that goes.
    async fn heard(going: Going, acts: bool) -> CommandError {
        let home = tempfile::tempdir().unwrap();
        let (inputs, mut doors) = mpsc::channel(8);
        let serving = tokio::spawn(weft_api::serve(Door::open(home.path()).unwrap(), inputs));
        let session = Session { home: home.path().into(), terminal: Terminal::new(false, 0) };
        let mut node = Node::reach(&session).await.unwrap();
        let mut conversation = node.ask(json!({"ask": "watch"})).await.unwrap();
        if acts {
            node.acts("weft run list");
        }
        let Some(DoorInput::Asked { answers, .. }) = doors.recv().await else {
            panic!("no request")
        };
        if going != Going::Unanswered {
            let started = DoorMessage::Reply(Reply::RunStarted { run: RunId::from_bytes([1; 16]) });
            answers.send(started).await.unwrap();
            assert!(matches!(node.next(&mut conversation).await, Ok(Said::Reply(_))));
        }
        if going == Going::Killed {
            serving.abort();
            assert!(serving.await.unwrap_err().is_cancelled());
        }
        drop(answers);
        node.next(&mut conversation).await.expect_err("the node is gone")
    }

    #[tokio::test]
    async fn a_node_that_hangs_is_told_and_one_that_takes_its_time_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let (inputs, mut doors) = mpsc::channel(8);
        let serving = tokio::spawn(weft_api::serve(Door::open(home.path()).unwrap(), inputs));
        let session = Session { home: home.path().into(), terminal: Terminal::new(false, 0) };
        let mut node = Node::reach(&session).await.unwrap();
        let status = || json!({"ask": "status"});
        let hung = node.read_within(Duration::from_millis(50), status()).await;
        let error = hung.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::NotRunning);
        assert_eq!(error.message(), "the node did not answer within 0 s");
        assert!(format!("{error:?}").contains("weft doctor"), "{error:?}");
        // What is answered late is no answer to the next question.
        let Some(DoorInput::Asked { answers: late, .. }) = doors.recv().await else {
            panic!("no request")
        };
        let answering = tokio::spawn(async move {
            let Some(DoorInput::Asked { answers, .. }) = doors.recv().await else {
                panic!("no request")
            };
            late.send(DoorMessage::Reply(Reply::Done)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let reply = Reply::RunStarted { run: RunId::from_bytes([1; 16]) };
            answers.send(DoorMessage::Reply(reply)).await.unwrap();
        });
        let said = node.read_within(Duration::from_secs(5), status()).await.unwrap();
        assert!(said["run"].is_string(), "{said}");
        answering.await.unwrap();
        serving.abort();
    }

    #[tokio::test]
    async fn what_acts_is_uncertain_when_the_node_goes_however_it_went() {
        for going in [Going::Killed, Going::Stopped, Going::Unanswered] {
            let error = heard(going, true).await;
            assert_eq!(error.kind(), ErrorKind::Uncertain, "{going:?}");
            assert!(format!("{error:?}").contains("weft run list"), "{going:?}: {error:?}");
            let is_said = going == Going::Unanswered;
            let plain = if is_said { ErrorKind::NotRunning } else { ErrorKind::Other };
            assert_eq!(heard(going, false).await.kind(), plain, "{going:?}");
        }
    }
}
