//! What the service manager is told, over the socket that it gives the node.

use std::path::Path;

use tokio::{net::UnixDatagram, time::timeout};

use crate::harness::{PATIENCE, node::Node};

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(path: &Path) -> Self {
        Self { socket: UnixDatagram::bind(path).expect("a socket") }
    }

    /// The next thing that it is told.
    async fn told(&self) -> String {
        let mut buffer = [0; 1_024];
        let received = timeout(PATIENCE, self.socket.recv(&mut buffer)).await;
        let length = received.expect("something is told").expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("UTF-8")
    }
}

#[tokio::test]
async fn the_manager_hears_of_the_start_of_reloads_and_of_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let mut node = Node::with("").env("NOTIFY_SOCKET", path.to_string_lossy()).start();
    assert_eq!(manager.told().await, "READY=1\nSTATUS=Serving.\n");

    node.signal("HUP");
    let said = manager.told().await;
    assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
    assert_eq!(manager.told().await, "READY=1\nSTATUS=Serving.\n");

    node.configure("[groups.items]\nplugin = \"none\"\n");
    node.signal("HUP");
    let said = manager.told().await;
    assert!(said.starts_with("RELOADING=1\n"), "{said}");
    let said = manager.told().await;
    assert!(said.starts_with("READY=1\n") && said.contains("old settings"), "{said}");

    node.signal("TERM");
    assert_eq!(manager.told().await, "STOPPING=1\nSTATUS=Draining.\n");
    assert!(node.ended().await.success(), "{}", node.log());
}

#[tokio::test]
async fn a_manager_that_is_not_there_changes_nothing() {
    let mut node = Node::with("").env("NOTIFY_SOCKET", "/no/such/socket").start();
    node.logged("NOTIFY_SOCKET").await;
    assert_eq!(node.admin("/readyz").await.status, 200);
    node.signal("TERM");
    assert!(node.ended().await.success(), "{}", node.log());
}
