//! A headless Chromium, driven by the DevTools protocol over a pipe.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// For a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that wait to be looked at.
const MESSAGE_LIMIT: usize = 4096;
/// It reads and writes the protocol on descriptors 3 and 4.
const WITH_PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// A running browser with one page. Dropping it ends all its processes.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    /// What the page did: requests, errors, lines of its console.
    pub events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// How somebody looks at a page.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub width: u32,
    pub height: u32,
    pub is_phone: bool,
    pub is_dark: bool,
}

impl Browser {
    pub fn start() -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", WITH_PIPES, "sh", "chromium", "--headless"])
            .args(["--remote-debugging-pipe", "--disable-gpu", "--no-first-run"])
            // Tests may run as root, and in containers with a small /dev/shm.
            .args(["--no-sandbox", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--disable-breakpad"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (sender, messages) = sync_channel(MESSAGE_LIMIT);
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            input: child.stdin.take().unwrap(),
            child,
            messages,
            session: String::new(),
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let params = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", params);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens a file and waits until it is loaded; forgets earlier events.
    pub fn open(&mut self, file: &Path, view: View) {
        self.visit(&format!("file://{}", file.display()), view);
    }

    /// The same with an address.
    pub fn visit(&mut self, url: &str, view: View) {
        self.events.clear();
        self.look(view);
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened.get("errorText").is_none(), "{opened}");
        self.wait_for("Page.loadEventFired");
    }

    /// Looks at the same page in another way.
    pub fn look(&mut self, view: View) {
        let metrics = json!({"width": view.width, "height": view.height,
            "deviceScaleFactor": 1, "mobile": view.is_phone});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if view.is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// The value of a JavaScript expression, awaited if it is a promise.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", params);
        assert!(result.get("exceptionDetails").is_none(), "{result}");
        result["result"]["value"].clone()
    }

    /// Clicks in the middle of the first element that a selector names.
    pub fn click(&mut self, selector: &str) {
        // A slow browser may still be laying out the page.
        let place = self.value(&format!(
            "(async () => {{
                const place = () => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center'}});
                    const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }};
                for (let before = '', tries = 0; ; tries++) {{
                    const now = place();
                    if (before === String(now) || tries > 50) return now;
                    before = String(now);
                    await new Promise(done => setTimeout(done, 40));
                }}
            }})()",
            json!(selector)
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Presses Enter where the focus is.
    pub fn press_enter(&mut self) {
        for (kind, text) in [("keyDown", "\r"), ("keyUp", "")] {
            let params = json!({"type": kind, "key": "Enter", "code": "Enter", "text": text, "windowsVirtualKeyCode": 13});
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Presses a key where the focus is: a character, or `Escape`, `Tab` and the like.
    pub fn press(&mut self, key: &str) {
        if key == "Enter" {
            return self.press_enter();
        }
        let text = if key.chars().count() == 1 { key } else { "" };
        let code = match key {
            "Escape" => 27,
            "Tab" => 9,
            "ArrowDown" => 40,
            "ArrowUp" => 38,
            _ => 0,
        };
        for (kind, text) in [("keyDown", text), ("keyUp", "")] {
            let params = json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Enters text where the focus is, as if pasted.
    pub fn enter_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn expect(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.value(expression) != true {
            if begun.elapsed() > PATIENCE / 2 {
                let text = self.value("document.body.innerText");
                panic!("never true: {expression}\n{}", text.as_str().unwrap());
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    /// Keeps a picture of what is seen, for people to look at.
    pub fn screenshot(&mut self, name: &str) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let data = picture["data"].as_str().unwrap();
        assert!(data.len() > 10_000, "{name} shows something");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), decoded(data)).unwrap();
    }

    /// The URLs that the page asked for.
    pub fn requests(&self) -> Vec<&str> {
        let events = self.events.iter();
        let requests = events.filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .filter_map(|event| event["params"]["request"]["url"].as_str())
            .collect()
    }

    /// Exceptions, errors and warnings, what the policy blocked, and dialogs.
    pub fn complaints(&self) -> Vec<&Value> {
        const COMPLAINTS: [&str; 4] = [
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
        ];
        let events = self.events.iter();
        events
            .filter(|event| COMPLAINTS.iter().any(|method| event["method"] == *method))
            .collect()
    }

    /// Calls a method of the protocol; its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        write!(self.input, "{message}\0").unwrap();
        self.input.flush().unwrap();
        loop {
            let mut answer = self.next(method);
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    fn wait_for(&mut self, method: &str) {
        while !self.events.iter().any(|event| event["method"] == method) {
            let event = self.next(method);
            self.events.push(event);
        }
    }

    fn next(&mut self, what: &str) -> Value {
        match self.messages.recv_timeout(PATIENCE) {
            Ok(message) => message,
            Err(error) => panic!("chromium (is it installed?), waiting for {what}: {error}"),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = write!(self.input, "{{\"id\":0,\"method\":\"Browser.close\"}}\0");
        let _ = self.input.flush();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < PATIENCE / 10 {
            thread::sleep(Duration::from_millis(10));
        }
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The bytes of base64 that is known to be right.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |character: u8| match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let number = four.iter().fold(0_u32, |all, character| {
            all << 6 | u32::from(digit(*character))
        });
        let number = number << (6 * (4 - four.len()));
        bytes.extend(&number.to_be_bytes()[1..four.len()]);
    }
    bytes
}
