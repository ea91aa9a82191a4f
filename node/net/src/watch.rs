//! Watching the machine: the task that notices when this node's own network may be back.
//!
//! On Linux the kernel tells of links, addresses and default routes over rtnetlink, and cancels a
//! timer when the machine has slept; between the two nothing wakes the task. Other systems
//! are watched by the swarm's listeners alone, which hear of addresses only.

use std::sync::Arc;

use tokio::sync::Notify;

/// Notifies each time that a way to the others may have come back, until it is dropped. What came
/// while nobody waited is one notice.
pub(crate) async fn watch(returned: Arc<Notify>) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    tokio::join!(linux::watch_links(&returned), linux::watch_sleep(&returned));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    drop(returned);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::{io, net::IpAddr, os::fd::OwnedFd, time::Duration};

    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    };
    use netlink_sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
    };
    use rustix::{
        io::Errno,
        time::{
            ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
            clock_gettime, timerfd_create, timerfd_settime,
        },
    };
    use tokio::{io::unix::AsyncFd, sync::Notify};

    use crate::interfaces::{Change, Interfaces, Route};

    /// The groups of rtnetlink that are heard, as `linux/rtnetlink.h` numbers them: links, and
    /// addresses and routes of both families.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

    /// The main routing table: default routes of others are not this node's way.
    const TABLE_MAIN: u8 = 254;

    /// The loopback interface's number in each namespace.
    const LOOPBACK: u32 = 1;

    /// A machine that stood still for less has not slept.
    const SLEPT_MIN: Duration = Duration::from_secs(1);

    /// When the timer would fire that is there to be cancelled: the year 2255, which the kernel's
    /// clock of 64 bits in nanoseconds still reaches.
    const NEVER: i64 = 9_000_000_000;

    pub(super) async fn watch_links(returned: &Notify) {
        // A container may forbid it; the addresses are still watched.
        if let Err(error) = hear(returned).await {
            tracing::info!(%error, "links are not watched");
        }
    }

    async fn hear(returned: &Notify) -> io::Result<()> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        let mut interfaces = Interfaces::default();
        loop {
            let changes = match socket.recv_from_full().await {
                // Only the kernel is 0.
                Ok((_, sender)) if sender.port_number() != 0 => continue,
                Ok((datagram, _)) => changes(&datagram),
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    vec![Change::Missed]
                }
                Err(error) => return Err(error),
            };
            for change in changes {
                if interfaces.handle_input(change.clone()) {
                    tracing::debug!(?change, "a way to the others may be back");
                    returned.notify_one();
                }
            }
        }
    }

    /// The changes in a datagram of rtnetlink; what does not read is left out.
    fn changes(mut datagram: &[u8]) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                changes.extend(change(message));
            }
            // Each message begins at a multiple of four.
            let Some(rest) = datagram.get(length.max(1).next_multiple_of(4)..) else { break };
            datagram = rest;
        }
        changes
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rtnetlink's messages grow; six matter")]
    fn change(message: RouteNetlinkMessage) -> Option<Change> {
        match message {
            RouteNetlinkMessage::NewLink(link) => link_change(&link, true),
            RouteNetlinkMessage::DelLink(link) => link_change(&link, false),
            RouteNetlinkMessage::NewAddress(address) => address_change(&address, true),
            RouteNetlinkMessage::DelAddress(address) => address_change(&address, false),
            RouteNetlinkMessage::NewRoute(route) => route_change(&route, true),
            RouteNetlinkMessage::DelRoute(route) => route_change(&route, false),
            _ => None,
        }
    }

    fn link_change(link: &LinkMessage, is_there: bool) -> Option<Change> {
        let interface = link.header.index;
        // `Running` is the kernel's word for a link that carries packets, wireless ones included.
        let carries = link.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
        (interface != LOOPBACK).then_some(Change::Link { interface, is_up: is_there && carries })
    }

    fn address_change(message: &AddressMessage, is_there: bool) -> Option<Change> {
        let interface = message.header.index;
        if interface == LOOPBACK || message.header.flags.contains(AddressHeaderFlags::Tentative) {
            return None;
        }
        let address = message.attributes.iter().find_map(|attribute| {
            if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
        })?;
        Some(Change::Address { interface, address, is_there })
    }

    fn route_change(message: &RouteMessage, is_there: bool) -> Option<Change> {
        if message.header.destination_prefix_length != 0 || message.header.table != TABLE_MAIN {
            return None;
        }
        let (mut interface, mut gateway) = (None, None);
        for attribute in &message.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                interface = Some(*index);
            } else if let RouteAttribute::Gateway(address) = attribute {
                gateway = if let RouteAddress::Inet(ip) = address {
                    Some(IpAddr::V4(*ip))
                } else if let RouteAddress::Inet6(ip) = address {
                    Some(IpAddr::V6(*ip))
                } else {
                    None
                };
            }
        }
        let is_v6 = message.header.address_family == AddressFamily::Inet6;
        Some(Change::Route(Route { interface: interface?, is_v6, gateway }, is_there))
    }

    pub(super) async fn watch_sleep(returned: &Notify) {
        if let Err(error) = wake(returned).await {
            tracing::info!(%error, "the machine's sleep is not watched");
        }
    }

    /// Waits for the end of each sleep of the machine. The kernel cancels a timer of this kind
    /// then, and when the wall clock is set, which the other two clocks tell apart.
    async fn wake(returned: &Notify) -> io::Result<()> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        #[expect(deprecated, reason = "unsound for types that change their descriptor; this can't")]
        let timer = AsyncFd::new(timer)?;
        let never = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        let mut slept = time_slept();
        loop {
            match timerfd_settime(timer.get_ref(), flags, &never) {
                Ok(_) => cancelled(&timer).await?,
                Err(Errno::CANCELED) => {}
                Err(error) => return Err(error.into()),
            }
            if has_slept(slept, time_slept()) {
                tracing::debug!("the machine has slept");
                returned.notify_one();
            }
            slept = time_slept();
        }
    }

    async fn cancelled(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
        loop {
            let mut ready = timer.readable().await?;
            match rustix::io::read(timer.get_ref(), &mut [0; 8]) {
                Err(Errno::CANCELED) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
                Ok(_) => return Err(io::Error::other("a timer without end has fired")),
            }
        }
    }

    /// How long this machine has slept since it started.
    fn time_slept() -> Duration {
        let of = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        let awake = of(ClockId::Monotonic);
        of(ClockId::Boottime).saturating_sub(awake)
    }

    fn has_slept(before: Duration, after: Duration) -> bool {
        after.saturating_sub(before) >= SLEPT_MIN
    }

    #[cfg(test)]
    mod tests {
        use netlink_packet_route::{
            AddressFamily, RouteNetlinkMessage,
            address::AddressMessage,
            link::LinkMessage,
            route::{RouteHeader, RouteMessage},
        };

        use super::*;

        fn datagram(message: RouteNetlinkMessage) -> Vec<u8> {
            let mut message = NetlinkMessage::from(message);
            message.finalize();
            let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
            message.serialize(&mut bytes);
            bytes
        }

        fn link(index: u32, flags: LinkFlags) -> RouteNetlinkMessage {
            let mut link = LinkMessage::default();
            link.header.index = index;
            link.header.flags = flags;
            RouteNetlinkMessage::NewLink(link)
        }

        fn address(flags: AddressHeaderFlags) -> RouteNetlinkMessage {
            let mut message = AddressMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.index = 2;
            message.header.flags = flags;
            message.attributes.push(AddressAttribute::Address([192, 0, 2, 1].into()));
            RouteNetlinkMessage::NewAddress(message)
        }

        fn route(prefix: u8, table: u8) -> RouteNetlinkMessage {
            let mut message = RouteMessage::default();
            message.header = RouteHeader {
                address_family: AddressFamily::Inet,
                destination_prefix_length: prefix,
                table,
                ..RouteHeader::default()
            };
            message.attributes.push(RouteAttribute::Oif(2));
            let gateway = RouteAddress::Inet([192, 0, 2, 254].into());
            message.attributes.push(RouteAttribute::Gateway(gateway));
            RouteNetlinkMessage::NewRoute(message)
        }

        #[test]
        fn a_datagram_holds_several_changes() {
            let mut bytes = datagram(link(2, LinkFlags::Up));
            bytes.extend(datagram(link(2, LinkFlags::Up | LinkFlags::Running)));
            bytes.extend(datagram(address(AddressHeaderFlags::empty())));
            bytes.extend(datagram(route(0, TABLE_MAIN)));
            let gateway = Some([192, 0, 2, 254].into());
            assert_eq!(
                changes(&bytes),
                [
                    Change::Link { interface: 2, is_up: false },
                    Change::Link { interface: 2, is_up: true },
                    Change::Address {
                        interface: 2,
                        address: [192, 0, 2, 1].into(),
                        is_there: true
                    },
                    Change::Route(Route { interface: 2, is_v6: false, gateway }, true),
                ]
            );
        }

        #[test]
        fn what_is_no_way_to_others_is_left_out() {
            let mut bytes = datagram(link(LOOPBACK, LinkFlags::Up | LinkFlags::Running));
            bytes.extend(datagram(address(AddressHeaderFlags::Tentative)));
            bytes.extend(datagram(route(24, TABLE_MAIN)));
            bytes.extend(datagram(route(0, 255)));
            assert_eq!(changes(&bytes), []);
        }

        #[test]
        fn what_does_not_read_ends_the_datagram_quietly() {
            let good = datagram(link(2, LinkFlags::Up | LinkFlags::Running));
            for length in 0..good.len() {
                assert_eq!(changes(&good[..length]), [], "{length}");
            }
            for at in 0..good.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bad = good.clone();
                    bad[at] = value;
                    bad.extend(&good);
                    assert!(changes(&bad).len() <= 2, "{at} {value}");
                }
            }
        }

        #[test]
        fn a_clock_that_was_set_is_no_sleep() {
            let slept = Duration::from_secs(100);
            assert!(!has_slept(slept, slept + Duration::from_micros(3)));
            assert!(!has_slept(slept, slept - Duration::from_micros(3)));
            assert!(has_slept(slept, slept + Duration::from_secs(1)));
        }

        #[tokio::test]
        async fn the_kernel_gives_what_is_watched() {
            // Both wait for ever where nothing changes; an error would end them at once.
            let (links, sleep) = (Notify::new(), Notify::new());
            let both = async {
                tokio::select! { r = hear(&links) => r, r = wake(&sleep) => r }
            };
            let ended = tokio::time::timeout(Duration::from_millis(200), both).await;
            assert!(ended.is_err(), "{ended:?}");
        }
    }
}
