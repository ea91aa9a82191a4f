//! Devices, as doors ask for them: who belongs, why one does not, and what an admin changes of it.

use std::collections::BTreeSet;

use weft_protocol::{
    audit::Body,
    device::Role,
    host_call::Refusal,
    id::{DeviceId, StatementId},
    row::Write,
    statement::{Name, StatementBody},
    time::WallTime,
};
use weft_trust::state::{Device, Standing};

use super::{After, Batch, Node};
use crate::{
    Context,
    door::{DeviceView, DoorId, Reply, StandingView},
    trust_log::{self, StatementView},
};

/// So many characters of an id name a device, where no other begins with them.
const ID_PREFIX_CHARS_MIN: usize = 4;

/// So much of what was taken for a device is repeated.
const WORD_CHARS_MAX: usize = 80;

/// Why something was not done, for a person.
type Refused = (Refusal, String);

impl Node {
    /// All devices that ever belonged, this one first.
    pub(super) fn device_views(&self) -> Vec<DeviceView> {
        let log = trust_log::trust_log(self.membership.graph());
        let state = self.membership.state();
        // A key that another took the place of is no device of its own.
        let is_former = |id: &DeviceId| state.devices.contains_key(&state.successor(id));
        let devices = state.devices.iter();
        let devices = devices.filter(|(id, _)| state.successor(id) == **id || !is_former(id));
        let mut views: Vec<DeviceView> =
            devices.map(|(id, device)| self.device_view(id, device, &log)).collect();
        views.sort_by(|a, b| (!a.this, &a.name, a.id).cmp(&(!b.this, &b.name, b.id)));
        views
    }

    /// The device of that name or id.
    pub(super) fn device(&self, word: &str) -> Result<DeviceView, Refused> {
        let (id, device) = self.find_device(word)?;
        let log = trust_log::trust_log(self.membership.graph());
        Ok(self.device_view(&id, device, &log))
    }

    fn device_view(&self, id: &DeviceId, device: &Device, log: &[StatementView]) -> DeviceView {
        let link = self.links.of(id);
        let this = *id == self.me;
        let own = &self.presence.own().models;
        let via: Vec<String> = match link {
            None if !this => self.presence.near(id).map(|by| self.name(by)).collect(),
            Some(_) | None => Vec::new(),
        };
        let is_there = this || link.is_some() || !via.is_empty();
        let heard = self.presence.fresh(id).filter(|_| is_there);
        let models = if this { Some(own) } else { heard.map(|it| &it.models) };
        let version = if this {
            self.presence.own().version
        } else {
            self.presence.of(id).and_then(|it| it.version)
        };
        let added = log.iter().find(|it| it.id == device.added);
        let former = self.membership.graph().former(id);
        let founder = log.iter().find(|it| it.kind == "genesis").map(|it| it.author);
        let is_founder = founder.is_some_and(|it| it == *id || former.contains(&it));
        let state = match device.standing {
            Standing::Active if this || link.is_some() => "here",
            Standing::Active if !via.is_empty() => "near",
            Standing::Active if !self.was_ever_heard(id) => "never seen",
            Standing::Active => "away",
            Standing::Suspended { .. } => "suspended",
            Standing::Revoked { .. } => "revoked",
        };
        DeviceView {
            id: *id,
            name: device.name.as_str().to_owned(),
            kind: device.kind,
            role: device.role,
            state: state.to_owned(),
            standing: self.standing_in(id, device, log),
            this,
            via,
            address: link.map(|link| link.address.clone()),
            is_relayed: link.map(crate::links::Link::is_relayed),
            round_trip_micros: link.and_then(|link| link.round_trip_micros),
            since: link.map(|link| link.since).or_else(|| self.links.away_since(id)),
            last_heard: self.links.heard(id),
            models: models
                .map(|models| models.iter().map(|model| model.name.clone()).collect())
                .unwrap_or_default(),
            version: version.filter(|_| device.is_active()),
            confirmed: (!is_founder).then_some(device.confirmed),
            added_by: added.map(|it| it.by.clone()),
            added_at: added.map(|it| it.time),
            added: device.added,
            former,
        }
    }

    /// Whether anything was ever heard of a device here, also under a key that it had before. One that lost
    /// its power before it had stored that it belongs never comes.
    fn was_ever_heard(&self, id: &DeviceId) -> bool {
        let former = self.membership.graph().former(id);
        std::iter::once(id).chain(&former).any(|key| self.links.heard(key).is_some())
    }

    /// Why a device does not belong, and what to do; nothing where it does. The log is read for those alone
    /// that don't: each command of a person asks this of the device that it is said on.
    pub(super) fn standing_view(&self, id: &DeviceId, device: &Device) -> Option<StandingView> {
        if device.is_active() {
            return None;
        }
        self.standing_in(id, device, &trust_log::trust_log(self.membership.graph()))
    }

    /// The same, by a log that is at hand.
    fn standing_in(
        &self,
        id: &DeviceId,
        device: &Device,
        log: &[StatementView],
    ) -> Option<StandingView> {
        let (state, statement) = match device.standing {
            Standing::Active => return None,
            Standing::Suspended { cause } => ("suspended", cause),
            Standing::Revoked { by } => ("revoked", by),
        };
        let said = log.iter().find(|it| it.id == statement);
        let by = said.map_or_else(|| statement.short(), |it| it.by.clone());
        let body = self.membership.graph().body(&statement);
        let name = &device.name;
        let (why, remedy) = match (device.standing, body) {
            (Standing::Revoked { .. }, Some(StatementBody::Rotate(rotate))) => {
                let new = rotate.device.short();
                let remedy = if *id == self.me {
                    format!(
                        "this is a copy of it from before; or, if you did not do that, somebody has this \
                         device's key: weft device revoke {new} on another admin, and join anew"
                    )
                } else {
                    format!("weft device show {new} shows it under its new key")
                };
                (format!("its key was replaced by {new}"), remedy)
            }
            (Standing::Revoked { .. }, _) => {
                let remedy = "the same machine comes back with a new home: weft invite on an \
                              admin, weft --home NEW join there";
                (format!("{by} revoked it"), remedy.to_owned())
            }
            (_, Some(StatementBody::Revoke(_) | StatementBody::SetRole(_))) => {
                let verb = match body {
                    Some(StatementBody::SetRole(_)) => "took its role",
                    _ => "revoked it",
                };
                let author = said.and_then(|it| self.membership.state().devices.get(&it.author));
                let doubt = match author.map(|author| author.standing) {
                    Some(Standing::Revoked { .. }) => "is revoked itself",
                    _ => "is in doubt itself",
                };
                (format!("{by} {verb}, and {doubt}"), self.keep_remedy(id, name))
            }
            (_, _) if statement == device.added => {
                let remedy = said.map_or_else(String::new, |it| {
                    format!(
                        "it follows when {by} stands again: {}",
                        self.keep_remedy(&it.author, &by)
                    )
                });
                (format!("{by} added it, and is in doubt itself"), remedy)
            }
            (_, _) => {
                let why = "two different statements were signed with its key in one place, so \
                           somebody else has the key, or its disk was copied";
                let remedy = format!(
                    "if the key may be stolen: weft device revoke {name}; else {}",
                    self.keep_remedy(id, name)
                );
                (why.to_owned(), remedy)
            }
        };
        Some(StandingView { state, why, remedy, by, at: said.map(|it| it.time), statement })
    }

    /// What to type to bring a suspended device back, and where.
    fn keep_remedy(&self, id: &DeviceId, name: &dyn std::fmt::Display) -> String {
        let admins = self.admins_but(id);
        let state = self.membership.state();
        if state.is_admin(&self.me) && *id != self.me {
            format!("weft device keep {name}")
        } else if !admins.is_empty() {
            format!("weft device keep {name} on {}", admins.join(" or "))
        } else if state.root.is_some() {
            "no admin is left who could keep it; the 24 words can: weft recover".to_owned()
        } else {
            "no admin is left who could keep it, and there are no recovery words".to_owned()
        }
    }

    /// The names of the admins that stand, without one.
    fn admins_but(&self, one: &DeviceId) -> Vec<String> {
        let admins = self.membership.state().admins().filter(|(id, _)| *id != one);
        let mut names: Vec<_> = admins.map(|(_, device)| device.name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    /// What is wrong with this device's place in the fabric, and with the others', in sentences.
    pub(super) fn trust_warnings(&self) -> Vec<String> {
        let state = self.membership.state();
        let mut warnings = Vec::new();
        if let Some(kind) = state.update_needed {
            warnings.push(format!(
                "the fabric uses a newer version of weft (statements of kind {kind}); update weft on \
                 this device: until then it works with no other"
            ));
        }
        for (id, device) in &state.devices {
            if *id != self.me && !device.is_suspended() {
                continue;
            }
            let Some(standing) = self.standing_view(id, device) else { continue };
            let name = if *id == self.me { "this device" } else { device.name.as_str() };
            let StandingView { state, why, remedy, .. } = standing;
            let at = if *id == self.me { 0 } else { warnings.len() };
            warnings.insert(at, format!("{name} is {state}: {why}; {remedy}"));
        }
        if let Some(device) = &state.exposed_to {
            let name = self.called(device);
            let id = device.short();
            let mend = format!("weft device revoke {id}");
            let on = if state.is_admin(&self.me) { "" } else { " on an admin" };
            warnings.push(format!(
                "{name}, which is out, was given the data key in use, as two admins revoked devices at \
                 one time; {mend}{on} makes a new one"
            ));
        }
        warnings
    }

    /// The name of a device, and what it is if it is none that stands.
    pub(super) fn titled(&self, device: &DeviceId) -> String {
        let state = self.membership.state();
        let name = self.called(device);
        match state.devices.get(device).map(|it| it.standing) {
            _ if state.successor(device) != *device => format!("{name} (former key)"),
            Some(Standing::Revoked { .. }) => format!("{name} (revoked)"),
            Some(Standing::Active | Standing::Suspended { .. }) | None => name,
        }
    }

    /// The name of a device, also of one that is out.
    fn called(&self, device: &DeviceId) -> String {
        let known = self.membership.state().devices.get(device);
        known.map_or_else(|| device.short(), |it| it.name.as_str().to_owned())
    }

    /// Finds a device by its name or id, or the beginning of that. Of two of one name, the one that is
    /// not revoked is meant.
    fn find_device(&self, word: &str) -> Result<(DeviceId, &Device), Refused> {
        let devices = &self.membership.state().devices;
        let is_out = |device: &Device| matches!(device.standing, Standing::Revoked { .. });
        let called = |out: bool| {
            let is_it = move |(_, device): &(&DeviceId, &Device)| {
                is_out(device) == out && device.name.as_str().eq_ignore_ascii_case(word)
            };
            devices.iter().filter(is_it).collect::<Vec<_>>()
        };
        let mut found = called(false);
        if found.is_empty() && word.len() >= ID_PREFIX_CHARS_MIN {
            found = devices.iter().filter(|(id, _)| id.to_string().starts_with(word)).collect();
        }
        if found.is_empty() {
            found = called(true);
        }
        match found.as_slice() {
            [(id, device)] => Ok((**id, device)),
            [] => {
                let mut names: Vec<&str> = devices
                    .values()
                    .filter(|device| !is_out(device))
                    .map(|device| device.name.as_str())
                    .collect();
                names.sort_unstable();
                let names = names.join(", ");
                // Somebody may have pasted a whole file.
                let word: String = word.chars().take(WORD_CHARS_MAX).collect();
                Err((Refusal::NotFound, format!("there is no device {word:?}; there are {names}")))
            }
            several => {
                let listed: Vec<String> = several
                    .iter()
                    .map(|(id, device)| {
                        format!("{} ({}, {})", id.short(), device.name, device.kind)
                    })
                    .collect();
                let why = format!(
                    "several devices are called {word:?}; use the id of one: {}",
                    listed.join(", ")
                );
                Err((Refusal::Invalid, why))
            }
        }
    }

    /// Changes who belongs, and as what. The door is answered when that is on the disk.
    pub(super) fn change_devices(
        &mut self,
        door: DoorId,
        change: DeviceChange,
        context: Context<'_>,
    ) {
        let (action, changed) = match change {
            DeviceChange::Revoke { device } => ("device revoke", self.revoke(&device, context)),
            DeviceChange::Rename { device, name } => {
                let action = if device.is_some() { "device rename" } else { "fabric rename" };
                (action, self.rename(device.as_deref(), name, context))
            }
            DeviceChange::SetRole { device, role, confirmed } => {
                ("device role", self.set_role(&device, role, confirmed, context))
            }
            DeviceChange::Keep { device } => ("device keep", self.keep(&device, context)),
        };
        if let Err((refusal, reason)) = changed {
            return self.reply(door, Reply::Refused { refusal, reason });
        }
        for output in self.membership.poll_outputs() {
            self.on_membership(output, context);
        }
        let body = Body::Operator { action: action.into() };
        let (_, writes) = self.chain.append(body, context.now.wall);
        self.persist(Batch::synced(writes), After::Done(door));
    }

    fn revoke(&mut self, word: &str, context: Context<'_>) -> Result<(), Refused> {
        let (id, device) = self.find_device(word)?;
        let name = device.name.clone();
        let is_out = matches!(device.standing, Standing::Revoked { .. });
        // Once more, where that makes the new data key which is needed.
        if is_out && self.membership.state().exposed_to != Some(id) {
            return Err((Refusal::NotFound, format!("{name} was put out already")));
        }
        self.must_be_admin("put a device out")?;
        if id == self.me {
            let others = self.admins_but(&id);
            let why = if others.is_empty() {
                "a device can't put itself out, and there is no other admin; make one first: weft \
                 device role NAME admin"
                    .to_owned()
            } else {
                let others = others.join(" or ");
                format!("a device can't put itself out: another admin must do it: {others}")
            };
            return Err((Refusal::Denied, why));
        }
        self.membership.revoke(id, context.now).map_err(denied)
    }

    fn rename(
        &mut self,
        word: Option<&str>,
        name: Name,
        context: Context<'_>,
    ) -> Result<(), Refused> {
        let device = word.map(|word| self.find_device(word)).transpose()?;
        let state = self.membership.state();
        let id = device.map(|(id, _)| id);
        let current = device.map_or(&state.name, |(_, device)| &device.name);
        if *current == name {
            return Err((Refusal::Invalid, format!("it is called {name} already")));
        }
        let is_taken = |(other, device): (&DeviceId, &Device)| {
            Some(*other) != id && device.name.as_str().eq_ignore_ascii_case(name.as_str())
        };
        if id.is_some() && state.members().any(is_taken) {
            return Err((Refusal::Invalid, format!("another device is called {name}")));
        }
        if id != Some(self.me) {
            let what = if id.is_some() { "rename another device" } else { "rename the fabric" };
            self.must_be_admin(what)?;
        } else {
            self.must_belong("rename itself")?;
        }
        self.membership.rename(id, name, context.now).map_err(denied)
    }

    fn set_role(
        &mut self,
        word: &str,
        role: Role,
        confirmed: bool,
        context: Context<'_>,
    ) -> Result<(), Refused> {
        if !role.holds_data() {
            let why = format!("the role {role} is not built yet; a device is admin or member");
            return Err((Refusal::Invalid, why));
        }
        let (id, device) = self.find_device(word)?;
        let name = device.name.clone();
        match device.standing {
            Standing::Active => {}
            Standing::Suspended { .. } => {
                let why = format!("{name} is suspended; first {}", self.keep_remedy(&id, &name));
                return Err((Refusal::Denied, why));
            }
            Standing::Revoked { .. } => {
                let why = format!("{name} is revoked, and has no role any more");
                return Err((Refusal::NotFound, why));
            }
        }
        if device.role == role {
            return Err((Refusal::Invalid, format!("{name} is {role} already")));
        }
        self.must_be_admin("set a role")?;
        if role == Role::Admin && !confirmed {
            let why = "admin is given only by a person's yes on a screen that names it";
            return Err((Refusal::Denied, why.to_owned()));
        }
        if role != Role::Admin && self.admins_but(&id).is_empty() {
            let why = format!(
                "{name} is the last admin; make another device an admin first: weft device role NAME \
                 admin"
            );
            return Err((Refusal::Denied, why));
        }
        self.membership.set_role(id, role, context.now).map_err(denied)
    }

    fn keep(&mut self, word: &str, context: Context<'_>) -> Result<(), Refused> {
        let (id, device) = self.find_device(word)?;
        let name = device.name.clone();
        match device.standing {
            Standing::Suspended { cause } if cause == device.added => {
                let standing = self.standing_view(&id, device);
                let (why, remedy) = standing.map(|it| (it.why, it.remedy)).unwrap_or_default();
                return Err((Refusal::Denied, format!("{name} can't be kept: {why}; {remedy}")));
            }
            Standing::Suspended { .. } => {}
            Standing::Active => {
                return Err((Refusal::Invalid, format!("{name} is not suspended: it belongs")));
            }
            Standing::Revoked { .. } => {
                let why = format!(
                    "{name} is revoked, which is for good; the same machine comes back with a new \
                     home: weft invite"
                );
                return Err((Refusal::NotFound, why));
            }
        }
        self.must_be_admin("keep a suspended device")?;
        self.membership.keep(id, context.now).map_err(denied)
    }

    /// Refuses what this device may not do, and says who may.
    fn must_be_admin(&self, what: &str) -> Result<(), Refused> {
        self.must_belong(what)?;
        if self.membership.state().is_admin(&self.me) {
            return Ok(());
        }
        let admins = self.admins_but(&self.me);
        let why = if admins.is_empty() {
            format!("only an admin may {what}, and none is left")
        } else {
            let are = if admins.len() == 1 { "the admin is" } else { "the admins are" };
            format!("only an admin may {what}; {are} {}", admins.join(", "))
        };
        Err((Refusal::Denied, why))
    }

    /// Refuses what one that does not belong may not do.
    pub(super) fn must_belong(&self, what: &str) -> Result<(), Refused> {
        let state = self.membership.state();
        if state.update_needed.is_some() {
            let why = "the fabric uses a newer version of weft; update weft on this device first";
            return Err((Refusal::Denied, why.to_owned()));
        }
        let Some(me) = state.devices.get(&self.me) else { return Ok(()) };
        match self.standing_view(&self.me, me) {
            None => Ok(()),
            Some(StandingView { state, why, remedy, .. }) => {
                let why = format!("this device is {state} and may not {what}: {why}; {remedy}");
                Err((Refusal::Denied, why))
            }
        }
    }

    /// The newest statements, oldest first.
    pub(super) fn trust_log(&self, limit: usize) -> Vec<StatementView> {
        let mut log = trust_log::trust_log(self.membership.graph());
        log.split_off(log.len().saturating_sub(limit))
    }

    /// What records in the audit chain that statements were made or learned here.
    pub(super) fn record_statements(&mut self, ids: &[StatementId], now: WallTime) -> Vec<Write> {
        let log = trust_log::trust_log(self.membership.graph());
        self.record_said(log, ids, now)
    }

    /// The same, of a log in which they stand.
    pub(super) fn record_said(
        &mut self,
        log: Vec<StatementView>,
        ids: &[StatementId],
        now: WallTime,
    ) -> Vec<Write> {
        let ids: BTreeSet<&StatementId> = ids.iter().collect();
        let mut writes = Vec::new();
        for StatementView { id, sentence, .. } in log.into_iter().filter(|it| ids.contains(&it.id))
        {
            let body = Body::Trust { statement: id, said: Some(sentence) };
            writes.extend(self.chain.append(body, now).1);
        }
        writes
    }
}

fn denied(error: impl std::fmt::Display) -> Refused {
    (Refusal::Denied, error.to_string())
}

/// A [`crate::door::Command`] that changes who belongs, or as what.
pub(super) enum DeviceChange {
    /// [`crate::door::Command::Revoke`].
    Revoke { device: String },
    /// [`crate::door::Command::Rename`].
    Rename { device: Option<String>, name: Name },
    /// [`crate::door::Command::SetRole`].
    SetRole { device: String, role: Role, confirmed: bool },
    /// [`crate::door::Command::Keep`].
    Keep { device: String },
}

#[cfg(test)]
mod tests;
