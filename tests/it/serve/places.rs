//! What may be at a socket's path, or around it, and who may listen there.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::{Peer, Server, command, socket};
use crate::status;
use crate::support::setup::{Setup, wait_until};

const NOBODY: u32 = 65534;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn pipe(path: &Path) {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &name, rustix::fs::Mode::from(0o600)).unwrap();
}

/// What `acpbox serve` says, which must end by itself and soon.
fn refusal(setup: &Setup) -> String {
    let mut command = command(setup, &[]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let has_ended = wait_until(|| child.try_wait().unwrap().is_some());
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(has_ended, "it serves, or waits: {said}");
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[test]
fn what_is_no_dead_socket_of_ours_is_refused_by_name_and_stays() {
    let setup = Setup::host();
    let path = socket(&setup);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let check = |why: &str| {
        let said = refusal(&setup);
        let expected = format!("{}: {why}", path.display());
        assert!(said.contains(&expected), "{expected}\n{said}");
        std::fs::symlink_metadata(&path).unwrap().file_type()
    };
    let no_socket = "it exists and is no socket; remove it, or name another path";
    let precious = setup.path().join("precious");
    std::fs::write(&precious, "data").unwrap();
    let listener = UnixListener::bind(setup.path().join("live")).unwrap();
    for target in [&precious, &setup.path().join("live"), Path::new("/nowhere")] {
        symlink(target, &path).unwrap();
        assert!(check(no_socket).is_symlink());
        std::fs::remove_file(&path).unwrap();
    }
    drop(listener);
    std::fs::write(&path, "data").unwrap();
    assert!(check(no_socket).is_file());
    std::fs::remove_file(&path).unwrap();
    pipe(&path);
    assert!(check(no_socket).is_fifo());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(check(no_socket).is_dir());
    std::fs::remove_dir(&path).unwrap();

    let datagrams = UnixDatagram::bind(&path).unwrap();
    let theirs = "another program's socket is there; remove it, or name another path";
    assert!(check(theirs).is_socket());
    drop(datagrams);
    std::fs::remove_file(&path).unwrap();

    // One that takes nobody in, until its queue is full.
    let stopped = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&stopped, 0).unwrap();
    let held = UnixStream::connect(&path).unwrap();
    assert!(check("another acpbox serves here already").is_socket());
    drop((stopped, held));
    if rustix::process::getuid().is_root() {
        chown(&path, Some(NOBODY), None).unwrap();
        assert!(check("the socket there is another user's; name another path").is_socket());
        chown(&path, Some(0), None).unwrap();
    }
    // It is dead, and ours.
    let mut server = Server::start(&setup, &[]);
    server.address();
    Peer::unix(&path).initialize(json!({}));
    drop(server);

    let lock = path.with_file_name("acpbox.sock.lock");
    for make in [|lock: &Path| symlink("/nowhere", lock).unwrap(), pipe] {
        std::fs::remove_file(&lock).unwrap();
        make(&lock);
        let said = refusal(&setup);
        assert!(said.contains(&lock.display().to_string()), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "data");
}

#[test]
fn a_folder_in_which_others_may_write_is_refused() {
    let setup = Setup::host();
    let path = socket(&setup);
    let folder = path.parent().unwrap();
    std::fs::create_dir(folder).unwrap();
    for open in [0o777, 0o770, 0o702] {
        mode(folder, open);
        let expected = format!(
            "{}: others may write in its folder; chmod go-w {}, or name another path",
            path.display(),
            folder.display()
        );
        let said = refusal(&setup);
        assert!(said.contains(&expected), "{open:o}: {said}");
    }
    mode(folder, 0o700);
    if rustix::process::getuid().is_root() {
        chown(folder, Some(NOBODY), None).unwrap();
        let expected = format!(
            "{}: its folder is another user's ({NOBODY}); name another path",
            path.display()
        );
        let said = refusal(&setup);
        assert!(said.contains(&expected), "{said}");
        chown(folder, Some(0), None).unwrap();
    }
    assert!(std::fs::read_dir(folder).unwrap().next().is_none());
    // Nobody can rename another's file in a folder as /tmp is.
    mode(folder, 0o1777);
    let mut server = Server::start(&setup, &[]);
    server.address();
    Peer::unix(&path).initialize(json!({}));
}

#[test]
fn a_folder_above_that_others_could_swap_is_refused() {
    let setup = Setup::host();
    let above = setup.path().join("above");
    let own = above.join("own");
    std::fs::create_dir_all(&own).unwrap();
    mode(&own, 0o700);
    let address = format!("unix:{}", own.join("s.sock").display());
    let setup = setup.config(&format!("[server]\nlisten = [{address:?}]\n"));
    let name = above.display();
    let could = |what: String| {
        let said = refusal(&setup);
        assert!(said.contains(&what), "{what}\n{said}");
    };
    let open = format!(
        "others may write in {name} above it, and put another folder there; chmod go-w {name}, or name another path"
    );
    for open_to in [0o777, 0o757] {
        mode(&above, open_to);
        could(open.clone());
    }
    if rustix::process::getuid().is_root() {
        mode(&above, 0o755);
        chown(&above, Some(NOBODY), None).unwrap();
        could(format!(
            "{name} above it is another user's ({NOBODY}), who could put another folder there; name another path"
        ));
        chown(&above, Some(0), None).unwrap();
    }
    // A link does not hide what it is in.
    let links = setup.path().join("links");
    std::fs::create_dir(&links).unwrap();
    mode(&above, 0o755);
    mode(&links, 0o777);
    symlink(&own, links.join("link")).unwrap();
    let through = format!("unix:{}", links.join("link/s.sock").display());
    let output = command(&setup, &["--listen", &through]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let name = links.display().to_string();
    assert!(
        said.contains(&format!("others may write in {name} above it")),
        "{said}"
    );
    // Nobody can rename what is another's in a folder as /tmp is.
    for closed in [0o1777, 0o755, 0o700] {
        mode(&above, closed);
        let mut server = Server::start(&setup, &[]);
        assert_eq!(server.address(), address);
        Peer::unix(&own.join("s.sock")).initialize(json!({}));
    }
}

/// Another user's server, which says what it was told.
struct Theirs(Child);

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clients_tell_another_users_server_nothing() {
    if !rustix::process::getuid().is_root() {
        // Only root can act as another user.
        return;
    }
    let setup = Setup::host();
    let path = socket(&setup);
    let folder = path.parent().unwrap();
    std::fs::create_dir(folder).unwrap();
    for above in folder.ancestors().take_while(|it| *it != Path::new("/tmp")) {
        mode(above, 0o755);
    }
    mode(folder, 0o1777);
    let heard = folder.join("heard");
    let program = "use IO::Socket::UNIX; open(my $h, '>>', $ARGV[1]) or die; $h->autoflush(1);
        my $s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 5) or die $!;
        while (my $c = $s->accept) { print $h 'connected '; while (<$c>) { print $h $_; } }";
    let mut perl = Command::new("perl");
    perl.uid(NOBODY).args(["-e", program]).args([&path, &heard]);
    let _theirs = Theirs(perl.stdin(Stdio::null()).spawn().unwrap());
    assert!(wait_until(|| path.exists()));
    for owner in [NOBODY, 0] {
        // Whoever can move files about can also make one of ours lead there.
        chown(&path, Some(owner), None).unwrap();
        mode(&path, 0o666);
        let output = status::command(&setup, &["status"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("(its socket is another user's)"), "{said}");
        let mut client = setup.connect();
        client.call("session/list", json!({})).unwrap();
        let expected = format!(
            "the server at unix:{} is another user's ({NOBODY})",
            path.display()
        );
        assert!(client.stderr().contains(&expected), "{}", client.stderr());
    }
    let heard = std::fs::read_to_string(&heard).unwrap();
    assert!(
        heard.starts_with("connected ") && !heard.contains('{'),
        "{heard}"
    );
}
