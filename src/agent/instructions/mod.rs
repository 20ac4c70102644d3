//! What an agent is told about where it runs, and how the text reaches it.

mod channel;
mod delivery;

use std::path::{Path, PathBuf};

use crate::config::VmPlan;
use crate::vm::Network;

pub use channel::{Channel, ChannelError};
pub use delivery::{Delivery, add_to_session_params};

/// The longest text that goes through a variable or an argument. Linux takes
/// 128 KiB for one; longer texts go in front of the first prompt.
const INLINE_BYTES: usize = 96 << 10;

/// The variable in which every agent finds the text.
pub const VARIABLE: &str = "ACPBOX_INSTRUCTIONS";

/// What the base instructions are made of.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub vm: &'a str,
    pub driver: &'a str,
    pub workspaces: &'a [PathBuf],
    pub home: &'a Path,
    pub network: Network,
    pub protected: &'a [PathBuf],
}

impl<'a> Facts<'a> {
    /// The facts of the VM that a session gets.
    pub fn of(plan: &'a VmPlan) -> Facts<'a> {
        Facts {
            vm: &plan.spec.name,
            driver: &plan.driver,
            workspaces: &plan.spec.workspaces,
            home: &plan.guest.home,
            network: plan.spec.network,
            protected: &plan.spec.protected,
        }
    }
}

/// The text for one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instructions {
    /// acpbox's own part.
    pub base: Option<String>,
    /// The client's `additionalInstructions`.
    pub additional: Option<String>,
}

impl Instructions {
    /// `base` is `None` when the client asked to `skipOsInstructions`.
    pub fn new(base: Option<&Facts<'_>>, additional: Option<&str>) -> Instructions {
        let filled = |text: &&str| !text.trim().is_empty();
        Instructions {
            base: base.map(base_text),
            additional: additional.filter(filled).map(str::to_owned),
        }
    }

    /// Both parts; empty when there is nothing to say.
    pub fn text(&self) -> String {
        let parts: Vec<&str> = [&self.base, &self.additional]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        // Neither arguments nor variables can hold a NUL.
        parts.join("\n\n").replace('\0', "")
    }
}

/// The folder in the guest for one session's files: sessions share a home.
pub fn session_folder(session_id: &str) -> PathBuf {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let session = session_id.replace(|character| !plain(character), "_");
    Path::new("/tmp/acpbox").join(session)
}

/// The base instructions.
pub fn base_text(facts: &Facts<'_>) -> String {
    let names = |paths: &[PathBuf]| {
        paths
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Facts {
        vm,
        driver,
        workspaces,
        home,
        network,
        protected,
    } = facts;
    if *driver == "host" {
        return format!(
            "acpbox runs you directly on the user's computer, without isolation. \
             Your workspace is {}.",
            names(workspaces)
        );
    }
    let network = match network {
        Network::Full => "available",
        Network::None => "none, apart from loopback",
    };
    let mut text = format!(
        "You run inside `{vm}`, a virtual machine that acpbox made for this workspace.\n\
         - Workspace: {}. It is shared with the user's computer under the same path; \
         everything else there is out of reach.\n\
         - Kept between sessions: the workspace and your home folder `{}`. \
         The system is read-only; `/tmp` is private.\n\
         - Network: {network}.\n\
         - Other sessions may work in this VM at the same time.",
        names(workspaces),
        home.display(),
    );
    if !protected.is_empty() {
        text.push_str(&format!(
            "\n- Read-only in the workspace, because the user's computer would run or trust them: \
             {}. When a task needs a change there, tell the user what to change.",
            names(protected)
        ));
    }
    text
}

#[cfg(test)]
mod tests;
