//! A network that leads nowhere: whatever a stage says beyond loopback comes to a place that counts it.
//!
//! Two of the kernel's network namespaces with a cable between them: in one the stage runs, with
//! addresses and default routes to the other, where the firewall counts. Both go when this is dropped;
//! what a killed run left goes with the next.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::workspace::Workspace;

/// How long one `ip` or `nft` may take.
const TOOL: Duration = Duration::from_secs(10);

/// What the names begin with; the id of this process follows.
const INSIDE: &str = "weft-inside-";
const SINK: &str = "weft-sink-";

/// Counts each packet that comes over the cable. ICMPv6 is the kernel's own: it looks for neighbours
/// and routers, and says which groups it hears, for itself. No program of ours speaks it.
const RULES: &str = "\
table inet sink {
    counter came {}
    set seen_v4 {
        type ipv4_addr . inet_proto . inet_service
        size 1000
        flags dynamic
    }
    set seen_v6 {
        type ipv6_addr . inet_proto . inet_service
        size 1000
        flags dynamic
    }
    chain count {
        type filter hook prerouting priority raw
        iifname != in accept
        meta l4proto ipv6-icmp drop
        meta l4proto { tcp, udp } add @seen_v4 { ip daddr . meta l4proto . th dport }
        meta l4proto { tcp, udp } add @seen_v6 { ip6 daddr . meta l4proto . th dport }
        counter name came drop
    }
}";

/// The two namespaces.
pub(crate) struct Sink<'w> {
    workspace: &'w Workspace,
    inside: String,
    sink: String,
}

impl<'w> Sink<'w> {
    /// Makes them; else the reason why that can't be done here.
    pub(crate) fn make(workspace: &'w Workspace) -> Result<Self, String> {
        sweep(workspace);
        let id = std::process::id();
        let made = Self { workspace, inside: format!("{INSIDE}{id}"), sink: format!("{SINK}{id}") };
        let Self { inside, sink, .. } = &made;
        for line in [
            format!("netns add {inside}"),
            format!("netns add {sink}"),
            format!("-n {inside} link set lo up"),
            format!("-n {inside} link add out type veth peer name in netns {sink}"),
            format!("-n {inside} link set out up"),
            format!("-n {sink} link set in up"),
            format!("-n {inside} addr add 192.0.2.2/24 dev out"),
            format!("-n {sink} addr add 192.0.2.1/24 dev in"),
            format!("-n {inside} route add default via 192.0.2.1"),
        ] {
            heard(workspace.command("ip").args(line.split(' ')))?;
        }
        for line in [
            format!("-n {inside} addr add 2001:db8::2/64 dev out nodad"),
            format!("-n {sink} addr add 2001:db8::1/64 dev in nodad"),
            format!("-n {inside} route add default via 2001:db8::1"),
        ] {
            // A kernel without IPv6 has nothing to count there.
            if heard(workspace.command("ip").args(line.split(' '))).is_err() {
                break;
            }
        }
        heard(workspace.command("ip").args(["netns", "exec", sink, "nft", RULES]))?;
        Ok(made)
    }

    /// The same command, inside.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let mut inside = self.workspace.command("ip");
        inside.args(["netns", "exec", &self.inside]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Whether nothing came; else what did.
    pub(crate) fn nothing_came(&self) -> Result<(), String> {
        let listed = |what: &[&str]| {
            let words = ["netns", "exec", &self.sink, "nft", "list"];
            heard(self.workspace.command("ip").args(words).args(what))
        };
        match packets(&listed(&["counter", "inet", "sink", "came"])?) {
            Some(0) => Ok(()),
            Some(count) => {
                let v4 = listed(&["set", "inet", "sink", "seen_v4"])?;
                let v6 = listed(&["set", "inet", "sink", "seen_v6"])?;
                Err(format!("{count} packets left loopback\n{v4}\n{v6}"))
            }
            None => Err("nothing was counted".into()),
        }
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        for name in [&self.inside, &self.sink] {
            process::answers(self.workspace.command("ip").args(["netns", "del", name]));
        }
    }
}

/// What a counter, as it is listed, has counted.
fn packets(listed: &str) -> Option<u64> {
    let (_, after) = listed.split_once("packets ")?;
    after.split_whitespace().next()?.parse().ok()
}

fn heard(command: &mut Command) -> Result<String, String> {
    let answer = process::hear(command, TOOL)?;
    if answer.status.success() {
        Ok(answer.stdout)
    } else {
        Err(format!("`{}` says: {}", process::spelled(command), answer.said.trim()))
    }
}

/// Removes what runs left that were killed.
fn sweep(workspace: &Workspace) {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let id = name.strip_prefix(INSIDE).or_else(|| name.strip_prefix(SINK));
        if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            process::answers(workspace.command("ip").args(["netns", "del", &name]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read() {
        let listed = "table inet sink {\n\tcounter came {\n\t\tpackets 17 bytes 1190\n\t}\n}\n";
        assert_eq!(packets(listed), Some(17));
        assert_eq!(packets("table inet sink {\n}\n"), None);
    }

    #[test]
    fn what_leaves_is_counted_and_what_stays_is_not() {
        let workspace = Workspace::find().expect("tests run in the workspace");
        let sink = match Sink::make(&workspace) {
            Ok(sink) => sink,
            Err(why) => {
                eprintln!("NOT RUN: {why}");
                return;
            }
        };
        let says = |script: &str| {
            let mut command = workspace.command("bash");
            process::answers(sink.inside(command.args(["-c", script])).env("LANG", "C"))
        };
        assert!(says("echo stays > /dev/udp/127.0.0.1/9"));
        assert_eq!(sink.nothing_came(), Ok(()));
        assert!(says("echo leaves > /dev/udp/203.0.113.5/4321"));
        let came = sink.nothing_came().expect_err("something left");
        assert!(came.starts_with("1 packets left loopback"), "{came}");
        assert!(came.contains("203.0.113.5 . udp . 4321"), "{came}");
    }
}
