//! What ends a part of a session.

use rustix::process::{Pid, Signal, kill_process};

use super::state::END;
use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    AgentKilled,
    AgentExits,
    AgentStopped,
    /// The first process inside.
    GuestKilled,
    /// bubblewrap, from outside.
    VmKilled,
    AcpboxKilled,
    AcpboxTerminated,
}

pub(super) const ALL: [Fault; 7] = [
    Fault::AgentKilled,
    Fault::AgentExits,
    Fault::AgentStopped,
    Fault::GuestKilled,
    Fault::VmKilled,
    Fault::AcpboxKilled,
    Fault::AcpboxTerminated,
];

impl Fault {
    pub(super) fn takes_the_vm(self) -> bool {
        matches!(self, Fault::GuestKilled | Fault::VmKilled)
    }

    /// Makes it happen to the session of the agent `testy`.
    pub(super) fn strike(self, setup: &Setup, client: &Client) {
        let agent = || {
            let agents = agents(setup);
            assert_eq!(agents.len(), 1, "{agents:?}");
            agents[0]
        };
        let acpbox = i32::try_from(client.child.id()).unwrap();
        let (process, signal) = match self {
            Fault::AgentExits => {
                std::fs::write(setup.workspace().join(END), "").unwrap();
                return;
            }
            Fault::AgentKilled => (agent(), Signal::KILL),
            Fault::AgentStopped => (agent(), Signal::STOP),
            Fault::GuestKilled => (parent(agent()), Signal::KILL),
            Fault::VmKilled => {
                let mut process = agent();
                while parent(process) != acpbox {
                    process = parent(process);
                }
                (process, Signal::KILL)
            }
            Fault::AcpboxKilled => (acpbox, Signal::KILL),
            Fault::AcpboxTerminated => (acpbox, Signal::TERM),
        };
        kill_process(Pid::from_raw(process).unwrap(), signal).unwrap();
    }

    /// Whether this is how the agent's end is told then.
    pub(super) fn explains(self, exit: &str) -> bool {
        match self {
            Fault::AgentKilled => exit == "killed by signal 9",
            Fault::AgentExits => exit == "exit code 0",
            Fault::GuestKilled | Fault::VmKilled => exit.contains("the guest ended"),
            _ => false,
        }
    }
}

/// The living agents `testy` of this set-up, as the host numbers them.
pub(super) fn agents(setup: &Setup) -> Vec<i32> {
    let script = setup.workspace().join(".testy");
    processes(&format!("\0{}\0", script.display()))
        .into_iter()
        // bubblewrap and the guest are told other things.
        .filter(|(_, arguments)| arguments.contains("/testy\0"))
        .map(|(process, _)| process)
        .collect()
}

/// The living processes whose arguments, with a NUL after each, have this in them.
pub(super) fn processes(part: &str) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let with_arguments = ids.filter_map(|id: i32| {
        // A dead one that nobody has taken note of yet has no arguments.
        let arguments = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
        Some((id, String::from_utf8_lossy(&arguments).into_owned()))
    });
    with_arguments
        .filter(|(_, arguments)| arguments.contains(part))
        .collect()
}

fn parent(process: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
    let parent = line.unwrap().parse().unwrap();
    assert!(parent > 1, "{status}");
    parent
}
