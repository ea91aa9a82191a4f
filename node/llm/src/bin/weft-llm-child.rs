//! The model's process alone, for the tests of this crate, whose own binary is a harness.

use std::process::ExitCode;

fn main() -> ExitCode {
    if weft_wall::role().as_deref() != Some(weft_llm::CHILD_ROLE) {
        eprintln!("weft-llm-child is started by the tests of weft-llm");
        return ExitCode::FAILURE;
    }
    weft_llm::run_child()
}
