//! Row 16: two devices that have never met, from the words to the first document.

use std::{
    path::Path,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_netns::{Lan, Plug, Weather};

use crate::{
    bench::{Bench, Peer, Quantiles, Sample, time},
    floor::Floor,
    process::Process,
    program::Homes,
    report::Figure,
    syncthing::Syncthing,
};

/// Packets of a hundred that are lost on the way, in each direction.
const LOSSES: [u8; 2] = [0, 30];

/// How long one pairing may take, which is as long as a code is good.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked whether the document is there.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Two places on a network.
struct Places {
    laptop: Rc<Plug>,
    phone: Rc<Plug>,
    // It goes last.
    _lan: Lan,
}

/// How the pairings went that were timed.
#[derive(Default)]
struct Went {
    joined: Vec<Duration>,
    started: Vec<Duration>,
    again: usize,
}

pub(super) fn run(bench: &mut Bench) -> Result<Vec<Figure>> {
    let places = match Places::new() {
        Ok(places) => places,
        Err(error) => return Ok(vec![Figure::not_yet(format!("{error:#}"))]),
    };
    let program = bench.program()?;
    let peers = bench.peers();
    let mut figures = Vec::new();
    for loss in LOSSES {
        // A smoke run has no time for chance.
        if loss > 0 && bench.smoke {
            continue;
        }
        if let Err(error) = places.lose(loss) {
            figures.push(Figure::left_out(format!("{loss} % loss"), format!("{error:#}")));
            continue;
        }
        let found = peers.built("peer-libp2p");
        let peer = found.as_ref().ok().filter(|_| peers.are_asked()).map(|program| Peer {
            name: "libp2p-mdns alone",
            sample: Box::new(|_| find(&places, program)),
        });
        let mut went = Went::default();
        let ours: Sample<'_> = Box::new(|_| meet(&places, &program, &mut went));
        let timed = bench.compare(bench.size(1, 4), &[Floor::Sha], ours, peer)?;
        figures.push(Figure::timed(format!("{loss} % loss"), timed, went.told(loss)?));
        if !peers.are_asked() {
            continue;
        }
        if let Err(missing) = found {
            figures.push(Figure::left_out("beside libp2p-mdns", missing.to_string()));
        }
        let syncthing = match peers.installed("syncthing") {
            Ok(syncthing) => syncthing,
            Err(missing) => {
                figures.push(Figure::left_out("beside Syncthing", missing.to_string()));
                continue;
            }
        };
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        let mut both = Announced::new(&places, &syncthing, folder.path())?;
        let peer = Peer { name: "Syncthing", sample: Box::new(|_| both.meet()) };
        let mut went = Went::default();
        let ours: Sample<'_> = Box::new(|_| meet(&places, &program, &mut went));
        let timed = bench.compare(1, &[Floor::Sha], ours, Some(peer))?;
        let note = "Syncthing's two know each other's keys before; from exec of the second to its first \
                    file";
        figures.push(Figure::timed("", timed, note));
    }
    places.lose(0)?;
    Ok(figures)
}

impl Places {
    fn new() -> Result<Self> {
        let mut lan = Lan::new()?;
        let laptop = Rc::new(lan.plug("laptop", "10.77.0.1/24")?);
        let phone = Rc::new(lan.plug("phone", "10.77.0.2/24")?);
        Ok(Self { laptop, phone, _lan: lan })
    }

    fn lose(&self, percent: u8) -> Result<()> {
        // On one cable: all that passes between the two passes it once.
        let loss = Weather::Loss { percent };
        self.phone.set_weather(if percent == 0 { Weather::Clear } else { loss })
    }
}

impl Went {
    fn told(self, loss: u8) -> Result<String> {
        let joined = Quantiles::of(self.joined)?;
        let started = Quantiles::of(self.started)?;
        Ok(format!(
            "{loss} % of packets lost each way; a laptop shows a code, and from then on: `weft join CODE`, \
             which finds it by mDNS and pairs (p50 {:.0} ms, p95 {:.0} ms), then `weft up` until the \
             laptop's note is there (p50 {:.0} ms, p95 {:.0} ms); {} times `join` was said again",
            joined.p50.as_secs_f64() * 1e3,
            joined.p95.as_secs_f64() * 1e3,
            started.p50.as_secs_f64() * 1e3,
            started.p95.as_secs_f64() * 1e3,
            self.again,
        ))
    }
}

/// Two fresh homes: the laptop invites, and the phone joins by the code alone.
fn meet(places: &Places, program: &Path, went: &mut Went) -> Result<Duration> {
    let mut homes = Homes::new(program.to_owned())?.placed(&[&places.laptop, &places.phone]);
    homes.init(1)?;
    homes.up("laptop")?;
    let invited: Value =
        serde_json::from_str(&homes.weft("laptop", &["invite", "--code", "--yes", "--json"])?)?;
    let code = invited["code"].as_str().context("an invitation without a code")?;
    let start = Instant::now();
    let named = ["--name", "phone", "--kind", "phone", "--yes", "--key", "file"];
    while let Err(error) = homes.weft("phone", &[&["join", code][..], &named].concat()) {
        ensure!(start.elapsed() < PATIENCE, error.context("the phone did not join"));
        went.again += 1;
    }
    let joined = start.elapsed();
    homes.up("phone")?;
    while homes.status("phone")?["documents"].as_u64() < Some(1) {
        ensure!(start.elapsed() < 2 * PATIENCE, "the note did not come");
        thread::sleep(LOOK_EVERY);
    }
    let whole = start.elapsed();
    went.joined.push(joined);
    went.started.push(whole.saturating_sub(joined));
    Ok(whole)
}

/// One that announces itself, and another that starts and finds it.
fn find(places: &Places, program: &Path) -> Result<Duration> {
    let there = Process::start(places.laptop.command(program).arg("mdns"))?;
    there.hear("AT", PATIENCE)?;
    let start = Instant::now();
    let here = Process::start(places.phone.command(program).arg("mdns"))?;
    let (at, _) = here.hear("FOUND ", PATIENCE)?;
    Ok(at.duration_since(start))
}

/// Two devices of Syncthing that know each other's keys, and learn by announcements where they are.
struct Announced {
    first: Syncthing,
    second: Syncthing,
}

impl Announced {
    fn new(places: &Places, program: &Path, folder: &Path) -> Result<Self> {
        let first = Syncthing::new(program, Rc::clone(&places.laptop), folder)?;
        let second = Syncthing::new(program, Rc::clone(&places.phone), folder)?;
        first.pair(&[(&second, None)])?;
        second.pair(&[(&first, None)])?;
        first.fill(1)?;
        Ok(Self { first, second })
    }

    fn meet(&mut self) -> Result<Duration> {
        self.second.forget()?;
        self.first.up()?;
        let file = self.second.folder().join("0.txt");
        let took = time(|| {
            let start = Instant::now();
            self.second.up()?;
            while !file.exists() {
                ensure!(start.elapsed() < 2 * PATIENCE, "Syncthing's file did not come");
                thread::sleep(LOOK_EVERY);
            }
            Ok(())
        })?;
        self.second.stop()?;
        self.first.stop()?;
        Ok(took)
    }
}
