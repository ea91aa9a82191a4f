//! Where a step runs: a filter, then a score, with the reasons kept.
//!
//! A pure function of what this node knows of each device at that moment. Costs are in microseconds
//! of expected waiting; what is not time (battery, a metered link) is given a price in it.

use weft_protocol::{
    decision::{Decision, Effect, Subject},
    device::Kind,
    id::DeviceId,
    manifest::CapabilityName,
    run::{Candidate, INLINE_BYTES_MAX},
};

/// What a text of ordinary length costs a model, in tokens: enough to compare devices by.
const TYPICAL_TOKENS: u64 = 200;
/// Tokens a second of a model that was not measured yet, in thousandths, by kind of device: found on
/// a 2-core server with a model of 135 million parameters, and half and a quarter of it.
const fn unmeasured_speed_milli(kind: Kind) -> u64 {
    match kind {
        Kind::Server => 30_000,
        Kind::Laptop => 15_000,
        Kind::Phone => 7_500,
    }
}
/// Bytes a second over a link that was not measured: 100 Mbit/s less overhead.
const LINK_BYTES_PER_SECOND: u64 = 10_000_000;
/// The round trip to a device that was not measured yet.
const ROUND_TRIP_UNKNOWN_MICROS: u64 = 2_000;
/// What one step in the queue is expected to take.
const QUEUED_STEP_MICROS: u64 = 50_000;
/// The price of a capability that the device would itself have to ask another for: over what the
/// slowest model takes, so that the work goes where the capability is.
const CALL_ELSEWHERE_MICROS: u64 = 120_000_000;
/// The price of draining a battery, for the heavy work of a model.
const BATTERY_MICROS: u64 = 2_000_000;
/// From so much on, in percent, the processors of a device are busy: what is added has to share one.
const BUSY_PERCENT: u8 = 80;
/// The price of busy processors. Less than that of leaving this device: told once in a while, and
/// measured at another moment here than there, it decides between devices elsewhere only.
const BUSY_MICROS: u64 = 900;
/// The price of a metered link.
const METERED_MICROS: u64 = 5_000_000;
/// The price of leaving the device on which the person sits, so that equal devices don't swap work.
const AWAY_MICROS: u64 = 1_000;

/// What a step needs.
#[derive(Clone, PartialEq, Debug)]
pub struct Need {
    /// What is to be done.
    pub capability: CapabilityName,
    /// What it may call.
    pub calls: Vec<CapabilityName>,
    /// Whether only this device will do, and why: its files or its replica are meant.
    pub only_here: Option<&'static str>,
    /// The device that the words name.
    pub named: Option<DeviceId>,
    /// What it would call and no device that is here has.
    pub unavailable: Option<CapabilityName>,
    /// Bytes of arguments that would travel.
    pub bytes: u64,
}

/// What is known of a device.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// Which.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Whether it is this one.
    pub here: bool,
    /// Whether it can be asked now.
    pub reachable: bool,
    /// Whether it has the capability, by the same agent.
    pub offers: bool,
    /// The capabilities out of [`Need::calls`] that it lacks.
    pub lacks: Vec<CapabilityName>,
    /// Whether the work is a model's.
    pub needs_model: bool,
    /// Its measured speed, in thousandths of a token a second; 0: not measured.
    pub speed_milli: u64,
    /// The round trip in microseconds; `None`: not measured.
    pub round_trip_micros: Option<u64>,
    /// Steps that wait or run there.
    pub queue: u32,
    /// Charge in percent; `None`: not on battery.
    pub battery: Option<u8>,
    /// Whether its network costs money.
    pub metered: bool,
    /// How busy its processors are, in percent of all of them; `None`: not known.
    pub load_percent: Option<u8>,
}

/// A choice with its reasons.
#[derive(Clone, PartialEq, Debug)]
pub struct Placement {
    /// Where; `None`: nowhere.
    pub chosen: Option<DeviceId>,
    /// What the rules say there; where no device is left, the denial of the first that only the
    /// rules kept out.
    pub decision: Option<Decision>,
    /// Every device that was looked at, the chosen first, then by cost.
    pub candidates: Vec<Candidate>,
}

/// The device that a word of the command names: by name, else by kind if only one is of it.
///
/// # Errors
///
/// None is called so, or several are; the sentence says which there are.
pub fn device_named(subjects: &[Subject], word: &str) -> Result<DeviceId, String> {
    let by_name: Vec<&Subject> =
        subjects.iter().filter(|subject| subject.name.eq_ignore_ascii_case(word)).collect();
    let kind: Option<Kind> = word.parse().ok();
    let by_kind: Vec<&Subject> =
        subjects.iter().filter(|subject| Some(subject.kind) == kind).collect();
    match (by_name.as_slice(), by_kind.as_slice()) {
        ([one], _) | ([], [one]) => Ok(one.id),
        ([], []) => {
            let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
            Err(format!("there is no device {word:?}; there are {}", names.join(", ")))
        }
        (_, _) => Err(format!("several devices are called {word:?}; use the id of one")),
    }
}

/// Chooses. `rules` says what the rules here say to the step's running on a device; they are asked where
/// their answer counts.
pub fn place(
    need: &Need,
    devices: &[Facts],
    mut rules: impl FnMut(&DeviceId) -> Decision,
) -> Placement {
    let look_at = |facts| look_at(need, facts, &mut rules);
    let mut looked_at: Vec<LookedAt<'_>> = devices.iter().map(look_at).collect();
    looked_at.sort_by_key(|LookedAt { candidate, facts, .. }| {
        (candidate.cost.is_none(), candidate.cost, !facts.here, facts.device)
    });
    let chosen = looked_at.first().filter(|it| it.candidate.cost.is_some());
    let (chosen, decision) = match chosen {
        Some(it) => (Some(it.candidate.device), it.decision.clone()),
        None => {
            let is_no = |decision: &Decision| matches!(decision.effect, Effect::Deny);
            let mut asked = looked_at
                .iter()
                .map(|it| it.decision.clone().unwrap_or_else(|| rules(&it.candidate.device)));
            (None, asked.find(is_no))
        }
    };
    let candidates = looked_at.into_iter().map(|it| it.candidate).collect();
    Placement { chosen, decision, candidates }
}

struct LookedAt<'a> {
    candidate: Candidate,
    facts: &'a Facts,
    /// What the rules say, where nothing else kept the device out.
    decision: Option<Decision>,
}

fn look_at<'a>(
    need: &Need,
    facts: &'a Facts,
    rules: &mut impl FnMut(&DeviceId) -> Decision,
) -> LookedAt<'a> {
    let obstacle = obstacle(need, facts);
    let decision = obstacle.is_none().then(|| rules(&facts.device));
    let denied = |decision: &Decision| match decision.effect {
        Effect::Allow | Effect::Ask => None,
        Effect::Deny => Some(format!("not allowed there: {}", decision.reason)),
    };
    let (cost, reasons) = match obstacle.or_else(|| decision.as_ref().and_then(denied)) {
        Some(reason) => (None, vec![reason]),
        None => {
            let (cost, reasons) = price(need, facts);
            (Some(cost), reasons)
        }
    };
    let candidate = Candidate { device: facts.device, name: facts.name.clone(), cost, reasons };
    LookedAt { candidate, facts, decision }
}

/// Why a device cannot be used at all, whatever the rules say.
fn obstacle(need: &Need, facts: &Facts) -> Option<String> {
    if need.named.is_some_and(|named| named != facts.device) {
        return Some("the words name another device".into());
    }
    if let Some(why) = need.only_here
        && need.named.is_none()
        && !facts.here
    {
        return Some(why.into());
    }
    if !facts.here && need.bytes > INLINE_BYTES_MAX as u64 {
        return Some(format!("{} bytes are too many to travel with a step", need.bytes));
    }
    if !facts.reachable {
        return Some("away".into());
    }
    if !facts.offers {
        return Some(format!("doesn't have {}", need.capability));
    }
    let unavailable = need.unavailable.as_ref();
    unavailable.map(|unavailable| format!("no device that is here has {unavailable}"))
}

fn price(need: &Need, facts: &Facts) -> (u64, Vec<String>) {
    let mut cost = 0u64;
    let mut reasons = Vec::new();
    let mut add = |micros: u64, reason: String| {
        cost = cost.saturating_add(micros);
        reasons.push(format!("{reason} ({})", milliseconds(micros)));
    };
    if facts.here {
        add(0, "is this device".into());
    } else {
        let round_trip = facts.round_trip_micros.unwrap_or(ROUND_TRIP_UNKNOWN_MICROS);
        add(round_trip.saturating_add(AWAY_MICROS), "round trip".into());
        let transfer = need.bytes.saturating_mul(1_000_000) / LINK_BYTES_PER_SECOND;
        if transfer > 0 {
            add(transfer, format!("transfer of {} bytes", need.bytes));
        }
        if facts.metered {
            add(METERED_MICROS, "metered link".into());
        }
    }
    if facts.queue > 0 {
        let wait = u64::from(facts.queue).saturating_mul(QUEUED_STEP_MICROS);
        add(wait, format!("{} in its queue", facts.queue));
    }
    for missing in &facts.lacks {
        add(CALL_ELSEWHERE_MICROS, format!("would have to ask another device for {missing}"));
    }
    let busy = facts.load_percent.filter(|load| *load >= BUSY_PERCENT);
    if let Some(load) = busy {
        add(BUSY_MICROS, format!("busy: {load} %"));
    }
    if facts.needs_model && facts.lacks.is_empty() {
        let (speed, how) = match facts.speed_milli {
            0 => (unmeasured_speed_milli(facts.kind), "expected"),
            speed => (speed, "measured"),
        };
        let micros = TYPICAL_TOKENS.saturating_mul(1_000_000_000) / speed.max(1);
        add(micros, format!("model at {}.{} tokens/s {how}", speed / 1_000, speed % 1_000 / 100));
        if let Some(load) = busy {
            add(micros, format!("at half that speed, since {load} % busy"));
        }
        if facts.battery.is_some() {
            add(BATTERY_MICROS, "on battery".into());
        }
    }
    (cost, reasons)
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str, kind: Kind) -> Facts {
        Facts {
            device: DeviceId::from_bytes([kind as u8; 32]),
            name: name.into(),
            kind,
            here: kind == Kind::Laptop,
            reachable: true,
            offers: true,
            lacks: vec![],
            needs_model: false,
            speed_milli: 0,
            round_trip_micros: Some(500),
            queue: 0,
            battery: None,
            metered: false,
            load_percent: None,
        }
    }

    fn allow() -> Decision {
        Decision { effect: Effect::Allow, reason: "allowed".into(), obligations: vec![] }
    }

    fn need() -> Need {
        Need {
            capability: "text.summarize".parse().unwrap(),
            calls: vec!["llm.generate".parse().unwrap()],
            only_here: None,
            named: None,
            unavailable: None,
            bytes: 20_000,
        }
    }

    fn fabric() -> Vec<Facts> {
        vec![
            facts("laptop", Kind::Laptop),
            facts("phone", Kind::Phone),
            facts("server", Kind::Server),
        ]
    }

    fn chosen(need: &Need, devices: &[Facts]) -> Option<String> {
        let placement = place(need, devices, |_| allow());
        let first = placement.candidates.first().filter(|first| first.cost.is_some())?;
        assert_eq!(Some(first.device), placement.chosen);
        Some(first.name.clone())
    }

    #[test]
    fn a_summary_runs_where_the_model_is() {
        let mut devices = fabric();
        for facts in &mut devices {
            facts.needs_model = true;
            if facts.name != "server" {
                facts.lacks = need().calls;
            }
        }
        assert_eq!(chosen(&need(), &devices).as_deref(), Some("server"));
        devices[2].reachable = false;
        assert_eq!(chosen(&need(), &devices).as_deref(), Some("laptop"));
    }

    #[test]
    fn equal_devices_leave_the_work_here() {
        assert_eq!(chosen(&need(), &fabric()).as_deref(), Some("laptop"));
    }

    #[test]
    fn busy_processors_count_elsewhere_and_for_a_model() {
        let mut devices = fabric();
        let need = Need { only_here: None, ..need() };
        // Nothing leaves this device for that alone.
        devices[0].load_percent = Some(100);
        assert_eq!(chosen(&need, &devices).as_deref(), Some("laptop"));
        // Of two others the one that has time is asked.
        devices[0].offers = false;
        for (phone, server, expected) in [
            (Some(95), Some(10), "server"),
            (Some(10), Some(95), "phone"),
            // One that does not say is not held to be busy, and nobody is by a little.
            (Some(95), None, "server"),
            (None, Some(95), "phone"),
            (None, Some(79), "phone"),
        ] {
            (devices[1].load_percent, devices[2].load_percent) = (phone, server);
            assert_eq!(chosen(&need, &devices).as_deref(), Some(expected), "{phone:?} {server:?}");
        }
        // A model that shares its processors is half as fast.
        let mut devices = fabric();
        for facts in &mut devices {
            facts.needs_model = true;
            facts.speed_milli = 10_000;
        }
        devices[0].load_percent = Some(90);
        assert_eq!(chosen(&need, &devices).as_deref(), Some("phone"));
        let laptop = place(&need, &devices, |_| allow()).candidates.remove(2);
        let reasons = laptop.reasons.join("; ");
        let expected = "busy: 90 % (0.9 ms); model at 10.0 tokens/s measured (20000.0 ms); at half \
                        that speed, since 90 % busy (20000.0 ms)";
        assert!(reasons.ends_with(expected), "{reasons}");
    }

    #[test]
    fn a_device_named_in_the_words_is_binding() {
        let named = Need { named: Some(DeviceId::from_bytes([Kind::Phone as u8; 32])), ..need() };
        assert_eq!(chosen(&named, &fabric()).as_deref(), Some("phone"));
        let mut devices = fabric();
        devices[1].reachable = false;
        assert_eq!(chosen(&named, &devices), None);
    }

    #[test]
    fn what_the_rules_deny_is_not_used_and_says_why() {
        let placement = place(&need(), &fabric(), |_| Decision::deny("because"));
        assert_eq!(placement.chosen, None);
        assert_eq!(placement.decision, Some(Decision::deny("because")));
        assert!(placement.candidates[0].reasons[0].contains("because"));
    }

    #[test]
    fn the_rules_are_asked_of_the_devices_that_nothing_else_keeps_out() {
        let mut devices = fabric();
        devices[1].reachable = false;
        let ask = |need: &Need, devices: &[Facts], decision: &Decision| {
            let mut asked = Vec::new();
            let placement = place(need, devices, |device| {
                asked.push(*device);
                decision.clone()
            });
            (asked.len(), placement.chosen.is_some(), placement.decision)
        };
        let server = Some(DeviceId::from_bytes([Kind::Server as u8; 32]));
        let named = Need { named: server, ..need() };
        let (yes, no) = (allow(), Decision::deny("because"));
        assert_eq!(ask(&need(), &devices, &yes), (2, true, Some(yes.clone())));
        assert_eq!(ask(&named, &devices, &yes), (1, true, Some(yes.clone())));
        assert_eq!(ask(&named, &devices, &no).2, Some(no.clone()));
        // A no is said also where the device is away.
        devices[2].reachable = false;
        assert_eq!(ask(&named, &devices, &no), (1, false, Some(no)));
        assert_eq!(ask(&named, &devices, &yes), (3, false, None));
    }

    #[test]
    fn a_word_names_a_device_by_its_name_else_the_only_one_of_its_kind() {
        let subject = |number: u8, name: &str, kind| Subject {
            id: DeviceId::from_bytes([number; 32]),
            name: name.into(),
            kind,
            role: weft_protocol::device::Role::Member,
        };
        let subjects = [
            subject(1, "attic", Kind::Server),
            subject(2, "cellar", Kind::Server),
            subject(3, "pocket", Kind::Phone),
        ];
        let named = |word| device_named(&subjects, word);
        assert_eq!(named("Attic"), Ok(subjects[0].id));
        assert_eq!(named("phone"), Ok(subjects[2].id));
        assert!(named("server").unwrap_err().contains("several devices"));
        assert!(named("desk").unwrap_err().contains("attic, cellar, pocket"));
    }
}
