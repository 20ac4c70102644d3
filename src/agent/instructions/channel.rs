//! The ways in which agents take instructions.

use std::str::FromStr;

/// How a text reaches an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A field of `_meta` in `session/new`, as a JSON pointer such as `/systemPrompt/append`.
    Meta(String),
    /// The text, in a variable.
    Environment(String),
    /// The path of a file with the text, in a variable.
    EnvironmentFile(String),
    /// The text, after a flag.
    Argument(String),
    /// The path of a file with the text, after a flag.
    ArgumentFile(String),
    /// The path of a file with the text, in a list of a JSON configuration that is given in a
    /// variable.
    ConfigContent { variable: String, key: String },
    /// Codex takes `-c developer_instructions=…` in one of its adapters, and a
    /// JSON configuration in a variable in the other.
    Codex,
    /// The adapter passes no flags on, but lets a variable name the program
    /// that it starts: that becomes a script which adds the flag.
    Wrapper {
        variable: String,
        /// What is started when the variable is unset.
        command: String,
        flag: String,
        /// A file of the user's, in shell words, that the flag would displace.
        also: Option<String>,
    },
    /// A file with the text, in the guest; `~/` is its home.
    File(String),
    /// In front of the first prompt.
    FirstPrompt,
    /// Nobody knows: the text is offered in a variable, and what the client
    /// added also goes in front of the first prompt.
    Unknown,
    /// The agent is told nothing.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is `{0}`; write first-prompt, none, env:NAME, env-file:NAME, argument:FLAG, \
     argument-file:FLAG, meta:/POINTER or file:PATH"
)]
pub struct ChannelError(String);

impl Channel {
    /// For a person.
    pub fn in_words(&self) -> String {
        match self {
            Channel::Meta(pointer) => format!("in _meta{pointer} of session/new"),
            Channel::Environment(name) => format!("in the variable {name}"),
            Channel::EnvironmentFile(name) => format!("in a file that the variable {name} names"),
            Channel::Argument(flag) => format!("after the flag {flag}"),
            Channel::ArgumentFile(flag) => format!("in a file named after the flag {flag}"),
            Channel::ConfigContent { variable, key } => {
                format!("in a file listed under {key} in {variable}")
            }
            Channel::Codex => "as developer_instructions (-c and CODEX_CONFIG)".to_owned(),
            Channel::Wrapper { variable, flag, .. } => {
                format!("after the flag {flag} of the program that {variable} names")
            }
            Channel::File(path) => format!("in the file {path}"),
            Channel::FirstPrompt => "in front of the first prompt".to_owned(),
            Channel::Unknown => format!(
                "in the variable {}; what the client adds also in front of the first prompt",
                super::VARIABLE
            ),
            Channel::None => "not at all".to_owned(),
        }
    }
}

impl FromStr for Channel {
    type Err = ChannelError;

    /// The words of the configuration.
    fn from_str(text: &str) -> Result<Channel, ChannelError> {
        let wrong = || ChannelError(text.to_owned());
        match text {
            "first-prompt" => return Ok(Channel::FirstPrompt),
            "none" => return Ok(Channel::None),
            _ => {}
        }
        let (kind, value) = text.split_once(':').ok_or_else(wrong)?;
        let owned = value.to_owned();
        match kind {
            _ if value.is_empty() => Err(wrong()),
            "env" if is_variable(value) => Ok(Channel::Environment(owned)),
            "env-file" if is_variable(value) => Ok(Channel::EnvironmentFile(owned)),
            "argument" => Ok(Channel::Argument(owned)),
            "argument-file" => Ok(Channel::ArgumentFile(owned)),
            "meta" if value.starts_with('/') => Ok(Channel::Meta(owned)),
            "file" if value.starts_with('/') || value.starts_with("~/") => Ok(Channel::File(owned)),
            _ => Err(wrong()),
        }
    }
}

fn is_variable(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
}
