//! The documents of `schema/`: what acpbox adds to ACP, as JSON Schema and as an
//! OpenRPC document, made from [`extension`](super::extension)'s types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::extension::*;
use super::failure::{self, FailureData};
use super::methods;

pub const EXTENSION_FILE: &str = "acpbox.schema.json";
pub const OPENRPC_FILE: &str = "openrpc.json";

/// Where the types are in the JSON Schema document.
const DEFINITIONS: &str = "/$defs";

/// Where the types are in the OpenRPC document.
const COMPONENTS: &str = "/components/schemas";

/// JSON Schema (2020-12) with every type of the extension under `$defs`.
pub fn extension() -> Value {
    let mut generator = generator(DEFINITIONS);
    for part in PARTS {
        (part.add)(&mut generator);
    }
    for method in METHODS {
        (method.params)(&mut generator);
        (method.result)(&mut generator);
    }
    let parts: Map<String, Value> = PARTS
        .iter()
        .map(|part| {
            let schema = (part.add)(&mut generator);
            let mut schema = schema.to_value();
            schema["description"] = part.place.into();
            (part.name.to_owned(), schema)
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "acpbox's extension of the Agent Client Protocol",
        "description": "Each property of this object names a place where acpbox adds to ACP; no message has this shape itself.",
        "type": "object",
        "properties": parts,
        "$defs": sorted(generator.take_definitions(true)),
    })
}

/// OpenRPC 1.3 of the `_acpbox/*` requests, and of the notifications that
/// acpbox sends (`x-notifications`, for which OpenRPC has no word).
pub fn openrpc() -> Value {
    let mut generator = generator(COMPONENTS);
    let methods: Vec<Value> = METHODS
        .iter()
        .map(|method| described(method, &mut generator))
        .collect();
    let notifications: Vec<Value> = NOTIFICATIONS
        .iter()
        .map(|notification| {
            json!({
                "name": notification.name,
                "summary": notification.summary,
                "params": by_name((notification.params)(&mut generator).to_value(), &generator),
            })
        })
        .collect();
    let data = FailureData::json_schema(&mut generator).to_value();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "acpbox",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The requests that acpbox answers besides those of the Agent Client Protocol, on the same connection, after `initialize`.",
            "license": { "name": "Apache-2.0" },
        },
        "methods": methods,
        "x-notifications": notifications,
        "components": {
            "errors": errors(&data),
            "schemas": sorted(generator.take_definitions(true)),
        },
    })
}

/// The names of the methods that the OpenRPC document describes.
pub fn method_names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.name)
}

type Add = fn(&mut SchemaGenerator) -> schemars::Schema;

/// Something that acpbox adds to a message of ACP's.
struct Part {
    name: &'static str,
    place: &'static str,
    add: Add,
}

struct Method {
    name: &'static str,
    summary: &'static str,
    params: Add,
    result: Add,
    result_name: &'static str,
}

struct Notification {
    name: &'static str,
    summary: &'static str,
    params: Add,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<T>()
}

const PARTS: &[Part] = &[
    Part {
        name: "sessionOptions",
        place: "`_meta.acpbox` of `session/new`, `session/load`, `session/resume` and `session/fork`",
        add: schema_of::<SessionOptions>,
    },
    Part {
        name: "sessionMeta",
        place: "`_meta.acpbox` of the results of `session/new`, `session/load`, `session/resume` and `session/fork`",
        add: schema_of::<SessionMeta>,
    },
    Part {
        name: "listOptions",
        place: "`_meta.acpbox` of the params of `session/list`",
        add: schema_of::<ListOptions>,
    },
    Part {
        name: "listedSession",
        place: "`_meta.acpbox` of each session in the result of `session/list`",
        add: schema_of::<ListedSession>,
    },
    Part {
        name: "deleteMeta",
        place: "`_meta.acpbox` of the result of `session/delete`",
        add: schema_of::<DeleteMeta>,
    },
    Part {
        name: "clientOptions",
        place: "`clientCapabilities._meta.acpbox` of `initialize`",
        add: schema_of::<ClientOptions>,
    },
    Part {
        name: "updateMeta",
        place: "`_meta.acpbox` of `session/update`",
        add: schema_of::<UpdateMeta>,
    },
    Part {
        name: "promptOptions",
        place: "`_meta.acpbox` of `session/prompt`",
        add: schema_of::<PromptOptions>,
    },
    Part {
        name: "promptMeta",
        place: "`_meta.acpbox` of the result of `session/prompt`",
        add: schema_of::<PromptMeta>,
    },
    Part {
        name: "agentStderr",
        place: "the params of the notification `_acpbox/agent/stderr`",
        add: schema_of::<AgentStderr>,
    },
    Part {
        name: "agentExit",
        place: "the params of the notification and event `_acpbox/agent/exit`",
        add: schema_of::<AgentExit>,
    },
    Part {
        name: "turnStart",
        place: "the params of the event `_acpbox/turn/start`",
        add: schema_of::<TurnStart>,
    },
    Part {
        name: "turnEnd",
        place: "the params of the event `_acpbox/turn/end`",
        add: schema_of::<TurnEnd>,
    },
    Part {
        name: "permissionDenied",
        place: "the params of the event `_acpbox/permission/denied`",
        add: schema_of::<PermissionDenied>,
    },
    Part {
        name: "permissionDecided",
        place: "the params of the event `_acpbox/permission/decided`",
        add: schema_of::<PermissionDecided>,
    },
    Part {
        name: "restored",
        place: "the params of the event `_acpbox/session/restored`",
        add: schema_of::<Restored>,
    },
    Part {
        name: "sessionSleep",
        place: "the params of the notification and event `_acpbox/session/sleep`",
        add: schema_of::<SessionSleep>,
    },
    Part {
        name: "sessionWake",
        place: "the params of the notification and event `_acpbox/session/wake`",
        add: schema_of::<SessionWake>,
    },
    Part {
        name: "failureData",
        place: "`error.data` of errors that acpbox makes",
        add: schema_of::<FailureData>,
    },
];

const METHODS: &[Method] = &[
    Method {
        name: "_acpbox/server/info",
        summary: "Which server this is. Starts nothing.",
        params: schema_of::<ServerInfoRequest>,
        result: schema_of::<ServerInfo>,
        result_name: "ServerInfo",
    },
    Method {
        name: "_acpbox/server/retire",
        summary: "Ends a server that `--spawn-server` started, if nobody else is connected and nothing goes on in its sessions.",
        params: schema_of::<ServerRetireRequest>,
        result: schema_of::<ServerRetirement>,
        result_name: "ServerRetirement",
    },
    Method {
        name: "_acpbox/session/events",
        summary: "One page of a session's transcript, whether its VM runs or not. Starts nothing.",
        params: schema_of::<EventsRequest>,
        result: schema_of::<EventsResponse>,
        result_name: "EventsResponse",
    },
    Method {
        name: "_acpbox/session/search",
        summary: "Finds words in all transcripts, or in some. Starts nothing.",
        params: schema_of::<SearchRequest>,
        result: schema_of::<SearchResponse>,
        result_name: "SearchResponse",
    },
    Method {
        name: "_acpbox/session/html",
        summary: "Items of a transcript as HTML, for a page that follows it. Starts nothing.",
        params: schema_of::<HtmlRequest>,
        result: schema_of::<HtmlResponse>,
        result_name: "HtmlResponse",
    },
    Method {
        name: "_acpbox/agent/logs",
        summary: "What a session's agent wrote to stderr.",
        params: schema_of::<LogsRequest>,
        result: schema_of::<LogsResponse>,
        result_name: "LogsResponse",
    },
    Method {
        name: "_acpbox/server/status",
        summary: "What this acpbox process serves, to whom, and how busy it is. Starts nothing.",
        params: schema_of::<ServerStatusRequest>,
        result: schema_of::<ServerStatus>,
        result_name: "ServerStatus",
    },
    Method {
        name: "_acpbox/vm/list",
        summary: "Every VM, running or not.",
        params: schema_of::<VmListRequest>,
        result: schema_of::<VmListResponse>,
        result_name: "VmListResponse",
    },
    Method {
        name: "_acpbox/vm/status",
        summary: "One VM.",
        params: schema_of::<VmRequest>,
        result: schema_of::<VmStatus>,
        result_name: "VmStatus",
    },
    Method {
        name: "_acpbox/vm/sleep",
        summary: "Ends a VM's agents gently, then all else in it; its disk stays. Refused while turns run, but for `force`.",
        params: schema_of::<VmRequest>,
        result: schema_of::<VmStatus>,
        result_name: "VmStatus",
    },
    Method {
        name: "_acpbox/vm/wake",
        summary: "Boots a VM that sessions have used before.",
        params: schema_of::<VmRequest>,
        result: schema_of::<VmStatus>,
        result_name: "VmStatus",
    },
    Method {
        name: "_acpbox/vm/delete",
        summary: "Deletes a VM with its disk; transcripts stay.",
        params: schema_of::<VmRequest>,
        result: schema_of::<VmDeleteResponse>,
        result_name: "VmDeleteResponse",
    },
];

const NOTIFICATIONS: &[Notification] = &[
    Notification {
        name: methods::AGENT_STDERR,
        summary: "Lines that a session's agent wrote to stderr, for clients that asked for them.",
        params: schema_of::<AgentStderr>,
    },
    Notification {
        name: methods::AGENT_EXIT,
        summary: "A session's agent has ended, for clients that asked to be told.",
        params: schema_of::<AgentExit>,
    },
    Notification {
        name: methods::SESSION_SLEEP,
        summary: "A session's idle agent was ended until it is needed, for clients that asked to be told.",
        params: schema_of::<SessionSleep>,
    },
    Notification {
        name: methods::SESSION_WAKE,
        summary: "A sleeping session has an agent again, for clients that asked to be told.",
        params: schema_of::<SessionWake>,
    },
];

fn generator(definitions: &'static str) -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = definitions.into();
    settings.into_generator()
}

fn described(method: &Method, generator: &mut SchemaGenerator) -> Value {
    let params = (method.params)(generator).to_value();
    let result = (method.result)(generator).to_value();
    json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": by_name(params, generator),
        "result": { "name": method.result_name, "schema": result },
        "errors": [
            { "$ref": "#/components/errors/InvalidParams" },
            { "$ref": "#/components/errors/ResourceNotFound" },
            { "$ref": "#/components/errors/InternalError" },
        ],
    })
}

/// A type's members as OpenRPC's list of parameters.
fn by_name(reference: Value, generator: &SchemaGenerator) -> Vec<Value> {
    let name = reference["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or_default();
    let definition = generator
        .definitions()
        .get(name)
        .cloned()
        .unwrap_or_default();
    let required = definition["required"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let members = definition["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    members
        .into_iter()
        .map(|(name, schema)| {
            json!({
                "name": name,
                "required": required.contains(&Value::from(name.as_str())),
                "schema": schema,
            })
        })
        .collect()
}

fn errors(data: &Value) -> Value {
    let error = |code: i32, message: &str| json!({ "code": code, "message": message, "x-data-schema": data });
    json!({
        "InvalidParams": error(failure::INVALID_PARAMS, "Invalid params"),
        "ResourceNotFound": error(failure::RESOURCE_NOT_FOUND, "Resource not found"),
        "InternalError": error(failure::INTERNAL_ERROR, "Internal error"),
    })
}

/// By name, so that the documents do not change with the order of generation.
fn sorted(definitions: Map<String, Value>) -> Map<String, Value> {
    let mut entries: Vec<_> = definitions.into_iter().collect();
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    entries.into_iter().collect()
}
