//! How far each device's clock is off is told of the device whose it is.

use weft_core::door::DeviceView;

use crate::{look::Seen, network::SECOND, world::World};

/// A record lies under way for so long at most before it is heard: two slow links' worth.
const UNDER_WAY_MS: i64 = 8_000;
/// What comes of counting in milliseconds.
const ROUNDED_MS: i64 = 5;

impl World {
    /// What a node shows of another's clock: how far apart the two were since its own was set last, and how
    /// far they are if both were left alone for long.
    pub(crate) fn shows_clock(
        &self,
        at: usize,
        view: &DeviceView,
        seen: &Seen,
        is_known: bool,
    ) -> Result<(), String> {
        let Some(contact) = seen.contact(&view.id) else { return Ok(()) };
        let mut others = self.hosts.iter().filter(|host| host.id == view.id && !host.set_back);
        let Some(other) = others.next().filter(|_| others.next().is_none()) else { return Ok(()) };
        let host = &self.hosts[at];
        let Some(ahead) = contact.ahead_ms else {
            return if is_known {
                Err("with a clock that it never told".to_owned())
            } else {
                Ok(())
            };
        };
        let (own, theirs) = if is_known {
            (vec![host.clock.skew], vec![other.clock.skew])
        } else {
            let since = host.clock.set.map_or(host.started, |(set, _)| set);
            let under_way = since.saturating_sub(UNDER_WAY_MS as u64 * 1_000);
            (host.clock.since(since).collect(), other.clock.since(under_way).collect())
        };
        let apart: Vec<i64> =
            own.iter().flat_map(|own| theirs.iter().map(move |theirs| theirs - own)).collect();
        let fits = |apart: &i64| (apart - UNDER_WAY_MS..=apart + ROUNDED_MS).contains(&ahead);
        if apart.iter().any(fits) {
            Ok(())
        } else {
            Err(format!("with a clock {ahead} ms ahead, not any of {apart:?}"))
        }
    }

    /// What a node shows of its own clock: when and by how much it was set while the node ran.
    pub(crate) fn shows_own_clock(&self, at: usize, seen: &Seen) -> Result<(), String> {
        let host = &self.hosts[at];
        let shown = seen.checkup.clock_set.map(|it| it.forward_ms);
        let so = host.clock.set.map(|(_, forward)| forward);
        let is_so = match (shown, so) {
            (Some(shown), Some(so)) => (shown - so).abs() <= ROUNDED_MS,
            (shown, so) => shown.is_none() && so.is_none(),
        };
        if seen.checkup.time != host.now(self.time).wall {
            return Err("with another time".to_owned());
        }
        if is_so { Ok(()) } else { Err(format!("as set forward by {shown:?} ms, not {so:?}")) }
    }
}

/// How long clocks must be left alone until the newest words of all tell how they stand: four records, one a
/// minute, and the way.
pub(crate) const TOLD_WITHIN: u64 = 4 * 60 * SECOND + 10 * SECOND;
