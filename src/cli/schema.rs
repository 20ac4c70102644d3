//! `acpbox schema`: the documents under `schema/`.

use anyhow::Context as _;

use super::args::{SchemaArguments, SchemaName};
use super::exit::{self, Code};
use super::output::{self, Output};
use crate::acp::schema;
use crate::config;

pub(super) fn run(arguments: &SchemaArguments) -> anyhow::Result<Code> {
    if let Some(folder) = &arguments.output {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, text) in documents() {
            let path = folder.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            output::say(&format!("wrote {}", path.display()));
        }
        return Ok(exit::DONE);
    }
    let name = match arguments.name {
        SchemaName::Acpbox => schema::EXTENSION_FILE,
        SchemaName::Openrpc => schema::OPENRPC_FILE,
        SchemaName::Config => CONFIG_FILE,
    };
    let mut output = Output::new();
    for (_, text) in documents().into_iter().filter(|(file, _)| *file == name) {
        output.text(&text)?;
    }
    output.flush()?;
    Ok(exit::DONE)
}

const CONFIG_FILE: &str = "config.schema.json";

/// File names and contents of everything under `schema/`.
pub fn documents() -> [(&'static str, String); 3] {
    let text = |value: &serde_json::Value| format!("{value:#}\n");
    [
        (schema::EXTENSION_FILE, text(&schema::extension())),
        (schema::OPENRPC_FILE, text(&schema::openrpc())),
        (CONFIG_FILE, text(&config::schema())),
    ]
}
