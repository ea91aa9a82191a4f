//! `weft up`: the keys are opened, and this process becomes the node; or, where nobody is there to open
//! them, a locked one that waits for `weft unlock`.

use std::{io::Read as _, os::unix::fs::FileTypeExt as _};

use weft_api::{ErrorKind, HomeLock, OpenError};
use weft_net::Reach;
use weft_store::key::{Keeping, KeyError, KeyFile, LockedFile, WrappingKey};
use zeroize::Zeroizing;

use super::{
    Session,
    arguments::UpArguments,
    error::{CommandError, Done},
    key,
    passphrase::{self, Source},
};
use crate::daemon::{anew::Told, home::Home, lock, memory, up};

/// The word for no address at all.
const NO_ADDRESS: &str = "none";

/// How often a passphrase is asked for at a terminal.
const TRIES: usize = 3;

pub(super) fn run(session: &Session, arguments: &UpArguments, verbose: u8) -> Done {
    up::check_environment()?;
    let home = Home::new(&session.home);
    memory::protect()?;
    name_process();
    let file = home.read_key()?;
    keep_announced(&home, &arguments.announce, up::reach())?;
    // Told before anything is asked. Whoever holds the home may also clear what a crash left.
    let held = HomeLock::take(home.path()).map_err(|error| not_had(&home, error.into()))?;
    KeyFile::forget_unfinished(&home.key()).map_err(|error| CommandError::failed(&error))?;
    drop(held);
    let told = Told { verbose, metered: arguments.metered };
    let ended = match open(&file, arguments)? {
        Some(keys) => up::run(&home, keys, told),
        None => lock::run(&home, &file, told),
    };
    ended.map(|()| None).map_err(|error| not_had(&home, error))
}

/// Keeps the addresses that the person named, for this start and later ones.
fn keep_announced(home: &Home, announced: &[String], reach: Reach) -> Result<(), CommandError> {
    let announced = match announced {
        [] => return Ok(()),
        [word] if word == NO_ADDRESS => &[],
        addresses => addresses,
    };
    if let Some(odd) = announced.iter().find(|it| !weft_net::may_be_announced(it, reach)) {
        return Err(not_announced(odd));
    }
    let mut settings = home.read_settings()?;
    settings.announce = announced.to_vec();
    home.write_settings(&settings)?;
    Ok(())
}

/// Why that can't be announced.
fn not_announced(odd: &str) -> CommandError {
    let usage = |message: String| CommandError::new(ErrorKind::Usage, message);
    if odd == NO_ADDRESS {
        return usage(format!("--announce {NO_ADDRESS} stands alone"))
            .hint("it forgets the addresses that were announced; leave it out to announce others");
    }
    // What others could dial is kept back by the reach alone.
    if weft_net::may_be_announced(odd, Reach::Lan) {
        return usage(format!(
            "{odd} can't be announced with WEFT_LISTEN=loopback: this machine alone reaches the node"
        ))
        .hint("start it without WEFT_LISTEN=loopback");
    }
    usage(format!("{odd} is no address that others could dial"))
        .hint("as /dns4/vps.example.org/udp/4001/quic-v1 or /ip4/203.0.113.1/tcp/4001")
}

/// A process that began anew is called after the link that it was executed by.
fn name_process() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::set_name(c"weft") {
        tracing::debug!(%error, "the process keeps its name");
    }
}

/// The keys; `None`: this device is to be locked.
fn open(file: &LockedFile, arguments: &UpArguments) -> Result<Option<KeyFile>, CommandError> {
    let failed = |error: KeyError| CommandError::failed(&error);
    if arguments.unlocked {
        return file.open(Some(handed_over()?)).map(Some).map_err(failed);
    }
    match file.keeping() {
        Keeping::File | Keeping::Keychain | Keeping::Credential => {
            key::open(file, Source::Terminal).map(Some)
        }
        Keeping::Passphrase if arguments.locked => Ok(None),
        Keeping::Passphrase => with_passphrase(file, arguments.passphrase_from.into()),
    }
}

fn with_passphrase(file: &LockedFile, source: Source) -> Result<Option<KeyFile>, CommandError> {
    let mut tries = 1;
    loop {
        let Some(typed) = passphrase::known(source, "The passphrase of this device's keys: ")?
        else {
            return Ok(None);
        };
        match key::open_with(file, &typed) {
            Err(error) if is_typo(&error) && source == Source::Terminal && tries < TRIES => {
                crate::cli::complain("that was another passphrase");
                tries += 1;
            }
            other => return other.map(Some),
        }
    }
}

fn is_typo(error: &CommandError) -> bool {
    error.kind() == ErrorKind::Denied
}

/// The key that the locked process before this one was given, on standard input.
fn handed_over() -> Result<WrappingKey, CommandError> {
    let wrong =
        || CommandError::new(ErrorKind::Usage, "--unlocked is for weft itself; use weft unlock");
    let is_pipe = std::fs::metadata("/dev/fd/0").is_ok_and(|it| it.file_type().is_fifo());
    if !is_pipe {
        return Err(wrong());
    }
    let mut key = Zeroizing::new([0; 32]);
    let mut input = std::fs::File::open("/dev/fd/0").map_err(|_| wrong())?;
    input.read_exact(&mut *key).map_err(|_| wrong())?;
    Ok(WrappingKey::from(*key))
}

/// What keeps a node from starting or going on is told as the reason, but for one whose node runs.
fn not_had(home: &Home, error: anyhow::Error) -> CommandError {
    if matches!(error.downcast_ref(), Some(OpenError::AlreadyRunning { .. })) {
        let message = format!("a node is already running in {}", home.path().display());
        return CommandError::new(ErrorKind::Usage, message).hint("weft status shows it");
    }
    // It ran, and stopped as it was told.
    if error.is::<up::Unwritten>() {
        return CommandError::from(error).hint("weft doctor says what is to be done");
    }
    error.context("failed to run the node").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stopped_after_its_disk_was_full_ran() {
        let home = Home::new("/none");
        let full = || weft_store::WriteError::DiskFull;
        let stopped = not_had(&home, up::Unwritten(full()).into());
        let said = "the node has stopped; what came after its store failed was not written";
        assert_eq!((stopped.message().as_str(), stopped.kind()), (said, ErrorKind::Other));
        assert_eq!(not_had(&home, full().into()).message(), "failed to run the node");
    }

    #[test]
    fn what_is_announced_is_kept_until_others_are_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let kept = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|it| (*it).to_owned()).collect();
            keep_announced(&home, &words, Reach::Lan)
                .map(|()| home.read_settings().unwrap().announce)
        };
        let (one, two) = ("/ip4/203.0.113.1/tcp/4001", "/dns4/vps.example/udp/4001/quic-v1");
        assert_eq!(kept(&[one, two]).unwrap(), [one, two]);
        assert_eq!(kept(&[]).unwrap(), [one, two]);
        for odd in ["vps.example", "/ip4/203.0.113.1", "/ip4/0.0.0.0/tcp/1"] {
            assert_eq!(kept(&[one, odd]).unwrap_err().kind(), ErrorKind::Usage, "{odd}");
        }
        assert_eq!(kept(&[two]).unwrap(), [two]);
        let error = kept(&[one, "none"]).unwrap_err();
        assert_eq!(error.message(), "--announce none stands alone");
        assert_eq!(kept(&[]).unwrap(), [two], "and nothing was forgotten");
        assert_eq!(kept(&["none"]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn on_this_machine_only_the_reach_is_named_and_not_the_form() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |word: &str| {
            let home = Home::new(folder.path());
            keep_announced(&home, &[word.to_owned()], Reach::Loopback).unwrap_err().message()
        };
        for address in ["/dns4/home.example/udp/4001/quic-v1", "/ip4/203.0.113.1/tcp/4001"] {
            let said = refused(address);
            assert!(said.contains("WEFT_LISTEN=loopback"), "{said}");
        }
        assert_eq!(refused("vps.example"), "vps.example is no address that others could dial");
    }
}
