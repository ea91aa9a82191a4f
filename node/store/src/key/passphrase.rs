//! A passphrase that a person types, made into a key by Argon2id.
//!
//! The parameters are deterministic CBOR: `{0: salt[16], 1: memory in KiB, 2: passes}`; one lane.

use std::{
    fmt,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Params, Version};
use minicbor::{Decode, Encode};
use weft_protocol::codec;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    KeyError,
    secrets::fill,
    wrapping::{self, Keeping, Wrapping, WrappingKey},
};

/// A new passphrase has at least so many characters.
pub const CHARS_MIN: usize = 8;
/// No passphrase is longer, in bytes.
pub const BYTES_MAX: usize = 1024;

const SALT_LEN: usize = 16;
/// One machine in use, and whoever guesses has the same number of lanes as they have cores.
const LANES: u32 = 1;

/// What a person types. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    /// The bytes; the caller wipes what it copies.
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether it may become one: of at least [`CHARS_MIN`] characters.
    ///
    /// # Errors
    ///
    /// [`KeyError::WeakPassphrase`].
    pub fn check(&self) -> Result<(), KeyError> {
        if self.0.chars().count() < CHARS_MIN {
            return Err(KeyError::WeakPassphrase);
        }
        Ok(())
    }
}

impl From<String> for Passphrase {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl PartialEq for Passphrase {
    /// Takes the same time whatever differs, for what a person typed twice.
    fn eq(&self, other: &Self) -> bool {
        blake3::hash(self.as_bytes()) == blake3::hash(other.as_bytes())
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What one try costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// The least that a new file takes: RFC 9106's second recommendation.
    pub const FLOOR: Self = Self { memory_kib: 64 * 1024, passes: 3 };

    /// The most memory that a new file takes, where there is plenty.
    const MEMORY_KIB_NEW_MAX: u32 = 256 * 1024;
    /// One part in so many of the machine's memory may be taken, since unlocking must not fail.
    const MEMORY_SHARE: u64 = 16;
    /// The most memory that a file may ask for: a planted one can't take the machine down.
    const MEMORY_KIB_MAX: u32 = 1024 * 1024;
    /// The most memory times passes that a file may ask for: 85 times [`Self::FLOOR`], 17 s where that
    /// takes 200 ms.
    const WORK_KIB_MAX: u64 = 16 * 1024 * 1024;
    /// In the middle of half a second and a second.
    const TRY_TIME: Duration = Duration::from_millis(750);

    /// What takes half a second to a second on this machine, and never less than [`Self::FLOOR`].
    ///
    /// # Errors
    ///
    /// There is not even the memory for that.
    pub fn calibrate() -> Result<Self, KeyError> {
        // The faster of two, so that another program's moment does not make a cheap key.
        let first = Self::FLOOR.time()?;
        Ok(Self::scaled(first.min(Self::FLOOR.time()?), memory_kib()))
    }

    /// What takes [`Self::TRY_TIME`] where [`Self::FLOOR`] takes `floor`, with `installed` KiB of memory.
    fn scaled(floor: Duration, installed: u64) -> Self {
        let floor = floor.max(Duration::from_millis(1));
        let fits = |by: u32| {
            let memory = Self::FLOOR.memory_kib * by;
            memory <= Self::MEMORY_KIB_NEW_MAX
                && u64::from(memory) <= installed / Self::MEMORY_SHARE
                && floor * by <= Self::TRY_TIME
        };
        // Memory first: it costs whoever guesses with many cores the most.
        let by = [4, 2].into_iter().find(|by| fits(*by)).unwrap_or(1);
        let memory_kib = Self::FLOOR.memory_kib * by;
        let a_pass = (floor * by).as_micros() / u128::from(Self::FLOOR.passes);
        let passes = u32::try_from(Self::TRY_TIME.as_micros() / a_pass).unwrap_or(u32::MAX);
        let most = u32::try_from(Self::WORK_KIB_MAX / u64::from(memory_kib)).unwrap_or(u32::MAX);
        Self { memory_kib, passes: passes.clamp(Self::FLOOR.passes, most) }
    }

    fn time(self) -> Result<Duration, KeyError> {
        let start = Instant::now();
        derive(self, &[0; SALT_LEN], b"as long as many")?;
        Ok(start.elapsed())
    }

    /// Whether a file may ask for it.
    fn is_bearable(self) -> bool {
        self.memory_kib <= Self::MEMORY_KIB_MAX
            && u64::from(self.memory_kib) * u64::from(self.passes) <= Self::WORK_KIB_MAX
    }
}

/// Installed memory in KiB.
fn memory_kib() -> u64 {
    let info = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "it is of another width elsewhere")]
    let installed = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit));
    installed / 1024
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Parameters {
    #[cbor(n(0), with = "minicbor::bytes")]
    salt: [u8; SALT_LEN],
    #[n(1)]
    memory_kib: u32,
    #[n(2)]
    passes: u32,
}

impl Wrapping {
    /// A new passphrase at the cost that fits this machine. Takes one to three seconds: the floor twice, and a try.
    ///
    /// # Errors
    ///
    /// The passphrase is weak, or the system has no randomness or memory to give.
    pub fn passphrase(passphrase: &Passphrase) -> Result<Self, KeyError> {
        passphrase.check()?;
        Self::passphrase_at(passphrase, Cost::calibrate()?)
    }

    /// As [`Self::passphrase`], at a cost of the caller's choice: for tests, which need a small one.
    ///
    /// # Errors
    ///
    /// As [`Self::passphrase`], or the cost is none.
    pub fn passphrase_at(passphrase: &Passphrase, cost: Cost) -> Result<Self, KeyError> {
        passphrase.check()?;
        let mut salt = [0; SALT_LEN];
        fill(&mut salt)?;
        let key = derive(cost, &salt, passphrase.as_bytes())?;
        let Cost { memory_kib, passes } = cost;
        let parameters = codec::encode(&Parameters { salt, memory_kib, passes });
        Ok(Self::keyed(Keeping::Passphrase, parameters, key))
    }
}

/// The key that `parameters` make of a passphrase.
pub(super) fn key(parameters: &[u8], passphrase: &Passphrase) -> Result<WrappingKey, KeyError> {
    let Parameters { salt, memory_kib, passes } = wrapping::parameters(parameters)?;
    let cost = Cost { memory_kib, passes };
    if !cost.is_bearable() {
        return Err(KeyError::TooCostly { cost });
    }
    derive(cost, &salt, passphrase.as_bytes())
}

fn derive(cost: Cost, salt: &[u8], passphrase: &[u8]) -> Result<WrappingKey, KeyError> {
    let why = |error: argon2::Error| KeyError::Derive { why: error.to_string() };
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(cost.memory_kib, cost.passes, LANES, Some(key.len())).map_err(why)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut *key)
        .map_err(why)?;
    Ok(WrappingKey::from(*key))
}

#[cfg(test)]
pub(super) const SMALL: Cost = Cost { memory_kib: 64, passes: 1 };

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        text.to_owned().into()
    }

    #[test]
    fn the_same_passphrase_makes_the_same_key_and_no_other_does() {
        let made = Wrapping::passphrase_at(&passphrase("correct horse"), SMALL).unwrap();
        let found = |text: &str| key(made.parameters(), &passphrase(text)).unwrap();
        assert_eq!(Some(&found("correct horse")), made.key());
        for other in ["Correct horse", "correct horse ", "", "correct"] {
            assert_ne!(Some(&found(other)), made.key(), "{other:?}");
        }
        let again = Wrapping::passphrase_at(&passphrase("correct horse"), SMALL).unwrap();
        assert_ne!(again.key(), made.key(), "each file has a salt of its own");
    }

    #[test]
    fn it_is_argon2id_as_the_reference_has_it() {
        // `echo -n password | argon2 somesaltsomesalt -id -t 2 -k 65536 -p 1 -l 32`, by the reference
        // implementation.
        let cost = Cost { memory_kib: 65_536, passes: 2 };
        let key = derive(cost, b"somesaltsomesalt", b"password").unwrap();
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "fc33b78139231d34b71626bd6245c1d72efa190ad605c3d8166a72adcedfa2c2");
    }

    #[test]
    fn short_ones_are_refused() {
        for weak in ["", "1234567", "äöüäöüä"] {
            assert!(matches!(passphrase(weak).check(), Err(KeyError::WeakPassphrase)), "{weak}");
            let made = Wrapping::passphrase_at(&passphrase(weak), SMALL);
            assert!(matches!(made, Err(KeyError::WeakPassphrase)), "{weak}");
        }
        passphrase("12345678").check().unwrap();
    }

    #[test]
    fn a_planted_file_cannot_ask_for_the_whole_machine() {
        for (memory_kib, passes) in
            [(64 << 20, 1), (2 << 20, 1), (u32::MAX, u32::MAX), (1 << 20, 17), (64, 1 << 20)]
        {
            let asked = Parameters { salt: [0; SALT_LEN], memory_kib, passes };
            let error = key(&codec::encode(&asked), &passphrase("x")).unwrap_err();
            assert!(matches!(error, KeyError::TooCostly { .. }), "{memory_kib}, {passes}: {error}");
        }
        let none = Parameters { salt: [0; SALT_LEN], memory_kib: 64, passes: 0 };
        let error = key(&codec::encode(&none), &passphrase("x")).unwrap_err();
        assert!(matches!(error, KeyError::Derive { .. }), "{error}");
    }

    #[test]
    fn the_cost_fits_the_machine_and_has_a_floor() {
        let ms = Duration::from_millis;
        let gib = 1024 * 1024;
        for (floor, installed, memory_mib, passes) in [
            // A fast one with plenty: 256 MiB in 400 ms for three passes, so five of them.
            (ms(100), 16 * gib, 256, 5),
            (ms(100), 2 * gib, 128, 11),
            (ms(100), gib / 2, 64, 22),
            // A phone: the floor is all that it can bear.
            (ms(900), 4 * gib, 64, 3),
            (ms(9_000), 16 * gib, 64, 3),
        ] {
            let expected = Cost { memory_kib: memory_mib * 1024, passes };
            assert_eq!(Cost::scaled(floor, installed), expected, "{floor:?}, {installed}");
        }
        for floor in [ms(0), ms(1), ms(7)] {
            assert!(Cost::scaled(floor, 64 * gib).is_bearable(), "{floor:?}");
        }
        let here = Cost::calibrate().unwrap();
        assert!(here.memory_kib >= Cost::FLOOR.memory_kib && here.passes >= Cost::FLOOR.passes);
        assert!(here.is_bearable());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", passphrase("correct horse")), "Passphrase(..)");
    }
}
