//! What is wrong with the arguments, in one line.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::{STATUS_USAGE, complain};

/// Prints the help that was asked for, or says what is wrong.
pub(super) fn explain(e: &Error, cli: &clap::Command) -> ExitCode {
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = e.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = e.print();
            ExitCode::from(STATUS_USAGE)
        }
        _ => {
            complain(&line(e, cli, std::env::args().skip(1)));
            ExitCode::from(STATUS_USAGE)
        }
    }
}

/// The line: which argument, and what is allowed.
fn line(e: &Error, cli: &clap::Command, args: impl Iterator<Item = String>) -> String {
    let given = |kind| match e.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(list)) => list.join(", "),
        _ => String::new(),
    };
    let command = deepest(cli, args);
    match e.kind() {
        ErrorKind::UnknownArgument => {
            let wrong = given(ContextKind::InvalidArg);
            let flags: Vec<String> =
                command.get_arguments().filter_map(|a| Some(format!("--{}", a.get_long()?))).collect();
            let takes_command = command.get_arguments().any(clap::Arg::is_last_set);
            let hint = if takes_command && !wrong.starts_with('-') { " (a command comes after --)" } else { "" };
            format!("{wrong}: not an argument of `{}`{hint}; there is {}", command.get_name(), flags.join(", "))
        }
        ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => {
            let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let wrong = given(ContextKind::InvalidSubcommand);
            let wrong = if wrong.is_empty() { command.get_name().to_owned() + " alone" } else { wrong };
            format!("{wrong}: not a command; there is {}", known.join(", "))
        }
        ErrorKind::InvalidValue => {
            let (arg, value) = (given(ContextKind::InvalidArg), given(ContextKind::InvalidValue));
            let valid = given(ContextKind::ValidValue);
            match (value.is_empty(), valid.is_empty()) {
                (true, true) => format!("{arg}: a value is missing"),
                (true, false) => format!("{arg}: a value is missing; allowed is {valid}"),
                (false, _) => format!("{arg} = {value:?}: allowed is {valid}"),
            }
        }
        ErrorKind::ValueValidation => {
            let (arg, value) = (given(ContextKind::InvalidArg), given(ContextKind::InvalidValue));
            let why = std::error::Error::source(e).map(ToString::to_string).unwrap_or_default();
            format!("{arg} = {value:?}: {why}")
        }
        _ => flat(&e.render().to_string()),
    }
}

/// The subcommand that the arguments get to.
fn deepest(cli: &clap::Command, args: impl Iterator<Item = String>) -> &clap::Command {
    let mut command = cli;
    for arg in args.take_while(|a| a != "--") {
        match command.find_subcommand(&arg) {
            Some(found) => command = found,
            None if arg.starts_with('-') => {}
            None => break,
        }
    }
    command
}

/// The first paragraph of a message, on one line.
fn flat(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::super::Cli;
    use super::*;

    fn said(args: &[&str]) -> String {
        let e = Cli::try_parse_from([&["sfnic"], args].concat()).unwrap_err();
        let text = line(&e, &Cli::command(), args.iter().map(ToString::to_string));
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    #[test]
    fn unknown_arguments_come_with_the_known_ones() {
        let text = said(&["vm", "--colour"]);
        assert!(text.starts_with("--colour: not an argument of `vm`; there is --kernel, --modules"), "{text}");
        assert!(said(&["vm", "ls"]).starts_with("ls: not an argument of `vm` (a command comes after --)"));
        assert!(said(&["fly"]).starts_with("fly: not a command; there is demo, vm, run, up, ctl, top, kit, list"));
        assert_eq!(said(&["list", "wires"]), "wires: not a command; there is commands, caps, registers");
    }

    #[test]
    fn wrong_values_come_with_the_allowed_ones() {
        assert_eq!(said(&["vm", "--cpus", "0"]), "--cpus <N> = \"0\": allowed is 1 to 64");
        assert_eq!(said(&["vm", "--mem", "lots"]), "--mem <SIZE> = \"lots\": allowed is 256M to 1024G, such as 2G");
        assert_eq!(said(&["vm", "--timeout", "-1"]).lines().count(), 1);
        let text = said(&["vm", "--kernel", "2.4"]);
        assert!(text.starts_with("--kernel <LINE|PATH> = \"2.4\": allowed is "), "{text}");
        assert!(text.contains("7.2"), "{text}");
        assert_eq!(said(&["vm", "--cpus"]), "--cpus <N>: a value is missing");
    }

    #[test]
    fn other_errors_are_flattened() {
        let text = said(&["vm", "--script", "x", "--", "ls"]);
        assert!(text.contains("--script <FILE>") && text.contains("cannot be used with"), "{text}");
        assert!(said(&["run", "--explain-count", "3"]).contains("--explain <FILTER>"));
    }
}
