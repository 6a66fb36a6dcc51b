//! `UpdateSnapshot`, and exports that are saved as snapshots.
//!
//! How an update is done is left to `update`; reading what it made, to `snapshot`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::Services;
use super::call::{Call, Tally};
use super::convert::{
    delta_message, duration_message, failed_file_message, file_message, invalid, not_kept, options_of, selector_of,
    snapshot_message, update_status,
};
use crate::export::Event;
use crate::proto;
use crate::proto::update_snapshot_response::Result as Message;
use crate::update::{Scope, Update, Updated, Updater};

/// Messages of a stream that wait for a slow reader.
const WAITING: usize = 2;

/// What is sent of an update.
pub(super) type UpdateStream = Pin<Box<dyn Stream<Item = Result<proto::UpdateSnapshotResponse, Status>> + Send>>;

type Sender = mpsc::Sender<Result<proto::UpdateSnapshotResponse, Status>>;

impl Services {
    pub(super) fn update(
        &self,
        request: Request<proto::UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateStream>, Status> {
        let mut call = Call::begin(self, "UpdateSnapshot", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root.clone_from(&request.project_root);
        let (update, updater) = match self.plan_update(&request).and_then(|update| Ok((update, self.updater()?))) {
            Ok(planned) => planned,
            Err(status) => return call.finish(Err(status)),
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut response: Response<UpdateStream> = Response::new(Box::pin(ReceiverStream::new(receiver)));
        call.stamp(&mut response);
        let (services, span) = (self.clone(), call.span());
        let work = async move {
            let mut tally = Tally::default();
            let updating = Box::pin(services.send_update(&updater, &update, &sender, &mut tally));
            let result = call.while_read(&sender, updating).await;
            call.tally = tally;
            call.end_stream(&sender, result).await;
        };
        self.calls.spawn(work.instrument(span));
        Ok(response)
    }

    /// What makes snapshots.
    pub(super) fn updater(&self) -> Result<Arc<Updater>, Status> {
        self.updater.clone().ok_or_else(not_kept)
    }

    fn plan_update(&self, request: &proto::UpdateSnapshotRequest) -> Result<Update, Status> {
        let root = self.project(&request.project_root)?;
        let options = options_of(request.options.as_ref(), self.max_in_flight)?;
        let selector = selector_of(request.selector).map_err(|reason| invalid("selector", reason))?;
        let selector =
            selector.ok_or_else(|| invalid("selector", "say which names: SELECTOR_DECLARATIONS or SELECTOR_NAMES"))?;
        let scope = match proto::UpdateScope::try_from(request.scope) {
            Ok(proto::UpdateScope::Unspecified | proto::UpdateScope::Dependents) => Scope::Dependents,
            Ok(proto::UpdateScope::ChangedOnly) => Scope::ChangedOnly,
            Err(_) => {
                return Err(invalid("scope", format!("{} is no value of pyrightd.v1.UpdateScope", request.scope)));
            }
        };
        if request.project_id.is_empty() {
            return Err(invalid("project_id", "it is not set: name what the project's snapshots are to be found by"));
        }
        let base = (!request.base_snapshot_id.is_empty()).then(|| request.base_snapshot_id.clone());
        let project_id = request.project_id.clone();
        Ok(Update { root, project_id, base, scope, selector, options, only: None, tell_all: false })
    }

    async fn send_update(
        &self,
        updater: &Updater,
        update: &Update,
        sender: &Sender,
        tally: &mut Tally,
    ) -> Result<(), Status> {
        let begun = Instant::now();
        let (events, mut receiver) = mpsc::channel(1);
        let sending = async {
            while let Some(event) = receiver.recv().await {
                let Event::File { path, result } = event else { continue };
                tally.add(result.as_ref());
                let mut file = file_message(path, result);
                if let Err(status) = self.fits(&file) {
                    file = failed_file_message(file.path, &status);
                }
                send(sender, Message::File(file)).await?;
            }
            Ok(())
        };
        let (made, ()) = tokio::try_join!(make(updater, update, events), sending)?;
        let Updated { snapshot, base, changed, dependent, deleted, delta } = made;
        let summary = proto::UpdateSummary {
            snapshot: Some(snapshot_message(snapshot)),
            base_snapshot_id: base.map(|base| base.id).unwrap_or_default(),
            changed_files: changed,
            dependent_files: dependent,
            deleted_files: deleted,
            delta: delta.map(delta_message),
            elapsed: duration_message(begun.elapsed()),
        };
        send(sender, Message::Summary(summary)).await
    }
}

/// Updates, with an end to the events once that is done.
pub(super) async fn make(updater: &Updater, update: &Update, events: mpsc::Sender<Event>) -> Result<Updated, Status> {
    updater.update(update, &events).await.map_err(|error| update_status(&error))
}

async fn send(sender: &Sender, message: Message) -> Result<(), Status> {
    let response = proto::UpdateSnapshotResponse { result: Some(message) };
    sender.send(Ok(response)).await.map_err(|_| Status::cancelled("the caller has gone"))
}
