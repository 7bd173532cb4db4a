//! Drivers that come and go leave nothing behind and have nothing to complain about, and
//! the device offers what it has to: a device that offers nothing would pass everything.

use std::time::Duration;

use sfnic_device_model::control::caps::{Caps, Mode};
use sfnic_firmware_cmds::Layout;
use sfnic_firmware_cmds::layout::{Field, View};
use sfnic_firmware_cmds::layouts::{
    CmdHcaCap, CmdHcaCap2, ESwitchCap, FlowTableEswitchCap, FlowTableNicCap, FlowTablePropLayout,
    PerProtocolNetworkingOffloadCaps,
};
use sfnic_tests::Lab;

#[test]
fn of_physical_functions() {
    Lab { timeout: Duration::from_secs(400), ..Lab::new() }.run("lifecycle.py").ok();
}

#[test]
fn with_switchdev_and_sub_functions() {
    Lab { timeout: Duration::from_secs(600), ..Lab::new() }.run("lifecycle_sf.py").ok();
}
