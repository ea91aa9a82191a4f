//! A node's state.

use serde_json::{Value, json};
use weft_core::door::Status;

use super::{audit::head, device::standing};
use crate::message::Keys;

/// A node's state. `keys` is `null` where the shell did not say.
pub fn status(status: &Status, keys: Option<Keys>) -> Value {
    json!({
        "fabric": status.fabric.to_string(),
        "fabric_name": status.fabric_name,
        "device": status.device.to_string(),
        "agreement": status.agreement.to_string(),
        "name": status.name,
        "kind": status.kind.word(),
        "role": status.role.word(),
        "standing": status.standing.as_ref().map(standing),
        "update_needed": status.update_needed,
        "recovery": status.recovery,
        "keys": keys.map(Keys::word),
        "locked": false,
        "addresses": status.addresses,
        "devices_here": status.devices_here,
        "devices": status.devices,
        "documents": status.documents,
        "runs": status.runs,
        "audit_head": status.audit_head.as_ref().map(head),
        "policy": status.policy.to_string(),
        "models": status.models,
        "warnings": status.warnings,
    })
}

/// The state of a device that is locked.
pub fn locked(keys: Keys) -> Value {
    json!({"locked": true, "keys": keys.word()})
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::{
        device::{Kind, Role},
        id::{AgreementKey, DeviceId, Digest, FabricId},
    };

    use super::*;
    use crate::json::sample::check;

    #[test]
    fn a_status() {
        let view = Status {
            fabric: FabricId::from_bytes([1; 32]),
            fabric_name: "home".into(),
            device: DeviceId::from_bytes([2; 32]),
            agreement: AgreementKey::from_bytes([3; 32]),
            name: "laptop".into(),
            kind: Kind::Laptop,
            role: Role::Admin,
            standing: None,
            update_needed: false,
            recovery: true,
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".into()],
            devices_here: 1,
            devices: 2,
            documents: 3,
            runs: 0,
            audit_head: None,
            policy: Digest::from_bytes([4; 32]),
            models: vec![],
            warnings: vec![],
        };
        check(
            &status(&view, Some(Keys::File)),
            expect![[r#"
            {
              "addresses": [
                "/ip4/127.0.0.1/tcp/4001"
              ],
              "agreement": "ambqgayd",
              "audit_head": null,
              "device": "aibaeaqc",
              "devices": 2,
              "devices_here": 1,
              "documents": 3,
              "fabric": "aeaqcaib",
              "fabric_name": "home",
              "keys": "file",
              "kind": "laptop",
              "locked": false,
              "models": [],
              "name": "laptop",
              "policy": "aqcaibae",
              "recovery": true,
              "role": "admin",
              "runs": 0,
              "standing": null,
              "update_needed": false,
              "warnings": []
            }"#]],
        );
    }
}
