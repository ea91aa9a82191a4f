//! Disks that lie, fill up, or are somebody else's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use weft_e2e::{Device, Dice, Fabric, not_run, until};

/// How a start or a question ended that met damage.
fn is_clear(said: &weft_e2e::Transcript) {
    let everything = format!("{}{}", said.stdout, said.stderr);
    assert!(!everything.contains("panicked"), "{said}");
    assert!(matches!(said.code, Some(1 | 12)), "{said}");
    assert!(said.stderr.lines().any(|line| line.starts_with("error: ")), "{said}");
}

/// Starts the node on a changed disk. Either nothing that was acknowledged is missing, or the damage is named.
fn survives_or_names_it(laptop: &mut Device, notes: &[String], what: &str) -> bool {
    let mut node = laptop.start(&["up"]);
    loop {
        if node.has_ended() {
            let said = node.end();
            is_clear(&said);
            return false;
        }
        let listed = laptop.run(&["notes", "list", "--json"]);
        match listed.code {
            Some(3) => {}
            Some(0) => {
                let verified = laptop.run(&["audit", "verify"]);
                if verified.code != Some(0) {
                    is_clear(&verified);
                    return false;
                }
                assert_eq!(laptop.notes(), notes, "{what}");
                return true;
            }
            _ => {
                is_clear(&listed);
                return false;
            }
        }
    }
}

#[test]
fn a_changed_disk_is_named_and_never_believed() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    for at in 0..8 {
        laptop.note(&format!("kept {at}"));
    }
    let notes = laptop.notes();
    laptop.stop();
    let store = laptop.home().join("store.redb");
    let whole = fs::read(&store).expect("there is a store");

    // Where something is written; what redb keeps in reserve is zero. The first page has its own case.
    let in_use: Vec<usize> = (4_096..whole.len())
        .step_by(64)
        .filter(|at| whole[*at..].iter().take(64).filter(|byte| **byte != 0).count() > 32)
        .collect();
    let changed = |places: &[usize]| {
        let mut bytes = whole.clone();
        for at in places {
            bytes.iter_mut().skip(*at).take(64).for_each(|byte| *byte ^= 0x5a);
        }
        fs::write(&store, &bytes).expect("the store is written");
    };
    let mut dice = Dice::new(0x5eed);
    for round in 0..12 {
        let at = in_use[usize::try_from(dice.below(in_use.len() as u64)).expect("an index")];
        changed(&[at]);
        let what = format!("round {round}: 64 bytes changed at {at} of {}", whole.len());
        let survived = survives_or_names_it(laptop, &notes, &what);
        eprintln!("{what}: {}", if survived { "nothing is missing" } else { "named" });
    }
    // Most of what is written is of older states, so that one place may not be needed; all together are.
    changed(&in_use);
    let survived = survives_or_names_it(laptop, &notes, "all that is written was changed");
    assert!(!survived, "a store of which nothing is left was believed");

    // The beginning, which is always in use; half a file; an empty one; something else.
    for (what, bytes) in [
        ("its beginning", [&[0xff; 512][..], &whole[512..]].concat()),
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("another file", b"SQLite format 3\0".repeat(512)),
    ] {
        fs::write(&store, &bytes).expect("the store is written");
        let said = laptop.up_in_vain();
        is_clear(&said);
        assert!(said.stderr.contains("store"), "{what}: {said}");
    }
    fs::write(&store, &whole).expect("the store is written");

    // Without its key, a store is noise.
    let key = laptop.home().join("key");
    let right = fs::read(&key).expect("there is a key");
    let mut wrong = right.clone();
    *wrong.last_mut().expect("a key has bytes") ^= 1;
    fs::write(&key, &wrong).expect("the key is written");
    is_clear(&laptop.up_in_vain());
    fs::write(&key, &right).expect("the key is written");

    laptop.up();
    assert_eq!(laptop.notes(), notes);
    laptop.verify();
}

#[test]
fn what_lies_on_the_disk_is_ciphertext() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    laptop.write("secret.txt", "an unmistakable sentence of a file");
    laptop.note("an unmistakable sentence of a note");
    assert_eq!(
        laptop.run(&["do", "show secret.txt"]).expect_code(0).stdout.trim_end(),
        "an unmistakable sentence of a file"
    );
    laptop.stop();
    let mut folders = vec![laptop.home().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the home").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                files += 1;
                let found = bytes.windows(12).any(|it| it == b"unmistakable");
                assert!(!found, "{} is readable", path.display());
            }
        }
    }
    assert!(files >= 3, "{files} files were looked at");
}

/// A small disk of its own, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not make one.
    fn new(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).expect("a folder");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], path)
            .then(|| Self(path.to_owned()))
    }

    fn grow(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}")], &self.0));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may hold it a moment longer.
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let mounted = Command::new("mount").args(arguments).arg(path).output();
    mounted.is_ok_and(|it| it.status.success())
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let mut fabric = Fabric::new(["laptop"]);
    let disk = fabric.folder().join("disk");
    let [laptop] = &mut *fabric;
    let Some(disk) = SmallDisk::new(&disk, "24m") else {
        return not_run("this user may not make a small disk");
    };
    laptop.move_to(disk.0.join("home"));
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    laptop.up();
    laptop.note("before it was full");
    // What other programs leave: nothing.
    let mut filler = fs::File::create(disk.0.join("filler")).expect("a file");
    let chunk = vec![0_u8; 64 << 10];
    while std::io::Write::write_all(&mut filler, &chunk).is_ok() {}
    drop(filler);

    let mut acknowledged = vec!["before it was full".to_owned()];
    let mut refused = Vec::new();
    for at in 0..400 {
        let text = format!("while it is full {at} {}", "and more ".repeat(200).trim_end());
        let said = laptop.run(&["do", &format!("note that {text}")]);
        if said.code == Some(0) {
            acknowledged.push(text);
            continue;
        }
        refused.push((text, said));
        if refused.len() == 4 {
            break;
        }
    }
    let (_, first) = refused.first().expect("a full disk takes no more");
    // Whether the first is on the disk is not known; of those after it, it is.
    let codes: Vec<_> = refused.iter().filter_map(|(_, said)| said.code).collect();
    assert!(matches!(codes[..], [6 | 11, 6, 6, 6]), "{codes:?}: {first}");
    for (_, said) in &refused {
        assert!(!said.stderr.contains("panicked"), "{said}");
        assert!(said.stderr.contains("error: "), "{said}");
    }
    let said = format!("{}{}", first.stderr, laptop.node_said());
    assert!(["full", "space", "room"].iter().any(|word| said.contains(word)), "{said}");

    // Room again: whatever was acknowledged is there, and what was told as failed is not done now.
    laptop.kill();
    disk.grow("64m");
    laptop.up();
    let running = || laptop.run(&["run", "list"]).stdout.contains("running");
    until("all runs have ended", running, |is_running| !is_running);
    let notes = laptop.notes();
    for (text, said) in refused.iter().filter(|(_, said)| said.code != Some(11)) {
        assert!(!notes.contains(text), "it was done after all: {said}");
    }
    let lost: Vec<_> = acknowledged.iter().filter(|note| !notes.contains(note)).collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), acknowledged.len());
    laptop.note("there is room again");
    laptop.verify();
    laptop.stop();
}
