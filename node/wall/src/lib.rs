//! The second wall: a child process of this same binary that can no longer do harm.
//!
//! Agents and the model run in such children. Whatever breaks out of the WASI layer or of a parser
//! in C++ finds an empty environment, no descriptor but those that it was given, and a kernel that
//! refuses every call which takes a path, makes a socket or a process, or signals others.
//!
//! Deliberately not here: what the child does, and what is said over the socket. This crate starts
//! it, walls it in, proves the wall, and frames bytes ([`frame`]). Each
//! block of `unsafe` code says why it holds.
//!
//! One walk through it:
//!
//! 1. The parent calls [`Child::spawn`] with a role. The same binary starts with the hidden
//!    arguments [`CHILD_ARGUMENT`], role and number of files; descriptor 3 is one end of a socket
//!    pair, further files follow from 4. It dies with its parent.
//! 2. `main` of that binary asks [`role`] before anything else (above all before it starts a
//!    thread) and branches.
//! 3. The child takes its [`socket`] and [`file()`]s. A child that has to read a file by a library
//!    that wants a path calls [`narrow`] first, and reads it.
//! 4. [`enter`] puts up the wall and tries to get over it; the [`Proof`] lists what was tried. Only
//!    then does the child take work.
//! 5. The parent asks the kernel, not the child, by [`Child::observe`].
//!
//! Linux on x86-64 and 64-bit Arm. Elsewhere [`enter`] answers [`WallError::Unavailable`] and the
//! caller must not give the child any work.

pub mod frame;

mod child;
mod inherited;
mod wall;

pub use child::{CHILD_ARGUMENT, Child, Observed, Spawn, SpawnError, Stderr};
pub use inherited::{InheritError, file, role, socket};
pub use wall::{Landlock, Proof, Refusal, Wall, WallError, ask, enter, narrow};
