//! A device.

use serde_json::{Value, json};
use weft_core::door::DeviceView;

use super::time;

/// A device.
pub fn device(device: &DeviceView) -> Value {
    json!({
        "id": device.id.to_string(),
        "name": device.name,
        "kind": device.kind.word(),
        "role": device.role.word(),
        "state": device.state,
        "this": device.this,
        "address": device.address,
        "round_trip_ms": device.round_trip_micros.map(|micros| micros as f64 / 1_000.0),
        "since": device.since.map(time),
        "models": device.models,
        "confirmed": device.confirmed,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::{
        device::{Kind, Role},
        id::DeviceId,
    };

    use super::*;
    use crate::json::sample::{at, check};

    #[test]
    fn a_device() {
        let view = DeviceView {
            id: DeviceId::from_bytes([1; 32]),
            name: "phone".into(),
            kind: Kind::Phone,
            role: Role::Member,
            state: "here".into(),
            this: false,
            address: Some("/ip4/10.0.0.2/udp/4001/quic-v1".into()),
            round_trip_micros: Some(1_250),
            since: Some(at(0)),
            models: vec![],
            confirmed: true,
        };
        check(
            &device(&view),
            expect![[r#"
            {
              "address": "/ip4/10.0.0.2/udp/4001/quic-v1",
              "confirmed": true,
              "id": "aeaqcaib",
              "kind": "phone",
              "models": [],
              "name": "phone",
              "role": "member",
              "round_trip_ms": 1.25,
              "since": "2026-03-10T09:00:00Z",
              "state": "here",
              "this": false
            }"#]],
        );
    }
}
