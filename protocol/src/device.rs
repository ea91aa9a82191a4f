//! What a device is to its fabric.

use thiserror::Error;

/// The word is none of those that name a kind or a role.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read {word:?}: expected one of {expected}")]
pub struct UnknownWord {
    pub(crate) word: String,
    pub(crate) expected: &'static str,
}

macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, $all:literal { $($(#[$vdoc:meta])* $n:literal $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
        #[cbor(index_only)]
        pub enum $name { $($(#[$vdoc])* #[n($n)] $variant),* }

        impl $name {
            /// The word that people write and read for it.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::device::UnknownWord;

            fn from_str(word: &str) -> Result<Self, $crate::device::UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err($crate::device::UnknownWord { word: word.to_owned(), expected: $all }),
                }
            }
        }
    };
}
pub(crate) use word_enum;

word_enum! {
    /// The kind of machine, which fixes the profile of limits and costs. It never grants a right.
    Kind, "laptop, phone, server" {
        /// Strong, often away, has a keyboard.
        0 Laptop = "laptop",
        /// Weak, on battery, nearly always near.
        1 Phone = "phone",
        /// Strong, always on.
        2 Server = "server",
    }
}

word_enum! {
    /// What a device may do in the fabric.
    Role, "admin, member, keeper, guest" {
        /// A member that may also change who belongs.
        0 Admin = "admin",
        /// Holds keys and data, runs steps.
        1 Member = "member",
        /// Holds and relays ciphertext only.
        2 Keeper = "keeper",
        /// May use named capabilities only.
        3 Guest = "guest",
    }
}

impl Role {
    /// Whether the device holds the keys to the data.
    pub const fn holds_data(self) -> bool {
        matches!(self, Self::Admin | Self::Member)
    }
}
