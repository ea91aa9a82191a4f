//! The interface `log`.

use wasmtime::component::{HasSelf, Linker};
use weft_protocol::host_call::HostCall;

use super::{
    State,
    bindings::weft::agent::log::{self, Host},
};

/// Lines of one run that are passed on. The node counts too.
const LINES_MAX: u32 = 1_000;

/// The most bytes that are kept of a line.
const LINE_BYTES_MAX: usize = 4_096;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl Host for State {
    fn line(&mut self, line: String) -> wasmtime::Result<()> {
        if self.lines == LINES_MAX {
            return Ok(());
        }
        self.lines += 1;
        let mut line = line;
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        // A line that the node refuses is lost, and the run goes on.
        self.ask(HostCall::Log { line }).map(|_| ())
    }
}
