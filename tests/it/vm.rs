//! VMs through the library, with the real binary as guest.

use acpbox::vm::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[tokio::test]
async fn smoke() {
    for name in ["namespace"] {
        let dir = tempfile::tempdir().unwrap();
        let ws = dir.path().join("ws");
        std::fs::create_dir(&ws).unwrap();
        let driver = driver(name, PathBuf::from(env!("CARGO_BIN_EXE_acpbox"))).unwrap();
        let t = std::time::Instant::now();
        let vm = driver
            .boot(VmSpec {
                name: "t".into(),
                state_dir: dir.path().join("state"),
                workspaces: vec![ws.clone()],
                mounts: vec![],
                root: Root::Host,
                network: Network::Full,
                limits: Limits::default(),
                protected: vec![],
            })
            .await
            .unwrap();
        eprintln!("{name} boot {:?} {:?}", t.elapsed(), vm.warnings());
        let p = vm
            .spawn(ProcessSpec {
                command: "sh".into(),
                args: vec!["-c".into(), "id; ls -la / /etc /run /dev /home/agent; ls -la /proc/self/fd; cat /proc/mounts | wc -l; cat /proc/self/status | grep -E 'Cap|NoNew|SigB|SigI'; ps ax; exit 3".into()],
                env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
                cwd: ws.clone(),
                files: vec![],
                io: Io::Merged,
            })
            .await
            .unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(p.stdout), &mut text).unwrap();
        eprintln!("{text}");
        let mut exit = p.exit;
        eprintln!("{:?}", exit.wait_for(Option::is_some).await.unwrap());
        vm.shutdown().await;
        eprintln!("{:?} {:?}", *vm.ended().borrow(), t.elapsed());
    }
}
