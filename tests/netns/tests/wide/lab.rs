//! A fabric on the public network: a server that everybody reaches, a laptop and a phone anywhere.

use std::{env, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weft_netns::{
    Device, EXPOSED, Ended, Home, Internet, Keyboard, Nat, Outlet, Router, SOON, until,
};

/// How long a command has that another device carries out: longer is a hang.
pub(crate) const STEP: Duration = Duration::from_secs(60);

/// Where the server is.
const SERVER: &str = "203.0.113.1";

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where everybody reaches it.
    Street,
    /// At home, behind a router of that kind.
    Behind(Nat),
}

/// The public network, and two homes on it with the same addresses inside.
#[derive(Debug)]
pub(crate) struct Lab {
    internet: Internet,
    pub(crate) laptops: Router,
    pub(crate) phones: Router,
}

/// Laptop and phone in their places, all paired and running.
pub(crate) fn lab(test: &str, laptop: Place, phone: Place) -> Result<Option<Home<Lab>>> {
    let Some(mut internet) = Internet::of(test) else { return Ok(None) };
    let nat = |place| if let Place::Behind(nat) = place { nat } else { Nat::Restricted };
    let laptops = internet.home("laptops", nat(laptop), "198.51.100.1")?;
    let phones = internet.home("phones", nat(phone), "198.51.100.2")?;
    let mut lab = Lab { internet, laptops, phones };
    let (outlet, address) = lab.place_of_laptop(laptop);
    let laptop = lab.internet.plug("laptop", &outlet, &address)?;
    let (outlet, address) = lab.place_of_phone(phone);
    let phone = lab.internet.plug("phone", &outlet, &address)?;
    let server = lab.internet.host("server", SERVER)?;
    Home::pair(lab, laptop, phone, server).map(Some)
}

impl Lab {
    pub(crate) fn place_of_laptop(&self, place: Place) -> (Outlet, String) {
        self.place(place, &self.laptops, "203.0.113.11")
    }

    pub(crate) fn place_of_phone(&self, place: Place) -> (Outlet, String) {
        self.place(place, &self.phones, "203.0.113.12")
    }

    fn place(&self, place: Place, home: &Router, address: &str) -> (Outlet, String) {
        match place {
            Place::Street => (self.internet.street().clone(), address.to_owned()),
            Place::Behind(_) => (home.outlet(), format!("{EXPOSED}/24")),
        }
    }
}

/// Whether the tests go on for longer and try more than a change needs.
pub(crate) fn is_soak() -> bool {
    env::var_os("WEFT_SOAK").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Has a device carry out a step that has no effect.
pub(crate) fn call(from: &Keyboard, on: &str) -> Result<Ended> {
    from.try_weft(&["do", &format!("list my notes on the {on}")], STEP)
}

/// As [`call`], where it must be done.
pub(crate) fn must_call(from: &Device, on: &str) -> Result<Duration> {
    let ended = call(from.keyboard(), on)?;
    ensure!(ended.code == Some(0), "the {} calls the {on}: {ended:?}", from.name());
    Ok(ended.took)
}

/// Waits until both reach each other, and says how the first that did.
pub(crate) fn meet(what: &str, one: &Device, other: &Device) -> Result<(String, Duration)> {
    let mut first = None;
    let took = until(what, SOON, || {
        let ways = [one.way_to(other.name())?, other.way_to(one.name())?];
        first = first.take().or_else(|| ways.iter().flatten().next().cloned());
        Ok(ways.iter().all(Option::is_some))
    });
    let took = took.with_context(|| log_tails(&[one, other]))?;
    Ok((first.context("they met in some way")?, took))
}

/// Waits until both reach each other in that way.
pub(crate) fn meet_by(what: &str, way: &str, one: &Device, other: &Device) -> Result<Duration> {
    let met = until(what, SOON, || {
        let ways = [one.way_to(other.name())?, other.way_to(one.name())?];
        ensure!(ways.iter().all(|it| it.as_deref() == Some(way)), "they meet so: {ways:?}");
        Ok(true)
    });
    met.with_context(|| log_tails(&[one, other]))
}

/// Takes a note on one device and waits until it is on another.
pub(crate) fn pass(note: &str, from: &Device, to: &Device) -> Result<Duration> {
    from.note(note)?;
    let what = format!("`{note}` goes from {} to {}", from.name(), to.name());
    until(&what, SOON, || to.has_note(note)).with_context(|| log_tails(&[from, to]))
}

fn log_tails(devices: &[&Device]) -> String {
    devices.iter().map(|device| device.log_tail()).collect::<Vec<_>>().join("\n")
}
