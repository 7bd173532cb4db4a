//! Compressed completions, read as the driver reads them.

use std::sync::Arc;

use proptest::prelude::*;
use sfnic_firmware_cmds::entries::Cqe64;
use sfnic_firmware_cmds::layout::Field64;
use sfnic_firmware_cmds::{ViewMut, Words};

use super::cq::{Cq, CqBatch, CqFault, MiniFormat};
use super::eq::Eq;
use super::mini_driver::{CqDriver, Guest, Irqs};
use crate::dma::Near;

/// A queue of 16 completions, and its driver.
struct Bench {
    guest: Guest,
    eq: Arc<Eq>,
    cq: Arc<Cq>,
    cqd: CqDriver,
}

impl Bench {
    fn new(format: MiniFormat) -> Self {
        let guest = Guest::new();
        let eq = Arc::new(guest.eq(&Arc::new(Irqs::default()), 1, 4));
        let (cq, cqd) = guest.cq(&eq, 4, |c| c.mini = Some(format));
        Self { guest, eq, cq, cqd }
    }

    /// Writes completions as one batch; false where one could not be written.
    fn write(&self, all: &[[u8; 64]]) -> bool {
        let near = Near::new(&self.guest.mem);
        let mut batch = self.cq.batch(&near);
        all.iter().all(|e| put(&mut batch, e).is_ok())
    }

    /// Everything that is there, and of how many completions each session was.
    fn read(&mut self, format: MiniFormat) -> (Vec<[u8; 64]>, Vec<u32>) {
        let (mut all, mut sessions) = (vec![], vec![]);
        while let Some((cqes, n)) = self.cqd.poll_packed(&self.guest.mem, format) {
            all.extend(cqes.into_iter().map(|c| c.0));
            sessions.push(n);
        }
        self.cqd.update(&self.guest);
        (all, sessions)
    }
}

/// Sets all bytes of a completion.
fn words(raw: &[u8; 64]) -> impl FnOnce(&mut Words<Cqe64, 8>) {
    let raw = *raw;
    move |cqe| {
        for (i, word) in raw.as_chunks().0.iter().enumerate() {
            cqe.set64(Field64::at(8 * i as u32), u64::from_be_bytes(*word));
        }
    }
}

fn put(batch: &mut CqBatch<'_, '_>, raw: &[u8; 64]) -> Result<(), CqFault> {
    batch.write(false, words(raw))
}

/// A frame's completion.
fn frame(number: u16, len: u32, set: impl FnOnce(&mut ViewMut<'_, Cqe64>)) -> [u8; 64] {
    let mut raw = [0; 64];
    let mut cqe = ViewMut::<Cqe64>::new(&mut raw);
    cqe.set(Cqe64::opcode, 2).set(Cqe64::wqe_counter, number.into()).set(Cqe64::byte_cnt, len);
    cqe.set(Cqe64::check_sum, len * 7 & 0xffff).set(Cqe64::rss_hash_result, len * 13).set(Cqe64::rss_ip_type, 1);
    cqe.set(Cqe64::l4_ok, 1).set(Cqe64::flow_tag, 5).set64(Cqe64::timestamp, 77);
    set(&mut cqe);
    raw
}

/// A completion without its owner bit, format, and what a session loses.
fn told(raw: &[u8; 64], format: MiniFormat) -> [u8; 64] {
    let mut raw = *raw;
    let mut cqe = ViewMut::<Cqe64>::new(&mut raw);
    cqe.set(Cqe64::owner, 0).set(Cqe64::format, 0);
    if format == MiniFormat::Hash {
        cqe.set(Cqe64::check_sum, 0);
    } else {
        cqe.set(Cqe64::rss_hash_result, 0).set(Cqe64::rss_hash_type, 0);
    }
    raw
}

const FORMATS: [MiniFormat; 3] = [MiniFormat::Hash, MiniFormat::Checksum, MiniFormat::ChecksumStride];

#[test]
fn sessions_of_every_length_are_read_back_round_the_ring() {
    for format in FORMATS {
        let mut b = Bench::new(format);
        let mut number = 0u16;
        for round in 0..100 {
            for n in 1..=16u32 {
                let sent: Vec<_> = (0..n).map(|i| frame(number + i as u16, 60 + i + round, |_| ())).collect();
                number += n as u16;
                assert!(b.write(&sent));
                let (got, sessions) = b.read(format);
                let plain = |all: &[[u8; 64]]| all.iter().map(|c| told(c, format)).collect::<Vec<_>>();
                assert_eq!(plain(&got), plain(&sent), "{format:?} {n}");
                assert_eq!(sessions, [n]);
            }
        }
        assert_eq!(b.cq.snapshot().producer, 100 * 136);
    }
}

#[test]
fn what_is_not_alike_ends_a_session() {
    let a = |n| frame(n, 60, |_| ());
    type Set = fn(&mut ViewMut<'_, Cqe64>);
    let others: [(Set, &[u32], &[u32]); 14] = [
        (|_| (), &[6], &[6]),
        (|c| _ = c.set(Cqe64::check_sum, 3), &[6], &[6]),
        (|c| _ = c.set(Cqe64::rss_hash_result, 3), &[6], &[6]),
        (|c| _ = c.set(Cqe64::rss_ip_type, 2), &[6], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::l4_ok, 0), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::l4_hdr_type, 3), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::vlan_info, 3), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::vlan_stripped, 1), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::flow_tag, 3), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::ft_metadata, 3), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set64(Cqe64::timestamp, 78), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::lro_num_seg, 2), &[3, 1, 2], &[3, 1, 2]),
        // An error; a number that is left out.
        (|c| _ = c.set(Cqe64::opcode, 0xe), &[3, 1, 2], &[3, 1, 2]),
        (|c| _ = c.set(Cqe64::wqe_counter, 9), &[3, 1, 2], &[3, 1, 2]),
    ];
    for (i, (set, by_sum, by_hash)) in others.into_iter().enumerate() {
        for (format, want) in [(MiniFormat::Checksum, by_sum), (MiniFormat::Hash, by_hash)] {
            let mut b = Bench::new(format);
            let sent = [a(0), a(1), a(2), frame(3, 60, set), a(4), a(5)];
            assert!(b.write(&sent));
            let (got, sessions) = b.read(format);
            assert_eq!(sessions, want, "case {i}, {format:?}");
            for (g, s) in got.iter().zip(&sent) {
                assert_eq!(told(g, format), told(s, format), "case {i}, {format:?}");
            }
        }
    }
}

#[test]
fn strides_go_on_where_the_last_frame_ended() {
    let stride = |first: u16, n: u32, wqe: u32| {
        frame(first, 200, |c| _ = c.set(Cqe64::consumed_strides, n).set(Cqe64::wqe_id, wqe))
    };
    let filler = frame(9, 0, |c| _ = c.set(Cqe64::filler, 1).set(Cqe64::consumed_strides, 3).set(Cqe64::wqe_id, 4));
    let sent =
        [stride(0, 2, 4), stride(2, 1, 4), stride(3, 6, 4), filler, stride(0, 1, 5), stride(1, 1, 5), stride(5, 1, 5)];
    for (format, want) in [(MiniFormat::Checksum, &[3, 1, 2, 1][..]), (MiniFormat::ChecksumStride, &[3, 1, 3])] {
        let mut b = Bench::new(format);
        assert!(b.write(&sent));
        let (got, sessions) = b.read(format);
        assert_eq!(sessions, want);
        for (g, s) in got.iter().zip(&sent) {
            assert_eq!(told(g, format), told(s, format), "{format:?}");
        }
    }
}

#[test]
fn a_batch_ends_a_session_and_sends_one_event() {
    let mut b = Bench::new(MiniFormat::Checksum);
    b.cq.arm(&b.guest.mem, b.cqd.arm(&b.guest));
    {
        let near = Near::new(&b.guest.mem);
        let mut batch = b.cq.batch(&near);
        for i in 0..3 {
            put(&mut batch, &frame(i, 60, |_| ())).unwrap();
        }
        assert!(b.cqd.poll(&b.guest.mem).is_none(), "not before the end");
    }
    assert_eq!((b.cq.snapshot().producer, b.eq.snapshot().producer), (3, 1));
    assert!(b.write(&[frame(3, 60, |_| ()), frame(4, 60, |_| ())]));
    assert_eq!(b.read(MiniFormat::Checksum).1, [3, 2]);
    let solicited = frame(5, 60, |_| ());
    {
        let near = Near::new(&b.guest.mem);
        let mut batch = b.cq.batch(&near);
        for s in [false, true, false] {
            batch.write(s, words(&solicited)).unwrap();
        }
    }
    assert_eq!(b.read(MiniFormat::Checksum).1, [1, 1, 1]);
}

#[test]
fn no_entry_that_the_driver_has_not_read_is_written() {
    let mut b = Bench::new(MiniFormat::Checksum);
    let all: Vec<_> = (0..20).map(|i| frame(i, 60, |_| ())).collect();
    assert!(b.write(&all[..10]));
    // Six fit; what cannot be written is told with itself.
    let near = Near::new(&b.guest.mem);
    let mut batch = b.cq.batch(&near);
    let written = all[10..].iter().take_while(|e| put(&mut batch, e).is_ok());
    assert_eq!(written.count(), 6);
    drop(batch);
    assert!(b.cq.snapshot().error);
    let (got, sessions) = b.read(MiniFormat::Checksum);
    assert_eq!((got.len(), sessions), (16, vec![10, 6]));
}

#[test]
fn a_session_is_no_longer_than_its_ring() {
    let b = Bench::new(MiniFormat::Checksum);
    let (cq, _) = b.guest.cq(&b.eq, 5, |c| {
        c.mini = Some(MiniFormat::Checksum);
        c.overrun_ignore = true;
    });
    // Overruns are the driver's matter then; a session is no longer than the ring.
    let near = Near::new(&b.guest.mem);
    let mut batch = cq.batch(&near);
    for i in 0..200 {
        put(&mut batch, &frame(i, 60, |_| ())).unwrap();
    }
    drop(batch);
    assert_eq!(cq.snapshot().producer, 200);
    cq.retire();
    let mut batch = cq.batch(&near);
    assert!(put(&mut batch, &frame(0, 60, |_| ())).is_err());
}

proptest! {
    /// Whatever is written is read back, in order, as if nothing were compressed.
    #[test]
    fn compressed_is_as_good_as_plain(
        batches in proptest::collection::vec(proptest::collection::vec((0u8..8, 0u32..3, 60u32..1500), 1..17), 1..40),
        which in 0usize..3,
    ) {
        let format = FORMATS[which];
        let mut b = Bench::new(format);
        let mut number = 0u16;
        for batch in batches {
            let sent: Vec<_> = batch.iter().map(|&(kind, tag, len)| {
                number = match kind { 0 => number.wrapping_mul(7), 1 => 0, _ => number.wrapping_add(1) };
                frame(number, len, |c| {
                    c.set(Cqe64::flow_tag, if kind == 2 { tag } else { 5 });
                    if kind == 3 && tag == 0 {
                        c.set(Cqe64::opcode, 0xe);
                    }
                })
            }).collect();
            prop_assert!(b.write(&sent));
            let (got, sessions) = b.read(format);
            prop_assert_eq!(sessions.iter().sum::<u32>() as usize, sent.len());
            let got: Vec<_> = got.iter().map(|c| told(c, format)).collect();
            let want: Vec<_> = sent.iter().map(|c| told(c, format)).collect();
            prop_assert_eq!(got, want);
        }
    }
}
