//! Commands that were listened to, with their fields by name.

use serde_json::{Value, json};
use sfnic_device_model::cmd::fields::{Side, bits};
use sfnic_device_model::listen::Heard;
use sfnic_firmware_cmds::status::Delivery;
use sfnic_firmware_cmds::{Opcode, Status, Syndrome};

use crate::trace::text::{fields, object};

/// The status in the answer, and the syndrome.
fn answered(h: &Heard) -> (u64, u32) {
    let out = &h.output.bytes;
    (bits(out, 0, 8), bits(out, 32, 32) as u32)
}

/// Whether a command was refused, or could not be delivered.
pub fn failed(h: &Heard) -> bool {
    h.at.delivery != Delivery::Ok || answered(h).0 != 0
}

/// A command and its answer: the fields that are not zero.
pub fn command(h: &Heard) -> Value {
    let (input, output) = (&h.input.bytes, &h.output.bytes);
    let opcode = Opcode(bits(input, 0, 16) as u16);
    let (status, syndrome) = answered(h);
    let named = Status::ALL.iter().find(|(s, _)| *s as u64 == status);
    let reason = Syndrome::ALL.iter().find(|(s, ..)| s.0 == syndrome).map(|(.., reason)| *reason);
    let name = opcode.name().map_or_else(|| opcode.to_string(), str::to_owned);
    let half = |side, block| object(fields(input, side, block, false));
    json!({
        "seq": h.seq, "time_ns": h.at.time_ns, "duration_ns": h.at.duration_ns, "pf": h.at.pf,
        "function": h.at.function, "slot": h.at.slot, "opcode": opcode.0, "command": name,
        "op_mod": bits(input, 48, 16),
        "delivery": format!("{:?}", h.at.delivery),
        "status": (h.at.delivery == Delivery::Ok).then(|| named.map_or_else(|| format!("{status:#x}"), |s| s.1.to_owned())),
        "syndrome": syndrome, "reason": reason.filter(|_| status != 0).unwrap_or_default(),
        "input": half(Side::Input, input), "output": half(Side::Output, output),
        "cut": h.input.length > input.len() || h.output.length > output.len(),
    })
}
