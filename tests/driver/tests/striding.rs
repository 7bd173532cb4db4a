//! Striding receive queues as a driver has them: a free memory key, buffers that UMRs map
//! into it, frames in their strides, TCP segments joined. And a driver that does it wrong.

use sfnic_firmware_cmds::entries::{Cqe64, WqRecord, WqeNext, WqeUmr, cqe_opcode, cqe_syndrome};
use sfnic_firmware_cmds::layout::ViewMut;
use sfnic_firmware_cmds::layouts::*;
use sfnic_firmware_cmds::{Layout, Opcode, Status, Syndrome};
use sfnic_test_driver::command::{CmdError, Out};
use sfnic_test_driver::cq::{Cq, Cqe};
use sfnic_test_driver::memory::PAGE;
use sfnic_test_driver::objects::{pages, state};
use sfnic_test_driver::rq::segment;
use sfnic_test_driver::sq::Sq;
use sfnic_test_driver::{Function, Netdev, NetdevConfig, Rig, Wqe, frames};

/// WQEs of the queue, log2 of strides of one and of their bytes.
const WQES: u16 = 2;
const LOG_STRIDES: u32 = 3;
const LOG_STRIDE: u32 = 11;
/// Pages of a buffer, and from one to the next in the key.
const BUFFER_PAGES: u64 = 4;
const APART: u64 = 6;
/// `wq_type`.
const LINKED_LIST_STRIDING: u32 = 2;

/// A key that has pages and is free.
fn free_key(
    f: &Function,
    pd: u32,
    list: &[u64],
    set: impl FnOnce(&mut ViewMut<'_, CreateMkeyIn>),
) -> Result<u32, CmdError> {
    let tail: Vec<u8> = list.iter().flat_map(|p| p.to_be_bytes()).collect();
    let octowords = list.len() as u32 / 2;
    let out: Out<CreateMkeyOut> = f.cmd_with(Opcode::CREATE_MKEY, &tail, 0, |i: &mut ViewMut<'_, CreateMkeyIn>| {
        i.set(CreateMkeyIn::translations_octword_actual_size, octowords);
        let mut c = i.sub(CreateMkeyIn::memory_key_mkey_entry);
        c.set(Mkc::free, 1).set(Mkc::umr_en, 1).set(Mkc::lw, 1).set(Mkc::lr, 1).set(Mkc::access_mode_1_0, 1);
        c.set(Mkc::pd, pd).set(Mkc::qpn, Mkc::qpn.max()).set(Mkc::log_page_size, PAGE.ilog2());
        c.set(Mkc::translations_octword_size, octowords).set64(Mkc::len, list.len() as u64 * PAGE);
        set(i);
    })?;
    Ok(out.get(CreateMkeyOut::mkey_index) << 8)
}

/// CREATE_RQ of a striding queue; its number, ring and record.
fn create_rq(d: &Netdev, cqn: u32, set: impl FnOnce(&mut ViewMut<'_, Rqc>)) -> Result<(u32, u64, u64), CmdError> {
    const LOG_WQE: u32 = 5;
    let f = &d.function;
    let (ring, record) = (f.mem.alloc(PAGE), f.mem.alloc(PAGE));
    let out: Out<CreateRqOut> =
        f.cmd_with(Opcode::CREATE_RQ, &pages(ring, PAGE), 0, |i: &mut ViewMut<'_, CreateRqIn>| {
            let mut c = i.sub(CreateRqIn::ctx);
            c.set(Rqc::cqn, cqn).set(Rqc::flush_in_error_en, 1).set(Rqc::counter_set_id, d.counters);
            let mut wq = c.sub(Rqc::wq);
            wq.set(Wq::wq_type, LINKED_LIST_STRIDING).set(Wq::pd, d.pd);
            wq.set(Wq::log_wq_stride, LOG_WQE).set(Wq::log_wq_sz, WQES.ilog2());
            wq.set(Wq::log_wqe_num_of_strides, LOG_STRIDES.wrapping_sub(9) & 0xf)
                .set(Wq::log_wqe_stride_size, LOG_STRIDE - 6);
            wq.set64(Wq::dbr_addr, record);
            set(&mut c);
        })?;
    Ok((out.get(CreateRqOut::rqn), ring, record))
}

/// Everything that receives into strides, and an interface that sends.
struct Bench {
    rig: Rig,
    d: Netdev,
    key: u32,
    umrs: Sq,
    umr_cq: Cq,
    rqn: u32,
    rq_cq: Cq,
    ring: u64,
    record: u64,
    tirn: u32,
    /// Pages of each buffer, and one that is not to be written.
    buffers: Vec<Vec<u64>>,
    filler: u64,
    posted: u16,
}

impl Bench {
    fn new() -> Self {
        let rig = Rig::offering(&["striding_rq=1"]);
        let d = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
        let f = &d.function;
        let filler = f.mem.alloc(PAGE);
        let key = free_key(f, d.pd, &vec![filler; usize::from(WQES) * APART as usize], |_| ()).unwrap();
        let umr_cq = f.create_cq(d.uar, d.eq.number, 6).unwrap();
        let umrs = f.create_sq_with(d.uar, d.pd, umr_cq.number, d.tisn, 6, |c| {
            c.set(Sqc::reg_umr, 1);
        });
        let umrs = umrs.unwrap();
        f.modify_sq(umrs.number, state::RST, state::RDY).unwrap();
        let rq_cq = f.create_cq(d.uar, d.eq.number, 6).unwrap();
        let (rqn, ring, record) = create_rq(&d, rq_cq.number, |_| ()).unwrap();
        f.modify_rq(rqn, state::RST, state::RDY).unwrap();
        let tirn = f.create_direct_tir(d.td, rqn).unwrap();
        f.take_own_frames(tirn, true).unwrap();
        f.receive_to(tirn).unwrap();
        // Not one behind the other.
        let mut all: Vec<u64> = (0..u64::from(WQES) * BUFFER_PAGES).map(|_| f.mem.alloc(PAGE)).collect();
        all.reverse();
        let buffers = all.chunks(BUFFER_PAGES as usize).map(<[u64]>::to_vec).collect();
        let mut b = Self { rig, d, key, umrs, umr_cq, rqn, rq_cq, ring, record, tirn, buffers, filler, posted: 0 };
        for i in 0..WQES {
            b.wqe(i);
        }
        b
    }

    /// Writes the WQE of a buffer; it stays as it is.
    fn wqe(&mut self, index: u16) {
        let mut head = [0; WqeNext::SIZE];
        ViewMut::<WqeNext>::new(&mut head).set(WqeNext::next_wqe_index, u32::from((index + 1) % WQES));
        let at = self.ring + u64::from(index) * 32;
        self.d.function.mem.put(at, &head);
        let seg = segment(self.key, u64::from(index) * APART * PAGE, (BUFFER_PAGES * PAGE) as u32);
        self.d.function.mem.put(at + WqeNext::SIZE as u64, &seg);
    }

    fn umr(&mut self, wqe: &Wqe) -> Cqe {
        self.umrs.post(&wqe.clone().signalled());
        self.umrs.ring();
        self.rig.run();
        let cqe = self.umr_cq.drain()[0];
        self.umrs.complete(&cqe);
        cqe
    }

    /// Maps a buffer into the key.
    fn map(&mut self, index: u16) {
        let pages = self.buffers[usize::from(index)].clone();
        let done = self.umr(&Wqe::umr(self.key, u32::from(index) * APART as u32, &pages, |_| ()));
        assert_eq!(done.opcode(), cqe_opcode::REQ, "{:?}", done.error());
    }

    fn post(&mut self) {
        self.posted = self.posted.wrapping_add(1);
        self.d.function.mem.put32(self.record + 4 * WqRecord::receive_counter.dword() as u64, self.posted.into());
    }

    fn send(&mut self, frame: &[u8]) {
        self.d.send(frame);
        self.rig.run();
    }

    /// The bytes of a completion, out of its buffer's pages.
    fn bytes(&self, cqe: &Cqe) -> Vec<u8> {
        let pages = &self.buffers[cqe.get(Cqe64::wqe_id) as usize];
        let from = u64::from(cqe.get(Cqe64::wqe_counter)) << LOG_STRIDE;
        let byte = |at: u64| self.d.function.mem.get8(pages[(at / PAGE) as usize] + at % PAGE);
        (from..from + u64::from(cqe.get(Cqe64::stride_byte_cnt))).map(byte).collect()
    }

    fn filler_is_clean(&self) -> bool {
        self.d.function.mem.get(self.filler, PAGE as usize).iter().all(|b| *b == 0)
    }

    /// MODIFY_TIR: which segments are joined.
    fn merge(&self, mask: u32) -> Result<(), CmdError> {
        let f = &self.d.function;
        f.cmd::<ModifyTirIn, ModifyTirOut>(Opcode::MODIFY_TIR, |i| {
            i.set(ModifyTirIn::tirn, self.tirn);
            i.sub(ModifyTirIn::bitmask).set(ModifyTirBitmask::packet_merge, 1);
            let mut c = i.sub(ModifyTirIn::ctx);
            c.set(Tirc::packet_merge_mask, mask)
                .set(Tirc::lro_max_ip_payload_size, 255)
                .set(Tirc::lro_timeout_period_usecs, 32);
        })
        .map(drop)
    }

    /// A TCP segment without PSH; the device fills in the checksum.
    fn tcp(&mut self, seq: u32, payload: &[u8]) {
        let mut frame = frames::Flow4::new(self.d.mac, [2, 0, 0, 0, 0, 9]).tcp(seq, payload);
        frame[47] = 0x10;
        self.d.send_with(0, &frame, 18, Wqe::checksums);
    }
}

fn other(b: &Bench, seed: usize, len: usize) -> Vec<u8> {
    frames::ethernet(b.d.mac, b.d.mac, 0x88b5, &frames::pattern(seed, len - 14))
}

#[test]
fn frames_arrive_in_pages_that_umrs_gave() {
    let mut b = Bench::new();
    let mut sent = vec![];
    for i in 0..WQES {
        b.map(i);
        b.post();
    }
    // 8 strides each: 3 frames of one, 2 of three, then 6 into the next buffer.
    for (n, len) in [100, 1514, 60, 5000, 1000, 4097, 3000].into_iter().enumerate() {
        let frame = other(&b, n, len);
        b.send(&frame);
        sent.push(frame);
    }
    let all = b.rq_cq.drain();
    let (fillers, frames): (Vec<&Cqe>, Vec<&Cqe>) = all.iter().partition(|c| c.get(Cqe64::filler) == 1);
    let got: Vec<Vec<u8>> = frames.iter().map(|c| b.bytes(c)).collect();
    assert_eq!(got, sent);
    let places = |list: &[&Cqe]| -> Vec<[u32; 3]> {
        list.iter().map(|c| [Cqe64::wqe_id, Cqe64::wqe_counter, Cqe64::consumed_strides].map(|f| c.get(f))).collect()
    };
    assert_eq!(places(&frames), [[0, 0, 1], [0, 1, 1], [0, 2, 1], [0, 3, 3], [0, 6, 1], [1, 0, 3], [1, 3, 2]]);
    assert_eq!(places(&fillers), [[0, 7, 1]]);
    assert!(b.filler_is_clean());
    // The same buffer elsewhere.
    let new: Vec<u64> = (0..BUFFER_PAGES).map(|_| b.d.function.mem.alloc(PAGE)).collect();
    let old = std::mem::replace(&mut b.buffers[0], new);
    b.map(0);
    b.post();
    let before = b.d.function.mem.get(old[0], PAGE as usize);
    for n in 0..3 {
        let frame = other(&b, 70 + n, 4000);
        b.send(&frame);
    }
    let all = b.rq_cq.drain();
    assert_eq!(b.bytes(all.last().unwrap()), other(&b, 72, 4000));
    assert_eq!(all.last().unwrap().get(Cqe64::wqe_id), 0);
    assert_eq!(b.d.function.mem.get(old[0], PAGE as usize), before);
}

#[test]
fn a_key_that_is_still_free_takes_nothing() {
    let mut b = Bench::new();
    b.post();
    let frame = other(&b, 1, 100);
    b.send(&frame);
    let cqe = b.rq_cq.drain()[0];
    assert_eq!((cqe.opcode(), cqe.error().1), (cqe_opcode::RESP_ERR, cqe_syndrome::LOCAL_PROT));
    assert_eq!((cqe.get(Cqe64::wqe_id), cqe.get(Cqe64::consumed_strides)), (0, 1 << LOG_STRIDES));
    assert_eq!(b.d.function.rq_state(b.rqn).unwrap(), state::ERR);
    assert!(b.filler_is_clean());
    // As the driver recovers.
    b.d.function.modify_rq(b.rqn, state::ERR, state::RST).unwrap();
    b.posted = 0;
    b.d.function.mem.put32(b.record, 0);
    b.d.function.modify_rq(b.rqn, state::RST, state::RDY).unwrap();
    b.map(0);
    b.post();
    b.send(&frame);
    let cqe = b.rq_cq.drain()[0];
    assert_eq!(b.bytes(&cqe), frame);
}

#[test]
fn a_key_destroyed_under_its_buffers_is_an_error() {
    let mut b = Bench::new();
    (0..WQES).for_each(|i| {
        b.map(i);
        b.post();
    });
    let frame = other(&b, 1, 100);
    b.send(&frame);
    b.d.function.destroy(Opcode::DESTROY_MKEY, b.key >> 8).unwrap();
    b.send(&frame);
    let all = b.rq_cq.drain();
    let errors: Vec<_> =
        all.iter().map(|c| (c.opcode(), c.get(Cqe64::wqe_id), c.get(Cqe64::consumed_strides))).collect();
    let (ok, err) = (cqe_opcode::RESP_SEND, cqe_opcode::RESP_ERR);
    assert_eq!(errors, [(ok, 0, 1), (err, 0, 7), (err, 1, 8)], "what is left of each buffer comes back");
}

#[test]
fn tcp_segments_are_joined_where_the_tir_says_so() {
    let mut b = Bench::new();
    (0..WQES).for_each(|i| {
        b.map(i);
        b.post();
    });
    b.merge(3).unwrap();
    // One burst: the first frame of the flow goes the long way, the others the short one.
    let parts: Vec<Vec<u8>> = (0..6).map(|n| frames::pattern(n, 501)).collect();
    for (n, part) in parts.iter().enumerate() {
        b.tcp(1000 + 501 * n as u32, part);
    }
    b.rig.run();
    let all = b.rq_cq.drain();
    assert_eq!(all.len(), 1);
    let got = b.bytes(&all[0]);
    assert_eq!(got[54..], parts.concat());
    assert_eq!((all[0].get(Cqe64::lro_num_seg), all[0].get(Cqe64::lro_tcppsh)), (6, 0));
    assert_eq!((all[0].get(Cqe64::lro_ack_seq_num), all[0].get(Cqe64::lro_tcp_win)), (1, 0xffff));
    assert_eq!(all[0].get(Cqe64::check_sum) as u16 % 0xffff, frames::sum(&parts.concat()) % 0xffff);
    // A message that the device itself cuts has its PSH in the last segment.
    let whole = frames::Flow4::new(b.d.mac, [2, 0, 0, 0, 0, 9]).tcp(1, &[]);
    let payload = frames::pattern(9, 4000);
    b.d.send_lso(0, &whole, &payload, 1000);
    b.rig.run();
    let all = b.rq_cq.drain();
    let got: Vec<u8> =
        all.iter().filter(|c| c.get(Cqe64::filler) == 0).flat_map(|c| b.bytes(c)[54..].to_vec()).collect();
    assert_eq!(got, payload);
    let last = all.last().unwrap();
    assert_eq!((last.get(Cqe64::lro_num_seg), last.get(Cqe64::lro_tcppsh)), (4, 1));
    // A wrong checksum is nothing to join.
    for seq in [0, 100] {
        let mut frame = frames::Flow4::new(b.d.mac, [2, 0, 0, 0, 0, 9]).tcp(seq, &[7; 100]);
        frame[47] = 0x10;
        b.d.send_with(0, &frame, 18, |w| w);
    }
    b.rig.run();
    let all = b.rq_cq.drain();
    assert_eq!(all.iter().map(|c| (c.get(Cqe64::lro_num_seg), c.get(Cqe64::l4_ok))).collect::<Vec<_>>(), [(0, 0); 2]);
}

#[test]
fn what_is_known_of_a_flow_ends_with_its_merging() {
    let mut b = Bench::new();
    (0..WQES).for_each(|i| {
        b.map(i);
        b.post();
    });
    let mut seq = 0;
    for (mask, want) in [(3, 1), (0, 3), (1, 1), (2, 3)] {
        b.merge(mask).unwrap();
        for _ in 0..3 {
            b.tcp(seq, &[1; 100]);
            seq += 100;
        }
        b.rig.run();
        assert_eq!(b.rq_cq.drain().len(), want, "mask {mask}");
    }
    assert!(b.merge(4).unwrap_err().is(Status::BadParam));
}

#[test]
fn umrs_that_may_not_change_nothing() {
    let mut b = Bench::new();
    b.map(0);
    let (key, pages) = (b.key, [b.filler; 4]);
    let (op, prot, length) = (cqe_syndrome::LOCAL_QP_OP, cqe_syndrome::LOCAL_PROT, cqe_syndrome::LOCAL_LENGTH);
    let umr = |key, first| Wqe::umr(key, first, &pages, |_| ());
    let with = |set: fn(&mut ViewMut<'_, WqeUmr>)| Wqe::umr(key, 0, &pages, set);
    let out_of_line = || {
        Wqe::umr(key, 0, &[], |u| {
            u.set(WqeUmr::inline, 0).set(WqeUmr::xlt_octowords, 2);
        })
    };
    let at = b.d.function.mem.alloc(PAGE);
    let (lkey, other_pd) = (b.d.lkey, b.d.function.alloc_pd().unwrap());
    let foreign = free_key(&b.d.function, other_pd, &pages, |_| ()).unwrap();
    let fixed = free_key(&b.d.function, b.d.pd, &pages, |i| {
        i.sub(CreateMkeyIn::memory_key_mkey_entry).set(Mkc::umr_en, 0);
    });
    let cases = [
        (umr(key ^ 1, 0), prot),
        (umr(0, 0), prot),
        (umr(u32::MAX, 0), prot),
        (umr(lkey, 0), prot),
        (umr(foreign, 0), prot),
        (umr(fixed.unwrap(), 0), prot),
        (umr(key, 10), prot),
        (umr(key, 0x1_fffe), prot),
        (with(|u| _ = u.set(WqeUmr::check_free, 1)), prot),
        (with(|u| _ = u.set(WqeUmr::check_free, 1).set(WqeUmr::check_not_free, 1)), op),
        (with(|u| _ = u.set64(WqeUmr::mkey_mask, 1)), op),
        (with(|u| _ = u.set64(WqeUmr::mkey_mask, u64::MAX)), op),
        (with(|u| _ = u.set(WqeUmr::xlt_octowords, 3)), op),
        (with(|u| _ = u.set(WqeUmr::xlt_octowords, 0xffff)), op),
        (umr(key, 0).cut(7), op),
        (umr(key, 0).cut(1), op),
        (out_of_line(), op),
        (out_of_line().data(lkey, at, 31), length),
        (out_of_line().data(lkey ^ 1, at, 32), prot),
        (out_of_line().data(lkey, 1 << 60, 32), prot),
        // It cannot read through itself what it does not have.
        (out_of_line().data(foreign, 0, 32), prot),
    ];
    for (wqe, syndrome) in cases {
        let cqe = b.umr(&wqe);
        assert_eq!((cqe.opcode(), cqe.error().1), (cqe_opcode::REQ_ERR, syndrome), "{wqe:?}: {:?}", cqe.error());
        b.d.function.modify_sq(b.umrs.number, state::ERR, state::RST).unwrap();
        b.d.function.modify_sq(b.umrs.number, state::RST, state::RDY).unwrap();
        b.umrs.producer = 0;
        b.umrs.consumer = 0;
    }
    b.post();
    let frame = other(&b, 3, 1500);
    b.send(&frame);
    let cqe = b.rq_cq.drain()[0];
    assert_eq!(b.bytes(&cqe), frame);
    assert!(b.filler_is_clean());
    assert!(b.rig.nic.unmodelled.list().is_empty());
    // From memory, as it should be.
    let list: Vec<u8> = b.buffers[1].iter().flat_map(|p| p.to_be_bytes()).collect();
    b.d.function.mem.put(at, &list);
    assert_eq!(b.umr(&out_of_line().data(lkey, at, 32)).opcode(), cqe_opcode::REQ);
}

#[test]
fn what_is_not_offered_is_refused() {
    let refused = |got: Result<(), CmdError>, syndrome: Syndrome| {
        let e = got.expect_err("refused");
        assert!(e.is(Status::BadParam) && e.because(syndrome), "{e}");
    };
    let striding = |d: &Netdev, set: fn(&mut ViewMut<'_, Rqc>)| {
        let cq = d.function.create_cq(d.uar, d.eq.number, 6).unwrap();
        create_rq(d, cq.number, set).map(drop)
    };
    let rig = Rig::offering(&["lro_cap=0", "reg_umr_sq=0"]);
    let d = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    refused(striding(&d, |_| ()), Syndrome::QUEUE_TYPE);
    let cqn = d.function.create_cq(d.uar, d.eq.number, 6).unwrap().number;
    let sq = d.function.create_sq_with(d.uar, d.pd, cqn, d.tisn, 6, |c| _ = c.set(Sqc::reg_umr, 1));
    refused(sq.map(drop), Syndrome::QUEUE_TYPE);
    let tir = d.function.cmd::<CreateTirIn, CreateTirOut>(Opcode::CREATE_TIR, |i| {
        let mut c = i.sub(CreateTirIn::ctx);
        c.set(Tirc::inline_rqn, d.channels[0].rq.number)
            .set(Tirc::transport_domain, d.td)
            .set(Tirc::packet_merge_mask, 1);
    });
    refused(tir.map(drop), Syndrome::TIR_DISPATCH);

    let b = Bench::new();
    type Set = fn(&mut ViewMut<'_, Rqc>);
    let cases: [(Set, Syndrome); 5] = [
        (|c| _ = c.sub(Rqc::wq).set(Wq::log_wqe_num_of_strides, 8), Syndrome::QUEUE_STRIDE),
        (|c| _ = c.sub(Rqc::wq).set(Wq::log_wqe_num_of_strides, 9), Syndrome::QUEUE_STRIDE),
        (|c| _ = c.sub(Rqc::wq).set(Wq::shampo_enable, 1), Syndrome::QUEUE_TYPE),
        (|c| _ = c.sub(Rqc::wq).set(Wq::two_byte_shift_en, 1), Syndrome::QUEUE_TYPE),
        (|c| _ = c.sub(Rqc::wq).set(Wq::wq_type, 4), Syndrome::QUEUE_TYPE),
    ];
    for (set, syndrome) in cases {
        refused(striding(&b.d, set), syndrome);
    }
    // Translations of other kinds.
    let indirect = free_key(&b.d.function, b.d.pd, &[0; 4], |i| {
        i.sub(CreateMkeyIn::memory_key_mkey_entry).set(Mkc::access_mode_1_0, 2);
    });
    refused(indirect.map(drop), Syndrome::MKEY_MODE);
}

#[test]
fn a_message_from_a_wire_arrives_as_one_or_in_its_segments() {
    let from = [2, 0, 0, 0, 0, 9];
    let payload = frames::pattern(3, 9501);
    let arrive = |rig: &Rig, d: &Netdev| {
        let mut message = frames::Flow4::new(d.mac, from).tcp(77, &payload);
        rig.nic.receive_with_pause(1, 0, &mut message, Some(1000), &mut || false);
    };
    let mut b = Bench::new();
    (0..WQES).for_each(|i| {
        b.map(i);
        b.post();
    });
    b.merge(1).unwrap();
    arrive(&b.rig, &b.d);
    let all = b.rq_cq.drain();
    assert_eq!(
        all.iter().map(|c| (c.get(Cqe64::lro_num_seg), c.get(Cqe64::lro_tcppsh))).collect::<Vec<_>>(),
        [(10, 1)]
    );
    assert_eq!(b.bytes(&all[0])[54..], payload);
    // Each by itself, with a flow tag and a counter of steering.
    let rig = Rig::loopback();
    let mut d = rig.pf(0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap();
    let before = rig.plane(0, 0).unwrap().vport.rx.unicast.packets.get();
    arrive(&rig, &d);
    let got = d.receive();
    assert_eq!(got.len(), 10);
    assert!(got.iter().all(|r| frames::checksums_hold(&r.bytes)));
    let ids: Vec<u16> = got.iter().map(|r| u16::from_be_bytes([r.bytes[18], r.bytes[19]])).collect();
    assert_eq!(ids, (7..17).collect::<Vec<u16>>(), "identification goes up");
    assert!(got[..9].iter().all(|r| r.bytes[47] == 0x10) && got[9].bytes[47] == 0x18, "PSH in the last one");
    assert_eq!(got.iter().flat_map(|r| r.bytes[54..].to_vec()).collect::<Vec<u8>>(), payload);
    let after = rig.plane(0, 0).unwrap().vport.rx.unicast.packets.get();
    assert_eq!(after - before, 10, "each is counted");
}

/// Where a large frame comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Wire,
    Queue,
}

/// What a large frame leaves behind: completions without their times, bytes, and what was
/// counted. With `watched` every segment goes the long way.
fn left_by(by: By, payload: &[u8], mss: usize, flags: u8, watched: bool) -> (Vec<(Vec<u8>, Vec<u8>)>, [u64; 4]) {
    let mut b = Bench::new();
    (0..WQES).for_each(|i| {
        b.map(i);
        b.post();
    });
    b.merge(1).unwrap();
    let arrive = |b: &mut Bench, seq, payload: &[u8], mss: usize, flags| {
        let mut message = frames::Flow4::new(b.d.mac, [2, 0, 0, 0, 0, 9]).tcp(seq, payload);
        message[47] = flags;
        match by {
            By::Wire => b.rig.nic.receive_with_pause(1, 0, &mut message, Some(mss), &mut || false),
            By::Queue => b.d.send_lso(0, &message[..54], payload, mss as u16),
        }
        b.rig.run();
    };
    // Its flow is known then.
    arrive(&mut b, 0, &[1; 500], 100, 0x18);
    b.rq_cq.drain();
    if watched {
        b.rig.nic.explainer.start("", u32::MAX, std::sync::Arc::new(|_| ()));
    }
    arrive(&mut b, 0xffff_f000, payload, mss, flags);
    arrive(&mut b, 0xffff_f000u32.wrapping_add(payload.len() as u32), &[2; 300], 100, 0x18);
    let told = |c: &Cqe| {
        let mut bytes = c.0.to_vec();
        ViewMut::<Cqe64>::new(&mut bytes).set64(Cqe64::timestamp, 0);
        bytes
    };
    let all = b.rq_cq.drain();
    let all = all.iter().map(|c| (told(c), if c.get(Cqe64::filler) == 0 { b.bytes(c) } else { vec![] })).collect();
    let rx = &b.rig.plane(0, 0).unwrap().vport.rx;
    (all, [&rx.unicast.packets, &rx.unicast.octets, &rx.errors.packets, &rx.errors.octets].map(|c| c.get()))
}

#[test]
fn segments_taken_together_arrive_as_each_alone() {
    let mut joined = 0;
    for (i, mss) in [1460, 1448, 999, 536, 61, 2000, 100].into_iter().cycle().enumerate().take(42) {
        // Up to more than there are buffers for.
        let payload = frames::pattern(i, 300 + i * 977 % 40_000);
        let flags = [0x18, 0x10, 0x11, 0x90][i % 4];
        for by in [By::Wire, By::Queue] {
            let what = || format!("{} bytes by {mss}, flags {flags:#x}, {by:?}", payload.len());
            let together = left_by(by, &payload, mss, flags, false);
            assert_eq!(together, left_by(by, &payload, mss, flags, true), "{}", what());
            joined += together.0.len();
        }
    }
    assert!(joined > 84);
}
