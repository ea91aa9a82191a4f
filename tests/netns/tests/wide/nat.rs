//! Laptop and phone behind routers of all kinds: by which way they meet, with and without a server.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use weft_netns::{Home, Nat, SOON, until};

use crate::lab::{Lab, Place, call, is_soak, lab, meet, meet_by, must_call, pass};

/// How long a way must hold that is said to be the last: each try at a better one is over by then.
const HOLDS: Duration = Duration::from_secs(6);

const PLACES: [Place; 4] = [
    Place::Street,
    Place::Behind(Nat::FullCone),
    Place::Behind(Nat::Restricted),
    Place::Behind(Nat::Symmetric),
];

/// Whether any packet of one can arrive at the other that did not come by the server.
fn can_be_direct(one: Place, other: Place) -> bool {
    let is_closed = |place| matches!(place, Place::Behind(Nat::Restricted | Nat::Symmetric));
    let is_symmetric = |place| place == Place::Behind(Nat::Symmetric);
    !(is_closed(one) && is_closed(other) && (is_symmetric(one) || is_symmetric(other)))
}

/// Each pair once, as few as a change needs; in both orders for a soak.
fn pairs() -> impl Iterator<Item = (Place, Place)> {
    let all = (0..PLACES.len()).flat_map(|one| (0..PLACES.len()).map(move |other| (one, other)));
    all.filter(|(one, other)| one <= other || is_soak())
        .map(|(one, other)| (PLACES[one], PLACES[other]))
}

/// Moves laptop and phone to their places and starts them there.
fn settle(home: &mut Home<Lab>, laptop: Place, phone: Place) -> Result<()> {
    home.laptop.stop()?;
    home.phone.stop()?;
    let routers = [(laptop, &mut home.network.laptops), (phone, &mut home.network.phones)];
    for (place, router) in routers {
        if let Place::Behind(nat) = place {
            router.become_a(nat)?;
        }
    }
    let (outlet, address) = home.network.place_of_laptop(laptop);
    home.laptop.move_to(&outlet, &address)?;
    let (outlet, address) = home.network.place_of_phone(phone);
    home.phone.move_to(&outlet, &address)?;
    home.laptop.up()?;
    home.phone.up()
}

/// Each of these pairs in turn: they meet, and stay as they can; a note and a step pass.
fn each_pair(home: &mut Home<Lab>, pairs: &[(Place, Place)]) -> Result<()> {
    for &(laptop, phone) in pairs {
        let pair = format!("{laptop:?} and {phone:?}");
        settle(home, laptop, phone)?;
        let (first, _) = meet(&format!("{pair}: they meet"), &home.laptop, &home.phone)?;
        eprintln!("  {pair}: at first {first}");
        if can_be_direct(laptop, phone) {
            let what = format!("{pair}: they are direct");
            meet_by(&what, "direct", &home.laptop, &home.phone)?;
        } else {
            thread::sleep(HOLDS);
            let what = format!("{pair}: they are relayed still");
            meet_by(&what, "relayed", &home.laptop, &home.phone)?;
        }
        pass(&format!("{pair} from the laptop"), &home.laptop, &home.phone)?;
        pass(&format!("{pair} from the phone"), &home.phone, &home.laptop)?;
        let took = must_call(&home.laptop, "phone")?;
        eprintln!("  {pair}: a step on the phone took {:.2} s", took.as_secs_f64());
    }
    Ok(())
}

/// The server goes for a while: those who are direct stay so.
fn direct_without_server(home: &mut Home<Lab>, pair: (Place, Place)) -> Result<()> {
    settle(home, pair.0, pair.1)?;
    meet_by("they are direct", "direct", &home.laptop, &home.phone)?;
    home.server.kill()?;
    until("the laptop notices that the server is gone", SOON, || {
        Ok(!home.laptop.sees("server")?)
    })?;
    ensure!(home.laptop.way_to("phone")?.as_deref() == Some("direct"));
    pass(&format!("without the server, {pair:?}"), &home.laptop, &home.phone)?;
    must_call(&home.laptop, "phone")?;
    home.server.up()?;
    meet("the server is back", &home.laptop, &home.server)?;
    home.everybody_has(&format!("without the server, {pair:?}"))
}

/// The server goes for a while: those who need it lose each other, are told so, and meet again.
fn relayed_without_server(home: &mut Home<Lab>, pair: (Place, Place)) -> Result<()> {
    settle(home, pair.0, pair.1)?;
    meet_by("they are relayed", "relayed", &home.laptop, &home.phone)?;
    home.server.kill()?;
    until("the laptop notices that the phone is gone", SOON, || Ok(!home.laptop.sees("phone")?))?;
    let note = format!("with nobody to carry it, {pair:?}");
    home.laptop.note(&note)?;
    let refused = call(home.laptop.keyboard(), "phone")?;
    eprintln!("  a step on the phone: {} {:.2?}", refused.stderr.trim(), refused.took);
    ensure!(refused.code == Some(6) && refused.stderr.contains("away"), "{refused:?}");
    home.server.up()?;
    meet_by("the server relays again", "relayed", &home.laptop, &home.phone)?;
    home.everybody_has(&note)
}

#[test]
fn two_devices_meet_directly_wherever_their_routers_allow_it() -> Result<()> {
    let test = "two_devices_meet_directly_wherever_their_routers_allow_it";
    let (street, restricted) = (Place::Street, Place::Behind(Nat::Restricted));
    let Some(mut home) = lab(test, street, restricted)? else { return Ok(()) };
    let pairs: Vec<_> = pairs().filter(|&(one, other)| can_be_direct(one, other)).collect();
    each_pair(&mut home, &pairs)?;
    let alone = if is_soak() { pairs } else { vec![(restricted, restricted)] };
    for pair in alone {
        direct_without_server(&mut home, pair)?;
    }
    home.ends_well()
}

#[test]
fn two_devices_meet_through_the_server_where_no_other_way_leads() -> Result<()> {
    let test = "two_devices_meet_through_the_server_where_no_other_way_leads";
    let symmetric = Place::Behind(Nat::Symmetric);
    let Some(mut home) = lab(test, symmetric, symmetric)? else { return Ok(()) };
    let pairs: Vec<_> = pairs().filter(|&(one, other)| !can_be_direct(one, other)).collect();
    each_pair(&mut home, &pairs)?;
    let alone = if is_soak() { pairs } else { vec![(symmetric, symmetric)] };
    for pair in alone {
        relayed_without_server(&mut home, pair)?;
    }
    home.ends_well()
}
