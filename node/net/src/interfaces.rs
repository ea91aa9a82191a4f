//! The machine's own interfaces: when a way to the others may have come back.
//!
//! The swarm's listeners tell of addresses that are new. A cable that is out for a moment, or a
//! machine that slept, leaves the address as it was; what tells of that is the link, or the
//! default route. Systems repeat themselves (a wireless card with each scan, a router with each
//! advertisement), so only what was not so before counts.

use std::{collections::BTreeSet, net::IpAddr};

/// What the system tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// An interface carries packets, or does not.
    Link {
        /// The system's number for it.
        interface: u32,
        /// Whether it does.
        is_up: bool,
    },
    /// An interface has an address that may be used, or lost it.
    Address {
        /// The interface's number.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// Whether it has it.
        is_there: bool,
    },
    /// There is a default route, or it is gone.
    Route(Route, bool),
    /// The system had more to tell than was heard.
    Missed,
}

/// A default route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Route {
    /// The interface's number.
    pub(crate) interface: u32,
    /// Whether it is one of IPv6.
    pub(crate) is_v6: bool,
    /// The router; `None` on a link that needs none.
    pub(crate) gateway: Option<IpAddr>,
}

/// What is there now, as far as the system told. It begins with nothing, so what is first heard of
/// counts as having come.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    up: BTreeSet<u32>,
    addresses: BTreeSet<(u32, IpAddr)>,
    routes: BTreeSet<Route>,
}

impl Interfaces {
    /// Takes what the system tells; whether a way to the others may have come back by it.
    pub(crate) fn handle_input(&mut self, change: Change) -> bool {
        match change {
            Change::Link { interface, is_up: true } => self.up.insert(interface),
            Change::Link { interface, is_up: false } => {
                self.up.remove(&interface);
                // Linux drops the routes over it without a word, and tells when they are set again.
                self.routes.retain(|route| route.interface != interface);
                false
            }
            Change::Address { interface, address, is_there: true } => {
                self.addresses.insert((interface, address))
            }
            Change::Address { interface, address, is_there: false } => {
                self.addresses.remove(&(interface, address));
                false
            }
            Change::Route(route, true) => self.routes.insert(route),
            Change::Route(route, false) => {
                self.routes.remove(&route);
                false
            }
            Change::Missed => {
                *self = Self::default();
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route { interface: 2, is_v6: false, gateway: None };

    fn link(is_up: bool) -> Change {
        Change::Link { interface: 2, is_up }
    }

    fn address(is_there: bool) -> Change {
        Change::Address { interface: 2, address: [192, 0, 2, 1].into(), is_there }
    }

    #[track_caller]
    fn check(changes: &[(Change, bool)]) {
        let mut interfaces = Interfaces::default();
        for (n, (change, returned)) in changes.iter().enumerate() {
            assert_eq!(interfaces.handle_input(change.clone()), *returned, "{n}: {change:?}");
        }
    }

    #[test]
    fn a_link_that_comes_back_counts_once() {
        check(&[
            (link(false), false),
            (link(true), true),
            (link(true), false),
            (link(false), false),
            (link(true), true),
            (Change::Link { interface: 3, is_up: true }, true),
        ]);
    }

    #[test]
    fn an_address_that_is_only_told_again_does_not_count() {
        check(&[
            (address(true), true),
            (address(true), false),
            (address(false), false),
            (address(true), true),
        ]);
    }

    #[test]
    fn a_default_route_counts_again_after_its_link_was_down() {
        check(&[
            (Change::Route(ROUTE, true), true),
            (Change::Route(ROUTE, true), false),
            (link(true), true),
            (link(false), false),
            (Change::Route(ROUTE, true), true),
            (Change::Route(ROUTE, false), false),
            (Change::Route(ROUTE, true), true),
            (Change::Route(Route { is_v6: true, ..ROUTE }, true), true),
        ]);
    }

    #[test]
    fn after_something_was_missed_all_that_is_told_counts() {
        check(&[
            (link(true), true),
            (Change::Missed, true),
            (link(true), true),
            (link(true), false),
        ]);
    }
}
