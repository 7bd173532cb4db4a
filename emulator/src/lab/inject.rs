//! Faults that a device is given on purpose, as text.

use sfnic_firmware_cmds::Opcode;

/// The command that `fail:NAME` names.
///
/// # Errors
/// What is allowed, in a line.
pub fn parse(text: &str) -> Result<Opcode, String> {
    let allowed = || "allowed is fail:COMMAND, such as fail:CREATE_TIR (`sfnic list commands` names them)".to_owned();
    let name = text.strip_prefix("fail:").ok_or_else(allowed)?;
    Opcode::ALL.iter().find(|(_, known)| *known == name).map(|(opcode, _)| *opcode).ok_or_else(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_named() {
        assert_eq!(parse("fail:CREATE_TIR"), Ok(Opcode::CREATE_TIR));
        for bad in ["CREATE_TIR", "fail:", "fail:create_tir", "drop:CREATE_TIR"] {
            assert!(parse(bad).is_err_and(|e| e.contains("fail:CREATE_TIR")), "{bad}");
        }
    }
}
