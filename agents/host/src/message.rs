//! What crosses the socket between the node and a child: frames of a length and one CBOR item.
//!
//! To a child of role `compile` goes a component; back comes [`FromCompiler`]. A child of role
//! `agent` first gets [`ToAgent::Load`] and a frame with the compiled code, and answers
//! [`FromAgent::Ready`] or [`FromAgent::Stopped`]. Each [`ToAgent::Run`] is followed by any number of
//! [`FromAgent::Call`], each answered, and ends with [`FromAgent::Done`] or [`FromAgent::Stopped`].

use minicbor::{Decode, Encode, bytes::ByteVec};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use weft_protocol::{
    codec,
    host_call::{HOST_CALL_BYTES_MAX, HostCall, HostError},
    value::Value,
};

use crate::{error::Stop, grant::Grants};

/// The largest component or file that is handed to a child, in bytes.
pub(crate) const HANDED_BYTES_MAX: usize = 64 << 20;

/// The most bytes of an output.
pub(crate) const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// What a frame needs around a host call or an output.
const ENVELOPE_BYTES_MAX: usize = 64;

/// The most bytes that the node takes from an agent in one frame.
pub(crate) const FROM_AGENT_BYTES_MAX: usize = {
    assert!(HOST_CALL_BYTES_MAX >= OUTPUT_BYTES_MAX, "host calls are the largest frames");
    HOST_CALL_BYTES_MAX + ENVELOPE_BYTES_MAX
};

/// The most bytes that a child takes in one frame: compiled code is larger than its component.
pub(crate) const TO_CHILD_BYTES_MAX: usize = 8 * HANDED_BYTES_MAX;

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) enum ToAgent {
    #[n(0)]
    Load(#[n(0)] Grants),
    #[n(1)]
    Run {
        #[n(0)]
        capability: String,
        #[n(1)]
        arguments: Value,
        /// A map of bytes.
        #[n(2)]
        files: Value,
    },
    #[n(2)]
    Answer(#[n(0)] Result<Value, HostError>),
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) enum FromAgent {
    /// Loaded and walled in; what was tried against the wall.
    #[n(0)]
    Ready(#[n(0)] String),
    #[n(1)]
    Call(#[n(0)] HostCall),
    #[n(2)]
    Done(#[n(0)] Value),
    #[n(3)]
    Stopped(#[n(0)] Stop),
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(crate) enum FromCompiler {
    #[n(0)]
    Code(#[n(0)] ByteVec),
    #[n(1)]
    Failed(#[n(0)] Stop),
}

/// The node's end of a child's socket.
#[derive(Debug)]
pub(crate) struct Connection(UnixStream);

impl Connection {
    pub(crate) fn new(stream: std::os::unix::net::UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self)
    }

    pub(crate) async fn send(&mut self, message: &impl Encode<()>) -> std::io::Result<()> {
        self.send_bytes(&codec::encode(message)).await
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
        self.0.write_all(&len.to_be_bytes()).await?;
        self.0.write_all(bytes).await
    }

    /// Takes one message of at most `bytes_max` bytes.
    pub(crate) async fn receive<T: for<'b> Decode<'b, ()>>(
        &mut self,
        bytes_max: usize,
    ) -> std::io::Result<T> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).await?;
        let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
        if len > bytes_max {
            return Err(std::io::Error::other(format!("it sent a message of {len} bytes")));
        }
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).await?;
        codec::decode(&bytes, bytes_max).map_err(std::io::Error::other)
    }
}
