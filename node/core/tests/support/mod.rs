//! A fabric of real cores without a network, a disk or a clock: its statements, its devices with their agent
//! and their rules, and what carries their outputs from one to the other.

#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test carries out what it looks at")]

pub(crate) mod agent;
pub(crate) mod device;
pub(crate) mod fabric;
pub(crate) mod rules;
pub(crate) mod statements;

pub(crate) use agent::step;
pub(crate) use device::Disk;
pub(crate) use fabric::{Fabric, Sent};
pub(crate) use rules::{ALLOW, Rules};
pub(crate) use statements::{add, secret};
