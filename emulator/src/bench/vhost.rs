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
use super::lane::{self, Names, median};
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
    /// Bytes of a frame, without its check sequence; several separated by commas.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "64,1500", value_parser = clap::value_parser!(u32).range(60..=9000))]
    size: Vec<u32>,
    /// Which way the frames go; several separated by commas [default: all].
    #[arg(long, value_delimiter = ',')]
    path: Vec<Path>,
    /// How long to measure each.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Measure so many frames instead, however long that takes: for profilers.
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    frames: Option<u64>,
    /// Print JSON instead of a table: an object for one measurement, a list for several.
    #[arg(long)]
    json: bool,
}

/// What one run came to.
#[derive(Debug, serde::Serialize)]
struct Figure {
    path: String,
    size: u32,
    /// Million frames a second of the device's time.
    mpps: f64,
    /// Gigabits of frames a second.
    gbps: f64,
    /// Nanoseconds of the device alone a frame.
    device_ns: f64,
    /// The same in the median of all batches.
    median_ns: f64,
    /// Million frames a second where the drivers' work counts too.
    with_driver_mpps: f64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let paths = match args.path.as_slice() {
        [] => vec![Path::In, Path::Out, Path::Through],
        some => some.to_vec(),
    };
    let mut all = vec![];
    for path in &paths {
        for size in &args.size {
            all.push(measure(args, *path, *size)?);
        }
    }
    if args.json {
        return super::print_json(&all);
    }
    println!(
        "{:<8} {:>6} {:>8} {:>8} {:>10} {:>10} {:>12}",
        "path", "bytes", "Mpps", "Gbit/s", "device ns", "median ns", "with driver"
    );
    for f in &all {
        println!(
            "{:<8} {:>6} {:>8.2} {:>8.2} {:>10.0} {:>10.0} {:>12.2}",
            f.path, f.size, f.mpps, f.gbps, f.device_ns, f.median_ns, f.with_driver_mpps
        );
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
    let limit = Duration::from_secs(args.seconds.into());
    while args.frames.map_or(start.elapsed() < limit, |n| frames < n) {
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
    Ok(Figure {
        path: path.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
        size,
        mpps: rate,
        gbps: rate * 8.0 * f64::from(size) / 1e3,
        device_ns: device.as_nanos() as f64 / frames as f64,
        median_ns: median(batches),
        with_driver_mpps: frames as f64 / all.as_secs_f64() / 1e6,
    })
}
