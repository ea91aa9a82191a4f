//! This device's place in its fabric, and the way back in when devices are lost.

use serde_json::Value;

use super::{
    Finding, contact,
    facts::{Answers, Facts},
};
use crate::cli::terminal::{items, local_time, text};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(answers) = facts.answers() else { return Vec::new() };
    let mut findings = vec![standing(&answers.status)];
    if is_out(facts) {
        return findings;
    }
    findings.push(recovery(answers));
    let copies = items(&answers.checkup["copies"]).filter_map(Value::as_str);
    findings.extend(copies.map(|copy| {
        let (what, to_do) = copy.split_once("; ").unwrap_or((copy, "weft rotate, on the real one"));
        Finding::problem("keys", what).advise(to_do)
    }));
    findings
}

/// Whether this device was put out, which is for good.
pub(super) fn is_out(facts: &Facts) -> bool {
    facts.answers().is_some_and(|it| it.status["standing"]["state"] == "revoked")
}

fn standing(status: &Value) -> Finding {
    let (name, fabric) = (text(status, "name"), text(status, "fabric_name"));
    if status["update_needed"] == true {
        return Finding::problem("fabric", format!("{fabric} uses a newer version of weft"))
            .why("until it is updated this device works with no other")
            .advise("update weft on this device, and start its node again");
    }
    let standing = &status["standing"];
    if !standing.is_null() {
        let (state, why) = (text(standing, "state"), text(standing, "why"));
        if state == "revoked" {
            let at = local_time(standing, "at");
            let at = if at.is_empty() { at } else { format!(", {at}") };
            let what = format!("this device was put out of {fabric}: {why}{at}");
            return Finding::problem("fabric", what)
                .why("that is for good: no device serves it, and none takes what it writes")
                .advise(text(standing, "remedy"));
        }
        return Finding::problem("fabric", format!("this device is {state} in {fabric}: {why}"))
            .why("the others serve it nothing but the news of who belongs")
            .advise(text(standing, "remedy"));
    }
    let (kind, role) = (text(status, "kind"), text(status, "role"));
    Finding::ok("fabric", format!("{name} is a {kind} and {role} of {fabric}"))
}

fn recovery(answers: &Answers) -> Finding {
    let (status, checkup) = (&answers.status, &answers.checkup);
    if status["recovery"] == true {
        return Finding::ok("recovery", "by the 24 words: weft recover, on an empty machine");
    }
    let admins: Vec<String> =
        items(&checkup["admins"]).filter_map(Value::as_str).map(str::to_owned).collect();
    match admins.as_slice() {
        [] => Finding::warning("recovery", "there are no recovery words, and no admin is left")
            .why("nobody can let a device in or out any more")
            .advise("begin another fabric with weft --home DIR init, and let the others join it"),
        [admin] => {
            let what = format!("there are no recovery words, and {admin} is the only admin");
            let finding = Finding::warning("recovery", what)
                .why(format!("if {admin} is lost, nobody is let in or out any more"));
            let other = contact::others(answers)
                .map(|(device, _)| text(device, "name"))
                .find(|name| name != admin);
            finding.advise(match other {
                None => "weft invite --role admin brings another that may do it, too".to_owned(),
                Some(_) if *admin != text(status, "name") => {
                    format!("on {admin}: weft device role NAME admin")
                }
                Some(other) => format!("weft device role {other} admin"),
            })
        }
        several => {
            let what = format!("no words; {} are admins", several.join(" and "));
            Finding::ok("recovery", what)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    fn said(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        sample::said(check, change)
    }

    #[test]
    fn a_device_that_is_out_is_told_with_what_to_do() {
        let out = sample::findings(check, |facts| {
            sample::answers(facts).status["standing"] = json!({"state": "suspended",
                "why": "phone revoked it", "remedy": "weft device keep laptop on server"});
        });
        assert_eq!(out[0].to_do, ["weft device keep laptop on server"]);
        assert_eq!(out[0].what, "this device is suspended in home: phone revoked it");
        let newer = said(|facts| sample::answers(facts).status["update_needed"] = true.into());
        assert_eq!(newer[0], "problem: home uses a newer version of weft");
        let copied =
            said(|facts| sample::answers(facts).checkup["copies"] = json!(["a copy; stop it"]));
        assert_eq!(copied[2], "problem: a copy");
    }

    #[test]
    fn who_could_say_who_belongs_after_a_loss_is_told() {
        let with = |admins: Value| {
            said(|facts| {
                sample::answers(facts).status["recovery"] = false.into();
                sample::answers(facts).checkup["admins"] = admins;
            })[1]
                .clone()
        };
        assert_eq!(with(json!(["laptop", "server"])), "ok: no words; laptop and server are admins");
        let one = with(json!(["laptop"]));
        assert_eq!(one, "warning: there are no recovery words, and laptop is the only admin");
        assert!(with(json!([])).contains("no admin is left"));
        assert!(said(|_| ())[1].starts_with("ok: by the 24 words"));
    }
}
