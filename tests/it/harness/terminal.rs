//! A terminal of the test's own, for what the binary does only before people.

use std::{
    fs::File,
    io::Read as _,
    process::{Child, Stdio},
    thread::JoinHandle,
};

use nix::pty::{Winsize, openpty};

use super::{PATIENCE, process::command, wait_status};

/// A verb in a terminal of 120 columns and 40 lines.
pub(crate) struct Terminal {
    child: Child,
    reader: Option<JoinHandle<Vec<u8>>>,
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
        let mut from = File::from(pair.master);
        let reader = std::thread::spawn(move || {
            let (mut written, mut bytes) = (Vec::new(), [0; 4_096]);
            // The system says EIO once nobody has the other end.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                written.extend_from_slice(&bytes[..count]);
            }
            written
        });
        Self { child, reader: Some(reader) }
    }

    /// Waits for the end: its code, and all that was written.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = wait_status(&mut self.child, PATIENCE).expect("the verb ends");
        let written = self.reader.take().unwrap().join().unwrap();
        (status.code(), String::from_utf8_lossy(&written).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
