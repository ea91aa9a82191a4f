//! A device that is locked: a process without keys, store and network, which holds the home's socket so
//! that commands hear why nothing else works, and which begins anew once it is given the key.

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use weft_api::{
    Door, DoorInput, DoorMessage, ErrorKind, Keys, Problem, REQUESTS_WAITING_MAX, Request,
};
use weft_core::door::{Command, Reply};
use weft_store::key::{KeyError, LockedFile, WrappingKey};

use super::{
    anew::{self, Anew, Told},
    home::{self, Home},
};

/// Why locking would protect nothing, where only a passphrase does; `None`: it does.
pub(super) fn refusal(keys: Keys) -> Option<Problem> {
    let whoever = match keys {
        Keys::Passphrase => return None,
        Keys::File => "they lie in a file, and whoever could unlock is whoever can read that",
        Keys::Keychain => "the keychain gives them back to whoever is logged in as this user",
        Keys::Credential => "systemd gives them back to whoever runs this service",
    };
    let message = format!("locking would protect no keys: {whoever}");
    let hint =
        "stop the node, run weft key set passphrase, and start it again; weft lock then works";
    Some(Problem::new(ErrorKind::Usage, message).hint(hint))
}

/// Holds the home's socket in the foreground until somebody unlocks, or it is told to stop.
pub(crate) fn run(home: &Home, file: &LockedFile, told: Told) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let key = runtime.block_on(serve(home, file))?;
    drop(runtime);
    match key {
        Some(key) => Err(anew::begin(home, told, Anew::Unlocked(key))),
        None => Ok(()),
    }
}

/// Gives the key that opens the file; `None`: told to stop.
async fn serve(home: &Home, file: &LockedFile) -> Result<Option<WrappingKey>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (inputs, mut doors) = mpsc::channel(REQUESTS_WAITING_MAX);
    let serving = tokio::spawn(weft_api::serve(Door::open(home.path())?, inputs));
    crate::cli::complain(&format!("locked: {}; run weft unlock", home.path().display()));
    let key = loop {
        let input = tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            Some(input) = doors.recv() => input,
        };
        let DoorInput::Asked { request, answers, .. } = input else { continue };
        let (message, key) = answer(file, request);
        // A channel of its own has room for one; who hung up does not want to know.
        answers.try_send(message).ok();
        drop(answers);
        if key.is_some() {
            break key;
        }
    };
    // Dropping the loop's end lets what was answered go out.
    drop(doors);
    serving.abort();
    Ok(key)
}

/// What a locked device says, and the key where it was the right one.
fn answer(file: &LockedFile, request: Request) -> (DoorMessage, Option<WrappingKey>) {
    let problem = match request {
        Request::Core(Command::Status) => {
            return (DoorMessage::Locked { keys: home::keys(file.keeping()) }, None);
        }
        // It is what was asked for already.
        Request::Lock => return (DoorMessage::Reply(Reply::Done), None),
        Request::Unlock(key) => match open(file, &WrappingKey::from(*key.as_bytes())) {
            Ok(key) => return (DoorMessage::Reply(Reply::Done), Some(key)),
            Err(error) => error,
        },
        Request::Core(_)
        | Request::Say(_)
        | Request::Models
        | Request::ModelChanged
        | Request::Rotate => {
            Problem::new(ErrorKind::Locked, "this device is locked").hint("run weft unlock")
        }
    };
    (DoorMessage::Error(problem), None)
}

/// The key, if it opens the file; the secrets are wiped at once.
fn open(file: &LockedFile, key: &WrappingKey) -> Result<WrappingKey, Problem> {
    match file.open(Some(key.clone())) {
        Ok(_) => Ok(key.clone()),
        Err(error @ KeyError::Wrong { .. }) => {
            Err(Problem::new(ErrorKind::Denied, format!("failed to {error}")))
        }
        Err(error) => Err(Problem::new(ErrorKind::Other, format!("failed to {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_store::key::{Cost, KeyFile, Passphrase, Secrets, Wrapping};

    use super::*;

    /// A home whose keys are kept under `correct horse`, and the key that this makes.
    fn locked() -> (tempfile::TempDir, LockedFile, WrappingKey) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("key");
        let passphrase = Passphrase::from("correct horse".to_owned());
        let cheap = Cost { memory_kib: 64, passes: 1 };
        let wrapping = Wrapping::passphrase_at(&passphrase, cheap).unwrap();
        KeyFile::create(&path, Secrets::generate().unwrap(), wrapping).unwrap();
        let file = LockedFile::read(&path).unwrap();
        let key = file.key_of_passphrase(&passphrase).unwrap();
        (home, file, key)
    }

    fn asked(value: serde_json::Value) -> Request {
        Request::try_from(&value).unwrap()
    }

    #[test]
    fn a_locked_device_tells_its_state_and_nothing_else() {
        let (_home, file, _) = locked();
        let (status, _) = answer(&file, asked(json!({"ask": "status"})));
        assert_eq!(status, DoorMessage::Locked { keys: Keys::Passphrase });
        for request in [
            json!({"ask": "devices"}),
            json!({"ask": "documents", "kind": "note"}),
            json!({"ask": "invite"}),
            json!({"ask": "revoke", "device": "phone"}),
            json!({"ask": "watch"}),
            json!({"ask": "models"}),
            json!({"ask": "model-changed"}),
            json!({"ask": "say", "words": "x", "local_time": "y", "time_zone": "z"}),
        ] {
            let (message, key) = answer(&file, asked(request.clone()));
            let DoorMessage::Error(problem) = message else { panic!("{request} was answered") };
            assert_eq!((problem.kind, key), (ErrorKind::Locked, None), "{request}");
        }
    }

    #[test]
    fn only_the_right_key_unlocks() {
        let (_home, file, key) = locked();
        let with = |key: [u8; 32]| answer(&file, Request::Unlock(key.into()));
        let (message, none) = with([0; 32]);
        let DoorMessage::Error(problem) = message else { panic!("another key opened it") };
        assert_eq!((problem.kind, none), (ErrorKind::Denied, None));
        assert!(problem.message.contains("the passphrase is wrong"), "{problem}");
        let (message, opened) = with(*key.as_bytes());
        assert_eq!((message, opened), (DoorMessage::Reply(Reply::Done), Some(key)));
    }

    #[test]
    fn locking_has_sense_under_a_passphrase_alone() {
        assert_eq!(refusal(Keys::Passphrase), None);
        for keys in [Keys::File, Keys::Keychain, Keys::Credential] {
            let problem = refusal(keys).expect("it has no sense");
            assert!(problem.hint.unwrap().contains("weft key set passphrase"), "{keys:?}");
        }
    }
}
