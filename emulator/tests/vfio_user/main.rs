//! The vfio-user server against a client that talks raw bytes.

mod client;
mod malformed;
mod mock;
mod mutation;
mod requests;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::fs::SealFlags;
use sfnic_emulator::vfio_user::{Command, Connection, Counters, DmaAccess, DmaError, Options, Server, ServerError};

use client::*;
use mock::*;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The sequence of an attach, a boot and a power-off as QEMU sends it.
#[test]
fn a_client_attaches_runs_and_leaves() {
    let bench = Bench::new();
    let device = bench.device.clone();
    let mut client = bench.connect();
    let caps = client.request(Command::Version, &version(0, 0, QEMU_CAPABILITIES)).expect("version");
    assert_eq!(caps.last(), Some(&0));
    let caps: serde_json::Value = serde_json::from_slice(&caps[4..caps.len() - 1]).expect("capabilities");
    assert_eq!(
        caps["capabilities"],
        serde_json::json!({
            "max_msg_fds": 16, "max_data_xfer_size": 1 << 20, "max_dma_maps": 24576,
            "pgsizes": 4096, "write_multiple": true,
        })
    );

    // Guest memory in two ranges of one file, ROM, and a BAR without a file.
    let ram = memory(0x40_0000);
    let rom = memory(0x1000);
    let map = Command::DmaMap as u16;
    client.request_with(map, &dma_map(3, 0, 0, 0xa_0000), &[&ram]).expect("low");
    client.request_with(map, &dma_map(3, 0x10_0000, 0x10_0000, 0x30_0000), &[&ram]).expect("high");
    client.request_with(map, &dma_map(1, 0, 0xf_f000, 0x1000), &[&rom]).expect("rom");
    client.request_with(map, &dma_map(3, 0, 0xfe00_0000, 0x4000), &[]).expect("bar");

    let info = client.request(Command::DeviceGetInfo, &words(&[16, 0, 0, 0])).expect("info");
    assert_eq!(info, words(&[16, 3, 9, 5]));
    let sizes: Vec<u64> = (0..9)
        .map(|index| {
            let info = client.request(Command::DeviceGetRegionInfo, &region_info(32, index));
            let info = info.expect("region info");
            assert_eq!((info.len(), word(&info, 0), word(&info, 8)), (32, 32, index));
            let size = long(&info, 16);
            assert_eq!(word(&info, 4), if size > 0 { 3 } else { 0 });
            size
        })
        .collect();
    assert_eq!(sizes, [BAR0_SIZE, 0, BAR2_SIZE, 0, 0, 0, 0, 4096, 0]);
    let irqs: Vec<_> = (0..5)
        .map(|index| {
            let request = words(&[16, 0, index, 0]);
            let info = client.request(Command::DeviceGetIrqInfo, &request).expect("irq info");
            (word(&info, 4) & 9, word(&info, 12))
        })
        .collect();
    // Eventfds everywhere, no NORESIZE, vectors for MSI-X, one error interrupt.
    assert_eq!(irqs, [(1, 0), (1, 0), (1, u32::from(VECTORS)), (1, 1), (1, 0)]);

    assert_eq!(client.read(7, 0, 4096).expect("config")[..4], [0xb3, 0x15, 0x1d, 0x10]);
    client.request(Command::DeviceReset, &[]).expect("reset");
    assert_eq!(client.read(0, 0x1fc, 4), Ok(vec![0xfc, 0xfd, 0xfe, 0xff]));
    client.post(0, 0x18, &[0, 0, 0, 1]);
    let batch = multi(2, &[(0x800, 0, 8, [7; 8]), (0x10, 2, 4, [9; 8]), (u64::MAX, 99, 99, [0; 8])]);
    let written = client.request(Command::RegionWriteMulti, &batch).expect("multi");
    assert_eq!(written, 2u64.to_ne_bytes());
    assert_eq!(client.request(Command::RegionWrite, &region(4, 7, 2, &[6, 0])), Ok(region(4, 7, 2, &[])));

    let file = std::fs::File::from(ram.try_clone().expect("dup"));
    use std::os::unix::fs::FileExt;
    file.write_all_at(b"descriptor", 0x10_0010).expect("guest writes");
    let dma = device.memory();
    let mut seen = [0; 10];
    dma.read(0x10_0010, &mut seen).expect("mapped");
    assert_eq!(&seen, b"descriptor");
    dma.write(0x9_fff8, b"complete").expect("mapped");
    file.read_exact_at(&mut seen[..8], 0x9_fff8).expect("guest reads");
    assert_eq!(&seen[..8], b"complete");
    assert_eq!(dma.write(0x9_fff9, b"complete"), Err(DmaError::Unmapped(0xa_0000)));
    assert_eq!(dma.write(0xf_f000, b"x"), Err(DmaError::Denied(0xf_f000)));
    dma.read(0xf_f000, &mut seen).expect("rom");
    dma.read(0xf_fffc, &mut seen).expect("rom and what follows");
    assert_eq!(dma.read(0xfe00_0000, &mut seen), Err(DmaError::Denied(0xfe00_0000)));
    let access: Vec<_> = dma.regions().iter().map(|r| r.access()).collect();
    use DmaAccess::*;
    assert_eq!(access, [ReadWrite, ReadOnly, ReadWrite, Inaccessible]);
    drop(dma);

    let unmap = dma_unmap(0, 0, 0xa_0000);
    assert_eq!(client.request(Command::DmaUnmap, &unmap), Ok(unmap.clone()));
    assert_eq!(device.memory().regions().len(), 3);
    client.request(Command::DmaUnmap, &dma_unmap(2, 0, 0)).expect("unmap all");
    assert!(device.memory().regions().is_empty());

    let counters = bench.server.counters();
    assert_eq!(counters.rejected_total(), 0);
    assert_eq!(counters.command(Command::DmaMap), 4);
    assert_eq!(counters.stale_snapshots, 0);
    assert!(device.idles.load(SeqCst) > 0);
    drop(client);
    eventually("detach", || device.events.lock().expect("events").contains(&Event::Detached));
    use Event::*;
    eventually("memory is given back", || device.events.lock().expect("events").last() == Some(&Dma(0)));
    assert_eq!(
        device.take_events(),
        [
            Attached,
            Dma(1),
            Dma(2),
            Dma(3),
            Dma(4),
            Reset,
            BarWrite(0, 0x18, vec![0, 0, 0, 1]),
            BarWrite(0, 0x800, vec![7; 8]),
            BarWrite(2, 0x10, vec![9; 4]),
            ConfigWrite(4, vec![6, 0]),
            Dma(3),
            Dma(0),
            Detached,
            Dma(0),
        ]
    );
}

#[test]
fn interrupts_are_armed_one_at_a_time_rearmed_and_disarmed() {
    let bench = Bench::new();
    let mut client = bench.attach();
    let (first, second) = (event(), event());
    let set = Command::DeviceSetIrqs as u16;
    // What QEMU sends: no descriptor for a start, then vector by vector.
    client.request_with(set, &set_irqs(0x24, 2, 0, 1, &[]), &[]).expect("enable");
    client.request_with(set, &set_irqs(0x24, 2, 3, 1, &[]), &[&first]).expect("arm");
    bench.device.raise(3);
    bench.device.raise(2);
    bench.device.raise(VECTORS);
    assert_eq!(signals(&first), 1);
    client.request_with(set, &set_irqs(0x24, 2, 3, 1, &[]), &[&second]).expect("re-arm");
    bench.device.raise(3);
    assert_eq!((signals(&first), signals(&second)), (0, 1));
    client.request_with(set, &set_irqs(0x24, 2, 0, 2, &[]), &[&first, &first]).expect("two");
    client.request_with(set, &set_irqs(0x21, 2, 0, 4, &[]), &[]).expect("trigger");
    assert_eq!((signals(&first), signals(&second)), (2, 1));
    client.request_with(set, &set_irqs(0x22, 2, 0, 4, &[0, 1, 1, 0]), &[]).expect("trigger some");
    assert_eq!((signals(&first), signals(&second)), (1, 0));
    client.request_with(set, &set_irqs(0x21, 2, 0, 0, &[]), &[]).expect("disable");
    bench.device.raise(3);
    assert_eq!(signals(&second), 0);
    let counters = bench.server.counters();
    assert_eq!((counters.irqs_raised, counters.irqs_unknown), (6, 1));
    assert_eq!(counters.irqs_failed, 0);
}

#[test]
fn a_part_of_a_bar_can_be_mapped() {
    let bench = Bench::new();
    let page = Arc::new(memory(0x2_0000));
    *bench.device.mapping.lock().expect("mapping") = Some(page);
    let mut client = bench.attach();
    let get = Command::DeviceGetRegionInfo as u16;
    let short = client.request_with(get, &region_info(32, 2), &[]).expect("short");
    assert_eq!((short.payload.len(), word(&short.payload, 0)), (32, 80));
    assert!(short.fds.is_empty());
    let full = client.request_with(get, &region_info(80, 2), &[]).expect("full");
    let info = full.payload;
    assert_eq!((info.len(), word(&info, 4), word(&info, 12)), (80, 15, 32));
    assert_eq!((long(&info, 16), long(&info, 24)), (BAR2_SIZE, 0x10000));
    assert_eq!(info[32..48], [&[1, 0, 1, 0][..], &words(&[0, 2, 0])].concat());
    let areas: Vec<_> = (0..4).map(|i| long(&info, 48 + 8 * i)).collect();
    assert_eq!(areas, [0x1000, 0x1000, 0x3000, 0x1000]);
    assert_eq!(full.fds.len(), 1);
    let other = client.request_with(get, &region_info(80, 0), &[]).expect("BAR 0");
    assert_eq!((other.payload.len(), other.fds.len()), (32, 0));
}

#[test]
fn clients_come_and_go_and_leave_nothing_behind() {
    let bench = Bench::new();
    bench.still_serves();
    eventually("detach", || bench.device.events.lock().expect("events").contains(&Event::Detached));
    let before = open_fds();
    let ram = memory(0x10_0000);
    for round in 0..20 {
        let mut client = bench.attach();
        let map = dma_map(3, 0, 0x1000 * round, 0x10_0000);
        client.request_with(Command::DmaMap as u16, &map, &[&ram]).expect("memory");
        let vector = event();
        let arm = set_irqs(0x24, 2, 0, 1, &[]);
        client.request_with(Command::DeviceSetIrqs as u16, &arm, &[&vector]).expect("vector");
    }
    drop(ram);
    eventually("all descriptors are closed", || open_fds() == before);
    assert_eq!(bench.server.clients(), 21);
}

#[test]
fn a_second_client_waits_for_the_first_to_leave() {
    let bench = Bench::new();
    let first = bench.attach();
    let second = bench.connect();
    assert!(second.send(Command::Version as u16, 0, &version(0, 0, b""), &[]));
    second.stream.set_nonblocking(true).expect("nonblocking");
    std::thread::sleep(Duration::from_millis(50));
    let mut byte = [0];
    let early = std::io::Read::read(&mut &second.stream, &mut byte);
    assert!(early.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    second.stream.set_nonblocking(false).expect("blocking");
    drop(first);
    let reply = second.receive().expect("served");
    assert_eq!(reply.errno, 0);
    // It offered no combined writes, so it is offered none.
    assert!(!String::from_utf8_lossy(&reply.payload).contains("write_multiple"));
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let bench = Bench::new();
    assert!(matches!(Server::bind(&bench.path), Err(ServerError::InUse(_))));
    bench.still_serves();
    let dir = tempfile::tempdir().expect("directory");
    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("bind"));
    assert!(stale.exists());
    let server = Server::bind(&stale).expect("replaced");
    drop(server);
    assert!(!stale.exists());
    std::fs::write(&stale, "precious").expect("file");
    assert!(matches!(Server::bind(&stale), Err(ServerError::NotASocket(_))));
    assert_eq!(std::fs::read(&stale).expect("left alone"), b"precious");
    let long = dir.path().join("x".repeat(200));
    assert!(matches!(Server::bind(&long), Err(ServerError::Bind { .. })));
}

#[test]
fn stopping_ends_a_connection_in_progress() {
    let bench = Bench::new();
    let client = bench.attach();
    bench.stop.stop();
    client.expect_hangup();
    eventually("detach", || bench.device.events.lock().expect("events").contains(&Event::Detached));
}

#[test]
fn a_file_that_could_shrink_is_sealed_before_it_is_trusted() {
    let bench = Bench::new();
    let mut client = bench.attach();
    let ram = memory_with(0x4000, SealFlags::empty());
    let map = dma_map(3, 0, 0, 0x4000);
    client.request_with(Command::DmaMap as u16, &map, &[&ram]).expect("sealed by the server");
    assert!(rustix::fs::ftruncate(&ram, 0).is_err());
    bench.device.memory().write(0x3fff, &[1]).expect("still there");
}

/// Memory of a QEMU without `share=on`: a descriptor comes, and what the
/// guest writes never shows up in it.
#[test]
fn memory_that_the_client_maps_privately_is_refused() {
    let bench = Bench::new();
    let mut client = bench.attach();
    let guest_maps = |flags| {
        let fd = memory(0x4000);
        let file = std::fs::File::from(fd.try_clone().expect("dup"));
        let mapping = vm_memory::MmapRegion::<()>::build(
            Some(vm_memory::FileOffset::new(file, 0)),
            0x4000,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
        );
        (fd, mapping.expect("mapping"))
    };
    let (private, _keep) = guest_maps(libc::MAP_PRIVATE);
    let (shared, _keep_too) = guest_maps(libc::MAP_SHARED);
    let map = Command::DmaMap as u16;
    let refused = client.request_with(map, &dma_map(3, 0, 0, 0x4000), &[&private]);
    assert_eq!(refused.err(), Some(libc::EACCES));
    client.request_with(map, &dma_map(3, 0, 0, 0x4000), &[&shared]).expect("shared");
}

#[test]
fn one_file_behind_many_ranges_costs_one_descriptor() {
    let bench = Bench::new();
    let mut client = bench.attach();
    let ram = memory(0x10_0000);
    let before = open_fds();
    for page in 0..100 {
        let map = dma_map(3, page * 0x1000, page * 0x2000, 0x1000);
        client.request_with(Command::DmaMap as u16, &map, &[&ram]).expect("page");
    }
    assert_eq!(open_fds(), before + 1);
    client.request(Command::DmaUnmap, &dma_unmap(2, 0, 0)).expect("unmap all");
    assert_eq!(open_fds(), before);
}

#[test]
fn ranges_and_files_are_bounded() {
    let _turn = take_turn();
    let device = Arc::new(Mock::default());
    let counters = Arc::new(Counters::default());
    let mut connection = Connection::new(device.clone(), &Options::default(), None, counters.clone());
    let mut sink = mutation::Replies::default();
    let hello = message(1, 1, 0, &version(0, 0, b""));
    connection.feed(&hello, vec![], &mut sink).expect("hello");
    for n in 0..70 {
        let map = message(2, 2, 0, &dma_map(3, 0, n * 0x1000, 0x1000));
        connection.feed(&map, vec![memory(0x1000)], &mut sink).expect("files");
    }
    assert_eq!(device.memory().regions().len(), 64);
    for n in 70..25_000 {
        let map = message(2, 2, 0, &dma_map(3, 0, n * 0x1000, 0x1000));
        connection.feed(&map, vec![], &mut sink).expect("ranges");
    }
    assert_eq!(device.memory().regions().len(), 24_576);
    let limits = sink.errnos.iter().filter(|&&e| e == libc::ENOSPC).count();
    assert_eq!(limits, 6 + (25_000 - 70) - (24_576 - 64));
}

#[test]
fn messages_are_understood_however_they_are_cut() {
    let bench = Bench::new();
    let ram = memory(0x4000);
    let bytes = [
        message(1, 1, 0, &version(0, 0, QEMU_CAPABILITIES)),
        message(2, 9, 0, &region(0x10, 0, 4, &[])),
        message(3, 2, 0, &dma_map(3, 0, 0, 0x4000)),
    ];
    let client = bench.connect();
    for byte in bytes[..2].concat() {
        assert!(client.send_raw(&[byte], &[]));
    }
    // A descriptor may come with any byte of its message.
    for (i, byte) in bytes[2].iter().enumerate() {
        let fds: &[_] = if i == 7 { &[ram.as_fd()] } else { &[] };
        assert!(client.send_raw(&[*byte], fds));
    }
    let ids: Vec<_> = (0..3).map(|_| client.receive().expect("reply")).map(|reply| (reply.id, reply.errno)).collect();
    assert_eq!(ids, [(1, 0), (2, 0), (3, 0)]);
    assert!(bench.device.memory().is_accessible());
}

#[test]
fn hundreds_of_messages_in_one_send_are_taken_in_bulk() {
    let bench = Bench::new();
    let client = bench.attach();
    let idles = bench.device.idles.load(SeqCst);
    let mut bytes = Vec::new();
    for i in 0..999u32 {
        let write = region(0x800, 0, 4, &i.to_ne_bytes());
        bytes.extend(message(i as u16, Command::RegionWrite as u16, NO_REPLY, &write));
    }
    bytes.extend(message(7, Command::RegionRead as u16, 0, &region(0, 0, 4, &[])));
    assert!(client.send_raw(&bytes, &[]));
    assert_eq!(client.receive().expect("reply").id, 7);
    let writes: Vec<u32> = bench
        .device
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::BarWrite(0, 0x800, data) => Some(word(&data, 0)),
            _ => None,
        })
        .collect();
    assert_eq!(writes, (0..999).collect::<Vec<_>>());
    let batches = bench.device.idles.load(SeqCst) - idles;
    assert!(batches < 100, "{batches} batches");
}

#[test]
fn a_descriptor_goes_to_its_own_message_in_a_crowd() {
    let bench = Bench::new();
    let mut client = bench.attach();
    let files: Vec<OwnedFd> = (1..=3).map(|n| memory(n * 0x1000)).collect();
    // Nothing is read until all is sent, if the server is slow; either way
    // each range must get the file of its own size.
    let map = Command::DmaMap as u16;
    for n in 0..3u64 {
        client.post(0, 0x18, &[1, 2, 3, 4]);
        assert!(client.send(map, NO_REPLY, &dma_map(3, 0, 0xf000_0000 + n * 0x10000, 0x1000), &[]));
        let (size, fd) = ((n + 1) * 0x1000, &files[n as usize]);
        assert!(client.send(map, NO_REPLY, &dma_map(3, 0, n * 0x10000, size), &[fd.as_fd()]));
    }
    client.read(0, 0, 4).expect("in sync");
    let memory = bench.device.memory();
    let accessible: Vec<_> =
        memory.regions().iter().filter(|r| r.access() == DmaAccess::ReadWrite).map(|r| (r.start(), r.size())).collect();
    assert_eq!(accessible, [(0, 0x1000), (0x10000, 0x2000), (0x20000, 0x3000)]);
    assert_eq!(memory.regions().len(), 6);
}
