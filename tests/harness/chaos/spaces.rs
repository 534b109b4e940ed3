//! The network of root: each node is in a network namespace of its own, with one TUN device,
//! and a router in user space forwards packets between the devices.
//!
//! Needs `/dev/net/tun`.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tun_tap::{Iface, Mode};

use super::{DELAYED_MAX, Sky};

/// Where the test is in the network.
const HERE: u8 = 254;

/// Numbers of protocols, as in an IP header.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Nodes' places in the network, and the router between them.
pub(super) struct Spaces {
    names: Vec<String>,
    net: [u8; 3],
    router: Arc<Router>,
}

struct Router {
    /// By the last byte of an address.
    ports: Vec<(u8, Iface)>,
    sky: Arc<Sky>,
    delayed: mpsc::SyncSender<(Instant, Vec<u8>)>,
}

impl Spaces {
    /// A network of `count` places, or why there can be none.
    pub(super) fn start(count: u8, sky: Arc<Sky>) -> io::Result<Self> {
        static NETWORKS: AtomicU8 = AtomicU8::new(0);
        let number = NETWORKS.fetch_add(1, SeqCst);
        let process = std::process::id();
        // Of the range for tests of networks, which is nobody's.
        let net = [198, 18 + number % 2, (process % 256) as u8];
        let name = |place: u8| format!("cc{process:x}n{number}p{place}");
        let ports: io::Result<Vec<_>> = (1..=count)
            .chain([HERE])
            .map(|place| Ok((place, Iface::without_packet_info(&name(place), Mode::Tun)?)))
            .collect();
        let (delayed, to_delay) = mpsc::sync_channel(DELAYED_MAX);
        let router = Arc::new(Router { ports: ports?, sky, delayed });
        let mut spaces = Self { names: Vec::new(), net, router };
        for place in 1..=count {
            let name = name(place);
            ip(&["netns", "add", &name])?;
            spaces.names.push(name.clone());
            ip(&["link", "set", &name, "netns", &name])?;
            let address = format!("{}/24", spaces.address(place));
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", &name])?;
            ip(&["-n", &name, "link", "set", &name, "up"])?;
        }
        let (here, address) = (name(HERE), format!("{}/24", spaces.here()));
        ip(&["addr", "add", &address, "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        spaces.route(to_delay);
        Ok(spaces)
    }

    /// Has threads forward packets until the devices are gone.
    fn route(&self, to_delay: mpsc::Receiver<(Instant, Vec<u8>)>) {
        for at in 0..self.router.ports.len() {
            let router = Arc::downgrade(&self.router);
            thread::spawn(move || {
                let mut packet = vec![0; 2_048];
                while let Some(router) = router.upgrade() {
                    match router.ports[at].1.recv(&mut packet) {
                        Ok(length) => router.take(&packet[..length]),
                        // The device went with its namespace.
                        Err(_) => return,
                    }
                }
            });
        }
        let router = Arc::downgrade(&self.router);
        thread::spawn(move || {
            let mut waiting = BinaryHeap::new();
            loop {
                let next = waiting.peek().map(|Reverse((due, _)): &Reverse<(Instant, _)>| *due);
                let wait = next.map_or(Duration::from_secs(1), |due| {
                    due.saturating_duration_since(Instant::now())
                });
                match to_delay.recv_timeout(wait) {
                    Ok(packet) => waiting.push(Reverse(packet)),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
                let Some(router) = router.upgrade() else { return };
                while let Some(Reverse((due, _))) = waiting.peek()
                    && *due <= Instant::now()
                    && let Some(Reverse((_, packet))) = waiting.pop()
                {
                    router.send(&packet);
                }
            }
        });
    }

    /// The address of the place `place`, from 1.
    pub(super) fn address(&self, place: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, place)
    }

    /// Where the test is.
    pub(super) fn here(&self) -> Ipv4Addr {
        self.address(HERE)
    }

    /// The words that run a command at the place `place`.
    pub(super) fn at(&self, place: u8) -> [&str; 4] {
        ["ip", "netns", "exec", &self.names[usize::from(place) - 1]]
    }

    /// Sends a packet to where it is addressed, whatever the weather.
    pub(super) fn send(&self, packet: &[u8]) {
        self.router.send(packet);
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "del", name]).ok();
        }
        for (place, port) in &self.router.ports {
            if *place == HERE {
                ip(&["link", "del", port.name()]).ok();
            }
        }
    }
}

impl Router {
    /// Does to a packet what the weather does.
    fn take(&self, packet: &[u8]) {
        // Of IPv4 only, with its header whole.
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            return;
        }
        let (from, to, protocol) = (packet[15], packet[19], packet[9]);
        if from == HERE || to == HERE {
            return self.send(packet);
        }
        if protocol == UDP {
            self.sky.hear(to, packet);
        }
        let weather = self.sky.weather(from, to);
        if (weather.no_udp && protocol == UDP) || (weather.no_tcp && protocol == TCP) {
            return;
        }
        let header = usize::from(packet[0] & 15) * 4;
        let carried = header + if protocol == UDP { 8 } else { 0 };
        for (late, mut copy) in self.sky.copies(&weather, packet, carried) {
            // A datagram that was changed loses its checksum with it, which IPv4 allows: the
            // system would drop it otherwise, and nobody would see it.
            if protocol == UDP && copy != packet {
                copy[header + 6..header + 8].fill(0);
            }
            if late.is_zero() {
                self.send(&copy);
            } else {
                // A network that holds too much back loses some of it.
                self.delayed.try_send((Instant::now() + late, copy)).ok();
            }
        }
    }

    fn send(&self, packet: &[u8]) {
        let port = self.ports.iter().find(|(place, _)| *place == packet[19]);
        // A node that is going has a device no more.
        if let Some((_, port)) = port {
            port.send(packet).ok();
        }
    }
}

fn ip(words: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(io::Error::other(format!("ip {}: {}", words.join(" "), text.trim())))
}
