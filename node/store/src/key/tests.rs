//! Key files, as they are written, read, opened and changed.

use std::{fs, os::unix::fs::PermissionsExt as _};

use tempfile::TempDir;

use super::*;

fn secrets() -> Secrets {
    Secrets { store_key: StoreKey::from([7; 32]), device_seed: [9; 32] }
}

fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("key");
    (home, path)
}

fn passphrase(text: &str) -> Passphrase {
    text.to_owned().into()
}

fn by_passphrase(text: &str) -> Wrapping {
    Wrapping::passphrase_at(&passphrase(text), passphrase::SMALL).unwrap()
}

fn open_with(path: &Path, text: &str) -> Result<KeyFile, KeyError> {
    let locked = LockedFile::read(path)?;
    let key = locked.key_of_passphrase(&passphrase(text))?;
    locked.open(Some(key))
}

#[test]
fn what_is_created_loads_and_is_not_overwritten() {
    let (_home, path) = home();
    KeyFile::create(&path, secrets(), Wrapping::file()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let loaded = KeyFile::load(&path).unwrap();
    assert_eq!(loaded.secrets(), &secrets());
    assert_eq!(loaded.describe(), "file (whoever has the disk reads all)");
    assert!(matches!(
        KeyFile::create(&path, Secrets::generate().unwrap(), Wrapping::file()),
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists
    ));
    assert_eq!(KeyFile::load(&path).unwrap().secrets(), &secrets());
}

#[test]
fn the_format_stands() {
    let (_home, path) = home();
    KeyFile::create(&path, secrets(), Wrapping::file()).unwrap();
    let mut expected = vec![0xa4, 0x00, 0x01, 0x01, 0x00, 0x02, 0x58, 71, 0xa2];
    expected.extend([&[0x00, 0x58, 32][..], &[7; 32], &[0x01, 0x58, 32], &[9; 32]].concat());
    expected.extend([0x03, 0x40]);
    assert_eq!(fs::read(&path).unwrap(), expected);
}

#[test]
fn a_wrapped_file_of_this_version_opens_in_the_next() {
    // Written once, with the passphrase `correct horse`; what is here must open for ever.
    let written = include_bytes!("tests/passphrase.key");
    let (_home, path) = home();
    fs::write(&path, written).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(open_with(&path, "correct horse").unwrap().secrets(), &secrets());
}

#[test]
fn a_later_versions_secrets_open_as_far_as_they_are_known() {
    let (_home, path) = home();
    // A third key, 7, which this version does not know.
    let inner = [&[0xa3, 0x00, 0x58, 32][..], &[7; 32], &[0x01, 0x58, 32], &[9; 32], &[0x07, 0x01]];
    let inner = inner.concat();
    let len = u8::try_from(inner.len()).unwrap();
    let bytes = [&[0xa4, 0x00, 0x01, 0x01, 0x00, 0x02, 0x58, len][..], &inner, &[0x03, 0x40]];
    fs::write(&path, bytes.concat()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(KeyFile::load(&path).unwrap().secrets(), &secrets());
}

#[test]
fn one_that_others_can_read_is_refused_with_the_command_to_mend_it() {
    let (_home, path) = home();
    KeyFile::create(&path, secrets(), Wrapping::file()).unwrap();
    for mode in [0o640, 0o604, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = KeyFile::load(&path).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, KeyError::Exposed { .. }), "{text}");
        assert!(text.contains(&format!("run `chmod 600 {}`", path.display())), "{text}");
    }
}

#[test]
fn wrapped_newer_and_damaged_files_are_told_apart() {
    let (_home, path) = home();
    KeyFile::create(&path, secrets(), Wrapping::file()).unwrap();
    let good = fs::read(&path).unwrap();
    let load_with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        fs::write(&path, bytes).unwrap();
        KeyFile::load(&path).unwrap_err().to_string()
    };
    assert!(load_with(2, 0x02).contains("made by a newer weft (format 2)"));
    assert!(load_with(4, 0x01).contains("it is wrapped by a passphrase"));
    assert!(load_with(4, 0x02).contains("it is wrapped by the system's keychain"));
    assert!(load_with(4, 0x03).contains("it is wrapped by a systemd credential"));
    assert!(load_with(4, 0x17).contains("a kind that this version does not know (23)"));
    assert!(load_with(0, 0xa5).contains("it is damaged"));
    for len in 0..good.len() {
        fs::write(&path, &good[..len]).unwrap();
        assert!(matches!(KeyFile::load(&path), Err(KeyError::Damaged { .. })), "{len}");
    }
}

#[test]
fn only_the_passphrase_opens_and_a_wrong_one_loses_nothing() {
    let (_home, path) = home();
    let made = KeyFile::create(&path, secrets(), by_passphrase("correct horse")).unwrap();
    assert_eq!(made.keeping(), Keeping::Passphrase);
    let bytes = fs::read(&path).unwrap();
    for secret in [[7; 32], [9; 32]] {
        assert!(!bytes.windows(32).any(|part| part == secret), "no secret lies in the open");
    }
    for wrong in ["incorrect horse", "", "correct horse "] {
        let error = open_with(&path, wrong).unwrap_err();
        assert!(error.to_string().contains("the passphrase is wrong"), "{wrong:?}: {error}");
    }
    assert!(matches!(KeyFile::load(&path), Err(KeyError::Locked { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(open_with(&path, "correct horse").unwrap().secrets(), &secrets());
}

#[test]
fn a_kind_that_was_changed_by_hand_opens_nothing() {
    let (_home, path) = home();
    KeyFile::create(&path, secrets(), by_passphrase("correct horse")).unwrap();
    let good = fs::read(&path).unwrap();
    // Kind and each byte of the parameters, which end the file.
    for at in [4].into_iter().chain(good.len() - 20..good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        open_with(&path, "correct horse").expect_err("it was changed");
    }
}

#[test]
fn keys_move_from_one_way_of_keeping_to_another() {
    let (home, path) = home();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(credential::NAME), [5; 40]).unwrap();
    let credential = Credential::read(folder.path()).unwrap();
    let mut file = KeyFile::create(&path, secrets(), Wrapping::file()).unwrap();
    file.rewrap(by_passphrase("correct horse")).unwrap();
    assert!(KeyFile::load(&path).is_err());
    assert_eq!(open_with(&path, "correct horse").unwrap().secrets(), &secrets());
    file.rewrap(by_passphrase("battery staple")).unwrap();
    open_with(&path, "correct horse").unwrap_err();
    assert_eq!(open_with(&path, "battery staple").unwrap().secrets(), &secrets());
    file.rewrap(Wrapping::credential(&credential).unwrap()).unwrap();
    let locked = LockedFile::read(&path).unwrap();
    assert!(matches!(
        locked.key_of_passphrase(&passphrase("battery staple")),
        Err(KeyError::Locked { by: Keeping::Credential, .. })
    ));
    let key = locked.key_of_credential(&credential).unwrap();
    assert_eq!(locked.open(Some(key)).unwrap().secrets(), &secrets());
    file.rewrap(Wrapping::file()).unwrap();
    assert_eq!(KeyFile::load(&path).unwrap().secrets(), &secrets());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_next_seed_takes_its_place_in_two_steps_whatever_wraps_the_file() {
    for wrapping in [Wrapping::file(), by_passphrase("correct horse")] {
        let (_home, path) = home();
        let load = || match LockedFile::read(&path).unwrap() {
            locked if locked.keeping() == Keeping::File => locked.open(None).unwrap(),
            _ => open_with(&path, "correct horse").unwrap(),
        };
        let mut file = KeyFile::create(&path, secrets(), wrapping).unwrap();
        assert!(matches!(file.adopt_next(), Err(KeyError::NoNext)));
        file.propose_next([1; 32]).unwrap();
        file.propose_next([2; 32]).unwrap();
        // A crash here: the device is still who it was, and knows whom it wanted to become.
        let mut file = load();
        assert_eq!((file.secrets(), file.next_seed()), (&secrets(), Some(&[2; 32])));
        file.adopt_next().unwrap();
        for file in [&file, &load()] {
            assert_eq!((file.secrets().device_seed, file.next_seed()), ([2; 32], None));
            assert_eq!(file.secrets().store_key, secrets().store_key);
        }
        file.propose_next([3; 32]).unwrap();
        file.forget_next().unwrap();
        assert_eq!((load().secrets().device_seed, load().next_seed()), ([2; 32], None));
    }
}

#[test]
fn a_crash_inside_a_change_leaves_the_old_file_or_the_new_one() {
    let (home, path) = home();
    let mut file = KeyFile::create(&path, secrets(), Wrapping::file()).unwrap();
    let before = fs::read(&path).unwrap();
    file.propose_next([2; 32]).unwrap();
    let after = fs::read(&path).unwrap();
    // Before the rename the new file lies beside the old one, whole or in part.
    for len in 0..=after.len() {
        fs::write(&path, &before).unwrap();
        fs::write(home.path().join("key.new"), &after[..len]).unwrap();
        let mut found = KeyFile::load(&path).unwrap();
        assert_eq!((found.secrets(), found.next_seed()), (&secrets(), None), "{len}");
        found.propose_next([4; 32]).unwrap();
        assert_eq!(KeyFile::load(&path).unwrap().next_seed(), Some(&[4; 32]), "{len}");
        assert!(!home.path().join("key.new").exists());
    }
    fs::write(home.path().join("key.new"), &after).unwrap();
    KeyFile::forget_unfinished(&path).unwrap();
    KeyFile::forget_unfinished(&path).unwrap();
    assert!(!home.path().join("key.new").exists());
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let (home, path) = home();
    let mut file = KeyFile::create(&path, secrets(), Wrapping::file()).unwrap();
    // A folder in the way of the file beside it: no privilege writes there.
    fs::create_dir(home.path().join("key.new")).unwrap();
    file.propose_next([2; 32]).unwrap_err();
    file.rewrap(by_passphrase("correct horse")).unwrap_err();
    assert_eq!((file.next_seed(), file.keeping()), (None, Keeping::File));
    assert_eq!(KeyFile::load(&path).unwrap().secrets(), &secrets());
}
