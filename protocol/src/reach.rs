//! How a node can be reached from outside, as its network found out.
//!
//! It goes from a node's network to its core and is never sent; what others are told of it stands in
//! presence.

use crate::id::DeviceId;

/// What the network knows of its own reach. Addresses are multiaddrs without this device's own id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Public addresses at which another member reached this node on its request (AutoNAT v2). A member that
    /// this node had spoken to before may have come through a hole that is closed to others, so it does not
    /// follow that everybody can.
    pub confirmed: Vec<String>,
    /// Under which addresses other members see this node, where they differ from those that it listens on.
    pub observed: Vec<String>,
    /// Public addresses that the router says it passes on to this node (UPnP).
    pub mapped: Vec<String>,
    /// Addresses that a person named (`weft up --announce`).
    pub announced: Vec<String>,
    /// Relays through which this node can be reached now.
    pub reservations: Vec<Reservation>,
    /// What it does as a relay for other members; `None`: it is none.
    pub service: Option<Service>,
    /// What stands between this node and the members that it dialled.
    pub nat: Nat,
    /// Why something does not work, the last reason of each part.
    pub troubles: Vec<Trouble>,
}

/// A place that a relay keeps for this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// The relay.
    pub relay: DeviceId,
    /// The addresses through it, which end in `/p2p-circuit`.
    pub addresses: Vec<String>,
}

/// What a relay does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Members that can be reached through it.
    pub reservations: usize,
    /// Connections between two members that it carries.
    pub circuits: usize,
}

/// What translates this node's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Nat {
    /// Nothing: it is seen under an address that it has.
    None,
    /// A router that gives it one public port for everybody, so that a direct connection can mostly be made.
    Steady,
    /// A router that gives it another public port for each peer (symmetric): with two of these only a
    /// relay is left.
    PerPeer,
    /// Fewer than two members outside have seen it.
    #[default]
    Unknown,
}

/// Why a part does not work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// Which.
    pub part: Part,
    /// In words.
    pub why: String,
}

/// A part of reach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// The router's mapping (UPnP).
    Mapping,
    /// That a member dials back (AutoNAT v2).
    DialBack,
    /// A place at a relay.
    Reservation,
    /// A direct connection in the place of a relayed one (DCUtR).
    Upgrade,
}
