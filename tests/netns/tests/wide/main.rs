//! A fabric on networks as people have them: behind routers, on bad lines, on the way.
//!
//! No test asserts on a time: the deadlines only end what hangs, and what was measured is printed.
//! With `WEFT_SOAK` set, they go on for longer and try more.

mod change;
mod flight;
mod lab;
mod loss;
mod narrow;
mod nat;
mod proof;
mod relay;
mod silence;
mod slow;
mod upnp;
