//! The mapping against a router on this machine, and against whoever poses as one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use igd_next::aio::Provider as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::sleep,
};

use super::{
    gateway::{ANSWER_BYTES_MAX, Bounded, Gateway, NoGateway, TAGS_MAX, search},
    leases::LEASE,
    *,
};

const SERVICE: &str = "urn:schemas-upnp-org:service:WANIPConnection:1";

/// A router on this machine: what it says of itself, what it refuses, and what it maps. Of the rest of
/// UPnP it knows nothing.
#[derive(Debug)]
struct Igd {
    outside: &'static str,
    /// The error's code for a port and a lease.
    refuses: fn(u16, u32) -> Option<u16>,
    /// Whether what it answers to a request has no end.
    drips: bool,
    /// What it waits for before it answers that it mapped a port.
    waits: Option<Arc<Semaphore>>,
    /// The lease of each protocol and port.
    mapped: BTreeMap<(String, u16), u32>,
}

impl Igd {
    /// Starts one, and says where it hears the search.
    async fn start(
        outside: &'static str,
        refuses: fn(u16, u32) -> Option<u16>,
    ) -> (Arc<Mutex<Self>>, SocketAddr) {
        let (drips, waits, mapped) = (false, None, BTreeMap::new());
        let igd = Arc::new(Mutex::new(Self { outside, refuses, drips, waits, mapped }));
        let asked = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let search_at = searched(vec![asked.local_addr().unwrap()]).await;
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

/// Says to whoever searches that routers describe themselves at these places, in this order. Gives where it
/// hears.
async fn searched(places: Vec<SocketAddr>) -> SocketAddr {
    let searched = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let search_at = searched.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 1024];
        while let Ok((_, from)) = searched.recv_from(&mut question).await {
            for at in &places {
                let answer = format!("HTTP/1.1 200 OK\r\nLOCATION: http://{at}/root\r\n\r\n");
                searched.send_to(answer.as_bytes(), from).await.unwrap();
            }
        }
    });
    search_at
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
            format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
        };
        let place = ["NewExternalPort", "NewProtocol"];
        let all = [&place[..], &["NewInternalPort", "NewInternalClient", "NewLeaseDuration"]];
        format!(
            "<scpd><actionList>{}{}</actionList></scpd>",
            action("AddPortMapping", &arguments(&all.concat())),
            action("DeletePortMapping", &arguments(&place)),
        )
    } else if igd.lock().unwrap().drips {
        let mut next = BODY;
        while stream.write_all(next.as_bytes()).await.is_ok() {
            next = " ";
            sleep(SOMETIMES).await;
        }
        return;
    } else {
        let answer = igd.lock().unwrap().answer(&question);
        let waits = igd.lock().unwrap().waits.clone().filter(|_| answer.contains("AddPort"));
        if let Some(waits) = waits {
            waits.acquire().await.unwrap().forget();
        }
        answer
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
    let ports = || -> BTreeSet<u16> { Igd::ports(&igd).into_keys().map(|(_, it)| it).collect() };
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
    // It goes on answering for ever.
    let (igd, at) = Igd::start("203.0.113.9", |_, _| None).await;
    igd.lock().unwrap().drips = true;
    let begun = Instant::now();
    let (_mapping, said) = first(at).await;
    let why = said.trouble.as_deref();
    assert_eq!(why, Some("the router does not say its public address"));
    assert!(begun.elapsed() < FEW_SECONDS * 2, "{:?}", begun.elapsed());
    // Nobody is there.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (_mapping, said) = first(silent.local_addr().unwrap()).await;
    assert_eq!(said.trouble.as_deref(), Some("no router answers that does UPnP"));
}

/// A node that wants both ports of a router which maps each only when it is let to, and has begun with the first.
async fn under_way() -> (Arc<Mutex<Igd>>, Mapping, Arc<Semaphore>) {
    let (igd, at) = Igd::start("203.0.113.9", |_, _| None).await;
    let lets = Arc::new(Semaphore::new(0));
    igd.lock().unwrap().waits = Some(Arc::clone(&lets));
    let mapping = Mapping::searching(at);
    mapping.want([Port::Quic(4001), Port::Tcp(4001)].into());
    while Igd::ports(&igd).is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    (igd, mapping, lets)
}

#[tokio::test]
async fn of_a_round_under_way_nothing_is_told_on_another_network() {
    let (igd, mut mapping, lets) = under_way().await;
    igd.lock().unwrap().outside = "203.0.113.10";
    mapping.moved();
    lets.add_permits(100);
    let both = ["/ip4/203.0.113.10/udp/4001/quic-v1", "/ip4/203.0.113.10/tcp/4001"];
    assert_eq!(mapping.changed().await, Said { mapped: addresses(&both), trouble: None });
    // Nor is what was said before it, and not heard.
    mapping.want([Port::Tcp(4001)].into());
    while !mapping.said.has_changed().unwrap() {
        sleep(Duration::from_millis(10)).await;
    }
    igd.lock().unwrap().outside = "203.0.113.11";
    mapping.moved();
    let last = addresses(&["/ip4/203.0.113.11/tcp/4001"]);
    assert_eq!(mapping.changed().await.mapped, last);
    mapping.end().await;
    assert_eq!(Igd::ports(&igd), BTreeMap::new());
}

#[tokio::test]
async fn what_a_round_under_way_mapped_is_taken_back_where_other_ports_are_wanted() {
    let (igd, mut mapping, lets) = under_way().await;
    mapping.want([Port::Tcp(4002)].into());
    // Whoever is asked already is waited for, and nobody is asked for what is not wanted any more.
    sleep(SOMETIMES).await;
    lets.add_permits(1);
    while !Igd::ports(&igd).contains_key(&("TCP".to_owned(), 4002)) {
        let asked: Vec<_> = Igd::ports(&igd).into_keys().collect();
        assert!(!asked.contains(&("TCP".to_owned(), 4001)), "{asked:?}");
        sleep(Duration::from_millis(10)).await;
    }
    lets.add_permits(100);
    assert_eq!(mapping.changed().await.mapped, addresses(&["/ip4/203.0.113.9/tcp/4002"]));
    assert_eq!(Igd::ports(&igd).into_keys().collect::<Vec<_>>(), [("TCP".to_owned(), 4002)]);
    mapping.end().await;
}

#[tokio::test]
async fn what_a_round_under_way_mapped_is_taken_back_at_the_end() {
    let (igd, mapping, lets) = under_way().await;
    let end = mapping.end();
    lets.add_permits(1);
    end.await;
    assert_eq!(Igd::ports(&igd), BTreeMap::new());
}

#[tokio::test]
async fn on_another_network_a_router_is_searched_for_at_once() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mapping = Mapping::searching(silent.local_addr().unwrap());
    mapping.want([Port::Tcp(4001)].into());
    let mut question = [0; 1024];
    silent.recv_from(&mut question).await.unwrap();
    let begun = Instant::now();
    mapping.moved();
    silent.recv_from(&mut question).await.unwrap();
    // The first is not over yet.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_panic_is_told_and_it_begins_anew_after_a_rest() {
    const REST: Duration = Duration::from_millis(300);
    // Somebody answers so oddly that a library panics, as long as that port is wanted.
    const ODD: Port = Port::Tcp(1);
    let runs = |mut owner: Owner, at| {
        let run = async move {
            owner.wishes.wait_for(|wish| !wish.ports.is_empty()).await.unwrap();
            assert!(!owner.wishes.borrow().ports.contains(&ODD), "an odd answer");
            run(owner, at).await;
        };
        run.boxed()
    };
    let (igd, at) = Igd::start("203.0.113.9", |_, _| None).await;
    let mut mapping = Mapping::running(runs, at, REST);
    mapping.want([ODD].into());
    let stopped = Said { mapped: BTreeSet::new(), trouble: Some("stopped: an odd answer".into()) };
    assert_eq!(mapping.changed().await, stopped);
    for _ in 0..2 {
        let begun = Instant::now();
        // Whatever is wished meanwhile.
        mapping.moved();
        assert_eq!(mapping.changed().await, stopped);
        assert!(begun.elapsed() >= REST, "{:?}", begun.elapsed());
    }
    mapping.want([Port::Tcp(4001)].into());
    assert_eq!(mapping.changed().await.mapped, addresses(&["/ip4/203.0.113.9/tcp/4001"]));
    mapping.end().await;
    assert_eq!(Igd::ports(&igd), BTreeMap::new());
    // It ends while it rests.
    let mut mapping = Mapping::running(runs, at, RESTED);
    mapping.want([ODD].into());
    mapping.changed().await;
    let begun = Instant::now();
    mapping.end().await;
    assert!(begun.elapsed() < TAKEN_BACK, "{:?}", begun.elapsed());
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

/// Somebody who poses as a router: to each question it says so much, and then the same again and again, each
/// time after so long.
async fn poser(begins: &'static str, goes_on: &'static [u8], after: Duration) -> Poser {
    let asked = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = asked.local_addr().unwrap();
    let (said, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let poser = Poser { at, said: Arc::clone(&said), heard: Arc::clone(&heard) };
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = asked.accept().await {
            heard.fetch_add(1, Ordering::Relaxed);
            let (said, heard) = (Arc::clone(&said), Arc::clone(&heard));
            tokio::spawn(async move {
                let mut question = [0; 4096];
                let _: usize = stream.read(&mut question).await.unwrap_or(0);
                let mut next = begins.as_bytes();
                while !next.is_empty()
                    && let Ok(length) = stream.write(next).await
                {
                    said.fetch_add(length, Ordering::Relaxed);
                    next = goes_on;
                    sleep(after).await;
                }
                heard.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    poser
}

struct Poser {
    at: SocketAddr,
    /// So many bytes left it.
    said: Arc<AtomicUsize>,
    /// So many still listen to it.
    heard: Arc<AtomicUsize>,
}

impl Poser {
    /// Nobody listens to it any more, and it got rid of no more than lies in the buffers of two systems.
    async fn is_left_alone(&self) {
        let end = Instant::now() + FEW_SECONDS;
        while self.heard.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < end, "it is still listened to");
            sleep(Duration::from_millis(10)).await;
        }
        let said = self.said.load(Ordering::Relaxed);
        assert!(said <= ANSWER_BYTES_MAX + (16 << 20), "{said} bytes");
    }
}

/// Within that all is over.
const FEW_SECONDS: Duration = Duration::from_secs(5);
const AT_ONCE: Duration = Duration::ZERO;
const SOMETIMES: Duration = Duration::from_millis(50);
const BODY: &str = "HTTP/1.1 200 OK\r\n\r\n<root>";

/// The same again and again.
fn many(of: &str) -> &'static [u8] {
    of.repeat(10_000).leak().as_bytes()
}

#[tokio::test]
async fn whoever_never_ends_its_answer_keeps_no_router_from_being_found() {
    let posers = [
        poser(BODY, many("<a>"), AT_ONCE).await,
        poser("HTTP/1.1 200 OK\r\n", many("a: b\r\n"), AT_ONCE).await,
        poser(BODY, b"x", SOMETIMES).await,
    ];
    let mut places: Vec<_> = posers.iter().map(|it| it.at).collect();
    // Alone they are over in time.
    let begun = Instant::now();
    let none = search(searched(places.clone()).await, None).await.map(|it| it.gateway.addr);
    assert_eq!(none, Err(NoGateway::Silent));
    assert!(begun.elapsed() < FEW_SECONDS, "{:?}", begun.elapsed());
    for poser in &posers {
        poser.is_left_alone().await;
    }
    // And a true one is found among them, at once.
    let (_igd, at) = Igd::start("203.0.113.9", |_, _| None).await;
    let begun = Instant::now();
    let place = search(at, None).await.map(|it| it.gateway.addr).unwrap();
    places.push(place);
    let found = search(searched(places.clone()).await, None).await.map(|it| it.gateway.addr);
    assert_eq!(found, Ok(place));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for poser in &posers {
        poser.is_left_alone().await;
    }
}

#[tokio::test]
async fn an_answer_to_a_request_is_short_flat_and_says_what_it_means() {
    let ask = async |begins: &'static str, goes_on: &'static [u8]| {
        let poser = poser(begins, goes_on, AT_ONCE).await;
        let url = format!("http://{}/do", poser.at);
        let said = timeout(FEW_SECONDS, Bounded::send_async(&url, "\"x\"", "<x/>")).await;
        let said = said.expect("it is over by itself").map_err(|error| error.to_string());
        poser.is_left_alone().await;
        said
    };
    assert!(ask(BODY, many("x")).await.is_err_and(|it| it.contains("limit")), "it is long");
    let deep = ask(BODY, many("<a>")).await.unwrap_err();
    assert!(deep.contains("limit"), "{deep}");
    let whole = |body: &str| -> &'static str {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
    };
    let deep = ask(whole(&"<a>".repeat(20_000)), b"").await.unwrap_err();
    assert!(deep.contains("too much in it"), "{deep}");
    for defined in ["<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<\0a\0>\0"] {
        let said = ask(whole(defined), b"").await.unwrap_err();
        assert!(said.contains("it defines"), "{said}");
    }
    assert_eq!(ask(whole("<a>b</a>"), b"").await.as_deref(), Ok("<a>b</a>"));
    // The deepest that is passed on is read to its end.
    let deep = poser(whole(&"<a>".repeat(TAGS_MAX)), b"", AT_ONCE).await;
    let gateway = Gateway {
        addr: deep.at,
        root_url: "/root".to_owned(),
        control_url: "/do".to_owned(),
        control_schema_url: "/can".to_owned(),
        control_schema: HashMap::new(),
        provider: Bounded,
    };
    let said = gateway.get_external_ip().await.unwrap_err().to_string();
    assert!(said.contains("Invalid response"), "{said}");
}

#[tokio::test]
async fn a_router_that_is_not_heard_for_once_passes_on_what_it_did() {
    let (igd, at) = Igd::start("203.0.113.9", |_, _| None).await;
    let (mut router, mut leases) = (Router::new(at), Leases::new(Instant::now()));
    let never = CancellationToken::new();
    let ports = BTreeSet::from([Port::Quic(4001), Port::Tcp(4001)]);
    round(&mut router, &mut leases, &ports, &never).await;
    let said = leases.said(Instant::now());
    assert_eq!(said.mapped.len(), 2, "{said:?}");
    // Nobody hears the search.
    router.search_at("127.0.0.1:0".parse().unwrap());
    round(&mut router, &mut leases, &ports, &never).await;
    assert_eq!(leases.said(Instant::now()), said);
    let over = Instant::now() + LEASE;
    let why = leases.said(over).trouble;
    assert_eq!(why.as_deref(), Some("no router answers that does UPnP"));
    // It says no more than its address: neither renews anything nor ends it.
    router.search_at(at);
    igd.lock().unwrap().refuses = |_, _| Some(501);
    round(&mut router, &mut leases, &ports, &never).await;
    assert_eq!(leases.said(Instant::now()), said);
    // It has no public address any more.
    igd.lock().unwrap().outside = "100.64.3.4";
    round(&mut router, &mut leases, &ports, &never).await;
    let gone = leases.said(Instant::now());
    assert_eq!(gone.trouble.as_deref(), Some("the router has no public address itself"));
    assert_eq!(gone.mapped, BTreeSet::new());
    igd.lock().unwrap().refuses = |_, _| None;
    igd.lock().unwrap().outside = "203.0.113.9";
    round(&mut router, &mut leases, &ports, &never).await;
    assert_eq!(leases.said(Instant::now()), said);
    router.take_back(leases.give_up(|_| true)).await;
    assert_eq!(Igd::ports(&igd), BTreeMap::new());
}
