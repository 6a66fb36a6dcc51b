//! From a project root to its one supervisor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::supervisor::{Common, Lease, LeaseError, Summary, Supervisor};
use crate::model::{ProjectRoot, ProjectSettings};

/// All projects of this server.
#[derive(Debug)]
pub struct Registry {
    common: Arc<Common>,
    projects: Mutex<HashMap<ProjectRoot, Project>>,
}

#[derive(Debug)]
struct Project {
    /// Kept when an idle engine is stopped: the next call must not see other types.
    settings: ProjectSettings,
    supervisor: Arc<Supervisor>,
}

impl Registry {
    /// A registry in which nothing is open.
    #[must_use]
    pub fn new(common: Common) -> Self {
        Self { common: Arc::new(common), projects: Mutex::default() }
    }

    /// A hold on a project for one call; its engine is started if none runs.
    ///
    /// # Errors
    /// [`LeaseError::Overloaded`].
    pub async fn lease(&self, root: &ProjectRoot) -> Result<Lease, LeaseError> {
        loop {
            let supervisor = self.supervisor(root, None);
            match supervisor.lease() {
                Err(LeaseError::Closing) => supervisor.closed().await,
                result => return result,
            }
        }
    }

    /// The same, if its engine runs already, or is on its way.
    ///
    /// # Errors
    /// [`LeaseError::Overloaded`].
    pub fn lease_open(&self, root: &ProjectRoot) -> Result<Option<Lease>, LeaseError> {
        let supervisor = self.lock().get(root).map(|project| Arc::clone(&project.supervisor));
        match supervisor.map(|supervisor| supervisor.lease()) {
            Some(Ok(lease)) => Ok(Some(lease)),
            None | Some(Err(LeaseError::Closing)) => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }

    /// As a project was opened, or would be.
    #[must_use]
    pub fn settings(&self, root: &ProjectRoot) -> ProjectSettings {
        self.lock().get(root).map(|project| project.settings.clone()).unwrap_or_default()
    }

    /// The same with these settings: a project that is open with others is opened anew.
    ///
    /// # Errors
    /// [`LeaseError::Overloaded`].
    pub async fn open(&self, root: &ProjectRoot, settings: &ProjectSettings) -> Result<Lease, LeaseError> {
        loop {
            let supervisor = self.supervisor(root, Some(settings));
            if supervisor.settings() != settings {
                supervisor.close();
            }
            match supervisor.lease() {
                Err(LeaseError::Closing) => supervisor.closed().await,
                result => return result,
            }
        }
    }

    /// Stops a project's engine once its calls have ended, and forgets its settings. False where it was not open.
    pub async fn close(&self, root: &ProjectRoot) -> bool {
        let supervisor = {
            let mut projects = self.lock();
            let Some(project) = projects.get_mut(root) else { return false };
            project.settings = ProjectSettings::default();
            Arc::clone(&project.supervisor)
        };
        let open = !supervisor.is_closing();
        supervisor.close();
        // It stays known, so that no second engine starts beside it, and the next one's generation is the next.
        supervisor.closed().await;
        open
    }

    /// Stops all engines at once; calls that are under way have ended or are given up.
    pub async fn close_all(&self) {
        let projects: Vec<_> = self.lock().drain().map(|(_, project)| project.supervisor).collect();
        for supervisor in &projects {
            supervisor.close();
        }
        for supervisor in projects {
            supervisor.closed().await;
        }
    }

    /// The projects that have an engine, or are about to have one, by root.
    #[must_use]
    pub fn list(&self) -> Vec<Summary> {
        let supervisors: Vec<_> = self.lock().values().map(|project| Arc::clone(&project.supervisor)).collect();
        let mut projects: Vec<_> = supervisors
            .iter()
            .map(|supervisor| supervisor.summary())
            .filter(|summary| !matches!(summary.state, super::supervisor::State::Stopped))
            .collect();
        projects.sort_by(|one, other| one.root.cmp(&other.root));
        projects
    }

    /// The project's supervisor: the present one unless it has ended. Never two for one root.
    fn supervisor(&self, root: &ProjectRoot, settings: Option<&ProjectSettings>) -> Arc<Supervisor> {
        let mut projects = self.lock();
        let present = projects.get(root);
        if let Some(project) = present
            && !project.supervisor.is_closed()
        {
            return Arc::clone(&project.supervisor);
        }
        let settings =
            settings.cloned().or_else(|| present.map(|project| project.settings.clone())).unwrap_or_default();
        let generations = present.map_or(0, |project| project.supervisor.summary().generation);
        let supervisor = Supervisor::start(root.clone(), settings.clone(), generations, Arc::clone(&self.common));
        projects.insert(root.clone(), Project { settings, supervisor: Arc::clone(&supervisor) });
        supervisor
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProjectRoot, Project>> {
        self.projects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
