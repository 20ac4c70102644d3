//! A snapshot of the process environment; nothing else reads it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::ConfigError;

/// The environment as it was when acpbox started.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// The home folder of the user's account, for clients that pass no `HOME`.
    account_home: Option<PathBuf>,
}

impl Environment {
    /// Reads the process environment, and the account's home folder when `HOME` is missing.
    pub fn from_process() -> Environment {
        let variables: BTreeMap<_, _> = std::env::vars_os().collect();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let account_home = home_in_passwd(&passwd, rustix::process::getuid().as_raw());
        Environment {
            variables,
            account_home,
        }
    }

    /// An environment made of these variables alone.
    pub fn from_variables<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Environment
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Environment {
            variables,
            account_home: None,
        }
    }

    /// A variable, unless it is unset or not UTF-8.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(OsStr::new(name))
            .and_then(|value| value.to_str())
    }

    /// `PATH`, empty when unset.
    pub fn path(&self) -> &OsStr {
        self.variables
            .get(OsStr::new("PATH"))
            .map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The user's home folder: `HOME`, else the account's.
    pub fn home(&self) -> Result<&Path, ConfigError> {
        (self.folder("HOME"))
            .or(self.account_home.as_deref())
            .ok_or(ConfigError::NoHome)
    }

    /// The login name, for drivers that run agents as the user.
    pub fn user(&self) -> Option<&str> {
        self.variable("USER").or_else(|| self.variable("LOGNAME"))
    }

    /// A variable that names a folder. The XDG specification says to ignore relative ones.
    pub(super) fn folder(&self, name: &str) -> Option<&Path> {
        let path = Path::new(self.variables.get(OsStr::new(name))?);
        path.is_absolute().then_some(path)
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_set()
            .entries(self.variables.keys())
            .finish()
    }
}

/// The sixth field of the line whose third field is `uid`.
fn home_in_passwd(passwd: &str, uid: u32) -> Option<PathBuf> {
    let uid = uid.to_string();
    (passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>()))
    .find(|fields| fields.get(2) == Some(&uid.as_str()))
    .and_then(|fields| fields.get(5).map(PathBuf::from))
    .filter(|home| home.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_home_is_taken_from_the_account() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000:,,,:/home/me:/bin/bash\n";
        assert_eq!(
            home_in_passwd(passwd, 1000),
            Some(PathBuf::from("/home/me"))
        );
        assert_eq!(home_in_passwd(passwd, 100), None);
        assert_eq!(home_in_passwd("broken\n", 0), None);

        let mut environment = Environment::from_variables([("HOME", "not/absolute")]);
        assert!(environment.home().is_err());
        environment.account_home = Some(PathBuf::from("/home/me"));
        assert_eq!(environment.home().unwrap(), Path::new("/home/me"));
    }

    #[test]
    fn values_do_not_show_when_it_is_logged() {
        let environment = Environment::from_variables([("ANTHROPIC_API_KEY", "sk-secret")]);
        let shown = format!("{environment:?}");
        assert!(
            shown.contains("ANTHROPIC_API_KEY") && !shown.contains("sk-secret"),
            "{shown}"
        );
    }
}
