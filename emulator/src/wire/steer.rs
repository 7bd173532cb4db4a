//! Which queue of an interface a frame belongs to: all frames of a flow, both ways, to one.
//!
//! For frames to us the kernel decides. By itself it sends a flow to the queue by which its
//! answers came last and forgets that after three seconds of silence, so that a flow may
//! change queues while frames of it still wait in the former one. A program of ours
//! (`TUNSETSTEERINGEBPF`) makes it a matter of the headers alone, the same as [`flow`].
//!
//! Facts are from the kernel's `include/uapi/linux/bpf.h`, `net/core/filter.c` and
//! `drivers/net/tun.c`, which takes the result modulo the number of queues.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const ETHERNET: u8 = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Offset and more-fragments flag of IPv4.
const FRAGMENT: u16 = 0x3fff;
const IPV6_HEADER: u8 = 40;
/// Spreads numbers that follow each other.
const MIX: u32 = 0x9e37_79b1;

/// A number that all frames of a flow have, in both directions: of addresses, and of ports
/// where TCP or UDP is not in fragments. What is not IP, or cut short, has 0.
pub(super) fn flow(frame: &[u8]) -> u16 {
    of_headers(frame).unwrap_or(0)
}

fn of_headers(frame: &[u8]) -> Option<u16> {
    let byte = |at: usize| frame.get(at).copied();
    let half = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    let word = |at: usize| Some(u32::from(half(at)?) << 16 | u32::from(half(at + 2)?));
    let mut l3 = usize::from(ETHERNET);
    for _ in 0..2 {
        if TAGS.contains(&half(l3 - 2)?) {
            l3 += 4;
        }
    }
    let (mut sum, protocol, l4) = match half(l3 - 2)? {
        IPV4 => {
            let sum = word(l3 + 12)?.wrapping_add(word(l3 + 16)?);
            let whole = half(l3 + 6)? & FRAGMENT == 0;
            let protocol = if whole { byte(l3 + 9)? } else { 0 };
            (sum, protocol, l3 + 4 * usize::from(byte(l3)? & 0xf))
        }
        IPV6 => {
            let words = (l3 + 8..l3 + usize::from(IPV6_HEADER)).step_by(4);
            let sum = words.map(word).try_fold(0u32, |sum, w| Some(sum.wrapping_add(w?)))?;
            (sum, byte(l3 + 6)?, l3 + usize::from(IPV6_HEADER))
        }
        _ => return None,
    };
    sum = sum.wrapping_mul(MIX);
    if matches!(protocol, TCP | UDP) {
        sum = sum.wrapping_add(half(l4)?.into()).wrapping_add(half(l4 + 2)?.into());
    }
    sum = (sum ^ sum >> 15).wrapping_mul(MIX);
    Some((sum >> 16) as u16)
}

/// Has the kernel choose queues as [`flow`] does.
///
/// # Errors
/// The kernel takes no such program, or not from us.
#[allow(unsafe_code)]
pub(super) fn steer(file: &File) -> io::Result<()> {
    let program = load(&program())?;
    let fd: RawFd = program.as_raw_fd();
    // SAFETY: the descriptor is open as `file` is borrowed; the request reads an integer,
    // and the kernel keeps the program itself.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETSTEERINGEBPF, &raw const fd) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `union bpf_attr` as `BPF_PROG_LOAD` reads it, up to what is needed.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
}

#[allow(unsafe_code)]
fn load(program: &[Op]) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const SOCKET_FILTER: u32 = 1;
    let license = c"MIT OR Apache-2.0";
    let attr = Load {
        program_type: SOCKET_FILTER,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
    };
    // SAFETY: the structure and the two areas that it points to live until the call returns;
    // instructions have the layout of `struct bpf_insn`, and there are `count` of them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attr, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `struct bpf_insn`: operation, registers (destination in the low half), where a jump goes
/// to from the next instruction, a number.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Op {
    code: u8,
    registers: u8,
    jump: i16,
    number: i32,
}

/// What a load answers.
const R0: u8 = 0;
/// The context at the start; later whatever a load leaves there.
const R1: u8 = 1;
/// Where loads find the context.
const CONTEXT: u8 = 6;
const SUM: u8 = 7;
const PROTOCOL: u8 = 8;
/// Where the header is that is looked at.
const AT: u8 = 9;

const BYTE: u8 = 0x50;
const HALF: u8 = 0x48;
const WORD: u8 = 0x40;

const fn op(code: u8, to: u8, from: u8, jump: i16, number: u32) -> Op {
    Op { code, registers: from << 4 | to, jump, number: number as i32 }
}

/// `R0 = ` a number of the frame, in the host's byte order, so far behind `AT`; one that is
/// beyond the frame's end ends the program with 0.
const fn get(size: u8, offset: i32) -> Op {
    op(size, R0, AT, 0, offset as u32)
}

const fn copy(to: u8, from: u8) -> Op {
    op(0xbf, to, from, 0, 0)
}

const fn set(to: u8, number: u32) -> Op {
    op(0xb7, to, 0, 0, number)
}

// Of 32 bits.
const fn add(to: u8, from: u8) -> Op {
    op(0x0c, to, from, 0, 0)
}

const fn mix(to: u8) -> Op {
    op(0x24, to, 0, 0, MIX)
}

const fn shift_right(to: u8, bits: u32) -> Op {
    op(0x74, to, 0, 0, bits)
}

const fn jump_if(r: u8, equals: u32, over: usize) -> Op {
    op(0x15, r, 0, over as i16, equals)
}

const fn jump_unless(r: u8, equals: u32, over: usize) -> Op {
    op(0x55, r, 0, over as i16, equals)
}

const fn skip(over: usize) -> Op {
    op(0x05, 0, 0, over as i16, 0)
}

/// [`flow`] for the kernel.
fn program() -> Vec<Op> {
    let advance = |by: u8| op(0x07, AT, 0, 0, by.into());
    let tag = [jump_if(R0, TAGS[0].into(), 1), jump_unless(R0, TAGS[1].into(), 2), advance(4), get(HALF, -2)];
    let end = op(0x95, 0, 0, 0, 0);

    let finish = [
        copy(R0, SUM),
        shift_right(R0, 15),
        op(0xac, R0, SUM, 0, 0), // exclusive or
        mix(R0),
        shift_right(R0, 16),
        end,
    ];
    let ports = [get(HALF, 0), add(SUM, R0), get(HALF, 2), add(SUM, R0)];
    // Jumps over what is between here and `finish`.
    let l4 = [jump_if(PROTOCOL, TCP.into(), 1), jump_unless(PROTOCOL, UDP.into(), ports.len())];

    let v4_ports = [
        get(BYTE, 9),
        copy(PROTOCOL, R0),
        get(BYTE, 0),
        op(0x54, R0, 0, 0, 0xf), // and
        op(0x64, R0, 0, 0, 2),   // shift left
        op(0x0f, AT, R0, 0, 0),
    ];
    let whole = op(0x45, R0, 0, (v4_ports.len() + l4.len() + ports.len()) as i16, FRAGMENT.into()); // any bit
    let v4 =
        [&[get(WORD, 12), copy(SUM, R0), get(WORD, 16), add(SUM, R0), mix(SUM), get(HALF, 6), whole][..], &v4_ports]
            .concat();

    let mut v6 = vec![set(SUM, 0)];
    v6.extend((8..i32::from(IPV6_HEADER)).step_by(4).flat_map(|at| [get(WORD, at), add(SUM, R0)]));
    v6.extend([mix(SUM), get(BYTE, 6), copy(PROTOCOL, R0), advance(IPV6_HEADER), skip(v4.len())]);

    let neither = [set(R0, 0), end];
    let kind = [jump_if(R0, IPV4.into(), 1 + neither.len() + v6.len()), jump_if(R0, IPV6.into(), neither.len())];
    let start = [copy(CONTEXT, R1), set(AT, ETHERNET.into()), get(HALF, -2)];
    [&start[..], &tag, &tag, &kind, &neither, &v6, &v4, &l4, &ports, &finish].concat()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A frame of a flow; one of the other direction has its ends exchanged.
    pub(in crate::wire) fn frame(v6: bool, tags: usize, protocol: u8, ends: [u32; 2], ports: [u16; 2]) -> Vec<u8> {
        let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        (0..tags).for_each(|n| f.extend([0x81, 0, 0, 5 + n as u8]));
        let payload = 20u16;
        if v6 {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            f.extend(payload.to_be_bytes());
            f.extend([protocol, 64]);
            for end in ends {
                f.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                f.extend(end.to_be_bytes());
            }
        } else {
            f.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
            ends.iter().for_each(|end| f.extend(end.to_be_bytes()));
        }
        ports.iter().for_each(|port| f.extend(port.to_be_bytes()));
        f.extend([0; 16]);
        f
    }

    #[test]
    fn both_ways_of_a_flow_have_one_number_and_flows_are_spread() {
        for (v6, tags, protocol) in [(false, 0, TCP), (false, 2, UDP), (true, 0, UDP), (true, 1, TCP)] {
            let mut at = [0; 4];
            for n in 0..400u16 {
                let (ends, ports) = ([0x0a00_0001, 0x0a00_0002], [40_000 + n, 5201]);
                let there = flow(&frame(v6, tags, protocol, ends, ports));
                let back = flow(&frame(v6, tags, protocol, [ends[1], ends[0]], [ports[1], ports[0]]));
                assert_eq!(there, back);
                at[usize::from(there % 4)] += 1;
            }
            assert!(at.iter().all(|n| (60..140).contains(n)), "{at:?}");
        }
        let hosts: std::collections::BTreeSet<u16> =
            (0..64).map(|n| flow(&frame(false, 0, 1, [0x0a00_0001, 0x0a00_0100 + n], [8, 0])) % 2).collect();
        assert_eq!(hosts.len(), 2);
    }

    #[test]
    fn fragments_go_by_addresses_and_nonsense_is_zero() {
        let whole = frame(false, 0, UDP, [1, 2], [3, 4]);
        let piece = |at: usize, v: u8, mut f: Vec<u8>| {
            f[at] = v;
            f
        };
        let first = piece(20, 0x20, whole.clone());
        let second = piece(21, 2, piece(34, 0xee, whole.clone()));
        assert_eq!(flow(&first), flow(&second));
        assert_ne!(flow(&first), flow(&whole));
        for len in 0..whole.len() {
            let cut = flow(&whole[..len]);
            assert!(cut == 0 || (len >= 38 && cut == flow(&whole)), "{len}");
        }
        assert_eq!(flow(&[0xff; 60]), 0);
        assert_eq!(flow(&piece(12, 0x88, whole)), 0);
    }
}
