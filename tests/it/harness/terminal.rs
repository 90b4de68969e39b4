//! A terminal of the test's own, for what the binary does only before people.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{LocalFlags, tcgetattr},
    },
    unistd::Pid,
};

use super::{PATIENCE, process::command, until_true, wait_status};

/// A verb in a terminal of 120 columns and 40 lines.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    written: Arc<Mutex<Written>>,
    reader: Option<JoinHandle<()>>,
}

/// All that was written, and what it makes of the screen.
struct Written {
    bytes: Vec<u8>,
    screen: vt100::Parser,
}

impl Terminal {
    /// Runs a verb with these variables.
    #[track_caller]
    pub(crate) fn run(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        let mut child = command();
        child.env("TERM", "xterm-256color").envs(variables.iter().copied()).args(args);
        let child = child.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        // Only the verb keeps the other end, so that reading ends with it.
        drop(pair.slave);
        let keyboard = File::from(pair.master);
        let mut from = keyboard.try_clone().unwrap();
        let screen = vt100::Parser::new(size.ws_row.try_into().unwrap(), size.ws_col.try_into().unwrap(), 0);
        let written = Arc::new(Mutex::new(Written { bytes: Vec::new(), screen }));
        let seen = Arc::clone(&written);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // The system says EIO once nobody has the other end.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let mut seen = seen.lock().unwrap();
                seen.bytes.extend_from_slice(&bytes[..count]);
                seen.screen.process(&bytes[..count]);
            }
        });
        Self { child, keyboard, written, reader: Some(reader) }
    }

    /// Waits until this stands on the screen.
    #[track_caller]
    pub(crate) fn until_shown(&self, text: &str) {
        until_true(&format!("the terminal shows {text:?}"), PATIENCE, || {
            self.written.lock().unwrap().screen.screen().contents().contains(text)
        });
    }

    /// Types.
    #[track_caller]
    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Sends the verb a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Another hold on the terminal, which outlives the verb.
    #[track_caller]
    pub(crate) fn held(&self) -> File {
        self.keyboard.try_clone().unwrap()
    }

    /// Whether it hands over each key as it is pressed, and shows none, instead of whole lines.
    #[track_caller]
    pub(crate) fn is_raw(held: &File) -> bool {
        !tcgetattr(held).unwrap().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    /// Waits for the end: its code, and all that was written.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = wait_status(&mut self.child, PATIENCE).expect("the verb ends");
        self.reader.take().unwrap().join().unwrap();
        let written = self.written.lock().unwrap();
        (status.code(), String::from_utf8_lossy(&written.bytes).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
