//! Processes: how they start, are connected, signalled and reported.

use std::io::Write;

use futures::FutureExt;

use super::*;

const DRIVERS: [&str; 2] = ["namespace", "host"];

#[tokio::test]
async fn exit_codes_and_signals_are_reported() {
    for driver in DRIVERS {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        assert_eq!(guest.run("exit 0").await.1, Exit::Code(0));
        assert_eq!(guest.run("exit 42").await.1, Exit::Code(42));
        assert_eq!(guest.run("kill -9 $$").await.1, Exit::Signal(9));
        assert_eq!(guest.run("kill -TERM $$").await.1, Exit::Signal(15));
        guest.stop().await;
    }
}

#[tokio::test]
async fn a_missing_command_is_not_found() {
    for driver in DRIVERS {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let missing = |command: &str| ProcessSpec {
            command: command.to_owned(),
            ..guest.shell("")
        };
        let error = guest.spawn(missing("no-such-agent")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`no-such-agent` was not found in the VM (PATH is {PATH})")
        );
        assert!(matches!(error, SpawnError::NotFound { .. }));
        let error = guest.spawn(missing("/no/such/agent")).await.unwrap_err();
        assert!(matches!(error, SpawnError::NotFound { .. }), "{error}");
        let error = guest.spawn(missing("")).await.unwrap_err();
        assert!(matches!(error, SpawnError::NotFound { .. }), "{error}");
        // The guest is as good as before.
        guest.succeed("true").await;
        guest.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let refused = async |spec: ProcessSpec| match guest.spawn(spec).await {
        Err(SpawnError::Failed { detail, .. }) => detail,
        other => panic!("expected a refusal: {other:?}"),
    };
    let text = lab.workspace().join("notes.txt");
    std::fs::write(&text, "no program").unwrap();
    let detail = refused(ProcessSpec {
        command: text.display().to_string(),
        ..guest.shell("")
    })
    .await;
    assert!(detail.contains("is not an executable file"), "{detail}");

    let detail = refused(ProcessSpec {
        cwd: "/no/such/folder".into(),
        ..guest.shell("")
    })
    .await;
    assert!(detail.contains("/no/such/folder"), "{detail}");

    guest
        .succeed("printf '#!/no/such/interpreter\\n' > script; chmod +x script")
        .await;
    let detail = refused(ProcessSpec {
        command: "./script".to_owned(),
        ..guest.shell("")
    })
    .await;
    assert!(detail.contains("interpreter"), "{detail}");

    guest.succeed("mkfifo /tmp/fifo").await;
    let detail = refused(ProcessSpec {
        files: vec![("/tmp/fifo".into(), "text".to_owned())],
        ..guest.shell("")
    })
    .await;
    assert!(detail.contains("/tmp/fifo"), "{detail}");
    guest.stop().await;
}

#[tokio::test]
async fn three_pipes_carry_what_they_should() {
    for driver in DRIVERS {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let process = guest
            .spawn(ProcessSpec {
                io: Io::Pipes,
                ..guest.shell("cat; echo complaint >&2")
            })
            .await
            .unwrap();
        // More than any pipe holds, both ways.
        let sent = "x".repeat(3 << 20);
        let mut stdin = File::from(process.stdin.unwrap());
        let text = sent.clone();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let (output, errors) =
            tokio::join!(read_all(process.stdout), read_all(process.stderr.unwrap()));
        writer.join().unwrap().unwrap();
        assert_eq!(output.len(), sent.len());
        assert_eq!(errors, "complaint");
        assert_eq!(ended(process.exit).await, Exit::Code(0));
        guest.stop().await;
    }
}

#[tokio::test]
async fn merged_output_keeps_its_order_and_has_no_input() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let process = guest
        .spawn(guest.shell("echo 1; echo 2 >&2; echo 3; cat; echo end"))
        .await
        .unwrap();
    assert!(process.stdin.is_none() && process.stderr.is_none());
    assert_eq!(finish(process).await.0, "1\n2\n3\nend");
    guest.stop().await;
}

#[tokio::test]
async fn a_terminal_is_a_terminal() {
    for driver in DRIVERS {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let io = Io::Terminal {
            rows: 33,
            columns: 77,
        };
        let script = "tty; stty size; ps -o tty= -p $$; read line; echo got $line";
        let process = guest
            .spawn(ProcessSpec {
                io,
                ..guest.shell(script)
            })
            .await
            .unwrap();
        let mut keyboard = File::from(process.stdout.try_clone().unwrap());
        keyboard.write_all(b"hello\n").unwrap();
        let (output, exit) = finish(process).await;
        assert_eq!(exit, Exit::Code(0), "{output}");
        assert!(output.contains("/dev/pts/"), "{output}");
        assert!(output.contains("33 77"), "{output}");
        assert!(output.contains("got hello"), "{output}");
        guest.stop().await;
    }
}

#[tokio::test]
async fn a_terminals_interrupt_key_reaches_the_program() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let io = Io::Terminal {
        rows: 24,
        columns: 80,
    };
    let process = guest
        .spawn(ProcessSpec {
            io,
            ..guest.shell(
                "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.01; done",
            )
        })
        .await
        .unwrap();
    let mut screen = File::from(process.stdout.try_clone().unwrap());
    let mut seen = [0; 5];
    screen.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"ready");
    screen.write_all(b"\x03").unwrap();
    let (output, exit) = finish(process).await;
    assert!(output.contains("interrupted"), "{output}");
    assert_eq!(exit, Exit::Code(7));
    guest.stop().await;
}

#[tokio::test]
async fn files_are_written_before_the_program_starts() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let file = PathBuf::from("/home/agent/.config/agent/instructions.md");
    let spec = |content: &str| ProcessSpec {
        files: vec![(file.clone(), content.to_owned())],
        ..guest.shell("cat /home/agent/.config/agent/instructions.md")
    };
    let long = guest.spawn(spec("a longer text")).await.unwrap();
    assert_eq!(finish(long).await.0, "a longer text");
    let short = guest.spawn(spec("short")).await.unwrap();
    assert_eq!(finish(short).await.0, "short");
    guest.stop().await;
}

#[tokio::test]
async fn a_process_starts_in_a_clean_state() {
    for driver in DRIVERS {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let process = guest
            .spawn(ProcessSpec {
                io: Io::Pipes,
                // `ls` itself adds the descriptor of the folder it reads.
                ..guest.shell("echo $(ls /proc/self/fd); umask; ps -o sid= -p $$; echo $$; grep -E 'Sig(Blk|Ign)' /proc/self/status")
            })
            .await
            .unwrap();
        drop(process.stdin);
        let output = read_all(process.stdout).await;
        let lines: Vec<&str> = output.lines().map(str::trim).collect();
        assert_eq!(lines[0], "0 1 2 3", "{driver}: {output}");
        assert_eq!(lines[1], "0022", "{driver}: {output}");
        assert_eq!(lines[2], lines[3], "not in a session of its own: {output}");
        assert!(lines[4].ends_with("0000000000000000"), "{output}");
        // Signals 32 and 33 belong to the C library and are out of reach.
        let ignored = lines[5].rsplit('\t').next().unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap() & !(0b11 << 31);
        assert_eq!(ignored, 0, "{driver}: {output}");
        guest.stop().await;
    }
}

#[tokio::test]
async fn terminating_asks_and_killing_insists() {
    for driver in DRIVERS {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let polite =
            guest
                .spawn(guest.shell(
                    "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done",
                ))
                .await
                .unwrap();
        wait_for_line(&polite);
        polite.control.terminate();
        let (output, exit) = finish(polite).await;
        assert!(output.ends_with("bye"), "{output}");
        assert_eq!(exit, Exit::Code(5));

        let mark = unique_sleep();
        let script =
            format!("trap '' TERM; sleep {mark} & echo ready; while :; do sleep 0.01; done");
        let stubborn = guest.spawn(guest.shell(&script)).await.unwrap();
        wait_for_line(&stubborn);
        stubborn.control.terminate();
        stubborn.control.kill();
        assert_eq!(finish(stubborn).await.1, Exit::Signal(9));
        eventually("its child is gone too", PATIENCE, || {
            alive(&mark).is_empty()
        });
        guest.stop().await;
    }
}

#[tokio::test]
async fn killing_reaches_children_left_by_a_process_that_has_ended() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let mark = unique_sleep();
    let script = format!("sleep {mark} >/dev/null 2>&1 & exit 0");
    let process = guest.spawn(guest.shell(&script)).await.unwrap();
    assert_eq!(ended(process.exit).await, Exit::Code(0));
    eventually("its child runs", PATIENCE, || alive(&mark).len() == 1);
    process.control.kill();
    eventually("the child is gone", PATIENCE, || alive(&mark).is_empty());
    guest.stop().await;
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_leaves_no_process() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    for patience in [0, 100] {
        let mark = unique_sleep();
        let spec = guest.shell(&format!("exec sleep {mark}"));
        let mut start = guest.vm.spawn(spec);
        // Polled once, so that the request is on its way.
        if let Some(process) = start.as_mut().now_or_never() {
            // So fast that there was nothing to wait for.
            process.unwrap().control.kill();
            continue;
        }
        std::thread::sleep(Duration::from_millis(patience));
        if patience > 0 {
            assert_eq!(alive(&mark).len(), 1);
        }
        drop(start);
        guest.succeed("true").await;
        eventually("it is killed", PATIENCE, || alive(&mark).is_empty());
    }
    guest.stop().await;
}

#[tokio::test]
async fn many_processes_start_at_once() {
    let lab = Lab::new();
    let guest = lab.boot("one").await;
    let starts = (0..100).map(|number| {
        let spec = guest.shell(&format!("echo {number}"));
        let vm = guest.vm.clone();
        async move { finish(vm.spawn(spec).await.unwrap()).await.0 }
    });
    let outputs = futures::future::join_all(starts).await;
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(outputs, expected);
    guest.stop().await;
}

#[tokio::test]
async fn a_stopped_vm_says_so() {
    for driver in DRIVERS {
        let lab = Lab::new();
        let guest = lab.boot_by(driver, lab.spec("one")).await;
        let running = guest.spawn(guest.shell("sleep 1000")).await.unwrap();
        let vm = guest.vm.clone();
        assert_eq!(*vm.ended().borrow(), None);
        guest.stop().await;
        vm.shutdown().await;
        assert_eq!(vm.ended().borrow().as_deref(), Some("it was stopped"));
        // Asked first: the signal is reported as long as the guest lives.
        assert_eq!(ended(running.exit).await, Exit::Signal(15));
        let again = vm.spawn(ProcessSpec {
            command: "true".to_owned(),
            ..ProcessSpec::default()
        });
        assert!(matches!(again.await, Err(SpawnError::Ended(_))));
    }
}

fn wait_for_line(process: &Process) {
    let mut output = File::from(process.stdout.try_clone().unwrap());
    let mut byte = [0];
    while byte != *b"\n" {
        output.read_exact(&mut byte).unwrap();
    }
}
