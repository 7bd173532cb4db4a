//! A front end of vhost-user in a process of its own, killed in the middle of its session.
//!
//! The process is this test's program, which finds the socket in its environment.

use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::process::Process;
use super::{peer, port, switch, until};

/// Names the socket to the process that is to be killed.
const SOCKET: &str = "SFNIC_TEST_VHOST_SOCKET";
const LENGTH: u64 = 0x1_0000;
const USER: u64 = 0x7000_0000_0000;

#[test]
fn front_end() {
    // A test only so that the program has it.
    let Some(socket) = std::env::var_os(SOCKET) else { return };
    let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, LENGTH).unwrap();
    rustix::fs::fcntl_add_seals(&fd, rustix::fs::SealFlags::SHRINK).unwrap();
    let mut front = Frontend::connect(socket, 16).unwrap();
    front.set_owner().unwrap();
    let features = front.get_features().unwrap();
    front.set_features(features).unwrap();
    let offered = front.get_protocol_features().unwrap();
    front.set_protocol_features(offered & VhostUserProtocolFeatures::MQ).unwrap();
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0,
        memory_size: LENGTH,
        userspace_addr: USER,
        mmap_offset: 0,
        mmap_handle: fd.as_raw_fd(),
    };
    front.set_mem_table(&[region]).unwrap();
    let events: Vec<EventFd> = (0..4).map(|_| EventFd::new(libc::EFD_NONBLOCK).unwrap()).collect();
    for n in 0..2 {
        let start = USER + 0x4000 * n as u64;
        front.set_vring_num(n, 64).unwrap();
        let config = VringConfigData {
            queue_max_size: 64,
            queue_size: 64,
            flags: 0,
            desc_table_addr: start,
            avail_ring_addr: start + 0x1000,
            used_ring_addr: start + 0x2000,
            log_addr: None,
        };
        front.set_vring_addr(n, &config).unwrap();
        front.set_vring_base(n, 0).unwrap();
        front.set_vring_call(n, &events[n]).unwrap();
        front.set_vring_kick(n, &events[n + 2]).unwrap();
        front.set_vring_enable(n, true).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// Kills it however the test ends.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_virtio_device_is_killed_and_nothing_of_it_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let config = switch(&[format!("vhost-user:{}", at("v")), format!("stream:{}", at("s"))]);
    let device = Process::start(dir.path(), "device", &config);
    let _sender = peer(dir.path(), "sender", format!("stream:{},client", at("s")), 1);
    until("the sender is there", || port(&device, 2)["up"] == true);
    let mut before = None;
    for life in 0..5 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "vhost::front_end", "--nocapture"]).env(SOCKET, at("v"));
        let victim = Victim(command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap());
        until("link up", || port(&device, 1)["up"] == true);
        // It offers no buffers: what is for it waits, and then is lost.
        let lost = port(&device, 1)["lost_frames"].as_u64().unwrap();
        until("its frames are lost", || port(&device, 1)["lost_frames"].as_u64().unwrap() > lost + 100);
        drop(victim);
        until("link down", || port(&device, 1)["up"] == false);
        let came = port(&device, 2)["rx_frames"].as_u64().unwrap();
        until("the others go on", || port(&device, 2)["rx_frames"].as_u64().unwrap() > came + 200);
        match &before {
            None => before = Some(device.usage()),
            Some(before) => device.uses_no_more(before, &format!("life {life}")),
        }
    }
    device.end();
}
