//! Captures of a running device, read by somebody else's reader.

use std::borrow::Cow;
use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::{Value, json};
use sfnic_device_model::nic::Manager;
use sfnic_test_driver::frames::ethernet;

use super::Stage;

/// A frame of a file: its interface, its direction flags, its time, its length, what was kept.
type Seen = (String, u32, Duration, u32, Vec<u8>);

fn read(path: &std::path::Path) -> Vec<Seen> {
    let mut reader = PcapNgReader::new(File::open(path).unwrap()).unwrap();
    let (mut names, mut seen) = (vec![], vec![]);
    while let Some(block) = reader.next_block() {
        match block.unwrap().into_owned() {
            Block::InterfaceDescription(i) => {
                let name = |o: &InterfaceDescriptionOption<'_>| match o {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                };
                assert!(i.options.contains(&InterfaceDescriptionOption::IfTsResol(9)), "nanoseconds");
                names.push(i.options.iter().find_map(name).unwrap());
            }
            Block::EnhancedPacket(p) => {
                let flags = |o: &EnhancedPacketOption<'_>| match o {
                    EnhancedPacketOption::Flags(flags) => Some(*flags),
                    _ => None,
                };
                let flags = p.options.iter().find_map(flags).unwrap();
                let data = Cow::into_owned(p.data);
                seen.push((names[p.interface_id as usize].clone(), flags, p.timestamp, p.original_len, data));
            }
            _ => {}
        }
    }
    seen
}

#[test]
fn a_capture_has_exactly_the_frames_of_its_ports() {
    const INBOUND: u32 = 1;
    const OUTBOUND: u32 = 2;
    let stage = Stage::new(Manager::Embedded, None);
    let mut netdevs = stage.populate();
    let client = stage.client();
    let start = |name: &str, ports: &[&str], snap: Option<u32>| {
        let mut new = json!({ "file": stage.dir.path().join(name), "ports": ports });
        if let Some(snap) = snap {
            new["snap"] = snap.into();
        }
        let reply = client.request(Method::POST, "/v1/captures", Some(&new)).unwrap();
        assert!(reply.error().is_none(), "{:?}", reply.error());
        reply.body["id"].clone()
    };
    let send = |netdevs: &mut Vec<_>, byte: u8| {
        let [a, b, ..] = &mut netdevs[..] else { panic!() };
        let (a, b): (&mut sfnic_test_driver::Netdev, &mut sfnic_test_driver::Netdev) = (a, b);
        a.send(&ethernet(b.mac, a.mac, 0x88b5, &[byte; 86]));
        stage.rig.run();
    };
    send(&mut netdevs, 1);
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ids = [start("all", &[], None), start("some", &["uplink1", "pf0sf4"], Some(20))];
    send(&mut netdevs, 2);
    send(&mut netdevs, 3);
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let shown = client.get("/v1/captures").unwrap().body;
    assert_eq!((shown[1]["frames"].as_u64(), &shown[1]["wanted"]), (Some(2), &json!(["uplink1", "pf0sf4"])));
    for id in &ids {
        assert!(client.request(Method::DELETE, &format!("/v1/captures/{id}"), None).unwrap().error().is_none());
    }
    send(&mut netdevs, 4);
    assert_eq!(client.get("/v1/captures").unwrap().body, Value::Array(vec![]));

    let all = read(&stage.dir.path().join("all"));
    let way = [("pf0", OUTBOUND), ("uplink0", OUTBOUND), ("uplink1", INBOUND), ("pf1", INBOUND)];
    let want: Vec<_> =
        [2, 3].iter().flat_map(|byte| way.map(|(port, flags)| (port.to_owned(), flags, *byte))).collect();
    let got: Vec<_> = all.iter().map(|f| (f.0.clone(), f.1, f.4[99])).collect();
    assert_eq!(got, want);
    assert!(all.iter().all(|f| f.3 == 100 && f.4.len() == 100 && f.4[..6] == netdevs[1].mac));
    assert!(all.iter().all(|f| (before..=after).contains(&f.2)), "{before:?} {after:?} {:?}", all[0].2);
    assert!(all.windows(2).all(|w| w[0].2 <= w[1].2));
    let some = read(&stage.dir.path().join("some"));
    let got: Vec<_> = some.iter().map(|f| (f.0.as_str(), f.1, f.3, f.4.len())).collect();
    assert_eq!(got, [("uplink1", INBOUND, 100, 20); 2]);
}
