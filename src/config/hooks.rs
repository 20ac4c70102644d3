//! `[hooks]`: what acpbox runs when something happens that a person may wait for.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::vm::Scope;
use super::{ConfigError, units};

/// Longer ones would be services, not hooks.
const LONGEST: Duration = Duration::from_secs(600);

/// Commands with their arguments. They run on the host, as you: each gets a JSON
/// object on standard input, and the variables ACPBOX_EVENT and ACPBOX_SESSION.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// A turn has ended, in whatever way.
    pub turn_ended: Vec<String>,
    /// An agent asks for permission, and no rule answers it.
    pub permission_asked: Vec<String>,
    /// An agent has ended though its session was not closed.
    pub agent_exited: Vec<String>,
    /// Show a desktop notification for each of these too, with `notify-send`.
    pub notify: bool,
    /// How long a command may run before it is killed; at most 10m.
    #[serde(deserialize_with = "units::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks {
            turn_ended: Vec::new(),
            permission_asked: Vec::new(),
            agent_exited: Vec::new(),
            notify: false,
            timeout: Duration::from_secs(10),
        }
    }
}

impl Hooks {
    /// The commands by the key that names them; those that are not set are left out.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let all = [
            ("turn_ended", &self.turn_ended),
            ("permission_asked", &self.permission_asked),
            ("agent_exited", &self.agent_exited),
        ];
        let set = all.into_iter().filter(|(_, command)| !command.is_empty());
        set.map(|(key, command)| (key, command.as_slice()))
    }

    /// Whether anything is to be run at all.
    pub fn is_any(&self) -> bool {
        self.notify || self.commands().next().is_some()
    }

    /// Programs are names on PATH, or absolute where they have a `/`.
    pub(super) fn resolved(mut self, scope: &Scope<'_>) -> Result<Hooks, ConfigError> {
        let commands = [
            ("turn_ended", &mut self.turn_ended),
            ("permission_asked", &mut self.permission_asked),
            ("agent_exited", &mut self.agent_exited),
        ];
        for (key, command) in commands {
            let key = format!("hooks.{key}");
            let Some(program) = command.first_mut() else {
                continue;
            };
            if program.is_empty() {
                return Err(scope.wrong(key, "begins with the name of a program".to_owned()));
            }
            if program.contains('/') {
                let path = scope.absolute(program, &key)?;
                *program = path.to_string_lossy().into_owned();
            }
        }
        if self.timeout.is_zero() || self.timeout > LONGEST {
            let problem = "must be more than nothing and at most 10m".to_owned();
            return Err(scope.wrong("hooks.timeout".to_owned(), problem));
        }
        Ok(self)
    }
}
