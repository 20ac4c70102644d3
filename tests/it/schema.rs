//! The committed documents under `schema/` are those that the types give.

use std::collections::BTreeSet;
use std::path::Path;

use acpbox::agent::catalog::Catalog;
use acpbox::config::{Config, Environment, Overrides};
use acpbox::server::status::Observed;
use acpbox::session::Host;
use acpbox::store::Store;

#[test]
fn the_committed_schemas_are_fresh() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    for (name, text) in acpbox::cli::schema::documents() {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "schema/{name} is stale; UPDATE_SCHEMA=1 cargo nextest run schema rewrites it"
        );
    }
}

#[tokio::test]
async fn every_method_is_described_and_every_described_one_exists() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::from_variables([("HOME", folder.path())]);
    let config = Config::load(&environment, &Overrides::default()).unwrap();
    let catalog = Catalog::new(&config).unwrap();
    let store = Store::open(&config.paths.database).unwrap();
    let executable = env!("CARGO_BIN_EXE_acpbox").into();
    let host = Host::new(config, environment, catalog, store, executable);
    let module = acpbox::server::extension::module(host.clone(), &Observed::new());
    let registered: BTreeSet<&str> = module.method_names().collect();
    let described: BTreeSet<&str> = acpbox::acp::schema::method_names().collect();
    assert_eq!(registered, described);
    host.shutdown().await;
}

#[test]
fn references_lead_somewhere() {
    for (name, text) in acpbox::cli::schema::documents() {
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut references = Vec::new();
        collect(&document, &mut references);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{name}: {reference}");
        }
    }
}

fn collect(value: &serde_json::Value, references: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(|it| it.as_str()) {
                references.push(reference.to_owned());
            }
            members
                .values()
                .for_each(|value| collect(value, references));
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| collect(value, references));
        }
        _ => {}
    }
}
