//! What doors ask, and the answers that need no machine of their own.

use weft_protocol::{
    audit::Body,
    codec,
    decision::Decision,
    device::Role,
    document::DocumentKind,
    host_call::Refusal,
    id::RunId,
    row::{ReadError, Table},
    value::Value,
};
use weft_trust::state::{Device, Standing};

use super::{After, Batch, Dispatch, Env, Named, Node, Requester, Task, audit, draw, runs};
use crate::{
    Context,
    audit::{Checked, Signatures},
    door::{
        AgentView, AuditView, Command, DeviceView, DocumentView, DoorId, Explanation, ForkView,
        Reply, RunView, Status, TimerView, Verification,
    },
    placement::device_named,
    registry::Installed,
    witness::{Witnessed, witnessed},
};

/// The most documents of one answer.
const DOCUMENTS_MAX: usize = 10_000;
/// The most records of one answer.
const RECORDS_MAX: usize = 10_000;

impl Node {
    pub(super) fn command(&mut self, door: DoorId, command: Command, context: Context<'_>) {
        let reply = match command {
            Command::Status => Ok(Reply::Status(Box::new(self.status(context)))),
            Command::Devices => Ok(Reply::Devices(self.device_views())),
            Command::Agents => Ok(Reply::Agents(self.agent_views())),
            Command::Do { words, plan, files, local_time, time_zone, can_ask } => {
                match self.named(&plan) {
                    Ok(named) => {
                        let run = RunId::from_bytes(draw(&mut self.rng));
                        let request = runs::Request {
                            words,
                            plan,
                            files,
                            local_time,
                            time_zone,
                            can_ask,
                            named,
                        };
                        let neighbours = self.neighbours();
                        let mut env = environment!(self, context, neighbours);
                        self.runs.start(run, Some(door), request, &mut env);
                        return;
                    }
                    Err(reason) => Err((Refusal::NotFound, reason)),
                }
            }
            Command::Explain { plan } => self.explain(&plan, context),
            Command::Cancel { run } => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                match self.runs.cancel(run, &mut env) {
                    Some(batch) => {
                        self.persist(batch, After::Done(door));
                        return;
                    }
                    None => Err((Refusal::NotFound, "no such run is under way here".to_owned())),
                }
            }
            Command::Consent { run, step, yes } => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                if self.dispatch.consent(run, &step, yes, &mut env) {
                    Ok(Reply::Done)
                } else {
                    Err((Refusal::NotFound, "nothing was asked there".to_owned()))
                }
            }
            Command::Runs => self.run_views(context).map(Reply::Runs),
            Command::Run { prefix } => self.run(&prefix, context),
            Command::Documents { kind, query, limit } => {
                self.documents(&kind, &query, limit, context)
            }
            Command::Timers => Ok(Reply::Timers(self.timer_views())),
            Command::Invite { role: Role::Keeper | Role::Guest, .. } => {
                Err((Refusal::Invalid, "a device joins as member or admin".to_owned()))
            }
            Command::Invite { role, confirmed_by_itself } => {
                if self.membership.role() == Some(Role::Admin) {
                    self.invitations.open(door, role, confirmed_by_itself, &mut self.rng);
                    return;
                }
                let why =
                    "only an admin device may invite; do it on one, or have this one made an admin";
                Err((Refusal::Denied, why.to_owned()))
            }
            Command::Confirm { yes, role: _ } => {
                let asked = self.invitations.confirm(yes, context.now, &mut self.membership);
                if asked {
                    Ok(Reply::Done)
                } else {
                    Err((Refusal::NotFound, "no device waits for a yes".to_owned()))
                }
            }
            Command::CloseInvitation => {
                self.invitations.close(context.now, &mut self.membership);
                Ok(Reply::Done)
            }
            Command::Revoke { device } => match self.revoke(door, &device, context) {
                Ok(()) => return,
                Err(refused) => Err(refused),
            },
            Command::Audit { position, limit } => audit_views(position, limit, context),
            Command::Verify { every_signature } => self.verify(every_signature, context),
            Command::Watch => Ok(Reply::Done),
        };
        let reply = reply.unwrap_or_else(|(refusal, reason)| Reply::Refused { refusal, reason });
        self.reply(door, reply);
    }

    fn status(&self, context: Context<'_>) -> Status {
        let state = self.membership.state();
        let me = state.devices.get(&self.me);
        let here = self.membership.others();
        let mut warnings = self.warnings.clone();
        if state.update_needed.is_some() {
            warnings.push("the fabric uses a newer version of weft; update this device".into());
        }
        warnings.extend(self.witnesses.forks().map(|fork| self.fork_warning(fork)));
        Status {
            fabric: state.fabric,
            fabric_name: state.name.as_str().to_owned(),
            device: self.me,
            agreement: self.membership.secret().agreement().public(),
            name: me.map_or_else(String::new, |me| me.name.as_str().to_owned()),
            kind: me.map_or(weft_protocol::device::Kind::Laptop, |me| me.kind),
            role: me.map_or(Role::Guest, |me| me.role),
            recovery: state.root.is_some(),
            addresses: self.presence.own().addresses.clone(),
            devices_here: here.iter().filter(|it| self.links.of(it).is_some()).count(),
            devices: here.len(),
            documents: self.replica.len(),
            runs: self.runs.len(),
            audit_head: self.chain.stored_head(),
            policy: context.policy.digest(),
            models: self.presence.own().models.iter().map(|model| model.name.clone()).collect(),
            warnings,
        }
    }

    fn device_views(&self) -> Vec<DeviceView> {
        let state = self.membership.state();
        let mut views: Vec<DeviceView> = state
            .devices
            .iter()
            .map(|(id, device)| {
                let link = self.links.of(id);
                let this = *id == self.me;
                let presence = self.presence.of(id);
                let own = &self.presence.own().models;
                let models = if this { Some(own) } else { presence.map(|it| &it.models) };
                DeviceView {
                    id: *id,
                    name: device.name.as_str().to_owned(),
                    kind: device.kind,
                    role: device.role,
                    state: standing(device, this || link.is_some()).to_owned(),
                    this,
                    address: link.map(|link| link.address.clone()),
                    round_trip_micros: link.and_then(|link| link.round_trip_micros),
                    since: link.map(|link| link.since).or_else(|| self.links.away_since(id)),
                    models: models
                        .map(|models| models.iter().map(|model| model.name.clone()).collect())
                        .unwrap_or_default(),
                    confirmed: device.confirmed,
                }
            })
            .collect();
        views.sort_by(|a, b| (!a.this, &a.name).cmp(&(!b.this, &b.name)));
        views
    }

    fn agent_views(&self) -> Vec<AgentView> {
        let mut views: Vec<AgentView> =
            self.registry.installed().map(|agent| self.agent_view(agent)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    fn agent_view(&self, agent: &Installed) -> AgentView {
        let mut devices: Vec<String> = self
            .registry
            .devices_of(agent)
            .iter()
            .filter_map(|device| self.membership.subject(device))
            .map(|subject| subject.name)
            .collect();
        devices.sort();
        AgentView {
            name: agent.manifest.name.clone(),
            version: agent.manifest.version.clone(),
            digest: agent.digest,
            description: agent.manifest.description.clone(),
            capabilities: agent
                .manifest
                .capabilities
                .iter()
                .map(|it| {
                    let phrase = it.phrases.first().cloned();
                    (it.name.clone(), it.description.clone(), it.effect, phrase)
                })
                .collect(),
            devices,
        }
    }

    /// The devices that the words of a plan name.
    fn named(&self, plan: &weft_protocol::graph::Plan) -> Result<Named, String> {
        let subjects: Vec<_> = self.membership.subjects().collect();
        plan.steps
            .iter()
            .filter_map(|step| Some((step.index, step.device.as_ref()?)))
            .map(|(index, word)| Ok((index, device_named(&subjects, word)?)))
            .collect()
    }

    fn explain(
        &mut self,
        plan: &weft_protocol::graph::Plan,
        context: Context<'_>,
    ) -> Result<Reply, (Refusal, String)> {
        let named = self.named(plan).map_err(|reason| (Refusal::NotFound, reason))?;
        let run = RunId::from_bytes(draw(&mut self.rng));
        let neighbours = self.neighbours();
        let env = environment!(self, context, neighbours);
        let explanations = plan
            .steps
            .iter()
            .map(|step| {
                let literals =
                    step.arguments.iter().filter_map(|(name, argument)| match argument {
                        weft_protocol::graph::Argument::Literal(value) => {
                            Some((name.clone(), value.clone()))
                        }
                        weft_protocol::graph::Argument::Output(_)
                        | weft_protocol::graph::Argument::Path(_) => None,
                    });
                let task = Task {
                    run,
                    step: step.index.into(),
                    owner: env.me,
                    above: Vec::new(),
                    capability: step.capability.clone(),
                    arguments: Value::Map(literals.collect()),
                    labels: std::collections::BTreeSet::new(),
                    named: named.get(&step.index).copied(),
                    only_here: runs::paths(step).next().map(|_| "its file is on this device"),
                    requester: Requester::Run,
                    callers: Vec::new(),
                    ends: env.now.mono,
                    local_time: String::new(),
                    time_zone: String::new(),
                    can_ask: true,
                };
                let placement = Dispatch::explain(&task, &env);
                Explanation {
                    step: step.index,
                    capability: step.capability.clone(),
                    device: placement.chosen.map(|device| env.name(&device)),
                    candidates: placement.candidates,
                    decision: placement
                        .decision
                        .unwrap_or_else(|| Decision::deny("no device can do it now")),
                }
            })
            .collect();
        Ok(Reply::Explained(explanations))
    }

    fn run_views(&mut self, context: Context<'_>) -> Result<Vec<RunView>, (Refusal, String)> {
        let entries = self.replica.list(&DocumentKind::RUN, "", DOCUMENTS_MAX, context.rows);
        let mut views: Vec<RunView> = entries
            .iter()
            .filter_map(|entry| runs::view(entry.id, &entry.content, |device| self.name(device)))
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse((view.started, view.run)));
        Ok(views)
    }

    fn run(&mut self, prefix: &str, context: Context<'_>) -> Result<Reply, (Refusal, String)> {
        let views = self.run_views(context)?;
        let mut matching = views.into_iter().filter(|it| it.run.to_string().starts_with(prefix));
        let Some(view) = matching.next() else {
            let why = format!("there is no run {prefix:?}; weft run list shows all");
            return Err((Refusal::NotFound, why));
        };
        if !prefix.is_empty() && matching.next().is_some() {
            return Err((Refusal::Invalid, format!("several runs begin with {prefix:?}")));
        }
        let journal = runs::read_journal(view.run, context.rows)
            .map_err(|error| (Refusal::Failed, error.to_string()))?;
        Ok(Reply::Run { view, journal })
    }

    fn documents(
        &mut self,
        kind: &str,
        query: &str,
        limit: usize,
        context: Context<'_>,
    ) -> Result<Reply, (Refusal, String)> {
        let kind = kind
            .parse()
            .map_err(|_| (Refusal::Invalid, format!("{kind:?} is no kind of document")))?;
        let entries = self.replica.list(&kind, query, limit.min(DOCUMENTS_MAX), context.rows);
        let views = entries.into_iter().map(|entry| DocumentView {
            id: entry.id,
            content: entry.content,
            modified: entry.modified,
        });
        Ok(Reply::Documents(views.collect()))
    }

    fn timer_views(&self) -> Vec<TimerView> {
        self.schedule
            .pending()
            .into_iter()
            .map(|timer| TimerView {
                id: timer.id,
                label: timer.label.clone(),
                due: timer.due,
                local: timer.local.clone(),
                fires_on: self.name(&timer.fires_on),
            })
            .collect()
    }

    /// Puts a device out. The door is answered when that is on the disk.
    fn revoke(
        &mut self,
        door: DoorId,
        word: &str,
        context: Context<'_>,
    ) -> Result<(), (Refusal, String)> {
        let subjects: Vec<_> = self.membership.subjects().collect();
        let device = match word.parse() {
            Ok(id) => id,
            Err(_) => {
                device_named(&subjects, word).map_err(|reason| (Refusal::NotFound, reason))?
            }
        };
        self.membership
            .revoke(device, context.now)
            .map_err(|error| (Refusal::Denied, error.to_string()))?;
        for output in self.membership.poll_outputs() {
            self.on_membership(output, context);
        }
        let body = Body::Operator { action: "device revoke".into() };
        let (_, writes) = self.chain.append(body, context.now.wall);
        self.persist(Batch::synced(writes), After::Done(door));
        Ok(())
    }

    fn verify(
        &self,
        every_signature: bool,
        context: Context<'_>,
    ) -> Result<Reply, (Refusal, String)> {
        let Witnessed { heads: witnessed, bogus } = witnessed(self.me, context.rows)
            .map_err(|error| (Refusal::Failed, error.to_string()))?;
        let heads = witnessed.iter().map(|(_, head)| *head).collect();
        let signatures = if every_signature { Signatures::Every } else { Signatures::Checkpoints };
        let (checked, fault) = match audit::verify(self.me, heads, context.rows, signatures) {
            Ok(checked) => (checked, None),
            Err(fault) => {
                let records = fault.position();
                let checked = Checked { records, ..Checked::default() };
                (checked, Some((fault.position(), fault.to_string())))
            }
        };
        let witnesses = witnessed
            .into_iter()
            .map(|(device, head)| (self.name(&device), head.position))
            .collect();
        let forks = self.witnesses.forks().map(|fork| ForkView {
            device: self.name(&fork.device()),
            position: fork.position(),
            heads: fork.heads().each_ref().map(|head| codec::encode(head.signed())),
            warning: self.fork_warning(fork),
        });
        Ok(Reply::Verified(Verification {
            records: checked.records,
            head: checked.head,
            fault,
            witnesses,
            bogus: bogus.iter().map(|device| self.name(device)).collect(),
            setbacks: checked.setbacks.iter().map(|it| (it.at, it.to_string())).collect(),
            forks: forks.collect(),
        }))
    }

    /// What a device that joins is told of this one and the others.
    pub(super) fn contacts(
        &mut self,
        now: weft_protocol::time::Now,
    ) -> weft_protocol::pairing::Contacts {
        let weft_protocol::presence::PresenceMessage::Records(presences) =
            self.presence.greeting(now);
        weft_protocol::pairing::Contacts {
            addresses: self.presence.own().addresses.clone(),
            presences,
        }
    }
}

fn standing(device: &Device, here: bool) -> &'static str {
    match device.standing {
        Standing::Active if here => "here",
        Standing::Active => "away",
        Standing::Suspended { .. } => "suspended",
        Standing::Revoked { .. } => "revoked",
    }
}

fn audit_views(
    position: u64,
    limit: usize,
    context: Context<'_>,
) -> Result<Reply, (Refusal, String)> {
    let failed = |error: ReadError| (Refusal::Failed, error.to_string());
    let rows = context
        .rows
        .scan_from(Table::Audit, &[], position, limit.min(RECORDS_MAX))
        .map_err(failed)?;
    rows.into_iter()
        .map(|(at, bytes)| {
            let (signed, record) = audit::read(at, &bytes).map_err(failed)?;
            Ok(AuditView { digest: signed.digest(), record })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Reply::Audit)
}
