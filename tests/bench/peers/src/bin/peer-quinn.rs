//! QUIC by quinn: each call is a stream of its own on one connection.

use std::{env, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use data_encoding::HEXLOWER;
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use weft_peers::{PAYLOAD_BYTES, ask, say, until_told};

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve().await,
        ["ask", at, certificate] => client(at.parse()?, certificate).await,
        _ => bail!("usage: serve | ask ADDRESS CERTIFICATE"),
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(4)));
    Arc::new(transport)
}

async fn serve() -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["peer".into()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate = made.cert.der().clone();
    let mut config = ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    config.transport_config(transport());
    let endpoint = Endpoint::server(config, ([127, 0, 0, 1], 0).into())?;
    say(&format!("AT {} {}", endpoint.local_addr()?, HEXLOWER.encode(&certificate)))?;
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

async fn client(at: SocketAddr, certificate: &str) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(HEXLOWER.decode(certificate.as_bytes())?))?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots))?;
    config.transport_config(transport());
    let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
    endpoint.set_default_client_config(config);
    let connection = endpoint.connect(at, "peer")?.await.context("failed to connect")?;
    ask(async || {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&[7; PAYLOAD_BYTES]).await?;
        send.finish()?;
        Ok(receive.read_to_end(PAYLOAD_BYTES).await?.len())
    })
    .await
}
