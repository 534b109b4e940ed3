//! `keygen`: a new key for a cluster.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use cachecluster::cluster::Key;
use clap::Args;

use super::{Failure, output::print};

/// Where the key goes.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// File to make, which only its owner can read; without it, the key is printed
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Makes a key.
pub(super) fn keygen(options: &Options) -> Result<(), Failure> {
    match &options.file {
        None => print(&line()?)?,
        Some(file) => {
            write(file)?;
            print(&format!(
                "{} has a new key; give the same file to every node, as [cluster] key_file\n",
                file.display()
            ))?;
        }
    }
    Ok(())
}

fn line() -> anyhow::Result<String> {
    Ok(format!("{}\n", Key::generate().context("make a key")?.to_line()))
}

/// Makes `file`, with a new key in it. One that is there is left: its key may be in use.
pub(super) fn write(file: &Path) -> anyhow::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut made = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => anyhow!(
            "{} is there already, and its key may be in use; name another file, and see \
             docs/clustering.md for how a key is replaced",
            file.display()
        ),
        _ => anyhow!(error).context(format!("make {}", file.display())),
    })?;
    made.write_all(line()?.as_bytes())
        .and_then(|()| made.sync_all())
        .with_context(|| format!("write {}", file.display()))
}
