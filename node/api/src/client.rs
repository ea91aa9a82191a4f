//! The other end of the socket: what the command line speaks.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    problem::{ErrorKind, Problem},
    request::REQUEST_BYTES_MAX,
    socket::{read_line, socket_path},
};

/// Why a client does not hear the node.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node runs in this home.
    #[error("reach the node: none is running in {}", home.display())]
    NotRunning {
        /// The home.
        home: PathBuf,
    },
    /// The node ended, or cut this client off.
    #[error("hear the node: it hung up")]
    HungUp,
    /// What came is no message.
    #[error("hear the node: {0}")]
    Garbled(String),
    /// The request is longer than a node takes.
    #[error("ask the node: the request has {bytes} bytes, at most {REQUEST_BYTES_MAX} are taken")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// The system said no.
    #[error("reach the node: {0}")]
    Io(#[from] io::Error),
}

/// One thing that the node said.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// The answer.
    Reply(Value),
    /// Something happened.
    Event(Value),
    /// It did not work.
    Error(Problem),
    /// Nothing more comes.
    End,
}

/// One request's conversation, on the [`Client`] that gave it.
#[derive(Debug)]
pub struct Conversation {
    id: u64,
}

/// A connection to a node.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    last_id: u64,
    /// The line that is being read: reading may be dropped half-way.
    line: Vec<u8>,
    /// What came for conversations other than the one that was listened to.
    kept: BTreeMap<u64, VecDeque<Message>>,
}

impl Client {
    /// Reaches the node that runs in this home.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotRunning`] where none does.
    pub async fn connect(home: &Path) -> Result<Self, ClientError> {
        let stream = match UnixStream::connect(socket_path(home)).await {
            Ok(stream) => stream,
            Err(error) => {
                // A path that is too long to be a socket's is an invalid input.
                let is_nobody = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::InvalidInput
                );
                let not_running = || ClientError::NotRunning { home: home.to_owned() };
                return Err(if is_nobody { not_running() } else { error.into() });
            }
        };
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
            last_id: 0,
            line: Vec::new(),
            kept: BTreeMap::new(),
        })
    }

    /// Asks; `request` is an object of `crate::request`'s form, without its number.
    ///
    /// # Errors
    ///
    /// The request is too long, or the node is gone.
    pub async fn ask(&mut self, mut request: Value) -> Result<Conversation, ClientError> {
        self.last_id += 1;
        request["id"] = self.last_id.into();
        let mut line = request.to_string();
        if line.len() > REQUEST_BYTES_MAX {
            return Err(ClientError::TooLong { bytes: line.len() });
        }
        line.push('\n');
        self.writer.write_all(line.as_bytes()).await?;
        Ok(Conversation { id: self.last_id })
    }

    /// Waits for the conversation's next message. Safe to drop: nothing is lost.
    ///
    /// # Errors
    ///
    /// The node is gone, or said what no node says.
    pub async fn next(&mut self, conversation: &mut Conversation) -> Result<Message, ClientError> {
        loop {
            if let Some(message) = self.kept.get_mut(&conversation.id).and_then(VecDeque::pop_front)
            {
                return Ok(message);
            }
            let (id, message) = self.read().await?;
            // What belongs to no request ends the connection, and is for whoever listens.
            if id == conversation.id || id == 0 {
                return Ok(message);
            }
            self.kept.entry(id).or_default().push_back(message);
        }
    }

    /// Asks what is answered by one reply, and waits for that.
    ///
    /// # Errors
    ///
    /// The outer: the node is gone. The inner: it said no.
    pub async fn get(&mut self, request: Value) -> Result<Result<Value, Problem>, ClientError> {
        let mut conversation = self.ask(request).await?;
        loop {
            match self.next(&mut conversation).await? {
                Message::Reply(value) => return Ok(Ok(value)),
                Message::Error(problem) => return Ok(Err(problem)),
                Message::Event(_) => {}
                Message::End => return Err(ClientError::Garbled("it gave no answer".to_owned())),
            }
        }
    }

    async fn read(&mut self) -> Result<(u64, Message), ClientError> {
        // A line of the node is bounded by what its loop makes; the node is this user's own.
        match read_line(&mut self.reader, usize::MAX - 1, &mut self.line).await {
            Ok(true) => {}
            Ok(false) => return Err(ClientError::HungUp),
            Err(problem) if self.line.is_empty() => {
                return Err(ClientError::Garbled(problem.message));
            }
            Err(_) => return Err(ClientError::HungUp),
        }
        let line = std::mem::take(&mut self.line);
        let value: Value = serde_json::from_slice(&line)
            .map_err(|error| ClientError::Garbled(error.to_string()))?;
        let garbled = || ClientError::Garbled(format!("{value} is no message"));
        let id = value["id"].as_u64().ok_or_else(garbled)?;
        let message = if let Some(reply) = value.get("reply") {
            Message::Reply(reply.clone())
        } else if let Some(event) = value.get("event") {
            Message::Event(event.clone())
        } else if let Some(error) = value.get("error") {
            Message::Error(problem(error))
        } else if value.get("end").is_some() {
            Message::End
        } else {
            return Err(garbled());
        };
        Ok((id, message))
    }
}

/// A kind that this version has no name for is some other error.
fn problem(fields: &Value) -> Problem {
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    Problem {
        kind: text("kind").and_then(|word| word.parse().ok()).unwrap_or(ErrorKind::Other),
        message: text("message").unwrap_or_else(|| json!(fields).to_string()),
        hint: text("hint"),
    }
}
