//! `ProjectService`: opening, closing and listing projects.

use tonic::{Request, Response, Status};

use super::Services;
use super::call::Call;
use super::convert::{lease_status, not_open, project_message, settings_of};
use crate::proto;
use crate::proto::project_service_server::ProjectService;

#[tonic::async_trait]
impl ProjectService for Services {
    async fn open_project(
        &self,
        request: Request<proto::OpenProjectRequest>,
    ) -> Result<Response<proto::OpenProjectResponse>, Status> {
        let mut call = Call::begin(self, "OpenProject", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root.clone_from(&request.project_root);
        let opening = async {
            let root = self.project(&request.project_root)?;
            let settings = settings_of(request.settings, &self.roots)?;
            let lease = self.registry.open(&root, &settings).await.map_err(|error| lease_status(&error))?;
            lease.session().await.map_err(|error| lease_status(&error))?;
            Ok(proto::OpenProjectResponse { project: Some(project_message(&lease.summary())) })
        };
        let result = call.within_deadline(opening).await;
        call.finish(result)
    }

    async fn close_project(
        &self,
        request: Request<proto::CloseProjectRequest>,
    ) -> Result<Response<proto::CloseProjectResponse>, Status> {
        let mut call = Call::begin(self, "CloseProject", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root.clone_from(&request.project_root);
        let closing = async {
            let root = self.project(&request.project_root)?;
            if self.registry.close(&root).await { Ok(proto::CloseProjectResponse {}) } else { Err(not_open(&root)) }
        };
        let result = call.within_deadline(closing).await;
        call.finish(result)
    }

    async fn list_projects(
        &self,
        request: Request<proto::ListProjectsRequest>,
    ) -> Result<Response<proto::ListProjectsResponse>, Status> {
        let call = Call::begin(self, "ListProjects", &request).map_err(|status| *status)?;
        let projects = self.registry.list().iter().map(project_message).collect();
        call.finish(Ok(proto::ListProjectsResponse { projects }))
    }

    async fn detect_changes(
        &self,
        _request: Request<proto::DetectChangesRequest>,
    ) -> Result<Response<proto::DetectChangesResponse>, Status> {
        Err(super::snapshot::not_served("DetectChanges"))
    }
}
