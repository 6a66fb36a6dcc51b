//! `SnapshotService`: part of the contract, and not served by this version.

use tonic::{Request, Response, Status};

use crate::proto;
use crate::proto::snapshot_service_server::SnapshotService;

/// What is answered where nothing is served yet.
pub(super) fn not_served(method: &str) -> Status {
    Status::unimplemented(format!(
        "{method} is not served by this version of pyrightd; export with ExportService instead"
    ))
}

/// Answers all calls with `UNIMPLEMENTED`.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotServed;

type Never<T> = tokio_stream::Empty<Result<T, Status>>;

#[tonic::async_trait]
impl SnapshotService for NotServed {
    type UpdateSnapshotStream = Never<proto::UpdateSnapshotResponse>;
    async fn update_snapshot(
        &self,
        _: Request<proto::UpdateSnapshotRequest>,
    ) -> Result<Response<Self::UpdateSnapshotStream>, Status> {
        Err(not_served("UpdateSnapshot"))
    }

    type GetSnapshotStream = Never<proto::GetSnapshotResponse>;
    async fn get_snapshot(
        &self,
        _: Request<proto::GetSnapshotRequest>,
    ) -> Result<Response<Self::GetSnapshotStream>, Status> {
        Err(not_served("GetSnapshot"))
    }

    async fn list_snapshots(
        &self,
        _: Request<proto::ListSnapshotsRequest>,
    ) -> Result<Response<proto::ListSnapshotsResponse>, Status> {
        Err(not_served("ListSnapshots"))
    }

    async fn delete_snapshots(
        &self,
        _: Request<proto::DeleteSnapshotsRequest>,
    ) -> Result<Response<proto::DeleteSnapshotsResponse>, Status> {
        Err(not_served("DeleteSnapshots"))
    }

    type DiffSnapshotsStream = Never<proto::DiffSnapshotsResponse>;
    async fn diff_snapshots(
        &self,
        _: Request<proto::DiffSnapshotsRequest>,
    ) -> Result<Response<Self::DiffSnapshotsStream>, Status> {
        Err(not_served("DiffSnapshots"))
    }

    async fn lookup_types(
        &self,
        _: Request<proto::LookupTypesRequest>,
    ) -> Result<Response<proto::LookupTypesResponse>, Status> {
        Err(not_served("LookupTypes"))
    }
}
