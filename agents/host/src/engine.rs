//! How wasmtime is set up, the same in every child and for every component.

use std::hash::{Hash as _, Hasher};

use wasmtime::{Config, Engine, OptLevel};

/// The engine of every child.
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.wasm_component_model(true).epoch_interruption(true).cranelift_opt_level(OptLevel::Speed);
    Engine::new(&config)
}

/// A hash over all that compiled code depends on beside the component: version and settings of
/// wasmtime, the processor's features.
pub(crate) fn compatibility() -> wasmtime::Result<[u8; 32]> {
    let mut hasher = Blake3(blake3::Hasher::new_derive_key("weft compiled code compatibility v1"));
    engine()?.precompile_compatibility_hash().hash(&mut hasher);
    Ok(*hasher.0.finalize().as_bytes())
}

/// Feeds what is hashed to BLAKE3, since a hash that names a file must be the same in every process.
struct Blake3(blake3::Hasher);

impl Hasher for Blake3 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}
