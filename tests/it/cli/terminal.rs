//! What only a terminal shows: questions, colours, the progress line, raw mode.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::Place;

/// acpbox with a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    slave: File,
    seen: String,
}

impl Terminal {
    fn start(place: &Place, args: &[&str]) -> Self {
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
        setsid.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_acpbox")]);
        let child = place
            .environment(setsid, args)
            .env("TERM", "xterm")
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
    fn wait_for(&mut self, words: &str) {
        while !self.seen.contains(words) {
            let mut bytes = [0; 4096];
            let count = self.master.read(&mut bytes).unwrap();
            self.seen
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the end; the exit code and all that was seen.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        // What is left in the terminal, which has no end while a slave is open.
        self.slave.write_all(b"THE END").unwrap();
        self.wait_for("THE END");
        (code, self.seen)
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
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("Write a.txt"), "{seen}");
    let written = std::fs::read_to_string(place.workspace().join("a.txt")).unwrap();
    assert_eq!(written, "new");

    let args = ["run", "--agent", "example", "[[write:b.txt|new]]"];
    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("Enter refuses: ");
    terminal.type_in("\n");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(!place.workspace().join("b.txt").exists());
}

#[test]
fn ctrl_c_at_a_question_cancels_the_turn() {
    let place = Place::new();
    let args = ["run", "--agent", "example", "[[write:a.txt|new]]"];
    let mut terminal = Terminal::start(&place, &args);
    terminal.wait_for("Enter refuses: ");
    terminal.type_in("\x03");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(4), "{seen}");
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
    let (code, seen) = Terminal::start(&place, &args).end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains("ab") && !seen.contains("\x1b]52"), "{seen:?}");
    assert!(seen.contains("\x1b[3"), "colours: {seen:?}");
}

#[test]
fn a_shell_has_a_terminal_of_the_same_size_and_gives_ours_back() {
    let place = Place::new();
    let mut terminal = Terminal::start(&place, &["vms", "shell"]);
    let before = tcgetattr(&terminal.slave).unwrap().local_modes;
    assert!(before.contains(LocalModes::ECHO));
    terminal.wait_for("$ ");
    terminal.type_in("stty size; tty; echo \"TERM is $TERM\"; exit 9\r");
    terminal.wait_for("TERM is xterm");
    assert!(
        !tcgetattr(&terminal.slave)
            .unwrap()
            .local_modes
            .contains(LocalModes::ECHO)
    );
    let slave = terminal.slave.try_clone().unwrap();
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(9), "{seen}");
    assert!(
        seen.contains("30 100") && seen.contains("/dev/pts/"),
        "{seen}"
    );
    assert_eq!(
        tcgetattr(&slave).unwrap().local_modes,
        before,
        "echo is back"
    );
}
