//! The programs of other languages: finding them, and running them within bounds.
//!
//! Invariants:
//! - a program has a bound of time, and what it started ends with it;
//! - what it says is kept, and shown only when it fails;
//! - a program that is not there is reported with the command that installs it.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::BuildError;

/// Time for one program. The first build of a Rust plugin compiles the standard library
/// too, where there is no target for it.
const TIME_MAX: Duration = Duration::from_mins(20);

/// How much of a program's words is shown: the end, where the error stands.
const WORDS_MAX: u64 = 64 << 10;

/// Runs programs, one at a time, until it is stopped.
#[derive(Debug, Default)]
pub struct Tools {
    running: Mutex<Option<Pid>>,
    is_stopped: AtomicBool,
}

impl Tools {
    /// Ends the program that runs, and lets none run after it.
    pub fn stop(&self) {
        self.is_stopped.store(true, SeqCst);
        if let Some(group) = *self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            kill(group);
        }
    }

    /// Runs `command`, which is there to `purpose`, and gives what it printed.
    pub(super) fn run(&self, mut command: Command, purpose: &str) -> Result<String, BuildError> {
        let unrunnable = |program: &OsStr, error: io::Error| BuildError::Unrunnable {
            program: program.to_string_lossy().into_owned(),
            error,
        };
        let scratch = || tempfile::tempfile().map_err(BuildError::Scratch);
        let (output, words) = (scratch()?, scratch()?);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(BuildError::Scratch)?)
            .stderr(words.try_clone().map_err(BuildError::Scratch)?)
            // A group of its own, so that what it starts can be ended with it.
            .process_group(0);
        let mut child = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_stopped.load(SeqCst) {
                return Err(BuildError::Stopped);
            }
            let child =
                command.spawn().map_err(|error| unrunnable(command.get_program(), error))?;
            *running = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            child
        };
        let group = *self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, ended) = mpsc::sync_channel(1);
        // Waits for no longer than the program runs, which is bounded below.
        thread::spawn(move || done.send(child.wait()));
        let status = match ended.recv_timeout(TIME_MAX) {
            Ok(status) => status,
            Err(RecvTimeoutError::Timeout) => {
                group.into_iter().for_each(kill);
                let purpose = purpose.to_owned();
                return Err(BuildError::TooSlow { purpose, time: TIME_MAX });
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("its end was missed")),
        };
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let status = status.map_err(|error| unrunnable(command.get_program(), error))?;
        if self.is_stopped.load(SeqCst) {
            return Err(BuildError::Stopped);
        }
        if status.success() {
            return end_of(output, u64::MAX).map_err(BuildError::Scratch);
        }
        Err(failed(&command, status, purpose, [output, words]))
    }
}

fn failed(command: &Command, status: ExitStatus, purpose: &str, words: [File; 2]) -> BuildError {
    let said: Vec<_> = words.into_iter().filter_map(|file| end_of(file, WORDS_MAX).ok()).collect();
    let mut line = vec![command.get_program().to_string_lossy()];
    line.extend(command.get_args().map(OsStr::to_string_lossy));
    BuildError::Failed {
        purpose: purpose.to_owned(),
        command: line.join(" "),
        status,
        said: said.concat().trim().to_owned(),
    }
}

/// The last `max` bytes of `file`, as text.
fn end_of(mut file: File, max: u64) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn kill(group: Pid) {
    // Fails where it has ended by itself, which is as good.
    _ = kill_process_group(group, Signal::KILL);
}

/// Where the program `name` is: in the project's own `.venv`, in the environment that
/// is active, or on the `PATH`.
pub(super) fn find(name: &str, folder: &Path) -> Option<PathBuf> {
    let active = env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let environments = std::iter::once(folder.join(".venv")).chain(active);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = environments.map(|environment| environment.join("bin"));
    // A relative folder would be looked for where the program is to run.
    let absolute = |folder: PathBuf| std::path::absolute(folder).ok();
    folders
        .chain(env::split_paths(&path))
        .filter_map(absolute)
        .map(|folder| folder.join(name))
        .find(|file| is_program(file))
}

/// Where `name` is among what npm installed, for the project or for one around it; else
/// on the `PATH`.
pub(super) fn find_npm(name: &str, folder: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    let near = folder.ancestors().map(|folder| folder.join("node_modules/.bin").join(name));
    near.into_iter().find(|file| is_program(file)).or_else(|| find(name, &folder))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_program_says_is_shown_when_it_fails() {
        let tools = Tools::default();
        assert_eq!(tools.run(shell("echo out; echo err >&2"), "greet").expect("ran"), "out\n");
        let error = tools.run(shell("echo why >&2; exit 3"), "greet").expect_err("failed");
        let said = error.to_string();
        assert!(said.contains("to greet") && said.contains("why"), "{said}");
    }

    #[test]
    fn a_program_that_is_stopped_ends_with_all_it_started() {
        let tools = Tools::default();
        let ended = thread::scope(|scope| {
            let ended = scope.spawn(|| tools.run(shell("sleep 600 & wait"), "sleep"));
            while tools.running.lock().expect("a lock").is_none() {
                thread::yield_now();
            }
            tools.stop();
            ended.join().expect("no panic")
        });
        assert!(matches!(ended, Err(BuildError::Stopped)), "{ended:?}");
        assert!(matches!(tools.run(shell("true"), "be"), Err(BuildError::Stopped)));
    }

    #[test]
    fn the_projects_own_programs_come_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let own = folder.path().join(".venv/bin");
        std::fs::create_dir_all(&own).expect("a folder");
        std::os::unix::fs::symlink("/bin/true", own.join("sh")).expect("a link");
        assert_eq!(find("sh", folder.path()), Some(own.join("sh")));
        assert_eq!(find("no-such-program", folder.path()), None);
    }
}
