//! What a device of a kind may spend, as `devices/profiles` has it.

use std::time::Duration;

use serde::Deserialize;
use weft_protocol::device::Kind;

/// What a device may spend. Each has its reason beside its figure, in the profile's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// An agent's process ends after so long without work.
    pub agent_idle: Duration,
    /// Steps of agents that run side by side for one device that asks, at least 1; more of them wait.
    pub agents_running_max: usize,
    /// Agents' processes that live at once, at least one for each that runs.
    pub agents_alive_max: usize,
    /// The most memory of an agent, in MiB, whatever its manifest asks for.
    pub agent_memory_mib_max: u32,
    /// The most bytes of compiled agents on the disk.
    pub code_cache_bytes_max: u64,
    /// The model's process ends after so long without a question.
    pub model_idle: Duration,
    /// The most threads that compute for the model, at least 1.
    pub model_threads_max: u32,
    /// The most tokens of prompt and answer together.
    pub model_context_tokens_max: u32,
    /// Bytes of the store's file that are kept in memory.
    pub store_cache_bytes: usize,
    /// Documents that stay loaded although nobody works on them.
    pub documents_loaded_max: usize,
    /// A node that only hears that others are there gives memory back at most so often.
    pub rests_apart: Duration,
    /// Threads that serve network, agents and doors, at least 1.
    pub workers: usize,
    /// Whether it carries other members' connections.
    pub relay: bool,
    /// Whether it asks the router to let other members in.
    pub upnp: bool,
}

/// A profile as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    agent_idle_seconds: u64,
    agents_running_max: usize,
    agents_alive_max: usize,
    agent_memory_mib_max: u32,
    code_cache_mib_max: u32,
    model_idle_seconds: u64,
    model_threads_max: u32,
    model_context_tokens_max: u32,
    store_cache_kib: u32,
    documents_loaded_max: usize,
    rests_apart_seconds: u64,
    workers: usize,
    relay: bool,
    upnp: bool,
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
        let agents_running_max = written.agents_running_max.max(1);
        Ok(Self {
            agent_idle: Duration::from_secs(written.agent_idle_seconds),
            agents_running_max,
            agents_alive_max: written.agents_alive_max.max(agents_running_max),
            agent_memory_mib_max: written.agent_memory_mib_max,
            code_cache_bytes_max: u64::from(written.code_cache_mib_max) << 20,
            model_idle: Duration::from_secs(written.model_idle_seconds),
            model_threads_max: written.model_threads_max.max(1),
            model_context_tokens_max: written.model_context_tokens_max,
            store_cache_bytes: usize::try_from(u64::from(written.store_cache_kib) << 10)
                .unwrap_or(usize::MAX),
            documents_loaded_max: written.documents_loaded_max,
            rests_apart: Duration::from_secs(written.rests_apart_seconds),
            workers: written.workers.max(1),
            relay: written.relay,
            upnp: written.upnp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "agent_idle_seconds = 1\nagents_running_max = 0\nagents_alive_max = 0\n\
        agent_memory_mib_max = 3\ncode_cache_mib_max = 4\nmodel_idle_seconds = 2\n\
        model_threads_max = 0\nmodel_context_tokens_max = 5\nstore_cache_kib = 6\n\
        documents_loaded_max = 7\nrests_apart_seconds = 8\nworkers = 0\nrelay = true\nupnp = false\n";

    #[test]
    fn a_phone_may_spend_no_more_than_the_others() {
        let phone = Limits::of(Kind::Phone);
        for kind in [Kind::Laptop, Kind::Server] {
            let other = Limits::of(kind);
            assert!(phone.agent_idle <= other.agent_idle, "{kind}");
            assert!(phone.agents_running_max <= other.agents_running_max, "{kind}");
            assert!(phone.agents_alive_max <= other.agents_alive_max, "{kind}");
            assert!(phone.agent_memory_mib_max <= other.agent_memory_mib_max, "{kind}");
            assert!(phone.code_cache_bytes_max <= other.code_cache_bytes_max, "{kind}");
            assert!(phone.model_idle <= other.model_idle, "{kind}");
            assert!(phone.model_threads_max <= other.model_threads_max, "{kind}");
            assert!(phone.model_context_tokens_max <= other.model_context_tokens_max, "{kind}");
            assert!(phone.store_cache_bytes <= other.store_cache_bytes, "{kind}");
            assert!(phone.documents_loaded_max <= other.documents_loaded_max, "{kind}");
            assert!(phone.workers <= other.workers, "{kind}");
            assert!(other.relay && !phone.relay && !phone.upnp, "{kind}");
        }
    }

    #[test]
    fn a_phone_gives_memory_back_more_often_and_pays_for_it_with_its_processor() {
        for kind in [Kind::Laptop, Kind::Server] {
            assert!(Limits::of(Kind::Phone).rests_apart < Limits::of(kind).rests_apart, "{kind}");
        }
    }

    #[test]
    fn what_a_running_agent_calls_finds_room_four_deep() {
        for kind in [Kind::Laptop, Kind::Phone, Kind::Server] {
            let limits = Limits::of(kind);
            assert!(limits.agents_alive_max > 4, "{kind}");
            assert!(limits.agents_alive_max >= 2 * limits.agents_running_max, "{kind}");
        }
    }

    #[test]
    fn a_profile_is_read_whole_or_not_at_all() {
        let limits = Limits::parse(WHOLE).unwrap();
        assert_eq!(limits.agent_idle, Duration::from_secs(1));
        assert_eq!(limits.model_idle, Duration::from_secs(2));
        assert_eq!((limits.agents_running_max, limits.agents_alive_max), (1, 1));
        assert_eq!((limits.model_threads_max, limits.workers), (1, 1));
        assert_eq!(limits.code_cache_bytes_max, 4 << 20);
        assert_eq!(limits.store_cache_bytes, 6 << 10);
        assert_eq!(limits.rests_apart, Duration::from_secs(8));
        assert!(limits.relay && !limits.upnp);
        for line in WHOLE.lines() {
            let without = WHOLE.replace(&format!("{line}\n"), "");
            assert!(Limits::parse(&without).is_err(), "without {line}");
        }
        for damaged in ["free = 1\n", "agents_running_max = 1\n", "x\n"] {
            assert!(Limits::parse(&format!("{WHOLE}{damaged}")).is_err(), "{damaged}");
        }
        let negative = WHOLE.replace("agent_idle_seconds = 1", "agent_idle_seconds = -1");
        assert!(Limits::parse(&negative).is_err());
    }
}
