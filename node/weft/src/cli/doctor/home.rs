//! The home as it lies on the disk: folder, store, keys.

use weft_store::key::Keeping;

use super::{
    Finding,
    facts::{Entry, Facts, HomeFacts, NodeFacts},
    size,
};

/// What lets others read or change a thing.
const OTHERS: u32 = 0o077;
/// What lets others change a thing.
const OTHERS_WRITE: u32 = 0o022;
/// With less room the next large note or model may not fit.
const FREE_BYTES_FEW: u64 = 1 << 30;
/// With less room the node may stop writing at any moment; it keeps 4 MiB back for the audit alone.
const FREE_BYTES_NONE: u64 = 64 << 20;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let home = &facts.home;
    let path = home.path.display();
    if home.is_closed {
        return vec![
            Finding::problem("home", format!("{path} may not be looked into by this user"))
                .advise("say this as the user whose node it is"),
        ];
    }
    if home.key.is_none() {
        return vec![
            Finding::problem("home", format!("there is no device in {path} yet"))
                .advise("weft init begins a fabric, on its first device")
                .advise("weft join takes a ticket that weft invite shows on another device")
                .advise("weft --home DIR doctor, if it lies in another folder"),
        ];
    }
    let mut findings = folder(facts);
    findings.push(store(facts));
    findings.push(keys(facts));
    findings
}

fn folder(facts: &Facts) -> Vec<Finding> {
    let home = &facts.home;
    let path = home.path.display();
    let mode = home.folder.map_or(0, |it| it.mode);
    let mut findings = Vec::new();
    if home.folder.is_some_and(|it| it.owner != home.user) {
        findings.push(
            Finding::warning("home", format!("{path} belongs to another user"))
                .why("the node may not be able to write there")
                .advise(format!("say this as that user, or: sudo chown -R $USER {path}")),
        );
    }
    let close = format!("chmod 700 {path}");
    if mode & OTHERS_WRITE != 0 {
        findings.push(
            Finding::problem("home", format!("other users may write into {path}"))
                .why("they could put their own key, store or socket there")
                .advise(close),
        );
    } else if mode & OTHERS != 0 {
        findings.push(
            Finding::warning("home", format!("other users may look into {path}"))
                .why("what lies there is encrypted or closed; what it is called and when it changes is not")
                .advise(close),
        );
    }
    if let Some(free) = home.free_bytes {
        let room = size(free);
        if free < FREE_BYTES_NONE {
            let finding = Finding::problem("disk", format!("its disk has {room} left"));
            // One that writes goes on when there is room; one that failed to write has stopped doing so.
            findings.push(if store_failure(facts).is_some() {
                finding
                    .why("nothing is done, since nothing could be recorded")
                    .advise("make room on that disk; then start the node again")
            } else {
                finding
                    .why(
                        "once it is full nothing is done any more, since nothing could be recorded",
                    )
                    .advise("make room on that disk")
            });
        } else if free < FREE_BYTES_FEW {
            findings.push(
                Finding::warning("disk", format!("its disk has {room} left"))
                    .advise("make room on that disk"),
            );
        } else if findings.is_empty() {
            findings.push(Finding::ok("home", format!("{path}; {room} left on its disk")));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("home", path.to_string()));
    }
    findings
}

fn store(facts: &Facts) -> Finding {
    let home = &facts.home;
    let Some(entry) = home.store else {
        return Finding::problem("store", "there is a key file, and no store beside it")
            .why("what this device knew is not here any more")
            .advise("put store.redb back from a backup of this folder")
            .advise("or give this machine a new home: weft --home DIR join, with a new ticket");
    };
    if home.is_store == Some(false) {
        return Finding::problem(
            "store",
            "store.redb is damaged: it does not begin as a store does",
        )
        .advise("put it back from a backup, or give this machine a new home and join again");
    }
    if let Some(why) = store_failure(facts) {
        return Finding::problem("store", format!("nothing can be written to it any more: {why}"))
            .why("nothing is done that could not be recorded")
            .advise("see to the disk; then start the node again");
    }
    if let Some(finding) = open_to_others(entry, "store", "store.redb", home) {
        return finding;
    }
    if facts.answers().is_some_and(|it| it.checkup["shell"]["reserve_held"] == false) {
        return Finding::warning("store", "no space is kept back for the record on this disk")
            .why("on a full disk the record could not be ended in good order")
            .advise("make room on the disk, and start the node again");
    }
    let bytes = size(entry.bytes);
    let is_open = facts.answers().is_some();
    let state = if is_open { "opened and in order" } else { "not opened now, as no node runs" };
    let state = if matches!(facts.node, NodeFacts::Locked) { "closed while locked" } else { state };
    Finding::ok("store", format!("{bytes}, encrypted; {state}"))
}

/// Why the node that runs writes nothing any more; `None`: it does.
fn store_failure(facts: &Facts) -> Option<&str> {
    facts.answers()?.checkup["shell"]["store_failure"].as_str()
}

fn keys(facts: &Facts) -> Finding {
    let home = &facts.home;
    if let Some(entry) = home.key
        && let Some(finding) = open_to_others(entry, "keys", "the key file", home)
    {
        return finding;
    }
    let keeping = match &home.keeping {
        Ok(keeping) => *keeping,
        Err(why) => {
            return Finding::problem("keys", why)
                .why("without its keys this device can open nothing that it has")
                .advise("put the file key back from a backup of this folder");
        }
    };
    match keeping {
        Keeping::File => {
            let change = "weft key set passphrase changes that";
            Finding::ok("keys", format!("in a file: whoever has the disk reads all; {change}"))
        }
        Keeping::Passphrase => Finding::ok("keys", "under a passphrase"),
        Keeping::Keychain => Finding::ok("keys", "in the desktop's keychain"),
        Keeping::Credential => Finding::ok("keys", "under a secret that systemd hands over"),
    }
}

/// What is wrong where others may read or change a file.
fn open_to_others(entry: Entry, about: &str, what: &str, home: &HomeFacts) -> Option<Finding> {
    let file = if about == "keys" { "key" } else { "store.redb" };
    (entry.mode & OTHERS != 0).then(|| {
        let mode = entry.mode;
        Finding::problem(about, format!("{what} is open to other users (mode {mode:04o})"))
            .why("whoever copied it may have what it protects; a node does not start with such a key file")
            .advise(format!("chmod 600 {}", home.path.join(file).display()))
            .advise("if somebody may have read it: weft rotate gives this device another key")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::sample;

    fn said(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        sample::said(check, change)
    }

    #[test]
    fn a_home_that_is_well_says_what_it_is() {
        expect_test::expect![[r#"
            ok: /home/ada/.local/share/weft; 120 GiB left on its disk
            ok: 12 MiB, encrypted; opened and in order
            ok: in a file: whoever has the disk reads all; weft key set passphrase changes that"#]]
        .assert_eq(&said(|_| ()).join("\n"));
        let none = said(|facts| facts.home.key = None);
        assert_eq!(none, ["problem: there is no device in /home/ada/.local/share/weft yet"]);
        let closed = said(|facts| (facts.home.key, facts.home.is_closed) = (None, true));
        assert!(closed[0].ends_with("may not be looked into by this user"), "{closed:?}");
    }

    #[test]
    fn what_is_open_to_others_is_told() {
        for (mode, expected) in [
            (0o700, None),
            (0o750, Some("warning: other users may look into")),
            (0o777, Some("problem: other users may write into")),
        ] {
            let said = said(|facts| facts.home.folder.as_mut().unwrap().mode = mode);
            let found = said.iter().find(|it| it.contains("other users"));
            assert_eq!(found.is_some(), expected.is_some(), "{mode:o}: {said:?}");
            assert!(found.is_none_or(|it| it.starts_with(expected.unwrap())), "{mode:o}: {said:?}");
        }
        let key = said(|facts| facts.home.key.as_mut().unwrap().mode = 0o640);
        let open = "problem: the key file is open to other users (mode 0640)";
        assert!(key.contains(&open.to_owned()), "{key:?}");
        let store = said(|facts| facts.home.store.as_mut().unwrap().mode = 0o604);
        assert!(store.iter().any(|it| it.starts_with("problem: store.redb is open")), "{store:?}");
        let other = said(|facts| facts.home.folder.as_mut().unwrap().owner = 7);
        assert!(other.iter().any(|it| it.contains("belongs to another user")), "{other:?}");
    }

    #[test]
    fn a_disk_without_room_is_told() {
        for (free, expected) in [
            (10 << 20, "problem: its disk has 10 MiB left"),
            (500 << 20, "warning: its disk has 500 MiB left"),
        ] {
            let said = said(|facts| facts.home.free_bytes = Some(free));
            assert!(said.contains(&expected.to_owned()), "{said:?}");
        }
        // To start a node again that writes would be of no use.
        for (failure, expected) in [
            (None, "make room on that disk"),
            (Some("no space"), "make room on that disk; then start the node again"),
        ] {
            let findings = sample::findings(check, |facts| {
                facts.home.free_bytes = Some(10 << 20);
                sample::answers(facts).checkup["shell"]["store_failure"] = failure.into();
            });
            let disk = findings.iter().find(|it| it.about == "disk").expect("it is told");
            assert_eq!(disk.to_do, [expected]);
            let is_over =
                disk.why.as_deref() == Some("nothing is done, since nothing could be recorded");
            assert_eq!(is_over, failure.is_some(), "{disk:?}");
        }
        let unknown = said(|facts| facts.home.free_bytes = None);
        assert_eq!(unknown[0], "ok: /home/ada/.local/share/weft");
    }

    #[test]
    fn what_is_wrong_with_store_and_keys_is_told() {
        let gone = said(|facts| facts.home.store = None);
        assert!(gone.contains(&"problem: there is a key file, and no store beside it".to_owned()));
        let damaged = said(|facts| facts.home.is_store = Some(false));
        assert!(damaged.iter().any(|it| it.starts_with("problem: store.redb is damaged")));
        let failed = said(|facts| {
            sample::answers(facts).checkup["shell"]["store_failure"] = "no space".into();
        });
        let expected = "problem: nothing can be written to it any more: no space";
        assert!(failed.contains(&expected.to_owned()), "{failed:?}");
        let unread = said(|facts| facts.home.keeping = Err("the file is damaged".into()));
        assert!(unread.contains(&"problem: the file is damaged".to_owned()), "{unread:?}");
        for (keeping, expected) in [
            (Keeping::Passphrase, "ok: under a passphrase"),
            (Keeping::Keychain, "ok: in the desktop's keychain"),
            (Keeping::Credential, "ok: under a secret that systemd hands over"),
        ] {
            assert!(said(|facts| facts.home.keeping = Ok(keeping)).contains(&expected.to_owned()));
        }
    }
}
