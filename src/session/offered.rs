//! What an agent offers to be set to, as its answers say it.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::acp::extension::SessionSettings;
use crate::rpc::splice;

/// The longest value of an option that is remembered.
const VALUE_BYTES: usize = 4096;
/// Options that are remembered at most.
const OPTIONS: usize = 256;

/// `modes`, `models` and `configOptions` of a result or update. `None` for a part
/// that it does not have, or that cannot be read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Offered {
    pub(super) modes: Option<Choice>,
    pub(super) models: Option<Choice>,
    pub(super) options: Option<Vec<ConfigOption>>,
}

/// One of several ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) current: String,
    pub(super) available: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConfigOption {
    pub(super) id: String,
    /// `mode`, `model`, `thought_level`, another word, or empty.
    pub(super) category: String,
    /// A string or a boolean.
    pub(super) current: Value,
    /// The values of a select.
    available: Vec<String>,
}

impl Offered {
    pub(super) fn of(object: &str) -> Offered {
        let part = |name: &str| -> Option<Value> {
            serde_json::from_str(splice::member(object, name)?).ok()
        };
        Offered {
            modes: part("modes")
                .and_then(|modes| Choice::of(&modes, "currentModeId", "availableModes", "id")),
            models: part("models").and_then(|models| {
                Choice::of(&models, "currentModelId", "availableModels", "modelId")
            }),
            options: splice::member(object, "configOptions").and_then(ConfigOption::list),
        }
    }

    pub(super) fn settings(&self) -> SessionSettings {
        let current = |choice: &Option<Choice>| choice.as_ref().map(|it| it.current.clone());
        let options = self.options.iter().flatten();
        SessionSettings {
            mode: current(&self.modes),
            model: current(&self.models),
            config_options: options
                .map(|option| (option.id.clone(), option.current.clone()))
                .collect(),
        }
    }

    /// Where an option stands in the order in which they are to be set; one that
    /// is not offered yet may come with another.
    pub(super) fn rank(&self, id: &str) -> u8 {
        let mut options = self.options.iter().flatten();
        match options.find(|option| option.id == id) {
            None => 4,
            Some(option) => match option.category.as_str() {
                "model" => 0,
                "mode" => 2,
                "thought_level" => 3,
                _ => 1,
            },
        }
    }

    /// Modes and models that options stand for are what those say.
    pub(super) fn let_modes_follow(&mut self) {
        let options = self.options.clone().unwrap_or_default();
        let pairs = [("mode", &mut self.modes), ("model", &mut self.models)];
        for (category, choice) in pairs {
            let option = options.iter().find(|option| option.category == category);
            if let (Some(choice), Some(option)) = (choice, option)
                && let Some(value) = option.current.as_str()
                && choice.available.iter().any(|it| it == value)
            {
                value.clone_into(&mut choice.current);
            }
        }
    }
}

impl Choice {
    fn of(value: &Value, current: &str, available: &str, id: &str) -> Option<Choice> {
        let all = value.get(available).and_then(Value::as_array);
        let ids = all.into_iter().flatten();
        Some(Choice {
            current: value.get(current)?.as_str()?.to_owned(),
            available: ids
                .filter_map(|it| it.get(id)?.as_str().map(str::to_owned))
                .collect(),
        })
    }
}

impl ConfigOption {
    /// Those that can be read; the others are not known here.
    fn list(raw: &str) -> Option<Vec<ConfigOption>> {
        let all: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
        let read = all.into_iter().filter_map(|raw| {
            let value: Value = serde_json::from_str(raw.get()).ok()?;
            ConfigOption::of(&value)
        });
        Some(read.take(OPTIONS).collect())
    }

    fn of(value: &Value) -> Option<ConfigOption> {
        let current = value.get("currentValue")?;
        let is_short = |text: &str| text.len() <= VALUE_BYTES;
        if !current.is_boolean() && !current.as_str().is_some_and(is_short) {
            return None;
        }
        let category = value.get("category").and_then(Value::as_str);
        let mut available = Vec::new();
        values(value.get("options"), &mut available);
        Some(ConfigOption {
            id: value.get("id")?.as_str().filter(|id| is_short(id))?.into(),
            category: category.unwrap_or_default().to_owned(),
            current: current.clone(),
            available,
        })
    }

    pub(super) fn takes(&self, value: &Value) -> bool {
        match value {
            Value::String(value) => self.available.iter().any(|it| it == value),
            other => other.is_boolean() && self.current.is_boolean(),
        }
    }
}

/// The values of a select's options, in groups or not.
fn values(options: Option<&Value>, into: &mut Vec<String>) {
    for option in options.and_then(Value::as_array).into_iter().flatten() {
        if let Some(value) = option.get("value").and_then(Value::as_str) {
            into.push(value.to_owned());
        }
        let group = option.get("options").and_then(Value::as_array);
        for option in group.into_iter().flatten() {
            if let Some(value) = option.get("value").and_then(Value::as_str) {
                into.push(value.to_owned());
            }
        }
    }
}
