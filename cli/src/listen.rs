//! The port of the API: plain on loopback, TLS anywhere else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use clap::Args;
use dejima_api::Window;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A certificate that was renewed on the disk is used after at most this long.
const RENEWED: Duration = Duration::from_mins(1);
/// What was asked before the end is answered for at most this long.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// Where the API answers, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Listen {
    /// Where to listen; loopback, unless there is a certificate
    #[arg(long = "listen", default_value = "127.0.0.1:7080")]
    address: std::net::SocketAddr,
    /// A file with the certificate (PEM, the chain below it); read again when it is renewed
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// A file with the certificate's private key (PEM)
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

impl Default for Listen {
    /// Some port of loopback.
    fn default() -> Self {
        Self {
            address: std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0)),
            tls_certificate: None,
            tls_key: None,
        }
    }
}

impl Listen {
    /// Takes the port. Callers send their tokens: in the clear they travel on loopback alone.
    pub(crate) async fn bind(&self) -> Result<TcpListener> {
        if self.tls_certificate.is_none() && !self.address.ip().is_loopback() {
            bail!(
                "{} is not loopback: callers send their tokens, give the API a certificate (--tls-certificate, --tls-key)",
                self.address
            );
        }
        TcpListener::bind(self.address)
            .await
            .with_context(|| format!("cannot listen on {}", self.address))
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls_certificate.is_some()
    }

    /// Answers until it is told to stop; what was asked by then is answered.
    pub(crate) async fn answer(&self, window: Window, listener: TcpListener, mut stop: watch::Receiver<bool>) -> Result<()> {
        tracing::info!(listen = %listener.local_addr()?, tls = self.is_tls(), "the API answers");
        let app = dejima_api::app(window);
        let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) else {
            let ended = async move {
                // The sender goes with the process.
                let _ = stop.wait_for(|stop| *stop).await;
            };
            axum::serve(listener, app)
                .with_graceful_shutdown(ended)
                .await
                .context("the API ended")?;
            tracing::info!("the API has stopped");
            return Ok(());
        };
        let config = RustlsConfig::from_pem_file(certificate, key)
            .await
            .context("cannot use the API's certificate and key")?;
        let handle = Handle::new();
        let ends = async {
            let _ = stop.wait_for(|stop| *stop).await;
            handle.graceful_shutdown(Some(LAST_ANSWERS));
            // The server says when it has ended.
            std::future::pending::<()>().await;
        };
        let server = axum_server::from_tcp_rustls(listener.into_std()?, config.clone())
            .context("cannot speak TLS on the API's port")?
            .handle(handle.clone())
            .serve(app.into_make_service());
        tokio::select! {
            ended = server => ended.context("the API ended")?,
            () = ends => {}
            () = renew(&config, certificate, key) => {}
        }
        tracing::info!("the API has stopped");
        Ok(())
    }
}

/// Reads a certificate again whenever it is another one; never ends. One that cannot be used leaves the old one in use.
async fn renew(config: &RustlsConfig, certificate: &Path, key: &Path) {
    let read = || async { (tokio::fs::read(certificate).await.ok(), tokio::fs::read(key).await.ok()) };
    let mut used = read().await;
    loop {
        tokio::time::sleep(RENEWED).await;
        let found = read().await;
        if found == used {
            continue;
        }
        match config.reload_from_pem_file(certificate, key).await {
            Ok(()) => {
                tracing::info!("the API's certificate was renewed");
                used = found;
            }
            Err(error) => tracing::warn!(%error, "the API's new certificate cannot be used; the old one is"),
        }
    }
}
