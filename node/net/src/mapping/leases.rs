//! What a router passes on and until when, and when it is asked again: the part of the mapping that decides.
//!
//! A mapping stands until its lease ends, until the router says that it is gone, or until this device is on
//! another network. That a router was asked in vain ends none: of questions and answers over Wi-Fi some get
//! lost. Not here: how a router is asked ([`router`](super::router)).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use tokio::time::Instant;

use super::{Port, Said};

/// For how long a port is mapped: what a node leaves behind that was killed, its router forgets soon. One that
/// a router maps for good is believed for as long.
pub(super) const LEASE: Duration = Duration::from_secs(20 * 60);

/// When a port that is mapped is mapped anew.
const RENEWED: Duration = Duration::from_secs(LEASE.as_secs() / 2 - 30);

/// When it is tried again where no router did it, first and at last: many never will.
const RETRIED: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(30 * 60)];

/// When it is tried again at last where one did it before: often enough for some of them to come through before
/// the lease ends.
const RENEWAL_RETRIED: Duration = Duration::from_secs(2 * 60);

/// How far rounds are apart for which there is no more than a doubt: behind a second way out, as a VPN, it
/// never ends.
const DOUBTED: Duration = Duration::from_secs(60);

/// What a round came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// No router, or nothing of use: why.
    Nothing(&'static str),
    /// A router that has no public address itself: what it passes on is for nobody.
    NotPublic {
        /// Which.
        router: IpAddr,
    },
    /// A router that was asked for ports.
    Asked {
        /// Which.
        router: IpAddr,
        /// This machine's address, to which it passes on.
        inside: Ipv4Addr,
        /// Its public address.
        outside: IpAddr,
        /// What it said of each port.
        ports: BTreeMap<Port, Outcome>,
    },
}

/// What a router said of a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It is mapped, from this port outside.
    Mapped(u16),
    /// The port outside belongs to another device now, and no other was to be had: why.
    Taken(String),
    /// Neither: why. What was mapped before may be so still.
    Failed(String),
}

/// A port that a router was asked for, and agreed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lease {
    router: IpAddr,
    inside: Ipv4Addr,
    outside: IpAddr,
    port: u16,
    /// Until then it stands.
    until: Instant,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Leases {
    /// Also those that are over: the router is asked for the same port again, and to forget it at the end.
    held: BTreeMap<Port, Lease>,
    /// Why the last round did not map all.
    trouble: Option<String>,
    last: Option<Instant>,
    due: Instant,
    failed: u32,
}

impl Leases {
    /// Holds nothing; the first round is due.
    pub(super) fn new(now: Instant) -> Self {
        Self { held: BTreeMap::new(), trouble: None, last: None, due: now, failed: 0 }
    }

    /// Whether nothing was ever mapped that is not taken back.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Other ports are wanted: the next round is due.
    pub(super) fn wanted(&mut self, now: Instant) {
        self.failed = 0;
        self.due = now;
    }

    /// Another network: what was mapped is of the last one, and the next round is due.
    pub(super) fn moved(&mut self, now: Instant) {
        for lease in self.held.values_mut() {
            lease.until = lease.until.min(now);
        }
        self.wanted(now);
    }

    /// Somebody saw this node elsewhere than at what is mapped.
    pub(super) fn doubted(&mut self, now: Instant) {
        self.due = self.due.min(self.last.map_or(now, |last| (last + DOUBTED).max(now)));
    }

    /// The port outside that a router is asked for: the one that it gave last.
    pub(super) fn preferred(&self, port: Port, router: IpAddr, inside: Ipv4Addr) -> u16 {
        let last = self.held.get(&port).filter(|it| it.router == router && it.inside == inside);
        last.map_or(port.number(), |it| it.port)
    }

    /// Forgets some ports; gives those outside, of the routers that have them.
    pub(super) fn give_up(&mut self, which: impl Fn(Port) -> bool) -> Vec<(Port, IpAddr, u16)> {
        let gone = self.held.extract_if(.., |port, _| which(*port));
        gone.map(|(port, lease)| (port, lease.router, lease.port)).collect()
    }

    /// A round for these ports, which began at `asked`, is over.
    pub(super) fn answered(
        &mut self,
        answer: Answer,
        wanted: &BTreeSet<Port>,
        asked: Instant,
        now: Instant,
    ) {
        let mut mapped = BTreeSet::new();
        self.trouble = None;
        match answer {
            Answer::Nothing(why) => self.trouble = Some(why.to_owned()),
            Answer::NotPublic { router } => {
                self.trouble = Some("the router has no public address itself".to_owned());
                for lease in self.held.values_mut().filter(|it| it.router == router) {
                    lease.until = lease.until.min(now);
                }
            }
            Answer::Asked { router, inside, outside, ports } => {
                for lease in self.held.values_mut().filter(|it| it.router == router) {
                    lease.outside = outside;
                    if lease.inside != inside {
                        // Nobody is there any more.
                        lease.until = lease.until.min(now);
                    }
                }
                for (port, outcome) in ports {
                    match outcome {
                        Outcome::Mapped(outer) => {
                            mapped.insert(port);
                            let until = asked + LEASE;
                            let lease = Lease { router, inside, outside, port: outer, until };
                            self.held.insert(port, lease);
                        }
                        Outcome::Taken(why) => {
                            self.trouble = Some(why);
                            self.held.retain(|held, it| *held != port || it.router != router);
                        }
                        Outcome::Failed(why) => self.trouble = Some(why),
                    }
                }
            }
        }
        self.last = Some(now);
        self.due = now + self.wait(&mapped, wanted, now);
    }

    /// Nothing is wanted, and the router was told so.
    pub(super) fn rested(&mut self, now: Instant) {
        self.trouble = None;
        self.failed = 0;
        self.due = now + RENEWED;
    }

    /// How long it is until the next round, after one that mapped these ports.
    fn wait(&mut self, mapped: &BTreeSet<Port>, wanted: &BTreeSet<Port>, now: Instant) -> Duration {
        if mapped.is_superset(wanted) {
            self.failed = 0;
            return RENEWED;
        }
        let is_to_be_renewed =
            |(port, lease): (&Port, &Lease)| lease.until > now && !mapped.contains(port);
        let [first, most] = RETRIED;
        let most = if self.held.iter().any(is_to_be_renewed) {
            RENEWAL_RETRIED
        } else if mapped.is_empty() {
            most
        } else {
            RENEWED
        };
        let wait = first.saturating_mul(1 << self.failed.min(16)).min(most);
        self.failed = self.failed.saturating_add(1);
        wait
    }

    /// Whether a round is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// When a round is due or a lease ends.
    pub(super) fn poll_timeout(&self, now: Instant) -> Instant {
        let ends = self.held.values().map(|it| it.until).filter(|it| *it > now);
        ends.fold(self.due, Instant::min)
    }

    /// What stands.
    pub(super) fn said(&self, now: Instant) -> Said {
        let stands = self.held.iter().filter(|(_, lease)| lease.until > now);
        let mapped: BTreeSet<_> =
            stands.map(|(port, lease)| port.address(lease.outside, lease.port)).collect();
        let trouble = self.trouble.clone().filter(|_| mapped.is_empty());
        Said { mapped, trouble }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: [Port; 2] = [Port::Quic(4001), Port::Tcp(4001)];
    const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn router() -> IpAddr {
        ip("192.168.1.1")
    }

    fn public() -> IpAddr {
        ip("203.0.113.9")
    }

    fn seconds(of: u64) -> Duration {
        Duration::from_secs(of)
    }

    /// A router says the same of both ports.
    fn said(router: IpAddr, inside: Ipv4Addr, outside: IpAddr, outcome: &Outcome) -> Answer {
        let ports = PORTS.map(|port| (port, outcome.clone())).into();
        Answer::Asked { router, inside, outside, ports }
    }

    fn both(outcome: &Outcome) -> Answer {
        said(router(), HERE, public(), outcome)
    }

    fn no() -> Outcome {
        Outcome::Failed("the router does not answer".to_owned())
    }

    fn mapped() -> Answer {
        both(&Outcome::Mapped(4001))
    }

    fn failed() -> Answer {
        both(&no())
    }

    fn taken() -> Answer {
        both(&Outcome::Taken("another has it".to_owned()))
    }

    const LOST: Answer = Answer::Nothing("no router answers that does UPnP");

    /// A node with two ports, and how many addresses it tells.
    struct Told {
        leases: Leases,
        begun: Instant,
    }

    impl Told {
        fn new() -> Self {
            let begun = Instant::now();
            Self { leases: Leases::new(begun), begun }
        }

        fn answered(&mut self, at: u64, answer: Answer) {
            let now = self.begun + seconds(at);
            self.leases.answered(answer, &PORTS.into(), now, now);
        }

        fn at(&self, at: u64) -> usize {
            self.leases.said(self.begun + seconds(at)).mapped.len()
        }

        fn due(&self) -> u64 {
            (self.leases.due - self.begun).as_secs()
        }
    }

    /// What happens: what the rounds came to and when, and how many addresses stand when.
    type Case<'a> = (&'a str, &'a [(u64, Answer)], &'a [(u64, usize)]);

    #[test]
    fn a_mapping_stands_until_its_lease_ends_or_the_router_says_that_it_is_gone() {
        let lease = LEASE.as_secs();
        let elsewhere = said(ip("192.168.1.2"), HERE, public(), &no());
        let readdressed = said(router(), Ipv4Addr::new(192, 168, 1, 21), public(), &no());
        // What comes after both were mapped at 0, and how many are told at which second.
        let table: [Case<'_>; 9] = [
            ("nobody is asked", &[], &[(0, 2), (lease - 1, 2), (lease, 0)]),
            ("a search is lost", &[(570, LOST)], &[(571, 2), (lease - 1, 2), (lease, 0)]),
            (
                "all are",
                &[(570, LOST), (600, LOST), (660, failed())],
                &[(lease - 1, 2), (lease, 0)],
            ),
            (
                "one is",
                &[(570, LOST), (600, mapped())],
                &[(lease, 2), (lease + 599, 2), (lease + 600, 0)],
            ),
            ("its port is another's", &[(570, taken())], &[(569, 2), (570, 0)]),
            (
                "it has no public address any more",
                &[(570, Answer::NotPublic { router: router() })],
                &[(569, 2), (570, 0)],
            ),
            (
                "another has none",
                &[(570, Answer::NotPublic { router: ip("192.168.1.2") })],
                &[(570, 2), (lease, 0)],
            ),
            ("another maps nothing", &[(570, elsewhere)], &[(570, 2), (lease, 0)]),
            ("it passes on to where this device was", &[(570, readdressed)], &[(569, 2), (570, 0)]),
        ];
        for (what, answers, expected) in table {
            let mut told = Told::new();
            told.answered(0, mapped());
            let mut expected = expected.iter().peekable();
            for (at, answer) in answers {
                while let Some((second, count)) = expected.next_if(|(second, _)| second < at) {
                    assert_eq!(told.at(*second), *count, "{what}, at {second} s");
                }
                told.answered(*at, answer.clone());
            }
            for (second, count) in expected {
                assert_eq!(told.at(*second), *count, "{what}, at {second} s");
            }
        }
    }

    #[test]
    fn what_stands_is_at_the_newest_public_address_and_another_network_ends_it() {
        let mut told = Told::new();
        told.answered(0, mapped());
        told.answered(570, said(router(), HERE, ip("203.0.113.10"), &no()));
        let stands = told.leases.said(told.begun + seconds(571));
        let addresses: Vec<_> = stands.mapped.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["/ip4/203.0.113.10/tcp/4001", "/ip4/203.0.113.10/udp/4001/quic-v1"]);
        assert_eq!(stands.trouble, None, "it is reached as before");
        told.leases.moved(told.begun + seconds(580));
        assert_eq!((told.at(580), told.due()), (0, 580));
        told.answered(580, LOST);
        let none = told.leases.said(told.begun + seconds(581));
        assert_eq!(none.trouble.as_deref(), Some("no router answers that does UPnP"));
        // The same router is asked for the same port, another for the node's own.
        let preferred = |router| told.leases.preferred(PORTS[0], router, HERE);
        assert_eq!((preferred(router()), preferred(ip("192.168.1.2"))), (4001, 4001));
        let mut told = Told::new();
        told.answered(0, both(&Outcome::Mapped(50_000)));
        let preferred = |router| told.leases.preferred(PORTS[0], router, HERE);
        assert_eq!((preferred(router()), preferred(ip("192.168.1.2"))), (50_000, 4001));
    }

    #[test]
    fn rounds_are_seldom_and_later_each_time_that_nobody_answers() {
        let mut told = Told::new();
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                told.answered(0, LOST);
                told.due()
            })
            .collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1_800, 1_800, 1_800]);
        told.leases.doubted(told.begun);
        assert_eq!(told.due(), DOUBTED.as_secs());
        told.answered(0, mapped());
        assert_eq!(told.due(), RENEWED.as_secs());
        told.leases.moved(told.begun);
        assert_eq!((told.due(), told.leases.failed), (0, 0));
        // Of two ports a router maps one, for ever.
        let mut told = Told::new();
        let ports: BTreeMap<_, _> =
            [(PORTS[0], Outcome::Mapped(4001)), (PORTS[1], Outcome::Failed("no".to_owned()))]
                .into();
        let one = Answer::Asked { router: router(), inside: HERE, outside: public(), ports };
        let waits: Vec<u64> = (0..7)
            .map(|_| {
                told.answered(0, one.clone());
                told.due()
            })
            .collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 570, 570]);
    }

    #[test]
    fn a_renewal_that_fails_is_tried_again_before_the_lease_ends() {
        let mut told = Told::new();
        told.answered(0, mapped());
        let mut tried = Vec::new();
        while told.at(told.due()) > 0 {
            tried.push(told.due());
            told.answered(told.due(), LOST);
        }
        assert_eq!(tried, [570, 600, 660, 780, 900, 1_020, 1_140]);
        assert!(RENEWED * 2 < LEASE, "there is time for that");
        // In between it wakes when the lease ends, and not for that again.
        let end = told.begun + LEASE;
        assert_eq!(told.leases.poll_timeout(end - seconds(1)), end);
        assert!(told.leases.poll_timeout(end) > end && !told.leases.is_due(end));
    }

    /// What happens to a node.
    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Round([u8; 2], bool),
        Lost,
        NotPublic,
        Moved,
        Doubted,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..700_u64).prop_map(Step::Wait),
            3 => (any::<[u8; 2]>(), any::<bool>()).prop_map(|(ports, is_known)| Step::Round(ports, is_known)),
            3 => Just(Step::Lost),
            1 => Just(Step::NotPublic),
            1 => Just(Step::Moved),
            1 => Just(Step::Doubted),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        /// Beside it a model that knows no more than when each port was mapped last, by which of two routers.
        #[test]
        fn what_is_told_was_mapped_within_a_lease_and_all_that_was_is_told(steps in steps()) {
            let routers = [router(), ip("192.168.1.2")];
            let mut told = Told::new();
            let mut now = 0;
            let mut model: [Option<(u64, usize)>; 2] = [None; 2];
            for step in &steps {
                let before = told.leases.due;
                match step {
                    Step::Wait(seconds) => now += seconds,
                    Step::Round(said, is_known) => {
                        let of = usize::from(!is_known);
                        let outcome = |said: u8| match said % 3 {
                            0 => Outcome::Mapped(4001),
                            1 => Outcome::Failed("no".to_owned()),
                            _ => Outcome::Taken("no".to_owned()),
                        };
                        for (at, said) in said.iter().enumerate() {
                            match said % 3 {
                                0 => model[at] = Some((now, of)),
                                2 => model[at] = model[at].filter(|(_, by)| *by != of),
                                _ => {}
                            }
                        }
                        let ports = PORTS.into_iter().zip(said.map(outcome)).collect();
                        told.answered(now, Answer::Asked {
                            router: routers[of], inside: HERE, outside: public(), ports,
                        });
                    }
                    Step::Lost => told.answered(now, LOST),
                    Step::NotPublic => {
                        model = model.map(|it| it.filter(|(_, by)| *by != 0));
                        told.answered(now, Answer::NotPublic { router: routers[0] });
                    }
                    Step::Moved => {
                        model = [None; 2];
                        told.leases.moved(told.begun + seconds(now));
                    }
                    Step::Doubted => told.leases.doubted(told.begun + seconds(now)),
                }
                let stands = |it: &Option<(u64, usize)>| it.is_some_and(|(at, _)| now < at + LEASE.as_secs());
                let expected: BTreeSet<_> = PORTS.iter().zip(&model).filter(|(_, it)| stands(it))
                    .map(|(port, _)| port.address(public(), 4001)).collect();
                let at = told.begun + seconds(now);
                let said = told.leases.said(at);
                prop_assert_eq!(&said.mapped, &expected, "at {} s", now);
                prop_assert!(said.mapped.is_empty() || said.trouble.is_none());
                if matches!(step, Step::Round(..) | Step::Lost | Step::NotPublic) {
                    let wait = told.leases.due - at;
                    prop_assert!(wait >= RETRIED[0], "no router is pressed");
                    let may = if expected.is_empty() { RETRIED[1] } else { RENEWED };
                    prop_assert!(wait <= may);
                    let ends = model.iter().flatten().map(|(at, _)| at + LEASE.as_secs() - now.min(at + LEASE.as_secs()));
                    if let Some(left) = ends.filter(|it| *it > 0).min() {
                        prop_assert!(wait <= seconds(left).max(RENEWAL_RETRIED), "it is renewed in time");
                    }
                } else if matches!(step, Step::Doubted) {
                    prop_assert!(told.leases.due <= before.max(at));
                }
            }
        }
    }
}
