//! A headless Chromium, driven by its own protocol over a pair of pipes.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The variable that names the program, where it is not in the path.
const VARIABLE: &str = "SFNIC_CHROMIUM";
/// What it is called.
const NAMES: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
/// How long anything may take: emulated machines beside this one are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program; without one the reason for skipping is printed.
pub(crate) fn program() -> Option<String> {
    let named = std::env::var(VARIABLE).ok().filter(|p| !p.is_empty());
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
    let found = named.or_else(|| NAMES.iter().find(|n| runs(n)).map(ToString::to_string));
    if found.is_none() {
        println!("skipped: no Chromium: install chromium-headless-shell, or name one with {VARIABLE}");
    }
    found
}

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// How long [`Browser::until`] waits.
    pub(crate) patience: Duration,
    /// What the page complained of.
    pub(crate) complaints: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start(program: &str) -> Browser {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in"), dir.path().join("out"));
        let made = Command::new("mkfifo").args([&input, &output]).status().unwrap();
        assert!(made.success());
        // Opened for both, so that nobody waits for the other end to be there.
        let open = |path| OpenOptions::new().read(true).write(true).open(path).unwrap();
        let (to, from) = (open(&input), open(&output));
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<\"$TO\" 4>\"$FROM\"", "sh", program]).env("TO", &input).env("FROM", &output);
        command.args(["--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking", "--force-color-profile=srgb"]);
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display()));
        if rustix::process::getuid().is_root() {
            command.arg("--no-sandbox");
        }
        let child = command.arg("about:blank").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (send, receive) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0) {
                let Ok(Ok(value)) = message.map(|m| serde_json::from_slice::<Value>(&m)) else { return };
                if send.send(value).is_err() {
                    return;
                }
            }
        });
        let mut browser = Browser {
            child,
            to,
            from: receive,
            session: None,
            last: 0,
            patience: PATIENCE,
            complaints: vec![],
            _dir: dir,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Asks for something, and waits for the answer.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).unwrap();
        loop {
            let got = self.from.recv_timeout(PATIENCE);
            let got = match got {
                Ok(value) => value,
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer; {:?}", self.child.try_wait()),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: the browser is gone"),
            };
            if got["id"] == self.last {
                assert!(got["error"].is_null(), "{method}: {}", got["error"]);
                return got["result"].clone();
            }
            self.hear(&got);
        }
    }

    fn hear(&mut self, event: &Value) {
        let p = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.complaints.push(p["exceptionDetails"].to_string()),
            "Log.entryAdded" if p["entry"]["level"] == "error" => self.complaints.push(p["entry"].to_string()),
            "Runtime.consoleAPICalled" if p["type"] == "error" => self.complaints.push(p["args"].to_string()),
            _ => {}
        }
    }

    /// The value of an expression in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let got = self.call("Runtime.evaluate", params);
        assert!(got["exceptionDetails"].is_null(), "{expression}: {}", got["exceptionDetails"]);
        got["result"]["value"].clone()
    }

    /// Waits until an expression is true; `meanwhile` is done again and again.
    pub(crate) fn until_with(&mut self, expression: &str, mut meanwhile: impl FnMut()) {
        let begun = Instant::now();
        while self.eval(&format!("Boolean({expression})")) != true {
            if begun.elapsed() > self.patience {
                let said = self.eval("document.getElementById('said').textContent + document.body.innerText");
                panic!("{expression} is not so; complaints: {:?}; the page: {said}", self.complaints);
            }
            meanwhile();
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn until(&mut self, expression: &str) {
        self.until_with(expression, || ());
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// Clicks the first element of a selector that there is and that can be seen.
    pub(crate) fn click(&mut self, selector: &str) {
        let quoted = json!(selector);
        self.until(&format!("document.querySelector({quoted})?.checkVisibility()"));
        self.eval(&format!("document.querySelector({quoted}).click()"));
    }

    /// Writes into a field.
    pub(crate) fn write(&mut self, selector: &str, text: &str) {
        self.eval(&format!("(e => {{ e.focus(); e.select?.(); }})(document.querySelector({}))", json!(selector)));
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            other => panic!("no key {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    pub(crate) fn size(&mut self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    pub(crate) fn colours(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// What is seen, as PNG.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let got = self.call("Page.captureScreenshot", json!({ "format": "png", "optimizeForSpeed": false }));
        base64(got["data"].as_str().unwrap())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (vec![], 0u32, 0);
    for digit in text.bytes().filter_map(|c| DIGITS.iter().position(|d| *d == c)) {
        held = held << 6 | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}
