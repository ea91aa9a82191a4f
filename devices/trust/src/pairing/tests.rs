use std::time::Duration;

use weft_protocol::{
    device::Role, id::EndpointId, pairing::PairingMessage, ticket::Ticket, time::Now,
};

use self::room::{BOTH_YES, PHONE, Persons, Room, THIEF, contacts, endpoint, invitation};
use super::*;
use crate::replica::{laptop, name, secret};

mod room;

mod by_ticket;

mod by_code;

mod crowd;

mod attack;

mod bad_network;
