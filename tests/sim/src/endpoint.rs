//! The endpoints of invitations, and the connections to them.
//!
//! An endpoint is reached by its key alone. A connection to it is one stream, which is ordered and
//! loses nothing while it lives; when it is cut each end notices in its own time.

use weft_core::Input;
use weft_protocol::{codec, frame::FRAME_BYTES_MAX, id::EndpointId, pairing::PairingMessage};
use weft_trust::{pairing::JoinerInput, secret::DeviceSecret};

use crate::{
    fault::Moment,
    network::SECOND,
    pairing::PairingHappening,
    world::{Happening, World},
};

/// A connection to an endpoint.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) inviter: usize,
    pub(crate) boot: u64,
    pub(crate) endpoint: u64,
    pub(crate) joiner: usize,
    pub(crate) attempt: usize,
    pub(crate) delay: u64,
    /// When the last frame to the inviter and to the joiner arrives.
    pub(crate) last: [u64; 2],
    pub(crate) dead: bool,
}

impl World {
    pub(crate) fn dialled(&mut self, host: usize, attempt: usize) {
        let Some(joining) = &self.hosts[host].joining else { return };
        if joining.attempt != attempt || joining.link.is_some() {
            return;
        }
        let (key, target) = (joining.key, joining.target);
        let found = (0..self.hosts.len()).find_map(|at| {
            let open = self.hosts[at].endpoints.iter().find(|(_, id)| **id == target)?;
            (self.hosts[at].is_up() && !self.is_barred(at, host)).then_some((at, *open.0))
        });
        let Some((inviter, endpoint)) = found else {
            self.feed_joiner(host, attempt, JoinerInput::Disconnected);
            return;
        };
        self.pairings.next += 1;
        let link = self.pairings.next;
        let (boot, delay) = (self.hosts[inviter].boots, self.dice.pairing.between(200, 30_000));
        let it = Link {
            inviter,
            boot,
            endpoint,
            joiner: host,
            attempt,
            delay,
            last: [0; 2],
            dead: false,
        };
        self.pairings.links.insert(link, it);
        if let Some(joining) = &mut self.hosts[host].joining {
            joining.link = Some(link);
        }
        self.feed(inviter, Input::PairingConnected { endpoint, link, remote: key });
        self.feed_joiner(host, attempt, JoinerInput::Connected(target));
    }

    /// Puts a frame on its way: to the inviter (0) or to the joiner (1).
    pub(crate) fn pairing_frame(&mut self, link: u64, to: usize, bytes: Vec<u8>) {
        let Some(it) = self.pairings.links.get(&link) else { return };
        let (inviter, joiner, delay) = (it.inviter, it.joiner, it.delay);
        if it.dead {
            return;
        }
        let cut = !self.pairings.smooth && self.healed.is_none() && self.dice.pairing.chance(4);
        if cut || self.is_barred(inviter, joiner) {
            self.cut_pairing(link);
            return;
        }
        let at = self.time + delay + self.dice.pairing.between(0, 2_000);
        let Some(it) = self.pairings.links.get_mut(&link) else { return };
        let at = at.max(it.last[to] + 1);
        it.last[to] = at;
        self.pairings.frames += 1;
        let happening = if to == 0 {
            PairingHappening::ToInviter { link, bytes }
        } else {
            PairingHappening::ToJoiner { link, bytes }
        };
        self.at(at, Happening::Pairing(happening));
    }

    /// Cuts a connection; each end notices in its own time.
    fn cut_pairing(&mut self, link: u64) {
        let Some(it) = self.pairings.links.get_mut(&link) else { return };
        if std::mem::replace(&mut it.dead, true) {
            return;
        }
        let (one, two) =
            (self.dice.pairing.between(100, 2 * SECOND), self.dice.pairing.between(100, SECOND));
        self.pairing_later(one, PairingHappening::GoneAtInviter { link });
        self.pairing_later(two, PairingHappening::GoneAtJoiner { link });
    }

    pub(crate) fn inviter_hears(&mut self, link: u64, bytes: Vec<u8>) {
        let Some(&Link { inviter, boot, endpoint, dead, .. }) = self.pairings.links.get(&link)
        else {
            return;
        };
        if !dead && self.runs(inviter, boot) {
            self.feed(inviter, Input::PairingFrame { endpoint, link, bytes });
        }
    }

    pub(crate) fn joiner_hears(&mut self, link: u64, bytes: &[u8]) {
        let Some(&Link { joiner, attempt, dead, .. }) = self.pairings.links.get(&link) else {
            return;
        };
        let speaks = self.hosts[joiner].joining.as_ref().is_some_and(|it| it.link == Some(link));
        if dead || !speaks {
            return;
        }
        match codec::decode::<PairingMessage>(bytes, FRAME_BYTES_MAX) {
            Ok(message) => self.feed_joiner(joiner, attempt, JoinerInput::Message(message)),
            Err(error) => {
                self.failures.add("pairing", format!("an inviter sends no message: {error}"));
            }
        }
    }

    pub(crate) fn gone_at_inviter(&mut self, link: u64) {
        let Some(it) = self.pairings.links.get_mut(&link) else { return };
        it.dead = true;
        let (inviter, boot, endpoint) = (it.inviter, it.boot, it.endpoint);
        if self.runs(inviter, boot) {
            self.feed(inviter, Input::PairingClosed { endpoint, link });
        }
    }

    pub(crate) fn gone_at_joiner(&mut self, link: u64) {
        let Some(it) = self.pairings.links.get_mut(&link) else { return };
        it.dead = true;
        let (joiner, attempt) = (it.joiner, it.attempt);
        if let Some(joining) = &mut self.hosts[joiner].joining
            && joining.link == Some(link)
        {
            joining.link = None;
            self.feed_joiner(joiner, attempt, JoinerInput::Disconnected);
        }
    }

    /// A node opens an endpoint.
    pub(crate) fn open_endpoint(&mut self, host: usize, endpoint: u64, seed: &[u8; 32]) {
        let boot = self.hosts[host].boots;
        self.hosts[host].endpoints.insert(endpoint, endpoint_of(seed));
        let wait = self.dice.pairing.between(500, 20_000);
        self.pairing_later(wait, PairingHappening::Listening { host, boot, endpoint });
    }

    /// A node sends a frame to who joins.
    pub(crate) fn send_pairing(&mut self, host: usize, link: u64, bytes: Vec<u8>) {
        self.pairing_frame(link, 1, bytes);
        self.moment(host, Moment::SentPairing);
    }

    /// A node closes a connection: what it sent goes out first.
    pub(crate) fn close_pairing_link(&mut self, link: u64) {
        let Some(it) = self.pairings.links.get(&link) else { return };
        let at = it.last[1].max(self.time) + 1;
        self.at(at, Happening::Pairing(PairingHappening::GoneAtJoiner { link }));
    }

    /// A node closes an endpoint.
    pub(crate) fn close_endpoint(&mut self, host: usize, endpoint: u64) {
        self.hosts[host].endpoints.remove(&endpoint);
        self.cut_pairings(|link| link.inviter == host && link.endpoint == endpoint);
    }

    /// Cuts the connection that was made last.
    #[cfg(test)]
    pub(crate) fn cut_newest_pairing(&mut self) {
        self.cut_pairing(self.pairings.next);
    }

    pub(crate) fn cut_pairings(&mut self, which: impl Fn(&Link) -> bool) {
        let links: Vec<u64> =
            self.pairings.links.iter().filter(|(_, it)| which(it)).map(|(id, _)| *id).collect();
        for link in links {
            self.cut_pairing(link);
        }
    }
}

/// The key of an endpoint that is made from a seed.
pub(crate) fn endpoint_of(seed: &[u8; 32]) -> EndpointId {
    EndpointId::from_bytes(*DeviceSecret::from_seed(seed).id().as_bytes())
}
