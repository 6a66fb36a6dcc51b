//! `UpdateSnapshot`: not served by this version.

use tonic::{Request, Response, Status};

use super::Services;
use crate::proto;

/// What is sent of an update.
pub(super) type UpdateStream = tokio_stream::Empty<Result<proto::UpdateSnapshotResponse, Status>>;

impl Services {
    #[expect(clippy::unused_async, reason = "nothing is served yet")]
    pub(super) async fn update(
        &self,
        _request: Request<proto::UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateStream>, Status> {
        Err(Status::unimplemented("UpdateSnapshot is not served by this version of pyrightd"))
    }
}
