//! Well-formed messages that ask for what must not be.

use std::os::fd::OwnedFd;

use rustix::fs::SealFlags;
use sfnic_emulator::vfio_user::Command;

use crate::client::*;
use crate::malformed::{Then::Error, command, events, null, run, with_fds};
use crate::mock::*;

#[test]
fn bad_region_accesses_are_refused() {
    let read = |name, offset, index, count, errno| {
        command(name, Command::RegionRead, region(offset, index, count, &[]), Error(errno))
    };
    let write = |name, payload, errno| command(name, Command::RegionWrite, payload, Error(errno));
    let batch = |name, payload, errno| command(name, Command::RegionWriteMulti, payload, Error(errno));
    let one = (0, 0, 4, [1; 8]);
    run(
        || {
            vec![
                read("region 9", 0, 9, 4, libc::EINVAL),
                read("region 2^32-1", 0, u32::MAX, 4, libc::EINVAL),
                read("absent BAR", 0, 1, 4, libc::EINVAL),
                read("ROM", 0, 6, 4, libc::EINVAL),
                read("VGA", 0, 8, 1, libc::EINVAL),
                read("at the end", BAR2_SIZE, 2, 1, libc::EINVAL),
                read("over the end", BAR2_SIZE - 3, 2, 4, libc::EINVAL),
                read("over the end of configuration", 4093, 7, 4, libc::EINVAL),
                read("offset 2^64-1", u64::MAX, 0, 1, libc::EINVAL),
                read("offset and count overflow", u64::MAX - 3, 0, 8, libc::EINVAL),
                read("4 GiB", 0, 0, u32::MAX, libc::E2BIG),
                read("one over the limit", 0, 0, (1 << 20) + 1, libc::E2BIG),
                command("read: short", Command::RegionRead, vec![0; 15], Error(libc::EINVAL)),
                command("read: long", Command::RegionRead, vec![0; 17], Error(libc::EINVAL)),
                with_fds(read("read with a descriptor", 0, 0, 4, libc::EINVAL), events(1)),
                write("count over data", region(0, 0, 8, &[1; 4]), libc::EINVAL),
                write("count below data", region(0, 0, 2, &[1; 4]), libc::EINVAL),
                write("4 GiB in four bytes", region(0, 0, u32::MAX, &[1; 4]), libc::EINVAL),
                write("no payload", vec![], libc::EINVAL),
                write("region 9", region(0, 9, 4, &[1; 4]), libc::EINVAL),
                write("over the end", region(BAR2_SIZE - 1, 2, 4, &[1; 4]), libc::EINVAL),
                write("offset overflow", region(u64::MAX, 0, 4, &[1; 4]), libc::EINVAL),
                write("over configuration", region(4095, 7, 2, &[1; 2]), libc::EINVAL),
                batch("multi: nothing", vec![], libc::EINVAL),
                batch("multi: half a count", vec![1; 7], libc::EINVAL),
                batch("multi: 2^64-1 writes", multi(u64::MAX, &[one]), libc::EINVAL),
                batch("multi: count overflow", multi(u64::MAX / 24 + 1, &[one]), libc::EINVAL),
                batch("multi: one too many", multi(2, &[one]), libc::EINVAL),
                batch("multi: cut entry", multi(1, &[one])[..31].to_vec(), libc::EINVAL),
                batch("multi: nine bytes", multi(1, &[(0, 0, 9, [1; 8])]), libc::E2BIG),
                batch("multi: bad region", multi(2, &[one, (0, 9, 4, [1; 8])]), libc::EINVAL),
                batch("multi: bad offset", multi(2, &[one, (u64::MAX, 0, 4, [1; 8])]), libc::EINVAL),
                command("region info: argsz", Command::DeviceGetRegionInfo, region_info(31, 0), Error(libc::EINVAL)),
                command("region info: index 9", Command::DeviceGetRegionInfo, region_info(32, 9), Error(libc::EINVAL)),
            ]
        },
        true,
    );
}

#[test]
fn a_combined_write_with_one_bad_entry_does_nothing() {
    let bench = Bench::new();
    let mut client = bench.attach();
    let batch = multi(2, &[(0, 0, 4, [1; 8]), (BAR2_SIZE, 2, 1, [1; 8])]);
    assert_eq!(client.request(Command::RegionWriteMulti, &batch), Err(libc::EINVAL));
    assert_eq!(bench.device.take_events(), [Event::Attached]);
    assert_eq!(client.request(Command::RegionWriteMulti, &multi(0, &[])), Ok(vec![0; 8]));
    assert_eq!(client.read(0, 0, 0), Ok(vec![]));
    assert_eq!(bench.device.reads.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn bad_guest_memory_is_refused() {
    let map = |name, flags, offset, address, size, errno| {
        let payload = dma_map(flags, offset, address, size);
        with_fds(command(name, Command::DmaMap, payload, Error(errno)), vec![memory(0x4000)])
    };
    let file = |name, fd: OwnedFd, errno| {
        let payload = dma_map(3, 0, 0, 0x1000);
        with_fds(command(name, Command::DmaMap, payload, Error(errno)), vec![fd])
    };
    let unmap = |name, flags, address, size, errno| {
        command(name, Command::DmaUnmap, dma_unmap(flags, address, size), Error(errno))
    };
    let reopened = |write: bool| {
        use std::os::fd::AsRawFd;
        let fd = memory(0x1000);
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        std::fs::OpenOptions::new().read(!write).write(write).open(path).expect("reopen").into()
    };
    let disk = || {
        let file = tempfile::tempfile().expect("file");
        file.set_len(0x1000).expect("size");
        OwnedFd::from(file)
    };
    let socket = || std::os::unix::net::UnixStream::pair().expect("pair").0;
    let huge = 1 << 61;
    run(
        || {
            vec![
                map("address not aligned", 3, 0, 0x800, 0x1000, libc::EINVAL),
                map("size not aligned", 3, 0, 0, 0x1001, libc::EINVAL),
                map("offset not aligned", 3, 1, 0, 0x1000, libc::EINVAL),
                map("empty", 3, 0, 0, 0, libc::EINVAL),
                map("over the address space", 3, 0, u64::MAX - 0xfff, 0x2000, libc::EINVAL),
                map("all of the address space", 3, 0, 0x1000, u64::MAX - 0xfff, libc::EINVAL),
                map("no access", 0, 0, 0, 0x1000, libc::EINVAL),
                map("write only", 2, 0, 0, 0x1000, libc::EINVAL),
                map("unknown flags", 7, 0, 0, 0x1000, libc::EINVAL),
                map("longer than the file", 3, 0, 0, 0x5000, libc::EACCES),
                map("past the file", 3, 0x4000, 0, 0x1000, libc::EACCES),
                map("offset overflows", 3, u64::MAX - 0xfff, 0, 0x2000, libc::EACCES),
                command("offset without a file", Command::DmaMap, dma_map(3, 0x1000, 0, 0x1000), Error(libc::EINVAL)),
                command("map: short", Command::DmaMap, vec![32; 31], Error(libc::EINVAL)),
                command("map: argsz", Command::DmaMap, vec![0; 32], Error(libc::EINVAL)),
                with_fds(
                    command("two files", Command::DmaMap, dma_map(3, 0, 0, 0x1000), Error(libc::EINVAL)),
                    vec![memory(0x1000), memory(0x1000)],
                ),
                file("a device node", null(), libc::EACCES),
                file("an eventfd", event(), libc::EACCES),
                file("a pipe", std::io::pipe().expect("pipe").0.into(), libc::EACCES),
                file("a socket", socket().into(), libc::EACCES),
                file("a directory", std::fs::File::open("/").expect("root").into(), libc::EACCES),
                file("a file on disk", disk(), libc::EACCES),
                file("memory that cannot be sealed", memory_with(0x1000, SealFlags::SEAL), libc::EACCES),
                file("read-only memory", reopened(false), libc::EACCES),
                file("write-only memory", reopened(true), libc::EACCES),
                file("memory sealed against writes", memory_with(0x1000, SealFlags::WRITE), libc::EPERM),
                with_fds(
                    command("2 EiB", Command::DmaMap, dma_map(3, 0, 0, huge), Error(libc::ENOMEM)),
                    vec![memory(huge)],
                ),
                unmap("dirty bitmap", 1, 0x1000, 0x1000, libc::EINVAL),
                unmap("all of a range", 2, 0x1000, 0x1000, libc::EINVAL),
                command("unmap: short", Command::DmaUnmap, vec![24; 16], Error(libc::EINVAL)),
                command("unmap: argsz", Command::DmaUnmap, vec![0; 24], Error(libc::EINVAL)),
            ]
        },
        true,
    );
}

#[test]
fn guest_memory_is_mapped_once_and_unmapped_whole() {
    let bench = Bench::new();
    let mut client = bench.attach();
    let ram = memory(0x10000);
    let mut map = |address, size| {
        let payload = dma_map(3, 0, address, size);
        client.request_with(Command::DmaMap as u16, &payload, &[&ram]).map(|_| ())
    };
    assert_eq!(map(0x10000, 0x4000), Ok(()));
    for (address, size) in [(0x10000, 0x4000), (0xf000, 0x2000), (0x13000, 0x8000), (0, 0x10000)] {
        let expected = if address + size > 0x10000 { Err(libc::EEXIST) } else { Ok(()) };
        assert_eq!(map(address, size), expected, "{address:#x}+{size:#x}");
    }
    for (address, size) in [(0x10000, 0x1000), (0x11000, 0x3000), (0xf000, 0x2000), (0x8000, 0x20000)] {
        let part = client.request(Command::DmaUnmap, &dma_unmap(0, address, size));
        assert_eq!(part, Err(libc::ENOENT));
    }
    // What is not mapped need not be unmapped.
    client.request(Command::DmaUnmap, &dma_unmap(0, 0x40000, 0x1000)).expect("nothing");
    client.request(Command::DmaUnmap, &dma_unmap(0, 0, 0x20000)).expect("whole");
}

#[test]
fn bad_interrupt_setups_are_refused() {
    let set = |name, flags, index, start, count, errno| {
        command(name, Command::DeviceSetIrqs, set_irqs(flags, index, start, count, &[]), Error(errno))
    };
    let vectors = u32::from(VECTORS);
    run(
        || {
            vec![
                set("no flags", 0, 2, 0, 1, libc::EINVAL),
                set("no action", 4, 2, 0, 1, libc::EINVAL),
                set("no data", 0x20, 2, 0, 1, libc::EINVAL),
                set("two kinds of data", 0x25, 2, 0, 1, libc::EINVAL),
                set("two actions", 0x34, 2, 0, 1, libc::EINVAL),
                set("unknown flag", 0x64, 2, 0, 1, libc::EINVAL),
                set("index 5", 0x24, 5, 0, 1, libc::EINVAL),
                set("index 2^32-1", 0x24, u32::MAX, 0, 1, libc::EINVAL),
                set("MSI", 0x24, 1, 0, 1, libc::EINVAL),
                set("INTx without a pin", 0x24, 0, 0, 1, libc::EINVAL),
                set("start past the end", 0x24, 2, vectors, 1, libc::EINVAL),
                set("count past the end", 0x24, 2, 1, vectors, libc::EINVAL),
                set("start and count overflow", 0x24, 2, u32::MAX, 2, libc::EINVAL),
                set("2^32-1 triggers", 0x21, 2, 0, u32::MAX, libc::EINVAL),
                set("eventfds for none", 0x24, 2, 0, 0, libc::EINVAL),
                set("disable from 1", 0x21, 2, 1, 0, libc::EINVAL),
                set("mask MSI-X", 0x09, 2, 0, 1, libc::ENOTSUP),
                set("unmask MSI-X", 0x11, 2, 0, 1, libc::ENOTSUP),
                with_fds(set("mask by eventfd", 0x0c, 2, 0, 1, libc::ENOTSUP), events(1)),
                with_fds(set("three for four", 0x24, 2, 0, 4, libc::EINVAL), events(3)),
                with_fds(set("five for four", 0x24, 2, 0, 4, libc::EINVAL), events(5)),
                with_fds(set("seventeen", 0x24, 2, 0, 17, libc::EINVAL), events(17)),
                with_fds(set("two hundred", 0x24, 2, 0, 17, libc::EINVAL), events(200)),
                with_fds(set("with a trigger", 0x21, 2, 0, 1, libc::EINVAL), events(1)),
                with_fds(set("a device node", 0x24, 2, 0, 1, libc::EBADF), vec![null()]),
                with_fds(set("one bad of two", 0x24, 2, 0, 2, libc::EBADF), vec![event(), null()]),
                with_fds(set("guest memory", 0x24, 2, 0, 1, libc::EBADF), vec![memory(0x1000)]),
                command(
                    "flags short of count",
                    Command::DeviceSetIrqs,
                    set_irqs(0x22, 2, 0, 4, &[1; 3]),
                    Error(libc::EINVAL),
                ),
                command(
                    "flags over count",
                    Command::DeviceSetIrqs,
                    set_irqs(0x22, 2, 0, 4, &[1; 5]),
                    Error(libc::EINVAL),
                ),
                command(
                    "2^32-1 flags",
                    Command::DeviceSetIrqs,
                    set_irqs(0x22, 2, 0, u32::MAX, &[1; 4]),
                    Error(libc::EINVAL),
                ),
                command("data for none", Command::DeviceSetIrqs, set_irqs(0x21, 2, 0, 1, &[1; 4]), Error(libc::EINVAL)),
                command("short", Command::DeviceSetIrqs, vec![20; 19], Error(libc::EINVAL)),
                command("argsz", Command::DeviceSetIrqs, words(&[19, 0x21, 2, 0, 0]), Error(libc::EINVAL)),
                command("irq info: index 5", Command::DeviceGetIrqInfo, words(&[16, 0, 5, 0]), Error(libc::EINVAL)),
                command("irq info: argsz", Command::DeviceGetIrqInfo, words(&[12, 0, 2, 0]), Error(libc::EINVAL)),
            ]
        },
        true,
    );
}
