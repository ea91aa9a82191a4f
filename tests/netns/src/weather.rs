//! What a cable does to packets that pass over it.
//!
//! Packets are lost by the firewall, at random, and wait where the cable is narrow. Else they can't be
//! delayed: that takes the kernel's netem, which many kernels are built without.

use anyhow::Result;

use crate::space::Space;

/// What a cable does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// All arrive.
    Clear,
    /// So many of a hundred are lost, in each direction.
    Loss {
        /// Of a hundred.
        percent: u8,
    },
    /// So many kilobits pass in a second, in each direction; what waits for longer than 400 ms is lost.
    Narrow {
        /// In a second.
        kbit: u32,
    },
    /// Nothing but TCP arrives.
    WithoutUdp,
    /// Nothing arrives that is meant for several.
    WithoutMulticast,
}

impl Weather {
    /// Has packets meet it that come in over an interface.
    pub(crate) fn set(self, space: &Space, interface: &str) -> Result<()> {
        // Packets that never enter: their sender learns nothing, as on a real cable.
        let rule = match self {
            Self::Clear | Self::Narrow { .. } => String::new(),
            Self::Loss { percent } => {
                format!("meta protocol {{ ip, ip6 }} numgen random mod 100 < {percent} drop")
            }
            Self::WithoutUdp => "meta protocol { ip, ip6 } meta l4proto udp drop".to_owned(),
            Self::WithoutMulticast => "ip daddr 224.0.0.0/4 drop".to_owned(),
        };
        let table = format!("weather_{}", interface.replace('-', "_"));
        space.nft(&format!(
            "table netdev {table} {{}}
            delete table netdev {table}
            table netdev {table} {{
                chain weather {{
                    type filter hook ingress device \"{interface}\" priority filter
                    {rule}
                }}
            }}"
        ))?;
        // Where it has none, there is nothing to take away.
        space.tc(&["qdisc", "del", "dev", interface, "root"]).ok();
        if let Self::Narrow { kbit } = self {
            let rate = format!("{kbit}kbit");
            let bucket = ["tbf", "rate", &rate, "burst", "2000", "latency", "400ms"];
            space.tc(&[&["qdisc", "add", "dev", interface, "root"][..], &bucket].concat())?;
        }
        Ok(())
    }
}
