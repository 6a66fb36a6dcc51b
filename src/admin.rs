//! What operators ask: the metrics over HTTP, in Prometheus's text format.
//!
//! Each part of the program counts by itself, with the `metrics` crate; here is only how that is read.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use axum::http::header;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The media type that Prometheus's text format has.
const TEXT: &str = "text/plain; version=0.0.4";

/// A server for metrics that is bound to its address and ready to run.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    metrics: PrometheusHandle,
}

impl Admin {
    /// Binds the address, and keeps what is counted from here on.
    ///
    /// # Errors
    /// Where the address can't be had, or this process keeps its counts elsewhere already.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
        let metrics = PrometheusBuilder::new().install_recorder().context("metrics can't be kept")?;
        Ok(Self { listener, metrics })
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// Where the transport fails.
    pub async fn run(self, stop: CancellationToken) -> std::io::Result<()> {
        let Self { listener, metrics } = self;
        tracing::info!(metrics = %listener.local_addr()?, "serving metrics");
        let render = move || {
            let text = metrics.render();
            async { ([(header::CONTENT_TYPE, TEXT)], text) }
        };
        let routes = Router::new().route("/metrics", get(render));
        axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}
