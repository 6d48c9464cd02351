//! A small disk that a test can fill.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::Site;

/// A disk of its own that holds a site's database. Dropping it unmounts it.
pub(crate) struct FullDisk(PathBuf);

impl FullDisk {
    /// Mounts a disk of so many MiB, which are memory, for the database of `site`. Returns `None` where this process may not mount anything.
    pub(crate) fn mount(site: &mut Site, mib: u64) -> Option<Self> {
        let folder = site.folder().join("disk");
        std::fs::create_dir(&folder).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            return None;
        }
        site.use_database("disk/squall.db");
        Some(FullDisk(folder))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills the disk.
    pub(crate) fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let mut zeros = std::io::repeat(0);
        let error = std::io::copy(&mut zeros, &mut ballast).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    }

    /// Frees the disk again.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // Lazily, because a process of a test that failed may still have the database open.
        let folder: &Path = &self.0;
        let _ = Command::new("umount").arg("--lazy").arg(folder).status();
    }
}
