//! Commands that are nearly right, and entries of the command queue that are
//! not. The input's bytes are the choices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sfnic_test_driver::fuzz::{self, Mix};

fuzz_target!(|bytes: &[u8]| fuzz::one(Mix::Commands, bytes));
