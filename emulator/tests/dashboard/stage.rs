//! A device without a guest, and its dashboard.

use sfnic_device_model::CardConfig;
use sfnic_device_model::fabric::port::Far;
use sfnic_device_model::nic::Manager;
use sfnic_emulator::control::Target;
use sfnic_emulator::control::dashboard;
use sfnic_emulator::control::server::{Server, Tcp};
use sfnic_test_driver::Rig;

/// The token of every stage.
pub(crate) const TOKEN: &str = "open sesame";

/// Two functions on a cable whose eswitches the device manages.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    server: Server,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// With room for so many sub-functions of each function.
    pub(crate) fn new(max_sfs: u16) -> Stage {
        let card = |i, far| CardConfig { manager: Manager::Embedded, max_sfs, ..Rig::card(i, far) };
        let rig = Rig::new(vec![card(0, Far::Port(1)), card(1, Far::Port(0))], 64 << 20);
        let dir = tempfile::tempdir().unwrap();
        let tcp = Tcp { address: "127.0.0.1:0".parse().unwrap(), token: TOKEN.into() };
        let target = Target::new(rig.nic.clone(), "pci/0000:06:00.0").with([].into(), 1);
        let server = Server::start(target, &dir.path().join("control"), Some(&tcp)).unwrap();
        Stage { rig, server, _dir: dir }
    }

    /// Where it is served on TCP.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.server.tcp().unwrap())
    }

    /// The link with the token, as it is printed.
    pub(crate) fn link(&self) -> String {
        dashboard::link(self.server.tcp().unwrap(), Some(TOKEN))
    }
}
