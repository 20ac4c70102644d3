//! The network policy.

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::*;

/// Programs that reach the listeners of the host, each of which succeeds when
/// nothing is in the way.
fn ways_out(tcp: u16, udp: u16, name: &str) -> [String; 3] {
    [
        format!("exec 3<> /dev/tcp/127.0.0.1/{tcp}"),
        format!("echo out > /dev/udp/127.0.0.1/{udp}"),
        format!(
            "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); \
             connect(S, pack(\"S\", AF_UNIX) . \"\\0{name}\") or exit 1'"
        ),
    ]
}

struct Listeners {
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    name: String,
}

impl Listeners {
    fn start(mark: &str) -> Listeners {
        let name = format!("acpbox-test-{mark}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listeners = Listeners {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            unix: UnixListener::bind_addr(&address).unwrap(),
            name,
        };
        listeners.tcp.set_nonblocking(true).unwrap();
        listeners.udp.set_nonblocking(true).unwrap();
        listeners.unix.set_nonblocking(true).unwrap();
        listeners
    }

    fn ways_out(&self) -> [String; 3] {
        let tcp = self.tcp.local_addr().unwrap().port();
        let udp = self.udp.local_addr().unwrap().port();
        ways_out(tcp, udp, &self.name)
    }

    /// What has arrived at each.
    fn arrived(&self) -> [bool; 3] {
        let is_there = |error: std::io::Error| {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        };
        [
            self.tcp.accept().map_or_else(is_there, |_| true),
            self.udp.recv(&mut [0; 16]).map_or_else(is_there, |_| true),
            self.unix.accept().map_or_else(is_there, |_| true),
        ]
    }
}

#[test]
fn without_a_network_no_packet_leaves() {
    let site = Site::new();
    site.configure("[vms.default]\nnetwork = 'none'\n");
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let listeners = Listeners::start("none");
    for way in listeners.ways_out() {
        inside.run(&mut acpbox, &way);
    }
    assert_eq!(listeners.arrived(), [false; 3]);
    let devices = inside.succeed(&mut acpbox, "tail -n +3 /proc/net/dev");
    assert_eq!(devices.lines().count(), 1, "{devices}");
    assert!(devices.starts_with("lo:"), "{devices}");
    // The guest's own loopback works; names and addresses elsewhere do not.
    inside.succeed(
        &mut acpbox,
        "ping -c 1 127.0.0.1 || grep 0100007F /proc/net/fib_trie || true",
    );
    inside.fail(&mut acpbox, "timeout 5 getent ahosts example.org");
    for address in ["1.1.1.1/53", "169.254.169.254/80"] {
        inside.fail(
            &mut acpbox,
            &format!("timeout 5 bash -c 'exec 3<> /dev/tcp/{address}'"),
        );
    }
    let routes = inside.succeed(&mut acpbox, "tail -n +2 /proc/net/route");
    assert_eq!(routes, "");
}

#[test]
fn with_the_hosts_network_its_loopback_is_reached() {
    let site = Site::new();
    let workspace = site.repository("project");
    let mut acpbox = site.connect(&[]);
    let inside = Inside::open(&mut acpbox, &workspace, json!({}));
    let listeners = Listeners::start("full");
    let [tcp, udp, unix] = listeners.ways_out();
    inside.succeed(&mut acpbox, &tcp);
    inside.succeed(&mut acpbox, &udp);
    // Sockets without a file belong to the network's namespace; Landlock closes
    // them where the kernel can, and nothing else does.
    let (_, code) = inside.run(&mut acpbox, &unix);
    let [tcp, udp, unix] = listeners.arrived();
    assert!(tcp && udp);
    assert_eq!(unix, code == 0);
}
