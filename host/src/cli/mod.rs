//! The command line: one verb a file; each parses, calls, and ends in an exit code.
//!
//! Results go to standard output, everything else to standard error. Errors are printed
//! once, here. A reader of standard output that hangs up has had enough: that is a
//! success.

mod check;
mod config;
mod demo;
mod exit;
mod explain;
mod keygen;
mod members;
mod operator;
mod output;
mod plugin;
mod reload;
mod serve;
mod status;
mod table;

use std::{
    ffi::OsString,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use clap::{Parser, Subcommand};

use cachecluster::config::{Config, Loaded, Log, LogFormat, Reports};
use tracing_subscriber::EnvFilter;

pub(crate) use exit::Exit;
use output::{chain, complain, is_colored};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "cachecluster.toml";

/// The variable that names the file when the command line does not.
const FILE_VARIABLE: &str = "CACHECLUSTER_CONFIG";

/// A distributed read-through cache whose misses are filled by sandboxed WebAssembly
/// plugins.
#[derive(Debug, Parser)]
#[command(
    name = "cachecluster",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 78 bad configuration.\n\
                  New here? `cachecluster demo` needs no file and no network."
)]
struct Cli {
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        help = "File with the settings [default: $CACHECLUSTER_CONFIG, else cachecluster.toml]"
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a node until SIGTERM or Ctrl-C
    Serve,
    /// Have the running node read its settings and its plugins' files again
    Reload(reload::Options),
    /// Show how the running node is doing
    Status(operator::Shown),
    /// Show the members of the running node's cluster
    Members(operator::Shown),
    /// Show who owns a key, who holds it, and what a get would do
    Explain(explain::Options),
    /// Make a key for a cluster
    Keygen(keygen::Options),
    /// Check the settings and load the plugins, without serving
    Check,
    /// Print the settings: as they are, as they could be, their schema, or an old file's
    #[command(subcommand)]
    Config(config::What),
    /// Make a getter plugin: check, test, call and measure it
    #[command(subcommand)]
    Plugin(plugin::What),
    /// Try it: a node and a small dictionary to cache, in this process
    Demo(demo::Options),
}

/// Why a verb did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// The settings cannot be used.
    Settings(Reports),
    /// Something else, as a chain.
    Other(anyhow::Error),
    /// What is to be said has been said.
    Said(Exit),
}

impl From<Reports> for Failure {
    fn from(reports: Reports) -> Self {
        Self::Settings(reports)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Does what the command line says.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help that was asked for goes to standard output and is a success.
            let printed = error.print();
            return match printed {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => Exit::Failed,
                _ if error.use_stderr() => Exit::Usage,
                _ => Exit::Ok,
            };
        }
    };
    let file = file(cli.config);
    let done = match cli.verb {
        Verb::Serve => serve::serve(&file),
        Verb::Reload(options) => reload::reload(&options, &file),
        Verb::Status(shown) => status::status(&shown, &file),
        Verb::Members(shown) => members::members(&shown, &file),
        Verb::Explain(options) => explain::explain(&options, &file),
        Verb::Keygen(options) => keygen::keygen(&options),
        Verb::Check => check::check(&file),
        Verb::Config(what) => config::print(&what, &file),
        Verb::Plugin(what) => plugin::run(&what, &file),
        Verb::Demo(options) => demo::demo(&options),
    };
    match done {
        Ok(()) => Exit::Ok,
        Err(Failure::Said(exit)) => exit,
        Err(Failure::Settings(reports)) => {
            complain(&reports.render(is_colored(&io::stderr())));
            Exit::BadConfig
        }
        Err(Failure::Other(error)) => {
            if is_broken_pipe(&error) {
                return Exit::Ok;
            }
            complain(&format!("error: {}", chain(&error)));
            Exit::Failed
        }
    }
}

/// The file to read: the command line's, else the environment's, else the default.
fn file(named: Option<PathBuf>) -> PathBuf {
    named
        .or_else(|| std::env::var_os(FILE_VARIABLE).filter(|name| !name.is_empty()).map(Into::into))
        .unwrap_or_else(|| DEFAULT_FILE.into())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Reads the settings.
fn read(file: &Path) -> Result<Loaded, Reports> {
    // A variable that is not Unicode cannot be one of ours by name; by value it is
    // reported like any other bad value.
    let env = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    Config::load(file, env)
}

/// Reads the settings, and says what is doubtful about them.
fn load(file: &Path) -> Result<Loaded, Reports> {
    let loaded = read(file)?;
    for warning in &loaded.warnings {
        complain(&format!("{}\n", warning.render(is_colored(&io::stderr()))));
    }
    Ok(loaded)
}

/// Filters the log by other directives from now on.
type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Writes records to standard error from here on; gives a way to filter them otherwise.
fn start_logging(log: &Log) -> SetFilter {
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(is_colored(&io::stderr()))
        .with_env_filter(EnvFilter::new(&log.filter));
    // To start fails only where somebody else writes records already, which is as good.
    match log.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            _ = builder.try_init();
            Box::new(move |filter| reload_filter(&handle, filter))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            _ = builder.try_init();
            Box::new(move |filter| reload_filter(&handle, filter))
        }
    }
}

fn reload_filter<S>(
    handle: &tracing_subscriber::reload::Handle<EnvFilter, S>,
    filter: &str,
) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| error.to_string())?;
    handle.reload(filter).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
