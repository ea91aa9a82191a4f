//! The signed record of what this device did and refused.

use serde_json::Value;

use super::{Finding, facts::Facts};
use crate::cli::terminal::{harmless, items, short, text};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Some(found) = facts.answers().map(|it| &it.verified).filter(|it| !it.is_null()) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let chains = std::iter::once(found).chain(items(&found["former"]));
    for chain in chains.filter(|chain| !chain["fault"].is_null()) {
        let (position, reason) =
            (text(&chain["fault"], "position"), text(&chain["fault"], "reason"));
        let under = match short(chain, "key") {
            key if key.is_empty() => String::new(),
            key => format!(" under the former key {key}"),
        };
        findings.push(
            Finding::problem("record", format!("record {position}{under}: {reason}"))
                .why("the disk failed, or somebody changed what this device did and refused")
                .advise("weft audit verify --every-signature"),
        );
    }
    for fork in items(&found["forks"]) {
        findings.push(
            Finding::problem("record", text(fork, "warning"))
                .advise("weft audit verify --json > proof.json, and keep it")
                .advise(format!("then weft device show {}", text(fork, "device"))),
        );
    }
    for setback in items(&found["setbacks"]) {
        let why = "the disk was set back to an earlier state, by a backup or by hand";
        findings.push(Finding::warning("record", text(setback, "reason")).why(why));
    }
    for device in items(&found["bogus"]).filter_map(Value::as_str) {
        let what = format!("the countersignature of {} doesn't hold", harmless(device));
        findings
            .push(Finding::warning("record", what).why("this device never signed what it names"));
    }
    if findings.is_empty() {
        let records = text(found, "records");
        let mut witnesses: Vec<_> =
            items(&found["witnesses"]).map(|it| text(it, "device")).collect();
        witnesses.sort();
        let witnesses = match witnesses.as_slice() {
            [] => "countersigned by no other device yet".to_owned(),
            all => format!("countersigned by {}", all.join(", ")),
        };
        findings
            .push(Finding::ok("record", format!("{records} as they were written; {witnesses}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::sample;

    fn said(field: &str, value: Value) -> Vec<String> {
        sample::said(check, |facts| sample::answers(facts).verified[field] = value)
    }

    #[test]
    fn a_record_that_is_whole_is_one_line() {
        let whole = said("setbacks", json!([]));
        assert_eq!(whole, ["ok: 16 as they were written; countersigned by phone, server"]);
        let alone = said("witnesses", json!([]));
        assert_eq!(alone, ["ok: 16 as they were written; countersigned by no other device yet"]);
        assert!(sample::said(check, |it| sample::answers(it).verified = Value::Null).is_empty());
    }

    #[test]
    fn what_is_wrong_with_it_is_told() {
        let fault = said("fault", json!({"position": 7, "reason": "it was changed"}));
        assert_eq!(fault, ["problem: record 7: it was changed"]);
        let former =
            json!([{"key": "abcdefghij", "fault": {"position": 1, "reason": "it is gone"}}]);
        let former = said("former", former);
        assert_eq!(former, ["problem: record 1 under the former key abcdefgh: it is gone"]);
        let fork = said("forks", json!([{"device": "phone", "warning": "it is forked"}]));
        assert_eq!(fork, ["problem: it is forked"]);
        let setback = said("setbacks", json!([{"reason": "records 5 to 9 are missing"}]));
        assert_eq!(setback, ["warning: records 5 to 9 are missing"]);
        let bogus = said("bogus", json!(["phone"]));
        assert_eq!(bogus, ["warning: the countersignature of phone doesn't hold"]);
    }
}
