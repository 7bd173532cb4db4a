//! What a vfio-user client may send.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sfnic_emulator::vfio_user::fuzz_one(bytes));
