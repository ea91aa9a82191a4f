//! A key that lies in the system's keychain: the Secret Service on the session's bus, which opens when
//! the user logs in.
//!
//! The parameters are deterministic CBOR: `{0: id[16]}`, by which the keychain finds the key.

use std::{env, fmt};

use minicbor::{Decode, Encode};
use weft_protocol::codec;
use zeroize::Zeroizing;

use super::{
    KeyError,
    secrets::fill,
    wrapping::{self, Keeping, Wrapping, WrappingKey},
};

/// Under which service its entries are found in the keychain.
pub const SERVICE: &str = "weft";

/// Where the session's bus is. Without it there is no session to which a keychain belongs; a bus that is
/// found in another way is another session's.
const SESSION_BUS: &str = "DBUS_SESSION_BUS_ADDRESS";

const ID_LEN: usize = 16;

/// The keychain of this session. May block while it asks the user to open it; must not be used within an
/// asynchronous runtime.
pub struct Keychain(system::Store);

impl Keychain {
    /// Reaches it.
    ///
    /// # Errors
    ///
    /// [`KeyError::Keychain`] where there is none.
    pub fn open() -> Result<Self, KeyError> {
        if env::var_os(SESSION_BUS).is_none_or(|address| address.is_empty()) {
            let why = format!("there is no session: {SESSION_BUS} is not set");
            return Err(KeyError::Keychain { why });
        }
        system::open().map(Self).map_err(|why| KeyError::Keychain { why })
    }

    fn put(&self, id: [u8; ID_LEN], key: &WrappingKey) -> Result<(), KeyError> {
        system::put(&self.0, &name(id), key.as_bytes()).map_err(|why| KeyError::Keychain { why })
    }

    fn get(&self, id: [u8; ID_LEN]) -> Result<WrappingKey, KeyError> {
        let bytes = system::get(&self.0, &name(id)).map_err(|why| KeyError::Keychain { why })?;
        let bytes = Zeroizing::new(bytes);
        let odd = || KeyError::Keychain { why: "what it has is no key".to_owned() };
        Ok(WrappingKey::from(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| odd())?))
    }
}

impl fmt::Debug for Keychain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keychain(..)")
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Parameters {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; ID_LEN],
}

impl Wrapping {
    /// A new key, which lies in `keychain` when this returns.
    ///
    /// # Errors
    ///
    /// The keychain does not take it or does not give it back, or the system has no randomness to give.
    pub fn keychain(keychain: &Keychain) -> Result<Self, KeyError> {
        let (mut id, mut key) = ([0; ID_LEN], Zeroizing::new([0; 32]));
        fill(&mut id)?;
        fill(&mut *key)?;
        let key = WrappingKey::from(*key);
        keychain.put(id, &key)?;
        if keychain.get(id)? != key {
            return Err(KeyError::Keychain { why: "it gave back another key".to_owned() });
        }
        Ok(Self::keyed(Keeping::Keychain, codec::encode(&Parameters { id }), key))
    }
}

/// The key that `parameters` name.
pub(super) fn key(parameters: &[u8], keychain: &Keychain) -> Result<WrappingKey, KeyError> {
    keychain.get(id(parameters)?)
}

/// Takes the key that `parameters` name out of the keychain.
pub(super) fn forget(parameters: &[u8], keychain: &Keychain) -> Result<(), KeyError> {
    let name = name(id(parameters)?);
    system::forget(&keychain.0, &name).map_err(|why| KeyError::Keychain { why })
}

fn id(parameters: &[u8]) -> Result<[u8; ID_LEN], KeyError> {
    wrapping::parameters(parameters).map(|Parameters { id }| id)
}

/// The entry's user, as the keychain calls it.
fn name(id: [u8; ID_LEN]) -> String {
    id.iter().fold("home ".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

#[cfg(target_os = "linux")]
mod system {
    use std::{collections::HashMap, sync::Arc};

    use keyring_core::{Entry, Error, api::CredentialStoreApi as _};

    use super::SERVICE;

    pub(super) type Store = Arc<zbus_secret_service_keyring_store::Store>;

    pub(super) fn open() -> Result<Store, String> {
        zbus_secret_service_keyring_store::Store::new().map_err(|error| said(&error))
    }

    pub(super) fn put(store: &Store, name: &str, secret: &[u8]) -> Result<(), String> {
        entry(store, name)?.set_secret(secret).map_err(|error| said(&error))
    }

    pub(super) fn get(store: &Store, name: &str) -> Result<Vec<u8>, String> {
        entry(store, name)?.get_secret().map_err(|error| said(&error))
    }

    pub(super) fn forget(store: &Store, name: &str) -> Result<(), String> {
        entry(store, name)?.delete_credential().map_err(|error| said(&error))
    }

    fn entry(store: &Store, name: &str) -> Result<Entry, String> {
        let label = HashMap::from([("label", "Weft: the keys of a device")]);
        store.build(SERVICE, name, Some(&label)).map_err(|error| said(&error))
    }

    /// Never the errors that hold the secret's own bytes.
    fn said(error: &Error) -> String {
        match error {
            Error::BadEncoding(_) | Error::BadDataFormat(..) => "it gave something odd".to_owned(),
            Error::NoEntry => "it has no key for this home".to_owned(),
            other @ (Error::PlatformFailure(_)
            | Error::NoStorageAccess(_)
            | Error::BadStoreFormat(_)
            | Error::TooLong(..)
            | Error::Invalid(..)
            | Error::Ambiguous(_)
            | Error::NoDefaultStore
            | Error::NotSupportedByStore(_)
            | _) => other.to_string(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) enum Store {}

    pub(super) fn open() -> Result<Store, String> {
        Err("this version knows none on this system".to_owned())
    }

    pub(super) fn put(store: &Store, _: &str, _: &[u8]) -> Result<(), String> {
        match *store {}
    }

    pub(super) fn get(store: &Store, _: &str) -> Result<Vec<u8>, String> {
        match *store {}
    }

    pub(super) fn forget(store: &Store, _: &str) -> Result<(), String> {
        match *store {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_by_its_id() {
        let mut bytes = [0; ID_LEN];
        bytes[0] = 0xa5;
        assert_eq!(name(bytes), format!("home a5{}", "0".repeat(30)));
        assert_eq!(id(&codec::encode(&Parameters { id: bytes })).unwrap(), bytes);
        assert!(matches!(id(b"odd"), Err(KeyError::Parameters { .. })));
    }
}
