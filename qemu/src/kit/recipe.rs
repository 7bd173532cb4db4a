//! What the kit is made of: packages, paths, modules. Data only; the kernel lines are in
//! `ci/kernels.toml`.

/// Changes when the way something is made changes in a manner that its lists don't show.
pub(crate) const REVISION: u32 = 3;

/// The release whose packages the guest and the tools come from.
pub(crate) const BASE_SUITE: &str = "trixie";
/// The suite that has the recent QEMU.
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

/// Parts of the source of a whole kernel that stay: what the layout check reads, and the
/// kernel's own tests with all that they include, read and run.
pub(crate) const KEPT_SOURCES: &[&str] = &[
    "include/linux/mlx5",
    "include/uapi",
    "usr/include",
    "Documentation/netlink",
    "scripts",
    "tools/arch/x86/include",
    "tools/build",
    "tools/include",
    "tools/lib",
    "tools/net/ynl",
    "tools/scripts",
    "tools/testing/selftests/Makefile",
    "tools/testing/selftests/bpf/bpf_util.h",
    "tools/testing/selftests/drivers/net",
    "tools/testing/selftests/kselftest",
    "tools/testing/selftests/kselftest.h",
    "tools/testing/selftests/kselftest_deps.sh",
    "tools/testing/selftests/kselftest_harness",
    "tools/testing/selftests/kselftest_harness.h",
    "tools/testing/selftests/kselftest_install.sh",
    "tools/testing/selftests/lib.mk",
    "tools/testing/selftests/lib",
    "tools/testing/selftests/net",
    "tools/testing/selftests/ptp",
    "tools/testing/selftests/rdma",
    "tools/testing/selftests/run_kselftest.sh",
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
