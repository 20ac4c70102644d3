//! Finds programs on the host and collects what a guest must be shown of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::config::Environment;
use crate::vm::Mount;

use super::Agent;
use super::layout::{installation, is_system, version_manager};
use super::locate::{Found, LocateError, SYSTEM_PATH, is_in_root, npx_arguments};

/// How far interpreters of interpreters and links of links are followed.
const DEPTH: usize = 8;

/// Collects what is needed while programs are found.
pub(super) struct Search<'a> {
    agent: &'a Agent,
    environment: &'a Environment,
    /// The folders that are searched, in order.
    path: Vec<PathBuf>,
    /// Guest path to host path; they differ where the host has a symlink.
    shown: BTreeMap<PathBuf, PathBuf>,
    /// Programs of the system that were relied upon.
    system: Vec<PathBuf>,
}

impl<'a> Search<'a> {
    pub(super) fn new(agent: &'a Agent, environment: &'a Environment) -> Search<'a> {
        let mut path: Vec<_> = std::env::split_paths(environment.path())
            .filter(|folder| folder.is_absolute())
            .collect();
        // Beside a program given by its path may be the interpreter that it
        // was installed for, as in `node_modules/.bin`.
        let given = Path::new(&agent.command);
        if let Some(folder) = given.parent()
            && given.is_absolute()
            && !path.iter().any(|known| known == folder)
        {
            path.insert(0, folder.to_path_buf());
        }
        Search {
            agent,
            environment,
            path,
            shown: BTreeMap::new(),
            system: Vec::new(),
        }
    }

    /// The agent's own program, else npx.
    pub(super) fn command(&mut self) -> Result<(PathBuf, Vec<String>, Found), LocateError> {
        if let Some(program) = self.find(OsStr::new(&self.agent.command)) {
            let command = self.show(&program)?;
            return Ok((command, self.agent.args.clone(), Found::Installed(program)));
        }
        if !self.agent.npm.is_empty()
            && !self.agent.command.starts_with('/')
            && let Some(npx) = self.find(OsStr::new("npx"))
        {
            let command = self.show(&npx)?;
            return Ok((command, npx_arguments(self.agent), Found::Npx));
        }
        let mend = match &self.agent.install {
            Some(install) => format!("install it with `{install}`, "),
            None => "install it, ".to_owned(),
        };
        Err(LocateError::NotFound {
            agent: self.agent.name.clone(),
            command: self.agent.command.clone(),
            path: self.path_in_words(),
            mend,
            file: self.agent.config_file.clone(),
        })
    }

    pub(super) fn find(&self, command: &OsStr) -> Option<PathBuf> {
        let path = std::env::join_paths(&self.path).ok()?;
        which::which_in(command, Some(path), "/").ok()
    }

    /// Makes a program visible with all that it needs, and returns the path by
    /// which the guest starts it.
    pub(super) fn show(&mut self, program: &Path) -> Result<PathBuf, LocateError> {
        self.show_at(program, DEPTH)
    }

    fn show_at(&mut self, program: &Path, depth: usize) -> Result<PathBuf, LocateError> {
        let real = program
            .canonicalize()
            .unwrap_or_else(|_| program.to_path_buf());
        let script = script(&real);
        if let Some(manager) = version_manager(&real, script.as_deref()) {
            return Err(LocateError::VersionManager {
                agent: self.agent.name.clone(),
                program: program.to_path_buf(),
                manager,
                command: file_name(program),
                file: self.agent.config_file.clone(),
            });
        }
        let hops = links(program);
        for hop in &hops {
            for folder in installation(hop) {
                self.add(&folder, program)?;
            }
        }
        if is_system(&real) {
            self.system.push(real.clone());
        } else if !self.is_visible(&real) {
            self.shown.insert(real.clone(), real.clone());
        }
        // The first name from which every link to the program is there; the
        // program itself always is.
        let reachable = hops
            .iter()
            .rev()
            .take_while(|hop| self.is_visible(hop))
            .last();
        let command = reachable.unwrap_or(&real).clone();
        if let (Some(script), true) = (&script, depth > 0) {
            self.show_interpreter(&real, script, depth)?;
            self.show_wrapped(&real, script, depth)?;
        }
        Ok(command)
    }

    /// `#!/usr/bin/env node`, `#!/home/me/venv/bin/python`
    fn show_interpreter(
        &mut self,
        program: &Path,
        script: &str,
        depth: usize,
    ) -> Result<(), LocateError> {
        let line = script.lines().next().unwrap_or_default();
        let mut words = line.trim_start_matches("#!").split_whitespace();
        let Some(mut interpreter) = words.next() else {
            return Ok(());
        };
        if interpreter.ends_with("/env") {
            // Skips options and assignments of env.
            let named = words.find(|word| !word.starts_with('-') && !word.contains('='));
            let Some(named) = named else { return Ok(()) };
            interpreter = named;
        }
        let Some(found) = self.find(OsStr::new(interpreter)) else {
            return Err(LocateError::Interpreter {
                agent: self.agent.name.clone(),
                program: program.to_path_buf(),
                interpreter: interpreter.to_owned(),
                path: self.path_in_words(),
            });
        };
        self.show_at(&found, depth - 1)?;
        if interpreter.starts_with('/') {
            self.alias(&found);
        }
        Ok(())
    }

    /// A shell script outside any installation that `exec`s something else (as
    /// pnpm and many installers write them): what it names is shown too.
    fn show_wrapped(
        &mut self,
        program: &Path,
        script: &str,
        depth: usize,
    ) -> Result<(), LocateError> {
        let shell = script
            .lines()
            .next()
            .is_some_and(|line| line.trim_end().ends_with("sh"));
        if !shell || is_system(program) || !installation(program).is_empty() {
            return Ok(());
        }
        let base = program
            .parent()
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("exec "))
        {
            for word in line.split_whitespace().skip(1) {
                let word = word.trim_matches(['"', '\'']).replace("$basedir", &base);
                let found = match word.starts_with('/') {
                    true => Some(PathBuf::from(word)).filter(|path| path.is_file()),
                    false if word.starts_with(['$', '-']) => None,
                    false => self.find(OsStr::new(&word)),
                };
                if let Some(found) = found {
                    self.show_at(&normal(&found), depth - 1)?;
                }
            }
        }
        Ok(())
    }

    /// Shows a folder, unless that would show the whole home.
    fn add(&mut self, folder: &Path, program: &Path) -> Result<(), LocateError> {
        let real = folder
            .canonicalize()
            .unwrap_or_else(|_| folder.to_path_buf());
        let home = self.environment.home().map(|home| home.canonicalize());
        let broad = matches!(home, Ok(Ok(home)) if home.starts_with(&real));
        if broad || real == Path::new("/") {
            return Err(LocateError::TooBroad {
                agent: self.agent.name.clone(),
                program: program.to_path_buf(),
                folder: real,
                file: self.agent.config_file.clone(),
            });
        }
        // Under its real name, and under the one by which others refer to it.
        self.shown.insert(real.clone(), real.clone());
        self.shown.insert(folder.to_path_buf(), real);
        Ok(())
    }

    /// Makes a path visible under this very name when a link on the way to it
    /// is missing in the guest.
    fn alias(&mut self, path: &Path) {
        if self.is_visible(path) {
            return;
        }
        let real = |path: &Path| path.canonicalize().ok();
        let folder = path
            .ancestors()
            .skip(1)
            .find(|above| real(above).is_some_and(|real| self.shown.contains_key(&real)));
        let alias = folder.unwrap_or(path);
        if let Some(real) = real(alias) {
            self.shown.insert(alias.to_path_buf(), real);
        }
    }

    fn is_visible(&self, path: &Path) -> bool {
        is_system(path) || path.ancestors().any(|above| self.shown.contains_key(above))
    }

    /// The folders that were searched and are visible in the guest, in that order.
    pub(super) fn guest_path(&self) -> String {
        let real = |folder: &PathBuf| folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let holds_shown = |folder: &Path| {
            self.shown
                .keys()
                .any(|shown| shown.parent() == Some(folder))
        };
        let searched = self.path.iter().map(real);
        let visible = searched.filter(|folder| self.is_visible(folder) || holds_shown(folder));
        let mut path: Vec<PathBuf> = Vec::new();
        for folder in visible.chain(SYSTEM_PATH.map(PathBuf::from)) {
            if !path.contains(&folder) {
                path.push(folder);
            }
        }
        path.iter()
            .map(|folder| folder.to_string_lossy())
            .collect::<Vec<_>>()
            .join(":")
    }

    /// A root folder has its own system; what was found in the host's must be there too.
    pub(super) fn check_root(&self, folder: &Path) -> Result<(), LocateError> {
        match self
            .system
            .iter()
            .find(|program| !is_in_root(folder, program))
        {
            None => Ok(()),
            Some(program) => Err(LocateError::NotInRoot {
                agent: self.agent.name.clone(),
                program: program.clone(),
                root: folder.to_path_buf(),
            }),
        }
    }

    /// Leaves out what lies in another mount.
    pub(super) fn into_mounts(self) -> Vec<Mount> {
        let inside = |guest: &PathBuf, host: &PathBuf| {
            guest.ancestors().skip(1).any(|above| {
                let rest = guest.strip_prefix(above).unwrap_or(guest);
                self.shown
                    .get(above)
                    .is_some_and(|real| real.join(rest) == *host)
            })
        };
        (self.shown.iter())
            .filter(|(guest, host)| !is_system(guest) && !inside(guest, host))
            .map(|(guest, host)| Mount {
                host: host.clone(),
                guest: guest.clone(),
                writable: false,
            })
            .collect()
    }

    fn path_in_words(&self) -> String {
        match self.path.is_empty() {
            true => "which is empty".to_owned(),
            false => self
                .path
                .iter()
                .map(|path| path.to_string_lossy())
                .collect::<Vec<_>>()
                .join(":"),
        }
    }
}

/// A path and what it links to, link by link. Links among the folders on the
/// way are resolved.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut hops = Vec::new();
    let mut next = Some(path.to_path_buf());
    while let Some(path) = next.take().filter(|_| hops.len() < DEPTH) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let hop = folder
            .canonicalize()
            .map_or_else(|_| path.clone(), |folder| folder.join(file_name(&path)));
        next = std::fs::read_link(&hop)
            .ok()
            .map(|target| normal(&hop.parent().unwrap_or(Path::new("/")).join(target)));
        hops.push(hop);
    }
    hops
}

/// Without `.` and `..`; right here because the folders are resolved already.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The beginning of a script; `None` for other programs.
fn script(program: &Path) -> Option<String> {
    let mut start = Vec::new();
    std::fs::File::open(program)
        .ok()?
        .take(16 << 10)
        .read_to_end(&mut start)
        .ok()?;
    start
        .starts_with(b"#!")
        .then(|| String::from_utf8_lossy(&start).into_owned())
}
