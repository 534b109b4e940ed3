//! A network that loses, repeats, delays and spoils packets, between nodes that each have a
//! network namespace of their own: a router in user space, over one TUN device for each.
//!
//! The test itself is in the network too, at [`Chaos::here`], and is spared: what goes wrong
//! goes wrong among the nodes. Needs root and `/dev/net/tun`.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;
use tun_tap::{Iface, Mode};

/// Where the test is in the network.
const HERE: u8 = 254;

/// Numbers of protocols, as in an IP header.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What becomes of packets from one node to another. Shares are from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) no_udp: bool,
    pub(crate) no_tcp: bool,
    pub(crate) lost: f64,
    pub(crate) twice: f64,
    /// With a byte of what they carry changed.
    pub(crate) spoilt: f64,
    /// By up to so much, each for itself, so that they overtake one another.
    pub(crate) late: Duration,
}

impl Weather {
    /// Nothing gets through.
    pub(crate) const NIGHT: Self = Self {
        no_udp: true,
        no_tcp: true,
        lost: 0.0,
        twice: 0.0,
        spoilt: 0.0,
        late: Duration::ZERO,
    };
}

/// What is to be done to a packet.
type Rule = Box<dyn Fn(u8, u8) -> Weather + Send>;

/// Nodes' places in the network, and the router between them.
pub(crate) struct Chaos {
    names: Vec<String>,
    net: [u8; 3],
    router: Arc<Router>,
}

struct Router {
    /// By the last byte of an address.
    ports: Vec<(u8, Iface)>,
    rule: Mutex<Rule>,
    random: Mutex<fastrand::Rng>,
    delayed: mpsc::SyncSender<(Instant, Vec<u8>)>,
    /// Datagrams that have gone by, for those who would send them again.
    heard: Mutex<Vec<Vec<u8>>>,
}

/// How many packets may be on their way.
const DELAYED_MAX: usize = 10_000;

/// How many datagrams are remembered.
const HEARD_MAX: usize = 2_000;

impl Chaos {
    /// A network of `count` places, or why there can be none.
    pub(crate) fn start(count: u8) -> io::Result<Self> {
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
        let router = Arc::new(Router {
            ports: ports?,
            rule: Mutex::new(Box::new(|_, _| Weather::default())),
            random: Mutex::new(fastrand::Rng::with_seed(8)),
            delayed,
            heard: Mutex::default(),
        });
        let mut chaos = Self { names: Vec::new(), net, router };
        for place in 1..=count {
            let name = name(place);
            ip(&["netns", "add", &name])?;
            chaos.names.push(name.clone());
            ip(&["link", "set", &name, "netns", &name])?;
            let address = format!("{}/24", chaos.address(place));
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", &name])?;
            ip(&["-n", &name, "link", "set", &name, "up"])?;
        }
        let (here, address) = (name(HERE), format!("{}/24", chaos.here()));
        ip(&["addr", "add", &address, "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        chaos.route(to_delay);
        Ok(chaos)
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
    pub(crate) fn address(&self, place: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, place)
    }

    /// Where the test is.
    pub(crate) fn here(&self) -> Ipv4Addr {
        self.address(HERE)
    }

    /// The words that run a command at the place `place`.
    pub(crate) fn at(&self, place: u8) -> [&str; 4] {
        ["ip", "netns", "exec", &self.names[usize::from(place) - 1]]
    }

    /// From now on, `rule` says what becomes of packets from one place to another.
    pub(crate) fn set(&self, rule: impl Fn(u8, u8) -> Weather + Send + 'static) {
        *self.router.rule.lock().expect("the rule") = Box::new(rule);
    }

    /// From now on nothing goes wrong.
    pub(crate) fn clear(&self) {
        self.set(|_, _| Weather::default());
    }

    /// Sends all datagrams again that have been heard among nodes; says how many.
    pub(crate) fn replay(&self) -> usize {
        let heard = self.router.heard.lock().expect("datagrams").clone();
        for packet in &heard {
            self.router.send(packet);
        }
        heard.len()
    }
}

impl Drop for Chaos {
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
            let mut heard = self.heard.lock().expect("datagrams");
            if heard.len() < HEARD_MAX {
                heard.push(packet.to_vec());
            }
        }
        let weather = (self.rule.lock().expect("the rule"))(from, to);
        let mut random = self.random.lock().expect("randomness");
        let mut by_chance = |share: f64| share > 0.0 && random.f64() < share;
        let is_cut = (weather.no_udp && protocol == UDP) || (weather.no_tcp && protocol == TCP);
        if is_cut || by_chance(weather.lost) {
            return;
        }
        let mut packet = packet.to_vec();
        let copies = 1 + usize::from(by_chance(weather.twice));
        if by_chance(weather.spoilt) {
            spoil(&mut packet, &mut random);
        }
        for _ in 0..copies {
            if weather.late.is_zero() {
                self.send(&packet);
            } else {
                let due = Instant::now() + weather.late.mul_f64(random.f64());
                // A network that holds too much back loses some of it.
                self.delayed.try_send((due, packet.clone())).ok();
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

/// Changes a byte of what a packet carries. A datagram loses its checksum with it, which IPv4
/// allows: the system would drop it otherwise, and nobody would see it.
fn spoil(packet: &mut [u8], random: &mut fastrand::Rng) {
    let header = usize::from(packet[0] & 15) * 4;
    let carried = header + if packet[9] == UDP { 8 } else { 0 };
    if carried >= packet.len() {
        return;
    }
    let at = random.usize(carried..packet.len());
    packet[at] ^= random.u8(1..);
    if packet[9] == UDP {
        packet[header + 6..header + 8].fill(0);
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
