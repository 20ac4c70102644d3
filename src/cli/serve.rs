//! `acpbox serve`: any number of clients, on sockets.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::args::{Global, ServeArguments};
use super::context::{self, Context};
use super::exit::{self, Code};
use super::output;
use crate::config::Config;
use crate::server::descriptors;
use crate::server::listen::{
    Address, ListenError, Listener, Renewal, TcpSocket, Tls, Token, UnixSocket,
};
use crate::server::service;
use crate::session::retention;

/// The token of clients of TCP on loopback, in the state folder.
pub(super) const OWN_TOKEN: &str = "token";

pub(super) fn run(global: &Global, arguments: &ServeArguments) -> anyhow::Result<Code> {
    if arguments.detached {
        // Without a terminal, and no part of whoever started it. It fails only for a
        // process that leads a group already, whose terminal it does not share then.
        let _ = rustix::process::setsid();
    }
    let mut context = Context::new(global, arguments.agent.as_deref(), arguments.vm.as_deref())?;
    bound_connections(&mut context.config);
    let runtime = context::runtime()?;
    runtime.block_on(async {
        let listeners = listeners(&context.config, arguments).await?;
        let no_guests = own_files(&listeners, arguments);
        context.config.paths.server.extend(no_guests);
        let server = context.server()?;
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let demands = listen_to_signals(&stop, &hurry)?;
        let renewal = tokio::spawn(Renewal::of(&listeners).run(demands));
        for listener in &listeners {
            output::say(&format!("serving at {listener}"));
            if let Listener::Tcp(_) | Listener::Http(_) = listener
                && token_file(&server.host.config, arguments).is_none()
            {
                let own = server.host.config.paths.state_dir.join(OWN_TOKEN);
                output::say(&format!("its clients send the token in {}", own.display()));
            }
        }
        let host = std::sync::Arc::clone(&server.host);
        let keeping = tokio::spawn(retention::keep(std::sync::Arc::clone(&host)));
        service::run(server, listeners, stop, hurry, arguments.detached).await;
        keeping.abort();
        renewal.abort();
        host.shutdown().await;
        Ok(exit::DONE)
    })
}

/// Clients may take half of the descriptors: each session takes five, and what is
/// stored must stay readable.
fn bound_connections(config: &mut Config) {
    let Some(descriptors) = descriptors::raise_limit() else {
        return;
    };
    let most = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
    let asked = config.server.connections;
    if asked > most {
        output::say(&format!(
            "{most} clients at once instead of {asked} (server.connections): the limit of open files is {descriptors} (ulimit -n, LimitNOFILE)"
        ));
        config.server.connections = most;
    }
    // They come on top, and are fewer.
    config.server.handshakes = config.server.handshakes.min((most / 4).max(1));
}

/// What no VM may share: with a socket or the token an agent could approve itself.
fn own_files(listeners: &[Listener], arguments: &ServeArguments) -> Vec<PathBuf> {
    let sockets = listeners.iter().filter_map(|listener| match listener {
        Listener::Unix(socket) => Some(socket.path()),
        Listener::Tcp(_) | Listener::Http(_) => None,
    });
    let token = arguments.token_file.as_deref();
    let named = sockets
        .chain(token)
        .filter_map(|path| std::path::absolute(path).ok());
    named.collect()
}

fn token_file<'a>(config: &'a Config, arguments: &'a ServeArguments) -> Option<&'a Path> {
    let named = arguments.token_file.as_deref();
    named.or(config.server.token_file.as_deref())
}

/// Whether a server could begin by the configuration, as far as can be told without
/// one; `None` where it says nothing of servers.
///
/// # Errors
/// What `acpbox serve` would end with.
pub(super) fn check(config: &Config) -> Option<Result<Vec<String>, ListenError>> {
    let server = &config.server;
    let is_silent = server.listen.is_empty()
        && server.token_file.is_none()
        && server.tls_certificate.is_none()
        && server.tls_key.is_none();
    let checked = || {
        server.token_file.as_deref().map(Token::read).transpose()?;
        tls(server.tls_certificate.as_ref(), server.tls_key.as_ref())?;
        for address in &server.listen {
            address.parse::<Address>()?;
        }
        Ok(server.listen.clone())
    };
    (!is_silent).then(checked)
}

/// What TCP and HTTP are spoken through, if a certificate is named.
fn tls(certificate: Option<&PathBuf>, key: Option<&PathBuf>) -> Result<Option<Tls>, ListenError> {
    let half = |given, missing| Err(ListenError::HalfTls { given, missing });
    match (certificate, key) {
        (Some(certificate), Some(key)) => Tls::read(certificate, key).map(Some),
        (None, None) => Ok(None),
        (Some(_), None) => half("server.tls_certificate", "server.tls_key (--tls-key)"),
        (None, Some(_)) => half(
            "server.tls_key",
            "server.tls_certificate (--tls-certificate)",
        ),
    }
}

/// What systemd passed on, what was asked for, or the socket in the runtime folder.
async fn listeners(config: &Config, arguments: &ServeArguments) -> anyhow::Result<Vec<Listener>> {
    let token = token_file(config, arguments).map(Token::read).transpose()?;
    let own_token = config.paths.state_dir.join(OWN_TOKEN);
    let tls = tls(
        (arguments.tls_certificate.as_ref()).or(config.server.tls_certificate.as_ref()),
        (arguments.tls_key.as_ref()).or(config.server.tls_key.as_ref()),
    )?;
    let mut listeners = inherited(token.as_ref(), &own_token, tls.as_ref())?;
    let given = if arguments.listen.is_empty() {
        &config.server.listen
    } else {
        &arguments.listen
    };
    let mut addresses = given
        .iter()
        .map(|address| address.parse())
        .collect::<Result<Vec<Address>, _>>()?;
    if addresses.is_empty() && listeners.is_empty() {
        addresses.push(Address::Unix(config.paths.socket()));
    }
    for address in addresses {
        listeners.push(match address {
            Address::Unix(path) => Listener::Unix(UnixSocket::bind(&path)?),
            Address::Tls(_) | Address::Https(_) if tls.is_none() => {
                return Err(ListenError::NoTls(address).into());
            }
            Address::Tcp(address) | Address::Tls(address) => {
                std::fs::create_dir_all(&config.paths.state_dir)?;
                let socket = TcpSocket::bind(&address, token.as_ref(), &own_token).await?;
                Listener::Tcp(socket.encrypted(tls.clone()))
            }
            Address::Http(address) | Address::Https(address) => {
                std::fs::create_dir_all(&config.paths.state_dir)?;
                let socket = TcpSocket::bind(&address, token.as_ref(), &own_token).await?;
                Listener::Http(socket.encrypted(tls.as_ref().map(Tls::for_http)))
            }
        });
    }
    Ok(listeners)
}

/// The sockets that systemd opened for this process (`sd_listen_fds(3)`).
fn inherited(
    token: Option<&Token>,
    own_token: &Path,
    tls: Option<&Tls>,
) -> anyhow::Result<Vec<Listener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        if let Ok(Some(socket)) = passed.take_unix_listener(index) {
            socket.set_nonblocking(true)?;
            let socket = UnixListener::from_std(socket)?;
            listeners.push(Listener::Unix(UnixSocket::of(socket)));
        } else if let Some(socket) = passed.take_tcp_listener(index)? {
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            let socket = TcpListener::from_std(socket)?;
            let socket = TcpSocket::of(socket, address, token, own_token)?;
            listeners.push(Listener::Tcp(socket.encrypted(tls.cloned())));
        }
    }
    Ok(listeners)
}

/// The first SIGTERM or SIGINT stops; the next one hurries. SIGHUP is the end of the
/// terminal, which stops too; without a terminal it asks for files to be read again.
fn listen_to_signals(
    stop: &CancellationToken,
    hurry: &CancellationToken,
) -> io::Result<mpsc::Receiver<()>> {
    let has_terminal = std::fs::File::open("/dev/tty").is_ok();
    let (demand, demands) = mpsc::channel(1);
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let mut arrived = signal(kind)?;
        let (stop, hurry, demand) = (stop.clone(), hurry.clone(), demand.clone());
        tokio::spawn(async move {
            while arrived.recv().await.is_some() {
                if kind == SignalKind::hangup() && !has_terminal {
                    // One that waits stands for this one too.
                    let _ = demand.try_send(());
                    continue;
                }
                if stop.is_cancelled() {
                    hurry.cancel();
                }
                stop.cancel();
            }
        });
    }
    Ok(demands)
}
