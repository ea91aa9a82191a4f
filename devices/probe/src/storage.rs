//! How much room is left on the disk that a folder lies on.

use std::path::Path;

/// Room for this user's files, in bytes, coarsely.
pub(crate) fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(coarse(disk.f_bavail.saturating_mul(disk.f_frsize)))
}

/// Rounded down to the three leading bits, so by at most a quarter: what is written all the time moves
/// it seldom.
fn coarse(bytes: u64) -> u64 {
    let shift = (u64::BITS - bytes.leading_zeros()).saturating_sub(3);
    bytes >> shift << shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn room_is_told_coarsely() {
        assert_eq!(coarse(0), 0);
        assert_eq!(coarse(7), 7);
        assert_eq!(coarse(58_173_000_000), 51_539_607_552, "48 GiB");
        assert_eq!(coarse(u64::MAX), 7 << 61);
    }

    proptest! {
        #[test]
        fn never_more_than_there_is_nor_less_than_three_quarters(bytes: u64) {
            let told = coarse(bytes);
            prop_assert!(told <= bytes && bytes - told <= bytes / 4);
            prop_assert_eq!(coarse(told), told);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_room() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(free(&folder.path().join("none")), None);
        assert!(free(folder.path()).is_some());
    }
}
