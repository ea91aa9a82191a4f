//! Tickets: what a person carries from one screen to the other to invite a device.
//!
//! A ticket is `WEFT1:` and the upper-case base32 of its CBOR and a checksum, so that a QR code
//! holds it in alphanumeric mode. Whoever reads it may ask once to join.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use data_encoding::BASE32_NOPAD;
use minicbor::{Decode, Decoder, Encode, Encoder, data::Type, decode, encode};
use thiserror::Error;

use crate::{
    codec,
    device::Role,
    id::{EndpointId, FabricId},
};

/// What every ticket of this version begins with.
pub const TICKET_PREFIX: &str = "WEFT1:";

/// The longest text of a ticket. What is written here stays under 300 characters.
pub const TICKET_CHARS_MAX: usize = 1_000;

/// The most addresses in a ticket.
pub const ADDRESSES_MAX: usize = 3;

/// The longest address that is not an IP address, in bytes.
const ADDRESS_BYTES_MAX: usize = 128;

const CHECKSUM_BYTES: usize = 4;

/// Why a text is not a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ParseTicketError {
    /// It does not begin as one.
    #[error("read the ticket: it does not begin with {TICKET_PREFIX}")]
    NotATicket,
    /// It begins as one of another version.
    #[error("read the ticket: it was written by another version of weft; update the older device")]
    OtherVersion,
    /// Longer than any ticket.
    #[error("read the ticket: {0} characters are more than a ticket has")]
    TooLong(usize),
    /// It begins as one, and the rest was changed or cut.
    #[error("read the ticket: it is damaged; copy it again, whole")]
    Damaged,
}

/// An invitation to one fabric, good for one device and a short time.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Ticket {
    /// The beginning of the fabric's id.
    #[n(0)]
    pub fabric: FabricPrefix,
    /// Who answers, for as long as the invitation is open.
    #[n(1)]
    pub endpoint: EndpointId,
    /// Where it answers, best first; at most [`ADDRESSES_MAX`].
    #[n(2)]
    pub addresses: Vec<TicketAddress>,
    /// Known to who has read the ticket, and to nobody else.
    #[n(3)]
    pub secret: TicketSecret,
    /// How long it was valid when it was made, in seconds. The inviter's clock alone decides.
    #[n(4)]
    pub valid_s: u16,
    /// The most that the device may become.
    #[n(5)]
    pub role: Role,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = codec::encode(self);
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        write!(f, "{TICKET_PREFIX}{}", BASE32_NOPAD.encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    /// Reads a ticket in any case, with any white space in it, as mail and terminals break lines.
    fn from_str(text: &str) -> Result<Self, ParseTicketError> {
        use ParseTicketError::{Damaged, NotATicket, OtherVersion, TooLong};
        if text.len() > TICKET_CHARS_MAX {
            return Err(TooLong(text.len()));
        }
        let text: String = text.split_ascii_whitespace().collect::<String>().to_ascii_uppercase();
        let Some(payload) = text.strip_prefix(TICKET_PREFIX) else {
            let version = text.strip_prefix("WEFT").and_then(|rest| rest.split_once(':'));
            let other = version.is_some_and(|(version, _)| {
                !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit())
            });
            return Err(if other { OtherVersion } else { NotATicket });
        };
        let bytes = BASE32_NOPAD.decode(payload.as_bytes()).map_err(|_| Damaged)?;
        let cut = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(Damaged)?;
        let (content, sum) = bytes.split_at(cut);
        if sum != checksum(content) {
            return Err(Damaged);
        }
        let ticket: Self = codec::decode(content, TICKET_CHARS_MAX).map_err(|_| Damaged)?;
        if ticket.addresses.len() > ADDRESSES_MAX { Err(Damaged) } else { Ok(ticket) }
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("weft ticket checksum v1", bytes);
    hash[..CHECKSUM_BYTES].try_into().expect("four of 32 bytes")
}

/// The beginning of a fabric's id: enough to notice the wrong fabric, too little to name one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct FabricPrefix(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    [u8; 8],
);

impl FabricPrefix {
    /// Whether `fabric` begins so.
    pub fn is_of(&self, fabric: &FabricId) -> bool {
        Self::from(*fabric) == *self
    }
}

impl From<FabricId> for FabricPrefix {
    fn from(fabric: FabricId) -> Self {
        Self(fabric.as_bytes()[..8].try_into().expect("eight of 32 bytes"))
    }
}

/// The secret of a ticket. It does not show itself; [`Ticket`]'s text form does.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct TicketSecret(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    [u8; 16],
);

impl TicketSecret {
    /// Takes drawn bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for deriving keys.
    pub const fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

/// How to talk at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// QUIC version 1 over UDP.
    Quic,
    /// TCP.
    Tcp,
}

/// An address in a ticket. Its text form is a multiaddr without a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TicketAddress {
    /// Seven bytes on the wire.
    Ip4(Ipv4Addr, u16, Transport),
    /// Nineteen bytes on the wire.
    Ip6(Ipv6Addr, u16, Transport),
    /// Any other multiaddr, as text.
    Other(OtherAddress),
}

/// A multiaddr that is not of the compact forms; at most 128 bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtherAddress(String);

/// A text is not an address for a ticket.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("read {0:?} as an address: expected a multiaddr of at most {ADDRESS_BYTES_MAX} bytes")]
pub struct ParseAddressError(String);

impl FromStr for TicketAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let parts: Vec<&str> = text.split('/').collect();
        let transport = |parts: &[&str]| match parts {
            ["udp", port, "quic-v1"] => Some((port.parse().ok()?, Transport::Quic)),
            ["tcp", port] => Some((port.parse().ok()?, Transport::Tcp)),
            _ => None,
        };
        let compact = match parts.as_slice() {
            ["", "ip4", ip, rest @ ..] => ip
                .parse()
                .ok()
                .zip(transport(rest))
                .map(|(ip, (port, transport))| Self::Ip4(ip, port, transport)),
            ["", "ip6", ip, rest @ ..] => ip
                .parse()
                .ok()
                .zip(transport(rest))
                .map(|(ip, (port, transport))| Self::Ip6(ip, port, transport)),
            _ => None,
        };
        match compact {
            // A port such as `0080` has another text form; it stays as it was written.
            Some(address) if address.to_string() == text => Ok(address),
            _ => {
                let plain = text.bytes().all(|b| b.is_ascii_graphic());
                if plain && text.starts_with('/') && text.len() <= ADDRESS_BYTES_MAX {
                    Ok(Self::Other(OtherAddress(text.to_owned())))
                } else {
                    Err(ParseAddressError(text.chars().take(ADDRESS_BYTES_MAX).collect()))
                }
            }
        }
    }
}

impl fmt::Display for TicketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip4(ip, port, Transport::Quic) => write!(f, "/ip4/{ip}/udp/{port}/quic-v1"),
            Self::Ip4(ip, port, Transport::Tcp) => write!(f, "/ip4/{ip}/tcp/{port}"),
            Self::Ip6(ip, port, Transport::Quic) => write!(f, "/ip6/{ip}/udp/{port}/quic-v1"),
            Self::Ip6(ip, port, Transport::Tcp) => write!(f, "/ip6/{ip}/tcp/{port}"),
            Self::Other(OtherAddress(text)) => f.write_str(text),
        }
    }
}

const QUIC: u8 = 0;
const TCP: u8 = 1;

const fn transport_byte(transport: Transport) -> u8 {
    match transport {
        Transport::Quic => QUIC,
        Transport::Tcp => TCP,
    }
}

impl<C> Encode<C> for TicketAddress {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let compact = |ip: &[u8], port: u16, transport| {
            [&[transport_byte(transport)], ip, port.to_be_bytes().as_slice()].concat()
        };
        match self {
            Self::Ip4(ip, port, transport) => {
                e.bytes(&compact(&ip.octets(), *port, *transport))?.ok()
            }
            Self::Ip6(ip, port, transport) => {
                e.bytes(&compact(&ip.octets(), *port, *transport))?.ok()
            }
            Self::Other(OtherAddress(text)) => e.str(text)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for TicketAddress {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let wrong = || decode::Error::message("an address");
        if d.datatype()? == Type::String {
            return d.str()?.parse().map_err(|_| wrong());
        }
        let bytes = d.bytes()?;
        let [transport, ip @ .., high, low] = bytes else { return Err(wrong()) };
        let port = u16::from_be_bytes([*high, *low]);
        let transport = match *transport {
            QUIC => Transport::Quic,
            TCP => Transport::Tcp,
            _ => return Err(wrong()),
        };
        if let Ok(ip) = <[u8; 4]>::try_from(ip) {
            Ok(Self::Ip4(ip.into(), port, transport))
        } else if let Ok(ip) = <[u8; 16]>::try_from(ip) {
            Ok(Self::Ip6(ip.into(), port, transport))
        } else {
            Err(wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    #[test]
    fn fits_a_small_qr_code() {
        let text = ticket().to_string();
        // Version 10 at level M holds 311 alphanumeric characters.
        assert!(text.len() <= 280, "{} characters", text.len());
        assert!(text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b':'));
        assert_eq!(text.parse(), Ok(ticket()));
    }

    #[test]
    fn is_read_as_mail_and_terminals_leave_it() {
        let text = ticket().to_string();
        let (left, right) = text.split_at(60);
        let wrapped = format!("  {}\n  {right}\n", left.to_lowercase());
        assert_eq!(wrapped.parse(), Ok(ticket()));
    }

    #[test]
    fn says_what_is_wrong() {
        let text = ticket().to_string();
        let cases = [
            (String::new(), ParseTicketError::NotATicket),
            ("hello".to_owned(), ParseTicketError::NotATicket),
            ("WEFT:ABC".to_owned(), ParseTicketError::NotATicket),
            (text.replace("WEFT1:", "WEFT2:"), ParseTicketError::OtherVersion),
            (text[..text.len() - 1].to_owned(), ParseTicketError::Damaged),
            ("WEFT1:".to_owned(), ParseTicketError::Damaged),
            ("WEFT1:1".to_owned(), ParseTicketError::Damaged),
            ("X".repeat(1_001), ParseTicketError::TooLong(1_001)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Ticket>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn four_addresses_are_damage() {
        let mut long = ticket();
        long.addresses.push(long.addresses[0].clone());
        assert_eq!(long.to_string().parse::<Ticket>(), Err(ParseTicketError::Damaged));
    }

    #[test]
    fn the_secret_does_not_show() {
        let shown = format!("{:?}", ticket());
        assert!(shown.contains("TicketSecret(..)"), "{shown}");
        assert!(!shown.contains("77"), "{shown}");
    }

    proptest! {
        #[test]
        fn round_trips(
            prefix: [u8; 8], endpoint: [u8; 32], secret: [u8; 16], valid_s: u16,
            addresses in vec(address(), 0..=ADDRESSES_MAX),
        ) {
            let ticket = Ticket {
                fabric: FabricPrefix(prefix),
                endpoint: EndpointId::from_bytes(endpoint),
                addresses,
                secret: TicketSecret(secret),
                valid_s,
                role: Role::Member,
            };
            prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
        }

        #[test]
        fn an_address_round_trips_as_text(address in address()) {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn one_changed_character_is_damage(at in 6usize..184, to in "[A-Z2-7]") {
            let mut text = ticket().to_string();
            prop_assume!(&text[at..=at] != to.as_str());
            text.replace_range(at..=at, &to);
            prop_assert_eq!(text.parse::<Ticket>(), Err(ParseTicketError::Damaged));
        }

        #[test]
        fn survives_arbitrary_text(text in ".*", payload in "[A-Z2-7]{0,300}") {
            drop(text.parse::<Ticket>());
            drop(format!("WEFT1:{payload}").parse::<Ticket>());
        }

        /// Content near a good one's, with a good checksum: what is read keeps the bounds, and can be
        /// written and read again.
        #[test]
        fn survives_damaged_content(
            changes in vec((any::<usize>(), any::<u8>()), 1..6), cut in option::of(any::<usize>()),
        ) {
            let mut bytes = codec::encode(&ticket());
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut % (bytes.len() + 1));
            }
            bytes.extend(checksum(&bytes));
            let text = format!("{TICKET_PREFIX}{}", BASE32_NOPAD.encode(&bytes));
            if let Ok(ticket) = text.parse::<Ticket>() {
                prop_assert!(ticket.addresses.len() <= ADDRESSES_MAX);
                prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
            }
        }

        /// With a good checksum, arbitrary bytes reach the decoder.
        #[test]
        fn survives_arbitrary_content(mut bytes: Vec<u8>) {
            bytes.extend(checksum(&bytes));
            let text = format!("{TICKET_PREFIX}{}", BASE32_NOPAD.encode(&bytes));
            drop(text.parse::<Ticket>());
        }
    }

    fn address() -> impl Strategy<Value = TicketAddress> {
        let transport = || prop_oneof![Just(Transport::Quic), Just(Transport::Tcp)];
        prop_oneof![
            (any::<[u8; 4]>(), any::<u16>(), transport())
                .prop_map(|(ip, port, transport)| TicketAddress::Ip4(ip.into(), port, transport)),
            (any::<[u8; 16]>(), any::<u16>(), transport())
                .prop_map(|(ip, port, transport)| TicketAddress::Ip6(ip.into(), port, transport)),
            "/dns/[a-z]{1,20}/udp/4001/quic-v1"
                .prop_map(|text| TicketAddress::Other(OtherAddress(text))),
        ]
    }

    fn ticket() -> Ticket {
        Ticket {
            fabric: FabricPrefix([1; 8]),
            endpoint: EndpointId::from_bytes([2; 32]),
            addresses: vec![
                "/ip4/192.168.1.20/udp/41234/quic-v1".parse().unwrap(),
                "/ip6/fe80::1/udp/41234/quic-v1".parse().unwrap(),
                "/ip4/192.168.1.20/tcp/41234".parse().unwrap(),
            ],
            secret: TicketSecret([77; 16]),
            valid_s: 120,
            role: Role::Member,
        }
    }
}
