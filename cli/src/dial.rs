//! WebSockets over the client that everything else goes through: the same TLS, the same address, the same tokens.

use anyhow::{Context as _, Result, bail};
use kube::Config;
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The largest message of the door, with room to spare.
const LARGEST: usize = 1 << 20;

/// A WebSocket.
pub(crate) type Socket = WebSocketStream<reqwest::Upgraded>;

/// The token of a kubeconfig as it is now: files are read each time, since tokens are renewed.
pub(crate) fn token(config: &Config) -> Result<String> {
    let AuthInfo { token, token_file, .. } = &config.auth_info;
    match (token, token_file) {
        (_, Some(path)) => Ok(std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the token `{path}`"))?
            .trim()
            .to_owned()),
        (Some(token), None) => Ok(token.expose_secret().to_owned()),
        (None, None) => bail!("the kubeconfig has no token"),
    }
}

/// What an answer that is no success says: the detail of its problem document (RFC 9457).
pub(crate) async fn problem(answer: reqwest::Response) -> anyhow::Error {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    let document: Value = serde_json::from_str(&text).unwrap_or_default();
    match document.get("detail").and_then(Value::as_str) {
        Some(detail) => anyhow::anyhow!("{}", dejima_crds::door::plain(detail)),
        None => anyhow::anyhow!("the platform's API answered {status}"),
    }
}

/// Opens a WebSocket as the bearer of a token.
pub(crate) async fn dial(client: &reqwest::Client, url: &str, token: &str) -> Result<Socket> {
    let key = generate_key();
    let request = client
        .get(url)
        .bearer_auth(token)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", &key);
    let answer = request.send().await.context("the platform's API does not answer")?;
    if answer.status().as_u16() != 101 {
        return Err(problem(answer).await);
    }
    let accepted = answer
        .headers()
        .get("sec-websocket-accept")
        .map(reqwest::header::HeaderValue::as_bytes);
    if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        bail!("what answers at {url} is no WebSocket");
    }
    let upgraded = answer.upgrade().await.context("the platform's API does not open a WebSocket")?;
    let settings = WebSocketConfig::default()
        .max_message_size(Some(LARGEST))
        .max_frame_size(Some(LARGEST));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(settings)).await)
}
