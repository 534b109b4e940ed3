//! What the system alone takes: programs that do nothing but the reads and writes of an answer,
//! and say the same to every question. They understand nothing, keep nothing and seal nothing,
//! so that nobody can be below them.
//!
//! For a hop it is two processes over blocking sockets, for an answer from memory one that
//! waits for all its connections together, as an event loop does.

use std::{
    io::{self, Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use mio::{Events, Interest, Poll, Token};

/// The argument by which the benchmark's program is one of the two.
pub(crate) const FLOOR: &str = "--as-floor";

/// The argument by which it is the one that answers from memory.
pub(crate) const ALONE: &str = "--as-floor-alone";

/// Bytes of a question to the owner, and of what an answer has beside the value.
const QUESTION: usize = 96;

/// If this process is to be one of them, is it until the benchmark ends.
pub(crate) fn serve_if_told() -> bool {
    let mut arguments = std::env::args().skip_while(|argument| argument != FLOOR).skip(1);
    let Some(size) = arguments.next() else { return false };
    let size = size.parse().expect("a size");
    let owner = arguments.next().and_then(|owner| owner.parse().ok());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("bound"));
    for socket in listener.incoming() {
        let mut socket = socket.expect("a connection");
        socket.set_nodelay(true).expect("set");
        thread::spawn(move || match owner {
            // The end of the connection.
            Some(owner) => pass_on(&mut socket, owner, size),
            None => answer(&mut socket, size),
        });
    }
    true
}

/// If this process is to be the one that answers from memory, is it until the benchmark ends.
pub(crate) fn answer_if_told() -> bool {
    let mut arguments = std::env::args().skip_while(|argument| argument != ALONE).skip(1);
    let Some(size) = arguments.next() else { return false };
    answer_all(size.parse().expect("a size")).expect("a floor");
    true
}

/// Answers on many connections, by an event loop.
fn answer_all(size: usize) -> io::Result<()> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let mut listener = mio::net::TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    // Every reply fits, at once.
    socket2::SockRef::from(&listener).set_send_buffer_size(4 * size + (1 << 16))?;
    println!("{}", listener.local_addr()?);
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let mut sockets = Vec::new();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {size}\r\n\
         date: Mon, 30 Nov 2026 00:00:00 GMT\r\n\r\n"
    );
    let reply = [head.as_bytes(), &vec![b'x'; size]].concat();
    let mut asked = [0; 1_024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let token = Token(sockets.len() + 1);
                    poll.registry().register(&mut socket, token, Interest::READABLE)?;
                    sockets.push(socket);
                }
                continue;
            }
            let socket: &mut mio::net::TcpStream = &mut sockets[event.token().0 - 1];
            // A question is one read, as it is one write.
            if socket.read(&mut asked).is_ok_and(|count| count > 0) {
                socket.write_all(&reply)?;
            }
        }
    }
}

fn answer(socket: &mut TcpStream, size: usize) -> io::Result<()> {
    let (mut asked, answer) = ([0; QUESTION], vec![b'x'; QUESTION + size]);
    loop {
        socket.read_exact(&mut asked)?;
        socket.write_all(&answer)?;
    }
}

fn pass_on(client: &mut TcpStream, owner: SocketAddr, size: usize) -> io::Result<()> {
    let mut owner = TcpStream::connect(owner)?;
    owner.set_nodelay(true)?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
    let (mut asked, mut answer) = ([0; 1_024], vec![0; QUESTION + size]);
    let mut reply = Vec::new();
    while client.read(&mut asked)? > 0 {
        owner.write_all(&asked[..QUESTION])?;
        owner.read_exact(&mut answer)?;
        reply.clear();
        reply.extend_from_slice(head.as_bytes());
        reply.extend_from_slice(&answer[QUESTION..]);
        client.write_all(&reply)?;
    }
    Ok(())
}
