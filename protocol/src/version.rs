//! Which version of the program a device runs.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use thiserror::Error;

/// A released version. What comes before a release counts as that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Version {
    /// Moves when what is stored or said is another.
    #[n(0)]
    pub major: u32,
    /// Moves when more can be done.
    #[n(1)]
    pub minor: u32,
    /// Moves when something is mended.
    #[n(2)]
    pub patch: u32,
}

impl Version {
    /// The one that this program is.
    ///
    /// # Panics
    ///
    /// Never: a program is not built whose version is not three numbers.
    pub fn of_this_program() -> Self {
        env!("CARGO_PKG_VERSION").parse().expect("a package's version is three numbers")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A text is no version.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read the version {text:?}: it is not three numbers, as 1.2.3 is")]
pub struct VersionError {
    /// The text.
    text: String,
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let released = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Option<Vec<u32>> =
            released.split('.').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[major, minor, patch]) => Ok(Self { major, minor, patch }),
            Some(_) | None => Err(VersionError { text: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_and_in_order() {
        let version = |text: &str| text.parse::<Version>().ok();
        let order = ["0.1.0", "0.1.9", "0.1.10", "0.2.0", "1.0.0-rc.1", "1.0.1+linux"];
        assert!(order.map(|text| version(text).unwrap()).is_sorted_by(|a, b| a < b));
        assert_eq!(version("1.0.0-rc.1").map(|it| it.to_string()).as_deref(), Some("1.0.0"));
        for text in ["", "1", "1.2", "1.2.", "1.2.3.4", "a.b.c", "-1.0.0", "4294967296.0.0"] {
            assert_eq!(version(text), None, "{text:?}");
        }
        let error = "1.2".parse::<Version>().unwrap_err().to_string();
        assert_eq!(error, "read the version \"1.2\": it is not three numbers, as 1.2.3 is");
        assert_eq!(Version::of_this_program().to_string(), env!("CARGO_PKG_VERSION"));
    }
}
