//! The page in a browser, at a device whose driver is a part of the test. Skipped where
//! there is no Chromium.

use serde_json::json;
use sfnic_device_model::slice::{Change, Flavour, Link, Spec, State};
use sfnic_test_driver::NetdevConfig;

use super::browser::{Browser, program};
use super::stage::{Stage, TOKEN};

/// The text of a slice's row.
pub(crate) fn row(name: &str) -> String {
    format!("[...document.querySelectorAll('#slices tr')].find(r => r.cells[1].innerText == '{name}')?.innerText")
}

/// The page of a stage, live.
fn opened(program: &str, stage: &Stage) -> Browser {
    let mut b = Browser::start(program);
    b.size(1280, 1000);
    b.open(&stage.link());
    b.until("document.body?.dataset.status == 'live'");
    b
}

#[test]
fn a_slice_is_added_by_the_page_and_seen_to_attach_and_work() {
    let Some(program) = program() else { return };
    let stage = Stage::new(64);
    let mut netdevs: Vec<_> =
        (0..2).map(|i| stage.rig.pf(i).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap()).collect();
    let mut b = opened(&program, &stage);
    assert_eq!(b.eval("location.href"), json!(format!("{}/", stage.url())), "the token is out of the address");

    b.write("#new-sfnum", "4");
    b.write("#new-mac", "00:00:00:00:88:zz");
    b.click("#add-slice button");
    b.until("document.getElementById('said').innerText.includes('six pairs')");
    assert_eq!(stage.rig.nic.slices().len(), 2, "nothing is added with a wrong address");
    b.write("#new-mac", "00:00:00:00:88:04");
    b.click("#new-active");
    b.click("#add-slice button");
    b.until(&format!("{}?.match(/00:00:00:00:88:04\\s+active\\s+detached/)", row("pf0sf4")));

    netdevs.push(stage.rig.sf(0, 0).bring_up().unwrap().netdev(&NetdevConfig::default()).unwrap());
    b.until(&format!("{}?.match(/active\\s+attached/)", row("pf0sf4")));
    b.until("document.querySelector('.windows .attached')?.title.includes('BAR 2')");

    let frame = sfnic_test_driver::frames::ethernet(netdevs[1].mac, netdevs[2].mac, 0x88b5, b"hello");
    let busy = "[...document.querySelectorAll('#picture .row.attached')].some(r => \
        r.querySelector('.name').textContent == 'pf0sf4' && r.querySelector('.tx.busy text')?.textContent.endsWith('/s'))";
    b.until_with(busy, || {
        netdevs[2].send(&frame);
        stage.rig.run();
        netdevs[1].receive();
    });

    // Commands with their fields, rules, events.
    b.until("document.querySelector('#commands li')");
    b.write("#command-filter", "create_cq");
    b.click("#commands summary");
    b.until("[...document.querySelectorAll('#commands .fields td')].some(c => c.innerText == 'cqn')");
    b.click("#rules-part summary");
    b.until("document.querySelectorAll('#rules tr').length > 0");
    b.until("document.getElementById('events').innerText.includes('slice 16')");

    // Taken back: this driver does not let go.
    b.click("#slices [data-act=deactivate]:not([hidden])");
    b.until(&format!("{}?.match(/inactive\\s+detaching/)", row("pf0sf4")));
    let button = |act: &str| format!("document.querySelector('#slices tr:last-child [data-act={act}]')");
    assert_eq!(b.eval(&format!("{}.disabled && {}.hidden", button("activate"), button("delete"))), true);
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

#[test]
fn a_slice_is_configured_by_the_page() {
    let Some(program) = program() else { return };
    let stage = Stage::new(8);
    let spec = Spec { flavour: Flavour::PciSf, pfnum: 0, sfnum: Some(4), index: Some(100), ..Spec::default() };
    stage.rig.nic.slice_add(&spec).unwrap();
    let mut b = opened(&program, &stage);
    let policy = || stage.rig.nic.slice(100).unwrap().policy;
    b.until(&format!("{}?.includes('inactive')", row("pf0sf4")));
    b.click("#slices tr:last-child [data-act=settings]");
    b.until("document.getElementById('set-title').innerText.includes('pf0sf4')");
    assert_eq!(b.eval("document.getElementById('set-mtu').value"), json!("9978"));
    b.eval("document.getElementById('set-link').value = 'down'");
    b.click("#set-spoof-check");
    for (id, text) in [("set-vlan", "7"), ("set-tx-max", "100"), ("set-max-io-eqs", "2"), ("set-mtu", "1400")] {
        b.write(&format!("#{id}"), text);
    }
    b.click("#set-slice button:not([type])");
    b.until("document.getElementById('said').innerText.includes('set')");
    let p = policy();
    assert_eq!((p.link, p.spoof_check, p.trust, p.vlan), (Link::Down, true, false, 7));
    assert_eq!((p.tx_max, p.tx_share, p.max_io_eqs, p.mtu), (100_000_000, 0, 2, 1400));

    // What the device refuses is said, and what cannot be set in a state is not offered.
    b.write("#set-tx-share", "200");
    b.click("#set-slice button:not([type])");
    b.until("document.querySelector('#said.bad')?.innerText.includes('above tx_max')");
    let state = Some(State::Active);
    stage.rig.nic.slice_set(100, &Change { state, ..Change::default() }).unwrap();
    b.until("document.getElementById('set-mtu').disabled && !document.getElementById('set-link').disabled");
    // Deleted by somebody else, its form is gone.
    let state = Some(State::Inactive);
    stage.rig.nic.slice_set(100, &Change { state, ..Change::default() }).unwrap();
    stage.rig.nic.slice_del(100).unwrap();
    b.until("document.getElementById('set-slice').hidden");
    // What the device refused is a line in the browser's console as well.
    b.complaints.retain(|c| !c.contains("422"));
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

#[test]
fn faults_are_switches_and_the_keyboard_is_enough() {
    let Some(program) = program() else { return };
    let stage = Stage::new(64);
    let mut b = opened(&program, &stage);
    let faults = || stage.rig.nic.faults.list().iter().map(|f| f.fault.clone()).collect::<Vec<_>>();
    let switch = "[data-fault='drop frames p=0.01 seed=1']";
    b.click(switch);
    b.until(&format!("document.querySelector(\"{switch}\").getAttribute('aria-pressed') == 'true'"));
    assert_eq!(faults(), ["drop frames p=0.01 seed=1"]);
    b.click(switch);
    b.until(&format!("document.querySelector(\"{switch}\").getAttribute('aria-pressed') == 'false'"));
    assert_eq!(faults(), [""; 0]);
    b.write("#fault-text", "fail NOTHING");
    b.press("Enter");
    b.until("document.querySelector('#said.bad')?.innerText.includes('NOTHING')");
    b.write("#fault-text", "stop health pf=1");
    b.press("Enter");
    b.until("document.querySelectorAll('#faults tr').length == 1");
    // What the device refused is a line in the browser's console as well.
    b.complaints.clear();

    // From the top of the page to the button that takes it out, by Tab alone.
    b.eval("document.activeElement.blur()");
    let reached = (0..80).any(|_| {
        b.press("Tab");
        b.eval("document.activeElement.closest('#faults') != null") == true
    });
    assert!(reached, "no key leads there");
    b.press("Enter");
    b.until("document.querySelectorAll('#faults tr').length == 0");
    assert_eq!(faults(), [""; 0]);
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

#[test]
fn without_the_token_it_asks_for_it() {
    let Some(program) = program() else { return };
    let stage = Stage::new(8);
    let mut b = Browser::start(&program);
    b.open(&stage.url());
    b.until("document.getElementById('token-form')?.checkVisibility()");
    b.write("#token", "wrong");
    b.press("Enter");
    b.until(
        "document.getElementById('token-why').innerText.includes('token') && document.body.dataset.status == 'locked'",
    );
    b.write("#token", TOKEN);
    b.press("Enter");
    b.until("document.body.dataset.status == 'live' && !document.getElementById('token-form').checkVisibility()");
    assert_eq!(b.eval("document.cookie"), "");
    // Held, nothing is asked any more.
    b.click("#hold");
    b.until("document.body.dataset.status == 'held'");
}

#[test]
fn the_picture_is_readable_with_few_ports_and_many_wide_and_narrow_dark_and_light() {
    let Some(program) = program() else { return };
    let stage = Stage::new(64);
    let mut b = opened(&program, &stage);
    // Each row's text is in the row, and not in another one.
    let readable = "(() => { \
        const boxes = [...document.querySelectorAll('#picture .row')].map(r => [r.querySelector('.box').getBoundingClientRect(), r.querySelector('.name').getBoundingClientRect()]); \
        return boxes.every(([box, name], i) => name.height >= 9 && name.left >= box.left && name.right <= box.right && name.top >= box.top - 1 && name.bottom <= box.bottom + 1 \
            && (i == 0 || boxes[i - 1][0].bottom <= box.top + 0.5)); })()";
    for ports in [4, 40] {
        while stage.rig.nic.ports().len() < ports {
            let number = stage.rig.nic.ports().len() as u32;
            let spec = Spec {
                flavour: Flavour::PciSf,
                pfnum: number & 1,
                sfnum: Some(number),
                index: None,
                ..Spec::default()
            };
            let index = stage.rig.nic.slice_add(&spec).unwrap();
            let state = (!number.is_multiple_of(3)).then_some(State::Active);
            stage.rig.nic.slice_set(index, &Change { state, ..Change::default() }).unwrap();
        }
        let rows = ports - 2;
        for (width, scheme) in [(1280, "dark"), (360, "light"), (1700, "light")] {
            b.size(width, 1000);
            b.colours(scheme);
            b.until(&format!("document.querySelectorAll('#picture .row').length == {rows}"));
            b.until(&format!("document.documentElement.scrollWidth <= {width}"));
            b.until(readable);
            let dark = b.eval("getComputedStyle(document.body).backgroundColor");
            assert_eq!(dark == "rgb(18, 22, 20)", scheme == "dark", "{dark}");
        }
        assert!(b.eval("document.getElementById('picture').height.baseVal.value").as_f64().unwrap() < 1000.0);
    }
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}
