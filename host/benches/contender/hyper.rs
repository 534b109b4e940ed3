//! The plainest hop over HTTP: two servers of hyper's, the front with a connection of hyper's
//! client to the owner for each of its own, and nothing in between: no cache, no key, no limits.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{Request, Response, body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};

/// The argument by which the benchmark's program is one of the two.
pub(crate) const HYPER: &str = "--as-hyper";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// If this process is to be one of them, is it until the benchmark ends.
pub(crate) fn serve_if_told() -> bool {
    let mut arguments = std::env::args().skip_while(|argument| argument != HYPER).skip(1);
    let Some(size) = arguments.next() else { return false };
    let size = size.parse().expect("a size");
    let owner = arguments.next().and_then(|owner| owner.parse().ok());
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(serve(size, owner)).expect("it serves");
    true
}

async fn serve(size: usize, owner: Option<SocketAddr>) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let body = Bytes::from(vec![b'x'; size]);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        match owner {
            Some(owner) => spawn_local(async move { pass_on(socket, owner).await.ok() }),
            None => spawn_local(answer(socket, body.clone())),
        };
    }
}

async fn answer(socket: TcpStream, body: Bytes) -> Option<()> {
    let reply = service_fn(|_request: Request<Incoming>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(body.clone()))))
    });
    server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), reply).await.ok()
}

async fn pass_on(socket: TcpStream, owner: SocketAddr) -> Result<(), Failure> {
    let to_owner = TcpStream::connect(owner).await?;
    to_owner.set_nodelay(true)?;
    let (asking, connection) = client::conn::http1::handshake(TokioIo::new(to_owner)).await?;
    spawn_local(connection);
    let asking = std::rc::Rc::new(tokio::sync::Mutex::new(asking));
    let reply = service_fn(move |request: Request<Incoming>| {
        let asking = std::rc::Rc::clone(&asking);
        async move {
            let mut question = Request::new(Empty::<Bytes>::new());
            *question.uri_mut() = request.uri().clone();
            question.headers_mut().insert("host", "bench".parse()?);
            let answer = asking.lock().await.send_request(question).await?;
            let body = answer.into_body().collect().await?.to_bytes();
            Ok::<_, Failure>(Response::new(Full::new(body)))
        }
    });
    let served = server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), reply);
    Ok(served.await?)
}
