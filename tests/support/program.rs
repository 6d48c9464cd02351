//! The `squall` program that was built with the tests.

use std::process::{Command, Output};

/// Returns a command that runs `squall` with these arguments. A password in this process's environment is not passed on.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
    command.args(arguments).env_remove("SQUALL_REDIS_PASSWORD");
    command
}

/// Runs `squall` with these arguments to its end.
pub(crate) fn output(arguments: &[&str]) -> Output {
    command(arguments).output().expect("squall runs")
}

/// Checks that the arguments are refused with status 2 and an error that contains `what`.
pub(crate) fn refused(arguments: &[&str], what: &str) {
    let output = output(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} printed {error}");
    assert!(error.contains(what), "{arguments:?} printed {error}");
    assert!(output.stdout.is_empty());
}
