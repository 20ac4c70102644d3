//! What driver `namespace` needs of this host, for `acpbox doctor`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::bubblewrap;
use super::sandbox::isolation;
use crate::vm::guest::scopes_are_supported;
use crate::vm::{BootError, Check, Limits, Network, Outcome, Root, VmSpec, cgroup};

/// How long a trivial guest may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn probe() -> Vec<Check> {
    let mut checks = Vec::new();
    let mut check = |what: &str, outcome| {
        checks.push(Check {
            what: what.to_owned(),
            outcome,
        });
    };
    match bubblewrap::find() {
        Ok(program) => {
            check("bubblewrap", version(&program));
            check("user namespaces", boot(&program));
        }
        Err(error) => check("bubblewrap", Outcome::Bad(error.to_string())),
    }
    check("abstract sockets", abstract_sockets());
    checks.push(cgroup::check());
    checks
}

/// Adds how to mend it to what bubblewrap says when it cannot start a guest.
pub(super) fn explain(error: BootError) -> BootError {
    let BootError::Guest { name, detail } = error else {
        return error;
    };
    let mend = if detail.contains("bwrap: Unknown option") {
        let (major, minor) = bubblewrap::NEEDED;
        format!("upgrade bubblewrap to {major}.{minor} or newer")
    } else if ["namespace", "uid map", "gid map", "proc on /newroot"]
        .iter()
        .any(|hint| detail.contains("bwrap: ") && detail.contains(hint))
    {
        mend_namespaces(|path| fs::read_to_string(path).ok())
    } else {
        return BootError::Guest { name, detail };
    };
    BootError::Host {
        what: format!("the guest of VM `{name}` did not start: {detail}"),
        mend,
    }
}

fn version(program: &Path) -> Outcome {
    let (major, minor) = bubblewrap::NEEDED;
    match bubblewrap::version(program) {
        Some(found) if found >= bubblewrap::NEEDED => {
            Outcome::Good(format!("{} {}.{}", program.display(), found.0, found.1))
        }
        Some(found) => Outcome::Bad(format!(
            "{} is version {}.{}, older than {major}.{minor}; upgrade it",
            program.display(),
            found.0,
            found.1
        )),
        None => Outcome::Bad(format!(
            "{} does not tell its version; {}",
            program.display(),
            bubblewrap::MEND
        )),
    }
}

/// Boots a trivial guest with the isolation of a real one.
fn boot(program: &Path) -> Outcome {
    let spec = VmSpec {
        name: "probe".to_owned(),
        state_dir: "/".into(),
        workspaces: Vec::new(),
        mounts: Vec::new(),
        root: Root::Host,
        network: Network::None,
        limits: Limits::default(),
        protected: Vec::new(),
    };
    let mut arguments = Arguments::default();
    isolation(&mut arguments, &spec);
    arguments.read_only(Path::new("/"), Path::new("/"));
    arguments.add(["--proc", "/proc", "--dev", "/dev", "--", "true"]);
    let started = Instant::now();
    let child = Command::new(program)
        .args(arguments.into_parts().0)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Outcome::Bad(format!("cannot start bubblewrap: {error}")),
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => {
                let took = started.elapsed().as_millis();
                return Outcome::Good(format!("a guest boots ({took} ms)"));
            }
            Ok(Some(_)) | Err(_) => break,
            Ok(None) if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                break;
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    let complaint = child
        .wait_with_output()
        .map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned())
        .unwrap_or_default();
    Outcome::Bad(format!(
        "a guest does not boot ({complaint}); {}",
        mend_namespaces(|path| fs::read_to_string(path).ok())
    ))
}

/// What most likely forbids user namespaces here. `read` gives a kernel
/// setting's text.
fn mend_namespaces(read: impl Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns = 1): \
         install the distribution's `bubblewrap` with its AppArmor profile \
         (`apt-get install bubblewrap apparmor-profiles`), or run \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "run `sysctl kernel.unprivileged_userns_clone=1`"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "run `sysctl user.max_user_namespaces=15000`"
    } else {
        "in a container, allow user namespaces (for example `--security-opt seccomp=unconfined \
         --security-opt systempaths=unconfined`); otherwise ask your administrator for \
         unprivileged user namespaces, or use driver `host`, which isolates nothing"
    }
    .to_owned()
}

/// With the host's network a guest shares its abstract sockets.
fn abstract_sockets() -> Outcome {
    if scopes_are_supported() {
        Outcome::Good("closed to guests (Landlock)".to_owned())
    } else {
        Outcome::Degraded(
            "a guest with network = \"full\" can connect to abstract unix sockets of the host; \
             Linux 6.12 with Landlock closes them, and so does network = \"none\""
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{explain, mend_namespaces};
    use crate::vm::BootError;

    #[test]
    fn an_old_bubblewrap_is_named_as_such() {
        let error = explain(BootError::Guest {
            name: "one".to_owned(),
            detail: "the guest ended: bwrap: Unknown option --disable-userns".to_owned(),
        });
        assert!(
            error.to_string().contains("upgrade bubblewrap to 0.8"),
            "{error}"
        );
        let error = explain(BootError::Guest {
            name: "one".to_owned(),
            detail: "the guest ended: something else".to_owned(),
        });
        assert!(matches!(error, BootError::Guest { .. }), "{error}");
    }

    #[test]
    fn each_restriction_has_its_own_mend() {
        let with = |set: &'static str, value: &'static str| {
            mend_namespaces(move |path| path.ends_with(set).then(|| value.to_owned()))
        };
        assert!(with("apparmor_restrict_unprivileged_userns", "1\n").contains("AppArmor"));
        assert!(with("unprivileged_userns_clone", "0\n").contains("userns_clone=1"));
        assert!(with("max_user_namespaces", "0\n").contains("max_user_namespaces="));
        assert!(with("max_user_namespaces", "100\n").contains("container"));
    }
}
