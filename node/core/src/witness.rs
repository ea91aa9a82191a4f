//! Heads of audit chains: shown to other devices, countersigned, and held against each other.
//!
//! A device shows its newest head that is on disk. Whoever sees it signs it back and keeps it, so that a
//! chain that is rewritten, cut or forked afterwards is named by the others.

use std::{collections::BTreeMap, time::Duration};

use weft_protocol::{
    audit::{AuditMessage, Head, RECORD_BYTES_MAX},
    codec,
    id::DeviceId,
    row::{Item, ReadError, Row, Rows, Table, Write},
    signed::{Domain, Signed},
    time::Timestamp,
};

use crate::audit::Chain;

/// Heads are shown at most so often: a burst of records is one head.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// What came of a message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// To persist, without waiting.
    pub writes: Vec<Write>,
    /// To answer.
    pub answer: Option<AuditMessage>,
    /// What a person should know.
    pub warning: Option<String>,
}

/// The machine.
#[derive(Debug)]
pub struct Witnesses {
    me: DeviceId,
    /// The newest head of each other device that was seen here.
    others: BTreeMap<DeviceId, Head>,
    /// The head that is being made durable, or was.
    asked: Option<Head>,
    asked_at: Timestamp,
    /// The newest head that is on disk for sure: only this one leaves the device.
    durable: Option<Head>,
}

impl Witnesses {
    /// Reads what was seen before.
    ///
    /// # Errors
    ///
    /// The rows cannot be read.
    pub fn open(me: DeviceId, rows: &dyn Rows) -> Result<Self, ReadError> {
        let mut others = BTreeMap::new();
        for (row, bytes) in rows.scan_table(Table::Witness)? {
            if row.scope == me.as_bytes() || row.item != Item::Named(me.as_bytes().to_vec()) {
                continue;
            }
            let Ok(signed) = codec::decode::<Signed>(&bytes, RECORD_BYTES_MAX) else { continue };
            if let Ok(head) = signed.open::<Head>(Domain::Witness, RECORD_BYTES_MAX) {
                others.insert(head.device, head);
            }
        }
        Ok(Self { me, others, asked: None, asked_at: Timestamp::ZERO, durable: None })
    }

    /// Whether the chain has a head that was not shown yet, and when it may be.
    pub fn poll_timeout(&self, chain: &Chain) -> Option<Timestamp> {
        (chain.head() != self.asked).then(|| self.asked_at + SHOW_EVERY)
    }

    /// The head to make durable now, if one is due; [`Self::synced`] follows when it is.
    pub fn due(&mut self, chain: &Chain, now: Timestamp) -> Option<Head> {
        let head = chain.head()?;
        if Some(head) == self.asked || self.asked_at + SHOW_EVERY > now {
            return None;
        }
        self.asked = Some(head);
        self.asked_at = now;
        Some(head)
    }

    /// A head is on disk, with all before it. Gives what to tell all devices.
    pub fn synced(&mut self, head: Head, chain: &Chain) -> AuditMessage {
        self.durable = Some(head);
        AuditMessage::Head(chain.countersign(&head))
    }

    /// This device's newest head that is on disk, for a device that came.
    pub fn own(&self, chain: &Chain) -> Option<AuditMessage> {
        Some(AuditMessage::Head(chain.countersign(&self.durable?)))
    }

    /// What to say to a device that came: the newest head of its chain that was seen here.
    pub fn greeting(&self, device: &DeviceId, chain: &Chain) -> Option<AuditMessage> {
        let head = self.others.get(device)?;
        Some(AuditMessage::Witness(chain.countersign(head)))
    }

    /// Takes in another device's head, or its countersignature of this device's.
    pub fn handle_message(
        &mut self,
        from: DeviceId,
        from_name: &str,
        message: &AuditMessage,
        chain: &Chain,
    ) -> Seen {
        match message {
            AuditMessage::Head(signed) => self.head(from, from_name, signed, chain),
            AuditMessage::Witness(signed) => self.witnessed(from, from_name, signed, chain),
            // Bodies go to servers in a later release; a node that asks is not answered.
            AuditMessage::Want { .. } | AuditMessage::Records { .. } => Seen::default(),
        }
    }

    fn head(&mut self, from: DeviceId, name: &str, signed: &Signed, chain: &Chain) -> Seen {
        let Ok(head) = signed.open::<Head>(Domain::Witness, RECORD_BYTES_MAX) else {
            return Seen::default();
        };
        if signed.author != from || head.device != from {
            return Seen::default();
        }
        if let Some(known) = self.others.get(&from) {
            let forked = head.segment == known.segment
                && head.position == known.position
                && head.digest != known.digest;
            if forked {
                return Seen {
                    warning: Some(format!(
                        "the audit chain of {name} is forked at record {}: somebody else uses its key, or its disk was copied",
                        head.position
                    )),
                    ..Seen::default()
                };
            }
            if head.position < known.position {
                return Seen {
                    answer: Some(AuditMessage::Witness(chain.countersign(known))),
                    warning: Some(format!(
                        "the audit chain of {name} ends at record {}, and record {} of it was seen here before: its disk was set back",
                        head.position, known.position
                    )),
                    ..Seen::default()
                };
            }
        }
        self.others.insert(from, head);
        let witness = chain.countersign(&head);
        let row = Row::named(Table::Witness, from.as_bytes(), self.me.as_bytes());
        Seen {
            writes: vec![Write::Put(row, codec::encode(&witness))],
            answer: Some(AuditMessage::Witness(witness)),
            warning: None,
        }
    }

    fn witnessed(&self, from: DeviceId, name: &str, signed: &Signed, chain: &Chain) -> Seen {
        let Ok(head) = signed.open::<Head>(Domain::Witness, RECORD_BYTES_MAX) else {
            return Seen::default();
        };
        if signed.author != from || head.device != self.me {
            return Seen::default();
        }
        let ahead = chain.head().is_none_or(|own| own.position < head.position);
        let row = Row::named(Table::Witness, self.me.as_bytes(), from.as_bytes());
        Seen {
            writes: vec![Write::Put(row, codec::encode(signed))],
            answer: None,
            warning: ahead.then(|| {
                format!(
                    "{name} has seen record {} of this device's audit chain, which ends before it: this disk was set back",
                    head.position
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use weft_protocol::{
        audit::Body,
        id::{BootId, SegmentId},
        row::MemoryRows,
        time::WallTime,
    };

    use super::*;
    use crate::audit::{Fault, verify, witnessed};

    struct Node {
        rows: MemoryRows,
        chain: Chain,
        witnesses: Witnesses,
        id: DeviceId,
    }

    fn node(seed: u8) -> Node {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let id = DeviceId::from_bytes(key.verifying_key().to_bytes());
        let mut rows = MemoryRows::default();
        let mut chain = Chain::open(key, SegmentId::from_bytes([seed; 16]), &rows).unwrap();
        rows.apply(chain.start(BootId { counter: 1, random: 1 }, None, WallTime::default()));
        let witnesses = Witnesses::open(id, &rows).unwrap();
        Node { rows, chain, witnesses, id }
    }

    impl Node {
        fn act(&mut self) {
            let body = Body::Operator { action: "something".into() };
            let (_, writes) = self.chain.append(body, WallTime::default());
            self.rows.apply(writes);
        }

        fn hear(&mut self, from: &Self, message: &AuditMessage) -> Seen {
            let seen = self.witnesses.handle_message(from.id, "other", message, &self.chain);
            self.rows.apply(seen.writes.clone());
            seen
        }

        fn head(&self) -> AuditMessage {
            AuditMessage::Head(self.chain.signed_head().unwrap())
        }
    }

    #[test]
    fn a_chain_that_is_cut_after_it_was_seen_is_named() {
        let (mut laptop, mut server) = (node(1), node(2));
        laptop.act();
        let seen = server.hear(&laptop, &laptop.head());
        laptop.hear(&server, &seen.answer.unwrap());
        let heads = || witnessed(laptop.id, &laptop.rows).unwrap();
        assert_eq!(heads().len(), 1);
        let heads: Vec<_> = heads().into_iter().map(|(_, head)| head).collect();
        assert!(verify(laptop.id, heads.clone(), &laptop.rows).is_ok());
        let mut cut = laptop.rows.clone();
        cut.apply([Write::Delete(Row::numbered(Table::Audit, &[], 1))]);
        assert_eq!(verify(laptop.id, heads, &cut), Err(Fault::CutOff(1)));
    }

    #[test]
    fn a_fork_and_a_setback_are_named_by_who_saw_the_chain_before() {
        let (mut laptop, mut server) = (node(1), node(2));
        let before = laptop.chain.signed_head().unwrap();
        laptop.act();
        assert_eq!(server.hear(&laptop, &laptop.head()).warning, None);
        let setback = server.hear(&laptop, &AuditMessage::Head(before));
        assert!(setback.warning.unwrap().contains("set back"));
        let mut forked = node(1);
        let (_, _) = forked.chain.append(Body::Checkpoint, WallTime::default());
        assert!(server.hear(&laptop, &forked.head()).warning.unwrap().contains("forked"));
    }

    #[test]
    fn a_head_of_somebody_else_is_not_signed() {
        let (laptop, mut server, phone) = (node(1), node(2), node(3));
        assert_eq!(server.hear(&phone, &laptop.head()), Seen::default());
    }
}
