//! A device.

use serde_json::{Value, json};
use weft_core::door::{DeviceView, StandingView};

use super::time;

/// Why a device does not belong any more.
pub fn standing(it: &StandingView) -> Value {
    json!({
        "state": it.state,
        "why": it.why,
        "remedy": it.remedy,
        "by": it.by,
        "at": it.at.map(time),
        "statement": it.statement.to_string(),
    })
}

/// A device.
pub fn device(device: &DeviceView) -> Value {
    json!({
        "id": device.id.to_string(),
        "name": device.name,
        "kind": device.kind.word(),
        "role": device.role.word(),
        "state": device.state,
        "standing": device.standing.as_ref().map(standing),
        "this": device.this,
        "via": device.via,
        "address": device.address,
        "way": device.is_relayed.map(|is_relayed| if is_relayed { "relayed" } else { "direct" }),
        "round_trip_ms": device.round_trip_micros.map(|micros| micros as f64 / 1_000.0),
        "since": device.since.map(time),
        "last_heard": device.last_heard.map(time),
        "models": device.models,
        "version": device.version.map(|version| version.to_string()),
        "confirmed": device.confirmed,
        "added_by": device.added_by,
        "added_at": device.added_at.map(time),
        "added": device.added.to_string(),
        "former": device.former.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use weft_protocol::{
        device::{Kind, Role},
        id::{DeviceId, StatementId},
        version::Version,
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
            standing: None,
            this: false,
            via: vec![],
            address: Some("/ip4/10.0.0.2/udp/4001/quic-v1".into()),
            is_relayed: Some(false),
            round_trip_micros: Some(1_250),
            since: Some(at(0)),
            last_heard: Some(at(60)),
            models: vec![],
            version: Some(Version { major: 1, minor: 2, patch: 3 }),
            confirmed: Some(true),
            added_by: Some("laptop".into()),
            added_at: Some(at(0)),
            added: StatementId::from_bytes([5; 32]),
            former: vec![DeviceId::from_bytes([6; 32])],
        };
        check(
            &device(&view),
            expect![[r#"
                {
                  "added": "aucqkbif",
                  "added_at": "2026-03-10T09:00:00Z",
                  "added_by": "laptop",
                  "address": "/ip4/10.0.0.2/udp/4001/quic-v1",
                  "confirmed": true,
                  "former": [
                    "aydambqg"
                  ],
                  "id": "aeaqcaib",
                  "kind": "phone",
                  "last_heard": "2026-03-10T09:01:00Z",
                  "models": [],
                  "name": "phone",
                  "role": "member",
                  "round_trip_ms": 1.25,
                  "since": "2026-03-10T09:00:00Z",
                  "standing": null,
                  "state": "here",
                  "this": false,
                  "version": "1.2.3",
                  "via": [],
                  "way": "direct"
                }"#]],
        );
    }

    #[test]
    fn a_standing() {
        let view = StandingView {
            state: "suspended",
            why: "server revoked it, and server is revoked itself".into(),
            remedy: "weft device keep phone on laptop".into(),
            by: "server".into(),
            at: Some(at(0)),
            statement: StatementId::from_bytes([5; 32]),
        };
        check(
            &standing(&view),
            expect![[r#"
            {
              "at": "2026-03-10T09:00:00Z",
              "by": "server",
              "remedy": "weft device keep phone on laptop",
              "state": "suspended",
              "statement": "aucqkbif",
              "why": "server revoked it, and server is revoked itself"
            }"#]],
        );
    }
}
