//! `plugin build`: from sources to a component, once or at each change, and into a node.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use cachecluster::{
    config::Config,
    workbench::{
        build::{BuildError, Tools, Watch, build as make, install},
        project::Project,
    },
};
use clap::Args;
use tokio::{runtime::Builder, signal::ctrl_c, task::spawn_blocking};

use super::{Exit, Failure, subject::Subject};
use crate::cli::{
    load,
    output::{chain, complain, print},
};

/// Time for a node to take a connection and the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a node to load a component, which it compiles first.
const RELOAD_TIMEOUT: Duration = Duration::from_mins(5);

/// The longest answer of a node.
const ANSWER_MAX: u64 = 64 << 10;

/// What to build, and where to.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct Options {
    /// The project's folder, or its manifest
    #[arg(value_name = "DIR", default_value = ".")]
    path: PathBuf,
    /// Build again at each change of a source, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Put the component here too, where a node has it, and have the node load it
    #[arg(long, value_name = "FILE")]
    install: Option<PathBuf>,
    /// Admin address of that node [default: that of the settings, see --config]
    #[arg(long, value_name = "ADDRESS", requires = "install")]
    admin: Option<SocketAddr>,
    /// The plugin's name in that node [default: that of the manifest]
    #[arg(long = "as", value_name = "NAME", requires = "install")]
    name: Option<String>,
}

/// Builds, and goes on building if asked to. `settings` is the node's file.
pub(super) fn build(options: &Options, settings: &Path) -> Result<(), Failure> {
    let admin = match (options.admin, &options.install) {
        (Some(admin), _) => Some(admin),
        (None, Some(_)) => Some(admin_of(settings)?),
        (None, None) => None,
    };
    let tools = Arc::new(Tools::default());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let work = {
        let (options, tools) = (options.clone(), Arc::clone(&tools));
        runtime.block_on(async {
            let work = spawn_blocking(move || work(&options, admin, &tools));
            tokio::select! {
                done = work => Some(done),
                _ = ctrl_c() => None,
            }
        })
    };
    // A thread that waits for a change is not waited for.
    runtime.shutdown_background();
    if let Some(done) = work {
        return done.map_err(|error| anyhow!("the build panicked: {error}"))?;
    }
    tools.stop();
    if options.watch { Ok(()) } else { Err(BuildError::Stopped.into()) }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Other(error.into())
    }
}

fn work(options: &Options, admin: Option<SocketAddr>, tools: &Tools) -> Result<(), Failure> {
    let project = Subject::of(&options.path).open()?;
    if !options.watch {
        return once(options, &project, admin, tools);
    }
    // Before the first build, so that no change is missed.
    let mut watch = Watch::begin(&project.folder).context("watch the sources")?;
    loop {
        // The manifest may have changed too.
        match Subject::of(&options.path)
            .open()
            .and_then(|project| once(options, &project, admin, tools))
        {
            Err(Failure::Other(error)) => complain(&format!("✗ build    {}", chain(&error))),
            Err(Failure::Settings(reports)) => complain(&reports.render(false)),
            Ok(()) | Err(Failure::Said(_)) => {}
        }
        if !watch.wait() {
            return Err(
                anyhow!("the sources are not watched any longer: is the folder gone?").into()
            );
        }
    }
}

/// Builds once, and brings what was built to the node.
fn once(
    options: &Options,
    project: &Project,
    admin: Option<SocketAddr>,
    tools: &Tools,
) -> Result<(), Failure> {
    let component = make(project, tools)?;
    let (file, size) = (project.component.display(), component.len());
    print(&format!("✓ build    {file}  {size} bytes\n"))?;
    let (Some(path), Some(admin)) = (&options.install, admin) else { return Ok(()) };
    if !is_same(path, &project.component) {
        install(&component, path)?;
        print(&format!("✓ install  {}\n", path.display()))?;
    }
    let name = options.name.clone().unwrap_or_else(|| project.name());
    match reload(admin, &name) {
        Ok(outcome) => print(&format!("✓ reload   {name}  {outcome}\n"))?,
        Err(error) => {
            complain(&format!("✗ reload   {name}  {}", chain(&error)));
            return Err(Failure::Said(Exit::Failed));
        }
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// The admin address in the settings, or that of a node without any.
fn admin_of(settings: &Path) -> Result<SocketAddr, Failure> {
    let config = if settings.exists() { load(settings)?.config } else { Config::default() };
    Ok(config.admin.listen)
}

/// Has the node at `admin` load the plugin `name` from its file, and tells what came of it.
fn reload(admin: SocketAddr, name: &str) -> anyhow::Result<String> {
    let ask = || -> io::Result<String> {
        let mut node = TcpStream::connect_timeout(&admin, CONNECT_TIMEOUT)?;
        node.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        node.set_read_timeout(Some(RELOAD_TIMEOUT))?;
        // Of version 1.0, so that the answer is not in chunks and ends with the connection.
        let request = format!(
            "POST /plugins/{name}/reload HTTP/1.0\r\nhost: {admin}\r\ncontent-length: 0\r\n\r\n"
        );
        node.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        node.take(ANSWER_MAX).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer =
        ask().with_context(|| format!("no node answers at {admin}; name it by --admin"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    let said = said(body);
    match status {
        Some(200..=299) => Ok(said),
        Some(404) if said.is_empty() => {
            Err(anyhow!("the node has no such plugin; name it by --as"))
        }
        Some(_) => Err(anyhow!("{said}")),
        None => Err(anyhow!("what answers at {admin} is no node")),
    }
}

/// What an answer says for people: the detail of a problem, or all of a short text.
fn said(body: &str) -> String {
    let json = serde_json::from_str::<serde_json::Value>(body).ok();
    let texts = ["detail", "outcome", "message", "title"];
    let text = json.as_ref().and_then(|json| texts.iter().find_map(|key| json.get(key)?.as_str()));
    text.unwrap_or(body.trim()).to_owned()
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead as _, net::TcpListener, thread};

    use super::*;

    fn answered(answer: &'static str) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut line = String::new();
                io::BufReader::new(&stream).read_line(&mut line).expect("a request");
                assert!(line.starts_with("POST /plugins/items/reload "), "{line}");
                stream.write_all(answer.as_bytes()).expect("written");
            });
            reload(address, "items")
        })
    }

    #[test]
    fn a_node_says_what_came_of_a_reload() {
        let done = answered("HTTP/1.1 200 OK\r\n\r\n{\"outcome\": \"loaded\"}").expect("done");
        assert_eq!(done, "loaded");
        let refused = answered("HTTP/1.1 409 Conflict\r\n\r\n{\"detail\": \"it is empty\"}");
        assert_eq!(refused.expect_err("refused").to_string(), "it is empty");
        assert!(answered("what?").is_err());
    }
}
