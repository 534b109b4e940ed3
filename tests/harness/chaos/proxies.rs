//! The network of those who are not root: each node is bound to one address of loopback and
//! tells the others another one, where a proxy takes its datagrams and connections.
//!
//! Who sends a datagram is told by the address that it comes from. Who opens a connection is
//! not, since the system gives all of them the same: the socket's other end is looked for
//! among the nodes' processes. Weather is for datagrams; connections are delayed, and stand
//! still where there is no TCP. One that is opened then is accepted and hears nothing.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::{Builder, DELAYED_MAX, Sky};

/// Where nodes gossip, and where they ask one another.
const GOSSIP: u16 = 9_999;
const PEERS: u16 = 9_080;

/// What names a node's place in its environment.
const PLACE: &str = "CHAOS_PLACE";

/// A place that is no node's.
const OUTSIDE: u8 = 0;

/// A proxy before each node.
pub(super) struct Proxies {
    net: u8,
    /// For datagrams to the node at each place, from 1.
    doors: Vec<Arc<UdpSocket>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Proxies {
    pub(super) fn start(count: u8, net: u8, sky: &Arc<Sky>) -> io::Result<Self> {
        let mut proxies = Self { net, doors: Vec::new(), tasks: Vec::new() };
        for place in 1..=count {
            let told = proxies.told(place);
            let socket = std::net::UdpSocket::bind((told, GOSSIP))?;
            socket.set_nonblocking(true)?;
            let door = Arc::new(UdpSocket::from_std(socket)?);
            proxies.doors.push(Arc::clone(&door));
            let to = SocketAddr::from((proxies.bound(place), GOSSIP));
            proxies.tasks.push(tokio::spawn(datagrams(door, to, Arc::clone(sky))));
            for port in [GOSSIP, PEERS] {
                let listener = std::net::TcpListener::bind((told, port))?;
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                let to = SocketAddr::from((proxies.bound(place), port));
                proxies.tasks.push(tokio::spawn(connections(listener, to, Arc::clone(sky))));
            }
        }
        Ok(proxies)
    }

    /// What the node at `place` binds.
    pub(super) fn bound(&self, place: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, self.net, place)
    }

    /// What it tells the others.
    fn told(&self, place: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 1, self.net, place)
    }

    pub(super) fn put(&self, place: u8, node: Builder) -> Builder {
        node.env("CACHECLUSTER_CLUSTER__ADVERTISE", self.told(place).to_string())
            .env("CACHECLUSTER_CLUSTER__SEEDS", format!("{},{}", self.told(1), self.told(2)))
            .env(PLACE, format!("{}.{place}", self.net))
    }

    /// Sends a datagram to the node at `to`, whatever the weather.
    pub(super) fn send(&self, to: u8, datagram: &[u8]) {
        let node = SocketAddr::from((self.bound(to), GOSSIP));
        self.doors[usize::from(to) - 1].try_send_to(datagram, node).ok();
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The last byte of an address: the place of whoever is bound to it.
fn place(address: SocketAddr) -> u8 {
    match address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(_) => OUTSIDE,
    }
}

/// Has datagrams that come to `door` go on to the node at `to`, as the weather will have it.
async fn datagrams(door: Arc<UdpSocket>, to: SocketAddr, sky: Arc<Sky>) {
    let on_their_way = Arc::new(Semaphore::new(DELAYED_MAX));
    let mut buffer = vec![0; 65_536];
    loop {
        // What the system has to say of datagrams that were sent is of no interest.
        let Ok((length, from)) = door.recv_from(&mut buffer).await else { continue };
        let datagram = &buffer[..length];
        sky.hear(place(to), datagram);
        let weather = sky.weather(place(from), place(to));
        if weather.no_udp {
            continue;
        }
        for (late, copy) in sky.copies(&weather, datagram, 0) {
            if late.is_zero() {
                door.send_to(&copy, to).await.ok();
            } else if let Ok(permit) = Arc::clone(&on_their_way).try_acquire_owned() {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    sleep(late).await;
                    door.send_to(&copy, to).await.ok();
                    drop(permit);
                });
            }
        }
    }
}

/// Has connections that come in go on to the node at `to`.
async fn connections(listener: TcpListener, to: SocketAddr, sky: Arc<Sky>) {
    while let Ok((near, from)) = listener.accept().await {
        tokio::spawn(connection(near, from, to, Arc::clone(&sky)));
    }
}

async fn connection(near: TcpStream, from: SocketAddr, node: SocketAddr, sky: Arc<Sky>) {
    let opened = near.local_addr().map(|door| spawn_blocking(move || opener(from, door)));
    let Ok(opened) = opened else { return };
    let (from, to) = (opened.await.ok().flatten().unwrap_or(OUTSIDE), place(node));
    let is_cut = |from, to| sky.weather(from, to).no_tcp;
    if is_cut(from, to) || is_cut(to, from) {
        // As if it had never come through: there is nobody there any more when it clears up.
        let mut rule = sky.rule.subscribe();
        rule.wait_for(|rule| !rule(from, to).no_tcp && !rule(to, from).no_tcp).await.ok();
        return;
    }
    let Ok(far) = TcpStream::connect(node).await else { return };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    tokio::join!(
        forward(near_reads, far_writes, (from, to), &sky),
        forward(far_reads, near_writes, (to, from), &sky),
    );
}

/// Moves bytes from one place to another until there are no more, while there is TCP.
async fn forward(
    mut reads: impl AsyncRead + Unpin,
    mut writes: impl AsyncWrite + Unpin,
    (from, to): (u8, u8),
    sky: &Sky,
) {
    let (mut bytes, mut rule) = (vec![0; 64 << 10], sky.rule.subscribe());
    loop {
        let read = reads.read(&mut bytes).await;
        if rule.wait_for(|rule| !rule(from, to).no_tcp).await.is_err() {
            return;
        }
        let Ok(length @ 1..) = read else { break };
        let late = sky.weather(from, to).late;
        if late > Duration::ZERO {
            let share = sky.random.lock().expect("randomness").f64();
            sleep(late.mul_f64(share)).await;
        }
        if writes.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
    writes.shutdown().await.ok();
}

/// The place of the node that has opened a connection from `from` to `door`.
fn opener(from: SocketAddr, door: SocketAddr) -> Option<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(door)) = (from, door) else { return None };
    let written = |it: SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(it.ip().octets()), it.port())
    };
    let (from, net) = ((written(from), written(door)), door.ip().octets()[2]);
    let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
    let number = sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&&*from.0) && fields.get(2) == Some(&&*from.1);
        is_it.then(|| fields.get(9).copied())?
    })?;
    let socket = format!("socket:[{number}]");
    let mark = format!("{PLACE}={net}.");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let environment = fs::read(process.path().join("environ")).ok()?;
        let mut variables = environment.split(|byte| *byte == 0);
        let place = variables.find_map(|variable| variable.strip_prefix(mark.as_bytes()))?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket))
            .then(|| std::str::from_utf8(place).ok()?.parse().ok())?
    })
}
