//! Whole devices on one machine: the real program, in homes of its own, typed at as a person would.
//!
//! A [`Fabric`] is a temporary folder with a [`Device`] for each name; a device is a home and, while it
//! is up, the process of its node. What is typed there comes back as a [`Transcript`]: both outputs and
//! the exit code, without what differs from run to run, so that a test reads as what stood on the
//! screen. Commands that go on while other things happen are [`Running`].
//!
//! Deliberately not here: anything of the program's own code. It is seen from outside alone, through
//! arguments, both outputs, exit codes and signals. Nor is there a sleep that stands for hope: what must
//! come true is looked at until it is ([`until`]), and a test that waits in vain says what it saw.
//!
//! One walk through it: [`Fabric::new`] makes the folder, [`Fabric::pair`] begins a fabric on the first
//! device and lets the others join it, each node listening on loopback only; a test types at one device,
//! looks at another, pulls a plug with [`Device::kill`]; and when it ends, well or not, the guards end
//! every child by its id and the folder goes.

mod device;
mod dice;
mod fabric;
mod patience;
mod program;
mod running;
mod transcript;

pub use self::{
    device::Device,
    dice::Dice,
    fabric::Fabric,
    patience::{PATIENCE, until, until_within},
    program::{fixture, is_root, not_run, test_model},
    running::Running,
    transcript::Transcript,
};
