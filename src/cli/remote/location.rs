//! Where a server is, as a person names it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::cli::exit::Usage;
use crate::server::listen::Address;

/// The schemes, for errors.
const FORMS: &str =
    "`unix:PATH`, `tcp:HOST:PORT` or `http:HOST:PORT` (with TLS `tls:`, `https:` or `wss:`)";

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Location {
    Unix(PathBuf),
    Network(Network),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Network {
    pub(super) speech: Speech,
    pub(super) is_encrypted: bool,
    /// `HOST:PORT`.
    pub(super) place: String,
}

/// What is spoken at an address, through TLS or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Speech {
    /// ACP's messages, one per line.
    Lines,
    /// HTTP, and ACP over a WebSocket.
    Http,
}

impl Location {
    /// Where a server listens that has this among its addresses, with a certificate or
    /// without; `None` if it does not say so itself.
    pub(super) fn of(address: Address, has_certificate: bool) -> Option<Location> {
        let (speech, is_encrypted, place) = match address {
            Address::Unix(path) => return Some(Location::Unix(path)),
            Address::Tcp(place) => (Speech::Lines, has_certificate, place),
            Address::Tls(place) => (Speech::Lines, true, place),
            Address::Http(place) => (Speech::Http, has_certificate, place),
            Address::Https(place) => (Speech::Http, true, place),
        };
        let is_any = place.ends_with(":0");
        (!is_any).then_some(Location::Network(Network {
            speech,
            is_encrypted,
            place,
        }))
    }
}

impl Network {
    /// The host as it is named in a certificate.
    pub(super) fn host(&self) -> &str {
        let host = self.place.rsplit_once(':').map_or("", |(host, _)| host);
        let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        bracketed.unwrap_or(host)
    }

    /// The same place, where something else is spoken.
    pub(super) fn speaking(&self, speech: Speech, is_encrypted: bool) -> Network {
        Network {
            speech,
            is_encrypted,
            place: self.place.clone(),
        }
    }
}

impl FromStr for Location {
    type Err = Usage;

    fn from_str(given: &str) -> Result<Location, Usage> {
        let wrong = |why: &str| {
            Usage(format!(
                "`{given}` is no address of a server: {why}; write {FORMS}"
            ))
        };
        let (scheme, rest) = given
            .split_once(':')
            .ok_or_else(|| wrong("it has no scheme"))?;
        let (speech, is_encrypted, usual_port) = match scheme {
            "unix" if rest.is_empty() => return Err(wrong("its path is empty")),
            "unix" => return Ok(Location::Unix(PathBuf::from(rest))),
            "tcp" => (Speech::Lines, false, None),
            "tls" => (Speech::Lines, true, None),
            "http" | "ws" => (Speech::Http, false, Some("80")),
            "https" | "wss" => (Speech::Http, true, Some("443")),
            _ => return Err(wrong("its scheme is unknown")),
        };
        // As the URL of its page, or of its endpoint.
        let place = rest.strip_prefix("//").unwrap_or(rest);
        let place = place.strip_suffix("/acp").unwrap_or(place);
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains('/') {
            return Err(wrong("it has a path, and acpbox serves at `/acp` only"));
        }
        let has_port = |it: &str| {
            it.rsplit_once(':')
                .is_some_and(|(_, port)| !port.ends_with(']'))
        };
        let place = match usual_port {
            Some(port) if !has_port(place) => format!("{place}:{port}"),
            _ => place.to_owned(),
        };
        match place.rsplit_once(':') {
            Some(("", _)) => Err(wrong("its host is empty")),
            Some((host, _)) if host.contains('@') => Err(wrong("no user belongs into it")),
            Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(Location::Network(Network {
                    speech,
                    is_encrypted,
                    place,
                }))
            }
            _ => Err(wrong("its port is no number from 1 to 65535")),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Location::Network(network) => network.fmt(formatter),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.speech, self.is_encrypted) {
            (Speech::Lines, false) => "tcp",
            (Speech::Lines, true) => "tls",
            (Speech::Http, false) => "http",
            (Speech::Http, true) => "https",
        };
        write!(formatter, "{scheme}:{}", self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_and_browsers_write_them() {
        for (given, meant) in [
            ("unix:/run/a:b", "unix:/run/a:b"),
            ("tcp:[::1]:4711", "tcp:[::1]:4711"),
            ("tls:box:4711", "tls:box:4711"),
            ("https://box.example.org/", "https:box.example.org:443"),
            ("https:box:4712", "https:box:4712"),
            ("ws://[::1]/acp", "http:[::1]:80"),
            ("wss:box:4712", "https:box:4712"),
        ] {
            let read: Location = given.parse().unwrap();
            assert_eq!(read.to_string(), meant, "{given}");
        }
        for (given, why) in [
            ("", "no scheme"),
            ("unix:", "path is empty"),
            ("tcp:localhost", "port is no number"),
            ("tcp:localhost:0", "port is no number"),
            ("tls::80", "host is empty"),
            ("https://box/page", "it has a path"),
            ("https://me@box/", "no user"),
            ("ftp:x:1", "scheme is unknown"),
        ] {
            let said = given.parse::<Location>().unwrap_err().to_string();
            assert!(
                said.contains(why) && said.contains(FORMS),
                "{given}: {said}"
            );
        }
    }
}
