//! QEMU's command line: the part that a NIC needs in any QEMU, and the rest of a guest.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::VirtioNet;

/// Machine and memory for vfio-user devices: their server maps the guest's memory, so the
/// memory has to be shareable.
pub fn memory_args(mem: &str) -> Vec<String> {
    [
        "-machine".to_string(),
        "q35,memory-backend=mem".to_string(),
        "-m".to_string(),
        mem.to_string(),
        "-object".to_string(),
        format!("memory-backend-memfd,id=mem,size={mem},share=on"),
    ]
    .to_vec()
}

/// The devices: each slot is a root port, the sockets in it are its functions 0, 1, …
pub fn device_args(slots: &[Vec<PathBuf>]) -> Vec<String> {
    let mut args = Vec::new();
    for (index, sockets) in slots.iter().enumerate() {
        let number = index + 1;
        args.push("-device".to_string());
        args.push(format!(
            "pcie-root-port,id=nicport{number},bus=pcie.0,chassis={number},slot={number},addr={:#x}",
            0x10 + index
        ));
        for (function, socket) in sockets.iter().enumerate() {
            let mut device = serde_json::json!({
                "driver": "vfio-user-pci",
                "id": format!("nic{number}f{function}"),
                "bus": format!("nicport{number}"),
                "addr": format!("0.{function}"),
                "socket": { "type": "unix", "path": socket.to_string_lossy() },
            });
            if function == 0 && sockets.len() > 1 {
                device["multifunction"] = true.into();
            }
            args.push("-device".to_string());
            args.push(device.to_string());
        }
    }
    args
}

/// Virtio network devices on vhost-user sockets. Without `reconnect-ms` QEMU would never
/// come back to a socket that has gone.
pub fn virtio_args(devices: &[VirtioNet]) -> Vec<String> {
    let mut args = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let [a, b, c, d, e, f] = device.mac;
        let queues = u32::from(device.queues.max(1));
        let mq = if queues > 1 { format!(",mq=on,vectors={}", 2 * queues + 2) } else { String::new() };
        args.extend([
            "-chardev".to_string(),
            format!("socket,id=vhost{index},path={},reconnect-ms=100", comma(&device.socket)),
            "-netdev".to_string(),
            format!("vhost-user,id=vhost{index},chardev=vhost{index},queues={queues}"),
            "-device".to_string(),
            format!(
                "virtio-net-pci,netdev=vhost{index},mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}{mq},\
                 rx_queue_size=1024,tx_queue_size=1024,romfile=,addr={:#x}",
                // In the order in which a guest finds them.
                0x1d - devices.len().min(4) + index
            ),
        ]);
    }
    args
}

/// How a guest's streams reach the host: open sockets, by number.
#[derive(Debug, Clone, Copy)]
pub struct Streams {
    /// Lines both ways.
    pub control: i32,
    /// The job's standard output.
    pub out: i32,
    /// The job's standard error.
    pub err: i32,
    /// The kernel's log.
    pub kmsg: i32,
    /// The terminal, for a shell.
    pub tty: Option<i32>,
}

/// Everything about the guest that its command line says.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The kernel image.
    pub kernel: &'a Path,
    /// The first file system.
    pub initrd: &'a str,
    /// The root disk.
    pub root: &'a Path,
    /// The disk of modules.
    pub modules: &'a Path,
    /// The directory at `/host`.
    pub share: &'a Path,
    /// Such as `2G`.
    pub mem: &'a str,
    /// How many CPUs.
    pub cpus: u32,
    /// The vfio-user sockets.
    pub slots: &'a [Vec<PathBuf>],
    /// An IOMMU of Intel's between the devices and the memory, strict.
    pub iommu: bool,
    /// Virtio network devices.
    pub virtio: &'a [VirtioNet],
    /// Given by the user, last.
    pub extra: &'a [OsString],
}

/// What the kernel is told.
const KERNEL_ARGS: &str = "console=ttyS0 quiet loglevel=5 panic=0 nokaslr mitigations=off no_timer_check nowatchdog \
    rcupdate.rcu_expedited=1 8250.nr_uarts=1 cryptomgr.notests random.trust_cpu=on random.trust_bootloader=on log_buf_len=4M";

/// What the kernel is told besides when there is an IOMMU: to use it, for every page alone,
/// and to take a mapping away before its memory is used again.
const IOMMU_ARGS: &str = " intel_iommu=on iommu.strict=1 iommu.passthrough=0";

/// The IOMMU. A device whose model is another process has to hear of every mapping
/// (`caching-mode`); it has to exist before the devices behind it.
const IOMMU: &str = "intel-iommu,intremap=off,caching-mode=on,device-iotlb=off";

impl Machine<'_> {
    /// All options, after those of the accelerator.
    pub fn args(&self, streams: &Streams) -> Vec<OsString> {
        let mut args: Vec<OsString> = memory_args(self.mem).into_iter().map(OsString::from).collect();
        let kernel_args = format!("{KERNEL_ARGS}{}", if self.iommu { IOMMU_ARGS } else { "" });
        let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
        add(&["-smp", &self.cpus.to_string()]);
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]);
        add(&["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        add(&["-kernel", &self.kernel.to_string_lossy(), "-initrd", self.initrd, "-append", &kernel_args]);
        if self.iommu {
            add(&["-device", IOMMU]);
        }
        for (index, image) in [self.root, self.modules].into_iter().enumerate() {
            let drive = format!(
                "driver=raw,node-name=disk{index},read-only=on,file.driver=file,file.filename={},file.locking=off",
                comma(image)
            );
            add(&["-blockdev", &drive, "-device", &format!("virtio-blk-pci,drive=disk{index},addr={:#x}", 4 + index)]);
        }
        add(&["-device", "virtio-serial-pci,id=ports,max_ports=8,addr=6"]);
        if let Some(fd) = streams.tty {
            add(&[
                "-chardev",
                &format!("socket,id=tty,fd={fd}"),
                "-device",
                "virtconsole,bus=ports.0,chardev=tty,nr=0",
            ]);
        }
        let ports = [("control", streams.control), ("out", streams.out), ("err", streams.err), ("kmsg", streams.kmsg)];
        for (index, (name, fd)) in ports.into_iter().enumerate() {
            add(&["-chardev", &format!("socket,id={name},fd={fd}")]);
            add(&["-device", &format!("virtserialport,bus=ports.0,chardev={name},name=sfnic.{name},nr={}", index + 1)]);
        }
        let share = format!("local,id=host,path={},security_model=none,multidevs=remap", comma(self.share));
        add(&["-fsdev", &share, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host,addr=7"]);
        add(&["-device", "virtio-rng-pci,addr=8"]);
        for devices in [device_args(self.slots), virtio_args(self.virtio)] {
            add(&devices.iter().map(String::as_str).collect::<Vec<_>>());
        }
        args.extend(self.extra.iter().cloned());
        args
    }
}

/// QEMU's option lists separate with commas; a doubled comma is one in a value.
fn comma(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// A word as a shell reads it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Words as a line for a shell.
pub fn text<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    words.into_iter().map(|w| quote(w.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_of_a_slot_are_functions_of_one_device() {
        let args = device_args(&[vec!["/a".into(), "/b".into()], vec!["/c".into()]]);
        assert_eq!(args.iter().filter(|a| a.starts_with("pcie-root-port")).count(), 2);
        let devices: Vec<serde_json::Value> = args.iter().filter_map(|a| serde_json::from_str(a).ok()).collect();
        assert_eq!(devices.len(), 3);
        assert_eq!(devices[0]["multifunction"], true);
        assert_eq!(devices[1]["addr"], "0.1");
        assert_eq!(devices[1]["bus"], devices[0]["bus"]);
        assert_eq!(devices[2]["socket"]["path"], "/c");
        assert!(devices[2].get("multifunction").is_none());
    }

    #[test]
    fn virtio_devices_come_back_to_their_sockets() {
        let device = VirtioNet { socket: "/a,b".into(), queues: 2, mac: [2, 0, 0, 0, 0, 10] };
        let args = virtio_args(&[device]).join(" ");
        assert!(args.contains("path=/a,,b,reconnect-ms=") && args.contains("queues=2"), "{args}");
        assert!(args.contains("mac=02:00:00:00:00:0a,mq=on,vectors=6,"), "{args}");
    }

    #[test]
    fn memory_is_shared() {
        assert!(memory_args("3G").contains(&"memory-backend-memfd,id=mem,size=3G,share=on".to_string()));
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(text(["a", "b c", "it's", ""]), r"a 'b c' 'it'\''s' ''");
    }
}
