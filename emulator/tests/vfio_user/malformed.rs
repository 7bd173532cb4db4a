//! What a broken or hostile client may send, and what it gets.

use std::os::fd::{AsFd, OwnedFd};

use sfnic_emulator::vfio_user::{Command, MAX_MESSAGE};

use crate::client::*;
use crate::mock::*;

/// What must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// A reply with this errno, and the connection goes on.
    Error(i32),
    /// The server hangs up.
    HangUp,
    /// A reply with this errno, then the server hangs up.
    ErrorAndHangUp(i32),
    /// Nothing, and the connection goes on.
    Silence,
}
use Then::*;

/// One thing to send: bytes and descriptors.
pub(crate) struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    then: Then,
}

pub(crate) fn case(name: &'static str, bytes: Vec<u8>, then: Then) -> Case {
    Case { name, bytes, fds: Vec::new(), then }
}

pub(crate) fn command(name: &'static str, command: Command, payload: Vec<u8>, then: Then) -> Case {
    case(name, message(1, command as u16, 0, &payload), then)
}

pub(crate) fn with_fds(mut case: Case, fds: Vec<OwnedFd>) -> Case {
    case.fds = fds;
    case
}

pub(crate) fn events(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| event()).collect()
}

pub(crate) fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").expect("null").into()
}

/// Runs each case on a connection of its own, and checks that it goes on as
/// it should, that the next client is served, and that nothing is left.
pub(crate) fn run(cases: impl FnOnce() -> Vec<Case>, shake_hands: bool) {
    let bench = Bench::new();
    bench.still_serves();
    let start = open_fds();
    // Made only now: their descriptors must not be seen by other tests.
    let cases = cases();
    let count = cases.len();
    let peak = peak_memory();
    for Case { name, bytes, fds, then } in cases {
        let mut client = if shake_hands { bench.attach() } else { bench.connect() };
        let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        client.send_raw(&bytes, &borrowed);
        if let Error(errno) | ErrorAndHangUp(errno) = then {
            let reply = client.receive().unwrap_or_else(|| panic!("{name}: no reply"));
            assert_eq!(reply.errno, errno, "{name}");
        }
        match then {
            HangUp | ErrorAndHangUp(_) => client.expect_hangup(),
            Error(_) | Silence if shake_hands => {
                let info = client.request(Command::DeviceGetInfo, &words(&[16, 0, 0, 0]));
                assert!(info.is_ok(), "{name}: out of sync");
            }
            Error(_) | Silence => {
                let hello = client.request(Command::Version, &version(0, 0, b""));
                assert!(hello.is_ok(), "{name}: out of sync");
            }
        }
        drop(client);
        bench.still_serves();
    }
    println!("{count} cases");
    eventually("all descriptors are closed", || open_fds() <= start);
    let grown = peak_memory().saturating_sub(peak);
    assert!(grown < 32 << 10, "{grown} KiB more memory");
}

#[test]
fn streams_that_cannot_be_cut_into_messages_are_dropped() {
    let raw = |size| raw_message(1, 4, size, 0, &words(&[16, 0, 0, 0]));
    run(
        || {
            vec![
                case("size 0", raw(0), HangUp),
                case("size 15", raw(15), HangUp),
                case("size one too many", raw(MAX_MESSAGE as u32 + 1), HangUp),
                case("size 2^31", raw(1 << 31), HangUp),
                case("size 2^32-1", raw(u32::MAX), HangUp),
                case("all ones", vec![0xff; 64], HangUp),
                with_fds(case("descriptors on garbage", vec![0xff; 64], HangUp), events(5)),
            ]
        },
        true,
    );
}

#[test]
fn bad_handshakes_are_refused() {
    let hello = |name, data: &[u8], then| command(name, Command::Version, version(0, 0, data), then);
    let nested = [&b"{\"capabilities\":"[..], &[b'['; 10_000], b"\0"].concat();
    run(
        || {
            vec![
                case("no payload", message(1, 1, 0, &[]), Error(libc::EINVAL)),
                case("half a version", message(1, 1, 0, &[0, 0]), Error(libc::EINVAL)),
                case("three bytes", message(1, 1, 0, &[0, 0, 0]), Error(libc::EINVAL)),
                hello("no NUL", b"{}", Error(libc::EINVAL)),
                hello("two NULs", b"{}\0\0", Error(libc::EINVAL)),
                hello("only NUL", b"\0", Error(libc::EINVAL)),
                hello("not UTF-8", b"{\"a\":\"\xff\xfe\"}\0", Error(libc::EINVAL)),
                hello("not JSON", b"capabilities\0", Error(libc::EINVAL)),
                hello("unterminated JSON", b"{\"capabilities\":{\0", Error(libc::EINVAL)),
                hello("a list", b"[]\0", Error(libc::EINVAL)),
                hello("capabilities of the wrong type", b"{\"capabilities\":5}\0", Error(libc::EINVAL)),
                hello("a string for a number", b"{\"capabilities\":{\"max_msg_fds\":\"8\"}}\0", Error(libc::EINVAL)),
                hello("a negative number", b"{\"capabilities\":{\"max_data_xfer_size\":-1}}\0", Error(libc::EINVAL)),
                hello("deep nesting", &nested, Error(libc::EINVAL)),
                hello("64 KiB of it", &[b' '; 1 << 16], Error(libc::EINVAL)),
                command("major 1", Command::Version, version(1, 0, b"{}\0"), ErrorAndHangUp(libc::ENOTSUP)),
                command("major 65535", Command::Version, version(u16::MAX, 1, b""), ErrorAndHangUp(libc::ENOTSUP)),
                with_fds(hello("a descriptor", b"{}\0", Error(libc::EINVAL)), events(1)),
                command("read first", Command::RegionRead, region(0, 0, 4, &[]), Error(libc::EPROTO)),
                command("reset first", Command::DeviceReset, vec![], Error(libc::EPROTO)),
                with_fds(
                    command("memory first", Command::DmaMap, dma_map(3, 0, 0, 0x1000), Error(libc::EPROTO)),
                    vec![memory(0x1000)],
                ),
                case("posted write first", message(1, 10, NO_REPLY, &region(0, 0, 1, &[1])), Silence),
            ]
        },
        false,
    );
}

#[test]
fn bad_headers_and_commands_are_refused() {
    let info = words(&[16, 0, 0, 0]);
    let flagged = |name, flags, then| case(name, message(1, 4, flags, &info), then);
    let unknown = |name, number| case(name, message(1, number, 0, &[1; 24]), Error(libc::ENOTSUP));
    run(
        || {
            vec![
                flagged("message type 2", 2, Error(libc::EINVAL)),
                flagged("message type 15", 15, Error(libc::EINVAL)),
                flagged("error flag", 0x20, Error(libc::EINVAL)),
                flagged("unknown flags", 0x8000_0000, Error(libc::EINVAL)),
                flagged("unknown flags, no reply", 0x8000_0010, Silence),
                flagged("a reply to nothing", 1, Silence),
                flagged("a failed reply to nothing", 0x21, Silence),
                with_fds(flagged("a reply with descriptors", 1, Silence), events(3)),
                case("a DMA_READ reply", message(9, 11, 1, &region(0, 0, 0, &[0; 64])), Silence),
                unknown("command 0", 0),
                unknown("command 19", 19),
                unknown("command 65535", u16::MAX),
                with_fds(unknown("unknown with descriptors", 77), events(2)),
                unknown("dirty pages", 14),
                unknown("DMA_READ to us", 11),
                unknown("DMA_WRITE to us", 12),
                unknown("feature", 16),
                unknown("migration read", 17),
                unknown("migration write", 18),
                unknown("io fds", 6),
                command("second VERSION", Command::Version, version(0, 0, b""), Error(libc::EPROTO)),
                command("second VERSION, major 1", Command::Version, version(1, 0, b""), Error(libc::EPROTO)),
                command("info: no payload", Command::DeviceGetInfo, vec![], Error(libc::EINVAL)),
                command("info: too long", Command::DeviceGetInfo, vec![16; 20], Error(libc::EINVAL)),
                command("info: argsz", Command::DeviceGetInfo, words(&[15, 0, 0, 0]), Error(libc::EINVAL)),
                command("reset: payload", Command::DeviceReset, vec![0], Error(libc::EINVAL)),
                with_fds(command("reset: descriptor", Command::DeviceReset, vec![], Error(libc::EINVAL)), events(1)),
            ]
        },
        true,
    );
}

/// Clients that stop in the middle.
#[test]
fn a_stream_may_end_anywhere() {
    let bench = Bench::new();
    bench.still_serves();
    let start = open_fds();
    let whole = message(1, Command::DmaMap as u16, 0, &dma_map(3, 0, 0, 0x1000));
    let ram = memory(0x1000);
    for cut in 1..whole.len() {
        let client = bench.attach();
        assert!(client.send_raw(&whole[..cut], &[ram.as_fd()]));
        drop(client);
    }
    bench.connect();
    bench.still_serves();
    drop(ram);
    eventually("all descriptors are closed", || open_fds() <= start);
}

/// Announcing a large message costs us one large message at most, and
/// scattering descriptors over it ends the connection.
#[test]
fn a_message_that_never_ends_is_bounded() {
    let bench = Bench::new();
    bench.still_serves();
    let start = open_fds();
    let peak = peak_memory();
    let client = bench.attach();
    let header = raw_message(1, Command::RegionWrite as u16, MAX_MESSAGE as u32, 0, &[]);
    assert!(client.send_raw(&header, &[]));
    let fds = events(50);
    let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    let sent = (0..20).take_while(|_| client.send_raw(&[0], &borrowed)).count();
    assert!(sent >= 5, "{sent} times");
    client.expect_hangup();
    drop((client, fds));
    bench.still_serves();
    eventually("all descriptors are closed", || open_fds() <= start);
    assert!(peak_memory().saturating_sub(peak) < 8 << 10);
}
