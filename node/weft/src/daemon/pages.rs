//! Memory that a start or a burst of work leaves behind, and that a node at rest gives back.
//!
//! Two kinds of it: pages of the program's own file, which the kernel maps a whole neighbourhood of at a
//! time, mostly code that only a start or a command needs; and memory that the allocator keeps although
//! nothing is in it. The first stay in the system's cache, so the next command finds them there: mapping
//! them again costs it a fraction of a millisecond. Libraries are left alone: they come and go.

use std::{fs, path::Path};

/// A mapping of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mapping {
    start: usize,
    len: usize,
    is_given_back: bool,
}

/// Gives back what nothing needs now.
pub(super) fn give_back() {
    let Ok(program) = fs::read_link("/proc/self/exe") else { return };
    let Ok(smaps) = fs::read_to_string("/proc/self/smaps") else { return };
    for mapping in mappings(&smaps, &program).filter(|mapping| mapping.is_given_back) {
        unmap(&mapping);
    }
    trim();
}

/// The mappings in the text of `/proc/self/smaps`. Those are given back that show the program's file, can't
/// be written, and hold no page that was, nor lent one to the swap: each of their pages is in the file as it
/// is in memory.
fn mappings(smaps: &str, program: &Path) -> impl Iterator<Item = Mapping> {
    let mut found = Vec::new();
    for line in smaps.lines() {
        if let Some(mapping) = head(line, program) {
            found.push(mapping);
        } else if let Some(mapping) = found.last_mut()
            && let Some((field, kibibytes)) = line.split_once(':')
            && matches!(field, "Anonymous" | "Swap")
        {
            mapping.is_given_back &= kibibytes.trim() == "0 kB";
        }
    }
    found.into_iter()
}

/// A mapping's first line: `559dd7a6c000-559dda4c1000 r-xp 00ee2000 fe:00 1234  /usr/bin/weft`.
fn head(line: &str, program: &Path) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |word| usize::from_str_radix(word, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let access = words.next()?;
    let path = line.find('/').map(|at| &line[at..]);
    let is_program = words.nth(2).is_some_and(|inode| inode != "0")
        && path.is_some_and(|path| Path::new(path) == program);
    let is_given_back = is_program && matches!(access, "r-xp" | "r--p");
    Some(Mapping { start, len: end.checked_sub(start)?, is_given_back })
}

#[cfg(target_os = "linux")]
fn unmap(mapping: &Mapping) {
    use rustix::mm::{Advice, madvise};

    let start = std::ptr::without_provenance_mut(mapping.start);
    // SAFETY: the mapping is private, of the program's own file, can't be written, and has no page that
    // was, in memory or in the swap: what is read from it next comes from the file, which is what was there,
    // since a program that runs can't be written to. The loader never takes it away, so nothing else can have
    // come to its place.
    let given_back = unsafe { madvise(start, mapping.len, Advice::LinuxDontNeed) };
    if let Err(error) = given_back {
        tracing::debug!(%error, "pages of a file stay mapped");
    }
}

#[cfg(not(target_os = "linux"))]
fn unmap(_: &Mapping) {}

/// Has the allocator give its empty pages back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes the allocator's own locks, and nothing else is asked of its caller.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_nobody_wrote_to_are_given_back() {
        let one = |head: &str, anonymous: u32| {
            let text = format!(
                "{head}\nSize:  8 kB\nRss:  8 kB\nAnonymous:  {anonymous} kB\nVmFlags: rd ex\n"
            );
            let found: Vec<_> = mappings(&text, Path::new("/usr/bin/we ft")).collect();
            let [mapping] = &found[..] else { panic!("{found:?}") };
            assert_eq!((mapping.start, mapping.len), (0x1000, 0x2000), "{head}");
            mapping.is_given_back
        };
        assert!(one("1000-3000 r-xp 00000000 fe:00 12   /usr/bin/we ft", 0));
        assert!(one("1000-3000 r--p 00000000 fe:00 12   /usr/bin/we ft", 0));
        for (head, anonymous) in [
            ("1000-3000 r--p 00000000 fe:00 12   /usr/bin/we ft", 4),
            ("1000-3000 r-xp 00000000 fe:00 12   /usr/lib/libc.so.6", 0),
            ("1000-3000 rw-p 00000000 fe:00 12   /usr/bin/we ft", 0),
            ("1000-3000 r--s 00000000 fe:00 12   /usr/bin/we ft", 0),
            ("1000-3000 r-xp 00000000 00:00 0    [vdso]", 0),
            ("1000-3000 r-xp 00000000 00:00 0 ", 0),
            ("1000-3000 r-xp 00000000 00:00 0    [anon: /x]", 0),
        ] {
            assert!(!one(head, anonymous), "{head}, {anonymous} kB");
        }
        let swapped = "1000-3000 r--p 00000000 fe:00 12   /p\nAnonymous:  0 kB\nSwap:  8 kB\n";
        assert!(mappings(swapped, Path::new("/p")).all(|mapping| !mapping.is_given_back));
        let none = |text| mappings(text, Path::new("/p")).count();
        assert_eq!(none("") + none("Anonymous: 0 kB\nodd-line\n"), 0);
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
        // Touches the whole program once.
        let program = fs::read_link("/proc/self/exe").unwrap();
        let touched = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut sum = 0_u64;
        for mapping in mappings(&touched, &program).filter(|mapping| mapping.is_given_back) {
            for page in (0..mapping.len).step_by(4096) {
                let address = std::ptr::without_provenance::<u8>(mapping.start + page);
                // SAFETY: it is mapped and can be read.
                sum += u64::from(unsafe { address.read_volatile() });
            }
        }
        let before = of_files();
        give_back();
        let after = of_files();
        assert!(sum > 0 && after < before / 2, "{before} KiB, then {after} KiB");
        // All of it is still there.
        let again = mappings(&touched, &program).filter(|mapping| mapping.is_given_back);
        let read = again.flat_map(|mapping| {
            (0..mapping.len).step_by(4096).map(move |page| {
                let address = std::ptr::without_provenance::<u8>(mapping.start + page);
                // SAFETY: as above.
                u64::from(unsafe { address.read_volatile() })
            })
        });
        assert_eq!(read.sum::<u64>(), sum);
    }
}
