//! How a router is found and spoken to, so that whatever answers costs this node no more than a little.
//!
//! A search goes to all (SSDP); each that answers says where its description lies, and that is fetched from it,
//! then the description of what it can be asked for. In a café anybody can answer, with anything. So nobody is
//! fetched from but a router at home, all is over in [`SEARCHED`], and an answer has no more than
//! [`ANSWER_BYTES_MAX`]. The crate that speaks UPnP reads without end, and reads XML by calling itself for each
//! element in another: searching is done here instead, and it is given answers that are short and flat
//! ([`Bounded`]). Not here: what is asked ([`router`](super::router)).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Uri, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use igd_next::{RequestError, aio::Provider};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};
use xml::reader::{EventReader, XmlEvent};

use crate::address::{self, Scope};

/// A router that was found.
pub(super) type Gateway = igd_next::aio::Gateway<Bounded>;

/// The question: who passes ports on (UPnP Device Architecture 1.0, section 1.2.2)? Whoever does may let three
/// seconds pass (`MX`).
const QUESTION: &str = "M-SEARCH * HTTP/1.1\r\nHost:239.255.255.250:1900\r\n\
    ST:urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nMan:\"ssdp:discover\"\r\nMX:3\r\n\r\n";

/// How long they have for that, and to describe themselves.
const SEARCHED: Duration = Duration::from_secs(4);

/// No answer to the question is longer: it is one packet.
const PACKET_BYTES_MAX: usize = 1_500;

/// So many are asked to describe themselves at one time. In a home there are one or two.
const DESCRIBED_MAX: usize = 8;

/// No answer is longer. The descriptions of routers have up to 30 KiB.
pub(super) const ANSWER_BYTES_MAX: usize = 128 << 10;

/// No head of an answer is longer; hyper knows none under 8 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// No answer to a request has more tags: true ones have some twenty. For each that is in another the reader
/// takes some hundred bytes of its stack.
pub(super) const TAGS_MAX: usize = 128;

/// No description has its elements deeper; true ones reach eleven.
const DEPTH_MAX: usize = 32;

/// What passes ports on (Internet Gateway Device 1 and 2).
const SERVICES: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
];

/// A router, and this machine's address on its network.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) gateway: Gateway,
    pub(super) inside: Ipv4Addr,
}

/// Why none was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoGateway {
    /// None answers that passes ports on.
    Silent,
    /// Whoever answers is not at home.
    Elsewhere,
}

/// Searches once, for the one that is known before any other.
pub(super) async fn search(at: SocketAddr, known: Option<IpAddr>) -> Result<Found, NoGateway> {
    let until = Instant::now() + SEARCHED;
    let mut none = NoGateway::Silent;
    let Some(socket) = asked(at).await else { return Err(none) };
    let mut packet = [0; PACKET_BYTES_MAX];
    let mut heard = BTreeSet::new();
    let mut described = FuturesUnordered::new();
    let mut other = None;
    let next = async {
        loop {
            tokio::select! {
                Some(found) = described.next() => {
                    let Some(found): Option<Found> = found else { continue };
                    if known.is_none_or(|known| known == found.gateway.addr.ip()) {
                        return Some(found);
                    }
                    other.get_or_insert(found);
                }
                received = socket.recv_from(&mut packet), if described.len() < DESCRIBED_MAX => {
                    let Ok((length, _)) = received else { return None };
                    let Some((router, path)) = location(&packet[..length]) else { continue };
                    let Some(inside) = facing(router, at) else {
                        none = NoGateway::Elsewhere;
                        continue;
                    };
                    if heard.len() < DESCRIBED_MAX && heard.insert((router, path.clone())) {
                        described.push(describe(router, path, inside));
                    }
                }
            }
        }
    };
    let found = timeout_at(until, next).await.ok().flatten();
    found.or(other).ok_or(none)
}

/// Asks all who hear at an address.
async fn asked(at: SocketAddr) -> Option<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.ok()?;
    socket.send_to(QUESTION.as_bytes(), at).await.ok()?;
    Some(socket)
}

/// Where a description lies, as an answer to the question says.
fn location(packet: &[u8]) -> Option<(SocketAddr, String)> {
    let text = std::str::from_utf8(packet).ok()?;
    let line = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("location").then(|| value.trim())
    })?;
    let uri: Uri = line.parse().ok()?;
    let ip: IpAddr = uri.host()?.parse().ok()?;
    (uri.scheme_str() == Some("http"))
        .then(|| (SocketAddr::new(ip, uri.port_u16().unwrap_or(80)), path(line)))
}

/// The path of an address on the router, whatever else there is in it: nobody else is asked.
fn path(address: &str) -> String {
    let uri = address.parse::<Uri>().ok();
    let path = uri.filter(|it| it.scheme().is_some()).and_then(|it| it.into_parts().path_and_query);
    let path = path.map_or_else(|| address.to_owned(), |it| it.as_str().to_owned());
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// This machine's address on the router's network, if that is one at home. Nobody else is asked to do anything,
/// whatever the answer to the search says: neither who is public, nor what runs on this machine, unless the
/// search itself goes there.
fn facing(router: SocketAddr, search_at: SocketAddr) -> Option<Ipv4Addr> {
    // Nothing is sent; the kernel chooses as it would.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(router).ok()?;
    let IpAddr::V4(inside) = socket.local_addr().ok()?.ip() else { return None };
    let near = if search_at.ip().is_loopback() { Scope::Loopback } else { Scope::Private };
    let is_near = [inside.into(), router.ip()].into_iter().all(|ip| address::scope(ip) == near);
    is_near.then_some(inside)
}

/// Has one that answered describe itself.
async fn describe(addr: SocketAddr, root_url: String, inside: Ipv4Addr) -> Option<Found> {
    let of = |path: &str| {
        let request = Request::get(format!("http://{addr}{path}")).body(Full::default());
        async move {
            fetch(request.ok()?)
                .await
                .inspect_err(|error| tracing::debug!(%error, "no router"))
                .ok()
        }
    };
    let Service { control, actions } = service(&of(&root_url).await?)?;
    let (control_url, control_schema_url) = (path(&control), path(&actions));
    let control_schema = inputs(&of(&control_schema_url).await?)?;
    let provider = Bounded;
    let gateway =
        Gateway { addr, root_url, control_url, control_schema_url, control_schema, provider };
    Some(Found { gateway, inside })
}

/// How a router is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounded;

impl Provider for Bounded {
    async fn send_async(url: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let request = Request::post(url)
            .header("SOAPAction", action)
            .header(header::CONTENT_TYPE, "text/xml")
            .body(Full::from(body.to_owned()))?;
        let text = String::from_utf8(fetch(request).await?.to_vec())?;
        if text.matches('<').count() > TAGS_MAX {
            return Err(RequestError::InvalidResponse("it has too much in it".to_owned()));
        }
        Ok(text)
    }
}

/// What somebody answers, if that is short, and XML that says what it means.
async fn fetch(request: Request<Full<Bytes>>) -> Result<Bytes, RequestError> {
    let client = Client::builder(TokioExecutor::new())
        .http1_max_buf_size(HEAD_BYTES_MAX)
        .build_http::<Full<Bytes>>();
    let answer = client.request(request).await?.into_body();
    let answer =
        Limited::new(answer, ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    let answer = answer.to_bytes();
    // Of what is defined there a reader makes a thousand times as much, and with zeros UTF-16 would hide it.
    let has = |what: &[u8]| answer.windows(what.len()).any(|it| it == what);
    if has(b"<!DOCTYPE") || has(b"\0") {
        return Err(RequestError::InvalidResponse("it defines what it says".to_owned()));
    }
    Ok(answer)
}

/// Where a router is asked, and where it says what for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Service {
    control: String,
    actions: String,
}

/// The first service of a description that passes ports on.
fn service(description: &[u8]) -> Option<Service> {
    let mut kind = String::new();
    let mut service = Service::default();
    let mut found = None;
    read(description, |name, within, text| match (within, name) {
        ("service", "serviceType") => text.clone_into(&mut kind),
        ("service", "controlURL") => text.clone_into(&mut service.control),
        ("service", "SCPDURL") => text.clone_into(&mut service.actions),
        (_, "service") => {
            let service = std::mem::take(&mut service);
            let passes_on = SERVICES.contains(&kind.as_str());
            if passes_on && !service.control.is_empty() && !service.actions.is_empty() {
                found.get_or_insert(service);
            }
            kind.clear();
        }
        _ => {}
    })?;
    found
}

/// What each action takes.
fn inputs(description: &[u8]) -> Option<HashMap<String, Vec<String>>> {
    let mut inputs = HashMap::new();
    let (mut action, mut arguments) = (String::new(), Vec::new());
    let (mut argument, mut is_input) = (String::new(), false);
    read(description, |name, within, text| match (within, name) {
        ("action", "name") => text.clone_into(&mut action),
        ("argument", "name") => text.clone_into(&mut argument),
        ("argument", "direction") => is_input = text == "in",
        ("argumentList", "argument") => {
            let argument = std::mem::take(&mut argument);
            if std::mem::take(&mut is_input) {
                arguments.push(argument);
            }
        }
        ("actionList", "action") => {
            inputs.insert(std::mem::take(&mut action), std::mem::take(&mut arguments));
        }
        _ => {}
    })?;
    Some(inputs)
}

/// Reads XML from its beginning to its end, and gives each element when it ends: its name, that of the one
/// around it, and the text in it. `None`: it is none, or too deep.
fn read(xml: &[u8], mut on_end: impl FnMut(&str, &str, &str)) -> Option<()> {
    let mut open: Vec<String> = Vec::new();
    let mut text = String::new();
    for event in EventReader::new(xml) {
        match event.ok()? {
            XmlEvent::StartElement { name, .. } => {
                open.push(name.local_name);
                text.clear();
                if open.len() > DEPTH_MAX {
                    return None;
                }
            }
            XmlEvent::EndElement { .. } => {
                let name = open.pop()?;
                on_end(&name, open.last().map_or("", String::as_str), text.trim());
                text.clear();
            }
            XmlEvent::Characters(said) | XmlEvent::CData(said) => text.push_str(&said),
            XmlEvent::StartDocument { .. }
            | XmlEvent::EndDocument
            | XmlEvent::ProcessingInstruction { .. }
            | XmlEvent::Comment(_)
            | XmlEvent::Whitespace(_) => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use igd_next::SearchOptions;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_is_asked_but_a_router_at_home() {
        let multicast = SearchOptions::default().broadcast_address;
        for elsewhere in ["127.0.0.1:80", "203.0.113.1:80", "[::1]:80"] {
            assert_eq!(facing(elsewhere.parse().unwrap(), multicast), None, "{elsewhere}");
        }
        // Nor is that undone by what it says of itself.
        for (said, expected) in [
            ("/ctl?x=1", "/ctl?x=1"),
            ("ctl", "/ctl"),
            ("http://192.168.1.1:5000/ctl", "/ctl"),
            ("http://203.0.113.1/ctl", "/ctl"),
            ("@203.0.113.1/ctl", "/@203.0.113.1/ctl"),
            ("", "/"),
        ] {
            assert_eq!(path(said), expected);
        }
    }

    #[test]
    fn an_answer_to_the_search_says_where_the_description_lies() {
        let said = |text: &str| location(text.as_bytes()).map(|(at, path)| format!("{at} {path}"));
        let answer =
            "HTTP/1.1 200 OK\r\nST: x\r\nlocation:http://192.168.1.1:5000/root.xml?a\r\n\r\n";
        assert_eq!(said(answer).as_deref(), Some("192.168.1.1:5000 /root.xml?a"));
        let bare = said("Location: http://192.168.1.1\r\n");
        assert_eq!(bare.as_deref(), Some("192.168.1.1:80 /"));
        for none in ["", "LOCATION: ", "LOCATION: https://192.168.1.1/", "LOCATION: http://router/"]
        {
            assert_eq!(said(none), None, "{none}");
        }
    }

    #[test]
    fn of_a_description_the_service_that_passes_ports_on_is_taken() {
        let service = |kind: &str, n: u8| {
            format!(
                "<service><serviceType>{kind}</serviceType><controlURL>/do{n}</controlURL>\
                 <SCPDURL>/can{n}</SCPDURL></service>"
            )
        };
        let root = |inner: &str| {
            let text = format!(
                "<?xml version=\"1.0\"?><root xmlns=\"urn:x\"><device><friendlyName>M</friendlyName>\
                 <serviceList>{}</serviceList><deviceList><device><serviceList>{inner}</serviceList>\
                 </device></deviceList></device></root>",
                service("urn:schemas-upnp-org:service:Layer3Forwarding:1", 1),
            );
            super::service(text.as_bytes())
        };
        let found = root(&(service(SERVICES[0], 2) + &service(SERVICES[1], 3)));
        assert_eq!(found, Some(Service { control: "/do2".into(), actions: "/can2".into() }));
        assert_eq!(root(""), None);
        assert_eq!(root("<service>"), None, "it is cut off");
        let nested = "<a>".repeat(DEPTH_MAX + 1);
        assert_eq!(super::service(nested.as_bytes()), None);
    }

    #[test]
    fn what_an_action_takes_is_read() {
        let argument = |name: &str, way: &str| {
            format!("<argument><name>{name}</name><direction>{way}</direction></argument>")
        };
        let action = |name: &str, arguments: &[String]| {
            let list = arguments.concat();
            format!("<action><name>{name}</name><argumentList>{list}</argumentList></action>")
        };
        let text = format!(
            "<scpd><actionList>{}{}</actionList><serviceStateTable><stateVariable><name>N</name>\
             </stateVariable></serviceStateTable></scpd>",
            action("Add", &[argument("A", "in"), argument("B", "in")]),
            action("Get", &[argument("C", "out"), argument("D", "in")]),
        );
        let inputs = inputs(text.as_bytes()).unwrap();
        let of = |name: &str| inputs.get(name).cloned().unwrap_or_default();
        assert_eq!((of("Add"), of("Get")), (vec!["A".into(), "B".into()], vec!["D".into()]));
        assert_eq!(inputs.len(), 2);
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            service(&bytes);
            inputs(&bytes);
            if let Some((_, path)) = location(&bytes) {
                prop_assert!(path.starts_with('/'));
            }
        }
    }
}
