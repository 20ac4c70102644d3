//! What a guest can see and reach.

use std::io::Write;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use acpbox::vm::{BootError, Mount, Outcome};

use super::*;

#[tokio::test]
async fn the_environment_of_the_host_cannot_be_seen() {
    // Set by cargo for every test: a secret as good as any.
    let canary = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let seen = guest
        .succeed("env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'")
        .await;
    assert!(seen.contains("PATH="), "{seen}");
    assert!(!seen.contains(&canary), "{seen}");
    assert!(!seen.contains("CARGO"), "{seen}");
    guest.stop().await;
}

#[tokio::test]
async fn files_of_the_host_cannot_be_seen() {
    let lab = Lab::new();
    let secret = lab.path().join("secret");
    std::fs::write(&secret, "canary").unwrap();
    std::os::unix::fs::symlink(&secret, lab.workspace().join("link")).unwrap();
    let guest = lab.boot("one").await;
    guest.fail(&format!("cat {}", secret.display())).await;
    guest.fail("cat link").await;
    let home = std::env::var("HOME").unwrap();
    guest
        .fail(&format!("ls {home}/.cargo {home}/.profile"))
        .await;
    guest.fail("cat /etc/shadow").await;
    guest.fail("ls /etc/ssl/private /etc/ssh").await;
    assert_eq!(guest.succeed("ls /home").await, "agent");
    guest.stop().await;
}

#[tokio::test]
async fn processes_of_the_host_cannot_be_seen() {
    let lab = Lab::new();
    let mark = unique_sleep();
    let mut process = std::process::Command::new("sleep")
        .arg(&mark)
        .spawn()
        .unwrap();
    eventually("it runs", PATIENCE, || alive(&mark) == [process.id()]);
    let guest = lab.boot("one").await;
    let seen = guest
        .succeed("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'")
        .await;
    assert!(!seen.contains(&mark), "{seen}");
    guest.fail(&format!("kill -0 {}", process.id())).await;
    process.kill().unwrap();
    process.wait().unwrap();
    guest.stop().await;
}

#[tokio::test]
async fn a_second_vm_cannot_see_the_first_home() {
    let lab = Lab::new();
    let first = lab.boot("first").await;
    let second = lab.boot("second").await;
    first
        .succeed("echo canary > ~/secret; echo canary > /tmp/secret")
        .await;
    second.fail("cat ~/secret").await;
    second.fail("cat /tmp/secret").await;
    let state = lab.path().join("vms");
    second.fail(&format!("ls {}", state.display())).await;
    let mark = unique_sleep();
    let spec = first.shell(&format!("exec sleep {mark}"));
    let process = first.spawn(spec).await.unwrap();
    let seen = second
        .succeed("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'")
        .await;
    assert!(!seen.contains(&mark), "{seen}");
    process.control.kill();
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn processes_of_one_vm_share_files_and_see_each_other() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    guest
        .succeed("echo a > ~/home; echo b > /tmp/temp; echo c > shared")
        .await;
    assert_eq!(
        guest.succeed("cat ~/home /var/tmp/temp shared").await,
        "a\nb\nc"
    );
    let on_the_host = std::fs::read_to_string(lab.workspace().join("shared")).unwrap();
    assert_eq!(on_the_host, "c\n");
    let mark = unique_sleep();
    let spec = guest.shell(&format!("exec sleep {mark}"));
    let process = guest.spawn(spec).await.unwrap();
    guest.succeed(&format!("pkill -f 'sleep {mark}'")).await;
    assert_eq!(ended(process.exit).await, Exit::Signal(15));
    guest.stop().await;
}

#[tokio::test]
async fn the_home_outlives_a_reboot_and_temporary_files_do_not() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    guest
        .succeed("echo kept > ~/file; echo lost > /tmp/file")
        .await;
    guest.stop().await;
    let guest = lab.boot("one").await;
    assert_eq!(guest.succeed("cat ~/file").await, "kept");
    guest.fail("cat /tmp/file").await;
    guest.stop().await;
}

#[tokio::test]
async fn two_guests_of_one_name_do_not_disturb_each_other() {
    let lab = Lab::new();
    let first = lab.boot("one").await;
    first.succeed("echo busy > /tmp/file").await;
    let second = lab.boot("one").await;
    assert_eq!(second.succeed("cat /tmp/file").await, "busy");
    second.stop().await;
    assert_eq!(first.succeed("cat /tmp/file").await, "busy");
    first.stop().await;
}

#[tokio::test]
async fn the_user_is_agent_without_any_privilege() {
    let lab = Lab::new();
    let guest = lab.boot("my-vm").await;
    assert_eq!(
        guest
            .succeed("id -un; id -u; id -gn; echo ~; hostname")
            .await,
        "agent\n1000\nagent\n/home/agent\nmy-vm"
    );
    let status = guest.succeed("cat /proc/self/status").await;
    for line in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert!(
            status.contains(&format!("{line}:\t0000000000000000")),
            "{status}"
        );
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    guest.stop().await;
}

#[tokio::test]
async fn the_system_cannot_be_written_or_remounted() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    for path in [
        "/usr/canary",
        "/etc/canary",
        "/canary",
        "/run/acpbox/acpbox",
    ] {
        guest.fail(&format!("echo x > {path}")).await;
    }
    guest.fail("mount -o remount,rw /usr").await;
    guest.fail("mount -o remount,bind,rw /usr").await;
    guest.fail("umount /usr/canary /etc/passwd").await;
    guest.fail("unshare --user --map-root-user true").await;
    // The host's root owns these, and is this guest's user when it runs acpbox.
    for setting in [
        "sys/kernel/core_pattern",
        "sys/kernel/printk",
        "sysrq-trigger",
    ] {
        guest.fail(&format!(": >> /proc/{setting}")).await;
    }
    guest.stop().await;
}

#[tokio::test]
async fn the_first_process_cannot_be_traced_or_killed() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    guest.fail("readlink /proc/1/fd/3 /proc/1/exe").await;
    guest.fail("cat /proc/1/environ").await;
    guest.fail("head -c 1 /proc/1/mem").await;
    guest.fail("ls /proc/1/root/").await;
    // pidfd_getfd(pidfd_open(1), 3)
    let steal = "$p = syscall(434, 1, 0); die if $p < 0; exit(syscall(438, $p, 3, 0) < 0)";
    let (output, exit) = guest.run(&format!("perl -e '{steal}'")).await;
    assert_eq!(exit, Exit::Code(1), "{output}");
    guest.run("kill -9 1; kill -STOP 1; kill -TERM 1").await;
    guest.succeed("true").await;
    guest.stop().await;
}

#[tokio::test]
async fn only_a_full_network_reaches_the_host() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'");
    let lab = Lab::new();
    let full = lab.boot("full").await;
    full.succeed(&connect).await;
    full.stop().await;
    let none = lab
        .boot_with(VmSpec {
            network: Network::None,
            ..lab.spec("none")
        })
        .await;
    none.fail(&connect).await;
    let interfaces = none.succeed("tail -n +3 /proc/net/dev | cut -d: -f1").await;
    assert_eq!(interfaces, "lo");
    // Its own loopback works.
    none.succeed(
        "perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(Listen => 1, LocalAddr => \
         \"127.0.0.1:0\") or die; IO::Socket::INET->new(PeerAddr => \"127.0.0.1:\" . \
         $l->sockport) or die'",
    )
    .await;
    none.stop().await;
}

#[tokio::test]
async fn abstract_sockets_of_the_host_are_closed_where_the_kernel_can() {
    let name = format!("acpbox-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let checks = named("namespace").probe().await;
    let check = checks
        .iter()
        .find(|check| check.what == "abstract sockets")
        .unwrap();
    let connect = format!(
        "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); \
         connect(S, pack_sockaddr_un(\"\\0{name}\")) or die $!'"
    );
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let (output, exit) = guest.run(&connect).await;
    let closed = matches!(check.outcome, Outcome::Good(_));
    assert_eq!(exit != Exit::Code(0), closed, "{output} {check:?}");
    guest.stop().await;
}

#[tokio::test]
async fn mounts_are_what_they_say() {
    let lab = Lab::new();
    let cache = lab.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("file"), "old").unwrap();
    let mount = |guest: &str, writable| Mount {
        host: cache.clone(),
        guest: guest.into(),
        writable,
    };
    let guest = lab
        .boot_with(VmSpec {
            mounts: vec![
                mount("/opt/cache", false),
                mount("/home/agent/.cache/it", true),
            ],
            ..lab.spec("one")
        })
        .await;
    guest.fail("echo new > /opt/cache/file").await;
    guest.fail("mount -o remount,bind,rw /opt/cache").await;
    guest.succeed("echo new > ~/.cache/it/file").await;
    assert_eq!(guest.succeed("cat /opt/cache/file").await, "new");
    guest.stop().await;
}

#[tokio::test]
async fn what_must_not_be_shared_is_refused() {
    let lab = Lab::new();
    let boot = async |spec: VmSpec| match named("namespace").boot(spec).await {
        Err(BootError::Host { what, mend }) => format!("{what}; {mend}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it booted"),
    };
    let sharing = |path: &Path| VmSpec {
        workspaces: vec![path.to_owned()],
        ..lab.spec("one")
    };
    let text = boot(sharing(lab.path())).await;
    assert!(text.contains("acpbox's own state"), "{text}");
    for path in ["/", "/usr", "/tmp"] {
        let text = boot(sharing(Path::new(path))).await;
        assert!(text.contains("cannot be a workspace"), "{text}");
    }
    let text = boot(sharing(&lab.path().join("absent"))).await;
    assert!(text.contains("cannot be opened"), "{text}");
}

#[tokio::test]
async fn a_guest_that_cannot_boot_says_why_and_leaves_nothing() {
    let lab = Lab::new();
    let spec = VmSpec {
        mounts: vec![Mount {
            host: lab.workspace(),
            guest: "/usr/no/such/folder".into(),
            writable: true,
        }],
        protected: vec![".claude".into()],
        ..lab.spec("one")
    };
    let Err(error) = named("namespace").boot(spec).await else {
        panic!("it booted");
    };
    assert!(error.to_string().contains("/usr/no"), "{error}");
    assert!(!lab.workspace().join(".claude").exists());
}

#[tokio::test]
async fn a_root_folder_replaces_the_system() {
    let lab = Lab::new();
    let root = lab.path().join("root");
    std::fs::create_dir_all(root.join("opt/other")).unwrap();
    let programs = ["/bin/bash", "/bin/cat", "/bin/ls", "/usr/bin/id"];
    let listed = std::process::Command::new("ldd")
        .args(programs)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with("/lib") && !word.ends_with(':'));
    for file in programs.into_iter().chain(libraries) {
        let to = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, to).unwrap();
    }
    std::fs::create_dir(root.join("etc")).unwrap();
    let mut motd = File::create(root.join("etc/motd")).unwrap();
    motd.write_all(b"another system\n").unwrap();
    std::fs::write(root.join("etc/passwd"), "").unwrap();
    let guest = lab
        .boot_with(VmSpec {
            root: Root::Folder(root),
            mounts: vec![Mount {
                host: lab.workspace(),
                guest: "/opt/mounted".into(),
                writable: true,
            }],
            ..lab.spec("one")
        })
        .await;
    assert_eq!(guest.succeed("cat /etc/motd").await, "another system");
    assert_eq!(guest.succeed("id -un").await, "agent");
    guest.fail("ls /usr/share").await;
    guest.fail("echo x > /etc/motd").await;
    guest.fail("echo x > /opt/other/file").await;
    guest
        .succeed("echo x > /opt/mounted/file; echo y > ~/file; echo z > /tmp/file")
        .await;
    guest.stop().await;
}

#[tokio::test]
async fn the_probe_says_what_works() {
    let checks = named("namespace").probe().await;
    let bad: Vec<_> = checks
        .iter()
        .filter(|check| matches!(check.outcome, Outcome::Bad(_)))
        .collect();
    assert!(bad.is_empty(), "the other tests boot guests, yet {bad:?}");
    assert!(checks.iter().any(|check| check.what == "user namespaces"));
}
