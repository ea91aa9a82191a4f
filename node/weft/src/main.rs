//! `weft`: the program on every device of a fabric, daemon and command line in one.
//!
//! [`cli`] is everything that a person types and sees; it reaches a running node through
//! `weft-api`'s socket. [`daemon`] is the node: the one place where core, network, store, rules,
//! agents and model meet.
//!
//! Deliberately not here: behaviour. What a node decides is in `weft-core`, what a door carries in
//! `weft-api`; this crate starts, connects and shows.
//!
//! One walk through it: `main` first asks whether it was started as a walled child (an agent, the
//! compiler, the model) and then is nothing else. Otherwise [`cli::run`] reads the arguments;
//! `weft up` becomes the node, or a locked one without keys; `init`, `join` and `recover` prepare its
//! home, `key` keeps its keys in another way, and everything else asks the node that runs.

mod cli;
mod daemon;

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

/// Makes TLS libraries write their session keys to the file that it names.
const KEY_LOG: &str = "SSLKEYLOGFILE";

fn main() -> ExitCode {
    // A child must not start a thread before its wall stands.
    if let Some(role) = weft_wall::role() {
        return if role == weft_llm::CHILD_ROLE {
            weft_llm::run_child()
        } else {
            weft_host::run_child(&role)
        };
    }
    if env::var_os(KEY_LOG).is_some() {
        return without_key_log();
    }
    cli::run()
}

/// Starts this program anew without [`KEY_LOG`]: a process can't safely change its own environment.
fn without_key_log() -> ExitCode {
    let mut arguments = env::args_os();
    let program = env::current_exe();
    let name = arguments.next().unwrap_or_else(|| "weft".into());
    let error = match program {
        Ok(program) => Command::new(program).arg0(name).args(arguments).env_remove(KEY_LOG).exec(),
        Err(error) => error,
    };
    cli::complain(&format!("failed to start without {KEY_LOG}: {error}"));
    ExitCode::FAILURE
}
