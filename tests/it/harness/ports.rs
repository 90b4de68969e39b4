//! Ports that no other test takes.

use std::{
    fs::{self, File},
    net::TcpListener,
    time::{SystemTime, UNIX_EPOCH},
};

/// Below the range from which Linux takes the local ports of outgoing connections, and beside the demo's own choice.
const RANGE: std::ops::Range<u16> = 12_000..20_000;

/// A port that is this test's own: other tests see its lock, other programs that it is listened on.
#[derive(Debug)]
pub(crate) struct Port {
    /// Its number.
    pub(crate) number: u16,
    _lock: File,
}

impl Port {
    /// A free port.
    pub(crate) fn free() -> Self {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
        fs::create_dir_all(&folder).unwrap();
        // Tests begin at different places, so that they seldom meet.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        let start = usize::try_from(nanos.wrapping_mul(2_654_435_761) ^ std::process::id()).unwrap();
        let ports: Vec<u16> = RANGE.collect();
        for offset in 0..ports.len() {
            let number = ports[(start + offset) % ports.len()];
            let lock = File::create(folder.join(number.to_string())).unwrap();
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port in {RANGE:?}");
    }
}
