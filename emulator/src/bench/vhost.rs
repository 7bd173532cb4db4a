//! Frames a second through vhost-user ports, without a guest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use parking_lot::Mutex;
use sfnic_device_model::Nic;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::{CardConfig, Manager};
use sfnic_device_model::slice::{Change, Flavour, Link, Offer, Outside, Spec, State, VirtioEnd, default_address};
use sfnic_test_driver::{Netdev, Rig};

use super::flows;
use super::lane::{self, Names};
use super::speed::{COLUMNS, How, Speed};
use super::virtio::Front;
use crate::wire::Inlet as _;
use crate::wire::slice::SliceInlet;

/// Frames at a time.
const BATCH: u16 = 256;
/// Guest memory of the physical function, in bytes.
const MEMORY: u64 = 64 << 20;
/// Indexes of the slices.
const SLICES: [u32; 2] = [100, 101];

/// Which way the frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Path {
    /// From a virtio driver's ring to the physical function's receive queue.
    In,
    /// From the physical function's send queue to a virtio driver's ring.
    Out,
    /// From one virtio driver's ring to another's.
    Through,
}

/// Frames a second through vhost-user ports.
///
/// A physical function and two virtio slices are ports of one eswitch, which switches by
/// address. The drivers of all of them are part of this program and take turns with the
/// device on one thread; what is measured is the time in the device. Virtio rings have 1024
/// buffers and no event index, as DPDK's have.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which way the frames go; several separated by commas [default: all].
    #[arg(long, value_delimiter = ',')]
    path: Vec<Path>,
    #[command(flatten)]
    how: How,
}

/// What one run came to.
#[derive(Debug, serde::Serialize)]
struct Figure {
    path: String,
    size: u32,
    #[serde(flatten)]
    speed: Speed,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let paths = match args.path.as_slice() {
        [] => vec![Path::In, Path::Out, Path::Through],
        some => some.to_vec(),
    };
    let mut all = vec![];
    for path in &paths {
        for size in &args.how.size {
            all.push(measure(args, *path, *size)?);
        }
    }
    if args.how.json {
        return super::print_json(&all);
    }
    println!("{:<8} {:>6} {COLUMNS}", "path", "bytes");
    for f in &all {
        println!("{:<8} {:>6} {}", f.path, f.size, f.speed);
    }
    Ok(())
}

/// Takes the ends of virtio slices.
#[derive(Default)]
struct Ends(Mutex<Vec<Arc<VirtioEnd>>>);

impl Outside for Ends {
    fn offer(&self, offer: &Offer) -> Result<String, String> {
        self.0.lock().extend(offer.virtio.clone());
        Ok("inline".to_owned())
    }

    fn withdraw(&self, _: u32) {}
}

/// A virtio driver at its slice.
struct Port {
    front: Front,
    inlet: SliceInlet,
}

/// The device with its ports.
struct Bench {
    rig: Rig,
    pf: Netdev,
    ports: Vec<Port>,
}

/// Worker of the send queues, and of the first slice.
const WORKER: usize = 0;

impl Bench {
    fn new(path: Path, size: u32) -> anyhow::Result<Self> {
        let card = CardConfig { manager: Manager::Embedded, ..Rig::card(0, Far::None) };
        let rig = Rig::new(vec![card], MEMORY);
        let ends = Arc::new(Ends::default());
        rig.nic.offer_slices_to(ends.clone());
        let mut pf = rig.pf(0).bring_up()?.netdev(&lane::config(size))?;
        let to = match path {
            Path::In => pf.mac,
            Path::Out => default_address(SLICES[0]),
            Path::Through => default_address(SLICES[1]),
        };
        let from = if path == Path::Out { pf.mac } else { default_address(SLICES[0]) };
        let frame = flows::flow(0, &Names { mac: [to, from], vports: [0; 2] }).udp(&vec![0x5a; size as usize - 42]);
        lane::fill(&mut pf, &frame, u64::from(size.next_multiple_of(2048)));
        let mut ports = vec![];
        for (number, index) in (0..).zip(SLICES) {
            add_slice(&rig.nic, number, index)?;
            let end = ends.0.lock().last().cloned().context("no slice was offered")?;
            let front = Front::new(size, &frame)?;
            let (outlet, link) = (front.session.outlet(), front.session.link());
            let mut inlet = SliceInlet::new(rig.nic.clone(), end, outlet, link, WORKER + number as usize);
            inlet.link_changed();
            ports.push(Port { front, inlet });
        }
        Ok(Self { rig, pf, ports })
    }

    /// Sends a batch and takes what comes of it; time in the device, and how many came.
    fn batch(&mut self, path: Path) -> anyhow::Result<(Duration, u64)> {
        match path {
            Path::Out => {
                let c = &mut self.pf.channels[0];
                c.sq.repeat(BATCH);
                c.sq.ring();
            }
            _ => self.ports[0].front.send(BATCH)?,
        }
        let (mut time, mut came) = (Duration::ZERO, 0);
        for _ in 0..1000 {
            let begin = Instant::now();
            if path == Path::Out {
                while self.rig.nic.run(WORKER) {}
            } else {
                let Port { front, inlet } = &mut self.ports[0];
                while front.session.take(BATCH.into(), inlet).map_err(anyhow::Error::msg)? {}
            }
            time += begin.elapsed();
            came += match path {
                Path::In => lane::collect_received(&mut self.pf),
                Path::Out => {
                    lane::collect_sent(&mut self.pf);
                    self.ports[0].front.receive()?.into()
                }
                Path::Through => self.ports[1].front.receive()?.into(),
            };
            if came >= u64::from(BATCH) {
                break;
            }
        }
        Ok((time, came))
    }
}

/// An active slice with a link.
fn add_slice(nic: &Nic, number: u32, index: u32) -> anyhow::Result<()> {
    let spec = Spec { flavour: Flavour::Virtio, sfnum: Some(number), index: Some(index), ..Spec::default() };
    nic.slice_add(&spec)?;
    let change = Change { state: Some(State::Active), link: Some(Link::Up), ..Change::default() };
    Ok(nic.slice_set(index, &change)?)
}

fn measure(args: &Args, path: Path, size: u32) -> anyhow::Result<Figure> {
    let mut bench = Bench::new(path, size)?;
    let mut lost = 0;
    for _ in 0..100 {
        lost += u64::from(BATCH) - bench.batch(path)?.1;
    }
    let (mut device, mut frames, mut batches) = (Duration::ZERO, 0u64, vec![]);
    let start = Instant::now();
    let limit = Duration::from_secs(args.how.seconds.into());
    while args.how.frames.map_or(start.elapsed() < limit, |n| frames < n) {
        let (time, came) = bench.batch(path)?;
        device += time;
        frames += u64::from(BATCH);
        lost += u64::from(BATCH) - came;
        if batches.len() < 1 << 20 {
            batches.push(time.as_nanos() as f64 / f64::from(BATCH));
        }
    }
    let all = start.elapsed();
    ensure!(lost == 0, "{lost} of {frames} frames were lost");
    let rate = frames as f64 / device.as_secs_f64() / 1e6;
    let with_driver = frames as f64 / all.as_secs_f64() / 1e6;
    Ok(Figure {
        path: path.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
        size,
        speed: Speed::of(size, rate, device.as_nanos() as f64 / frames as f64, batches, with_driver),
    })
}
