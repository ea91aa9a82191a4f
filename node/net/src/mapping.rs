//! The router's mapping: a task that has the router at home pass on what comes for this node from outside
//! (UPnP's Internet Gateway Device).
//!
//! A round searches for the router, asks for its public address and has each port mapped for
//! [`LEASE`](leases::LEASE). The next round is before half of that is over, so that a router that was restarted,
//! another one and another public address are found alike; where none answers, it is later each time, and what
//! was mapped stands meanwhile ([`leases`]). A round ends early where another network or other ports make it one
//! about the past, and of another network nothing is told that was found out on the last. When it ends it takes
//! back what it had mapped: else the router would send that to whoever has this address next.
//!
//! The task reads what anybody in a café answers, with libraries of others. Should one of them panic on that, it
//! is no reason for a node to end, that is otherwise well: it is told as a trouble, and the task begins anew after
//! [`RESTED`]. What it had mapped the router keeps until the lease ends.
//!
//! Not here: which addresses are told ([`reach`](crate::reach)), IPv6, NAT-PMP and PCP.

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

use futures::{FutureExt as _, future::BoxFuture};
use igd_next::{PortMappingProtocol, SearchOptions};
use libp2p::{Multiaddr, multiaddr::Protocol as Part};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{leases::Leases, router::Router};
use crate::address::{self, Scope};

/// How long it rests after a panic: as long as where no router ever answers.
const RESTED: Duration = Duration::from_secs(30 * 60);

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

impl Wish {
    /// Whether what is found out for it is of the past, now that this is wished.
    fn is_outdated(&self, new: &Self) -> bool {
        self.moved != new.moved || self.ports != new.ports
    }
}

/// How it stands, and on which network, as a count of those before it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told {
    moved: u64,
    said: Said,
}

/// The owner as the task sees it: what it wishes, where it is told, and when it wants an end.
#[derive(Debug)]
struct Owner {
    wishes: watch::Receiver<Wish>,
    says: watch::Sender<Told>,
    ends: CancellationToken,
}

/// The task. Dropping it has it take back what is mapped, for which nobody waits.
#[derive(Debug)]
pub(crate) struct Mapping {
    wish: watch::Sender<Wish>,
    said: watch::Receiver<Told>,
    /// `None`: it has ended.
    task: Option<JoinHandle<()>>,
    ends: CancellationToken,
    /// What the task does, and how long it rests after a panic.
    runs: fn(Owner, SocketAddr) -> BoxFuture<'static, ()>,
    search_at: SocketAddr,
    rested: Duration,
}

impl Mapping {
    /// Starts it, within a runtime. It asks nobody until it is told of a port.
    pub(crate) fn new() -> Self {
        Self::searching(SearchOptions::default().broadcast_address)
    }

    /// The same, where routers hear at another address.
    fn searching(search_at: SocketAddr) -> Self {
        Self::running(|owner, at| run(owner, at).boxed(), search_at, RESTED)
    }

    fn running(
        runs: fn(Owner, SocketAddr) -> BoxFuture<'static, ()>,
        search_at: SocketAddr,
        rested: Duration,
    ) -> Self {
        let (wish, wishes) = watch::channel(Wish::default());
        let (says, said) = watch::channel(Told::default());
        let ends = CancellationToken::new();
        let task = tokio::spawn(runs(Owner { wishes, says, ends: ends.clone() }, search_at));
        let task = Some(task);
        Self { wish, said, task, ends, runs, search_at, rested }
    }

    /// This node listens at these ports now.
    pub(crate) fn want(&self, ports: BTreeSet<Port>) {
        self.wish.send_if_modified(|wish| {
            let is_new = wish.ports != ports;
            wish.ports = ports;
            is_new
        });
    }

    /// Another network: what was mapped is of the last one, and is not told any more.
    pub(crate) fn moved(&self) {
        self.wish.send_modify(|wish| wish.moved += 1);
    }

    /// Somebody saw this node elsewhere than at what is mapped.
    pub(crate) fn doubt(&self) {
        self.wish.send_modify(|wish| wish.doubts += 1);
    }

    /// How it stands, after each round. Can be dropped while it waits.
    pub(crate) async fn changed(&mut self) -> Said {
        loop {
            if self.said.changed().await.is_ok() {
                let told = self.said.borrow_and_update().clone();
                if told.moved == self.wish.borrow().moved {
                    return told.said;
                }
                continue;
            }
            // Once it was told to end, nobody asks any more.
            let Some(task) = &mut self.task else { std::future::pending().await };
            let ended = task.await;
            self.task = None;
            if let Some(why) = panicked(ended) {
                self.begin_anew();
                return Said { mapped: BTreeSet::new(), trouble: Some(format!("stopped: {why}")) };
            }
        }
    }

    /// Has another task in the place of one that panicked, after a rest.
    fn begin_anew(&mut self) {
        let (says, said) = watch::channel(Told::default());
        self.said = said;
        let (ends, rested) = (self.ends.clone(), self.rested);
        let wishes = self.wish.subscribe();
        let again = (self.runs)(Owner { wishes, says, ends: ends.clone() }, self.search_at);
        self.task = Some(tokio::spawn(async move {
            if ends.run_until_cancelled(sleep(rested)).await.is_some() {
                again.await;
            }
        }));
    }

    /// Has it take back what is mapped, from this call on; ends when it has, or [`TAKEN_BACK`] is over.
    pub(crate) fn end(self) -> impl Future<Output = ()> {
        self.ends.cancel();
        async move {
            // A router that is slow forgets by itself.
            if let Some(task) = self.task
                && let Ok(ended) = timeout(TAKEN_BACK, task).await
            {
                panicked(ended);
            }
        }
    }
}

/// What the task said, if it ended with a panic.
fn panicked(ended: Result<(), JoinError>) -> Option<String> {
    let panic = ended.err()?.try_into_panic().ok()?;
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let why = text.unwrap_or("it does not say why").to_owned();
    tracing::warn!(%why, "the router's mapping stopped");
    Some(why)
}

async fn run(owner: Owner, search_at: SocketAddr) {
    let Owner { mut wishes, says, ends } = owner;
    let mut router = Router::new(search_at);
    let mut leases = Leases::new(Instant::now());
    let mut wish = Wish::default();
    loop {
        let new = wishes.borrow_and_update().clone();
        heard(&wish, &new, &mut leases);
        wish = new;
        let wakes = leases.poll_timeout(Instant::now());
        tokio::select! {
            biased;
            () = ends.cancelled() => break,
            changed = wishes.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            () = sleep_until(wakes), if !wish.ports.is_empty() || !leases.is_empty() => {
                if leases.is_due(Instant::now()) {
                    let over = ends.child_token();
                    tokio::join!(
                        async {
                            round(&mut router, &mut leases, &wish.ports, &over).await;
                            over.cancel();
                        },
                        over.run_until_cancelled(async {
                            outdated(&mut wishes, &wish).await;
                            over.cancel();
                        }),
                    );
                    if wish.is_outdated(&wishes.borrow()) {
                        continue;
                    }
                }
                // Also where nothing is new: who moved has forgotten.
                let said = leases.said(Instant::now());
                says.send_replace(Told { moved: wish.moved, said });
            }
        }
    }
    router.take_back(leases.give_up(|_| true)).await;
}

/// Ends when a round for a wish is about the past: the wish is another one, or nobody wishes any more.
async fn outdated(wishes: &mut watch::Receiver<Wish>, wish: &Wish) {
    // Whoever is gone wants an end too.
    wishes.wait_for(|new| wish.is_outdated(new)).await.ok();
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

/// Has the router forget ports that are wanted no more, and map those that are, until it is over.
async fn round(
    router: &mut Router,
    leases: &mut Leases,
    ports: &BTreeSet<Port>,
    over: &CancellationToken,
) {
    let asked = Instant::now();
    router.take_back(leases.give_up(|port| !ports.contains(&port))).await;
    if ports.is_empty() {
        return leases.rested(Instant::now());
    }
    let answer = router.ask(ports, leases, over).await;
    tracing::debug!(?answer, "asked the router");
    leases.answered(answer, ports, asked, Instant::now());
}
