//! The agents that acpbox knows. One more is one more entry.

use std::path::Path;

use crate::agent::instructions::Channel;

use super::{Agent, Caged, Companion, EXAMPLE, KnownCapabilities, Source};

/// An [`Agent`] as a constant.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    description: &'static str,
    command: &'static str,
    args: &'static [&'static str],
    npm: &'static [&'static str],
    install: &'static str,
    /// Program and the variable that takes its path.
    companions: &'static [(&'static str, &'static str)],
    env: &'static [(&'static str, &'static str)],
    pass_env: &'static [&'static str],
    /// Arguments and variables only for a VM that isolates.
    caged: (
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
    ),
    channel: fn() -> Channel,
    known: Option<KnownCapabilities>,
}

/// In the order of their names. The capabilities were read from each program's
/// own `initialize` in the version given; the channels were proved by finding
/// the text in the request to a model server, except where a comment says so.
pub(super) const AGENTS: &[BuiltIn] = &[
    BuiltIn {
        name: "claude",
        description: "Claude Code through the Claude Agent SDK",
        command: "claude-agent-acp",
        args: &[],
        npm: &["@agentclientprotocol/claude-agent-acp"],
        install: "npm install -g @agentclientprotocol/claude-agent-acp",
        companions: &[],
        // Its installation is read-only in the guest.
        env: &[("DISABLE_AUTOUPDATER", "1")],
        pass_env: &[
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_MODEL",
            "CLAUDE_CODE_OAUTH_TOKEN",
        ],
        caged: (&[], &[]),
        channel: || Channel::Meta("/systemPrompt/append".to_owned()),
        known: Some(KnownCapabilities {
            version: "0.100.0",
            load_session: true,
            resume: true,
            image: true,
            audio: false,
            embedded_context: true,
            mcp_http: true,
            mcp_sse: true,
        }),
    },
    BuiltIn {
        name: "codex",
        description: "OpenAI Codex",
        command: "codex-acp",
        args: &[],
        npm: &["@agentclientprotocol/codex-acp"],
        install: "npm install -g @agentclientprotocol/codex-acp",
        companions: &[],
        env: &[],
        pass_env: &["OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_API_KEY"],
        // Its own sandbox needs user namespaces, which a guest cannot make: every
        // command would fail. What it asks permission for stays as it is set.
        caged: (
            &["-c", "sandbox_mode=\"danger-full-access\""],
            &[("CODEX_CONFIG", r#"{"sandbox_mode":"danger-full-access"}"#)],
        ),
        channel: || Channel::Codex,
        known: Some(KnownCapabilities {
            // Zed's earlier adapter of the same name (0.16.0) announces the same.
            version: "2.6.0",
            load_session: true,
            resume: true,
            image: true,
            audio: false,
            embedded_context: true,
            mcp_http: true,
            mcp_sse: false,
        }),
    },
    BuiltIn {
        name: EXAMPLE,
        description: "a scripted agent inside acpbox, without a model: an example, nothing more",
        command: "acpbox",
        args: &["example-agent"],
        npm: &[],
        install: "",
        companions: &[],
        env: &[],
        pass_env: &[],
        caged: (&[], &[]),
        channel: || Channel::Unknown,
        known: None,
    },
    BuiltIn {
        name: "gemini",
        description: "Google Gemini CLI",
        command: "gemini",
        args: &["--acp"],
        npm: &["@google/gemini-cli"],
        install: "npm install -g @google/gemini-cli",
        companions: &[],
        env: &[],
        pass_env: &[
            "GEMINI_API_KEY",
            "GEMINI_MODEL",
            "GOOGLE_API_KEY",
            "GOOGLE_CLOUD_LOCATION",
            "GOOGLE_CLOUD_PROJECT",
            "GOOGLE_GEMINI_BASE_URL",
            "GOOGLE_GENAI_USE_VERTEXAI",
        ],
        // It reads further context files only in folders that the person has
        // marked as trusted, and its one other way replaces its whole prompt.
        caged: (&[], &[]),
        channel: || Channel::FirstPrompt,
        known: Some(KnownCapabilities {
            version: "0.61.0",
            load_session: true,
            resume: false,
            image: true,
            audio: true,
            embedded_context: true,
            mcp_http: true,
            mcp_sse: true,
        }),
    },
    BuiltIn {
        name: "goose",
        description: "goose",
        command: "goose",
        args: &["acp"],
        npm: &[],
        install: "curl -fsSL https://github.com/block/goose/releases/download/stable/download_cli.sh | bash",
        companions: &[],
        // A guest has no keyring daemon.
        env: &[("GOOSE_DISABLE_KEYRING", "1")],
        pass_env: &[
            "ANTHROPIC_API_KEY",
            "GOOGLE_API_KEY",
            "GOOSE_MODEL",
            "GOOSE_PROVIDER",
            "OPENAI_API_KEY",
            "OPENROUTER_API_KEY",
        ],
        // From its documentation: injected in every turn, up to 64 KB. Not tried here.
        caged: (&[], &[]),
        channel: || Channel::EnvironmentFile("GOOSE_MOIM_MESSAGE_FILE".to_owned()),
        known: None,
    },
    BuiltIn {
        name: "opencode",
        description: "opencode",
        command: "opencode",
        args: &["acp"],
        npm: &["opencode-ai"],
        install: "npm install -g opencode-ai",
        companions: &[],
        env: &[("OPENCODE_DISABLE_AUTOUPDATE", "1")],
        pass_env: &[
            "ANTHROPIC_API_KEY",
            "GEMINI_API_KEY",
            "GOOGLE_GENERATIVE_AI_API_KEY",
            "GROQ_API_KEY",
            "OPENAI_API_KEY",
            "OPENCODE_API_KEY",
            "OPENROUTER_API_KEY",
        ],
        caged: (&[], &[]),
        channel: || Channel::ConfigContent {
            variable: "OPENCODE_CONFIG_CONTENT".to_owned(),
            key: "instructions".to_owned(),
        },
        known: Some(KnownCapabilities {
            version: "1.18.33",
            load_session: true,
            resume: true,
            image: true,
            audio: false,
            embedded_context: true,
            mcp_http: true,
            mcp_sse: true,
        }),
    },
    BuiltIn {
        name: "pi",
        description: "pi, through the pi-acp adapter",
        command: "pi-acp",
        args: &[],
        npm: &["pi-acp", "@earendil-works/pi-coding-agent"],
        install: "npm install -g pi-acp @earendil-works/pi-coding-agent",
        companions: &[("pi", "PI_ACP_PI_COMMAND")],
        env: &[("PI_SKIP_VERSION_CHECK", "1")],
        pass_env: &[
            "ANTHROPIC_API_KEY",
            "GEMINI_API_KEY",
            "GROQ_API_KEY",
            "MISTRAL_API_KEY",
            "OPENAI_API_KEY",
            "OPENROUTER_API_KEY",
            "XAI_API_KEY",
        ],
        caged: (&[], &[]),
        channel: || Channel::Wrapper {
            variable: "PI_ACP_PI_COMMAND".to_owned(),
            command: "pi".to_owned(),
            flag: "--append-system-prompt".to_owned(),
            // The flag takes the place of this file, which is the user's.
            also: Some("${PI_CODING_AGENT_DIR:-$HOME/.pi/agent}/APPEND_SYSTEM.md".to_owned()),
        },
        known: Some(KnownCapabilities {
            version: "0.0.34",
            load_session: true,
            resume: false,
            image: true,
            audio: false,
            embedded_context: false,
            mcp_http: false,
            mcp_sse: false,
        }),
    },
    BuiltIn {
        name: "qwen",
        description: "Qwen Code",
        command: "qwen",
        args: &["--acp"],
        npm: &["@qwen-code/qwen-code"],
        install: "npm install -g @qwen-code/qwen-code",
        companions: &[],
        env: &[],
        pass_env: &[
            "BAILIAN_CODING_PLAN_API_KEY",
            "DASHSCOPE_API_KEY",
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "OPENAI_MODEL",
        ],
        caged: (&[], &[]),
        channel: || Channel::Argument("--append-system-prompt".to_owned()),
        known: Some(KnownCapabilities {
            version: "0.24.4",
            load_session: true,
            resume: true,
            image: true,
            audio: true,
            embedded_context: true,
            mcp_http: true,
            mcp_sse: true,
        }),
    },
];

impl BuiltIn {
    pub(super) fn to_agent(&self, config_file: &Path) -> Agent {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let pair = |&(a, b): &(&str, &str)| (a.to_owned(), b.to_owned());
        Agent {
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            source: Source::BuiltIn,
            command: self.command.to_owned(),
            args: owned(self.args),
            npm: owned(self.npm),
            install: (!self.install.is_empty()).then(|| self.install.to_owned()),
            companions: (self.companions.iter().map(pair))
                .map(|(command, variable)| Companion { command, variable })
                .collect(),
            env: self.env.iter().map(pair).collect(),
            pass_env: owned(self.pass_env),
            caged: Caged {
                args: owned(self.caged.0),
                env: self.caged.1.iter().map(pair).collect(),
            },
            channel: (self.channel)(),
            known: self.known,
            mounts: Vec::new(),
            config_file: config_file.to_path_buf(),
        }
    }
}
