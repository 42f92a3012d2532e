//! The door's wiring: a host dials in under its own identity.

use std::time::Duration;

use async_trait::async_trait;
use dejima_crds::door::{FromHost, ToHost};
use dejima_hostd::door::{Dial, Line};
use futures::{SinkExt as _, StreamExt as _};
use kube::Config;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::dial::{Socket, dial, token};

/// What waits on a line.
const WAITING: usize = 64;
/// A line on which nothing comes for so long is over: the API gives a sign of life every few seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// A host's way to the door.
pub(crate) struct HostLine {
    client: reqwest::Client,
    url: String,
    config: Config,
}

impl HostLine {
    /// To this address, as this host.
    pub(crate) fn new(api: &str, host: &str, config: Config) -> anyhow::Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).build()?,
            url: format!("{}/api/v1/hosts/{host}/door", api.trim_end_matches('/')),
            config,
        })
    }
}

#[async_trait]
impl Dial for HostLine {
    async fn dial(&self) -> Result<Line, dejima_hostd::Error> {
        let failed = |cause: anyhow::Error| dejima_hostd::Error::driver("dial", self.url.clone(), cause);
        let dialled = timeout(SILENCE, async { dial(&self.client, &self.url, &token(&self.config)?).await });
        let socket = dialled
            .await
            .map_err(|_| dejima_hostd::Error::Silent("open the door"))?
            .map_err(failed)?;
        let (say, says) = mpsc::channel(WAITING);
        let (heard, hear) = mpsc::channel(WAITING);
        tokio::spawn(pass(socket, says, heard));
        Ok((say, hear))
    }
}

/// Passes words until either side is gone.
async fn pass(mut socket: Socket, mut says: mpsc::Receiver<FromHost>, heard: mpsc::Sender<ToHost>) {
    loop {
        tokio::select! {
            said = says.recv() => {
                let Some(text) = said.and_then(|said| serde_json::to_string(&said).ok()) else { break };
                if !matches!(timeout(SILENCE, socket.send(Message::text(text))).await, Ok(Ok(()))) {
                    break;
                }
            }
            came = timeout(SILENCE, socket.next()) => match came {
                Ok(Some(Ok(Message::Text(text)))) => {
                    let Ok(word) = serde_json::from_str(&text) else { break };
                    if heard.send(word).await.is_err() {
                        break;
                    }
                }
                // A ping is answered by the one who reads.
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(Some(Ok(Message::Binary(_) | Message::Close(_) | Message::Frame(_)) | Err(_)) | None) | Err(_) => break,
            }
        }
    }
}
