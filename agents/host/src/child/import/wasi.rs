//! WASI 0.2 without anything behind it, so that components of other toolchains load.
//!
//! No directory, no environment, no arguments, no socket, no name lookup; what is printed is dropped.
//! Clocks run and chance is chance.

use wasmtime::component::Linker;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::State;

/// The packages that are linked; `wasi:http` and others are not among them.
const PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// Whether an interface, named without its version, is linked.
pub(super) fn is_linked(interface: &str) -> bool {
    interface
        .strip_prefix("wasi:")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(package, _)| PACKAGES.contains(&package))
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

/// The context of one run.
pub(super) fn empty() -> WasiCtx {
    WasiCtxBuilder::new().allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).build()
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}
