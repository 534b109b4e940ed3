//! A cache inside a program: a group whose misses are filled by an async closure.
//!
//! `cargo run -p embedded` gets a few squares, each of them computed slowly the first
//! time and remembered the second, and serves the same group over HTTP until Ctrl-C.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use anyhow::Context as _;
use cachecluster::{
    config::{Caching, Http},
    group::{Context, Fill, FillError, GetError, Outcome, getter_fn},
    node::Node,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let squares = getter_fn(|fill: Fill| async move { square(&fill.key).await });
    let caching = Caching { ttl: Duration::from_mins(1), ..Caching::default() };
    // Port 0 takes a free one; leave `http` out to keep the cache to this process.
    let http = Http { listen: ([127, 0, 0, 1], 0).into(), ..Http::default() };
    let node = Node::builder().group("squares", caching, squares).http(http).start()?;

    let group = node.group("squares").context("the group was just added")?;
    for key in ["12", "12", "twelve"] {
        let answer = group.get(key.as_bytes(), &Context::within(Duration::from_secs(5))).await;
        match answer {
            Ok(hit) => {
                let text = String::from_utf8_lossy(hit.value.body());
                println!("{key:>8}  {text}  ({:?})", hit.provenance.served);
            }
            Err(GetError::NotFound(_)) => println!("{key:>8}  has no square"),
            Err(error) => println!("{key:>8}  {error}"),
        }
    }

    if let Some(addr) = node.http_addr() {
        println!("\ncurl -i http://{addr}/squares/7    (Ctrl-C ends)");
    }
    tokio::signal::ctrl_c().await?;
    node.stop()
}

/// The origin: slow, and not every key has a value.
async fn square(key: &[u8]) -> Result<Outcome, FillError> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let number: Option<u64> = std::str::from_utf8(key).ok().and_then(|text| text.parse().ok());
    Ok(match number.and_then(|number| number.checked_mul(number)) {
        Some(square) => Outcome::found(square.to_string()),
        None => Outcome::not_found(),
    })
}
