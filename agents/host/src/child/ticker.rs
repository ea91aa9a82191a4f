//! The clock of the guest's processor time.

use std::{io, ptr, sync::OnceLock};

use wasmtime::Engine;

/// How much of the processor's time one epoch is. The kernel looks 100 to 1,000 times a second.
pub(super) const TICK_MS: u32 = 10;

static ENGINE: OnceLock<Engine> = OnceLock::new();

/// Advances the engine's epoch by one for every [`TICK_MS`] that this process computes. While it waits
/// for the node no time passes, and nothing wakes it.
///
/// Must be called before the wall, behind which the timer can be neither set nor stopped.
pub(super) fn start(engine: &Engine) -> io::Result<()> {
    ENGINE.set(engine.clone()).map_err(|_| io::Error::other("the clock was started before"))?;
    let every = libc::timeval { tv_sec: 0, tv_usec: i64::from(TICK_MS) * 1_000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: `action` is a plain struct for which zeros are a value; the handler only loads a pointer
    // and adds to an atomic, which a signal may interrupt anything with; both pointers are to locals
    // that outlive the calls, and where nothing is to be written back they are null as allowed.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tick as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut()) == 0
            && libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn tick(_: libc::c_int) {
    if let Some(engine) = ENGINE.get() {
        engine.increment_epoch();
    }
}
