//! The gRPC face: services, reflection, health, and what all calls have in common.

mod call;
mod convert;
mod export;
mod project;
mod snapshot;
mod update;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::export::Exporter;
use crate::proto::export_service_server::{ExportServiceServer, SERVICE_NAME as EXPORT};
use crate::proto::project_service_server::{ProjectServiceServer, SERVICE_NAME as PROJECT};
use crate::proto::snapshot_service_server::{SERVICE_NAME as SNAPSHOT, SnapshotServiceServer};
use crate::pyright::registry::Registry;
use crate::results::Results;
use crate::workspace::paths::AllowedRoots;

/// What server reflection tells of the contract.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pyrightd.bin"));

/// What the services need.
#[derive(Clone, Debug)]
pub struct Services {
    /// Exports types.
    pub exporter: Arc<Exporter>,
    /// What is kept of them; none where nothing is.
    pub results: Option<Arc<Results>>,
    /// Knows the open projects.
    pub registry: Arc<Registry>,
    /// Where projects may lie.
    pub roots: Arc<AllowedRoots>,
    /// Requests to one engine at once.
    pub max_in_flight: usize,
    /// The largest message taken, in bytes.
    pub max_message_in: usize,
    /// The largest message sent, in bytes.
    pub max_message_out: usize,
    /// Calls that are under way.
    pub calls: TaskTracker,
    /// Cancelled when no new calls are taken.
    pub draining: CancellationToken,
    /// Cancelled when calls that are under way are given up.
    pub abandoned: CancellationToken,
}

impl Services {
    /// All services as routes, and the reporter of their health.
    ///
    /// # Errors
    /// Where the compiled-in descriptors are damaged.
    pub async fn routes(&self) -> Result<(Routes, HealthReporter), tonic_reflection::server::Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", ServingStatus::Serving).await;
        for service in [EXPORT, PROJECT] {
            reporter.set_service_status(service, ServingStatus::Serving).await;
        }
        let keeps = if self.results.is_some() { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status(SNAPSHOT, keeps).await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::new(health)
            .add_service(reflection().build_v1()?)
            // grpcurl up to 1.8 asks in this version alone.
            .add_service(reflection().build_v1alpha()?);
        routes = routes
            .add_service(
                ExportServiceServer::new(self.clone())
                    .max_decoding_message_size(self.max_message_in)
                    .max_encoding_message_size(self.max_message_out),
            )
            .add_service(ProjectServiceServer::new(self.clone()).max_decoding_message_size(self.max_message_in))
            .add_service(
                SnapshotServiceServer::new(self.clone())
                    .max_decoding_message_size(self.max_message_in)
                    .max_encoding_message_size(self.max_message_out),
            );
        Ok((routes, reporter))
    }

    /// Takes no more calls, waits for those under way, and gives up on them after the grace period.
    pub async fn drain(&self, reporter: &HealthReporter, grace: Duration) {
        for service in ["", EXPORT, PROJECT, SNAPSHOT] {
            reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
        self.draining.cancel();
        self.calls.close();
        if tokio::time::timeout(grace, self.calls.wait()).await.is_err() {
            tracing::warn!(calls = self.calls.len(), "the grace period is over; calls that are under way are given up");
            self.abandoned.cancel();
            // Their last words are still to be sent.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.calls.wait()).await;
        }
    }
}
