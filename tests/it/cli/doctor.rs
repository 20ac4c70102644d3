//! `acpbox doctor`.

use super::Place;

#[test]
fn a_sound_installation_is_usable() {
    let place = Place::new();
    let checks = place.acpbox(&["doctor", "--json"]).expect(0).json();
    let of = |what: &str| {
        let all = checks.as_array().unwrap().iter();
        all.clone()
            .find(|it| it["what"] == what)
            .unwrap_or_else(|| panic!("{what}: {checks}"))
    };
    assert_eq!(of("configuration")["outcome"], "good");
    assert_eq!(of("database")["outcome"], "good");
    assert_eq!(of("agent example")["outcome"], "good");
    let booted = of("a VM with the example agent");
    assert!(
        booted["detail"]
            .as_str()
            .unwrap()
            .starts_with("boots and answers"),
        "{booted}"
    );
    assert!(
        checks
            .as_array()
            .unwrap()
            .iter()
            .any(|it| it["what"] == "namespace: bubblewrap")
    );
    let text = place.acpbox(&["doctor"]).expect(0).stdout;
    assert!(
        text.contains("✓ database") && text.ends_with("acpbox is usable\n"),
        "{text}"
    );
    let left = std::fs::read_dir(place.file("state/acpbox"))
        .unwrap()
        .flatten();
    let left: Vec<_> = left
        .map(|it| it.file_name())
        .filter(|it| it.to_string_lossy().contains("doctor"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_wrong_configuration_is_told_beside_all_else() {
    let place = Place::new();
    place.configure("[defaults]\nagnet = \"claude\"\n");
    let ended = place.acpbox(&["doctor"]).expect(1);
    assert!(ended.stdout.contains("✗ configuration: "), "{ended:?}");
    assert!(
        ended.stdout.contains("agnet") && ended.stdout.contains("agent"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("boots and answers"), "{ended:?}");
}

#[test]
fn an_unknown_driver_and_a_broken_database_are_told() {
    let place = Place::new();
    place.configure("[vms.default]\ndriver = \"qemoo\"\n");
    std::fs::create_dir_all(place.file("state/acpbox")).unwrap();
    std::fs::write(
        place.file("state/acpbox/acpbox.db"),
        "not a database at all",
    )
    .unwrap();
    let ended = place.acpbox(&["doctor"]).expect(1);
    assert!(
        ended.stdout.contains("qemoo") && ended.stdout.contains("✗ database"),
        "{ended:?}"
    );
}
