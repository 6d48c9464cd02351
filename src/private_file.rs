//! Files that only their owner may read.

#[cfg(feature = "serve")]
use std::fs::Metadata;
use std::fs::OpenOptions;

/// Returns options with which a new file is created for its owner alone, where the system has such permissions.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Returns true if other users of this machine may read a file.
#[cfg(feature = "serve")]
pub(crate) fn is_readable_by_all(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o004 != 0;
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}
