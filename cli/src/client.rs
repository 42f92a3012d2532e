//! Clients of Kubernetes that wait for nobody for ever: a server that accepts and does not answer is an error, after a while.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;

/// How long until an answer begins. A watch begins at once too, and goes on for as long as it likes.
const ANSWER: Duration = Duration::from_secs(20);
/// How long nothing may be heard once it has begun. The server ends a watch after 290 s at the latest, if nothing happens.
const SILENCE: Duration = Duration::from_secs(330);

/// A client for this configuration.
pub(crate) fn patient(config: Config) -> Result<Client> {
    within(config, ANSWER)
}

fn within(mut config: Config, answer: Duration) -> Result<Client> {
    config.read_timeout = Some(SILENCE);
    // A connection that was idle is not blamed for it.
    config.reset_reader_on_write = true;
    let builder = ClientBuilder::try_from(config).context("cannot talk to the cluster")?;
    Ok(builder.with_layer(&TimeoutLayer::new(answer)).build())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::WatchParams;
    use kube::core::WatchEvent;
    use kube::{Api, ResourceExt as _};
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const SHORT: Duration = Duration::from_secs(2);

    /// A client of a server that does this with each connection, on a thread of its own.
    fn client(serve: fn(TcpStream)) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                std::thread::spawn(move || serve(connection));
            }
        });
        within(Config::new(url.parse().unwrap()), SHORT).unwrap()
    }

    /// Reads until the other side has no more to say.
    fn drain(mut connection: TcpStream) {
        let mut piece = [0; 4096];
        while connection.read(&mut piece).is_ok_and(|count| count > 0) {}
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_stays_silent_is_an_error_after_a_while() {
        let maps: Api<ConfigMap> = Api::default_namespaced(client(drain));
        let asked = tokio::time::timeout(SHORT * 20, maps.get_opt("any")).await;
        assert!(asked.expect("it waits for ever").is_err());
    }

    #[tokio::test]
    async fn a_watch_goes_on_for_longer_than_an_answer_may_take_to_begin() {
        let serve = |mut connection: TcpStream| {
            // It is no answer where nothing was asked yet.
            let mut asked = Vec::new();
            let mut piece = [0; 4096];
            while !asked.ends_with(b"\r\n\r\n") {
                let count = connection.read(&mut piece).unwrap();
                asked.extend_from_slice(piece.get(..count).unwrap());
            }
            let begin = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            connection.write_all(begin).unwrap();
            std::thread::sleep(SHORT * 3 / 2);
            let event =
                r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"late","resourceVersion":"1"}}}"#;
            connection
                .write_all(format!("{:x}\r\n{event}\n\r\n", event.len() + 1).as_bytes())
                .unwrap();
            drain(connection);
        };
        let maps: Api<ConfigMap> = Api::default_namespaced(client(serve));
        let stream = maps.watch(&WatchParams::default(), "0").await.unwrap();
        let mut stream = std::pin::pin!(stream);
        let next = std::future::poll_fn(|context| futures::Stream::poll_next(stream.as_mut(), context));
        let event = tokio::time::timeout(SHORT * 20, next)
            .await
            .expect("nothing comes")
            .unwrap()
            .unwrap();
        assert!(matches!(event, WatchEvent::Added(map) if map.name_any() == "late"));
    }
}
