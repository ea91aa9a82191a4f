//! An exchange: one document's side of Automerge's sync protocol with one peer.

use automerge::sync::{BloomFilter, Message, MessageVersion, State, SyncDoc as _};
use weft_protocol::{document::ChangeHash, id::Digest, sync::Have};

use super::{Change, Document, DocumentError, catch, refused};

/// The most hashes that a message may list.
const HASHES_MAX: usize = 8_192;

/// The most messages that bring nothing new before an exchange is let rest.
const IDLE_ROUNDS_MAX: u32 = 8;

/// How many changes are taken back in the search for what a peer has.
const OLDER_MAX: usize = 16;

/// What is known of the peer's copy.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    state: State,
    /// What was said last, so that nothing is said twice: two sides that differ and cannot help it
    /// would answer each other for ever.
    said: Option<Digest>,
    /// Messages since a copy changed.
    idle_rounds: u32,
    /// Whether the peer must say something before this can end.
    asks: bool,
}

/// What one side tells the other about its copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// Its newest changes.
    pub(crate) heads: Vec<ChangeHash>,
    /// Changes that it asks for by hash.
    pub(crate) need: Vec<ChangeHash>,
    /// What it has, if the other may not know its heads: who knows them knows that.
    pub(crate) have: Option<Have>,
    /// Whether it waits for an answer.
    pub(crate) asks: bool,
}

/// What [`Document::next_message`] says.
#[derive(Debug)]
pub(crate) enum Next {
    /// To be sent.
    Say(Told, Vec<Change>),
    /// The peer's answer comes first.
    Wait,
    /// Both have the same.
    Settled,
    /// They differ, and there is nothing more to say.
    Stuck,
}

fn inner_hashes(hashes: &[ChangeHash]) -> Vec<automerge::ChangeHash> {
    hashes.iter().map(|hash| automerge::ChangeHash(hash.0)).collect()
}

fn outer_hashes(hashes: &[automerge::ChangeHash]) -> Vec<ChangeHash> {
    hashes.iter().map(|hash| ChangeHash(hash.0)).collect()
}

fn sorted(hashes: &[automerge::ChangeHash]) -> Vec<ChangeHash> {
    let mut hashes = outer_hashes(hashes);
    hashes.sort();
    hashes
}

impl Exchange {
    /// Nothing is known but changes that both once had.
    pub(crate) fn unknown(shared_heads: &[ChangeHash]) -> Self {
        Self::of(true, State { shared_heads: inner_hashes(shared_heads), ..State::new() })
    }

    /// The peer has exactly `heads`; `told`: and knows that they are here.
    pub(crate) fn known(heads: &[ChangeHash], told: bool) -> Self {
        let heads = inner_hashes(heads);
        let have =
            automerge::sync::Have { last_sync: heads.clone(), bloom: BloomFilter::default() };
        Self::of(
            !told,
            State {
                shared_heads: heads.clone(),
                last_sent_heads: if told { heads.clone() } else { Vec::new() },
                their_heads: Some(heads),
                their_need: Some(Vec::new()),
                their_have: Some(vec![have]),
                have_responded: told,
                ..State::new()
            },
        )
    }

    fn of(asks: bool, state: State) -> Self {
        Self { state, said: None, idle_rounds: 0, asks }
    }

    /// The heads that the peer was told last, ordered.
    pub(crate) fn told_heads(&self) -> Vec<ChangeHash> {
        sorted(&self.state.last_sent_heads)
    }

    /// Whether the peer said that its newest changes are these.
    pub(crate) fn has(&self, heads: &[ChangeHash]) -> bool {
        self.state.their_heads.as_ref().is_some_and(|theirs| sorted(theirs) == heads)
    }

    /// Changes that both have.
    pub(crate) fn shared_heads(&self) -> Vec<ChangeHash> {
        outer_hashes(&self.state.shared_heads)
    }
}

impl Document {
    /// The heads that this document had before its newest changes, one change after the other, as far as
    /// each was made when there was one head.
    pub(crate) fn older_heads(&self) -> Vec<Vec<ChangeHash>> {
        let mut older: Vec<Vec<ChangeHash>> = Vec::new();
        let mut heads = self.heads();
        while let [head] = heads[..]
            && older.len() < OLDER_MAX
            && let Some(change) = self.inner.get_change_meta_by_hash(&automerge::ChangeHash(head.0))
        {
            heads = sorted(&change.deps);
            older.push(heads.clone());
        }
        older
    }

    /// What to tell the peer. `held` are changes that came and are not applied, with the
    /// dependencies that they lack; those are asked for.
    pub(crate) fn next_message(
        &self,
        exchange: &mut Exchange,
        held: &[ChangeHash],
        lacking: &[ChangeHash],
    ) -> Result<Next, DocumentError> {
        if exchange.state.in_flight {
            // The peer has what is here and was told so: it need not answer.
            let heads = self.heads();
            let told = sorted(&exchange.state.last_sent_heads) == heads;
            let settled = told && !exchange.asks && exchange.has(&heads);
            return Ok(if settled { Next::Settled } else { Next::Wait });
        }
        let message = catch(|| self.inner.generate_sync_message(&mut exchange.state))?;
        let Some(message) = message else {
            return Ok(if exchange.has(&self.heads()) { Next::Settled } else { Next::Stuck });
        };
        let mut need: Vec<_> = outer_hashes(&message.need)
            .into_iter()
            .chain(lacking.iter().copied())
            .filter(|hash| held.binary_search(hash).is_err())
            .collect();
        need.sort();
        need.dedup();
        need.truncate(HASHES_MAX);
        // The heads alone are tried first, and say all to whoever knows them. Whose heads are unknown
        // here may not know those of here.
        let theirs = exchange.state.their_heads.as_deref().unwrap_or_default();
        let may_differ = theirs.iter().any(|hash| !self.has(&ChangeHash(hash.0)));
        let have = message.have.first().filter(|_| may_differ).map(|have| Have {
            last_sync: outer_hashes(&have.last_sync),
            bloom: have.bloom.to_bytes(),
        });
        let told = Told { heads: sorted(&message.heads), need, have, asks: exchange.asks };
        let mut changes = Vec::new();
        for chunk in message.changes.iter() {
            let change = catch(|| automerge::Change::try_from(chunk))?
                .map_err(|error| DocumentError::Damaged(error.to_string()))?;
            changes.extend(Change::from_inner(change));
        }
        let mut said =
            weft_protocol::codec::encode(&(&told.heads, &told.need, &told.have, told.asks));
        said.extend(changes.iter().flat_map(|change| change.hash().0));
        let said = Some(Digest::of(&said));
        if exchange.said == said || exchange.idle_rounds > IDLE_ROUNDS_MAX {
            exchange.state.in_flight = false;
            return Ok(Next::Stuck);
        }
        exchange.said = said;
        Ok(Next::Say(told, changes))
    }

    /// Takes what the peer told, with those of its changes that may be applied, as one batch.
    ///
    /// # Errors
    ///
    /// It is out of bounds, or Automerge refused or panicked. The document must then be read anew.
    pub(crate) fn receive(
        &mut self,
        exchange: &mut Exchange,
        told: &Told,
        changes: Vec<Change>,
    ) -> Result<(), DocumentError> {
        let out_of_bounds = || DocumentError::Refused {
            during: "exchange",
            why: "the message is out of bounds".to_owned(),
        };
        let last_sync = told.have.as_ref().map_or(0, |have| have.last_sync.len());
        if [told.heads.len(), told.need.len(), last_sync].iter().any(|len| *len > HASHES_MAX) {
            return Err(out_of_bounds());
        }
        let have = told.have.as_ref().map(|have| {
            let bloom = parse_bloom(&have.bloom).ok_or_else(out_of_bounds)?;
            Ok(automerge::sync::Have { last_sync: inner_hashes(&have.last_sync), bloom })
        });
        let have = have.transpose()?;
        let brings_news = !changes.is_empty();
        self.apply(changes)?;
        let known = told.heads.iter().all(|hash| self.has(hash));
        let have = if known {
            let last_sync = inner_hashes(&told.heads);
            Some(automerge::sync::Have { last_sync, bloom: BloomFilter::default() })
        } else {
            have
        };
        let message = Message {
            heads: inner_hashes(&told.heads),
            need: inner_hashes(&told.need),
            have: have.into_iter().collect(),
            changes: automerge::sync::ChunkList::empty(),
            flags: None,
            version: MessageVersion::V1,
        };
        exchange.idle_rounds = if brings_news { 0 } else { exchange.idle_rounds + 1 };
        exchange.asks = false;
        if told.asks {
            exchange.state.have_responded = false;
            exchange.said = None;
        }
        let last_sent = exchange.state.last_sent_heads.clone();
        catch(|| self.inner.receive_sync_message(&mut exchange.state, message))?
            .map_err(refused("exchange"))?;
        // Automerge takes equal heads for told ones. The peer waits for an answer all the same.
        exchange.state.last_sent_heads = last_sent;
        Ok(())
    }
}

/// A Bloom filter with Automerge's own parameters; others could make it reserve any memory.
fn parse_bloom(bytes: &[u8]) -> Option<BloomFilter> {
    if !bytes.is_empty() {
        // Entries, then 10 bits for each, then 7 probes.
        let entries = bytes.iter().position(|byte| byte & 0x80 == 0)?;
        if bytes[..=entries].iter().all(|byte| byte & 0x7f == 0)
            || bytes.get(entries + 1..entries + 3)? != [10, 7]
        {
            return None;
        }
    }
    BloomFilter::try_from(bytes).ok()
}
