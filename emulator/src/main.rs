//! The program `sfnic`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sfnic_emulator::cli::main()
}
