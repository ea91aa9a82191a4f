//! How keys lie on the disk and in memory, and how they are taken away and given back.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use weft_e2e::{Device, Fabric, Transcript, is_root, not_run, until};

const PASSPHRASE: &str = "staple-correct-zyzzyva-horse";
const OTHER: &str = "another-quetzal-of-words";

/// How many bytes are passed over at once.
const PIECE: usize = 32;

/// A device whose keys began in a file, where this test read them: the store key and the device seed.
struct Known {
    store_key: [u8; 32],
    device_seed: [u8; 32],
}

/// Begins a fabric with the keys in a file, reads them, and puts them under [`PASSPHRASE`].
fn under_passphrase(device: &Device) -> Known {
    well(device.run(&["init", "--name", device.name(), "--key", "file"]));
    let known = read_file(device);
    set_passphrase(device);
    known
}

/// The secrets as the format has them: `a4 00 01 01 00 02 58 47 a2 00 58 20 <32> 01 58 20 <32> 03 40`.
fn read_file(device: &Device) -> Known {
    let bytes = fs::read(device.home().join("key")).expect("there is a key file");
    let part = |at: usize| bytes[at..at + 32].try_into().expect("32 bytes");
    assert_eq!(bytes.len(), 81, "the format stands");
    Known { store_key: part(12), device_seed: part(47) }
}

fn set_passphrase(device: &Device) {
    let set = device.run_with(
        &["key", "set", "passphrase", "--new-passphrase-from", "0"],
        &format!("{PASSPHRASE}\n"),
    );
    assert_eq!(set.code, Some(0), "{set}");
    assert!(set.stderr.contains("keys: passphrase"), "{set}");
    assert!(set.stderr.contains("traces of the file before"), "{set}");
}

fn unlock(device: &Device, passphrase: &str) -> Transcript {
    device.run_with(&["unlock", "--passphrase-from", "0"], &format!("{passphrase}\n"))
}

#[test]
fn a_device_under_a_passphrase_is_locked_and_unlocked() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let init = ["init", "--name", "laptop", "--key", "passphrase", "--passphrase-from", "0"];
    let weak = laptop.run_with(&init, "short\n");
    expect_test::expect![[r#"
        $ weft init --name laptop --key passphrase --passphrase-from 0
        ! error: failed to take the passphrase: it has fewer than 8 characters
        ! hint: five or six words that nobody would guess are better than one with signs in it
        (exit 2)
    "#]]
    .assert_eq(&weak.to_string());
    assert!(!laptop.home().exists(), "nothing was made");
    let made = laptop.run_with(&init, &format!("{PASSPHRASE}\n"));
    assert_eq!(made.code, Some(0), "{made}");

    // Nobody is there who could type it: locked, and it says what to do.
    laptop.up_with(&[], "");
    let id = laptop.node_id();
    assert!(laptop.node_said().contains("run weft unlock"), "{}", laptop.node_said());
    expect_test::expect![[r#"
        $ weft status
        this device is locked; weft unlock gives it its keys back
    "#]]
    .assert_eq(&laptop.run(&["status"]).to_string());
    expect_test::expect![[r#"
        $ weft do note x
        ! error: this device is locked
        ! hint: run weft unlock
        (exit 14)
    "#]]
    .assert_eq(&laptop.run(&["do", "note", "x"]).to_string());
    let wrong = unlock(laptop, OTHER);
    assert_eq!(wrong.code, Some(5), "{wrong}");
    assert!(wrong.stderr.contains("the passphrase is wrong"), "{wrong}");
    assert_eq!(laptop.json(&["status"])["locked"], true);

    expect_test::expect![[r#"
        $ weft unlock --passphrase-from 0
        ! unlocked
    "#]]
    .assert_eq(&unlock(laptop, PASSPHRASE).to_string());
    assert_eq!(laptop.json(&["status"])["keys"], "passphrase");
    laptop.note("kept under a passphrase");
    expect_test::expect![[r#"
        $ weft lock
        ! locked: this device does nothing until weft unlock
    "#]]
    .assert_eq(&laptop.run(&["lock"]).to_string());
    assert_eq!(laptop.run(&["notes"]).code, Some(14));
    let again = laptop.run(&["lock"]);
    assert!(again.stderr.contains("locked already"), "{again}");
    well(unlock(laptop, PASSPHRASE));
    assert_eq!(laptop.notes(), ["kept under a passphrase"]);
    laptop.verify();
    assert_eq!(laptop.node_id(), id, "its process stays, for whoever started it");
    let ended = laptop.stop();
    assert_eq!(ended.code, Some(0), "{ended}");

    // A script hands the passphrase over; a wrong one is an error, and loses nothing.
    let mut wrong = laptop.start(&["up", "--passphrase-from", "0"]);
    wrong.type_in(&format!("{OTHER}\n"));
    let wrong = wrong.end();
    assert_eq!(wrong.code, Some(5), "{wrong}");
    laptop.up_with(&["--passphrase-from", "0"], &format!("{PASSPHRASE}\n"));
    assert_eq!(laptop.notes(), ["kept under a passphrase"]);
    let ended = laptop.stop();
    assert_eq!(ended.code, Some(0), "{ended}");
}

#[test]
fn a_person_types_it_at_a_terminal_that_shows_nothing() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    well(laptop.run(&["init", "--name", "laptop", "--key", "file"]));
    let Some(mut init) = laptop.at_terminal(&["key", "set", "passphrase"]) else {
        return not_run("this machine has no script");
    };
    init.hears("A passphrase for this device's keys: ");
    init.type_in(&format!("{PASSPHRASE}\r"));
    init.hears("The same once more: ");
    init.type_in(&format!("{PASSPHRASE}\r"));
    init.hears("keys: passphrase");
    let init = init.end();
    assert_eq!(init.code, Some(0), "{init}");
    assert!(!init.stdout.contains(PASSPHRASE), "{init}");

    // ^C leaves a terminal that shows again what is typed.
    let mut up = laptop.at_terminal(&["up"]).expect("there was one before");
    up.hears("The passphrase of this device's keys: ");
    up.type_in("half a passphr\u{3}");
    let up = up.end();
    assert_eq!(up.code, Some(130), "{up}");
    assert!(!up.stdout.contains("half"), "{up}");

    let mut up = laptop.at_terminal(&["up"]).expect("there was one before");
    up.hears("The passphrase of this device's keys: ");
    up.type_in(&format!("{OTHER}\r"));
    up.hears("that was another passphrase");
    until("it asks again", || up.stdout(), |said| said.matches("keys: ").count() == 2);
    up.type_in(&format!("{PASSPHRASE}\r"));
    up.hears("weft is up in");
    assert_eq!(laptop.json(&["status"])["locked"], false);
    // A terminal's own ^C ends the node in good order, so echo and signals are as they were.
    up.type_in("\u{3}");
    let up = up.end();
    // The shell between may tell of the signal, too.
    assert!(matches!(up.code, Some(0 | 130)), "{up}");
    assert!(up.stdout.contains("^C"), "it is shown again: {up}");
    assert!(!up.stdout.contains(PASSPHRASE) && !up.stdout.contains(OTHER), "{up}");
}

#[test]
fn locking_what_lies_in_a_file_has_no_sense_and_says_so() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    expect_test::expect![[r#"
        $ weft lock
        ! error: locking would protect no keys: they lie in a file, and whoever could unlock is whoever can read that
        ! hint: stop the node, run weft key set passphrase, and start it again; weft lock then works
        (exit 2)
    "#]]
    .assert_eq(&laptop.run(&["lock"]).to_string());
    let unlocked = laptop.run(&["unlock"]);
    assert!(unlocked.stderr.contains("this device is not locked"), "{unlocked}");
    let running = laptop.run(&["key", "set", "file"]);
    assert_eq!(running.code, Some(2), "{running}");
    assert!(running.stderr.contains("a node is running here"), "{running}");
    assert_eq!(laptop.json(&["key", "status"])["keys"], "file");
    laptop.note("still here");
}

#[test]
fn keys_are_kept_in_another_way_without_pairing_anew() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    under_passphrase(laptop);
    let both = ["--passphrase-from", "0", "--new-passphrase-from", "0"];
    let set = |kind: &str, input: &str| {
        laptop.run_with(&[&["key", "set", kind], &both[..]].concat(), input)
    };
    let before = fs::read(laptop.home().join("key")).expect("there is a key file");
    let wrong = set("passphrase", &format!("{OTHER}\n{OTHER}\n"));
    assert_eq!(wrong.code, Some(5), "{wrong}");
    let short = set("passphrase", &format!("{PASSPHRASE}\nshort\n"));
    assert_eq!(short.code, Some(2), "{short}");
    assert_eq!(fs::read(laptop.home().join("key")).expect("it is there"), before);
    well(set("passphrase", &format!("{PASSPHRASE}\n{OTHER}\n")));

    // A credential, as systemd gives it to a service.
    let credentials = fabric.folder().join("credentials");
    fs::create_dir(&credentials).expect("a folder");
    let [laptop] = &mut *fabric;
    let set = |words: &[&str]| {
        let mut running = laptop.start_where("CREDENTIALS_DIRECTORY", &credentials, words);
        running.type_in(&format!("{OTHER}\n"));
        running.end()
    };
    let to_credential = ["key", "set", "credential", "--passphrase-from", "0"];
    let missing = set(&to_credential);
    assert_eq!(missing.code, Some(2), "{missing}");
    assert!(missing.stderr.contains("LoadCredential=weft:"), "{missing}");
    fs::write(credentials.join("weft"), [42; 48]).expect("a credential");
    well(set(&to_credential));
    let without = laptop.up_in_vain();
    assert_eq!(without.code, Some(2), "{without}");
    assert!(without.stderr.contains("LoadCredential=weft:"), "{without}");
    let up = laptop.start_where("CREDENTIALS_DIRECTORY", &credentials, &["up"]);
    let keys = || laptop.run(&["--json", "status"]).stdout;
    until("it is up", keys, |said| said.contains("\"keys\":\"credential\""));
    laptop.note("under a credential");
    drop(up);

    let back = set(&["key", "set", "file"]);
    assert_eq!(back.code, Some(0), "{back}");
    assert!(back.stderr.contains("whoever has the disk reads all"), "{back}");
    laptop.up();
    assert_eq!(laptop.notes(), ["under a credential"]);
}

#[test]
fn keys_lie_in_the_keychain_of_a_session_that_has_one() {
    // A session of its own, whose keychain is opened as a login does.
    let script = "printf login | gnome-keyring-daemon --unlock --components=secrets >&2 && \"$@\"";
    let session = ["--", "sh", "-c", script, "sh"];
    let has = |name: &str| Path::new("/usr/bin").join(name).is_file();
    if !has("dbus-run-session") || !has("gnome-keyring-daemon") {
        return not_run("this machine has no dbus-run-session or no gnome-keyring-daemon");
    }
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let in_session = |device: &Device, words: &[&str]| {
        device.start_under("dbus-run-session", &session, words).expect("it is there").end()
    };
    let init = in_session(laptop, &["init", "--name", "laptop"]);
    assert_eq!(init.code, Some(0), "{init}");
    assert!(init.stderr.contains("keys: keychain"), "it is the default there, and said: {init}");
    assert_eq!(laptop.json(&["key", "status"])["keys"], "keychain");
    let outside = laptop.up_in_vain();
    assert_eq!(outside.code, Some(1), "{outside}");
    assert!(outside.stderr.contains("failed to use the system's keychain"), "{outside}");
    assert!(outside.stderr.contains("opens when you log in"), "{outside}");
    // The key comes back in another session of the same user, and goes when it is no longer needed.
    well(in_session(laptop, &["key", "set", "file"]));
    laptop.up();
    laptop.note("opened by the keychain's key");
    laptop.stop();
    well(in_session(laptop, &["key", "set", "keychain"]));
    assert_eq!(laptop.json(&["key", "status"])["keys"], "keychain");
}

#[test]
fn whoever_has_the_disk_of_a_device_under_a_passphrase_reads_nothing() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let known = under_passphrase(laptop);
    laptop.up_with(&["--passphrase-from", "0", "-v"], &format!("{PASSPHRASE}\n"));
    let notes: Vec<_> = (0..20).map(|number| format!("canary zq{number}xj of the disk")).collect();
    for note in &notes {
        laptop.note(note);
    }
    let id = laptop.node_id();
    let mut canaries: Vec<Vec<u8>> = notes.iter().map(|note| note.as_bytes().to_vec()).collect();
    canaries.push(PASSPHRASE.into());
    canaries.extend([known.store_key.to_vec(), known.device_seed.to_vec()]);
    for file in ["cmdline", "environ", "status"] {
        let shown = fs::read(format!("/proc/{id}/{file}"));
        assert_eq!(found_in(&shown.unwrap_or_default(), &canaries), 0, "/proc/{id}/{file}");
    }
    let said = laptop.node_said();
    assert_eq!(found_in(said.as_bytes(), &canaries), 0, "{said}");
    assert_eq!(found_under(laptop.home(), &canaries), 0, "while it is up");
    well(laptop.run(&["lock"]));
    assert_eq!(found_under(laptop.home(), &canaries), 0, "while it is locked");
    laptop.stop();
    assert_eq!(found_under(laptop.home(), &canaries), 0, "while it is down");

    // The same look at a file home finds what is not protected there, so the look can find something.
    let to_file = ["key", "set", "file", "--passphrase-from", "0"];
    well(laptop.run_with(&to_file, &format!("{PASSPHRASE}\n")));
    assert_eq!(found_under(laptop.home(), &canaries), 2, "store key and seed lie in the open");
}

#[test]
fn after_a_lock_the_process_holds_no_key() {
    if !is_root() {
        return not_run("only root may look into a process that keeps others out");
    }
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    let known = under_passphrase(laptop);
    laptop.up_with(&["--passphrase-from", "0"], &format!("{PASSPHRASE}\n"));
    laptop.note("something to open the store for");
    let id = laptop.node_id();
    let look = |what: &[u8]| found_in_memory(id, what);
    assert_ne!(look(&known.store_key), 0, "a node that is open has its store key in memory");
    assert_ne!(look(&known.device_seed), 0, "and its device seed");
    well(laptop.run(&["lock", "--yes"]));
    assert_eq!(laptop.node_id(), id);
    for (name, secret) in [
        ("store key", &known.store_key[..]),
        ("device seed", &known.device_seed),
        ("passphrase", PASSPHRASE.as_bytes()),
        ("note", b"something to open the store for"),
    ] {
        assert_eq!(look(secret), 0, "the {name} is in the memory of a locked node");
    }
    // It is of the same device, and its memory can be read.
    assert_ne!(look(b"run weft unlock"), 0);
    assert_eq!(unlock(laptop, OTHER).code, Some(5));
    assert_eq!(look(OTHER.as_bytes()), 0, "what was typed in vain reaches no process that stays");
    well(unlock(laptop, PASSPHRASE));
    assert_ne!(look(&known.store_key), 0);
    assert_eq!(look(PASSPHRASE.as_bytes()), 0, "nor does what was not typed in vain");
}

#[test]
fn other_processes_of_this_user_cannot_look_into_the_node() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    let id = laptop.node_id();
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).expect("limits are for all");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    let sizes: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(sizes, ["0", "0"], "no core dump: {core}");
    // Files of a process that keeps others out belong to root, whoever runs it.
    let memory = fs::metadata(format!("/proc/{id}/mem")).expect("it runs");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&memory), 0);
    if is_root() {
        return not_run("root may look into every process");
    }
    for file in ["mem", "environ", "maps"] {
        let error = fs::read(format!("/proc/{id}/{file}")).expect_err("it keeps others out");
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{file}");
    }
}

#[test]
fn another_user_of_this_machine_is_not_served() {
    if !is_root() {
        return not_run("only root can become another user");
    }
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    laptop.note("not for others");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let ask = |words: &[&str]| laptop.start_under("setpriv", &nobody, words).map(|it| it.end());
    let commands: [&[&str]; 6] = [
        &["status"],
        &["notes"],
        &["devices", "--json"],
        &["do", "note that I was here"],
        &["invite", "--yes"],
        &["lock", "--yes"],
    ];
    let refused = |state: &str| {
        for words in commands {
            let Some(said) = ask(words) else { return not_run("this machine has no setpriv") };
            assert_eq!(said.code, Some(1), "{state}: {said}");
            assert!(!said.stdout.contains("not for others"), "{state}: {said}");
            assert!(said.stderr.contains("failed to "), "{state}: {said}");
        }
    };
    refused("the home is closed");
    // Somebody opened home and socket: whoever calls is still another user.
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    open(laptop.home().parent().expect("a folder"), 0o755);
    open(laptop.home(), 0o755);
    open(&laptop.home().join("weft.sock"), 0o666);
    refused("the socket is open");
    assert_eq!(laptop.notes(), ["not for others"]);
    let said = laptop.node_said();
    assert!(said.contains("turned away a client of another user"), "{said}");
}

/// Asserts that a command ended well.
#[track_caller]
fn well(said: Transcript) {
    assert_eq!(said.code, Some(0), "{said}");
}

/// How many of the canaries are in these bytes.
fn found_in(bytes: &[u8], canaries: &[Vec<u8>]) -> usize {
    canaries.iter().filter(|canary| has(bytes, canary)).count()
}

/// How many of the canaries are in files under a folder, or in their names.
fn found_under(folder: &Path, canaries: &[Vec<u8>]) -> usize {
    let mut bytes = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is a folder") {
            let path = entry.expect("it is there").path();
            bytes.extend_from_slice(path.as_os_str().as_encoded_bytes());
            // A file may go while this looks; a socket has no bytes.
            match fs::metadata(&path) {
                Ok(it) if it.is_dir() => folders.push(path),
                Ok(it) if it.is_file() => bytes.extend(fs::read(&path).unwrap_or_default()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    assert!(!bytes.is_empty(), "there was something to look at");
    found_in(&bytes, canaries)
}

/// How often these bytes are in the memory of a process.
fn found_in_memory(id: u32, what: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("it runs");
    let mut memory = File::open(format!("/proc/{id}/mem")).expect("root may read it");
    let mut count = 0;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        // What the kernel maps for itself is not read.
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.contains("[vsyscall]") {
            continue;
        }
        let ends = range.split_once('-').expect("a range");
        let at = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let (start, end) = (at(ends.0), at(ends.1));
        let mut bytes = Vec::new();
        memory.seek(SeekFrom::Start(start)).expect("an address");
        // Pages that a process never touched read as zeros or not at all.
        memory.by_ref().take(end - start).read_to_end(&mut bytes).ok();
        count += positions(&bytes, what);
    }
    count
}

fn positions(bytes: &[u8], what: &[u8]) -> usize {
    // Most of a memory is zeros: whole pieces without the first byte are passed over.
    let pieces = bytes.chunks(PIECE).enumerate().filter(|(_, piece)| piece.contains(&what[0]));
    let places = pieces.flat_map(|(number, piece)| {
        let start = number * PIECE;
        start..start + piece.len()
    });
    places.filter(|at| bytes[*at..].starts_with(what)).count()
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    positions(bytes, what) > 0
}
