//! The process of a real server that a test starts and ends.

use std::process::{Child, Command, Stdio};

/// A server that is ended when dropped.
#[derive(Debug, Default)]
pub(crate) struct Server(Option<Child>);

impl Server {
    /// Runs `command`, whose output nobody sees, in the place of what ran before.
    pub(crate) fn restart(&mut self, command: &mut Command) {
        self.kill();
        let null = Stdio::null;
        let started = command.stdin(null()).stdout(null()).stderr(null()).spawn();
        let program = || command.get_program().to_string_lossy().into_owned();
        self.0 = Some(started.unwrap_or_else(|error| panic!("to start {}: {error}", program())));
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.0.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// Sends a signal, by the name that `kill` knows it by.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("to run kill");
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
