//! Transcripts of the real program: devices with a home each, typed at as a person would.

mod devices;
mod doctor;
mod code;
mod pairing;
mod revocation;
mod recovery;

mod keys;
mod rotate;

mod notes;
mod timers;

mod sentences;
mod summary;

mod loss;
mod silence;
mod machine;
mod unwalled;

mod audit;
mod bad_input;
mod variables;
mod disk;
mod power_cuts;
mod screen;
