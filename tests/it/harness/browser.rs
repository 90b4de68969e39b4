//! A browser without a window, told what to do over its DevTools protocol.
//!
//! It is spoken to through two pipes, so that it needs no port: values of JSON, each ended by a zero byte. It ends when the
//! pipes do, also when the test is killed.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PATIENCE, skip, until, wait_status};

/// Debian's name, and the others under which it is installed.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// No window, no sandbox (a test may run as root), and nothing asked of anybody but the page.
const FLAGS: [&str; 15] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
    "--no-default-browser-check",
    "--lang=en",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];

/// It reads from 3 and writes to 4; a shell puts its pipes there.
const PIPES: &str = r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// What it tells between two questions; at the bound it waits until the next one.
const TOLD_MAX: usize = 1_024;

/// Longer than it takes to end by itself.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    input: Option<ChildStdin>,
    output: Receiver<Value>,
    /// Its own folder, gone with the test.
    _profile: TempDir,
    session: Option<String>,
    asked: u64,
    requests: Vec<String>,
    complaints: Vec<String>,
    refusals: Vec<String>,
}

impl Browser {
    /// One that shows an empty page; nothing where there is none to start, which is said by the test's name.
    pub(crate) fn started(test: &str) -> Option<Self> {
        let Some(program) = program() else {
            skip(test, "there is no chromium");
            return None;
        };
        let profile = tempfile::Builder::new().prefix("muster-browser-").tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", PIPES, "sh"]).arg(program).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        // What it keeps of itself and of its crashes goes there too.
        command.env("HOME", profile.path()).env_remove("DISPLAY");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let input = process.stdin.take();
        let (said, output) = sync_channel(TOLD_MAX);
        let mut pipe = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || listen(&mut pipe, &said));
        let (requests, complaints, refusals) = (Vec::new(), Vec::new(), Vec::new());
        let mut browser =
            Self { process, input, output, _profile: profile, session: None, asked: 0, requests, complaints, refusals };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Asks for something and waits for the answer; what is told meanwhile is written down.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut question = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            question["sessionId"] = json!(session);
        }
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{question}\0").as_bytes()).and_then(|()| input.flush()).unwrap();
        let began = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let mut told = match self.output.recv_timeout(left) {
                Ok(told) => told,
                Err(RecvTimeoutError::Timeout) => panic!("{method} was not answered within {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser ended before it answered {method}"),
            };
            if told["id"] == json!(self.asked) {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].take();
            }
            self.note(&told);
        }
    }

    /// What the page asked for, and what went wrong in it.
    fn note(&mut self, told: &Value) {
        let params = &told["params"];
        match told["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                self.requests.push(params["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Runtime.exceptionThrown" => self.complaints.push(params["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" => self.complaints.push(params.to_string()),
            // Refusals and a daemon that is away are drawn by the page; the console tells them once more.
            "Log.entryAdded" if params["entry"]["source"] == "network" => {
                self.refusals.push(params["entry"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Log.entryAdded" => self.complaints.push(params["entry"].to_string()),
            _ => {}
        }
    }

    /// Opens an address, and waits until it is loaded.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until("the page is loaded", "document.readyState === 'complete' && location.protocol === 'http:'");
    }

    /// The value of an expression in the page; promises are awaited.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut ended = self.call("Runtime.evaluate", params);
        assert!(ended["exceptionDetails"].is_null(), "{expression}: {ended}");
        ended["result"]["value"].take()
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, expression: &str) {
        self.until_within(what, PATIENCE, expression);
    }

    /// The same with another patience; a page that is being replaced is looked at again.
    #[track_caller]
    pub(crate) fn until_within(&mut self, what: &str, patience: Duration, expression: &str) {
        let whole = format!("(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()");
        let params = json!({ "expression": whole, "returnByValue": true });
        until(what, patience, || {
            (self.call("Runtime.evaluate", params.clone())["result"]["value"] == true).then_some(())
        });
    }

    /// Presses a key, as a user does.
    #[track_caller]
    pub(crate) fn press(&mut self, key: &str, text: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let mut params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Makes the window so wide.
    #[track_caller]
    pub(crate) fn resize(&mut self, width: u32) {
        let params = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", params);
    }

    /// Prefers `light` or `dark`.
    #[track_caller]
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Keeps a picture of the page beside what is built, for people.
    #[track_caller]
    pub(crate) fn shoot(&mut self, name: &str) {
        let shot = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let picture = BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
    }

    /// Every address that was asked for.
    pub(crate) fn requests(&self) -> &[String] {
        &self.requests
    }

    /// Every address whose answer was no, or did not come: the browser writes it on the console.
    pub(crate) fn refusals(&self) -> &[String] {
        &self.refusals
    }

    /// Exceptions, words on the console, and violations of the page's policy.
    pub(crate) fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its input is its own end, in order: its helpers leave its folder first.
        drop(self.input.take());
        if wait_status(&mut self.process, END_WITHIN).is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Reads what the browser says until it ends.
fn listen(pipe: &mut impl BufRead, said: &SyncSender<Value>) {
    let mut bytes = Vec::new();
    while pipe.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
        bytes.pop();
        let Ok(value) = serde_json::from_slice(&bytes) else { return };
        if said.send(value).is_err() {
            return;
        }
        bytes.clear();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]).collect();
    PROGRAMS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.is_file())
}
