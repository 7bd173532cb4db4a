//! What the kit is made of: packages, kernel lines, symbols, modules. Data only.

/// Changes when the way something is made changes in a manner that its lists don't show.
pub(crate) const REVISION: u32 = 2;

/// The release whose packages the guest and the tools come from.
pub(crate) const BASE_SUITE: &str = "trixie";
/// The suite that has the recent QEMU and kernels.
pub(crate) const BACKPORTS_SUITE: &str = "trixie-backports";

/// QEMU with `vfio-user-pci`, when the machine's own lacks it.
pub(crate) const QEMU_PACKAGES: &[&str] = &["qemu-system-x86"];

/// Programs that make images and indexes.
pub(crate) const TOOL_PACKAGES: &[&str] = &["erofs-utils", "kmod", "zstd"];

/// The guest's programs.
pub(crate) const GUEST_PACKAGES: &[&str] = &[
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "diffutils",
    "ethtool",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "ibverbs-providers",
    "ibverbs-utils",
    "iperf3",
    "iproute2",
    "iputils-arping",
    "iputils-ping",
    "jq",
    "kmod",
    "libgcc-s1",
    "linuxptp",
    "mawk",
    "mount",
    "netbase",
    "netcat-openbsd",
    "nftables",
    "pciutils",
    "perftest",
    "procps",
    "python3",
    "rdma-core",
    "rdmacm-utils",
    "sed",
    "socat",
    "strace",
    "tar",
    "tcpdump",
    "util-linux",
];

/// Packages that the guest's programs depend on but that serve nobody in a guest which is
/// never upgraded and has no service manager.
pub(crate) const USELESS_PACKAGES: &[&str] = &[
    "adduser",
    "base-passwd",
    "debconf",
    "debianutils",
    "dpkg",
    "gcc-14-base",
    "init-system-helpers",
    "libdebconfclient0",
    "libpam-runtime",
    "libsemanage-common",
    "libsemanage2",
    "libsystemd-shared",
    "login.defs",
    "media-types",
    "passwd",
    "perl-base",
    "systemd",
    "tzdata",
    "udev",
];

/// Paths that no tree of the kit needs.
pub(crate) const USELESS_PATHS: &[&str] = &[
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/info",
    "./usr/share/locale",
    "./usr/share/lintian",
    "./usr/share/bug",
    "./usr/share/bash-completion",
    "./usr/share/icons",
    "./usr/share/applications",
];

/// Further paths that the guest doesn't need.
pub(crate) const USELESS_GUEST_PATHS: &[&str] = &[
    "./usr/lib/systemd",
    "./usr/share/zoneinfo",
    "./usr/lib/x86_64-linux-gnu/gconv",
    "./usr/share/perl5",
    "./usr/lib/python3*/test",
    "./usr/lib/python3*/idlelib",
    "./usr/lib/python3*/ensurepip",
    "./usr/lib/python3*/turtledemo",
    "./usr/lib/python3*/lib2to3",
    "./usr/lib/udev",
];

/// One line of kernels and where it comes from.
#[derive(Debug)]
pub(crate) struct KernelLine {
    /// `7.2`
    pub(crate) line: &'static str,
    /// Suites that have it.
    pub(crate) suites: &'static [&'static str],
    /// Packages of image and modules; `{}` is the release.
    pub(crate) images: &'static [&'static str],
    /// Packages that build modules; `{}` is the release.
    pub(crate) builders: &'static [&'static str],
    /// The compiler that the headers were made with.
    pub(crate) compiler: &'static str,
    /// The source package.
    pub(crate) source: &'static str,
    /// Symbols for the rebuilt modules.
    pub(crate) symbols: &'static [(&'static str, char)],
    /// Directories of modules to rebuild together.
    pub(crate) rebuilt: &'static [&'static str],
    /// Single files that become modules beside them, because no package has these.
    pub(crate) added: &'static [&'static str],
}

/// Programs that a module build runs besides compiler and headers.
const BUILD_PROGRAMS: [&str; 7] = ["make", "dash", "coreutils", "sed", "grep", "mawk", "findutils"];

impl KernelLine {
    /// Everything that goes into the private build tree, `release` in place.
    pub(crate) fn builder_packages(&self, release: &str) -> Vec<String> {
        let fixed = BUILD_PROGRAMS.iter().map(|p| p.to_string());
        self.builders.iter().map(|p| p.replace("{}", release)).chain(fixed).collect()
    }
}

/// All lines that the kit can make.
pub(crate) const KERNEL_LINES: &[KernelLine] = &[KernelLine {
    line: "7.2",
    suites: &[BASE_SUITE, BACKPORTS_SUITE],
    images: &["linux-binary-{}", "linux-modules-{}", "linux-base-{}"],
    builders: &["linux-headers-{}", "gcc-14"],
    compiler: "gcc-14",
    source: "linux-source-7.2",
    symbols: &[
        ("MLX5_SF", 'y'),
        ("MLX5_SF_MANAGER", 'y'),
        ("MLX5_EN_TLS", 'y'),
        ("MLX5_EN_IPSEC", 'y'),
        ("MLX5_MACSEC", 'y'),
        ("MLX5_VFIO_PCI", 'm'),
        ("MLX5_VDPA", 'y'),
        ("MLX5_VDPA_NET", 'm'),
        ("VHOST_RING", 'm'),
    ],
    rebuilt: &[
        "drivers/net/ethernet/mellanox/mlx5/core",
        "drivers/infiniband/hw/mlx5",
        "drivers/vfio/pci/mlx5",
        "drivers/vdpa/mlx5",
    ],
    added: &["drivers/vhost/vringh.c"],
}];

/// The line of that name.
pub(crate) fn kernel_line(line: &str) -> Option<&'static KernelLine> {
    KERNEL_LINES.iter().find(|l| l.line == line)
}

/// Subtrees of the kernel's source that the rebuild and the tests read.
pub(crate) const SOURCE_PATHS: &[&str] = &[
    "drivers/net/ethernet/mellanox/mlx5",
    "drivers/net/ethernet/mellanox/mlxfw",
    "drivers/infiniband/hw/mlx5",
    "drivers/vfio/pci/mlx5",
    "drivers/vdpa/mlx5",
    "drivers/vhost/vringh.c",
    "include/linux/mlx5",
    "include/uapi/rdma",
];

/// Directories below `kernel/` of the stock modules that are not even unpacked.
pub(crate) const USELESS_MODULES: &[&str] = &[
    "sound",
    "drivers/gpu",
    "drivers/media",
    "drivers/iio",
    "drivers/staging",
    "drivers/input",
    "drivers/usb",
    "drivers/scsi",
    "drivers/hid",
    "drivers/net/wireless",
    "drivers/mtd",
    "drivers/leds",
    "drivers/comedi",
    "drivers/ata",
    "drivers/edac",
    "drivers/net/can",
    "drivers/net/usb",
    "drivers/power",
    "drivers/rtc",
    "drivers/thunderbolt",
    "drivers/tty",
    "drivers/video",
    "drivers/isdn",
    "drivers/accel",
];

/// What goes into the guest: prefixes of paths below `kernel/`. What these need comes along.
pub(crate) const GUEST_MODULES: &[&str] = &[
    "net/",
    "lib/",
    "crypto/",
    "arch/x86/crypto/",
    "fs/9p/",
    "fs/erofs/",
    "fs/overlayfs/",
    "fs/fuse/",
    "drivers/virtio/",
    "drivers/block/virtio_blk",
    "drivers/block/loop",
    "drivers/block/null_blk",
    "drivers/char/virtio_console",
    "drivers/char/hw_random/virtio-rng",
    "drivers/net/virtio_net",
    "drivers/net/net_failover",
    "drivers/net/ethernet/intel/igb",
    "drivers/net/ethernet/intel/e1000e",
    "drivers/net/ethernet/mellanox/mlx5/",
    "drivers/net/ethernet/mellanox/mlxfw/",
    "drivers/net/bonding/",
    "drivers/net/team/",
    "drivers/net/ipvlan/",
    "drivers/net/dummy",
    "drivers/net/ifb",
    "drivers/net/macvlan",
    "drivers/net/macvtap",
    "drivers/net/macsec",
    "drivers/net/vxlan/",
    "drivers/net/geneve",
    "drivers/net/bareudp",
    "drivers/net/gtp",
    "drivers/net/tun",
    "drivers/net/tap",
    "drivers/net/veth",
    "drivers/net/vrf",
    "drivers/net/nlmon",
    "drivers/net/netkit",
    "drivers/net/netdevsim/",
    "drivers/net/wireguard/",
    "drivers/infiniband/core/",
    "drivers/infiniband/sw/",
    "drivers/infiniband/ulp/ipoib/",
    "drivers/infiniband/hw/mlx5/",
    "drivers/vfio/",
    "drivers/vdpa/",
    "drivers/vhost/",
    "drivers/ptp/",
    "drivers/pci/",
    "drivers/iommu/",
    "drivers/net/mdio/",
    "drivers/net/phy/libphy",
];

/// Modules that the small first file system loads, with all they need, before the disks.
pub(crate) const EARLY_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "erofs", "overlay"];
