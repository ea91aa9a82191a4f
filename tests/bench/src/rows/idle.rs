//! Row 12: what a node costs that does nothing.

use std::{
    path::Path,
    process::Command,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use weft_netns::{Lan, until};

use crate::{
    bench::Bench,
    nats::NatsServer,
    peers::{Missing, Peers},
    process::Process,
    program::Homes,
    report::Figure,
    syncthing::Syncthing,
    usage::{Memory, Spent, Usage},
};

/// The nodes: what they are called is what they are.
const DEVICES: [&str; 3] = ["laptop", "phone", "server"];

/// How long peers may take until they rest.
const PATIENCE: Duration = Duration::from_secs(600);

/// Something that does nothing.
struct Idle {
    what: String,
    pid: u32,
}

/// What it cost.
struct Cost {
    what: String,
    memory: Memory,
    spent: Spent,
}

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let notes = bench.size(100, 10_000);
    let homes = paired(bench, notes)?;
    let mut left_out = Vec::new();
    let peers = bench.peers();
    let rests = if peers.are_asked() {
        Rest::begin(&peers, notes, &mut left_out)?
    } else {
        Rest::default()
    };
    let pid = |device: &str| Ok(Idle { what: device.to_owned(), pid: homes.process(device)? });
    let ours = DEVICES.into_iter().map(pid).collect::<Result<Vec<_>>>()?;
    let theirs = rests.idle()?;
    let (rest, watch) = if bench.smoke { (1, 3) } else { (30, 300) };
    thread::sleep(Duration::from_secs(rest));
    let costs = watch_all(ours.into_iter().chain(theirs).collect(), Duration::from_secs(watch))?;
    let note = format!(
        "three paired nodes on loopback that were started anew with {notes} notes on the disk, each \
         after its kind; all watched at once for {watch} s after {rest} s of rest; nodes of one \
         program share its pages"
    );
    let mut figures = figures(&costs)?;
    figures.extend(left_out);
    if let Some(first) = figures.first_mut() {
        first.note = note;
    }
    Ok(figures)
}

/// Three nodes that have paired and hold the same notes, and were started again since: what rests then
/// is what lies on the disk.
fn paired(bench: &Bench, notes: usize) -> Result<Homes> {
    let mut homes = Homes::new(bench.program()?)?;
    homes.init(notes)?;
    homes.up("laptop")?;
    homes.join("phone")?;
    homes.join("server")?;
    let all = |homes: &Homes| {
        DEVICES.into_iter().try_for_each(|device| {
            homes.wait(device, |status| {
                status["devices_here"] == 2
                    && status["documents"].as_u64() >= u64::try_from(notes).ok()
            })
        })
    };
    all(&homes)?;
    for _ in DEVICES {
        homes.stop_last()?;
    }
    for device in DEVICES {
        homes.up(device)?;
    }
    all(&homes)?;
    Ok(homes)
}

/// Those of the nodes, then those of the peers beside the laptop's.
fn figures(costs: &[Cost]) -> Result<Vec<Figure>> {
    let (ours, theirs) = costs.split_at_checked(DEVICES.len()).context("not all were watched")?;
    let mut figures = Vec::new();
    for cost in ours {
        let own = measures(cost);
        figures.extend(own.map(|(what, amount, unit)| Figure::amount(what, amount, unit)));
    }
    for cost in theirs {
        let both = measures(cost).into_iter().zip(measures(&ours[0]));
        figures.extend(both.map(|((what, amount, unit), (_, of_ours, _))| {
            Figure::beside(what, of_ours, amount, unit)
        }));
    }
    Ok(figures)
}

fn measures(cost: &Cost) -> [(String, f64, &'static str); 6] {
    let Cost { what, memory, spent } = cost;
    [
        (format!("{what}: resident"), memory.resident, "MB"),
        (format!("{what}: proportional"), memory.proportional, "MB"),
        (format!("{what}: of it without a file"), memory.anonymous, "MB"),
        (format!("{what}: processor"), spent.ticks_per_minute, "ticks/min"),
        (format!("{what}: wake-ups"), spent.wake_ups_per_second, "/s"),
        (format!("{what}: context switches"), spent.switches_per_second, "/s"),
    ]
}

/// Watches all of them at the same time.
fn watch_all(idle: Vec<Idle>, long: Duration) -> Result<Vec<Cost>> {
    let before = idle
        .iter()
        .map(|it| Ok((Instant::now(), Usage::of(it.pid)?)))
        .collect::<Result<Vec<_>>>()?;
    thread::sleep(long);
    let cost = |(it, (since, before)): (Idle, (Instant, Usage))| {
        let spent = before.until(Usage::of(it.pid)?, since.elapsed());
        Ok(Cost { what: it.what, memory: Memory::of(it.pid)?, spent })
    };
    idle.into_iter().zip(before).map(cost).collect()
}

/// Peers that are connected to their like and rest. The network goes last.
#[derive(Default)]
struct Rest {
    syncthing: Vec<Syncthing>,
    nats: Option<NatsServer>,
    clients: Vec<Process>,
    libp2p: Vec<Process>,
    _lan: Option<Lan>,
    _folder: Option<TempDir>,
}

impl Rest {
    fn begin(peers: &Peers, files: usize, left_out: &mut Vec<Figure>) -> Result<Self> {
        let mut rest = Self::default();
        let mut leave = |name: &str, why: String| {
            left_out.push(Figure::left_out(format!("beside {name}"), why));
        };
        if let Err(missing) = rest.libp2p(peers)? {
            leave("libp2p", missing.to_string());
        }
        if let Err(missing) = rest.nats(peers)? {
            leave("nats-server", missing.to_string());
        }
        match (peers.installed("syncthing"), Lan::new()) {
            (Ok(program), Ok(lan)) => rest.syncthing(&program, lan, files)?,
            (Err(missing), _) => leave("Syncthing", missing.to_string()),
            (_, Err(error)) => leave("Syncthing", format!("{error:#}")),
        }
        Ok(rest)
    }

    /// Two nodes that are connected to the first.
    fn libp2p(&mut self, peers: &Peers) -> Result<Result<(), Missing>> {
        let program = match peers.built("peer-libp2p") {
            Ok(program) => program,
            Err(missing) => return Ok(Err(missing)),
        };
        let first = Process::start(Command::new(&program).arg("serve"))?;
        let (_, at) = first.hear("AT ", PATIENCE)?;
        self.libp2p.push(first);
        for _ in 0..2 {
            self.libp2p.push(Process::start(Command::new(&program).args(["idle", &at]))?);
        }
        Ok(Ok(()))
    }

    /// A server and three clients that wait for requests.
    fn nats(&mut self, peers: &Peers) -> Result<Result<(), Missing>> {
        let (server, client) = match (peers.installed("nats-server"), peers.built("peer-nats")) {
            (Ok(server), Ok(client)) => (server, client),
            (Err(missing), _) | (_, Err(missing)) => return Ok(Err(missing)),
        };
        let (server, _) = NatsServer::start(&server)?;
        for _ in 0..3 {
            let client = Process::start(Command::new(&client).args(["serve", &server.address()]))?;
            client.hear("AT", PATIENCE)?;
            self.clients.push(client);
        }
        self.nats = Some(server);
        Ok(Ok(()))
    }

    /// Three devices, each connected to both others, that share as many files as there are notes.
    fn syncthing(&mut self, program: &Path, mut lan: Lan, files: usize) -> Result<()> {
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let addresses = ["10.77.0.1", "10.77.0.2", "10.77.0.3"];
        for (at, address) in addresses.iter().enumerate() {
            let plug = lan.plug(&format!("sync{at}"), &format!("{address}/24"))?;
            self.syncthing.push(Syncthing::new(program, Rc::new(plug), folder.path())?);
        }
        for (at, device) in self.syncthing.iter().enumerate() {
            let others = self.syncthing.iter().zip(addresses).enumerate();
            let others: Vec<_> = others
                .filter(|(other, _)| *other != at)
                .map(|(_, (device, address))| (device, Some(address)))
                .collect();
            device.pair(&others)?;
        }
        self.syncthing.first().context("three devices")?.fill(files)?;
        for device in &mut self.syncthing {
            device.up()?;
        }
        self.syncthing_is_whole(files)?;
        for device in &mut self.syncthing {
            device.stop()?;
            device.up()?;
        }
        self.syncthing_is_whole(files)?;
        self._lan = Some(lan);
        self._folder = Some(folder);
        Ok(())
    }

    fn syncthing_is_whole(&self, files: usize) -> Result<()> {
        let whole = until("Syncthing's devices have all files", PATIENCE, || {
            for device in &self.syncthing {
                ensure!(device.connections()? == 2, "not connected to both others");
                ensure!(device.has(files)?, "files are missing");
            }
            Ok(true)
        });
        whole.map(drop)
    }

    /// The first of each kind.
    fn idle(&self) -> Result<Vec<Idle>> {
        let mut idle = Vec::new();
        let mut add = |what: &str, pid| idle.push(Idle { what: what.to_owned(), pid });
        if let Some(device) = self.syncthing.first() {
            add("Syncthing", device.process()?);
        }
        if let Some(server) = &self.nats {
            add("nats-server", server.id());
        }
        if let Some(node) = self.libp2p.first() {
            add("libp2p", node.id());
        }
        Ok(idle)
    }
}
