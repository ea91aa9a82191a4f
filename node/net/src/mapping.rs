//! The router's mapping: a task that has the router at home pass on what comes for this node from outside
//! (UPnP's Internet Gateway Device).
//!
//! A round searches for the router, asks for its public address and has each port mapped for [`LEASE`]. The
//! next round is before half of that is over, so that a router that was restarted, another one and another
//! public address are found alike; where none answers, it is later each time. When it ends it takes back what
//! it had mapped: else the router would send that to whoever has this address next. Not here: which addresses
//! are told ([`reach`](crate::reach)), IPv6, NAT-PMP and PCP.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use futures::future::join_all;
use igd_next::{
    AddPortError, PortMappingProtocol, SearchOptions,
    aio::tokio::{Tokio, search_gateway},
};
use libp2p::{Multiaddr, multiaddr::Protocol as Part};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::address::{self, Scope};

type Gateway = igd_next::aio::Gateway<Tokio>;

/// For how long a port is mapped: what a node leaves behind that was killed, its router forgets soon.
const LEASE: Duration = Duration::from_secs(20 * 60);

/// When a port that is mapped is mapped anew.
const RENEWED: Duration = Duration::from_secs(LEASE.as_secs() / 2 - 30);

/// When it is tried again where no router did it, first and at last: many never will.
const RETRIED: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(30 * 60)];

/// How far rounds are apart for which there is no more than a doubt: behind a second way out, as a VPN, it
/// never ends.
const DOUBTED: Duration = Duration::from_secs(60);

/// How often a router is searched for in one round: the question goes to all, and so is easily lost.
const SEARCHES: usize = 3;

/// How long it has to answer that, of which it may let three seconds pass (UPnP Device Architecture 1.0,
/// section 1.2.2, `MX`).
const SEARCHED: Duration = Duration::from_secs(4);

/// How long a router has for anything else. Many are slow.
const ANSWERED: Duration = Duration::from_secs(5);

/// How long the end waits for the router to forget.
const TAKEN_BACK: Duration = Duration::from_secs(1);

/// So much of a reason is told.
const REASON_CHARS_MAX: usize = 120;

/// What a person who looks into the router finds there.
const NAME: &str = "weft";

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

/// When the next round is.
#[derive(Debug)]
struct Rounds {
    last: Option<Instant>,
    due: Instant,
    failed: u32,
}

impl Rounds {
    fn heard(&mut self, old: &Wish, new: &Wish, now: Instant) {
        if old.ports != new.ports || old.moved != new.moved {
            self.failed = 0;
            self.due = now;
        } else if old.doubts != new.doubts {
            self.due = self.due.min(self.last.map_or(now, |last| (last + DOUBTED).max(now)));
        }
    }

    fn ended(&mut self, is_mapped: bool, now: Instant) {
        let [first, most] = RETRIED;
        let wait = if is_mapped {
            RENEWED
        } else {
            first.saturating_mul(1 << self.failed.min(16)).min(most)
        };
        self.failed = if is_mapped { 0 } else { self.failed + 1 };
        self.last = Some(now);
        self.due = now + wait;
    }
}

async fn run(
    search_at: SocketAddr,
    mut wishes: watch::Receiver<Wish>,
    says: watch::Sender<Said>,
    ends: CancellationToken,
) {
    let mut router = Router { search_at, gateway: None, held: BTreeMap::new() };
    let mut wish = Wish::default();
    let mut rounds = Rounds { last: None, due: Instant::now(), failed: 0 };
    loop {
        tokio::select! {
            biased;
            () = ends.cancelled() => break,
            changed = wishes.changed() => {
                if changed.is_err() {
                    break;
                }
                let new = wishes.borrow_and_update().clone();
                rounds.heard(&wish, &new, Instant::now());
                wish = new;
            }
            () = sleep_until(rounds.due), if !wish.ports.is_empty() || !router.held.is_empty() => {
                let said = tokio::select! {
                    biased;
                    () = ends.cancelled() => break,
                    said = router.map(&wish.ports) => said,
                };
                tracing::debug!(?said, "asked the router");
                rounds.ended(said.is_ok(), Instant::now());
                let said = match said {
                    Ok(mapped) => Said { mapped, trouble: None },
                    Err(why) => Said { mapped: BTreeSet::new(), trouble: Some(why) },
                };
                // Also where nothing is new: who moved has forgotten.
                says.send_replace(said);
            }
        }
    }
    router.take_back(|_| true).await;
}

/// The router, and what it was asked to do.
struct Router {
    search_at: SocketAddr,
    gateway: Option<Gateway>,
    /// Its port outside for each of this node's, and this machine's address then.
    held: BTreeMap<Port, (u16, Ipv4Addr)>,
}

impl Router {
    /// One round; says the addresses that are mapped, at least one, or why there is none.
    async fn map(&mut self, ports: &BTreeSet<Port>) -> Result<BTreeSet<Multiaddr>, String> {
        self.take_back(|port| !ports.contains(&port)).await;
        if ports.is_empty() {
            return Ok(BTreeSet::new());
        }
        let gateway = self.search().await.ok_or("no router answers that does UPnP")?;
        if self.gateway.as_ref().is_some_and(|it| it.addr.ip() != gateway.addr.ip()) {
            // What another one was asked is out of reach.
            self.held.clear();
        }
        let inside = facing(gateway.addr, self.search_at);
        let inside = inside.ok_or("what answers as a router is elsewhere")?;
        let gateway = self.gateway.insert(gateway);
        let outside = timeout(ANSWERED, gateway.get_external_ip()).await;
        let outside = outside.map_err(|_| "the router does not say its public address")?;
        let outside = outside.map_err(|error| shortened(&error))?;
        if address::scope(outside) != Scope::Public {
            return Err("the router has no public address itself".to_owned());
        }
        let mut mapped = BTreeSet::new();
        let mut trouble = None;
        for port in ports {
            // A port that the router chose is kept.
            let last = self.held.remove(port).filter(|(_, at)| *at == inside);
            let wanted = last.map_or(port.number(), |(outside, _)| outside);
            match add(gateway, *port, wanted, inside).await {
                Ok(got) => {
                    self.held.insert(*port, (got, inside));
                    mapped.insert(port.address(outside, got));
                }
                Err(why) => trouble = Some(why),
            }
        }
        match trouble {
            Some(why) if mapped.is_empty() => Err(why),
            Some(_) | None => Ok(mapped),
        }
    }

    async fn search(&self) -> Option<Gateway> {
        for _ in 0..SEARCHES {
            let options = SearchOptions {
                broadcast_address: self.search_at,
                timeout: Some(SEARCHED),
                ..SearchOptions::default()
            };
            match search_gateway(options).await {
                Ok(gateway) => return Some(gateway),
                Err(error) => tracing::debug!(%error, "no router"),
            }
        }
        None
    }

    /// Has it forget some of what it was asked to do, all at once.
    async fn take_back(&mut self, which: impl Fn(Port) -> bool) {
        let gone: Vec<_> = self.held.extract_if(.., |port, _| which(*port)).collect();
        let Some(gateway) = &self.gateway else { return };
        let removed = gone.into_iter().map(|(port, (outside, _))| async move {
            let removed = gateway.remove_port(port.protocol(), outside);
            if let Ok(Err(error)) = timeout(ANSWERED, removed).await {
                tracing::debug!(?port, %error, "the router does not take it back");
            }
        });
        join_all(removed).await;
    }
}

/// Has a port mapped, from that one outside if nobody else has it; says from which.
async fn add(gateway: &Gateway, port: Port, wanted: u16, inside: Ipv4Addr) -> Result<u16, String> {
    let to = SocketAddr::new(inside.into(), port.number());
    let lease = u32::try_from(LEASE.as_secs()).expect("it is minutes");
    // Some know no leases: theirs end when they are taken back.
    for lease in [lease, 0] {
        let added = gateway.add_port(port.protocol(), wanted, to, lease, NAME);
        match timeout(ANSWERED, added).await {
            Ok(Ok(())) => return Ok(wanted),
            Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) if lease != 0 => {}
            Ok(Err(AddPortError::PortInUse)) => {
                let added = gateway.add_any_port(port.protocol(), to, lease, NAME);
                let added = timeout(ANSWERED, added).await;
                let added = added.map_err(|_| "the router does not answer")?;
                return added.map_err(|error| shortened(&error));
            }
            Ok(Err(error)) => return Err(shortened(&error)),
            Err(_) => return Err("the router does not answer".to_owned()),
        }
    }
    Err("the router does not know what it wants".to_owned())
}

/// What a router said is anything at all.
fn shortened(error: &dyn std::error::Error) -> String {
    let said = error.to_string();
    said.chars().filter(|it| !it.is_control()).take(REASON_CHARS_MAX).collect()
}

/// This machine's address on the router's network, if that is one at home. Nobody else is asked to do anything,
/// whatever the answer to the search says: neither who is public, nor what runs on this machine, unless the
/// search itself goes there.
fn facing(router: SocketAddr, search_at: SocketAddr) -> Option<Ipv4Addr> {
    // Nothing is sent; the kernel chooses as it would.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(router).ok()?;
    let IpAddr::V4(inside) = socket.local_addr().ok()?.ip() else { return None };
    let near = if search_at.ip().is_loopback() { Scope::Loopback } else { Scope::Private };
    let is_near = [inside.into(), router.ip()].into_iter().all(|ip| address::scope(ip) == near);
    is_near.then_some(inside)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use super::*;

    const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

    /// A router on this machine: what it says of itself, what it refuses, and what it maps. Of the rest of
    /// UPnP it knows nothing.
    #[derive(Debug)]
    struct Igd {
        outside: &'static str,
        /// The error's code for a port and a lease.
        refuses: fn(u16, u32) -> Option<u16>,
        /// The lease of each protocol and port.
        mapped: BTreeMap<(String, u16), u32>,
    }

    impl Igd {
        /// Starts one, and says where it hears the search.
        async fn start(
            outside: &'static str,
            refuses: fn(u16, u32) -> Option<u16>,
        ) -> (Arc<Mutex<Self>>, SocketAddr) {
            let igd = Arc::new(Mutex::new(Self { outside, refuses, mapped: BTreeMap::new() }));
            let searched = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let asked = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (search_at, at) = (searched.local_addr().unwrap(), asked.local_addr().unwrap());
            tokio::spawn(async move {
                let mut question = [0; 1024];
                while let Ok((_, from)) = searched.recv_from(&mut question).await {
                    let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{at}/root\r\n\r\n");
                    searched.send_to(answer.as_bytes(), from).await.unwrap();
                }
            });
            let serves = Arc::clone(&igd);
            tokio::spawn(async move {
                while let Ok((stream, _)) = asked.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&serves)));
                }
            });
            (igd, search_at)
        }

        fn answer(&mut self, question: &str) -> String {
            let of = |name: &str| {
                let (_, rest) = question.split_once(&format!("<{name}>"))?;
                Some(rest.split_once('<')?.0.to_owned())
            };
            let number = |name: &str| of(name).and_then(|it| it.parse::<u32>().ok()).unwrap_or(0);
            let port = u16::try_from(number("NewExternalPort")).unwrap();
            let key = (of("NewProtocol").unwrap_or_default(), port);
            let (action, inner) = if question.contains("GetExternalIPAddress") {
                let ip = self.outside;
                let inner = format!("<NewExternalIPAddress>{ip}</NewExternalIPAddress>");
                ("GetExternalIPAddress", inner)
            } else if question.contains("DeletePortMapping") {
                self.mapped.remove(&key);
                ("DeletePortMapping", String::new())
            } else {
                let lease = number("NewLeaseDuration");
                if let Some(code) = (self.refuses)(port, lease) {
                    return format!(
                        "<E><Body><Fault><detail><UPnPError><errorCode>{code}</errorCode>\
                         <errorDescription>no</errorDescription></UPnPError></detail></Fault></Body></E>"
                    );
                }
                self.mapped.insert(key, lease);
                ("AddPortMapping", String::new())
            };
            format!("<E><Body><{action}Response>{inner}</{action}Response></Body></E>")
        }

        fn ports(igd: &Mutex<Self>) -> BTreeMap<(String, u16), u32> {
            igd.lock().unwrap().mapped.clone()
        }
    }

    async fn serve(mut stream: TcpStream, igd: Arc<Mutex<Igd>>) {
        let arguments = |of: &[&str]| -> String {
            let argument = |name: &&str| {
                format!("<argument><name>{name}</name><direction>in</direction></argument>")
            };
            of.iter().map(argument).collect()
        };
        let mut question = String::new();
        loop {
            let mut part = [0; 4096];
            let Ok(length @ 1..) = stream.read(&mut part).await else { return };
            question.push_str(std::str::from_utf8(&part[..length]).unwrap());
            let whole = question.starts_with("GET") && question.contains("\r\n\r\n")
                || question.contains(":Envelope>");
            if whole {
                break;
            }
        }
        let answer = if question.starts_with("GET /root") {
            format!(
                "<root><device><serviceList><service><serviceType>{SERVICE}</serviceType>\
                 <controlURL>/do</controlURL><SCPDURL>/can</SCPDURL></service></serviceList></device></root>"
            )
        } else if question.starts_with("GET /can") {
            let action = |name: &str, arguments: &str| {
                format!(
                    "<action><name>{name}</name><argumentList>{arguments}</argumentList></action>"
                )
            };
            let place = ["NewExternalPort", "NewProtocol"];
            let all = [&place[..], &["NewInternalPort", "NewInternalClient", "NewLeaseDuration"]];
            format!(
                "<scpd><actionList>{}{}</actionList></scpd>",
                action("AddPortMapping", &arguments(&all.concat())),
                action("DeletePortMapping", &arguments(&place)),
            )
        } else {
            igd.lock().unwrap().answer(&question)
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await.unwrap();
    }

    fn addresses(of: &[&str]) -> BTreeSet<Multiaddr> {
        of.iter().map(|it| it.parse().unwrap()).collect()
    }

    /// What is said after the first round of a node with one port of each kind.
    async fn first(search_at: SocketAddr) -> (Mapping, Said) {
        let mut mapping = Mapping::searching(search_at);
        mapping.want([Port::Quic(4001), Port::Tcp(4001)].into());
        let said = mapping.changed().await;
        (mapping, said)
    }

    #[tokio::test]
    async fn what_is_mapped_is_told_and_taken_back_at_the_end() {
        let (igd, at) = Igd::start("203.0.113.9", |_, _| None).await;
        let (mut mapping, said) = first(at).await;
        let both = ["/ip4/203.0.113.9/udp/4001/quic-v1", "/ip4/203.0.113.9/tcp/4001"];
        assert_eq!(said, Said { mapped: addresses(&both), trouble: None });
        let lease = u32::try_from(LEASE.as_secs()).unwrap();
        let held = [("TCP".to_owned(), 4001), ("UDP".to_owned(), 4001)].map(|it| (it, lease));
        assert_eq!(Igd::ports(&igd), held.into());
        // Another public address, on another network.
        igd.lock().unwrap().outside = "203.0.113.10";
        mapping.moved();
        let both = ["/ip4/203.0.113.10/udp/4001/quic-v1", "/ip4/203.0.113.10/tcp/4001"];
        assert_eq!(mapping.changed().await.mapped, addresses(&both));
        mapping.want([Port::Tcp(4001)].into());
        assert_eq!(mapping.changed().await.mapped, addresses(&both[1..]));
        assert_eq!(Igd::ports(&igd).len(), 1);
        mapping.end().await;
        assert_eq!(Igd::ports(&igd), BTreeMap::new());
    }

    #[tokio::test]
    async fn a_port_that_another_device_has_is_mapped_from_another() {
        let (igd, at) = Igd::start("203.0.113.9", |port, _| (port == 4001).then_some(718)).await;
        let (mut mapping, said) = first(at).await;
        let ports =
            || -> BTreeSet<u16> { Igd::ports(&igd).into_keys().map(|(_, it)| it).collect() };
        let told = |said: &Said| -> BTreeSet<u16> {
            said.mapped.iter().filter_map(|it| Some(address::socket(it)?.1)).collect()
        };
        assert_eq!(said.mapped.len(), 2);
        assert!(!ports().contains(&4001));
        assert_eq!(told(&said), ports());
        // It is kept.
        mapping.moved();
        assert_eq!(mapping.changed().await, said);
        mapping.end().await;
        assert_eq!(ports(), BTreeSet::new());
    }

    #[tokio::test]
    async fn a_router_without_leases_maps_for_good_until_the_end() {
        let (igd, at) = Igd::start("203.0.113.9", |_, lease| (lease > 0).then_some(725)).await;
        let (mapping, said) = first(at).await;
        assert_eq!(said.mapped.len(), 2);
        assert_eq!(Igd::ports(&igd).into_values().collect::<Vec<_>>(), [0, 0]);
        mapping.end().await;
        assert_eq!(Igd::ports(&igd), BTreeMap::new());
    }

    #[tokio::test]
    async fn why_nothing_is_mapped_is_told() {
        let (_igd, at) = Igd::start("100.64.3.4", |_, _| None).await;
        let (_mapping, said) = first(at).await;
        let why = said.trouble.as_deref();
        assert_eq!(why, Some("the router has no public address itself"));
        let (_igd, at) = Igd::start("203.0.113.9", |_, _| Some(606)).await;
        let (_mapping, said) = first(at).await;
        assert!(said.mapped.is_empty());
        assert!(said.trouble.is_some_and(|it| it.contains("not authorized")));
        // Nobody is there.
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (_mapping, said) = first(silent.local_addr().unwrap()).await;
        assert_eq!(said.trouble.as_deref(), Some("no router answers that does UPnP"));
    }

    #[test]
    fn nobody_is_asked_but_a_router_at_home() {
        let multicast = SearchOptions::default().broadcast_address;
        for elsewhere in ["127.0.0.1:80", "203.0.113.1:80", "[::1]:80"] {
            assert_eq!(facing(elsewhere.parse().unwrap(), multicast), None, "{elsewhere}");
        }
    }

    #[test]
    fn ports_are_those_of_listeners_behind_a_router() {
        let of = |text: &str| Port::of(&text.parse().unwrap());
        assert_eq!(of("/ip4/192.168.1.10/udp/4001/quic-v1"), Some(Port::Quic(4001)));
        assert_eq!(of("/ip4/10.1.2.3/tcp/4002"), Some(Port::Tcp(4002)));
        for other in ["/ip4/127.0.0.1/tcp/1", "/ip4/203.0.113.1/tcp/1", "/ip6/fd00::1/tcp/1"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn rounds_are_seldom_and_later_each_time_that_nobody_answers() {
        let start = Instant::now();
        let mut rounds = Rounds { last: None, due: start, failed: 0 };
        let mut waits = Vec::new();
        for _ in 0..9 {
            rounds.ended(false, start);
            waits.push((rounds.due - start).as_secs());
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1_800, 1_800, 1_800]);
        let (old, mut new) = (Wish::default(), Wish::default());
        new.doubts += 1;
        rounds.heard(&old, &new, start);
        assert_eq!(rounds.due, start + DOUBTED);
        rounds.ended(true, start);
        assert_eq!(rounds.due, start + RENEWED);
        assert!(RENEWED + ANSWERED * 4 + SEARCHED * 3 < LEASE);
        new.moved += 1;
        rounds.heard(&old, &new, start);
        assert_eq!((rounds.due, rounds.failed), (start, 0));
    }
}
