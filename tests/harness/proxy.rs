//! A TCP proxy that counts connections: what an origin is asked, seen from outside. It can
//! stand still, as a process that is stopped does: what it has accepted stays open, and
//! nothing moves.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards connections to one address until dropped.
pub(crate) struct Proxy {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    is_paused: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let (is_paused, paused) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let paused = paused.clone();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(target).await {
                        let (near_reads, near_writes) = near.into_split();
                        let (far_reads, far_writes) = far.into_split();
                        tokio::join!(
                            forward(near_reads, far_writes, paused.clone()),
                            forward(far_reads, near_writes, paused),
                        );
                    }
                });
            }
        });
        Self { addr, connections, is_paused, accepting }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// From now on nothing moves, or all does again that waited.
    pub(crate) fn pause(&self, is_paused: bool) {
        self.is_paused.send_replace(is_paused);
    }
}

/// Moves bytes until one end has no more. Either side may reset: that is the test's business.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut paused: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        // A proxy that is gone holds nobody up.
        paused.wait_for(|is_paused| !is_paused).await.ok();
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
