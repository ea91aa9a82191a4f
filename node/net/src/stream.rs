//! One stream of frames, as a task: hello first, then both directions until either ends.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::{
    codec::{FramedRead, FramedWrite},
    compat::{Compat, FuturesAsyncReadCompatExt as _},
};
use weft_protocol::{
    codec::{decode, encode},
    frame::Hello,
    id::BootId,
};

use crate::{
    frame::{FrameCodec, FrameError, Limit},
    gate::{Access, OPEN_TIMEOUT},
};

/// Frames that wait for one slow stream. A sync session of a whole fabric queues hundreds of
/// small ones at once; more than this is a peer that does not read.
const OUTGOING_FRAMES_MAX: usize = 4096;

/// Bytes that wait for one slow stream: the largest trust graph, which is said at once, of 16 MiB, and two
/// of the largest frames around it.
const OUTGOING_BYTES_MAX: usize = 18 << 20;

/// How often it is told that more of a long frame came.
const MOVING_EVERY: Duration = Duration::from_secs(1);

/// A hello takes some twenty bytes; unknown fields have room.
pub(crate) const HELLO_BYTES_MAX: usize = 256;

/// Names one stream for as long as the node runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a stream is closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StreamEnd {
    /// `CloseStream` was asked for.
    #[error("closed here")]
    Local,
    /// The peer closed it.
    #[error("closed by the peer")]
    Remote,
    /// Its connection is gone.
    #[error("the connection is gone")]
    Disconnected,
    /// The peer opened the same protocol anew.
    #[error("the peer opened it anew")]
    Replaced,
    /// The peer sent, or this side tried to send, a frame over the limit.
    #[error("a frame of {len} bytes, over {max}")]
    FrameTooLong {
        /// The frame's length.
        len: usize,
        /// What is taken.
        max: usize,
    },
    /// A stranger sent more than it may.
    #[error("more bytes than a stranger may send")]
    TooManyBytes,
    /// The peer sent more frames than any honest one does.
    #[error("more frames than the protocol needs, for the {times}th time")]
    TooManyFrames {
        /// How often this peer did, on any protocol, since it is known here.
        times: u64,
    },
    /// The peer does not read: its queue here is full.
    #[error("the peer does not read; its queue is full")]
    SlowPeer,
    /// It was opened before trust was merged, and that did not happen in time.
    #[error("trust was not merged in time")]
    NotAdmitted,
    /// The peer's hello did not come in time, or was none.
    #[error("no hello")]
    NoHello,
    /// The transport failed.
    #[error("broken: {why}")]
    Broken {
        /// What it said.
        why: String,
    },
}

/// What a stream's task tells the task that owns the swarm, in order.
#[derive(Debug)]
pub(crate) enum Report {
    Greeted { stream: StreamId, boot: BootId },
    Frame { stream: StreamId, bytes: Vec<u8> },
    Moving { stream: StreamId },
    Ended { stream: StreamId, end: StreamEnd },
}

/// The near end of a stream's queue. Dropping it lets what is queued be sent, then closes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    frames: mpsc::Sender<Vec<u8>>,
    bytes_queued: Arc<AtomicUsize>,
}

impl Outgoing {
    /// Queues a frame without waiting.
    ///
    /// # Errors
    ///
    /// The stream must close for the returned reason: its queue is full or it has ended.
    pub(crate) fn send(&self, frame: Vec<u8>) -> Result<(), StreamEnd> {
        let len = frame.len();
        if self.bytes_queued.fetch_add(len, Ordering::Relaxed) + len > OUTGOING_BYTES_MAX {
            return Err(StreamEnd::SlowPeer);
        }
        self.frames.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StreamEnd::SlowPeer,
            mpsc::error::TrySendError::Closed(_) => StreamEnd::Remote,
        })
    }
}

type Reader = FramedRead<ReadHalf<Compat<libp2p::Stream>>, FrameCodec>;
type Writer = FramedWrite<WriteHalf<Compat<libp2p::Stream>>, FrameCodec>;

/// What a stream's task needs.
#[derive(Debug)]
pub(crate) struct StreamActor {
    id: StreamId,
    boot: BootId,
    access: Arc<Access>,
    frames: mpsc::Receiver<Vec<u8>>,
    bytes_queued: Arc<AtomicUsize>,
    /// Frames after the hello are read only once this fires.
    released: oneshot::Receiver<()>,
    reports: mpsc::Sender<Report>,
}

impl StreamActor {
    /// Makes the task's state, its queue, and what releases its reader.
    pub(crate) fn new(
        id: StreamId,
        boot: BootId,
        access: Arc<Access>,
        reports: mpsc::Sender<Report>,
    ) -> (Self, Outgoing, oneshot::Sender<()>) {
        let (sender, frames) = mpsc::channel(OUTGOING_FRAMES_MAX);
        let (release, released) = oneshot::channel();
        let bytes_queued = Arc::new(AtomicUsize::new(0));
        let outgoing = Outgoing { frames: sender, bytes_queued: Arc::clone(&bytes_queued) };
        (Self { id, boot, access, frames, bytes_queued, released, reports }, outgoing, release)
    }

    /// Runs the stream to its end and reports that last. Dropping the future resets the stream.
    pub(crate) async fn run(mut self, stream: libp2p::Stream) {
        let end = self.converse(stream).await;
        // Without a receiver the node has stopped.
        self.reports.send(Report::Ended { stream: self.id, end }).await.ok();
    }

    async fn converse(&mut self, stream: libp2p::Stream) -> StreamEnd {
        let (read, write) = tokio::io::split(stream.compat());
        let limit = || Limit::Access(Arc::clone(&self.access));
        let mut reader = FramedRead::new(read, FrameCodec::new(limit()));
        let mut writer = FramedWrite::new(write, FrameCodec::new(limit()));
        let greeting = timeout(OPEN_TIMEOUT, greet(self.boot, &mut reader, &mut writer));
        let boot = match greeting.await {
            Ok(Ok(boot)) => boot,
            Ok(Err(end)) => return end,
            Err(_) => return StreamEnd::NoHello,
        };
        if self.reports.send(Report::Greeted { stream: self.id, boot }).await.is_err() {
            return StreamEnd::Disconnected;
        }
        tokio::select! {
            end = read_frames(self.id, &mut reader, &mut self.released, &self.reports) => end,
            end = write_frames(&mut writer, &mut self.frames, &self.bytes_queued) => end,
        }
    }
}

async fn greet(
    boot: BootId,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<BootId, StreamEnd> {
    writer.send(encode(&Hello { boot })).await.map_err(end_of)?;
    let frame = reader.next().await.ok_or(StreamEnd::Remote)?.map_err(end_of)?;
    let hello: Hello = decode(&frame, HELLO_BYTES_MAX).map_err(|_| StreamEnd::NoHello)?;
    Ok(hello.boot)
}

async fn read_frames(
    stream: StreamId,
    reader: &mut Reader,
    released: &mut oneshot::Receiver<()>,
    reports: &mpsc::Sender<Report>,
) -> StreamEnd {
    if released.await.is_err() {
        // Closed while it was held: the writer sends what is queued, then ends the stream.
        return std::future::pending().await;
    }
    let (mut bytes_seen, mut told) = (0, Instant::now());
    loop {
        let next = std::future::poll_fn(|cx| {
            if let Poll::Ready(next) = reader.poll_next_unpin(cx) {
                return Poll::Ready(Some(next));
            }
            // Whoever wakes this task has brought bytes.
            let bytes = reader.read_buffer().len();
            if bytes > bytes_seen && told.elapsed() >= MOVING_EVERY {
                bytes_seen = bytes;
                return Poll::Ready(None);
            }
            Poll::Pending
        });
        let report = match next.await {
            Some(Some(Ok(bytes))) => {
                bytes_seen = reader.read_buffer().len();
                Report::Frame { stream, bytes }
            }
            Some(Some(Err(error))) => return end_of(error),
            Some(None) => return StreamEnd::Remote,
            None => Report::Moving { stream },
        };
        told = Instant::now();
        if reports.send(report).await.is_err() {
            return StreamEnd::Disconnected;
        }
    }
}

async fn write_frames(
    writer: &mut Writer,
    frames: &mut mpsc::Receiver<Vec<u8>>,
    bytes_queued: &AtomicUsize,
) -> StreamEnd {
    while let Some(frame) = frames.recv().await {
        let len = frame.len();
        let written = match writer.feed(frame).await {
            Ok(()) if frames.is_empty() => writer.flush().await,
            fed => fed,
        };
        bytes_queued.fetch_sub(len, Ordering::Relaxed);
        if let Err(error) = written {
            return end_of(error);
        }
    }
    match writer.close().await {
        Ok(()) => StreamEnd::Local,
        Err(error) => end_of(error),
    }
}

fn end_of(error: FrameError) -> StreamEnd {
    match error {
        FrameError::TooLong { len, max } => StreamEnd::FrameTooLong { len, max },
        FrameError::TooManyBytes => StreamEnd::TooManyBytes,
        FrameError::Io(error) => StreamEnd::Broken { why: error.to_string() },
    }
}
