//! How a device keeps its keys: chosen by `weft init` and `weft join`, shown and changed by `weft key`.

use std::{env, path::PathBuf};

use serde_json::json;
use weft_api::{ErrorKind, HomeLock, OpenError};
use weft_store::key::{
    Credential, Keeping, KeyError, KeyFile, Keychain, LockedFile, Passphrase, Wrapping, credential,
};

use super::{
    Session,
    arguments::{KeyAction, KeyArgument, KeyChoice, KeySetArguments},
    error::{CommandError, Done},
    node,
    passphrase::{self, Source},
    terminal::{Style, Terminal},
};
use crate::daemon::{
    home::{self, Home},
    memory,
};

pub(super) fn run(session: &Session, action: KeyAction) -> Done {
    match action {
        KeyAction::Status => super::wait(status(session)),
        KeyAction::Set(arguments) => set(session, &arguments),
    }
}

/// How the keys of a home that is about to be made are to be kept. Asks for a new passphrase where that
/// is the choice. Without a choice it is the keychain where there is one, else the file, since a server
/// must start with nobody there; which it is, is said.
pub(super) fn choose(terminal: &Terminal, choice: &KeyChoice) -> Result<Wrapping, CommandError> {
    memory::protect()?;
    let wrapping = match choice.key {
        Some(KeyArgument::Passphrase) => {
            return wrap(terminal, &passphrase::new(choice.passphrase_from.into())?);
        }
        Some(kind) => return without_passphrase(kind),
        None => match Keychain::open().and_then(|keychain| Wrapping::keychain(&keychain)) {
            Ok(wrapping) => wrapping,
            Err(error) => {
                tracing::info!(%error, "the keys are kept without a keychain");
                Wrapping::file()
            }
        },
    };
    let described = wrapping.keeping().describe();
    match wrapping.keeping() {
        Keeping::File => {
            terminal.say(&format!("keys: {described}; weft key set passphrase changes that"));
        }
        Keeping::Passphrase | Keeping::Keychain | Keeping::Credential => {
            terminal.say(&format!("keys: {described}"));
        }
    }
    Ok(wrapping)
}

/// The keys in a file. Asks for a passphrase where they need one.
pub(super) fn open(file: &LockedFile, source: Source) -> Result<KeyFile, CommandError> {
    match file.keeping() {
        Keeping::Passphrase => {
            let typed = passphrase::known(source, "The passphrase of this device's keys: ")?;
            open_with(file, &typed.ok_or_else(passphrase::no_terminal)?)
        }
        Keeping::Credential => {
            let key = file.key_of_credential(&credential()?).map_err(|error| failed(&error))?;
            file.open(Some(key)).map_err(|error| failed(&error))
        }
        Keeping::Keychain => {
            let key = Keychain::open().and_then(|keychain| file.key_of_keychain(&keychain));
            let opened = key.and_then(|key| file.open(Some(key))).map_err(|error| failed(&error));
            opened.map_err(|error| {
                error.hint("the keychain opens when you log in to this machine's desktop")
            })
        }
        Keeping::File => file.open(None).map_err(|error| failed(&error)),
    }
}

/// The keys in a file that a passphrase opens.
pub(super) fn open_with(
    file: &LockedFile,
    passphrase: &Passphrase,
) -> Result<KeyFile, CommandError> {
    let key = file.key_of_passphrase(passphrase).map_err(|error| failed(&error))?;
    file.open(Some(key)).map_err(|error| failed(&error))
}

pub(super) fn failed(error: &KeyError) -> CommandError {
    let is_wrong = matches!(error, KeyError::Wrong { .. });
    let kind = if is_wrong { ErrorKind::Denied } else { ErrorKind::Other };
    CommandError::failed(error).of_kind(kind)
}

/// Shows how the keys are kept, whether or not the node runs.
async fn status(session: &Session) -> Done {
    let terminal = &session.terminal;
    let keeping = Home::new(&session.home).read_key()?.keeping();
    // A node that does not run, or does not answer, holds no keys as far as anybody can see.
    let locked = node::state(session).await.ok().and_then(|status| status["locked"].as_bool());
    if terminal.is_json() {
        terminal.json(&json!({"keys": home::keys(keeping).word(), "locked": locked}))?;
        return Ok(None);
    }
    let keys = terminal.styled(Style::Dim, "keys");
    terminal.data(&format!("{keys}: {}", keeping.describe()))?;
    if locked == Some(true) {
        terminal.data("locked: weft unlock opens them")?;
    }
    Ok(None)
}

/// Keeps the same keys in another way. Only while no node runs: it would write its own way again.
fn set(session: &Session, arguments: &KeySetArguments) -> Done {
    let terminal = &session.terminal;
    memory::protect()?;
    let home = Home::new(&session.home);
    home.read_key()?;
    let _held = HomeLock::take(home.path()).map_err(|error| match error {
        OpenError::AlreadyRunning { .. } => {
            CommandError::new(ErrorKind::Usage, "a node is running here, with the keys as they are")
                .hint("stop it (^C where it runs, or your service manager), then say this again")
        }
        OpenError::PathTooLong { .. } | OpenError::Io { .. } => CommandError::failed(&error),
    })?;
    KeyFile::forget_unfinished(&home.key()).map_err(|error| failed(&error))?;
    // Read again: until now somebody else could have changed it.
    let file = home.read_key()?;
    let before = file.keeping();
    let old = Source::from(arguments.passphrase_from);
    let (mut keys, wrapping) = if arguments.kind == KeyArgument::Passphrase {
        let new = Source::from(arguments.new_passphrase_from);
        let (keys, typed) = if before == Keeping::Passphrase {
            let (old, new) = passphrase::known_and_new(old, new)?;
            (open_with(&file, &old)?, new)
        } else {
            // With one passphrase only, both options mean that one.
            let new = if new == Source::Terminal { old } else { new };
            (open(&file, old)?, passphrase::new(new)?)
        };
        (keys, wrap(terminal, &typed)?)
    } else {
        (open(&file, old)?, without_passphrase(arguments.kind)?)
    };
    keys.rewrap(wrapping).map_err(|error| failed(&error))?;
    if before == Keeping::Keychain
        && let Err(error) = Keychain::open().and_then(|it| file.forget_in_keychain(&it))
    {
        tracing::warn!(%error, "the keychain still has the key of the file before");
    }
    if terminal.is_json() {
        terminal.json(&json!({"keys": home::keys(keys.keeping()).word()}))?;
    } else {
        terminal.say(&format!("keys: {}", keys.describe()));
    }
    if before == Keeping::File && keys.keeping() != Keeping::File {
        terminal.say(
            "the disk may hold traces of the file before; a new home, paired anew, leaves none",
        );
    }
    Ok(None)
}

/// Takes two to three seconds: what a try costs is measured first, then spent once.
fn wrap(terminal: &Terminal, passphrase: &Passphrase) -> Result<Wrapping, CommandError> {
    terminal.note("making a key of the passphrase");
    Wrapping::passphrase(passphrase).map_err(|error| failed(&error))
}

fn without_passphrase(kind: KeyArgument) -> Result<Wrapping, CommandError> {
    match kind {
        KeyArgument::File => Ok(Wrapping::file()),
        KeyArgument::Keychain => Keychain::open()
            .and_then(|keychain| Wrapping::keychain(&keychain))
            .map_err(|error| failed(&error)),
        KeyArgument::Credential => {
            Wrapping::credential(&credential()?).map_err(|error| failed(&error))
        }
        KeyArgument::Passphrase => Err(passphrase::no_terminal()),
    }
}

/// The credential that systemd loaded for this process.
fn credential() -> Result<Credential, CommandError> {
    const UNIT_LINE: &str = "in the unit file: LoadCredential=weft:/etc/credstore/weft, a file of 32 random bytes or more";
    let Some(directory) = env::var_os(credential::DIRECTORY).map(PathBuf::from) else {
        let message = format!(
            "this device's keys need a systemd credential, and {} is not set",
            credential::DIRECTORY
        );
        return Err(CommandError::new(ErrorKind::Usage, message).hint(UNIT_LINE));
    };
    Credential::read(&directory)
        .map_err(|error| CommandError::failed(&error).of_kind(ErrorKind::Usage).hint(UNIT_LINE))
}
