//! The command line. See [`squall::cli`].

fn main() -> std::process::ExitCode {
    squall::cli::main()
}
