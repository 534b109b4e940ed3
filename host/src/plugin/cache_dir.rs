//! Where compiled components are kept between starts.
//!
//! A compiled component is machine code that runs outside the sandbox: whoever can
//! write to this directory owns the node. It is therefore used only when it belongs
//! to this user and to nobody else; otherwise components are compiled anew at each
//! start, which costs seconds and no safety.

use std::path::Path;

use tracing::warn;
use wasmtime::{Cache, CacheConfig};

use super::private_dir::{self, Places, Unusable};

/// Disk that compiled components may take; the least used go first.
const BYTES_MAX: u64 = 512 << 20;

/// Where the directory is when the settings do not say.
const PLACES: Places =
    Places { service: "CACHE_DIRECTORY", session: "XDG_CACHE_HOME", home: ".cache" };

/// The cache in `configured`, or in the first place the environment names; nothing
/// when there is no safe place.
pub(super) fn open(configured: &Path) -> Option<Cache> {
    let directory = PLACES.choose(configured);
    match directory.as_deref().ok_or(Unusable::Nowhere).and_then(open_at) {
        Ok(cache) => Some(cache),
        Err(reason) => {
            warn!(
                directory = %directory.unwrap_or_default().display(),
                %reason,
                "Compiled components are not kept; each start compiles them anew. \
                 Set wasm.cache_dir to a directory of this user alone."
            );
            None
        }
    }
}

fn open_at(directory: &Path) -> Result<Cache, Unusable> {
    let directory = private_dir::open(directory)?;
    let mut config = CacheConfig::new();
    config.with_directory(directory).with_files_total_size_soft_limit(BYTES_MAX);
    Cache::new(config).map_err(Unusable::Cache)
}
