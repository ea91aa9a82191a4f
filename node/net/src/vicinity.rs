//! Which IP addresses are dialled, whoever named them.
//!
//! Where to dial is said by others: in presence, by a name's records, by a device that wants a hole
//! punched. One that fell into wrong hands names what it likes, and whoever dials that looks around for it
//! where it is not itself. So the transport asks here before each dial, of each IP address. Public ones are
//! dialled, and those of the networks that this machine is in; never loopback, nor what is nobody's. Of a
//! private network that it is not in, a machine may still be routed to it (out of a container, from one
//! network of a house to another), which no table tells: a few such addresses are dialled, and others only
//! slowly, so that nobody's network is searched from here; and each device has no more than its share of them, so
//! that one that names many takes none from the rest. With [`Reach::Loopback`] loopback alone is
//! dialled.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use libp2p::PeerId;
use thiserror::Error;
use weft_protocol::time::Timestamp;

use crate::{
    Reach,
    address::{self, Scope},
    allowance::{Bucket, Rate},
};

/// Addresses of private networks that this machine is not in. Of a dozen devices each has one at home and
/// one for its containers; a network of 254 hosts would be searched for one port in most of a day.
const STRAYS: Rate = Rate::each_hour(24, 12);

/// Those of one device: half of all, so that one that names what it likes leaves the other half to the rest.
const STRAYS_OF_ONE: Rate = Rate::each_hour(12, 6);

/// Such addresses that are known and dialled again for nothing; the one that was dialled last is forgotten
/// last.
const STRAYS_MAX: usize = 64;

/// Why an address is not dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(crate) enum Refused {
    #[error("not dialled: it is this very machine's")]
    Loopback,
    #[error("not dialled: it is nobody's")]
    Nobody,
    #[error("not dialled: it is not this machine's, and nothing else is dialled from here")]
    Elsewhere,
    #[error(
        "not dialled: it is of a private network that this machine is not in, and too many are"
    )]
    Stray,
}

/// A network that an interface is in: an address there and how many of its bits all have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Network {
    ip: IpAddr,
    bits: u8,
}

impl Network {
    /// That of an interface, as the system says it. A tunnel's end has a network of its own alone: it stands
    /// for as much as is given to one site, so that the other ends are in it. And no interface is in
    /// everybody's network, whatever it says.
    pub(crate) fn of(ip: IpAddr, bits: u8) -> Self {
        let bits = match ip {
            IpAddr::V4(ip) if bits >= 31 => {
                // What tunnels share of a provider's network is all of it (RFC 6598).
                let is_providers = ip.octets()[0] == 100;
                if is_providers { 10 } else { 24 }
            }
            IpAddr::V4(_) => bits.max(8),
            // A site's prefix (RFC 4193, section 3).
            IpAddr::V6(_) if bits >= 127 => 48,
            IpAddr::V6(_) => bits.max(32),
        };
        Self { ip, bits }
    }

    fn contains(self, ip: IpAddr) -> bool {
        let differ = |one: u128, other: u128, width: u32| {
            (one ^ other).checked_shr(width - u32::from(self.bits)).unwrap_or(0) != 0
        };
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                !differ(u32::from(own).into(), u32::from(ip).into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => !differ(own.into(), ip.into(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The rules.
#[derive(Debug)]
pub(crate) struct Rules {
    reach: Reach,
    networks: Vec<Network>,
    strays: BTreeMap<(IpAddr, u16), Timestamp>,
    more_strays: Bucket,
    /// What each device has left of its share, of those that took some of it lately.
    shares: BTreeMap<PeerId, Bucket>,
}

impl Rules {
    pub(crate) fn new(reach: Reach, now: Timestamp) -> Self {
        Self {
            reach,
            networks: Vec::new(),
            strays: BTreeMap::new(),
            more_strays: Bucket::new(STRAYS, now),
            shares: BTreeMap::new(),
        }
    }

    /// Replaces the networks that this machine is in.
    pub(crate) fn set_networks(&mut self, networks: Vec<Network>) {
        self.networks = networks;
    }

    /// Has a port of `ip` dialled, to reach that device if it is known; takes of what is left, where that is
    /// little.
    ///
    /// # Errors
    ///
    /// It is not dialled, for that reason; then nothing was taken.
    pub(crate) fn take_dial(
        &mut self,
        ip: IpAddr,
        port: u16,
        of: Option<PeerId>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let ip = ip.to_canonical();
        match (self.reach, address::scope(ip)) {
            (_, Scope::Nobody) => Err(Refused::Nobody),
            (Reach::Loopback, Scope::Loopback) | (Reach::Lan, Scope::Public) => Ok(()),
            (Reach::Loopback, Scope::Private | Scope::Public) => Err(Refused::Elsewhere),
            (Reach::Lan, Scope::Loopback) => Err(Refused::Loopback),
            (Reach::Lan, Scope::Private) => {
                if self.networks.iter().any(|network| network.contains(ip)) {
                    return Ok(());
                }
                self.take_stray((ip, port), of, now)
            }
        }
    }

    fn take_stray(
        &mut self,
        stray: (IpAddr, u16),
        of: Option<PeerId>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if !self.strays.contains_key(&stray) {
            self.shares.retain(|_, share| !share.is_full(now));
            let share = of.map(|of| {
                let left = self.shares.get(&of).copied();
                (of, left.unwrap_or_else(|| Bucket::new(STRAYS_OF_ONE, now)))
            });
            // Of the one and of the other, or of neither.
            if let Some((of, mut share)) = share {
                if !share.take(now) || !self.more_strays.take(now) {
                    return Err(Refused::Stray);
                }
                self.shares.insert(of, share);
            } else if !self.more_strays.take(now) {
                return Err(Refused::Stray);
            }
            if self.strays.len() >= STRAYS_MAX
                && let Some(oldest) =
                    self.strays.iter().min_by_key(|(_, at)| **at).map(|(it, _)| *it)
            {
                self.strays.remove(&oldest);
            }
        }
        self.strays.insert(stray, now);
        Ok(())
    }
}

/// The rules, as the transport and the task that owns the swarm share them.
#[derive(Clone, Debug)]
pub(crate) struct Vicinity {
    started: Instant,
    rules: Arc<Mutex<Rules>>,
}

impl Vicinity {
    /// Looks around, see [`Self::look`].
    pub(crate) fn new(reach: Reach) -> Self {
        let rules = Arc::new(Mutex::new(Rules::new(reach, Timestamp::ZERO)));
        let vicinity = Self { started: Instant::now(), rules };
        vicinity.look();
        vicinity
    }

    /// That of a machine that is in no network.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let rules = Arc::new(Mutex::new(Rules::new(Reach::Lan, Timestamp::ZERO)));
        Self { started: Instant::now(), rules }
    }

    /// Asks the system anew which networks this machine is in. Where it does not say, what it said last holds.
    pub(crate) fn look(&self) {
        if self.rules().reach == Reach::Loopback {
            return;
        }
        let network = |interface: if_addrs::Interface| match interface.addr {
            if_addrs::IfAddr::V4(it) => Network::of(it.ip.into(), it.prefixlen),
            if_addrs::IfAddr::V6(it) => Network::of(it.ip.into(), it.prefixlen),
        };
        match if_addrs::get_if_addrs() {
            Ok(interfaces) => {
                self.rules().set_networks(interfaces.into_iter().map(network).collect());
            }
            Err(error) => tracing::info!(%error, "this machine's networks are not known"),
        }
    }

    /// Has a port of `ip` dialled now, to reach that device if it is known; see [`Rules::take_dial`].
    ///
    /// # Errors
    ///
    /// It is not dialled, for the reason inside.
    pub(crate) fn take_dial(&self, ip: IpAddr, port: u16, of: Option<PeerId>) -> io::Result<()> {
        let now = Timestamp::ZERO + self.started.elapsed();
        self.rules()
            .take_dial(ip, port, of, now)
            .map_err(|refused| io::Error::new(io::ErrorKind::PermissionDenied, refused))
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const AT: fn(u64) -> Timestamp = |seconds| Timestamp::ZERO + Duration::from_secs(seconds);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// At home, with a container's switch, a tunnel's two ends and one of a provider's network.
    fn at_home() -> Rules {
        let mut rules = Rules::new(Reach::Lan, AT(0));
        let networks = [
            ("127.0.0.1", 8),
            ("::1", 128),
            ("192.168.1.10", 24),
            ("fe80::10", 64),
            ("fd77:1:2:3::10", 64),
            ("10.7.0.2", 32),
            ("fd99:1:2::2", 128),
            ("100.101.102.103", 32),
        ];
        rules.set_networks(networks.map(|(own, bits)| Network::of(ip(own), bits)).to_vec());
        rules
    }

    #[test]
    fn what_is_public_or_near_is_dialled_as_often_as_it_is_named() {
        let mut rules = at_home();
        for near in [
            "203.0.113.7",
            "198.51.100.7",
            "2001:db8::7",
            "64:ff9b::cb00:7107",
            "192.168.1.77",
            "::ffff:192.168.1.77",
            "fe80::77",
            "fd77:1:2:3::77",
            "10.7.0.77",
            "fd99:1:2:77::7",
            "100.77.7.7",
        ] {
            for port in 0..1_000 {
                assert_eq!(rules.take_dial(ip(near), port, None, AT(0)), Ok(()), "{near} {port}");
            }
        }
    }

    #[test]
    fn this_machine_and_what_is_nobodys_are_never_dialled_for_others() {
        let mut rules = at_home();
        for own in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert_eq!(rules.take_dial(ip(own), 1, None, AT(0)), Err(Refused::Loopback), "{own}");
        }
        for nobodys in ["0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.251", "::", "ff02::fb"] {
            assert_eq!(
                rules.take_dial(ip(nobodys), 1, None, AT(0)),
                Err(Refused::Nobody),
                "{nobodys}"
            );
        }
    }

    #[test]
    fn on_loopback_nothing_else_is_dialled() {
        let mut rules = Rules::new(Reach::Loopback, AT(0));
        assert_eq!(rules.take_dial(ip("127.0.0.1"), 1, None, AT(0)), Ok(()));
        assert_eq!(rules.take_dial(ip("::1"), 1, None, AT(0)), Ok(()));
        for other in ["203.0.113.7", "192.168.1.7", "fe80::7"] {
            assert_eq!(
                rules.take_dial(ip(other), 1, None, AT(0)),
                Err(Refused::Elsewhere),
                "{other}"
            );
        }
    }

    #[test]
    fn a_few_of_another_private_network_are_dialled_and_stay_so() {
        let mut rules = at_home();
        let first = ip("10.1.0.1");
        for host in 1..=24 {
            assert_eq!(rules.take_dial(IpAddr::from([10, 1, 0, host]), 1, None, AT(0)), Ok(()));
        }
        assert_eq!(rules.take_dial(ip("10.1.0.25"), 1, None, AT(0)), Err(Refused::Stray));
        // Another port is another one, and one that is known costs nothing.
        assert_eq!(rules.take_dial(first, 2, None, AT(0)), Err(Refused::Stray));
        assert_eq!(rules.take_dial(first, 1, None, AT(0)), Ok(()));
        assert_eq!(rules.take_dial(ip("10.1.0.25"), 1, None, AT(300)), Ok(()));
        // In that network it is near.
        rules.set_networks(vec![Network::of(ip("10.1.0.99"), 16)]);
        assert_eq!(rules.take_dial(ip("10.1.7.7"), 7, None, AT(300)), Ok(()));
    }

    #[test]
    fn the_one_that_was_not_dialled_for_longest_is_forgotten_first() {
        let mut rules = at_home();
        let stray = |n: u64| IpAddr::from([10, 1, 0, u8::try_from(n).unwrap()]);
        for n in 0..64 {
            assert_eq!(rules.take_dial(stray(n), 1, None, AT(n * 300)), Ok(()), "{n}");
        }
        assert_eq!(rules.take_dial(stray(0), 1, None, AT(64 * 300)), Ok(()));
        assert_eq!(rules.take_dial(stray(64), 1, None, AT(64 * 300)), Ok(()));
        assert_eq!(rules.strays.len(), STRAYS_MAX);
        assert!(rules.strays.contains_key(&(stray(0), 1)));
        assert!(!rules.strays.contains_key(&(stray(1), 1)));
    }

    #[test]
    fn one_device_leaves_the_others_their_share() {
        let mut rules = at_home();
        let (wrong, other) = (PeerId::random(), PeerId::random());
        let mut dialled = |of, n: u8, at| {
            let named = (1..=n).map(|host| IpAddr::from([10, at, 0, host]));
            named.filter(|ip| rules.take_dial(*ip, 1, Some(of), AT(0)).is_ok()).count()
        };
        assert_eq!(dialled(wrong, 200, 1), 12);
        assert_eq!(dialled(wrong, 200, 2), 0);
        assert_eq!(dialled(other, 4, 3), 4);
        // What is known costs its namer nothing.
        assert_eq!(dialled(wrong, 12, 1), 12);
        assert_eq!(dialled(wrong, 4, 3), 4);
        // In all it is no more for it, and whoever was refused for that still has its share.
        let all: usize = (1..=20).map(|at| dialled(PeerId::random(), 8, 100 + at)).sum();
        assert_eq!(all, 24 - 12 - 4);
        assert_eq!(rules.shares.len(), 3, "of those that took some");
        // A share that is whole again is not kept.
        assert_eq!(rules.take_dial(ip("10.9.9.9"), 1, Some(other), AT(7_200)), Ok(()));
        assert_eq!(rules.shares.len(), 1);
    }

    proptest! {
        /// Whatever others name, of networks that this machine is not in no more is dialled in an hour
        /// than the rate says, however long it goes on.
        #[test]
        fn no_network_is_searched(
            named in prop::collection::vec((any::<[u8; 2]>(), 0_u16..4, 0_u64..120), 1..400),
        ) {
            let mut rules = at_home();
            let (mut now, mut fresh) = (0, std::collections::BTreeSet::new());
            for ([c, d], port, wait) in named {
                now += wait;
                let stray = IpAddr::from([172, 16, c, d]);
                if rules.take_dial(stray, port, None, AT(now)).is_ok() {
                    fresh.insert((stray, port));
                }
                prop_assert!(rules.strays.len() <= STRAYS_MAX);
            }
            let most = u64::from(STRAYS.burst) + 12 * now / 3_600 + 1;
            prop_assert!(fresh.len() as u64 <= most, "{} in {now} s", fresh.len());
        }

        /// A network has those that share its bits, and no other.
        #[test]
        fn a_network_has_what_shares_its_bits(own: u32, other: u32, bits in 8_u8..31) {
            let network = Network::of(IpAddr::V4(own.into()), bits);
            let shares = own >> (32 - bits) == other >> (32 - bits);
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), shares);
            prop_assert!(network.contains(IpAddr::V4(own.into())));
        }
    }
}
