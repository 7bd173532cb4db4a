//! Random damage to valid messages, from a fixed seed.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use sfnic_emulator::vfio_user::{Command, Connection, Counters, Options, PciDevice, ReplySink, fuzz_one};

use crate::client::*;
use crate::mock::{Mock, event, memory, open_fds, take_turn};

/// Collects what a connection answers.
#[derive(Default)]
pub(crate) struct Replies {
    pub(crate) count: u64,
    pub(crate) errnos: Vec<i32>,
}

impl ReplySink for Replies {
    fn send(&mut self, message: &[u8], _fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().expect("a whole header"));
        assert_eq!(word(4) as usize, message.len());
        assert_eq!(word(8) & !0x20, 1);
        self.count += 1;
        self.errnos.push(word(12) as i32);
        Ok(())
    }
}

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A number at the edge of something.
    fn interesting(&mut self) -> u64 {
        let base = [0, 1, 4, 16, 24, 4096, 1 << 20, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
        base[self.below(base.len())].wrapping_add([0, 1, u64::MAX][self.below(3)])
    }
}

fn templates() -> Vec<Vec<u8>> {
    let m = |command: Command, payload: Vec<u8>| message(1, command as u16, 0, &payload);
    vec![
        m(Command::Version, version(0, 0, QEMU_CAPABILITIES)),
        m(Command::DmaMap, dma_map(3, 0, 0x10000, 0x4000)),
        m(Command::DmaMap, dma_map(1, 0x1000, 0x20000, 0x1000)),
        m(Command::DmaUnmap, dma_unmap(0, 0x10000, 0x4000)),
        m(Command::DmaUnmap, dma_unmap(2, 0, 0)),
        m(Command::DeviceGetInfo, words(&[16, 0, 0, 0])),
        m(Command::DeviceGetRegionInfo, region_info(32, 0)),
        m(Command::DeviceGetRegionIoFds, words(&[16, 0, 0, 0])),
        m(Command::DeviceGetIrqInfo, words(&[16, 0, 2, 0])),
        m(Command::DeviceSetIrqs, set_irqs(0x24, 2, 3, 1, &[])),
        m(Command::DeviceSetIrqs, set_irqs(0x22, 2, 0, 4, &[1, 0, 1, 1])),
        m(Command::DeviceSetIrqs, set_irqs(0x21, 2, 0, 0, &[])),
        m(Command::RegionRead, region(0x1fc, 0, 4, &[])),
        m(Command::RegionRead, region(0, 7, 256, &[])),
        m(Command::RegionWrite, region(0x18, 0, 4, &[0, 0, 0, 1])),
        m(Command::RegionWrite, region(4, 7, 2, &[6, 0])),
        m(Command::RegionWriteMulti, multi(2, &[(0x800, 0, 8, [1; 8]), (0, 2, 4, [2; 8])])),
        m(Command::DeviceReset, vec![]),
        m(Command::DeviceFeature, vec![0; 8]),
    ]
}

/// Damages a message; its length field follows its length unless that itself
/// is what is damaged.
fn mutate(rng: &mut XorShift, template: &[u8]) -> Vec<u8> {
    let mut m = template.to_vec();
    for _ in 0..rng.below(4) {
        match rng.below(6) {
            0 => {
                let at = rng.below(m.len());
                m[at] ^= 1 << rng.below(8);
            }
            1 => {
                let at = rng.below(m.len());
                m[at] = rng.next() as u8;
            }
            2 if m.len() >= 20 => {
                let at = 16 + 4 * rng.below((m.len() - 16) / 4);
                let value = rng.interesting() as u32;
                m[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            3 if m.len() >= 24 => {
                let at = 16 + 8 * rng.below((m.len() - 16) / 8);
                let value = rng.interesting();
                m[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            }
            4 => {
                let len = 16 + rng.below(m.len() + 32 - 16);
                m.resize(len, rng.next() as u8);
            }
            _ => m[8] ^= 0x10,
        }
    }
    let size = if rng.below(500) == 0 { rng.interesting() as u32 } else { m.len() as u32 };
    m[4..8].copy_from_slice(&size.to_ne_bytes());
    m
}

#[test]
fn damaged_messages_are_answered_or_end_the_connection() {
    const MESSAGES: u64 = 200_000;
    let _turn = take_turn();
    let mut rng = XorShift(0x5eed_0001_cafe_f00d);
    let templates = templates();
    let memfd = memory(0x8000);
    let eventfd = event();
    let fds_before = open_fds();
    let (mut sent, mut connections, mut refused, mut served) = (0u64, 0, 0, 0);
    while sent < MESSAGES {
        connections += 1;
        let device = Arc::new(Mock::default());
        let counters = Arc::new(Counters::default());
        let mut connection = Connection::new(device.clone(), &Options::default(), None, counters.clone());
        let mut replies = Replies::default();
        if rng.below(8) > 0 {
            let hello = message(0, 1, 0, &version(0, 0, b""));
            connection.feed(&hello, vec![], &mut replies).expect("hello");
        }
        let mut wanted = replies.count;
        let mut whole = true;
        for _ in 0..2000 {
            sent += 1;
            let template = &templates[rng.below(templates.len())];
            let m = mutate(&mut rng, template);
            let fds: Vec<OwnedFd> = match rng.below(4) {
                0 => (0..rng.below(3)).map(|_| memfd.try_clone().expect("dup")).collect(),
                1 => (0..rng.below(3)).map(|_| eventfd.try_clone().expect("dup")).collect(),
                _ => Vec::new(),
            };
            let handled = connection.feed(&m, fds, &mut replies);
            let seen = counters.snapshot();
            assert_eq!(seen.stale_snapshots, 0);
            whole &= m[4..8] == (m.len() as u32).to_ne_bytes();
            match handled {
                // As long as messages are whole, there is one reply for each
                // command that wants one.
                Ok(handled) if whole => {
                    assert_eq!(handled, 1);
                    let is_reply = m[8] & 0xf == 1;
                    wanted += u64::from(m[8] & 0x10 == 0 && !is_reply);
                    assert_eq!(replies.count, wanted);
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let seen = counters.snapshot();
        refused += seen.rejected_total();
        served += seen.messages_total() - seen.rejected_total();
        drop(connection);
        assert!(device.memory().regions().is_empty());
        assert_eq!(device.msix_vectors(), 32);
    }
    println!("{sent} messages, {connections} connections, {served} served, {refused} refused");
    assert_eq!(open_fds(), fds_before);
    assert!(refused > MESSAGES / 10 && served > MESSAGES / 10);
}

#[test]
fn the_fuzz_entry_point_survives_noise() {
    let _turn = take_turn();
    let mut rng = XorShift(0x5eed_0002_cafe_f00d);
    let hello = message(0, 1, 0, &version(0, 0, b""));
    let templates = templates();
    fuzz_one(&[]);
    for _ in 0..2000 {
        let mut input = vec![0];
        input.extend((hello.len() as u16).to_le_bytes());
        input.extend(&hello);
        for _ in 0..rng.below(20) {
            let template = &templates[rng.below(templates.len())];
            let m = mutate(&mut rng, template);
            input.push(if rng.below(2) == 0 { 0 } else { rng.next() as u8 & 0x33 });
            input.extend((m.len() as u16).to_le_bytes());
            input.extend(m);
        }
        for _ in 0..rng.below(3) {
            let at = rng.below(input.len());
            input[at] = rng.next() as u8;
        }
        fuzz_one(&input);
    }
}
