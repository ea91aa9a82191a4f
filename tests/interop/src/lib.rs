//! Programs that are not ours against a real node: libp2p in other languages, from their registries.
//!
//! Noise, Yamux, identify and ping are libp2p's specification and not an agreement between two ends of
//! one library; here somebody else's code says whether that is so, and what a stranger can open.
//!
//! A [`Program`] is a script of this folder with what it needs pinned beside it (`js/package-lock.json`,
//! `py/requirements.txt`). [`Program::install`] has the ordinary client of that registry, npm or pip,
//! put it into a folder of the user's cache, once for each state of those files; nothing is written to
//! the checkout. [`Program::run`] starts it with the node's address, and what it heard comes back as
//! JSON. Where the language, its client or its registry is missing, a test says NOT RUN and why.
//!
//! Deliberately not here: anything of the node's own code, which is seen from outside alone.

mod command;
mod program;

pub use self::program::Program;
