//! Files that are none, words that are too many, homes that are taken.

use std::{fs, os::unix::fs::PermissionsExt as _};

use expect_test::{Expect, expect};
use weft_e2e::{Device, Fabric, fixture, is_root, not_run};

fn check(device: &Device, words: &[&str], expected: Expect) {
    let said = device.run(words);
    assert!(!said.stderr.contains("panicked"), "{said}");
    expected.assert_eq(&said.to_string());
}

#[test]
fn a_file_that_is_none_is_named() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    laptop.write("fake.pdf", "This is no PDF, whatever its name says.\n");
    laptop.write("empty.pdf", "");
    laptop.write("letter", "Dear Ada\n");
    laptop.write("cut.pdf", &fs::read(fixture("report.pdf")).expect("the report")[..3_000]);
    laptop.write("large.txt", vec![b'a'; 40 << 20]);
    laptop
        .write("noise.pdf", [b"%PDF-1.7\n".as_slice(), &[0xff, 0x00, 0x28].repeat(4_000)].concat());
    for name in ["locked.pdf", "drawing.pdf", "letters.pdf"] {
        laptop.write(name, fs::read(fixture(name)).expect("it lies in the repository"));
    }
    fs::create_dir(fabric.folder().join("papers.pdf")).expect("a folder");
    let [laptop] = &mut *fabric;

    check(
        laptop,
        &["do", "show fake.pdf"],
        expect![[r#"
            $ weft do "show fake.pdf"
            ! error: fake.pdf is no PDF, although it is called so
            (exit 6)
        "#]],
    );
    check(
        laptop,
        &["do", "show empty.pdf"],
        expect![[r#"
            $ weft do "show empty.pdf"
            ! error: empty.pdf is no PDF, although it is called so
            (exit 6)
        "#]],
    );
    check(
        laptop,
        &["do", "show cut.pdf"],
        expect![[r#"
            $ weft do "show cut.pdf"
            ! error: cut.pdf is only a part of a PDF: its end is missing
            (exit 6)
        "#]],
    );
    check(
        laptop,
        &["do", "show noise.pdf"],
        expect![[r#"
            $ weft do "show noise.pdf"
            ! error: noise.pdf is a damaged PDF: failed parsing cross reference table
            (exit 6)
        "#]],
    );
    check(
        laptop,
        &["do", "show locked.pdf"],
        expect![[r#"
            $ weft do "show locked.pdf"
            ! error: locked.pdf is locked with a password
            (exit 6)
        "#]],
    );
    check(
        laptop,
        &["do", "show drawing.pdf"],
        expect![[r#"
            $ weft do "show drawing.pdf"
            ! error: drawing.pdf holds no text; it may be a scan
            (exit 6)
        "#]],
    );
    check(
        laptop,
        &["do", "show letters.pdf"],
        expect![[r#"
        $ weft do "show letters.pdf"
        Straße, naïve façade
        Αθήνα — Київ — “quoted” …
        first second third
    "#]],
    );
    check(
        laptop,
        &["do", "show missing.pdf"],
        expect![[r#"
        $ weft do "show missing.pdf"
        ! error: failed to read missing.pdf: there is no such file here
        (exit 13)
    "#]],
    );
    check(
        laptop,
        &["do", "show letter"],
        expect![[r#"
        $ weft do "show letter"
        ! error: the words were not understood; nothing ran
        ! hint: to name the file letter, say ./letter
        ! hint: the nearest commands are:
        !     show report.pdf
        !     list notes
        !     list my timers
        (exit 4)
    "#]],
    );
    check(
        laptop,
        &["do", "show ./letter"],
        expect![[r#"
        $ weft do "show ./letter"
        Dear Ada
    "#]],
    );
    check(
        laptop,
        &["do", "show papers.pdf"],
        expect![[r#"
        $ weft do "show papers.pdf"
        ! error: failed to read papers.pdf: it is a folder
        ! hint: name a file in it
        (exit 2)
    "#]],
    );
    check(
        laptop,
        &["do", "show large.txt"],
        expect![[r#"
        $ weft do "show large.txt"
        ! error: failed to read large.txt: it has 40 MiB, and the files of a command may have 32 MiB together
        (exit 2)
    "#]],
    );
    check(
        laptop,
        &["do", "summarize missing.pdf"],
        expect![[r#"
        $ weft do "summarize missing.pdf"
        ! error: failed to read missing.pdf: there is no such file here
        (exit 13)
    "#]],
    );
    // No device here has a model.
    check(
        laptop,
        &["do", "summarize letters.pdf"],
        expect![[r#"
        $ weft do "summarize letters.pdf"
        ! error: no device can do text.summarize now (laptop: no device that is here has llm.generate)
        (exit 6)
    "#]],
    );

    laptop.note("none of it hurt");
    laptop.verify();
}

#[test]
fn words_that_are_too_many_or_odd_are_answered() {
    let mut fabric = Fabric::pair(["laptop"]);
    let [laptop] = &mut *fabric;
    // A long note is kept whole; one that is too long is refused, and nothing of it is kept.
    let long = ["word"; 380].join(" ");
    laptop.note(&long);
    assert_eq!(laptop.notes(), [long]);
    for words in [format!("note that {}", ["word"; 1_000].join(" ")), "xy zz ".repeat(900)] {
        let said = laptop.run(&["do", &words]);
        assert!(matches!(said.code, Some(2 | 4)), "{said}");
        assert_eq!(said.stdout, "", "{said}");
    }
    assert_eq!(laptop.notes().len(), 1);
    for words in ["", " ", "\n", "note that", "\u{1b}[2J", "🦀🦀🦀"] {
        let said = laptop.run(&["do", words]);
        assert!(!said.stderr.contains("panicked"), "{said}");
        assert!(!said.stderr.contains('\u{1b}'), "{said:?}");
        assert!(matches!(said.code, Some(2 | 4)), "{words:?}: {said}");
    }
    laptop.note("still here");
}

#[test]
fn without_a_running_node_each_command_says_run_weft_up() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    check(
        laptop,
        &["do", "note that x"],
        expect![[r#"
        $ weft do "note that x"
        ! error: no node is running in …/laptop
        ! hint: run weft up
        (exit 3)
    "#]],
    );
    for words in [
        &["status"][..],
        &["devices"],
        &["device", "revoke", "phone", "--yes"],
        &["do", "--plan", "x"],
        &["run", "list"],
        &["run", "show"],
        &["agents"],
        &["notes"],
        &["notes", "search", "x"],
        &["timers"],
        &["audit", "list"],
        &["audit", "verify"],
        &["policy", "check", "x"],
        &["model", "status"],
        &["invite", "--yes"],
        &["events"],
    ] {
        let said = laptop.run(words);
        assert_eq!(said.code, Some(3), "{said}");
        assert_eq!(said.stdout, "", "{said}");
        assert!(said.stderr.contains("run weft up"), "{said}");
    }
    laptop.up();
    check(
        laptop,
        &["up"],
        expect![[r#"
        $ weft up
        ! error: a node is already running in …/laptop
        ! hint: weft status shows it
        (exit 2)
    "#]],
    );
    assert_eq!(laptop.run(&["status"]).code, Some(0), "the first one goes on");
}

#[test]
fn a_home_that_may_not_be_opened_is_named() {
    let mut fabric = Fabric::new(["laptop"]);
    let [laptop] = &mut *fabric;
    assert_eq!(laptop.run(&["init", "--name", "laptop"]).code, Some(0));
    if !is_root() {
        fs::set_permissions(laptop.home(), fs::Permissions::from_mode(0o000)).expect("it is ours");
    }
    for words in [&["up"][..], &["status"], &["init", "--name", "x"]] {
        let running = if is_root() {
            // Root may do everything; somebody else may not.
            let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
            laptop.start_under("setpriv", &nobody, words)
        } else {
            Some(laptop.start(words))
        };
        let Some(running) = running else {
            return not_run("this machine has no setpriv(1) to become somebody else with");
        };
        let said = running.end();
        assert!(!said.stderr.contains("panicked"), "{said}");
        assert!(matches!(said.code, Some(1 | 3 | 5)), "{said}");
        assert!(said.stderr.contains("ermission denied"), "{said}");
    }
    if !is_root() {
        fs::set_permissions(laptop.home(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    }
}
