//! The command line. See [`squall::cli`].

/// A seed allocates millions of times, and this allocator is faster at it than that of glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    squall::cli::main()
}
