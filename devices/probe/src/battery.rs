//! Whether the machine runs on battery, and how much is left.
//!
//! The kernel lists what gives power: mains, USB, batteries. For each, `type` names what it is and
//! `uevent` all that is known of it, one `POWER_SUPPLY_NAME=value` a line
//! (<https://docs.kernel.org/power/power_supply_class.html>).

/// Something that gives power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Supply {
    /// A charger of any kind, and whether it is plugged in.
    Charger { online: bool },
    /// A battery of the machine itself.
    Battery { flow: Flow, charge: Charge },
}

/// Where a battery's energy goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// It feeds the machine.
    Out,
    /// It is full, being charged, or left alone.
    NotOut,
    /// The battery does not say.
    Unknown,
}

/// How full a battery is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Charge {
    /// What it holds and what it can hold, in the unit that this driver counts in.
    Amount { now: u64, full: u64 },
    /// Only this is known.
    Percent(u8),
}

impl Supply {
    /// Reads the texts of `type` and `uevent`. What is no supply of the machine, such as a mouse's
    /// battery or an empty bay, is `None`.
    pub(crate) fn parse(kind: &str, uevent: &str) -> Option<Self> {
        let value = |name: &str| {
            uevent.lines().find_map(|line| {
                line.strip_prefix("POWER_SUPPLY_")?.strip_prefix(name)?.strip_prefix('=')
            })
        };
        let number = |name: &str| value(name)?.trim().parse::<u64>().ok();
        match kind.trim() {
            "Mains" | "USB" | "Wireless" => Some(Self::Charger { online: number("ONLINE")? != 0 }),
            "Battery" if value("SCOPE") != Some("Device") && number("PRESENT") != Some(0) => {
                let flow = match value("STATUS").unwrap_or("Unknown") {
                    "Discharging" => Flow::Out,
                    "Charging" | "Full" | "Not charging" => Flow::NotOut,
                    _ => Flow::Unknown,
                };
                let amount = |now, full| {
                    let (now, full) = (number(now)?, number(full)?);
                    (full > 0).then(|| Charge::Amount { now: now.min(full), full })
                };
                let percent =
                    || Some(Charge::Percent(number("CAPACITY")?.min(100).try_into().ok()?));
                let charge = amount("ENERGY_NOW", "ENERGY_FULL")
                    .or_else(|| amount("CHARGE_NOW", "CHARGE_FULL"))
                    .or_else(percent)?;
                Some(Self::Battery { flow, charge })
            }
            _ => None,
        }
    }
}

impl Charge {
    fn percent(self) -> u8 {
        match self {
            Self::Percent(percent) => percent,
            Self::Amount { now, full } => percent_of(now, full),
        }
    }
}

fn percent_of(now: u64, full: u64) -> u8 {
    let percent = u128::from(now) * 100 / u128::from(full.max(1));
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// The charge in percent of all batteries together, if the machine runs on them.
///
/// It does if one of them feeds it, also beside a charger that is too weak. Where no battery says
/// which way it goes, it does if there are chargers and none is plugged in.
pub(crate) fn charge(supplies: &[Supply]) -> Option<u8> {
    let (mut flows, mut charges, mut chargers) = (Vec::new(), Vec::new(), Vec::new());
    for supply in supplies {
        match *supply {
            Supply::Charger { online } => chargers.push(online),
            Supply::Battery { flow, charge } => {
                flows.push(flow);
                charges.push(charge);
            }
        }
    }
    let is_unplugged = !chargers.is_empty() && !chargers.contains(&true);
    let is_on_battery = flows.contains(&Flow::Out)
        || flows.iter().all(|flow| *flow == Flow::Unknown) && is_unplugged;
    if charges.is_empty() || !is_on_battery {
        return None;
    }
    // Amounts add up: a small full battery beside a large empty one is nearly empty.
    let amounts: Option<Vec<(u64, u64)>> = charges
        .iter()
        .map(|charge| match *charge {
            Charge::Amount { now, full } => Some((now, full)),
            Charge::Percent(_) => None,
        })
        .collect();
    Some(match amounts {
        Some(amounts) => {
            let sum = |part: fn(&(u64, u64)) -> u64| {
                amounts.iter().map(part).fold(0, u64::saturating_add)
            };
            percent_of(sum(|it| it.0), sum(|it| it.1))
        }
        None => {
            let sum: u64 = charges.iter().map(|charge| u64::from(charge.percent())).sum();
            percent_of(sum, 100 * charges.len() as u64)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn battery(status: &str, more: &str) -> Supply {
        let uevent = format!("POWER_SUPPLY_NAME=BAT0\nPOWER_SUPPLY_STATUS={status}\n{more}");
        Supply::parse("Battery\n", &uevent).expect("it is a battery")
    }

    const HALF: &str = "POWER_SUPPLY_CAPACITY=50\n";

    #[test]
    fn a_battery_counts_while_it_feeds_the_machine() {
        for (status, expected) in [
            ("Discharging", Some(50)),
            ("Charging", None),
            ("Full", None),
            ("Not charging", None),
            ("Unknown", None),
        ] {
            assert_eq!(charge(&[battery(status, HALF)]), expected, "{status}");
        }
        assert_eq!(charge(&[]), None);
    }

    #[test]
    fn a_charger_decides_only_where_no_battery_does() {
        let (plugged, loose) =
            (Supply::Charger { online: true }, Supply::Charger { online: false });
        assert_eq!(charge(&[plugged, battery("Discharging", HALF)]), Some(50), "it is too weak");
        assert_eq!(charge(&[loose, battery("Unknown", HALF)]), Some(50));
        assert_eq!(charge(&[loose, plugged, battery("Unknown", HALF)]), None);
        assert_eq!(charge(&[loose, battery("Charging", HALF)]), None);
        assert_eq!(charge(&[loose]), None);
    }

    #[test]
    fn two_batteries_are_one_by_what_they_hold() {
        let small = battery("Full", "POWER_SUPPLY_ENERGY_NOW=10\nPOWER_SUPPLY_ENERGY_FULL=10\n");
        let large =
            battery("Discharging", "POWER_SUPPLY_ENERGY_NOW=9\nPOWER_SUPPLY_ENERGY_FULL=90\n");
        assert_eq!(charge(&[small, large]), Some(19));
        assert_eq!(charge(&[large, battery("Full", HALF)]), Some(30), "only percents compare");
    }

    #[test]
    fn what_drivers_write_oddly_is_bounded() {
        let over = "POWER_SUPPLY_CHARGE_NOW=120\nPOWER_SUPPLY_CHARGE_FULL=100\n";
        assert_eq!(charge(&[battery("Discharging", over)]), Some(100));
        let empty = "POWER_SUPPLY_CHARGE_NOW=1\nPOWER_SUPPLY_CHARGE_FULL=0\n";
        let empty = format!("{empty}POWER_SUPPLY_CAPACITY=300\n");
        assert_eq!(charge(&[battery("Discharging", &empty)]), Some(100));
    }

    #[test]
    fn what_does_not_feed_the_machine_is_no_supply() {
        let mouse = "POWER_SUPPLY_SCOPE=Device\nPOWER_SUPPLY_STATUS=Discharging\n";
        let mouse = format!("{mouse}{HALF}");
        let bay = format!("POWER_SUPPLY_PRESENT=0\nPOWER_SUPPLY_STATUS=Unknown\n{HALF}");
        let mute = "POWER_SUPPLY_STATUS=Discharging\n";
        for (kind, uevent) in
            [("Battery", mouse.as_str()), ("Battery", &bay), ("Battery", mute), ("UPS", HALF)]
        {
            assert_eq!(Supply::parse(kind, uevent), None, "{uevent}");
        }
        assert_eq!(
            Supply::parse("USB", "POWER_SUPPLY_ONLINE=1\n"),
            Some(Supply::Charger { online: true })
        );
    }
}
