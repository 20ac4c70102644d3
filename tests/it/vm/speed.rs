//! How long a boot takes.

use std::process::{Command, Stdio};

use super::*;

/// From the issue: VM boot to the first byte of a program, over starting it bare.
const GOAL: Duration = Duration::from_millis(15);

const ROUNDS: usize = 40;

#[tokio::test]
#[ignore = "a measurement; run it with --release on a quiet machine"]
async fn a_boot_adds_little_to_a_programs_start() {
    let lab = Lab::new();
    let bare = median(|| {
        let mut child = Command::new("/bin/echo")
            .arg("x")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        let taken = Instant::now();
        child.wait().unwrap();
        taken
    });
    for driver in ["namespace", "host"] {
        let mut boots = Vec::new();
        let mut firsts = Vec::new();
        let mut seconds = Vec::new();
        let mut stops = Vec::new();
        for _ in 0..ROUNDS {
            let spec = VmSpec {
                protected: [
                    ".git/hooks",
                    ".git/config",
                    ".vscode",
                    ".claude",
                    ".mcp.json",
                ]
                .map(PathBuf::from)
                .to_vec(),
                limits: Limits {
                    memory: Some(8 << 30),
                    processes: Some(1024),
                    open_files: Some(4096),
                },
                ..lab.spec("one")
            };
            let started = Instant::now();
            let guest = lab.boot_by(driver, spec).await;
            boots.push(started.elapsed());
            first_byte(&guest).await;
            firsts.push(started.elapsed());
            let again = Instant::now();
            first_byte(&guest).await;
            seconds.push(again.elapsed());
            let stopping = Instant::now();
            guest.stop().await;
            stops.push(stopping.elapsed());
        }
        let [boot, first, second, stop] =
            [boots, firsts, seconds, stops].map(|mut times: Vec<Duration>| {
                times.sort();
                times[times.len() / 2]
            });
        eprintln!(
            "{driver}: boot {boot:?}, to the first byte {first:?} (bare {bare:?}), \
             second process {second:?}, stop {stop:?}"
        );
        assert!(first - bare <= GOAL, "{:?} more than bare", first - bare);
    }
}

async fn first_byte(guest: &Guest) {
    let process = guest
        .spawn(ProcessSpec {
            command: "/bin/echo".to_owned(),
            args: vec!["x".to_owned()],
            ..guest.shell("")
        })
        .await
        .unwrap();
    File::from(process.stdout).read_exact(&mut [0]).unwrap();
}

fn median<T>(mut round: impl FnMut() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            let result = round();
            let took = started.elapsed();
            drop(result);
            took
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}
