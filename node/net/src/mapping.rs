//! The router's mapping: a task that has the router at home pass on what comes for this node from outside
//! (UPnP's Internet Gateway Device).
//!
//! A round searches for the router, asks for its public address and has each port mapped for
//! [`LEASE`](leases::LEASE). The next round is before half of that is over, so that a router that was restarted,
//! another one and another public address are found alike; where none answers, it is later each time, and what
//! was mapped stands meanwhile ([`leases`]). When it ends it takes back what it had mapped: else the router would
//! send that to whoever has this address next. Not here: which addresses are told ([`reach`](crate::reach)),
//! IPv6, NAT-PMP and PCP.

mod leases;
mod router;
mod gateway;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use igd_next::{PortMappingProtocol, SearchOptions};
use libp2p::{Multiaddr, multiaddr::Protocol as Part};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{leases::Leases, router::Router};
use crate::address::{self, Scope};

/// How long the end waits for the router to forget.
const TAKEN_BACK: Duration = Duration::from_secs(1);

/// A port at which this node listens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Port {
    /// QUIC, over UDP.
    Quic(u16),
    /// TCP.
    Tcp(u16),
}

impl Port {
    /// That of a listener which only a router can make public: of IPv4, at an address that is not public.
    pub(crate) fn of(listener: &Multiaddr) -> Option<Self> {
        let (ip, port) = address::socket(listener)?;
        let is_inside = ip.is_ipv4() && address::scope(ip) == Scope::Private;
        if !is_inside || address::is_relayed(listener) {
            return None;
        }
        let is_quic = listener.iter().any(|part| part == Part::QuicV1);
        Some(if is_quic { Self::Quic(port) } else { Self::Tcp(port) })
    }

    const fn number(self) -> u16 {
        match self {
            Self::Quic(port) | Self::Tcp(port) => port,
        }
    }

    const fn protocol(self) -> PortMappingProtocol {
        match self {
            Self::Quic(_) => PortMappingProtocol::UDP,
            Self::Tcp(_) => PortMappingProtocol::TCP,
        }
    }

    /// Where it is reached from outside.
    fn address(self, outside: IpAddr, port: u16) -> Multiaddr {
        let host = Multiaddr::from(outside);
        match self {
            Self::Quic(_) => host.with(Part::Udp(port)).with(Part::QuicV1),
            Self::Tcp(_) => host.with(Part::Tcp(port)),
        }
    }
}

/// How it stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Said {
    /// The public addresses that the router passes on.
    pub(crate) mapped: BTreeSet<Multiaddr>,
    /// Where there is none: why.
    pub(crate) trouble: Option<String>,
}

/// What the task is told, as counts of what happened.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Wish {
    ports: BTreeSet<Port>,
    moved: u64,
    doubts: u64,
}

/// The task. Dropping it has it take back what is mapped, for which nobody waits.
#[derive(Debug)]
pub(crate) struct Mapping {
    wish: watch::Sender<Wish>,
    said: watch::Receiver<Said>,
    task: JoinHandle<()>,
    ends: CancellationToken,
}

impl Mapping {
    /// Starts it, within a runtime. It asks nobody until it is told of a port.
    pub(crate) fn new() -> Self {
        Self::searching(SearchOptions::default().broadcast_address)
    }

    /// The same, where routers hear at another address.
    fn searching(at: SocketAddr) -> Self {
        let (wish, wishes) = watch::channel(Wish::default());
        let (says, said) = watch::channel(Said::default());
        let ends = CancellationToken::new();
        let task = tokio::spawn(run(at, wishes, says, ends.clone()));
        Self { wish, said, task, ends }
    }

    /// This node listens at these ports now.
    pub(crate) fn want(&self, ports: BTreeSet<Port>) {
        self.wish.send_if_modified(|wish| {
            let is_new = wish.ports != ports;
            wish.ports = ports;
            is_new
        });
    }

    /// Another network: what was mapped is of the last one.
    pub(crate) fn moved(&self) {
        self.wish.send_modify(|wish| wish.moved += 1);
    }

    /// Somebody saw this node elsewhere than at what is mapped.
    pub(crate) fn doubt(&self) {
        self.wish.send_modify(|wish| wish.doubts += 1);
    }

    /// How it stands, after each round. Can be dropped while it waits.
    pub(crate) async fn changed(&mut self) -> Said {
        if self.said.changed().await.is_err() {
            // The task ends when it is told to, and then nobody asks; a panic of it is no reason to go round.
            std::future::pending::<()>().await;
        }
        self.said.borrow_and_update().clone()
    }

    /// Has it take back what is mapped, from this call on; ends when it has, or [`TAKEN_BACK`] is over.
    pub(crate) fn end(self) -> impl Future<Output = ()> {
        self.ends.cancel();
        async move {
            // A router that is slow forgets by itself.
            timeout(TAKEN_BACK, self.task).await.ok();
        }
    }
}

async fn run(
    search_at: SocketAddr,
    mut wishes: watch::Receiver<Wish>,
    says: watch::Sender<Said>,
    ends: CancellationToken,
) {
    let mut router = Router::new(search_at);
    let mut leases = Leases::new(Instant::now());
    let mut wish = Wish::default();
    loop {
        let wakes = leases.poll_timeout(Instant::now());
        tokio::select! {
            biased;
            () = ends.cancelled() => break,
            changed = wishes.changed() => {
                if changed.is_err() {
                    break;
                }
                let new = wishes.borrow_and_update().clone();
                heard(&wish, &new, &mut leases);
                wish = new;
            }
            () = sleep_until(wakes), if !wish.ports.is_empty() || !leases.is_empty() => {
                if leases.is_due(Instant::now()) {
                    tokio::select! {
                        biased;
                        () = ends.cancelled() => break,
                        () = round(&mut router, &mut leases, &wish.ports) => {}
                    }
                }
                // Also where nothing is new: who moved has forgotten.
                says.send_replace(leases.said(Instant::now()));
            }
        }
    }
    router.take_back(leases.give_up(|_| true)).await;
}

fn heard(old: &Wish, new: &Wish, leases: &mut Leases) {
    let now = Instant::now();
    if old.moved != new.moved {
        leases.moved(now);
    } else if old.ports != new.ports {
        leases.wanted(now);
    } else if old.doubts != new.doubts {
        leases.doubted(now);
    }
}

/// Has the router forget ports that are wanted no more, and map those that are.
async fn round(router: &mut Router, leases: &mut Leases, ports: &BTreeSet<Port>) {
    let asked = Instant::now();
    router.take_back(leases.give_up(|port| !ports.contains(&port))).await;
    if ports.is_empty() {
        return leases.rested(Instant::now());
    }
    let answer = router.ask(ports, leases).await;
    tracing::debug!(?answer, "asked the router");
    leases.answered(answer, ports, asked, Instant::now());
}
