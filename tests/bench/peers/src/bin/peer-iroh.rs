//! iroh without relays or lookups: two endpoints that know each other's address; each call is a stream
//! of its own on one connection.

use std::env;

use anyhow::{Context as _, Result, bail};
use iroh::{
    Endpoint, EndpointAddr, RelayMode,
    endpoint::{Connection, presets},
};
use weft_peers::{PAYLOAD_BYTES, ask, say, until_told};

const ALPN: &[u8] = b"weft-peers/echo/1";

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve().await,
        ["ask", id, at] => client(EndpointAddr::new(id.parse()?).with_ip_addr(at.parse()?)).await,
        _ => bail!("usage: serve | ask ID ADDRESS"),
    }
}

async fn endpoint() -> Result<Endpoint> {
    let builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .alpns(vec![ALPN.to_vec()]);
    Ok(builder.bind().await?)
}

async fn serve() -> Result<()> {
    let endpoint = endpoint().await?;
    let at = endpoint.bound_sockets().first().copied().context("no socket")?;
    say(&format!("AT {} {at}", endpoint.id()))?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move { echo(incoming.await?).await });
        }
    });
    until_told().await
}

async fn echo(connection: Connection) -> Result<()> {
    loop {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let bytes = receive.read_to_end(PAYLOAD_BYTES).await?;
        send.write_all(&bytes).await?;
        send.finish()?;
    }
}

async fn client(at: EndpointAddr) -> Result<()> {
    let endpoint = endpoint().await?;
    let connection = endpoint.connect(at, ALPN).await.context("failed to connect")?;
    ask(async || {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&[7; PAYLOAD_BYTES]).await?;
        send.finish()?;
        Ok(receive.read_to_end(PAYLOAD_BYTES).await?.len())
    })
    .await
}
