//! Messages on a stream: a length, then that many bytes.
//!
//! The length is an unsigned 32-bit number, most significant byte first. A reader names the most
//! that it takes, so that a peer can't make it allocate more.

use std::io::{self, Read, Write};

/// Why a frame could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than what this side takes.
    #[error("pass a frame of {length} bytes where {max} is the most")]
    TooLong {
        /// Bytes in the frame.
        length: usize,
        /// The most that this side takes.
        max: usize,
    },
    /// The stream ended inside a frame, or could not be read or written.
    #[error("pass a frame: {0}")]
    Io(#[from] io::Error),
}

/// Writes one frame and flushes.
///
/// # Errors
///
/// [`FrameError::TooLong`] before anything is written, [`FrameError::Io`] after that, in which case
/// the stream is of no further use.
pub fn write(to: &mut impl Write, frame: &[u8], max: usize) -> Result<(), FrameError> {
    let too_long = FrameError::TooLong { length: frame.len(), max };
    let Ok(length) = u32::try_from(frame.len()) else { return Err(too_long) };
    if frame.len() > max {
        return Err(too_long);
    }
    to.write_all(&length.to_be_bytes())?;
    to.write_all(frame)?;
    Ok(to.flush()?)
}

/// Reads one frame; `None` when the stream ended cleanly, before a frame.
///
/// # Errors
///
/// [`FrameError::TooLong`] before any of the body is read or allocated; [`FrameError::Io`] with
/// [`io::ErrorKind::UnexpectedEof`] when the stream ends inside a frame. After either the stream is
/// of no further use.
pub fn read(from: &mut impl Read, max: usize) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match from.read(&mut length[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::TooLong { length, max });
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went() {
        let mut stream = Vec::new();
        write(&mut stream, b"first", 16).unwrap();
        write(&mut stream, b"", 16).unwrap();
        let mut from = stream.as_slice();
        assert_eq!(read(&mut from, 16).unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(read(&mut from, 16).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(read(&mut from, 16).unwrap(), None);
    }

    #[test]
    fn a_frame_over_the_bound_is_refused_on_both_sides() {
        let mut stream = Vec::new();
        assert!(matches!(
            write(&mut stream, &[0; 17], 16),
            Err(FrameError::TooLong { length: 17, max: 16 })
        ));
        assert!(stream.is_empty());
        // The length claims 4 GiB; nothing follows, and nothing is allocated.
        let mut from = &[0xff, 0xff, 0xff, 0xff][..];
        assert!(matches!(read(&mut from, 16), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_stream_cut_anywhere_inside_a_frame_is_an_error() {
        let mut stream = Vec::new();
        write(&mut stream, b"cut", 16).unwrap();
        for cut in 1..stream.len() {
            let mut from = &stream[..cut];
            let error = read(&mut from, 16).expect_err("a cut frame is not a frame");
            assert!(matches!(error, FrameError::Io(error)
                if error.kind() == io::ErrorKind::UnexpectedEof));
        }
    }
}
