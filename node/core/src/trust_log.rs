//! The trust log: what was said about who belongs, each statement as a sentence, and what became of it.
//!
//! A pure function of the graph. A sentence names devices as they were called when it was said; a name
//! that two devices ever had comes with the id.

use std::collections::{BTreeMap, BTreeSet};

use weft_protocol::{
    codec,
    device::Role,
    id::{DeviceId, StatementId},
    statement::{Name, STATEMENT_BYTES_MAX, Statement, StatementBody},
    time::WallTime,
};
use weft_trust::{
    graph::{Graph, statement_id},
    state::{Standing, State, Verdict},
};

/// How people call the root.
const ROOT: &str = "the recovery words";

/// One statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatementView {
    /// Its id.
    pub id: StatementId,
    /// When it was made, by its author's clock.
    pub time: WallTime,
    /// What it is, as `add` or `set-role`.
    pub kind: String,
    /// Whose key signed it.
    pub author: DeviceId,
    /// The author's name then, or `the recovery words`.
    pub by: String,
    /// Whom it is about, where it is about a device.
    pub device: Option<DeviceId>,
    /// What it says: `laptop added phone (member; words compared)`.
    pub sentence: String,
    /// `counts`, `frozen`, `void` or `powerless`.
    pub verdict: &'static str,
    /// Why it does not count, where it does not.
    pub why: Option<String>,
}

/// All statements, each after those that it rests on.
pub fn trust_log(graph: &Graph) -> Vec<StatementView> {
    let statements: Vec<Said<'_>> =
        graph.statements().filter_map(|it| Said::read(graph, it)).collect();
    let mut names = Names::of(&statements);
    let judge = Judge { state: graph.state(), statements: &statements };
    statements
        .iter()
        .map(|said| {
            let verdict = judge.state.verdicts.get(&said.id).copied().unwrap_or(Verdict::Powerless);
            let by = names.label(&said.author);
            let sentence = names.sentence(said, &by);
            if verdict == Verdict::Counts {
                names.follow(said);
            }
            StatementView {
                id: said.id,
                time: said.time,
                kind: kebab(said.body.word()),
                author: said.author,
                device: subject(said),
                sentence,
                verdict: word(verdict),
                why: judge.why(said, &by, verdict),
                by,
            }
        })
        .collect()
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Counts => "counts",
        Verdict::Frozen => "frozen",
        Verdict::Void => "void",
        Verdict::Powerless => "powerless",
    }
}

/// `SetRole` as `set-role`.
fn kebab(word: &str) -> String {
    let mut text = String::new();
    for (at, c) in word.char_indices() {
        if c.is_uppercase() && at > 0 {
            text.push('-');
        }
        text.extend(c.to_lowercase());
    }
    text
}

/// A statement, read.
struct Said<'a> {
    id: StatementId,
    author: DeviceId,
    seq: u64,
    time: WallTime,
    body: &'a StatementBody,
}

impl<'a> Said<'a> {
    fn read(graph: &'a Graph, signed: &weft_protocol::signed::Signed) -> Option<Self> {
        let id = statement_id(signed);
        let statement: Statement = codec::decode(&signed.bytes, STATEMENT_BYTES_MAX).ok()?;
        let body = graph.body(&id)?;
        Some(Self { id, author: signed.author, seq: statement.seq, time: statement.time, body })
    }
}

/// Whom a statement is about.
fn subject(said: &Said<'_>) -> Option<DeviceId> {
    match said.body {
        StatementBody::Genesis(_) => Some(said.author),
        StatementBody::Add(it) => Some(it.device),
        StatementBody::Revoke(it) => Some(it.device),
        StatementBody::Rotate(it) => Some(it.device),
        StatementBody::SetRole(it) => Some(it.device),
        StatementBody::Rename(it) => it.device,
        StatementBody::Keep(it) => Some(it.device),
        StatementBody::RootRotate(_)
        | StatementBody::Epoch(_)
        | StatementBody::Require(_)
        | StatementBody::Cosign(_)
        | StatementBody::Unknown(_) => None,
    }
}

/// How devices are called at a place in the log.
struct Names {
    now: BTreeMap<DeviceId, Name>,
    fabric: Option<Name>,
    /// Names that more than one device ever had.
    shared: BTreeSet<Name>,
    roots: BTreeSet<DeviceId>,
}

impl Names {
    fn of(statements: &[Said<'_>]) -> Self {
        let mut had: BTreeMap<&Name, BTreeSet<DeviceId>> = BTreeMap::new();
        let (mut now, mut roots) = (BTreeMap::new(), BTreeSet::new());
        for said in statements {
            let named = match said.body {
                StatementBody::Genesis(it) => {
                    roots.extend(it.root.map(|root| root.key));
                    Some((said.author, &it.name))
                }
                StatementBody::Add(it) => Some((it.device, &it.name)),
                StatementBody::Rename(it) => it.device.map(|device| (device, &it.name)),
                StatementBody::RootRotate(it) => {
                    roots.insert(it.root.key);
                    None
                }
                StatementBody::Revoke(_)
                | StatementBody::Rotate(_)
                | StatementBody::Epoch(_)
                | StatementBody::Require(_)
                | StatementBody::Cosign(_)
                | StatementBody::SetRole(_)
                | StatementBody::Keep(_)
                | StatementBody::Unknown(_) => None,
            };
            let Some((device, name)) = named else { continue };
            had.entry(name).or_default().insert(device);
            // One that is named before it is brought in has the name that it comes with.
            now.entry(device).or_insert_with(|| name.clone());
        }
        let shared = had.into_iter().filter(|(_, devices)| devices.len() > 1);
        let shared = shared.map(|(name, _)| name.clone()).collect();
        Self { now, fabric: None, shared, roots }
    }

    fn label(&self, device: &DeviceId) -> String {
        if self.roots.contains(device) {
            return ROOT.to_owned();
        }
        match self.now.get(device) {
            Some(name) if self.shared.contains(name) => format!("{name} ({})", device.short()),
            Some(name) => name.as_str().to_owned(),
            None => device.short(),
        }
    }

    /// Takes up what a statement that counts changed.
    fn follow(&mut self, said: &Said<'_>) {
        match said.body {
            StatementBody::Rename(it) => match it.device {
                Some(device) => drop(self.now.insert(device, it.name.clone())),
                None => self.fabric = Some(it.name.clone()),
            },
            StatementBody::Genesis(it) => self.fabric = Some(it.fabric.clone()),
            StatementBody::Rotate(it) => {
                if let Some(name) = self.now.get(&said.author).cloned() {
                    self.now.insert(it.device, name);
                }
            }
            StatementBody::Add(_)
            | StatementBody::Revoke(_)
            | StatementBody::RootRotate(_)
            | StatementBody::Epoch(_)
            | StatementBody::Require(_)
            | StatementBody::Cosign(_)
            | StatementBody::SetRole(_)
            | StatementBody::Keep(_)
            | StatementBody::Unknown(_) => {}
        }
    }

    fn sentence(&self, said: &Said<'_>, by: &str) -> String {
        let label = |device: &DeviceId| self.label(device);
        match said.body {
            StatementBody::Genesis(it) => {
                let words = if it.root.is_some() { "with" } else { "without" };
                format!("{by} began the fabric {} ({words} recovery words)", it.fabric)
            }
            StatementBody::Add(it) => {
                // As the evaluation has it: what nobody compared gives no more than a member.
                let role = if it.confirmed { it.role } else { it.role.max(Role::Member) };
                let how = if it.confirmed { "words compared" } else { "unconfirmed: invite --yes" };
                format!("{by} added {} ({role}; {how})", label(&it.device))
            }
            StatementBody::Revoke(it) => format!("{by} revoked {}", label(&it.device)),
            StatementBody::Rotate(it) => {
                let (old, new) = (said.author.short(), it.device.short());
                format!("{by} replaced its key: {old} became {new}")
            }
            StatementBody::RootRotate(_) => "the recovery words were replaced by new ones".into(),
            StatementBody::Epoch(it) => {
                let heads: Vec<String> = it.heads.iter().map(StatementId::short).collect();
                format!("{by} fixed what had happened by {}", heads.join(", "))
            }
            StatementBody::Require(it) => {
                format!("{by} asked that changes need {} admins", it.admins)
            }
            StatementBody::Cosign(it) => format!("{by} joined in {}", it.statement.short()),
            StatementBody::SetRole(it) => {
                let article = if it.role == Role::Admin { "an" } else { "a" };
                format!("{by} made {} {article} {}", label(&it.device), it.role)
            }
            StatementBody::Rename(it) => match &it.device {
                Some(device) if *device == said.author => {
                    format!("{by} renamed itself {}", it.name)
                }
                Some(device) => format!("{by} renamed {} to {}", label(device), it.name),
                // Nothing new is said, and that it was said counts.
                None if self.fabric.as_ref() == Some(&it.name) => {
                    format!("{by} vouched for the fabric")
                }
                None => format!("{by} renamed the fabric to {}", it.name),
            },
            StatementBody::Keep(it) => {
                format!("{by} kept {}, in spite of {}", label(&it.device), it.cause.short())
            }
            StatementBody::Unknown(kind) => {
                format!("{by} said something of kind {kind}, which this version cannot read")
            }
        }
    }
}

/// Says why statements do not count.
struct Judge<'a> {
    state: &'a State,
    statements: &'a [Said<'a>],
}

impl Judge<'_> {
    fn why(&self, said: &Said<'_>, by: &str, verdict: Verdict) -> Option<String> {
        let standing = self.state.devices.get(&said.author).map(|device| device.standing);
        let is_forked = || {
            let is_other_side =
                |it: &Said<'_>| (it.author, it.seq) == (said.author, said.seq) && it.id != said.id;
            self.statements.iter().any(is_other_side)
        };
        let epoch = || {
            let fixes = |it: &&Said<'_>| matches!(it.body, StatementBody::Epoch(_));
            let counts = |it: &Said<'_>| self.state.verdicts.get(&it.id) == Some(&Verdict::Counts);
            self.statements.iter().filter(fixes).any(counts)
        };
        Some(match (verdict, standing) {
            (Verdict::Counts, _) => return None,
            (Verdict::Powerless, _) => format!("{by} had no right to it"),
            (Verdict::Frozen, Some(Standing::Suspended { .. })) => format!("{by} is suspended"),
            (Verdict::Frozen, _) => "what it rests on is frozen".to_owned(),
            (Verdict::Void, _) if is_forked() => {
                format!("{by} signed another in its place, and that one was kept")
            }
            (Verdict::Void, Some(Standing::Revoked { .. })) => {
                format!("{by} is out, and who put it out did not know of this")
            }
            (Verdict::Void, _) if epoch() => format!("{ROOT} overruled it"),
            (Verdict::Void, _) => "what it rests on is void".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
