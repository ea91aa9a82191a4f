//! The endpoints of invitations: connections come and go, frames pass.

use std::collections::BTreeMap;

use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
};
use weft_core::Input;
use weft_net::{
    Reach,
    pairing::{PairListener, PairStream},
};

use super::agents::FromStep;

/// Frames that wait for a slow joiner: a whole pairing has a dozen.
const FRAMES_WAITING: usize = 64;

/// An open endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    accepting: AbortHandle,
    links: mpsc::Receiver<(u64, mpsc::Sender<Vec<u8>>)>,
    senders: BTreeMap<u64, mpsc::Sender<Vec<u8>>>,
}

impl Endpoint {
    /// Opens it; what happens there goes to `out`.
    pub(super) fn open(
        endpoint: u64,
        seed: [u8; 32],
        reach: Reach,
        announced: bool,
        out: mpsc::Sender<FromStep>,
    ) -> Self {
        let (links, links_inbox) = mpsc::channel(FRAMES_WAITING);
        let accepting: JoinHandle<()> =
            tokio::spawn(accept(endpoint, seed, reach, announced, out, links));
        Self { accepting: accepting.abort_handle(), links: links_inbox, senders: BTreeMap::new() }
    }

    /// Sends a frame. A connection that is gone or does not read is let be.
    pub(super) fn send(&mut self, link: u64, frame: Vec<u8>) {
        self.take_links();
        if let Some(sender) = self.senders.get(&link)
            && sender.try_send(frame).is_err()
        {
            self.senders.remove(&link);
        }
    }

    /// Closes a connection once what is queued was sent.
    pub(super) fn close(&mut self, link: u64) {
        self.take_links();
        self.senders.remove(&link);
    }

    fn take_links(&mut self) {
        while let Ok((link, sender)) = self.links.try_recv() {
            self.senders.insert(link, sender);
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    endpoint: u64,
    seed: [u8; 32],
    reach: Reach,
    announced: bool,
    out: mpsc::Sender<FromStep>,
    links: mpsc::Sender<(u64, mpsc::Sender<Vec<u8>>)>,
) {
    let say = async |input| drop(out.send(FromStep::Input(input)).await);
    let opened = if announced {
        PairListener::announce(seed, reach).await
    } else {
        PairListener::open(seed, reach).await
    };
    let mut listener = match opened {
        Ok(listener) => listener,
        Err(error) => {
            let reason = error.to_string();
            return say(Input::PairingFailed { endpoint, reason }).await;
        }
    };
    say(Input::PairingListening { endpoint, addresses: listener.addresses.clone() }).await;
    let mut next = 0;
    while let Some(stream) = listener.incoming.recv().await {
        next += 1;
        let (sender, frames) = mpsc::channel(FRAMES_WAITING);
        // The loop learns of the sender before it can want to send.
        if links.send((next, sender)).await.is_err() {
            return;
        }
        say(Input::PairingConnected { endpoint, link: next, remote: stream.remote }).await;
        tokio::spawn(carry(endpoint, next, stream, frames, out.clone()));
    }
}

/// Carries frames both ways until either end closes.
async fn carry(
    endpoint: u64,
    link: u64,
    mut stream: PairStream,
    mut frames: mpsc::Receiver<Vec<u8>>,
    out: mpsc::Sender<FromStep>,
) {
    loop {
        tokio::select! {
            biased;
            frame = frames.recv() => match frame {
                Some(frame) => {
                    if stream.send(frame).await.is_err() {
                        break;
                    }
                }
                None => {
                    stream.finish().await;
                    return;
                }
            },
            frame = stream.recv() => match frame {
                Some(bytes) => {
                    let input = Input::PairingFrame { endpoint, link, bytes };
                    if out.send(FromStep::Input(input)).await.is_err() {
                        return;
                    }
                }
                None => break,
            },
        }
    }
    drop(out.send(FromStep::Input(Input::PairingClosed { endpoint, link })).await);
}
