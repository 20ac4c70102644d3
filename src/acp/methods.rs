//! Method names, and the label under which an event is stored.

use std::borrow::Cow;

use agent_client_protocol_schema::v1::{
    AGENT_METHOD_NAMES, CLIENT_METHOD_NAMES, PROTOCOL_LEVEL_METHOD_NAMES,
};

pub const INITIALIZE: &str = AGENT_METHOD_NAMES.initialize;
pub const AUTHENTICATE: &str = AGENT_METHOD_NAMES.authenticate;
pub const LOGOUT: &str = AGENT_METHOD_NAMES.logout;
pub const SESSION_NEW: &str = AGENT_METHOD_NAMES.session_new;
pub const SESSION_LOAD: &str = AGENT_METHOD_NAMES.session_load;
pub const SESSION_RESUME: &str = AGENT_METHOD_NAMES.session_resume;
pub const SESSION_LIST: &str = AGENT_METHOD_NAMES.session_list;
/// Not stable yet in ACP.
pub const SESSION_FORK: &str = "session/fork";
pub const SESSION_CLOSE: &str = AGENT_METHOD_NAMES.session_close;
pub const SESSION_DELETE: &str = AGENT_METHOD_NAMES.session_delete;
pub const SESSION_PROMPT: &str = AGENT_METHOD_NAMES.session_prompt;
pub const SESSION_CANCEL: &str = AGENT_METHOD_NAMES.session_cancel;
pub const SET_MODE: &str = AGENT_METHOD_NAMES.session_set_mode;
/// Taken out of ACP again; agents still have it.
pub const SET_MODEL: &str = "session/set_model";
pub const SET_CONFIG_OPTION: &str = AGENT_METHOD_NAMES.session_set_config_option;

/// Relayed methods that mean nothing without a `sessionId`.
pub const SESSION_SCOPED: [&str; 3] = [SESSION_PROMPT, SET_MODE, SET_CONFIG_OPTION];

pub const SESSION_UPDATE: &str = CLIENT_METHOD_NAMES.session_update;
pub const REQUEST_PERMISSION: &str = CLIENT_METHOD_NAMES.session_request_permission;
pub const FS_READ: &str = CLIENT_METHOD_NAMES.fs_read_text_file;
pub const FS_WRITE: &str = CLIENT_METHOD_NAMES.fs_write_text_file;
pub const TERMINAL_CREATE: &str = CLIENT_METHOD_NAMES.terminal_create;
pub const TERMINAL_OUTPUT: &str = CLIENT_METHOD_NAMES.terminal_output;
pub const TERMINAL_RELEASE: &str = CLIENT_METHOD_NAMES.terminal_release;
pub const TERMINAL_WAIT: &str = CLIENT_METHOD_NAMES.terminal_wait_for_exit;
pub const TERMINAL_KILL: &str = CLIENT_METHOD_NAMES.terminal_kill;
pub const ELICITATION_CREATE: &str = CLIENT_METHOD_NAMES.elicitation_create;

pub const CANCEL_REQUEST: &str = PROTOCOL_LEVEL_METHOD_NAMES.cancel_request;

/// Our own notifications and events.
pub const AGENT_STDERR: &str = "_acpbox/agent/stderr";
pub const AGENT_EXIT: &str = "_acpbox/agent/exit";
pub const TURN_START: &str = "_acpbox/turn/start";
pub const TURN_END: &str = "_acpbox/turn/end";
pub const PERMISSION_DENIED: &str = "_acpbox/permission/denied";
pub const PERMISSION_DECIDED: &str = "_acpbox/permission/decided";
pub const SESSION_RESTORED: &str = "_acpbox/session/restored";
pub const SESSION_SLEEP: &str = "_acpbox/session/sleep";
pub const SESSION_WAKE: &str = "_acpbox/session/wake";

/// The prefix of methods that acpbox answers itself.
pub const OWN_PREFIX: &str = "_acpbox/";

/// The kind of a response's event: the request's method, then how it went.
pub fn response_kind(method: &str, is_error: bool) -> Cow<'static, str> {
    let how = if is_error { "error" } else { "result" };
    Cow::Owned(format!("{method}:{how}"))
}

/// The kind of an update by which an agent says a prompt back. Only who sent the
/// prompt is shown it, since all others were shown the prompt.
pub const ECHO: &str = "user_message_chunk:echo";

/// What the kind of an event ends with that came from the agent for a turn
/// which acpbox had ended already: it was shown to nobody.
const LATE: &str = ":late";

pub fn late_kind(kind: &str) -> Cow<'static, str> {
    Cow::Owned(format!("{kind}{LATE}"))
}

pub fn is_late(kind: &str) -> bool {
    kind.ends_with(LATE)
}

/// Whether updates of this kind tell of the session itself, not of a turn.
pub fn is_of_session(update: &str) -> bool {
    [
        "available_commands_update",
        "current_mode_update",
        "config_option_update",
        "session_info_update",
        "usage_update",
    ]
    .contains(&update)
}

/// The kind of an update's event: the value of `sessionUpdate`, borrowed where known.
pub fn update_kind(update: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 17] = [
        "agent_message_chunk",
        "agent_thought_chunk",
        "user_message_chunk",
        "tool_call_update",
        "tool_call",
        "plan",
        "plan_update",
        "plan_removed",
        "available_commands_update",
        "current_mode_update",
        "config_option_update",
        "session_info_update",
        "usage_update",
        "notice",
        "compaction_update",
        "compaction_summary_chunk",
        "subagent_update",
    ];
    match KNOWN.iter().find(|known| **known == update) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(update.to_owned()),
    }
}
