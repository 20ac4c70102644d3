//! The process of `acpbox serve`.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::setup::{Setup, wait_until};

/// A running `acpbox serve`; killed when it is dropped.
pub struct Server {
    pub child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Server {
    pub fn start(setup: &Setup, arguments: &[&str]) -> Server {
        Server::of(command(setup, arguments))
    }

    pub fn of(mut command: Command) -> Server {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Server { child, errors }
    }

    /// The next address that it says it serves at.
    pub fn address(&mut self) -> String {
        let line = self.hear("serving at ");
        let (_, address) = line.trim().split_once("serving at ").unwrap();
        address.to_owned()
    }

    /// The next line of its stderr that has these words.
    pub fn hear(&mut self, words: &str) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.errors.read_line(&mut line).unwrap() > 0,
                "it ended: {said}"
            );
            if line.contains(words) {
                return line;
            }
            said.push_str(&line);
        }
    }

    /// What is left of its stderr, up to its end.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).unwrap();
        rest
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        assert!(
            wait_until(|| {
                code = self.child.try_wait().unwrap();
                code.is_some()
            }),
            "it does not end"
        );
        code.unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(setup: &Setup, arguments: &[&str]) -> Command {
    let stdio = setup.command();
    let mut command = Command::new(stdio.get_program());
    command.arg("serve").args(arguments).env_clear();
    for (name, value) in stdio.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.current_dir(setup.workspace()).stdin(Stdio::null());
    command
}

pub fn socket(setup: &Setup) -> PathBuf {
    setup.path().join("run/acpbox/acpbox.sock")
}
