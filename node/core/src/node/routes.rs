//! Outputs of machines, carried to the next machine or out of the node.

use weft_protocol::{
    audit::Body,
    document::DocumentKind,
    frame::Protocol,
    host_call::Refusal,
    run::{Journal, Progress},
};

use super::{After, Env, Node};
use crate::{
    Context, Output,
    dispatch::{Concluded, DispatchOutput, Requester},
    door::{Event, Reply},
    env::Batch,
    executor::ExecutorOutput,
    invitation::InvitationOutput,
    membership::{self, MembershipOutput},
    replica,
    runs::RunsOutput,
};

impl Node {
    pub(super) fn on_runs(&mut self, output: RunsOutput, context: Context<'_>) {
        match output {
            RunsOutput::Persist(mut batch, what) => {
                batch.writes.append(&mut self.journal.take());
                self.persist(batch, After::Runs(what));
            }
            RunsOutput::Journal(entry) => self.journal.push(Some(entry), context.now.mono),
            RunsOutput::Dispatch { task, tried } => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                match tried {
                    Some(tried) => self.dispatch.take_up(*task, tried, &mut env),
                    None => self.dispatch.start(*task, &mut env),
                }
            }
            RunsOutput::CancelTasks(run) => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch
                    .cancel(|task| task.run == run && task.requester == Requester::Run, &mut env);
            }
            RunsOutput::Started(door, run) => {
                if let Some(door) = door {
                    self.reply(door, Reply::RunStarted { run });
                }
            }
            RunsOutput::NotStarted(door, reason) => {
                if let Some(door) = door {
                    self.reply(door, Reply::Refused { refusal: Refusal::Failed, reason });
                }
            }
            RunsOutput::Ended { door, run, state, outputs, failure, wrote, asked } => {
                for device in asked {
                    self.settle_kept(device, context);
                }
                let documents = self.wrote.remove(&run).unwrap_or_default();
                let event = Event::RunEnded { run, state, outputs, failure, also_on: Vec::new() };
                self.settling.ended(door, event, documents, wrote, context.now.mono);
            }
        }
    }

    pub(super) fn on_dispatch(&mut self, output: DispatchOutput, context: Context<'_>) {
        match output {
            DispatchOutput::Persist(mut batch, what) => {
                batch.writes.append(&mut self.journal.take());
                self.persist(batch, After::Dispatch(what));
            }
            DispatchOutput::Journal(run, entry) => {
                self.journal.push(self.runs.journal(&run, &entry), context.now.mono);
            }
            DispatchOutput::Tell(device, message) => self.tell(device, message, context),
            DispatchOutput::Placed { run, step, capability, executor, candidates } => {
                if !self.runs.contains(&run) {
                    self.asked.entry(run).or_default().insert(executor);
                }
                let device = self.name(&executor);
                let event = Event::StepPlaced { run, step, capability, device, candidates };
                self.tell_run(&run, event);
            }
            DispatchOutput::Ask { run, step, capability, executor, reason } => {
                let device = self.name(&executor);
                self.tell_run(&run, Event::Asked { run, step, capability, device, reason });
            }
            DispatchOutput::Progressed(requester, run, step, progress) => match requester {
                Requester::Run => {
                    if let Progress::Log(line) = &progress {
                        let entry = Journal::Logged { step: step.clone(), line: line.clone() };
                        self.journal.push(self.runs.journal(&run, &entry), context.now.mono);
                    }
                    self.tell_run(&run, Event::StepProgressed { run, step, progress });
                }
                Requester::Call { execution, .. } => {
                    let neighbours = self.neighbours();
                    let env = environment!(self, context, neighbours);
                    self.executor.progressed(execution, progress, &env);
                }
            },
            DispatchOutput::Concluded(concluded) => {
                let Concluded { requester, run, step, capability, outcome, labels } = *concluded;
                match requester {
                    Requester::Run => {
                        let ended = outcome.clone();
                        let event = Event::StepEnded {
                            run,
                            step: step.clone(),
                            capability,
                            outcome: ended,
                        };
                        self.tell_run(&run, event);
                        let neighbours = self.neighbours();
                        let mut env = environment!(self, context, neighbours);
                        self.runs.step_ended(run, &step, outcome, &mut env);
                    }
                    Requester::Call { execution, call } => {
                        self.executor.child_concluded(execution, call, outcome, labels);
                    }
                }
            }
        }
    }

    pub(super) fn on_executor(&mut self, output: ExecutorOutput, context: Context<'_>) {
        match output {
            ExecutorOutput::Persist(batch, what) => self.persist(batch, After::Executor(what)),
            ExecutorOutput::Execute { execution, agent, capability, arguments, deadline } => {
                self.outputs.push_back(Output::Execute {
                    execution,
                    agent: Box::new(agent),
                    capability,
                    arguments,
                    deadline,
                });
            }
            ExecutorOutput::Stop(execution) => {
                self.outputs.push_back(Output::StopExecution(execution));
            }
            ExecutorOutput::Answer { execution, call, answer } => {
                self.outputs.push_back(Output::AnswerCall { execution, call, answer });
            }
            ExecutorOutput::Tell(device, message) => self.tell(device, message, context),
            ExecutorOutput::Dispatch(task) => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch.start(*task, &mut env);
            }
            ExecutorOutput::Wrote(run, documents) => {
                if self.runs.contains(&run) {
                    self.wrote.entry(run).or_default().extend(documents);
                }
            }
            ExecutorOutput::Warn(text) => self.warn(text),
            ExecutorOutput::CancelChildren(execution) => {
                let neighbours = self.neighbours();
                let mut env = environment!(self, context, neighbours);
                self.dispatch.cancel(
                    |task| {
                        matches!(task.requester, Requester::Call { execution: of, .. } if of == execution)
                    },
                    &mut env,
                );
            }
        }
    }

    pub(super) fn on_replica(&mut self, output: replica::Output, context: Context<'_>) {
        match output {
            replica::Output::Send { peer, message } => {
                self.send(&peer, Protocol::Sync, message.encode());
            }
            replica::Output::Persist { ticket, writes, durability } => {
                self.persist(Batch { writes, durability }, After::Replica(ticket));
            }
            replica::Output::Changed { document, kind, remote } => {
                if kind == DocumentKind::REGISTRY {
                    self.read_registry(context);
                    self.offer_agents(context);
                } else if kind == DocumentKind::TIMER {
                    self.timer_changed(document, context);
                }
                let kind = kind.as_str().to_owned();
                self.tell_watchers(Event::DocumentChanged { id: document, kind, remote });
            }
            replica::Output::PeerSynced(_) => {}
            replica::Output::SetAside { document, reason } => {
                let text = format!("document {document} was set aside: {reason}");
                self.warn(text);
            }
        }
    }

    pub(super) fn on_membership(&mut self, output: MembershipOutput, context: Context<'_>) {
        match output {
            MembershipOutput::Send(device, bytes) => self.send(&device, Protocol::Trust, bytes),
            MembershipOutput::Admit(device) => {
                self.outputs.push_back(Output::Admit { device });
            }
            MembershipOutput::TurnAway(device, why) => {
                self.stranger(context.now);
                self.outputs.push_back(Output::Log { text: format!("{device}: {why}") });
                self.outputs.push_back(Output::Disconnect { device });
            }
            MembershipOutput::Learned { statements, mut writes } => {
                writes.extend(self.record_statements(&statements, context.now.wall));
                self.version += 1;
                // What this device vouches for in the place of one that is out is in the same batch.
                self.devices_changed(statements, writes, context);
            }
            MembershipOutput::Persist(writes) => {
                self.persist(Batch::synced(writes), After::Nothing);
            }
        }
    }

    pub(super) fn on_invitation(&mut self, output: InvitationOutput, context: Context<'_>) {
        match output {
            InvitationOutput::Open { endpoint, seed, announced } => {
                self.outputs.push_back(Output::OpenPairing { endpoint, seed, announced });
            }
            InvitationOutput::Opened { door, ticket, expires } => {
                self.reply(door, Reply::Invited { ticket, expires });
            }
            InvitationOutput::OpenedByCode { door, code, addresses, expires } => {
                self.reply(door, Reply::InvitedByCode { code, addresses, expires });
            }
            InvitationOutput::Refused { door, reason } => {
                self.reply(door, Reply::Refused { refusal: Refusal::Failed, reason });
            }
            InvitationOutput::Send { endpoint, link, bytes } => {
                self.outputs.push_back(Output::SendPairing { endpoint, link, bytes });
            }
            InvitationOutput::CloseLink { endpoint, link } => {
                self.outputs.push_back(Output::ClosePairingLink { endpoint, link });
            }
            InvitationOutput::Close { endpoint } => {
                self.outputs.push_back(Output::ClosePairing { endpoint });
            }
            InvitationOutput::Persist { endpoint, writes } => {
                self.persist(Batch::synced(writes), After::Invitation(endpoint));
            }
            InvitationOutput::Met { door, event } => {
                self.outputs.push_back(Output::Event { door, event });
            }
            InvitationOutput::Ended { door, outcome, name, reason, action, remember } => {
                let (_, writes) = self.chain.append(Body::Operator { action }, context.now.wall);
                self.persist(Batch::ordered(writes), After::Nothing);
                if let Some((device, addresses)) = remember {
                    let write = membership::remember(&device, &addresses);
                    self.persist(Batch::ordered(vec![write]), After::Nothing);
                    self.outputs.push_back(Output::Remember { device, addresses });
                }
                let event = Event::InvitationEnded { outcome, name, reason };
                if door.is_some() {
                    self.outputs.push_back(Output::Event { door, event: event.clone() });
                }
                self.tell_watchers(event);
            }
        }
    }
}
