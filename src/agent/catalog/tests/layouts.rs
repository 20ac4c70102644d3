//! Every layout in which programs are installed.

use super::*;

#[test]
fn nvm_shows_the_packages_and_commands_of_one_node() {
    let host = Host::new(&["home/.nvm/versions/node/v22/bin"]);
    host.file("home/.nvm/versions/node/v22/bin/node", "ELF")
        .file(
            "home/.nvm/versions/node/v22/lib/node_modules/x/cli.js",
            NODE_SCRIPT,
        )
        .file("home/.nvm/versions/node/v18/bin/node", "ELF")
        .link(
            "home/.nvm/versions/node/v22/bin/x",
            "../lib/node_modules/x/cli.js",
        );
    let bin = "home/.nvm/versions/node/v22/bin";
    let located = host.check(
        X,
        "x",
        "home/.nvm/versions/node/v22/bin/x",
        &[bin, "home/.nvm/versions/node/v22/lib/node_modules"],
    );
    assert_eq!(host.path_of(&located), [host.at(bin)]);
}

#[test]
fn an_npm_prefix_in_the_home_is_never_shown_whole() {
    let host = Host::new(&["home/.local/bin", "node/bin"]);
    host.file("node/bin/node", "ELF")
        .file("home/.local/share/private", "")
        .file(
            "home/.local/lib/node_modules/@a/x/dist/index.js",
            NODE_SCRIPT,
        )
        .link(
            "home/.local/bin/x",
            "../lib/node_modules/@a/x/dist/index.js",
        );
    let located = host.check(
        X,
        "x",
        "home/.local/bin/x",
        &[
            "home/.local/bin",
            "home/.local/lib/node_modules",
            "node/bin/node",
        ],
    );
    assert_eq!(
        host.path_of(&located),
        [host.at("home/.local/bin"), host.at("node/bin")]
    );
}

#[test]
fn a_local_installation_brings_its_own_node() {
    // As `npm install x node` leaves it, with another node on PATH.
    let host = Host::new(&["old"]);
    host.file("old/node", "ELF")
        .file("peers/node_modules/@a/x/dist/index.js", NODE_SCRIPT)
        .file("peers/node_modules/node/bin/node", "ELF")
        .link("peers/node_modules/.bin/x", "../@a/x/dist/index.js")
        .link("peers/node_modules/.bin/node", "../node/bin/node");
    let text = format!(
        "[agents.x]\ncommand = {:?}",
        host.at("peers/node_modules/.bin/x")
    );
    let bin = "peers/node_modules/.bin";
    let located = host.check(
        &text,
        "x",
        "peers/node_modules/.bin/x",
        &["peers/node_modules"],
    );
    assert_eq!(host.path_of(&located), [host.at(bin)]);
}

#[test]
fn a_linked_folder_on_path_is_its_target() {
    let host = Host::new(&["current/bin"]);
    host.file("v22/bin/node", "ELF")
        .file("v22/lib/node_modules/x/cli.js", NODE_SCRIPT)
        .link("v22/bin/x", "../lib/node_modules/x/cli.js")
        .link("current", "v22");
    let located = host.check(X, "x", "v22/bin/x", &["v22/bin", "v22/lib/node_modules"]);
    assert_eq!(host.path_of(&located), [host.at("v22/bin")]);
}

#[test]
fn a_single_binary_is_shown_alone() {
    let host = Host::new(&["home/.cargo/bin"]);
    host.file("home/.cargo/bin/x", "ELF")
        .file("home/.cargo/bin/other", "ELF");
    let located = host.check(X, "x", "home/.cargo/bin/x", &["home/.cargo/bin/x"]);
    assert_eq!(host.path_of(&located), [host.at("home/.cargo/bin")]);
}

#[test]
fn a_link_to_a_single_binary_is_followed() {
    let host = Host::new(&["home/.local/bin"]);
    host.file("home/apps/x-1.2/x", "ELF")
        .file("home/apps/secret", "")
        .link("home/.local/bin/x", "../../apps/x-1.2/x");
    host.check(X, "x", "home/apps/x-1.2/x", &["home/apps/x-1.2/x"]);
}

#[test]
fn bun_links_into_its_own_global_packages() {
    let host = Host::new(&["home/.bun/bin", "node"]);
    host.file("node/node", "ELF")
        .file(
            "home/.bun/install/global/node_modules/x/cli.js",
            NODE_SCRIPT,
        )
        .link("home/.bun/bin/x", "../install/global/node_modules/x/cli.js");
    host.check(
        X,
        "x",
        "home/.bun/install/global/node_modules/x/cli.js",
        &["home/.bun/install/global/node_modules", "node/node"],
    );
}

#[test]
fn a_script_of_pnpm_shows_what_it_starts() {
    let host = Host::new(&["home/.local/share/pnpm", "node"]);
    let script = "#!/bin/sh\nbasedir=$(dirname \"$0\")\n\
                  if [ -x \"$basedir/node\" ]; then\n\
                  exec \"$basedir/node\"  \"$basedir/global/5/node_modules/x/cli.js\" \"$@\"\n\
                  else\n\
                  exec node  \"$basedir/global/5/node_modules/x/cli.js\" \"$@\"\nfi\n";
    host.file("node/node", "ELF")
        .file("home/.local/share/pnpm/x", script)
        .file(
            "home/.local/share/pnpm/global/5/node_modules/x/cli.js",
            NODE_SCRIPT,
        );
    host.check(
        X,
        "x",
        "home/.local/share/pnpm/x",
        &[
            "home/.local/share/pnpm/x",
            "home/.local/share/pnpm/global/5/node_modules",
            "node/node",
        ],
    );
}

#[test]
fn a_virtual_environment_brings_the_python_under_it() {
    let host = Host::new(&["home/.local/bin"]);
    let python = host.at("home/uv/python/cpython-3.12.7");
    let venv = host.at("home/uv/tools/x");
    host.file("home/uv/python/cpython-3.12.7/bin/python3.12", "ELF")
        .file("home/uv/python/cpython-3.12.7/lib/python3.12/os.py", "")
        .link("home/uv/python/cpython-3.12", "cpython-3.12.7")
        .file(
            "home/uv/tools/x/pyvenv.cfg",
            &format!(
                "home = {}/bin\n",
                host.at("home/uv/python/cpython-3.12").display()
            ),
        )
        .file(
            "home/uv/tools/x/bin/x",
            &format!("#!{}/bin/python\n", venv.display()),
        )
        .link(
            "home/uv/tools/x/bin/python",
            &format!(
                "{}/bin/python3.12",
                host.at("home/uv/python/cpython-3.12").display()
            ),
        )
        .link("home/.local/bin/x", "../../uv/tools/x/bin/x");
    let located = host.locate(X, "x").unwrap();
    assert_eq!(located.command, venv.join("bin/x"));
    let shown = |host: &Path, guest: PathBuf| Mount {
        host: host.to_path_buf(),
        guest,
        writable: false,
    };
    // The second is the name by which the environment's own link goes.
    assert_eq!(
        located.mounts,
        [
            shown(&python, host.at("home/uv/python/cpython-3.12")),
            shown(&python, python.clone()),
            shown(&venv, venv.clone()),
        ]
    );
}

#[test]
fn a_python_that_shares_its_prefix_shows_its_libraries_only() {
    let host = Host::new(&["home/stuff/bin"]);
    host.file("home/stuff/bin/python3", "ELF")
        .file(
            "home/stuff/bin/x",
            &format!("#!{}\n", host.at("home/stuff/bin/python3").display()),
        )
        .file("home/stuff/lib/python3.11/os.py", "")
        .file("home/stuff/diary.txt", "");
    host.check(
        X,
        "x",
        "home/stuff/bin/x",
        &[
            "home/stuff/bin/python3",
            "home/stuff/bin/x",
            "home/stuff/lib/python3.11",
        ],
    );
}

#[test]
fn programs_of_the_system_need_nothing() {
    let host = Host::new(&[]);
    let located = host.locate("[agents.x]\ncommand = '/bin/sh'", "x").unwrap();
    assert_eq!(located.mounts, []);
    assert!(["/bin/sh", "/usr/bin/sh"].contains(&located.command.to_str().unwrap()));
}

#[test]
fn an_installation_that_is_the_home_itself_is_refused() {
    let host = Host::new(&["home/bin"]);
    host.file("home/pyvenv.cfg", "home = /usr/bin\n")
        .file("home/bin/x", "#!/bin/sh\n");
    let message = host.locate(X, "x").unwrap_err().to_string();
    assert!(message.contains("would show the VM all of"), "{message}");
    assert!(
        message.contains("`mounts` under [agents.x] in /etc/acpbox.toml"),
        "{message}"
    );
}

#[test]
fn a_stand_in_of_a_version_manager_is_named() {
    let host = Host::new(&["shims"]);
    let pyenv = format!(
        "#!/bin/sh\nexec \"{}/libexec/pyenv\" exec \"$p\" \"$@\"\n",
        "/x/.pyenv"
    );
    for (content, manager) in [
        ("#!/usr/bin/env bash\nexec asdf exec \"x\" \"$@\"\n", "asdf"),
        (pyenv.as_str(), "pyenv"),
    ] {
        host.file("shims/x", content);
        let message = host.locate(X, "x").unwrap_err().to_string();
        assert!(
            message.contains(&format!("`{manager} which x`")),
            "{message}"
        );
    }
    std::fs::remove_file(host.at("shims/x")).unwrap();
    host.file("home/.volta/bin/volta-shim", "ELF")
        .link("shims/x", "../home/.volta/bin/volta-shim");
    let message = host.locate(X, "x").unwrap_err().to_string();
    assert!(message.contains("`volta which x`"), "{message}");
}

#[test]
fn a_missing_interpreter_is_named() {
    let host = Host::new(&["bin"]);
    host.file("bin/x", NODE_SCRIPT);
    let message = host.locate(X, "x").unwrap_err().to_string();
    assert!(message.contains("bin/x needs `node`"), "{message}");
}

#[test]
fn a_root_folder_is_searched_first_and_must_hold_the_interpreters() {
    let host = Host::new(&["bin"]);
    host.file("bin/x", "#!/bin/sh\n")
        .file("rootfs/opt/readme", "");
    let root = Root::Folder(host.at("rootfs"));
    let locate = || {
        host.agent(X, "x")
            .locate(&host.environment(), &root, Path::new("/a"))
    };
    let message = locate().unwrap_err().to_string();
    assert!(
        message.contains("is not in the VM's root folder"),
        "{message}"
    );

    host.file("rootfs/usr/bin/x", "ELF");
    let located = locate().unwrap();
    assert_eq!(located.command, Path::new("/usr/bin/x"));
    assert_eq!(located.mounts, []);
}
