//! Squall: Synapse's replication layer, and the storm that judges it.

#[cfg(all(feature = "sim", not(tokio_unstable)))]
compile_error!(
    "the simulator needs `--cfg tokio_unstable`. `.cargo/config.toml` sets it, but an environment RUSTFLAGS replaces \
     that: unset RUSTFLAGS or add the flag to it, or build without the simulator by `--no-default-features`."
);

pub mod caches;
#[cfg(feature = "sim")]
pub mod cli;
pub mod env;
#[cfg(feature = "serve")]
pub mod follow;
pub mod instance;
pub mod judge;
#[cfg(feature = "serve")]
pub mod metrics;
pub mod presence;
pub mod protocol;
pub mod replication;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod streams;
pub mod sync;
pub mod transport;
