//! The page in a browser at a guest: a slice is added by the page, the guest's own driver
//! attaches, frames move. Its picture is the one in the manual.
//!
//!     cargo test --release -p sfnic-emulator --test dashboard -- --ignored
//!
//! `SFNIC_SCREENSHOT=FILE` keeps the picture.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use sfnic_emulator::lab::turn::{self, Turn};

use super::browser::{Browser, program};
use super::clicks::row;

/// Largest picture that a manual should have, in bytes.
const MOST: usize = 150_000;

/// In the guest: the second function answers in a namespace of its own. A sub-function that
/// appears gets an address, and sends until the page has seen enough.
const SCRIPT: &str = r#"set -e
netdev() { ls "/sys/bus/pci/devices/$1/net"; }
ip link set "$(netdev $SFNIC_PF0)" up
dev=$(netdev $SFNIC_PF1)
ip netns add far
ip link set "$dev" netns far
ip -n far addr add 10.0.0.2/24 dev "$dev"
ip -n far link set "$dev" up
: > /host/ready
sf=
while [ -z "$sf" ]; do
    [ ! -e /host/end ] || exit 1
    sleep 0.2
    for net in /sys/bus/auxiliary/devices/mlx5_core.sf.*/net/*; do
        if [ -e "$net" ]; then sf=${net##*/}; fi
    done
done
ip addr add 10.0.0.1/24 dev "$sf"
ip link set "$sf" up
: > /host/attached
while [ ! -e /host/end ]; do ping -q -U -i 0.01 -c 100 10.0.0.2 || true; done
"#;

/// Ends the guest with the test, however that ends.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "boots a guest"]
fn a_guests_driver_attaches_to_a_slice_of_the_page() {
    let Some(program) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("nic.toml"), "eswitch = \"embedded\"\n").unwrap();
    std::fs::write(path("script"), SCRIPT).unwrap();
    std::fs::create_dir(path("share")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfnic"));
    command.arg("vm").arg("--config").arg(path("nic.toml")).arg("--script").arg(path("script"));
    command.arg("--share").arg(path("share")).args(["--control-tcp", "127.0.0.1:0", "--timeout", "900"]);
    command.env_remove("SFNIC_TOKEN").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let _turn = Turn::wait(turn::capacity()).unwrap();
    let mut guest = Guest(command.spawn().unwrap());
    let (send, link) = channel();
    let said = BufReader::new(guest.0.stderr.take().unwrap());
    std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            println!("{line}");
            if let Some(link) = line.strip_prefix("sfnic: dashboard: ") {
                let _ = send.send(link.to_owned());
            }
        }
    });
    // The kit may have to be made first.
    let link = link.recv_timeout(Duration::from_secs(1800)).expect("the link is printed");
    assert!(link.contains("/#token="), "{link}");
    let mut b = Browser::start(&program);
    b.patience = Duration::from_secs(600);
    b.size(1160, 740);
    b.open(&link);
    b.until("document.body?.dataset.status == 'live'");
    b.until_with("document.querySelector('#slices')", || {
        assert!(guest.0.try_wait().unwrap().is_none(), "the guest ended");
    });
    while !path("share").join("ready").exists() {
        assert!(guest.0.try_wait().unwrap().is_none(), "the guest ended");
        std::thread::sleep(Duration::from_millis(100));
    }

    b.write("#new-sfnum", "4");
    b.write("#new-mac", "00:00:00:00:88:04");
    b.click("#add-slice button");
    b.until(&format!("{}?.match(/00:00:00:00:88:04\\s+inactive\\s+detached/)", row("pf0sf4")));
    b.click("#slices [data-act=activate]:not([hidden])");
    b.until(&format!("{}?.match(/active\\s+attached/)", row("pf0sf4")));

    let counts = "(name => [...document.querySelectorAll('#picture .row')].some(r => \
        r.querySelector('.name').textContent == name && r.querySelectorAll('.busy').length == 2))";
    b.until(&format!("{counts}('pf0sf4')"));
    b.until(&format!("{counts}('pf1')"));
    b.until("document.querySelectorAll('#commands li').length > 20");
    b.until("document.getElementById('events').innerText.includes('now active and attached')");
    // Rates of a whole interval.
    std::thread::sleep(Duration::from_secs(2));
    b.eval("document.activeElement.blur()");
    let png = b.screenshot();
    if let Some(file) = std::env::var_os("SFNIC_SCREENSHOT") {
        std::fs::File::create(file).unwrap().write_all(&png).unwrap();
    }
    assert!(png.starts_with(b"\x89PNG") && png.len() < MOST, "{} bytes", png.len());
    std::fs::write(path("share").join("end"), "").unwrap();
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
    assert!(guest.0.wait().unwrap().success(), "the guest's script");
}
