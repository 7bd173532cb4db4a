//! Bytes that the device takes for what a driver makes.

use anyhow::Context as _;
use sfnic_device_model::fabric::port::Far;
use sfnic_firmware_cmds::Opcode;
use sfnic_test_driver::{NetdevConfig, Rig};

use super::flows::Rules;
use super::lane::Names;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Guest memory of the device, in bytes.
const MEMORY: u64 = 192 << 20;
/// log2 of the queues' entries; their rings lie in guest memory.
const LOG_QUEUE: u32 = 6;
/// SFs that a device may have here.
const MAX_SFS: u16 = 256;

/// Bytes a rule, a sub-function and a queue.
///
/// So many of each are made by commands, and the growth of the process's
/// resident memory is divided by their number: what the device keeps, with
/// what the allocator adds to it. Memory of the guest does not count. A rule
/// matches a 5-tuple, forwards to a vport and has a counter of its own; a
/// worker that counts takes 16 bytes a counter, and one that knows a flow about
/// 180 bytes more, which are not part of it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many rules.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(1000..=2_000_000))]
    rules: u32,
    /// How many sub-functions.
    #[arg(long, value_name = "N", default_value = "128", value_parser = clap::value_parser!(u16).range(16..=i64::from(MAX_SFS)))]
    sfs: u16,
    /// How many queues of each kind.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(100..=4000))]
    queues: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Bytes of each.
#[derive(Debug, serde::Serialize)]
struct Figure {
    what: &'static str,
    count: u32,
    bytes_each: f64,
}

/// Resident memory of this process that is no file's, in bytes.
fn resident() -> anyhow::Result<f64> {
    const FILE: &str = "/proc/self/status";
    let text = std::fs::read_to_string(FILE).context(FILE)?;
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:")).with_context(|| format!("{FILE}: RssAnon"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{FILE}: RssAnon:{line}"))?;
    Ok(kib * 1024.0)
}

/// What making `count` things costs each.
fn cost(
    all: &mut Vec<Figure>,
    what: &'static str,
    count: u32,
    make: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    eprintln!("{what}: {count}");
    let before = resident()?;
    make()?;
    all.push(Figure { what, count, bytes_each: ((resident()? - before) / f64::from(count)).round() });
    Ok(())
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut card = Rig::card(0, Far::Loopback);
    card.max_sfs = MAX_SFS;
    let rig = Rig::new(vec![card], MEMORY);
    // Guest memory is resident from the beginning.
    let [a, b, c, d] = rig.memory[0].edges();
    for at in (a..b).chain(c..d).step_by(PAGE) {
        rig.memory[0].put(at, &[0]);
    }
    let pf = rig.pf(0).bring_up()?;
    let names = Names { mac: [[2; 6], [4; 6]], vports: [rig.sf_id(0, 0), rig.sf_id(0, 1)] };
    let mut all = vec![];
    let mut rules = Rules::new(&pf, args.rules, 1)?;
    let mut indices = vec![];
    cost(&mut all, "rule", args.rules, || {
        for n in 0..args.rules {
            indices.push(rules.add(&pf, &names, n)?);
        }
        Ok(())
    })?;
    let mut sfs = vec![];
    cost(&mut all, "SF", args.sfs.into(), || {
        for i in 0..args.sfs {
            pf.add_sf(rig.sf_id(0, i))?;
            sfs.push(rig.sf(0, i).bring_up()?);
        }
        Ok(())
    })?;
    let mut devs = vec![];
    let config = NetdevConfig { log_sq: LOG_QUEUE, log_rq: LOG_QUEUE, ..NetdevConfig::default() };
    cost(&mut all, "queues and receive table of an SF's netdev", args.sfs.into(), || {
        for sf in sfs.drain(..) {
            devs.push(sf.netdev(&config)?);
        }
        Ok(())
    })?;
    let (uar, pd, td) = (pf.alloc_uar()?, pf.alloc_pd()?, pf.alloc_td()?);
    let lkey = pf.create_mkey(pd)?;
    let tisn = pf.create_tis(td)?;
    let eq = pf.create_eq(uar, 1, LOG_QUEUE, 0)?;
    let mut cqs = vec![];
    cost(&mut all, "completion queue", args.queues, || {
        for _ in 0..args.queues {
            let mark = rig.memory[0].mark();
            cqs.push(pf.create_cq(uar, eq.number, LOG_QUEUE)?);
            rig.memory[0].rewind(mark);
        }
        Ok(())
    })?;
    let mut sqs = vec![];
    cost(&mut all, "send queue", args.queues, || {
        for cq in &cqs {
            let mark = rig.memory[0].mark();
            sqs.push(pf.create_sq(uar, pd, cq.number, tisn, LOG_QUEUE)?);
            rig.memory[0].rewind(mark);
        }
        Ok(())
    })?;
    let mut rqs = vec![];
    cost(&mut all, "receive queue", args.queues, || {
        for cq in &cqs {
            let mark = rig.memory[0].mark();
            rqs.push(pf.create_rq((pd, lkey), cq.number, 0, LOG_QUEUE, 256)?);
            rig.memory[0].rewind(mark);
        }
        Ok(())
    })?;
    // All of it can go.
    for q in &rqs {
        pf.destroy(Opcode::DESTROY_RQ, q.number)?;
    }
    for q in &sqs {
        pf.destroy(Opcode::DESTROY_SQ, q.number)?;
    }
    indices.iter().try_for_each(|i| rules.delete(&pf, *i))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for f in &all {
        println!("{:>8.0} bytes a {} ({} of them)", f.bytes_each, f.what, f.count);
    }
    Ok(())
}
