//! What doors ask, and the answers that need no machine of their own.

use weft_protocol::{
    codec,
    decision::Decision,
    device::Role,
    document::DocumentKind,
    frame::Protocol,
    host_call::Refusal,
    id::{DeviceId, RunId},
    row::ReadError,
    value::Value,
};

use super::{
    After, Dispatch, Env, Named, Node, Requester, Task, devices::DeviceChange, draw, runs,
};
use crate::{
    Context,
    audit::{self, Checked, Lineage, Signatures},
    dispatch::{Awaited, Wait},
    door::{
        AgentView, AuditView, Command, DocumentView, DoorId, Explanation, ForkView,
        FormerChainView, Reply, RunView, Status, TimerView, Verification, WaitView, WaitsFor,
    },
    invitation::Offer,
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
        if self.rotation.is_some() && !matches!(command, Command::Status | Command::Watch) {
            let reason = "this device's key is being replaced; try again in a moment".to_owned();
            return self.reply(door, Reply::Refused { refusal: Refusal::Failed, reason });
        }
        let reply = match command {
            Command::Status => Ok(Reply::Status(Box::new(self.status(context)))),
            Command::Checkup => Ok(Reply::Checkup(Box::new(self.checkup(context)))),
            Command::Devices => Ok(Reply::Devices(self.device_views())),
            Command::Device { device } => {
                self.device(&device).map(|view| Reply::Device(Box::new(view)))
            }
            Command::Statements => {
                Ok(Reply::Statements(self.membership.told().statements().cloned().collect()))
            }
            Command::TakeStatements { statements } => {
                return self.take_statements(door, statements, context);
            }
            Command::TrustLog { limit } => Ok(Reply::TrustLog(self.trust_log(limit))),
            Command::Agents => Ok(Reply::Agents(self.agent_views())),
            Command::Do { words, plan, files, local_time, time_zone, can_ask } => {
                let named = self
                    .must_belong("run commands")
                    .and_then(|()| self.named(&plan).map_err(|reason| (Refusal::NotFound, reason)));
                match named {
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
                    Err(refused) => Err(refused),
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
            Command::Invite { role: Role::Admin, confirmed_by_itself: true, .. } => {
                Err((Refusal::Invalid, "nobody becomes admin unseen".to_owned()))
            }
            Command::Invite { role, confirmed_by_itself, by_code } => {
                if self.membership.role() == Some(Role::Admin) {
                    let offer = Offer { role, confirmed_by_itself, by_code };
                    let (membership, rng) = (&mut self.membership, &mut self.rng);
                    self.invitations.open(door, offer, context.now, membership, rng);
                    return;
                }
                let why =
                    "only an admin device may invite; do it on one, or have this one made an admin";
                Err((Refusal::Denied, why.to_owned()))
            }
            Command::Confirm { yes, role } => {
                let membership = &mut self.membership;
                let asked = self.invitations.confirm(yes, role, context.now, membership);
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
            Command::Revoke { device } => {
                let change = DeviceChange::Revoke { device };
                return self.change_devices(door, change, context);
            }
            Command::Rename { device, name } => {
                let change = DeviceChange::Rename { device, name };
                return self.change_devices(door, change, context);
            }
            Command::SetRole { device, role, confirmed } => {
                let change = DeviceChange::SetRole { device, role, confirmed };
                return self.change_devices(door, change, context);
            }
            Command::Keep { device } => {
                let change = DeviceChange::Keep { device };
                return self.change_devices(door, change, context);
            }
            Command::Audit { key, position, limit } => {
                self.audit_views(key.as_deref(), position, limit, context)
            }
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
        warnings.extend(self.trust_warnings());
        warnings.extend(self.copy_warnings(context.now.wall));
        warnings.extend(self.witnesses.forks().map(|fork| self.fork_warning(fork)));
        Status {
            fabric: state.fabric,
            fabric_name: state.name.as_str().to_owned(),
            device: self.me,
            agreement: self.membership.secret().agreement().public(),
            name: me.map_or_else(String::new, |me| me.name.as_str().to_owned()),
            kind: me.map_or(weft_protocol::device::Kind::Laptop, |me| me.kind),
            role: me.map_or(Role::Guest, |me| me.role),
            standing: me.and_then(|me| self.standing_view(&self.me, me)),
            update_needed: state.update_needed.is_some(),
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

    pub(super) fn run_views(
        &mut self,
        context: Context<'_>,
    ) -> Result<Vec<RunView>, (Refusal, String)> {
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
        let journal = runs::read_with(view.run, self.journal.entries(), context.rows)
            .map_err(|error| (Refusal::Failed, error.to_string()))?;
        let waits = self.dispatch.waits(&view.run).map(|wait| self.wait_view(wait, context.now));
        let waits = waits.collect();
        Ok(Reply::Run { view, journal, waits })
    }

    fn wait_view(&self, wait: Wait, now: weft_protocol::time::Now) -> WaitView {
        let Wait { step, capability, executor, awaited, since, until } = wait;
        let is_here = executor == self.me || self.links.to(&executor, Protocol::Run).is_some();
        let device = self.name(&executor);
        let what = match awaited {
            Awaited::Yes => WaitsFor::Yes,
            Awaited::Executor if is_here => WaitsFor::Word,
            Awaited::Executor => WaitsFor::Device,
        };
        WaitView { step, capability, device, what, since, most: until.since(now.mono) }
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
                fires_on: self.fires_on(timer),
            })
            .collect()
    }

    fn verify(
        &self,
        every_signature: bool,
        context: Context<'_>,
    ) -> Result<Reply, (Refusal, String)> {
        let failed = |error: ReadError| (Refusal::Failed, error.to_string());
        let Witnessed { heads: own, bogus } = witnessed(self.me, context.rows).map_err(failed)?;
        let signatures = if every_signature { Signatures::Every } else { Signatures::Checkpoints };
        let heads = |key: &DeviceId| {
            let found = witnessed(*key, context.rows)?;
            Ok(found.heads.into_iter().map(|(_, head)| head).collect())
        };
        let lineage = Lineage::new(self.me, &self.former());
        let found = lineage.verify(heads, context.rows, signatures).map_err(failed)?;
        let mut chains = found.into_iter().map(|found| {
            let (checked, fault) = match found.result {
                Ok(checked) => (checked, None),
                Err(fault) => {
                    let records = fault.position();
                    let checked = Checked { records, ..Checked::default() };
                    (checked, Some((fault.position(), fault.to_string())))
                }
            };
            (found.key, checked, fault)
        });
        let (_, checked, fault) = chains.next().expect("a lineage has a last key");
        let former = chains
            .map(|(key, checked, fault)| {
                let witnesses = witnessed(key, context.rows).map_err(failed)?.heads.len();
                let Checked { records, head, .. } = checked;
                Ok(FormerChainView { key, records, head, fault, witnesses })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let witnesses =
            own.into_iter().map(|(device, head)| (self.titled(&device), head.position)).collect();
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
            bogus: bogus.iter().map(|device| self.titled(device)).collect(),
            setbacks: checked.setbacks.iter().map(|it| (it.at, it.to_string())).collect(),
            forks: forks.collect(),
            former,
        }))
    }

    /// What a device that joins is told of this one and the others.
    pub(super) fn contacts(
        &mut self,
        now: weft_protocol::time::Now,
    ) -> weft_protocol::pairing::Contacts {
        let weft_protocol::presence::PresenceMessage::Records { records: presences, .. } =
            self.presence.greeting(None, now);
        weft_protocol::pairing::Contacts {
            addresses: self.presence.own().addresses.clone(),
            presences,
        }
    }

    fn audit_views(
        &self,
        key: Option<&str>,
        position: u64,
        limit: usize,
        context: Context<'_>,
    ) -> Result<Reply, (Refusal, String)> {
        let lineage = Lineage::new(self.me, &self.former());
        let key = match key {
            None => self.me,
            Some(word) => {
                let mut keys = lineage.keys().filter(|key| key.to_string().starts_with(word));
                let missing = || format!("this device never had a key {word:?}");
                *keys.next().ok_or_else(|| (Refusal::NotFound, missing()))?
            }
        };
        let failed = |error: ReadError| (Refusal::Failed, error.to_string());
        let limit = limit.min(RECORDS_MAX);
        let rows = lineage.records(&key, position, limit, context.rows).map_err(failed)?;
        rows.into_iter()
            .map(|(at, bytes)| {
                let (signed, record) = audit::read(at, &bytes).map_err(failed)?;
                Ok(AuditView { digest: signed.digest(), record })
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Reply::Audit)
    }
}
