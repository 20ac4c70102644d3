//! `initialize`: answered at once, before any agent runs, from what is known of
//! the agent in play.

use std::sync::Weak;

use serde_json::{Map, Value, json};

use super::connection::Connection;
use super::dispatch::Answer;
use super::listen::Token;
use crate::acp::failure::{AUTH_REQUIRED, INTERNAL_ERROR};
use crate::acp::{Failure, Phase};
use crate::rpc::{message, splice};
use crate::session::Offer;
use crate::session::create::Refusal;
use crate::session::handshake::own_info;
use crate::session::start::capabilities_key;

impl Connection {
    pub(super) async fn initialize(&self, params: Option<&str>) -> Result<Answer, Refusal> {
        let params = params.unwrap_or("null");
        let Some(members) = splice::members(params) else {
            return Err(Failure::invalid_params(
                "`params` must be an object with `protocolVersion`",
            )
            .into());
        };
        let value = |key: &str| splice::value(&members, key);
        if let Some(token) = &self.gate.token {
            check_token(token, value("_meta"))?;
        }
        let version = value("protocolVersion").unwrap_or("absent");
        // ACP: the agent answers with the latest version it speaks; the client decides.
        if version.parse::<u16>().is_err() {
            let what =
                format!("`protocolVersion` must be a whole number such as 1; it is {version}");
            return Err(Failure::invalid_params(what).into());
        }
        // All that can be wrong is found before the client counts as introduced.
        let agent = self.agent_in_play(value("_meta"))?;
        if let Some(seat) = self.gate.seat.as_ref().and_then(Weak::upgrade) {
            let full = |why| Failure::new(Phase::Request, INTERNAL_ERROR, why);
            seat.take().map_err(full)?;
        }
        self.client.set_offer(Offer::parse(
            value("clientCapabilities"),
            value("clientInfo"),
        ));
        Ok(Answer::Result(self.capabilities(&agent).await.to_string()))
    }

    /// The agent that the client means to use, if it says so; else the default one.
    fn agent_in_play(&self, meta: Option<&str>) -> Result<String, Failure> {
        let host = &self.server.host;
        let named = meta
            .and_then(|meta| splice::member(meta, "acpbox"))
            .and_then(|ours| splice::member(ours, "agent"))
            .filter(|raw| *raw != "null");
        let Some(raw) = named else {
            return Ok(host.config.default_agent.clone());
        };
        let name = message::string(raw)
            .ok_or_else(|| Failure::invalid_params("`_meta.acpbox.agent` must be a string"))?;
        match host.catalog.get(&name) {
            Ok(_) => Ok(name.into_owned()),
            Err(error) => Err(Failure::invalid_params(format!(
                "`_meta.acpbox.agent`: {error}"
            ))),
        }
    }

    async fn capabilities(&self, agent: &str) -> Value {
        let host = &self.server.host;
        let seen = host
            .store
            .setting(&capabilities_key(agent))
            .await
            .ok()
            .flatten();
        let seen: Value = seen
            .and_then(|raw| serde_json::from_str(&raw).ok())
            .unwrap_or_default();
        let mut capabilities = match seen.get("agentCapabilities") {
            Some(Value::Object(theirs)) => theirs.clone(),
            _ => self.known_capabilities(agent),
        };
        // What acpbox does itself, with every agent.
        capabilities.insert("loadSession".into(), true.into());
        let own = [
            "list",
            "resume",
            "fork",
            "close",
            "delete",
            "additionalDirectories",
        ];
        let own: Map<String, Value> = own
            .map(|name| (name.to_owned(), json!({})))
            .into_iter()
            .collect();
        capabilities.insert("sessionCapabilities".into(), own.into());
        // Logging in on a terminal would run the agent's program on the host.
        let methods = seen
            .get("authMethods")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let methods = methods
            .into_iter()
            .filter(|method| method.get("type") != Some(&"terminal".into()));
        let agents: Vec<&str> = host
            .catalog
            .list()
            .map(|agent| agent.name.as_str())
            .collect();
        json!({
            "protocolVersion": 1,
            "agentCapabilities": capabilities,
            "agentInfo": own_info(),
            "authMethods": methods.collect::<Vec<_>>(),
            "_meta": { "acpbox": { "agent": agent, "agents": agents, "agentInfo": seen.get("agentInfo") } },
        })
    }

    /// What the catalogue knows of an agent that has not run yet.
    fn known_capabilities(&self, agent: &str) -> Map<String, Value> {
        let agent = self.server.host.catalog.get(agent).ok();
        let known = agent.and_then(|agent| agent.known);
        let flag = |of: fn(&crate::agent::catalog::KnownCapabilities) -> bool| {
            known.as_ref().is_some_and(of)
        };
        let capabilities = json!({
            "promptCapabilities": {
                "image": flag(|known| known.image),
                "audio": flag(|known| known.audio),
                "embeddedContext": flag(|known| known.embedded_context),
            },
            "mcpCapabilities": {
                "http": flag(|known| known.mcp_http),
                "sse": flag(|known| known.mcp_sse),
            },
        });
        match capabilities {
            Value::Object(capabilities) => capabilities,
            _ => Map::new(),
        }
    }
}

/// Whether `_meta` of `initialize` has the token.
///
/// # Errors
/// What is wrong with it.
pub fn check_token(token: &Token, meta: Option<&str>) -> Result<(), Failure> {
    let given = meta
        .and_then(|meta| splice::member(meta, "acpbox"))
        .and_then(|ours| splice::member(ours, "token"))
        .and_then(message::string);
    let what = match given {
        Some(given) if token.is(&given) => return Ok(()),
        Some(_) => "the token in `_meta.acpbox.token` is wrong",
        None => "`_meta.acpbox.token` is missing: clients of this address must know its token",
    };
    Err(Failure::new(Phase::Request, AUTH_REQUIRED, what))
}
