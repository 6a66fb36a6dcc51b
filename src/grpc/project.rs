//! `ProjectService`: opening, closing and listing projects, and what changed in their files.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Services;
use super::call::Call;
use super::convert::{
    git_status, invalid, lease_status, not_kept, not_open, project_message, settings_of, store_status,
};
use crate::blocking::blocking;
use crate::model::ProjectRoot;
use crate::proto;
use crate::proto::detect_changes_request::Since;
use crate::proto::project_service_server::ProjectService;
use crate::workspace::changes::{Changes, by_digest};
use crate::workspace::git::{Kind, Repository, sources};

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
        request: Request<proto::DetectChangesRequest>,
    ) -> Result<Response<proto::DetectChangesResponse>, Status> {
        let mut call = Call::begin(self, "DetectChanges", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root.clone_from(&request.project_root);
        let detecting = async {
            let root = self.project(&request.project_root)?;
            let Changes { changed, deleted } = match request.since {
                Some(Since::Commit(commit)) if commit.is_empty() => return Err(invalid("commit", "it is empty")),
                Some(Since::Commit(commit)) => self.changes_by_git(root, Some(commit)).await?,
                Some(Since::SnapshotId(id)) => self.changes_by_digest(root, &id).await?,
                None => self.changes_by_git(root, None).await?,
            };
            Ok(proto::DetectChangesResponse { changed, deleted })
        };
        let result = call.within_deadline(detecting).await;
        call.finish(result)
    }
}

impl Services {
    /// Sources that changed since a commit, or since the one that is checked out.
    async fn changes_by_git(&self, root: ProjectRoot, commit: Option<String>) -> Result<Changes, Status> {
        let roots = Arc::clone(&self.roots);
        let changes = blocking(move || {
            let repository = Repository::discover(root.path(), &roots)?;
            let wanted = sources(root.path(), &roots);
            match commit {
                Some(commit) => repository.changes_since(&commit, &wanted),
                None => repository.uncommitted(&wanted),
            }
        });
        changes.await.map_err(|error| git_status(&error))
    }

    /// Sources that are other than in a snapshot.
    async fn changes_by_digest(&self, root: ProjectRoot, snapshot: &str) -> Result<Changes, Status> {
        let results = self.results.as_ref().ok_or_else(not_kept)?;
        let recorded = results.digests(snapshot).await.map_err(|error| store_status(&error))?;
        let look = results.look(&root, &self.registry.settings(&root)).await;
        let roots = Arc::clone(&self.roots);
        let changes = blocking(move || {
            let present = look.sources();
            let wanted = sources(root.path(), &roots);
            let is_own = |path: &str| {
                let mut above = path.match_indices('/').map(|(end, _)| &path[..end]);
                above.all(|folder| wanted(folder, Kind::Folder)) && wanted(path, Kind::File)
            };
            let (mut known, mut failed) = (Vec::new(), Vec::new());
            for (path, digest) in recorded.iter().filter(|(path, _)| is_own(path)).cloned() {
                match digest {
                    Some(digest) => known.push((path, digest)),
                    // As if it were new, since its bytes were not told of.
                    None => failed.push(path),
                }
            }
            failed.retain(|path| present.binary_search(&root.path().join(path)).is_err());
            let mut changes = by_digest(root.path(), known, present, look.seen());
            changes.deleted.extend(failed);
            changes.deleted.sort();
            changes
        });
        Ok(changes.await)
    }
}
