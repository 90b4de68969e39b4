//! A way to a daemon's port that a test can cut and mend: what goes through it is forwarded as it is.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// A port that leads to another.
pub(crate) struct Way {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    is_cut: bool,
    is_over: bool,
    /// Both ends of whatever goes through it, until it is cut.
    open: Vec<TcpStream>,
    /// All that was said in the daemon's direction.
    asked: Vec<u8>,
}

impl Way {
    /// One that is open.
    pub(crate) fn to(daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Mutex::new(Inner::default()));
        let shared = Arc::clone(&inner);
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if shared.lock().unwrap().is_over {
                    return;
                }
                forward(&shared, near, daemon);
            }
        });
        Self { address, inner }
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends what is under way; whoever comes is sent away until it is mended.
    pub(crate) fn cut(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.is_cut = true;
        for end in inner.open.drain(..) {
            // The other side may have ended it before.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Lets whoever comes through again.
    pub(crate) fn mend(&self) {
        self.inner.lock().unwrap().is_cut = false;
    }

    /// All that the daemon was asked through it, in small letters.
    pub(crate) fn asked(&self) -> String {
        String::from_utf8_lossy(&self.inner.lock().unwrap().asked).to_lowercase()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.cut();
        self.inner.lock().unwrap().is_over = true;
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(shared: &Arc<Mutex<Inner>>, near: TcpStream, daemon: SocketAddr) {
    let Ok(far) = TcpStream::connect(daemon) else { return };
    let mut inner = shared.lock().unwrap();
    if inner.is_cut {
        return;
    }
    inner.open.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
    let (back, forth) = ((far.try_clone().unwrap(), near.try_clone().unwrap()), (near, far));
    let heard = Arc::clone(shared);
    std::thread::spawn(move || copy(forth, |said| heard.lock().unwrap().asked.extend(said)));
    std::thread::spawn(move || copy(back, |_| ()));
}

/// Until either end is closed, which closes the other.
fn copy((mut from, mut to): (TcpStream, TcpStream), mut hear: impl FnMut(&[u8])) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        hear(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
