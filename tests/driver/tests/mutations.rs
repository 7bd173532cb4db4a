//! A million mutations of commands, entries, WQEs, doorbells and records, from
//! a seed that is printed, and proof that they reached everything.
//!
//! `SFNIC_SEED` sets the seed, `SFNIC_MUTATIONS` the number.

use std::time::{Duration, Instant};

use sfnic_firmware_cmds::entries::wqe_opcode;
use sfnic_firmware_cmds::{Delivery, Opcode, Syndrome};
use sfnic_test_driver::fuzz::{Coverage, Mix, Seeded, World};

/// Steps between two resets of the card.
const LIFE: u64 = 3000;

/// A number from the environment.
fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let digits = text.trim_start_matches("0x");
    let radix = if digits.len() == text.len() { 10 } else { 16 };
    Some(u64::from_str_radix(digits, radix).unwrap_or_else(|_| panic!("{name} = {text} is not a number")))
}

/// Tells where a run was when it did not come to its end.
struct Place {
    seed: u64,
    step: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SFNIC_SEED={:#x}, step {}", self.seed, self.step);
        }
    }
}

/// Runs until so many mutations were made.
fn run(seed: u64, mutations: u64) -> Coverage {
    let mut slowest = Duration::ZERO;
    let mut place = Place { seed, step: 0 };
    let mut entropy = Seeded(seed);
    let mut world = World::new();
    while world.coverage.mutations < mutations {
        let before = Instant::now();
        world.step(Mix::All, &mut entropy);
        slowest = slowest.max(before.elapsed());
        place.step += 1;
        if place.step.is_multiple_of(LIFE) {
            world.check();
            world.restart();
        }
    }
    world.check();
    // Milliseconds, but for a machine that has other things to do.
    assert!(slowest < Duration::from_secs(30), "a step took {slowest:?}");
    world.coverage
}

#[test]
fn a_million_mutations_reach_everything_and_break_nothing() {
    let seed = variable("SFNIC_SEED").unwrap_or(0x5f_1c);
    let mutations = variable("SFNIC_MUTATIONS").unwrap_or(1_000_000);
    println!("SFNIC_SEED={seed:#x} SFNIC_MUTATIONS={mutations}");
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4) as u64);
    let parts: Vec<Coverage> = std::thread::scope(|s| {
        let run = |n| s.spawn(move || run(seed + n, mutations.div_ceil(threads)));
        let parts: Vec<_> = (0..threads).map(run).collect();
        parts.into_iter().map(|t| t.join().expect("a run that panicked")).collect()
    });
    let mut c = Coverage::default();
    parts.iter().for_each(|p| c.merge(p));
    println!(
        "{} mutations, {} sent, {} received, {} reasons of refusal",
        c.mutations,
        c.sent,
        c.received,
        c.syndromes.len()
    );
    assert!(c.mutations >= mutations);
    if mutations < 1_000_000 {
        return; // too few to reach everything
    }
    // These have no input that could be wrong.
    let cannot_refuse = [
        Opcode::NOP,
        Opcode::QUERY_ADAPTER,
        Opcode::QUERY_ISSI,
        Opcode::SET_DRIVER_VERSION,
        Opcode::QUERY_SPECIAL_CONTEXTS,
        Opcode::QUERY_ESW_FUNCTIONS,
        Opcode::ALLOC_PD,
        Opcode::ALLOC_UAR,
        Opcode::ALLOC_TRANSPORT_DOMAIN,
        Opcode::ALLOC_XRCD,
        Opcode::ALLOC_Q_COUNTER,
    ];
    for (opcode, r) in c.commands() {
        assert!(r.ok > 0, "{opcode} was never executed: {r:?}");
        assert!(r.refused_at_all > 0, "{opcode} was never refused");
        assert!(r.refused > 0 || cannot_refuse.contains(&opcode), "{opcode} was never refused for its own reasons");
    }
    for (opcode, name) in wqe_opcode::NAMES {
        assert!(c.wqe_opcodes.contains(opcode), "WQE opcode {name} was not rung");
    }
    assert!(c.sent > 1000 && c.received > 1000, "{} sent, {} received", c.sent, c.received);
    for d in [
        Delivery::Token,
        Delivery::BlockNumber,
        Delivery::OutPtrAlign,
        Delivery::InPtrAlign,
        Delivery::FwInternal,
        Delivery::InLength,
        Delivery::OutLength,
        Delivery::BadDescriptor,
    ] {
        assert!(c.delivery.contains(&(d as u8)), "{d:?} was not reached");
    }
    let missed: Vec<_> = Syndrome::ALL.iter().filter(|s| !c.syndromes.contains(&s.0.0)).map(|s| s.1).collect();
    println!("reasons that were not given: {missed:?}");
    println!("faults of WQEs: send {:?}, receive {:?}", c.send_faults, c.receive_faults);
}
