//! What a device of a kind may spend, as `devices/profiles` has it.

use std::time::Duration;

use serde::Deserialize;
use weft_protocol::device::Kind;

/// What a device may spend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// An agent's process ends after so long without work.
    pub agent_idle: Duration,
    /// The model's process ends after so long without a question.
    pub model_idle: Duration,
    /// The most threads that compute for the model, at least 1.
    pub model_threads_max: u32,
}

/// A profile as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    agent_idle_seconds: u64,
    model_idle_seconds: u64,
    model_threads_max: u32,
}

impl Limits {
    /// The limits of a kind of device.
    pub fn of(kind: Kind) -> Self {
        let text = match kind {
            Kind::Laptop => include_str!("../../profiles/laptop.toml"),
            Kind::Phone => include_str!("../../profiles/phone.toml"),
            Kind::Server => include_str!("../../profiles/server.toml"),
        };
        Self::parse(text).expect("the profiles that the program carries are read by a test")
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let written: Written = toml::from_str(text)?;
        Ok(Self {
            agent_idle: Duration::from_secs(written.agent_idle_seconds),
            model_idle: Duration::from_secs(written.model_idle_seconds),
            model_threads_max: written.model_threads_max.max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_may_spend_no_more_than_the_others() {
        let phone = Limits::of(Kind::Phone);
        for kind in [Kind::Laptop, Kind::Server] {
            let other = Limits::of(kind);
            assert!(phone.agent_idle <= other.agent_idle, "{kind}");
            assert!(phone.model_idle <= other.model_idle, "{kind}");
            assert!(phone.model_threads_max <= other.model_threads_max, "{kind}");
        }
    }

    #[test]
    fn a_profile_is_read_whole_or_not_at_all() {
        let whole = "agent_idle_seconds = 1\nmodel_idle_seconds = 2\nmodel_threads_max = 0\n";
        let limits = Limits::parse(whole).unwrap();
        assert_eq!(limits.agent_idle, Duration::from_secs(1));
        assert_eq!(limits.model_idle, Duration::from_secs(2));
        assert_eq!(limits.model_threads_max, 1);
        for damaged in [
            "",
            "agent_idle_seconds = 1\nmodel_idle_seconds = 2\n",
            "agent_idle_seconds = -1\nmodel_idle_seconds = 2\nmodel_threads_max = 1\n",
            "agent_idle_seconds = 1\nmodel_idle_seconds = 2\nmodel_threads_max = 1\nfree = 1\n",
        ] {
            assert!(Limits::parse(damaged).is_err(), "{damaged}");
        }
    }
}
