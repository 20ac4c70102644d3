//! Who may talk to acpbox over HTTP: the `Host` must be ours, an `Origin` listed
//! or our own page's, and the token in a header, never in a URL.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, HOST, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::websocket::CONNECTION_ID;
use super::{Place, Refused, Site, refusal};

/// The names under which requests may ask for us. Anything else is a web page that
/// had its own name point here.
pub struct Hosts {
    bound: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    /// `given` is the host that was asked to be listened at, `listed` is configured.
    pub fn new(bound: SocketAddr, given: &str, listed: &[String]) -> Hosts {
        let mut names = vec!["localhost".to_owned(), given.to_owned()];
        names.extend_from_slice(listed);
        Hosts {
            bound: bound.ip(),
            names,
        }
    }

    /// Whether a `Host`, with its port or without, is one of them. An address is if
    /// it is listened at, or if all are: nobody can make an address mean another one.
    pub fn allows(&self, host: &str) -> bool {
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let name = match bracketed {
            Some((address, _port)) => address,
            None => host.split(':').next().unwrap_or_default(),
        };
        if let Ok(address) = name.parse::<IpAddr>() {
            return self.bound.is_unspecified() || address == self.bound || self.lists(name);
        }
        self.lists(name.strip_suffix('.').unwrap_or(name))
    }

    fn lists(&self, name: &str) -> bool {
        self.names
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// Checks a request before anything else looks at it.
pub async fn check(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let host = match host(&request) {
        Ok(host) if site.hosts.allows(&host) => host,
        Ok(host) => {
            let why = format!(
                "{host:?} is not served here: use localhost or the address listened at, or list the name in server.hosts"
            );
            return refusal(StatusCode::MISDIRECTED_REQUEST, why);
        }
        Err(why) => return refusal(StatusCode::MISDIRECTED_REQUEST, why),
    };
    let origin = match site.origin(request.headers(), &host) {
        Ok(origin) => origin,
        Err(why) => return refusal(StatusCode::FORBIDDEN, why),
    };
    let has_token = request.uri().query().is_some_and(|query| {
        let mut names = query.split('&').map(|pair| pair.split('=').next());
        names.any(|name| matches!(name, Some("token" | "access_token")))
    });
    if has_token {
        let why = "a token is not accepted in a URL, which is logged and remembered; send it as `Authorization: Bearer TOKEN`, or in `_meta.acpbox.token` of `initialize`; and change it, if it was real";
        return refusal(StatusCode::BAD_REQUEST, why);
    }
    if site.is_known(request.headers())
        && let Some(Place(seat)) = request.extensions().get()
        && let Err(why) = seat.take()
    {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    let is_preflight = request.method() == Method::OPTIONS
        && (request.headers()).contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(_) if is_preflight => preflight(),
        _ => next.run(request).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("acp-connection-id"),
        );
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

impl Site {
    /// Whether a request is surely a client's.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let id = headers.get(CONNECTION_ID).and_then(|id| id.to_str().ok());
        let stands_for_the_token = |id| self.remotes.get(id).is_some_and(|it| it.is_trusted);
        match self.authorized(headers) {
            Ok(is_authorized) => is_authorized || id.is_some_and(stands_for_the_token),
            Err(_wrong) => false,
        }
    }

    /// Whether the right token is in the headers. `Ok(false)` if there is none: then
    /// it may come in `initialize`.
    ///
    /// # Errors
    /// If one is there that is wrong.
    pub fn authorized(&self, headers: &HeaderMap) -> Result<bool, Refused> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = given.next() else {
            return Ok(false);
        };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token {
            Some(token) if given.next().is_none() && self.token.is(token) => Ok(true),
            Some(_) => Err(unauthorized("the token in `Authorization` is wrong")),
            None => Err(unauthorized("`Authorization` must be `Bearer TOKEN`")),
        }
    }

    /// A request that cannot bring its token in any other way must have it here.
    pub fn must_be_authorized(&self, headers: &HeaderMap) -> Result<(), Refused> {
        match self.authorized(headers)? {
            true => Ok(()),
            false => Err(unauthorized(
                "`Authorization: Bearer TOKEN` is missing: clients of this address must know its token",
            )),
        }
    }

    /// A listed origin, for the response to name.
    fn origin(&self, headers: &HeaderMap, host: &str) -> Result<Option<HeaderValue>, String> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            return Ok(None);
        };
        let text = origin.to_str().unwrap_or_default();
        let is_own = text.eq_ignore_ascii_case(&format!("{}://{host}", self.scheme));
        let is_listed = (self.settings.origins.iter())
            .any(|listed| listed.trim_end_matches('/').eq_ignore_ascii_case(text));
        if origins.next().is_some() || !(is_own || is_listed) {
            return Err(format!(
                "web pages of {origin:?} may not talk to acpbox; list the origin in server.origins if they should"
            ));
        }
        Ok((!is_own).then(|| origin.clone()))
    }
}

fn unauthorized(why: &str) -> Refused {
    Refused::new(StatusCode::UNAUTHORIZED, why)
}

/// The `Host`; HTTP/2 has it as `:authority`, and both must agree where both are.
fn host(request: &Request) -> Result<String, &'static str> {
    let mut headers = request.headers().get_all(HOST).iter();
    let header = headers.next().map(|host| host.to_str().unwrap_or_default());
    let authority = request.uri().authority().map(|it| it.as_str());
    if headers.next().is_some() {
        return Err("`Host` must be given once");
    }
    match (authority, header) {
        (Some(authority), Some(header)) if !authority.eq_ignore_ascii_case(header) => {
            Err("`Host` and `:authority` must be the same")
        }
        (Some(host), _) | (None, Some(host)) => Ok(host.to_owned()),
        (None, None) => Err("`Host` is missing"),
    }
}

fn preflight() -> Response {
    let allowed = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, acp-connection-id, acp-session-id, last-event-id",
        ),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_served() {
        let hosts = |bound: &str, given: &str, listed: &[&str]| {
            let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
            Hosts::new(bound.parse().unwrap(), given, &listed)
        };
        let local = hosts("127.0.0.1:80", "127.0.0.1", &["Box.example"]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:1",
            "box.example:80",
        ] {
            assert!(local.allows(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.2",
            "[::1]",
            "0.0.0.0",
            "127.0.0.1.nip.io",
            "box.example.evil",
            "[localhost",
            "2130706433",
            "127.1",
        ] {
            assert!(!local.allows(host), "{host}");
        }
        let all = hosts("[::]:80", "devbox", &[]);
        for host in ["devbox", "192.0.2.1:80", "[2001:db8::1]:80"] {
            assert!(all.allows(host), "{host}");
        }
        assert!(!all.allows("rebound.example"));
    }
}
