//! Addresses with names: `/dns`, `/dns4` and `/dns6` are resolved by the system when they are dialled.
//!
//! The system's resolver is asked anew each time, so a machine that moved to another network uses that
//! network's, and what the machine's own list of hosts says holds. It is given [`RESOLVE_TIME`].
//!
//! What is dialled goes through here last, so here [`Vicinity`] is asked of each IP address, whether it was
//! named as such or a name led to it. Of a name's addresses it is asked only until enough are to be dialled:
//! to be allowed one may cost some of what is left for others.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId, Transport, TransportError,
    core::transport::{DialOpts, ListenerId, TransportEvent},
    multiaddr::Protocol,
};
use tokio::time::{sleep, timeout};

use crate::{address, vicinity::Vicinity};

/// How long the system has to resolve a name; without a network it may never answer.
const RESOLVE_TIME: Duration = Duration::from_secs(3);

/// IP addresses of one name that are dialled.
const IPS_MAX: usize = 6;

/// IP addresses of one name that are looked at, to find as many. A name has a handful; whoever runs one may give
/// it hundreds.
const IPS_ASKED_MAX: usize = 4 * IPS_MAX;

/// The head start of each IP address of a name before the next (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// A transport under which names are resolved.
#[derive(Debug)]
pub(crate) struct Names<T> {
    inner: Arc<Mutex<T>>,
    /// `None`: a person named what is dialled.
    vicinity: Option<Vicinity>,
}

impl<T> Names<T> {
    pub(crate) fn new(inner: T, vicinity: Option<Vicinity>) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), vicinity }
    }
}

/// Has an address dialled that begins with an IP address, for whom it names.
fn take_dial(address: &Multiaddr, vicinity: Option<&Vicinity>) -> io::Result<()> {
    match (address::socket(address), vicinity) {
        (Some((ip, port)), Some(vicinity)) => vicinity.take_dial(ip, port, peer(address)),
        // What is no IP address the transport below does not know.
        (None, _) | (_, None) => Ok(()),
    }
}

/// The device that is to be reached at an address: the swarm puts it at the end, whatever else is there.
fn peer(address: &Multiaddr) -> Option<PeerId> {
    if let Protocol::P2p(peer) = address.iter().last()? { Some(peer) } else { None }
}

/// What a name is resolved to.
#[derive(Clone, Copy, Debug)]
enum Family {
    Any,
    V4,
    V6,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "multiaddr's parts may grow; three are names")]
fn name(address: &Multiaddr) -> Option<(String, Family)> {
    match address.iter().next()? {
        Protocol::Dns(name) => Some((name.into_owned(), Family::Any)),
        Protocol::Dns4(name) => Some((name.into_owned(), Family::V4)),
        Protocol::Dns6(name) => Some((name.into_owned(), Family::V6)),
        _ => None,
    }
}

async fn resolve(name: &str, family: Family) -> io::Result<Vec<IpAddr>> {
    let found = timeout(RESOLVE_TIME, tokio::net::lookup_host((name, 0)))
        .await
        .map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("{name} was not resolved in time"))
        })?
        .map_err(|error| io::Error::other(format!("{name} was not resolved: {error}")))?;
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in found.map(|socket| socket.ip()) {
        let fits = match family {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        };
        if fits && !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    if ips.is_empty() {
        return Err(io::Error::other(format!("{name} has no address of that kind")));
    }
    Ok(ips)
}

/// Dials what a name led to, one after the other with a head start each, until one answers.
async fn dial_first<T>(
    inner: &Mutex<T>,
    vicinity: Option<&Vicinity>,
    address: &Multiaddr,
    ips: Vec<IpAddr>,
    opts: DialOpts,
) -> io::Result<T::Output>
where
    T: Transport,
    T::Error: Send + Sync + 'static,
{
    let mut last = io::Error::other("it has no address");
    let mut dials = FuturesUnordered::new();
    let mut after = Duration::ZERO;
    for ip in ips.into_iter().take(IPS_ASKED_MAX) {
        if dials.len() == IPS_MAX {
            break;
        }
        let Some(address) = address.replace(0, |_| Some(Protocol::from(ip))) else { continue };
        if let Err(refused) = take_dial(&address, vicinity) {
            last = refused;
            continue;
        }
        let dial = inner.lock().unwrap_or_else(PoisonError::into_inner).dial(address, opts);
        dials.push(async move {
            sleep(after).await;
            dial.map_err(io::Error::other)?.await.map_err(io::Error::other)
        });
        after += HEAD_START;
    }
    while let Some(dialled) = dials.next().await {
        match dialled {
            Ok(output) => return Ok(output),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl<T> Transport for Names<T>
where
    T: Transport + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::Output: 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = futures::future::MapErr<T::ListenerUpgrade, fn(T::Error) -> io::Error>;
    type Dial = BoxFuture<'static, Result<T::Output, io::Error>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.listen_on(id, address).map_err(|error| error.map(io::Error::other))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        let Some((name, family)) = name(&address) else {
            take_dial(&address, self.vicinity.as_ref()).map_err(TransportError::Other)?;
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            let dial = inner.dial(address, opts).map_err(|error| error.map(io::Error::other))?;
            return Ok(dial.map(|dialled| dialled.map_err(io::Error::other)).boxed());
        };
        let (inner, vicinity) = (Arc::clone(&self.inner), self.vicinity.clone());
        Ok(async move {
            let ips = resolve(&name, family).await?;
            dial_first(&inner, vicinity.as_ref(), &address, ips, opts).await
        }
        .boxed())
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *inner).poll(cx).map(|event| {
            event
                .map_upgrade(|upgrade| {
                    futures::TryFutureExt::map_err(upgrade, io::Error::other as fn(T::Error) -> _)
                })
                .map_err(io::Error::other)
        })
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::{Endpoint, transport::PortUse};

    use super::*;
    use crate::Reach;

    #[tokio::test]
    async fn a_name_of_this_machine_has_the_wanted_address_only() {
        let of = |family| async move { resolve("localhost", family).await };
        assert_eq!(of(Family::V4).await.unwrap(), [IpAddr::from([127, 0, 0, 1])]);
        assert!(of(Family::Any).await.unwrap().iter().all(IpAddr::is_loopback));
    }

    /// A transport that tells what it is to dial, and comes nowhere.
    #[derive(Debug, Default)]
    struct Told(Vec<Multiaddr>);

    impl Transport for Told {
        type Output = ();
        type Error = io::Error;
        type ListenerUpgrade = std::future::Ready<io::Result<()>>;
        type Dial = std::future::Ready<io::Result<()>>;

        fn listen_on(
            &mut self,
            _: ListenerId,
            _: Multiaddr,
        ) -> Result<(), TransportError<io::Error>> {
            Ok(())
        }

        fn remove_listener(&mut self, _: ListenerId) -> bool {
            false
        }

        fn dial(
            &mut self,
            address: Multiaddr,
            _: DialOpts,
        ) -> Result<Self::Dial, TransportError<io::Error>> {
            self.0.push(address);
            Ok(std::future::ready(Err(io::Error::other("nobody is there"))))
        }

        fn poll(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
            Poll::Pending
        }
    }

    /// What is dialled for `text`, and why it came to nothing.
    async fn dialled(text: &str, reach: Option<Reach>) -> (Vec<String>, String) {
        let mut names = Names::new(Told::default(), reach.map(Vicinity::new));
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
        let why = match names.dial(text.parse().unwrap(), opts) {
            Ok(dial) => dial.await.unwrap_err().to_string(),
            Err(TransportError::Other(error)) => error.to_string(),
            Err(TransportError::MultiaddrNotSupported(_)) => unreachable!("{text}"),
        };
        let told = names.inner.lock().unwrap().0.iter().map(ToString::to_string).collect();
        (told, why)
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_not_dialled_for_others() {
        for (text, at) in [
            ("/dns4/localhost/tcp/9", "/ip4/127.0.0.1/tcp/9"),
            ("/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/9"),
        ] {
            let nobody = (vec![at.to_owned()], "nobody is there".to_owned());
            assert_eq!(dialled(text, None).await, nobody, "a person named it");
            assert_eq!(dialled(text, Some(Reach::Loopback)).await, nobody, "{text}");
            let (told, why) = dialled(text, Some(Reach::Lan)).await;
            assert_eq!(told, [""; 0], "{text}");
            assert!(why.contains("this very machine"), "{why}");
        }
        let (told, _) = dialled("/ip4/203.0.113.7/udp/9/quic-v1", Some(Reach::Lan)).await;
        assert_eq!(told, ["/ip4/203.0.113.7/udp/9/quic-v1"]);
    }

    #[tokio::test]
    async fn a_name_with_many_addresses_takes_no_more_than_are_dialled() {
        let told = Mutex::new(Told::default());
        let vicinity = Vicinity::nowhere();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
        let dial = async |network: u8, of: Option<PeerId>| {
            let name: Multiaddr = "/dns4/a.example/tcp/9".parse().unwrap();
            let name = of.map_or_else(|| name.clone(), |of| name.clone().with(Protocol::P2p(of)));
            // What is refused whoever asks, then more than are left for all.
            let near = (1..=4).map(|host| IpAddr::from([127, 0, 0, host]));
            let far = (1..=24).map(|host| IpAddr::from([10, network, 0, host]));
            let ips = near.chain(far).collect();
            // All are asked about before the first answers; none of these does.
            dial_first(&told, Some(&vicinity), &name, ips, opts).now_or_never();
            told.lock().unwrap().0.drain(..).map(|it| address::ip(&it).unwrap()).collect()
        };
        let of = |network: u8, hosts: u8| -> Vec<IpAddr> {
            (1..=hosts).map(|host| IpAddr::from([10, network, 0, host])).collect()
        };
        let none: Vec<IpAddr> = dial(1, None).await;
        assert_eq!(none, of(1, 6));
        // Of one device they are no more than its share, however many names it gives.
        let wrong = PeerId::random();
        let its: [Vec<IpAddr>; 3] =
            [dial(3, Some(wrong)).await, dial(4, Some(wrong)).await, dial(5, Some(wrong)).await];
        assert_eq!(its, [of(3, 6), of(4, 6), of(5, 0)]);
        let others: Vec<IpAddr> = dial(6, Some(PeerId::random())).await;
        assert_eq!(others, of(6, 6), "what is left for all");
    }

    #[tokio::test]
    async fn of_a_name_with_hundreds_of_addresses_few_are_looked_at() {
        let told = Mutex::new(Told::default());
        let vicinity = Vicinity::nowhere();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
        let name = "/dns4/a.example/tcp/9".parse().unwrap();
        let refused = (1..=u8::MAX).map(|host| IpAddr::from([127, 0, 0, host]));
        let ips = refused.take(IPS_ASKED_MAX).chain([IpAddr::from([203, 0, 113, 7])]).collect();
        let why = dial_first(&told, Some(&vicinity), &name, ips, opts).await.unwrap_err();
        assert!(why.to_string().contains("this very machine"), "{why}");
        assert_eq!(told.lock().unwrap().0, []);
    }

    #[test]
    fn only_the_first_part_is_a_name() {
        let named = |text: &str| name(&text.parse().unwrap()).map(|(name, _)| name);
        assert_eq!(named("/dns4/a.example/tcp/1").as_deref(), Some("a.example"));
        assert_eq!(named("/ip4/192.0.2.1/tcp/1"), None);
    }
}
