//! NATS: a request by a client through `nats-server` to a client that answers. Plain TCP and a
//! password; nothing is encrypted.

use std::env;

use anyhow::{Result, bail};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures::StreamExt as _;
use weft_peers::{PAYLOAD_BYTES, ask, say, until_told};

const SUBJECT: &str = "no-op";

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", at] => serve(connect(at).await?).await,
        ["ask", at] => client(connect(at).await?).await,
        _ => bail!("usage: serve ADDRESS | ask ADDRESS"),
    }
}

/// Connects as the user whom the benchmark starts the server with.
async fn connect(at: &str) -> Result<Client> {
    Ok(ConnectOptions::with_user_and_password("bench".into(), "bench".into()).connect(at).await?)
}

async fn serve(client: Client) -> Result<()> {
    let mut requests = client.subscribe(SUBJECT).await?;
    client.flush().await?;
    say("AT")?;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                client.publish(reply, request.payload).await?;
            }
        }
        anyhow::Ok(())
    });
    until_told().await
}

async fn client(client: Client) -> Result<()> {
    let payload = Bytes::from_static(&[7; PAYLOAD_BYTES]);
    ask(async || Ok(client.request(SUBJECT, payload.clone()).await?.payload.len())).await
}
