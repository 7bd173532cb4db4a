//! WQEs that are nearly right, doorbells, records, and frames that meet them.
//! The input's bytes are the choices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sfnic_test_driver::fuzz::{self, Mix};

fuzz_target!(|bytes: &[u8]| fuzz::one(Mix::Wqes, bytes));
