//! Memory that a start or a burst of work leaves behind, and that a node at rest gives back.
//!
//! Two kinds of it: pages of the program's own file and of the libraries that it starts with, which the
//! kernel maps a whole neighbourhood of at a time, mostly code that only a start or a command needs; and
//! memory that the allocator keeps although nothing is in it. The first stay in the system's cache, so the
//! next command finds them there: mapping them again costs it a fraction of a millisecond. Libraries that
//! are loaded later are left alone: they come and go.

use std::fs;

/// What this process started with: files mapped by the loader, which stay where they are until it ends.
#[derive(Clone, Debug)]
pub(super) struct Pages(Vec<Mapping>);

/// A mapping of this process that shows a file and can't be written.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mapping {
    start: usize,
    len: usize,
    /// Which file, and where in it.
    shows: String,
}

impl Pages {
    /// Looks at the process. To be called before any library is loaded by name.
    pub(super) fn at_start() -> Self {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_else(|error| {
            tracing::debug!(%error, "no pages of files are given back");
            String::new()
        });
        Self(unwritten(&smaps))
    }

    /// Gives back what nothing needs now. What a debugger or a tracer wrote into the program's code since it
    /// started (a breakpoint, say) goes with it.
    pub(super) fn give_back(&self) {
        let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
        let there = maps.lines().filter_map(Head::read).filter_map(|head| head.mapping);
        for mapping in there.filter(|mapping| self.0.contains(mapping)) {
            unmap(&mapping);
        }
    }
}

/// The mappings in the text of `/proc/self/smaps` that show a file, can't be written, and hold no page that
/// was written to, nor lent one to the swap: each of their pages is in the file as it is in memory. The loader
/// writes before the program begins.
fn unwritten(smaps: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    for line in smaps.lines() {
        if let Some(Head { mapping }) = Head::read(line) {
            found.push(mapping);
        } else if let Some(mapping) = found.last_mut()
            && let Some((field, kibibytes)) = line.split_once(':')
            && matches!(field, "Anonymous" | "Swap")
            && kibibytes.trim() != "0 kB"
        {
            *mapping = None;
        }
    }
    found.into_iter().flatten().collect()
}

/// A mapping's first line: `559dd7a6c000-559dda4c1000 r-xp 00ee2000 fe:00 1234  /usr/bin/weft`.
struct Head {
    /// `None`: it shows no file, is shared, or can be written.
    mapping: Option<Mapping>,
}

impl Head {
    fn read(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |word| usize::from_str_radix(word, 16).ok();
        let (start, end) = (address(start)?, address(end)?);
        let (access, shows) = rest.split_once(' ')?;
        let is_file = shows.split_ascii_whitespace().nth(2).is_some_and(|inode| inode != "0");
        let is_clean = is_file && matches!(access, "r-xp" | "r--p");
        let shows = shows.to_owned();
        let mapping = Mapping { start, len: end.checked_sub(start)?, shows };
        Some(Self { mapping: is_clean.then_some(mapping) })
    }
}

#[cfg(target_os = "linux")]
fn unmap(mapping: &Mapping) {
    use rustix::mm::{Advice, madvise};

    let start = std::ptr::without_provenance_mut(mapping.start);
    // SAFETY: the mapping shows a file, is private, can't be written, and is the one that was there when the program
    // began, when none of its pages had been written to. So its pages are the system's own cache of that file, which
    // the system may drop at any time and fill again from the file.
    let given_back = unsafe { madvise(start, mapping.len, Advice::LinuxDontNeed) };
    if let Err(error) = given_back {
        tracing::debug!(%error, "pages of a file stay mapped");
    }
}

#[cfg(not(target_os = "linux"))]
fn unmap(_: &Mapping) {}

/// Has the allocator give its empty pages back: after work, which leaves many.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn trim() {
    // SAFETY: it takes the allocator's own locks, and nothing else is asked of its caller.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn trim() {}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn only_files_that_nobody_wrote_to_are_given_back() {
        let found = |head: &str, fields: &str| {
            unwritten(&format!("{head}\nSize:  8 kB\n{fields}VmFlags: rd ex\n"))
        };
        let clean = "Rss:  8 kB\nAnonymous:  0 kB\nSwap:  0 kB\n";
        for access in ["r-xp", "r--p"] {
            let shows = "00000000 fe:00 12   /usr/bin/we ft";
            let mapping = Mapping { start: 0x1000, len: 0x2000, shows: shows.to_owned() };
            assert_eq!(
                found(&format!("1000-3000 {access} {shows}"), clean),
                slice::from_ref(&mapping)
            );
            let moved = found(&format!("1000-3000 {access} {}", shows.replace("12", "13")), clean);
            assert_ne!(moved, [mapping], "another file came to its place");
        }
        for head in [
            "1000-3000 rw-p 00000000 fe:00 12   /usr/bin/weft",
            "1000-3000 r--s 00000000 fe:00 12   /usr/bin/weft",
            "1000-3000 r-xp 00000000 00:00 0    [vdso]",
            "1000-3000 r-xp 00000000 00:00 0 ",
            "1000-3000 r-xp 00000000 00:00 0    [anon: /x]",
        ] {
            assert_eq!(found(head, clean), [], "{head}");
        }
        for written in ["Anonymous:  4 kB\nSwap:  0 kB\n", "Anonymous:  0 kB\nSwap:  8 kB\n"] {
            assert_eq!(found("1000-3000 r--p 00000000 fe:00 12   /p", written), [], "{written}");
        }
        assert_eq!(unwritten(""), []);
        assert_eq!(unwritten("Anonymous: 0 kB\nodd-line\n"), []);
    }

    /// Memory of this process's files, in KiB.
    #[cfg(target_os = "linux")]
    fn of_files() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_program_goes_on_with_less_memory() {
        let pages = Pages::at_start();
        let read = || {
            let addresses = pages.0.iter().flat_map(|mapping| {
                (0..mapping.len).step_by(4096).map(|page| mapping.start + page)
            });
            addresses
                .map(|address| {
                    // SAFETY: it is mapped and can be read.
                    u64::from(unsafe {
                        std::ptr::without_provenance::<u8>(address).read_volatile()
                    })
                })
                .sum::<u64>()
        };
        let sum = read();
        let before = of_files();
        pages.give_back();
        let after = of_files();
        assert!(sum > 0 && after < before / 2, "{before} KiB, then {after} KiB");
        assert_eq!(read(), sum, "all of it is still there");
        let files: std::collections::BTreeSet<_> =
            pages.0.iter().filter_map(|mapping| mapping.shows.split_whitespace().last()).collect();
        assert!(files.len() > 1, "libraries, too: {files:?}");
    }
}
