//! Role `compile`: takes one component, gives its compiled code, ends. Runs no guest code.

use std::io;

use weft_protocol::codec;
use weft_wall::{Wall, frame};

use super::unwalled;
use crate::{
    engine,
    error::Stop,
    message::{FromCompiler, HANDED_BYTES_MAX, TO_CHILD_BYTES_MAX},
};

pub(super) fn serve() -> io::Result<()> {
    let mut socket = weft_wall::socket().map_err(io::Error::other)?;
    let engine = engine::engine().map_err(io::Error::other)?;
    // The component is a stranger's, so the wall stands before its first byte is read.
    let walled = weft_wall::enter(Wall::default());
    let Some(component) = frame::read(&mut socket, HANDED_BYTES_MAX).map_err(io::Error::other)?
    else {
        return Ok(());
    };
    let answer = match walled {
        Err(error) => FromCompiler::Failed(unwalled(&error)?),
        Ok(_) => match engine.precompile_component(&component) {
            Ok(code) => FromCompiler::Code(code.into()),
            Err(error) => FromCompiler::Failed(Stop::Component(format!("{error:#}"))),
        },
    };
    frame::write(&mut socket, &codec::encode(&answer), TO_CHILD_BYTES_MAX).map_err(io::Error::other)
}
