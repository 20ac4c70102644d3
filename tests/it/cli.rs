//! The command line, through the real binary with files of its own.

mod agents;
mod doctor;
mod run;
mod sessions;
pub mod terminal;
mod vms;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// For a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A home, a state and a configuration folder, and a workspace beside them.
pub struct Place {
    folder: TempDir,
    workspace: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            workspace: tempfile::tempdir().unwrap(),
        };
        for name in ["home", "state", "config/acpbox", "run"] {
            std::fs::create_dir_all(place.folder.path().join(name)).unwrap();
        }
        place
    }

    pub fn workspace(&self) -> PathBuf {
        self.workspace.path().canonicalize().unwrap()
    }

    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder.path().join("config/acpbox/config.toml"), text).unwrap();
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `acpbox` in the workspace, with this environment and no other.
    pub fn command(&self, args: &[&str]) -> Command {
        self.environment(Command::new(env!("CARGO_BIN_EXE_acpbox")), args)
    }

    pub fn environment(&self, mut command: Command, args: &[&str]) -> Command {
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.file("home"))
            .env("XDG_STATE_HOME", self.file("state"))
            .env("XDG_CONFIG_HOME", self.file("config"))
            .env("XDG_RUNTIME_DIR", self.file("run"))
            .current_dir(self.workspace.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn acpbox(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    /// `acpbox run` with the example agent.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.acpbox(&[&["run", "--agent", "example"], args].concat())
    }

    pub fn acpbox_with_input(&self, args: &[&str], input: &[u8]) -> Ended {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    }

    /// A session of one prompt; its id.
    pub fn session(&self, prompt: &str) -> String {
        let ended = self.run(&["--format", "json", prompt]);
        let id = ended.json()["sessionId"].as_str().map(str::to_owned);
        id.unwrap_or_else(|| panic!("{ended:?}"))
    }

    /// Starts a turn that takes long, and waits until it speaks.
    pub fn long_turn(&self, args: &[&str]) -> Running {
        let all = [&["run", "--agent", "example"], args, &["[[slow:600]]"]].concat();
        let mut child = self.command(&all).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut begun = vec![0; "chunk0 ".len()];
        stdout.read_exact(&mut begun).unwrap();
        Running {
            child,
            stdout,
            begun: String::from_utf8(begun).unwrap(),
        }
    }

    /// The one session that is stored.
    pub fn only_session(&self) -> Value {
        let all = self.acpbox(&["sessions", "list", "--json"]).json();
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
        all[0].clone()
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Failed with this code, and said something with these words.
    #[track_caller]
    pub fn expect_words(self, code: i32, words: &[&str]) -> Self {
        let ended = self.expect(code);
        for word in words {
            assert!(ended.stderr.contains(word), "no `{word}` in {ended:?}");
        }
        ended
    }
}

/// A command whose output has begun.
pub struct Running {
    pub child: Child,
    stdout: BufReader<ChildStdout>,
    begun: String,
}

impl Running {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Waits until standard error has a line with these words.
    pub fn wait_for_stderr(&mut self, words: &str) {
        let mut stderr = BufReader::new(self.child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains(words) {
            let count = stderr.read_line(&mut seen).unwrap();
            assert_ne!(count, 0, "no `{words}` in {seen}");
        }
        // Kept open: a closed one would be another test.
        self.child.stderr = Some(stderr.into_inner());
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        self.stdout.read_to_string(&mut self.begun).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Ended {
            stdout: self.begun,
            ..Ended::of(output)
        }
    }
}

/// Waits until something holds; there is nothing else to wait on.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn wrong_usage_is_told_and_ends_with_2() {
    let place = Place::new();
    let check = |args: &[&str], words: &[&str]| {
        place.acpbox(args).expect_words(2, words);
    };
    check(&["bogus"], &["unrecognized subcommand"]);
    check(&["run", "--agent", "example"], &["nothing to ask"]);
    check(
        &["run", "--agent", "exmple", "x"],
        &["did you mean `example`"],
    );
    check(&["run", "--yes", "--deny", "x"], &["cannot be used with"]);
    check(
        &["run", "--agent", "example", "--cwd", "/nowhere", "x"],
        &["/nowhere"],
    );
    check(
        &["run", "--session", "999", "x"],
        &["`999`", "sessions list"],
    );
    check(
        &["run", "--agent", "example", "--vm", "other", "x"],
        &["[vms.other]"],
    );
    check(&["sessions", "show", ""], &["no session"]);
    check(&["sessions", "delete"], &["<ID>"]);
    check(&["sessions", "list", "--limit", "0"], &["--limit"]);
    check(&["logs", "nope"], &["`nope`"]);
    check(&["agents", "show", "cloude"], &["did you mean `claude`"]);
    check(&["vms", "stop", "nope"], &["vms list"]);
    check(&["completions", "tcsh"], &["bash"]);
    check(
        &["--config", "/nowhere.toml", "vms", "list"],
        &["/nowhere.toml"],
    );
    place.configure("[defalts]\n");
    check(&["sessions", "list"], &["defaults"]);
}

#[test]
fn completions_are_made_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.acpbox(&["completions", shell]).expect(0).stdout;
        assert!(script.contains("sessions"), "{shell}: {script}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let place = Place::new();
    for args in [
        &["completions", "bash"][..],
        &["agents", "list"],
        &["schema"],
    ] {
        let mut child = place.command(args).spawn().unwrap();
        drop(child.stdout.take());
        let ended = Ended::of(child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ended.stderr, "", "{args:?}");
    }
}
