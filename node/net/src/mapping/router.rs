//! The router, as it is asked: what is mapped, for how long, and that it forgets it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;
use igd_next::AddPortError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    Port,
    gateway::{Found, Gateway, NoGateway, search},
    leases::{Answer, LEASE, Leases, Outcome},
};
use crate::address::{self, Scope};

/// How often a router is searched for in one round: the question goes to all, and so is easily lost.
const SEARCHES: usize = 3;

/// How long a router has for an answer. Many are slow.
const ANSWERED: Duration = Duration::from_secs(5);

/// So much of a reason is told.
const REASON_CHARS_MAX: usize = 120;

/// What a person who looks into the router finds there.
const NAME: &str = "weft";

/// The router that answered last, if one did.
#[derive(Debug)]
pub(super) struct Router {
    search_at: SocketAddr,
    gateway: Option<Gateway>,
}

impl Router {
    /// Knows none. Routers hear the search at that address.
    pub(super) fn new(search_at: SocketAddr) -> Self {
        Self { search_at, gateway: None }
    }

    /// From now on routers hear the search there.
    #[cfg(test)]
    pub(super) fn search_at(&mut self, at: SocketAddr) {
        self.search_at = at;
    }

    /// One round: searches for it and asks for these ports, until it is over. What the router is being asked for
    /// then it is waited for, and told: else nobody would know what is to be taken back.
    pub(super) async fn ask(
        &mut self,
        ports: &BTreeSet<Port>,
        leases: &Leases,
        over: &CancellationToken,
    ) -> Answer {
        let found = over.run_until_cancelled(self.find()).await;
        let (router, inside, outside) = match found {
            Some(Ok(found)) => found,
            Some(Err(answer)) => return answer,
            None => return Answer::Nothing("the question is out of date"),
        };
        let mut outcomes = BTreeMap::new();
        for port in ports {
            let Some(gateway) = self.gateway.as_ref().filter(|_| !over.is_cancelled()) else {
                break;
            };
            let wanted = leases.preferred(*port, router, inside);
            outcomes.insert(*port, add(gateway, *port, wanted, inside).await);
        }
        Answer::Asked { router, inside, outside, ports: outcomes }
    }

    /// Searches for it; gives where it is, this machine's address on its network, and its public one. Can be
    /// dropped while it waits.
    async fn find(&mut self) -> Result<(IpAddr, Ipv4Addr, IpAddr), Answer> {
        let known = self.gateway.as_ref().map(|it| it.addr.ip());
        let mut found = Err(NoGateway::Silent);
        for _ in 0..SEARCHES {
            found = search(self.search_at, known).await;
            if found.is_ok() {
                break;
            }
        }
        let Found { gateway, inside } = match found {
            Ok(found) => found,
            Err(NoGateway::Silent) => {
                return Err(Answer::Nothing("no router answers that does UPnP"));
            }
            Err(NoGateway::Elsewhere) => {
                return Err(Answer::Nothing("what answers as a router is elsewhere"));
            }
        };
        let router = gateway.addr.ip();
        let gateway = self.gateway.insert(gateway);
        let Ok(Ok(outside)) = timeout(ANSWERED, gateway.get_external_ip()).await else {
            return Err(Answer::Nothing("the router does not say its public address"));
        };
        match address::scope(outside) {
            Scope::Public => Ok((router, inside, outside)),
            Scope::Private | Scope::Loopback | Scope::Nobody => Err(Answer::NotPublic { router }),
        }
    }

    /// Has it forget some of what it was asked to do, all at once. What another one was asked is out of reach.
    pub(super) async fn take_back(&self, gone: Vec<(Port, IpAddr, u16)>) {
        let Some(gateway) = &self.gateway else { return };
        let own = gone.into_iter().filter(|(_, router, _)| *router == gateway.addr.ip());
        let removed = own.map(|(port, _, outside)| async move {
            let removed = gateway.remove_port(port.protocol(), outside);
            if let Ok(Err(error)) = timeout(ANSWERED, removed).await {
                tracing::debug!(?port, %error, "the router does not take it back");
            }
        });
        join_all(removed).await;
    }
}

/// Has a port mapped, from that one outside if nobody else has it.
async fn add(gateway: &Gateway, port: Port, wanted: u16, inside: Ipv4Addr) -> Outcome {
    let to = SocketAddr::new(inside.into(), port.number());
    let lease = u32::try_from(LEASE.as_secs()).expect("it is minutes");
    let silent = || Outcome::Failed("the router does not answer".to_owned());
    // Some know no leases: theirs end when they are taken back.
    for lease in [lease, 0] {
        let added = gateway.add_port(port.protocol(), wanted, to, lease, NAME);
        match timeout(ANSWERED, added).await {
            Ok(Ok(())) => return Outcome::Mapped(wanted),
            Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) if lease != 0 => {}
            Ok(Err(AddPortError::PortInUse)) => {
                let added = gateway.add_any_port(port.protocol(), to, lease, NAME);
                return match timeout(ANSWERED, added).await {
                    Ok(Ok(got)) => Outcome::Mapped(got),
                    Ok(Err(error)) => Outcome::Taken(shortened(&error)),
                    Err(_) => Outcome::Taken("the router has no other port".to_owned()),
                };
            }
            Ok(Err(error)) => return Outcome::Failed(shortened(&error)),
            Err(_) => return silent(),
        }
    }
    Outcome::Failed("the router does not know what it wants".to_owned())
}

/// What a router said is anything at all.
fn shortened(error: &dyn std::error::Error) -> String {
    let said = error.to_string();
    said.chars().filter(|it| !it.is_control()).take(REASON_CHARS_MAX).collect()
}
