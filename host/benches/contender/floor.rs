//! What the system alone takes for a hop: two processes that do nothing but the reads and
//! writes of one, over blocking sockets, with an owner that says the same to every question.
//! They understand nothing, keep nothing and seal nothing, so that nobody can be below them.

use std::{
    io::{self, Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// The argument by which the benchmark's program is one of the two.
pub(crate) const FLOOR: &str = "--as-floor";

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
