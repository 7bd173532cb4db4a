#!/bin/sh
# The story of a sub-function (SF), told in a guest whose kernel is unmodified.
#
# SFNIC_PF0 and SFNIC_PF1 are the PCI addresses of the NIC's two functions; a cable joins
# their ports. Ends with status 0, or with 1 and the name of the step that failed.

set -eu

pf0=pci/$SFNIC_PF0
pf1=pci/$SFNIC_PF1
pf0_device=/sys/bus/pci/devices/$SFNIC_PF0
pf1_device=/sys/bus/pci/devices/$SFNIC_PF1

# Telling.

told=no
bold='' plain='' red=''
if [ -n "${STORY_COLOUR:-}" ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m') red=$(printf '\033[1;31m')
fi
number=0
name="the start"

step() {
    number=$((number + 1))
    name=$1
    printf '\n%s▶ %d. %s%s\n' "$bold" "$number" "$name" "$plain"
}

tell() { printf '  %s\n' "$*"; }

indented() { [ -z "$1" ] || printf '%s\n' "$1" | sed 's/^/      /'; }

fail() {
    told=yes
    printf '\n%s✗ Step %d failed (%s): %s%s\n' "$red" "$number" "$name" "$*" "$plain"
    exit 1
}

finish() {
    status=$?
    trap - EXIT
    for file in /run/story-*.pid; do
        [ ! -e "$file" ] || kill "$(tr -d '\0' <"$file")" 2>/dev/null || :
    done
    if [ "$status" -ne 0 ]; then
        [ $told = yes ] || (fail "a command ended with status $status") || :
        printf '\nThe last lines of the kernel log:\n'
        dmesg | tail -n 12 | sed 's/^/      /'
        exit 1
    fi
}
trap finish EXIT

# Doing.

# Runs a command; what it said is in $answer.
ask() {
    status=0
    answer=$(timeout 60 "$@" 2>&1) || status=$?
    [ $status -ne 0 ] || return 0
    tell "\$ $*"
    indented "$answer"
    [ $status -ne 124 ] || fail "no end after 60 s"
    fail "the command ended with status $status"
}

# Runs a command and shows what it said.
run() {
    ask "$@"
    tell "\$ $*"
    indented "$answer"
}

# Waits up to 30 s for a test to hold: what it is about, then the test.
await() {
    what=$1
    shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "waited 30 s in vain for $what"
        sleep 0.1
    done
}

# The words that take a command into a namespace; "here" is the first one.
in_space() { [ "$1" = here ] || echo "ip netns exec $1"; }

gone() { [ ! -e "$1" ]; }

# The netdev of a PCI or auxiliary device, or nothing.
netdev_of() {
    for entry in "$1"/net/* "$1"/mlx5_core.eth.*/net/*; do
        if [ -e "$entry" ]; then
            echo "${entry##*/}"
            break
        fi
    done
}
has_netdev() { [ -n "$(netdev_of "$1")" ]; }

carrier() { # of a netdev in a namespace
    [ "$($(in_space "$1") cat "/sys/class/net/$2/carrier" 2>/dev/null)" = 1 ]
}

# Gives a netdev an address in a namespace, and waits for its link.
address() {
    space=$1 dev=$2
    shift 2
    for each in "$@"; do
        ask $(in_space "$space") ip address add "$each" dev "$dev"
    done
    ask $(in_space "$space") ip link set dev "$dev" up
    await "the link of $dev" carrier "$space" "$dev"
}

ping_to() { # namespace, address
    ask $(in_space "$1") ping -c 4 -i 0.2 -W 3 "$2"
    tell "ping from $1 to $2: $(printf '%s\n' "$answer" | sed -n 's/ packets transmitted/ sent/; s/, time.*//p')," \
        "$(printf '%s\n' "$answer" | sed -n 's|^rtt [^=]*= [^/]*/\([^/]*\)/.*|on average \1 ms|p')"
    case $answer in
    *" 4 received"*) ;;
    *) fail "not every ping was answered" ;;
    esac
}

silent_to() { # namespace, address: nobody may answer
    if $(in_space "$1") ping -c 2 -i 0.2 -W 1 "$2" >/dev/null 2>&1; then
        fail "$2 answered $1, from which it should be cut off"
    fi
    # A neighbour that did not answer takes what is sent to it with it for a while.
    ask $(in_space "$1") ip neigh flush to "$2"
    tell "ping from $1 to $2: no answer, as it should be"
}

listens() { $(in_space "$1") ss -Hltn 'sport = :5201' | grep -q LISTEN; }

server() { # in a namespace, until the end
    $(in_space "$1") iperf3 --server --daemon --pidfile "/run/story-$1.pid" >/dev/null 2>&1 </dev/null ||
        fail "iperf3 does not start in $1"
    await "iperf3 in $1" listens "$1"
}

stream() { # namespace, address, options of iperf3
    space=$1 to=$2
    shift 2
    ask $(in_space "$space") iperf3 --client "$to" --json --connect-timeout 5000 "$@"
    rate=$(printf '%s' "$answer" | python3 -c '
import json, sys
end = json.load(sys.stdin)["end"]
if "sum_received" in end and "retransmits" in end.get("sum_sent", {}):
    got, sent = end["sum_received"], end["sum_sent"]
    print("TCP, %.1f MB, %.0f Mbit/s, %d retransmits"
          % (got["bytes"] / 1e6, got["bits_per_second"] / 1e6, sent["retransmits"]))
    sys.exit(got["bytes"] == 0)
got = end["sum"]
print("UDP, %d datagrams, %.0f Mbit/s, %.2f %% lost"
      % (got["packets"], got["bits_per_second"] / 1e6, got["lost_percent"]))
sys.exit(got["packets"] == 0 or got["lost_percent"] > 50)') || fail "nothing arrived: $rate"
    tell "from $space to $to: $rate"
}

# A part of what devlink says of a port: handle, then keys.
port() {
    devlink port show -j "$1" | python3 -c '
import json, sys
value = next(iter(json.load(sys.stdin)["port"].values()))
for key in sys.argv[1:]:
    value = value[key]
print(value)' $2
}
port_is() { [ "$(port "$1" "$2")" = "$3" ]; }

# The handle of an SF's port by its number.
port_of() {
    devlink port show -j | python3 -c '
import json, sys
for handle, value in json.load(sys.stdin)["port"].items():
    if value.get("flavour") == "pcisf" and value.get("sfnum") == int(sys.argv[1]):
        print(handle)' "$1"
}

# The auxiliary device of an SF by its number.
aux_of() {
    for file in /sys/bus/auxiliary/devices/mlx5_core.sf.*/sfnum; do
        if [ "$(cat "$file" 2>/dev/null)" = "$1" ]; then
            file=${file%/sfnum}
            echo "${file##*/}"
            break
        fi
    done
}
has_aux() { [ -n "$(aux_of "$1")" ]; }

# Makes an SF: number, MAC address. Sets port_N and rep_N.
add_sf() {
    run devlink port add "$pf0" flavour pcisf pfnum 0 sfnum "$1"
    handle=$(port_of "$1")
    rep=$(port "$handle" netdev)
    tell "its representor is $rep, port name $(cat "/sys/class/net/$rep/phys_port_name"); it gets that name"
    ask ip link set dev "$rep" name "pf0sf$1"
    run devlink port function set "$handle" hw_addr "$2"
    run devlink port function set "$handle" state active
}

# Brings an SF's driver and netdev to life, in a namespace of its own: number, address.
wake_sf() {
    await "the auxiliary device of SF $1" has_aux "$1"
    aux=$(aux_of "$1")
    tell "the kernel made the auxiliary device $aux for it"
    run devlink dev param set "auxiliary/$aux" name enable_eth value true cmode driverinit
    run devlink dev reload "auxiliary/$aux"
    await "the netdev of $aux" has_netdev "/sys/bus/auxiliary/devices/$aux"
    dev=$(netdev_of "/sys/bus/auxiliary/devices/$aux")
    tell "its netdev is $dev, address $(cat "/sys/class/net/$dev/address")"
    ask ip netns add "sf$1"
    ask ip link set dev "$dev" netns "sf$1"
    ask ip link set dev "pf0sf$1" up
    address "sf$1" "$dev" "$2"
    await "opstate attached" port_is "$handle" "function opstate" attached
    indented "$(devlink port show "$handle")"
}

remove_sf() { # number, handle
    run devlink port function set "$2" state inactive
    await "opstate detached" port_is "$2" "function opstate" detached
    indented "$(devlink port show "$2" | sed -n '/function/,$p')"
    [ -z "$(aux_of "$1")" ] || fail "the auxiliary device of SF $1 is still there"
    run devlink port del "$2"
    if devlink port show "$2" >/dev/null 2>&1; then fail "the port $2 is still there"; fi
    await "the end of the representor" gone "/sys/class/net/pf0sf$1"
}

# The story.

step "The stock driver takes two functions of the NIC for ConnectX cards"
tell "kernel $(uname -r), driver $(modinfo -F filename mlx5_core 2>/dev/null || echo mlx5_core)"
for device in "$pf0_device" "$pf1_device"; do
    [ "$(basename "$(readlink "$device/driver")")" = mlx5_core ] || fail "mlx5_core did not take $device"
    await "the netdev of ${device##*/}" has_netdev "$device"
done
dev0=$(netdev_of "$pf0_device")
dev1=$(netdev_of "$pf1_device")
ask ethtool -i "$dev0"
tell "\$ ethtool -i $dev0"
indented "$(printf '%s\n' "$answer" | grep '^driver\|^firmware\|^bus')"
dmesg | sed -n 's/^\[ *[0-9.]*\] \(mlx5_core .*firmware version.*\)/\1/p' | sed 's/^/      /'

step "Two ports and a cable: PF0 here, PF1 in the namespace peer"
ask ip netns add peer
ask ip link set dev "$dev1" netns peer
ask ip link set dev "$dev0" up
address peer "$dev1" 10.0.0.2/24
address here "$dev0" 10.0.0.1/24
ethtool "$dev0" | sed -n 's/^\t\(Speed\|Link detected\)/      \1/p'
server peer
ping_to here 10.0.0.2
stream here 10.0.0.2 --time 2
stream here 10.0.0.2 --time 1 --reverse
stream here 10.0.0.2 --time 1 --udp --bitrate 50M --length 1400

step "PF0's eswitch goes to switchdev mode"
ask ip address flush dev "$dev0"
run devlink dev eswitch set "$pf0" mode switchdev
run devlink dev eswitch show "$pf0"
await "PF0's netdev" has_netdev "$pf0_device"
uplink=$(netdev_of "$pf0_device")
ask ip link set dev "$uplink" up
await "the link of $uplink" carrier here "$uplink"
tell "$uplink is the uplink's representor now, port name $(cat "/sys/class/net/$uplink/phys_port_name")"

step "A sub-function is made and activated"
add_sf 88 52:54:00:5f:88:00
port_88=$handle

step "Its driver attaches, and it has a netdev"
wake_sf 88 10.0.0.88/24
dev_88=$dev

step "The SF and its representor reach each other; the cable is not reached yet"
address here pf0sf88 10.0.0.1/24
ping_to here 10.0.0.88
ping_to sf88 10.0.0.1
silent_to sf88 10.0.0.2

step "A bridge joins the representor and the uplink: the SF reaches PF1 over the cable"
ask ip address flush dev pf0sf88
ask ip link add br0 type bridge
ask ip link set dev br0 up
run ip link set dev pf0sf88 master br0
run ip link set dev "$uplink" master br0
ping_to sf88 10.0.0.2
stream sf88 10.0.0.2 --time 2
stream sf88 10.0.0.2 --time 1 --reverse
bridge fdb show br br0 | grep -i '52:54:00:5f' | grep -v permanent | sed 's/^/      /' || :

step "A second SF talks to the first"
add_sf 89 52:54:00:5f:89:00
port_89=$handle
wake_sf 89 10.0.0.89/24
run ip link set dev pf0sf89 master br0
server sf89
ping_to sf88 10.0.0.89
stream sf88 10.0.0.89 --time 2
ping_to sf89 10.0.0.2
devlink port show | grep flavour | sed 's/^/      /'

step "Both are deactivated, detach and are deleted"
remove_sf 88 "$port_88"
remove_sf 89 "$port_89"
if $(in_space sf88) test -e "/sys/class/net/$dev_88"; then fail "the SF's netdev is still there"; fi
tell "what is left:"
devlink port show | sed 's/^/      /'

step "The kernel's own words on all of this"
# What the driver says each time a module like this is loaded, or switchdev mode is entered.
usual='taints kernel|module verification failed|MPFS/FDB active|vlan stripping offload|CTAG FILTERING'
mlx5_words() { dmesg --notime --level="$1" | grep -i mlx5 | grep -Ev "$usual" | sort | uniq -c; }
errors=$(mlx5_words emerg,alert,crit,err || :)
if [ -n "$errors" ]; then
    indented "$errors"
    fail "the driver reports errors"
fi
if dmesg | grep -q 'WARNING: \|BUG: \|Oops\|Call Trace'; then fail "the kernel is in trouble"; fi
warnings=$(mlx5_words warn || :)
if [ -n "$warnings" ]; then
    tell "no error of the driver; it warned:"
    indented "$warnings"
else
    tell "no error and no warning of the driver"
fi
