//! Frames on the wire: a length of four bytes, most significant first, and that many bytes.

use std::{io, sync::Arc};

use bytes::{Buf as _, BufMut as _, BytesMut};
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};
use weft_protocol::frame::{FRAME_BYTES_MAX, STRANGER_BYTES_MAX, STRANGER_IDS_BYTES_MAX};

use crate::gate::Access;

/// How far a buffer grows at a time, so that a length alone makes nobody hold a whole frame.
const RESERVE_BYTES_MAX: usize = 64 << 10;

/// The most bytes that a stranger may send in all: what it names, and what it presents. Which of
/// these it sends is for the reader of the frames to judge.
const FROM_STRANGER_BYTES_MAX: usize = STRANGER_IDS_BYTES_MAX + STRANGER_BYTES_MAX;

/// Why a stream yields no further frame.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("a frame of {len} bytes, over {max}")]
    TooLong { len: usize, max: usize },
    #[error("more than {FROM_STRANGER_BYTES_MAX} bytes from a stranger")]
    TooManyBytes,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What a reader takes.
#[derive(Debug)]
pub(crate) enum Limit {
    /// Frames of at most [`FRAME_BYTES_MAX`], and as long as the peer is a stranger
    /// [`FROM_STRANGER_BYTES_MAX`] in all.
    Access(Arc<Access>),
    /// Frames of at most so many bytes.
    Frame(usize),
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub(crate) struct FrameCodec {
    limit: Limit,
    bytes_read: usize,
}

impl FrameCodec {
    pub(crate) const fn new(limit: Limit) -> Self {
        Self { limit, bytes_read: 0 }
    }
}

impl Decoder for FrameCodec {
    type Item = Vec<u8>;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*head) as usize;
        // Whether the peer is still a stranger is read here and not when the stream opened: it
        // may have proven itself meanwhile.
        let (max, is_stranger) = match &self.limit {
            Limit::Access(access) => (FRAME_BYTES_MAX, !access.is_member()),
            Limit::Frame(max) => (*max, false),
        };
        if len > max {
            return Err(FrameError::TooLong { len, max });
        }
        let total = len + head.len();
        if is_stranger && self.bytes_read + total > FROM_STRANGER_BYTES_MAX {
            return Err(FrameError::TooManyBytes);
        }
        if buffer.len() < total {
            buffer.reserve((total - buffer.len()).min(RESERVE_BYTES_MAX));
            return Ok(None);
        }
        self.bytes_read = self.bytes_read.saturating_add(total);
        buffer.advance(head.len());
        Ok(Some(buffer.split_to(len).to_vec()))
    }
}

impl Encoder<Vec<u8>> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Vec<u8>, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let max = match &self.limit {
            Limit::Access(_) => FRAME_BYTES_MAX,
            Limit::Frame(max) => *max,
        };
        let len = match u32::try_from(frame.len()) {
            Ok(len) if frame.len() <= max => len,
            Ok(_) | Err(_) => return Err(FrameError::TooLong { len: frame.len(), max }),
        };
        buffer.reserve(frame.len() + 4);
        buffer.put_u32(len);
        buffer.put_slice(&frame);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(frames: &[usize]) -> BytesMut {
        let mut buffer = BytesMut::new();
        let mut codec = FrameCodec::new(Limit::Frame(FRAME_BYTES_MAX));
        for &len in frames {
            codec.encode(vec![7; len], &mut buffer).unwrap();
        }
        buffer
    }

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_cuts() {
        let whole = wire(&[0, 1, 300, 70_000]);
        for step in [1, 3, 4, 5, 1000, whole.len()] {
            let mut codec = FrameCodec::new(Limit::Frame(FRAME_BYTES_MAX));
            let (mut buffer, mut lens) = (BytesMut::new(), Vec::new());
            for chunk in whole.chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = codec.decode(&mut buffer).unwrap() {
                    lens.push(frame.len());
                }
            }
            assert_eq!(lens, [0, 1, 300, 70_000], "cut every {step} bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_cuts_yield_frames_or_an_error(
            chunks in proptest::collection::vec(proptest::collection::vec(0u8..8, 0..40), 0..40),
        ) {
            let mut codec = FrameCodec::new(Limit::Frame(1 << 10));
            let (mut buffer, mut came, mut went) = (BytesMut::new(), 0, 0);
            'all: for chunk in &chunks {
                came += chunk.len();
                buffer.extend_from_slice(chunk);
                loop {
                    match codec.decode(&mut buffer) {
                        Ok(Some(frame)) => went += frame.len() + 4,
                        Ok(None) => break,
                        Err(FrameError::TooLong { len, max }) => {
                            assert!(len > max);
                            break 'all;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                assert_eq!(went + buffer.len(), came);
            }
        }
    }

    #[test]
    fn a_longer_frame_is_refused_by_its_length_alone() {
        let mut codec = FrameCodec::new(Limit::Frame(10));
        let mut head = BytesMut::from(&11u32.to_be_bytes()[..]);
        let refused = codec.decode(&mut head).unwrap_err();
        assert!(matches!(refused, FrameError::TooLong { len: 11, max: 10 }), "{refused}");
        let refused = codec.encode(vec![0; 11], &mut BytesMut::new()).unwrap_err();
        assert!(matches!(refused, FrameError::TooLong { len: 11, max: 10 }), "{refused}");
    }

    #[test]
    fn a_stranger_may_send_so_many_bytes_in_all_until_it_belongs() {
        let half = FROM_STRANGER_BYTES_MAX / 2 - 4;
        let access = Arc::new(Access::new(false));
        let mut codec = FrameCodec::new(Limit::Access(Arc::clone(&access)));
        let mut buffer = wire(&[half, half, 0]);
        assert_eq!(codec.decode(&mut buffer).unwrap().unwrap().len(), half);
        assert_eq!(codec.decode(&mut buffer).unwrap().unwrap().len(), half);
        let refused = codec.decode(&mut buffer.clone()).unwrap_err();
        assert!(matches!(refused, FrameError::TooManyBytes), "{refused}");
        access.promote();
        assert_eq!(codec.decode(&mut buffer).unwrap().unwrap().len(), 0);
    }
}
