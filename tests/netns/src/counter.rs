//! Counting packets, by the firewall of whoever they come to.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::space::Space;

/// What is in none of the kinds that were named.
const REST: &str = "rest";

/// Counts packets of IP that come in over an interface, until its namespace goes.
#[derive(Debug)]
pub struct Counter {
    space: Space,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Packets of each kind that was named.
    pub kinds: BTreeMap<String, u64>,
    /// All others.
    pub rest: u64,
    /// Where those went that are UDP or TCP: address, transport and port.
    pub rest_went_to: String,
}

impl Counter {
    /// Begins at zero. A packet counts for the first kind whose expression, as `nft` has it, fits.
    pub(crate) fn new(
        space: &Space,
        interface: &str,
        kinds: &[(&'static str, &str)],
    ) -> Result<Self> {
        let counters = kinds.iter().map(|(kind, _)| *kind).chain([REST]);
        let counters: Vec<_> = counters.map(|kind| format!("counter {kind} {{}}")).collect();
        let rules = kinds.iter().map(|(kind, fits)| format!("{fits} counter name {kind} accept"));
        let rules: Vec<_> = rules.collect();
        space.nft(&format!(
            "table netdev count {{}}
            delete table netdev count
            table netdev count {{
                {}
                set seen {{
                    type ipv4_addr . inet_proto . inet_service
                    size 1000
                    flags dynamic
                }}
                chain count {{
                    type filter hook ingress device \"{interface}\" priority filter
                    {}
                    meta protocol ip meta l4proto {{ tcp, udp }} \
                        add @seen {{ ip daddr . meta l4proto . th dport }}
                    meta protocol {{ ip, ip6 }} counter name {REST}
                }}
            }}",
            counters.join("\n"),
            rules.join("\n"),
        ))?;
        Ok(Self { space: space.clone() })
    }

    /// What came since it began.
    ///
    /// # Errors
    ///
    /// `nft` refuses.
    pub fn read(&self) -> Result<Counted> {
        let listed = self.space.nft_list(&["table", "netdev", "count"])?;
        let listed = listed["nftables"].as_array().context("nothing is listed")?;
        let counter = |entry: &Value| {
            let counter = entry.get("counter")?;
            Some((counter["name"].as_str()?.to_owned(), counter["packets"].as_u64()?))
        };
        let mut kinds: BTreeMap<_, _> = listed.iter().filter_map(counter).collect();
        let rest = kinds.remove(REST).context("nothing is counted")?;
        let seen = listed.iter().filter_map(|entry| entry.get("set")?.get("elem"));
        let rest_went_to = seen.map(Value::to_string).collect::<Vec<_>>().join(", ");
        Ok(Counted { kinds, rest, rest_went_to })
    }
}
