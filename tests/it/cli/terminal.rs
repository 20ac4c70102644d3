//! What only a terminal shows: questions, colours, the progress line, raw mode.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::Place;

/// A shell that outlives acpbox: the terminal's first process takes it along.
const STAY: &str = r#"trap : INT; "$@"; echo "EXIT $?."; read -r answer"#;

/// acpbox with a terminal of its own.
pub struct Terminal {
    child: Child,
    master: File,
    slave: File,
    pub seen: String,
}

impl Terminal {
    fn start(place: &Place, args: &[&str]) -> Self {
        Self::start_with(place, args, &[])
    }

    fn start_with(place: &Place, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_by(args, |command, args| {
            let mut command = place.environment(command, args);
            command.env("TERM", "xterm").envs(env.iter().copied());
            command
        })
    }

    /// `prepare` adds the arguments and the environment.
    pub fn start_by(args: &[&str], prepare: impl FnOnce(Command, &[&str]) -> Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let size = Winsize {
            ws_row: 30,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).unwrap();
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let mut setsid = Command::new("setsid");
        setsid.args(["--ctty", "--wait", "sh", "-c", STAY, "sh"]);
        setsid.arg(env!("CARGO_BIN_EXE_acpbox"));
        let child = prepare(setsid, args)
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        Self {
            child,
            master: File::from(master),
            slave,
            seen: String::new(),
        }
    }

    /// Reads until the words are on the screen.
    pub fn wait_for(&mut self, words: &str) {
        while !self.seen.contains(words) {
            self.read();
        }
    }

    /// Reads until they have been on it so many times.
    pub fn wait_for_times(&mut self, words: &str, times: usize) {
        while self.seen.matches(words).count() < times {
            self.read();
        }
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.master.read(&mut bytes).unwrap();
        self.seen
            .push_str(&String::from_utf8_lossy(&bytes[..count]));
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end of acpbox, not of its terminal; the exit code.
    pub fn code(&mut self) -> i32 {
        self.wait_for("EXIT ");
        let from = self.seen.rfind("EXIT ").unwrap() + "EXIT ".len();
        while !self.seen[from..].contains('.') {
            self.read();
        }
        let end = from + self.seen[from..].find('.').unwrap();
        self.seen[from..end].parse().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_is_asked_for_permission() {
    let place = Place::new();
    let args = ["run", "--agent", "example", "[[write:a.txt|new]]"];
    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("Enter refuses: ");
    terminal.type_in("nonsense\n");
    terminal.seen.clear();
    terminal.wait_for("Enter refuses: ");
    terminal.type_in("1\n");
    assert_eq!(terminal.code(), 0, "{}", terminal.seen);
    assert!(terminal.seen.contains("Write a.txt"), "{}", terminal.seen);
    let written = std::fs::read_to_string(place.workspace().join("a.txt")).unwrap();
    assert_eq!(written, "new");

    let args = ["run", "--agent", "example", "[[write:b.txt|new]]"];
    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("Enter refuses: ");
    terminal.type_in("\n");
    assert_eq!(terminal.code(), 0, "{}", terminal.seen);
    assert!(!place.workspace().join("b.txt").exists());
}

#[test]
fn ctrl_c_at_a_question_cancels_the_turn() {
    let place = Place::new();
    let args = ["run", "--agent", "example", "[[write:a.txt|new]]"];
    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("Enter refuses: ");
    terminal.type_in("\x03");
    assert_eq!(terminal.code(), 4, "{}", terminal.seen);
    assert!(!place.workspace().join("a.txt").exists());
}

#[test]
fn a_terminal_gets_colours_but_no_control_sequences_of_the_agents() {
    let place = Place::new();
    let args = [
        "run",
        "--agent",
        "example",
        "--yes",
        "[[say:a\x1b]52;c;ZXZpbA==\x07b]] [[write:a.txt|x]]",
    ];
    let mut terminal = Terminal::start(&place, &args);
    assert_eq!(terminal.code(), 0, "{}", terminal.seen);
    let seen = &terminal.seen;
    assert!(seen.contains("ab") && !seen.contains("\x1b]52"), "{seen:?}");
    assert!(seen.contains("\x1b[3"), "colours: {seen:?}");
}

#[test]
fn no_color_is_honoured() {
    let place = Place::new();
    let args = ["run", "--agent", "example", "--yes", "[[write:a.txt|x]]"];
    let mut terminal = Terminal::start_with(&place, &args, &[("NO_COLOR", "1")]);
    assert_eq!(terminal.code(), 0, "{}", terminal.seen);
    assert!(terminal.seen.contains("Write a.txt"), "{}", terminal.seen);
    assert!(!terminal.seen.contains("\x1b[3"), "{:?}", terminal.seen);
    assert!(!terminal.seen.contains("\x1b[2m"), "{:?}", terminal.seen);
}

#[test]
fn a_table_fits_the_terminal_and_keeps_ids_whole() {
    let place = Place::new();
    let id = place.session(&format!("[[say:{}]]", "long ".repeat(40)));
    let mut terminal = Terminal::start(&place, &["sessions", "list"]);
    assert_eq!(terminal.code(), 0, "{}", terminal.seen);
    let line = terminal.seen.lines().find(|line| line.contains(&id));
    let line = line.unwrap_or_else(|| panic!("{}", terminal.seen));
    assert!(line.trim_end().chars().count() <= 100, "{line}");
    assert!(line.contains('…'), "{line}");
}

#[test]
fn a_shell_has_a_terminal_of_the_same_size_and_gives_ours_back() {
    let place = Place::new();
    let mut terminal = Terminal::start(&place, &["vms", "shell"]);
    let modes = |terminal: &Terminal| tcgetattr(&terminal.slave).unwrap().local_modes;
    let before = modes(&terminal);
    assert!(before.contains(LocalModes::ECHO));
    terminal.wait_for("$ ");
    assert!(
        !modes(&terminal).contains(LocalModes::ECHO),
        "keys are the guest's"
    );
    terminal.type_in("stty size; tty; echo \"TERM is $TERM\"; exit 9\r");
    assert_eq!(terminal.code(), 9, "{}", terminal.seen);
    let seen = &terminal.seen;
    for words in ["30 100", "/dev/pts/", "TERM is xterm"] {
        assert!(seen.contains(words), "no {words} in {seen}");
    }
    assert_eq!(modes(&terminal), before, "the terminal is as it was");
}
