//! Disks that are put back to another moment, and disks of which there are two.

use weft_core::witness::witnessed;
use weft_protocol::row::MemoryRows;

use crate::{
    disk::Disk,
    fault::Fault,
    host::Host,
    network::SECOND,
    world::{Happening, Violation, World},
};

/// What a machine is called that has a copy of another's disk.
const COPY: &str = "copy";

impl World {
    /// Copies a machine's disk as it is.
    pub(crate) fn take_image(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if !host.put_out && !host.stolen && !host.set_back && host.next.is_none() {
            host.image = Some((host.disk.durable().clone(), host.boots));
        }
    }

    /// Puts a machine's disk back to the copy that was made of it.
    pub(crate) fn put_image_back(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some((image, boots)) = host.image.take() else { return };
        if host.put_out || host.stolen {
            return;
        }
        let forgotten = host.forgotten + host.boots - boots;
        let (lineage, key) = (host.lineage(), host.id);
        let records = lineage.records(&key, 0, usize::MAX, &image).unwrap_or_default();
        let end = records.last().map(|(position, _)| *position);
        self.hosts[at].is_witnessed = self.hosts.iter().enumerate().any(|(other, host)| {
            let found = witnessed(key, host.disk.durable());
            let mut heads = found.into_iter().flat_map(|found| found.heads);
            other != at && host.belongs() && heads.any(|(_, head)| Some(head.position) > end)
        });
        self.set_back(at, image);
        self.hosts[at].forgotten = forgotten;
    }

    /// Has a copy of a machine's disk run beside it; some time later a person puts the device out.
    pub(crate) fn copy_beside(&mut self, host: usize) {
        let it = &self.hosts[host];
        if it.put_out || it.stolen || it.set_back || !it.joined || it.next.is_some() {
            return;
        }
        self.say(Some(host), || "is copied".to_owned());
        self.copy(host);
        let after = self.dice.faults.between(5 * SECOND, 12 * SECOND);
        self.later(after, Happening::Fault(Fault::Revoke { host, stolen: false }));
    }

    /// A machine of which there are two and which nobody has put out yet.
    pub(crate) fn doubled(&self) -> Option<usize> {
        let copy = self.hosts.iter().find(|host| host.name == COPY && !host.put_out)?;
        self.hosts.iter().position(|host| host.id == copy.id)
    }

    /// What an older disk or a copy of one brings with it by itself is no failure: that machine warns and is
    /// warned of, has forgotten what it did, and does it again.
    pub(crate) fn forgive_the_set_back(&mut self) {
        let of_itself = ["audit", "effects", "once", "timers", "notes", "runs"];
        let names: Vec<&str> =
            self.hosts.iter().filter(|host| host.set_back).map(|host| host.name).collect();
        let unnamed: Vec<&str> = self
            .hosts
            .iter()
            .filter(|host| host.is_witnessed && host.belongs())
            .map(|host| host.name)
            .filter(|name| {
                let warned =
                    |it: &&Violation| it.checker == "audit" && it.what.contains("warns at");
                !self.failures.0.iter().filter(warned).any(|it| it.what.contains(name))
            })
            .collect();
        self.failures.0.retain(|it| {
            !of_itself.contains(&it.checker) || !names.iter().any(|name| it.what.contains(name))
        });
        for name in unnamed {
            self.failures.add("audit", format!("nobody says that the disk of {name} was set back"));
        }
    }

    /// Puts a machine's disk back to what it was once, and starts the machine.
    pub(crate) fn set_back(&mut self, at: usize, image: MemoryRows) {
        self.crash(at);
        self.say(Some(at), || "has an older disk".to_owned());
        let host = &mut self.hosts[at];
        host.set_back = true;
        host.forgotten = 1;
        host.disk = Disk::restored(image);
        self.start(at);
    }

    /// Puts a machine beside the others that has a copy of another's disk.
    pub(crate) fn copy(&mut self, of: usize) -> usize {
        let original = &mut self.hosts[of];
        original.set_back = true;
        let copy = Host {
            name: COPY,
            disk: Disk::restored(original.disk.durable().clone()),
            secret: original.secret.clone(),
            former: original.former.clone(),
            next: None,
            image: None,
            node: None,
            boots: original.boots,
            plays: Default::default(),
            answers: Default::default(),
            serving: Default::default(),
            members: Default::default(),
            endpoints: Default::default(),
            joining: None,
            alarm: (None, 0),
            first_words: None,
            facts: original.facts.clone(),
            clock: original.clock.clone(),
            dials: Default::default(),
            relays: Default::default(),
            ..*original
        };
        let at = self.hosts.len();
        self.hosts.push(copy);
        self.checks.effects.grow();
        for other in 0..at {
            self.later(SECOND / 10, Happening::Redial(other, at));
        }
        self.start(at);
        at
    }
}
