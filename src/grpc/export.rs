//! `ExportService`: one file's types at once, or many files' as a stream.

use std::collections::HashSet;
use std::pin::Pin;

use futures_util::Stream;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::Services;
use super::call::Call;
use super::convert::{
    event_message, failed_file_message, file_message, file_request, file_status, invalid, lease_status, options_of,
    path_status, selector_of, summary_message,
};
use super::update::make;
use crate::export::{Event, Options};
use crate::model::{ProjectRoot, Selector};
use crate::proto;
use crate::proto::export_files_response::Result as Message;
use crate::proto::export_service_server::ExportService;
use crate::update::{Scope, Update};

/// Messages of a stream that wait for a slow reader.
const WAITING: usize = 2;
/// What a message has beside its one field.
const OVERHEAD: usize = 64;

type Sender = mpsc::Sender<Result<proto::ExportFilesResponse, Status>>;

#[tonic::async_trait]
impl ExportService for Services {
    async fn export_locations(
        &self,
        request: Request<proto::ExportLocationsRequest>,
    ) -> Result<Response<proto::ExportLocationsResponse>, Status> {
        let mut call = Call::begin(self, "ExportLocations", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root.clone_from(&request.project_root);
        let result = call.within_deadline(self.export_one(request)).await;
        if let Ok(file) = &result {
            call.tally.add(Ok(&file.1));
        }
        let result = result.and_then(|(path, file)| {
            let file = file_message(path, Ok(file));
            self.fits(&file)?;
            Ok(proto::ExportLocationsResponse { file: Some(file) })
        });
        call.finish(result)
    }

    type ExportFilesStream = Pin<Box<dyn Stream<Item = Result<proto::ExportFilesResponse, Status>> + Send>>;

    async fn export_files(
        &self,
        request: Request<proto::ExportFilesRequest>,
    ) -> Result<Response<Self::ExportFilesStream>, Status> {
        let mut call = Call::begin(self, "ExportFiles", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root.clone_from(&request.project_root);
        let plan = match self.plan(&request) {
            Ok(plan) => plan,
            Err(status) => return call.finish(Err(status)),
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut response: Response<Self::ExportFilesStream> = Response::new(Box::pin(ReceiverStream::new(receiver)));
        call.stamp(&mut response);
        let (services, span) = (self.clone(), call.span());
        self.calls.spawn(async move { services.stream(call, request.files, plan, sender).await }.instrument(span));
        Ok(response)
    }
}

/// What a stream's request comes to, once it was found to be in order.
#[derive(Clone, Debug)]
struct Plan {
    root: ProjectRoot,
    selector: Option<Selector>,
    options: Options,
    /// The snapshot that it becomes.
    save_as: Option<Update>,
}

impl Services {
    async fn export_one(
        &self,
        request: proto::ExportLocationsRequest,
    ) -> Result<(String, crate::export::FileExport), Status> {
        let root = self.project(&request.project_root)?;
        let options = options_of(request.options.as_ref(), self.max_in_flight)?;
        let file = request.file.ok_or_else(|| invalid("file", "it is not set"))?;
        let path = file.path.clone();
        let file = file_request(file, None).map_err(|error| file_status(&error))?;
        let result = self.exporter.file(&root, file, options).await;
        result.map(|file| (path, file)).map_err(|error| file_status(&error))
    }

    fn plan(&self, request: &proto::ExportFilesRequest) -> Result<Plan, Status> {
        let root = self.project(&request.project_root)?;
        let options = options_of(request.options.as_ref(), self.max_in_flight)?;
        let selector = selector_of(request.default_selector).map_err(|reason| invalid("default_selector", reason))?;
        if request.files.is_empty() && selector.is_none() {
            let reason = "to export the whole project, say which names: SELECTOR_DECLARATIONS or SELECTOR_NAMES";
            return Err(invalid("default_selector", reason));
        }
        let save_as = Some(request.save_as_project_id.clone()).filter(|project_id| !project_id.is_empty());
        let save_as = save_as.map(|project_id| {
            let (selector, only) = saved(&request.files, selector)?;
            Ok::<_, Status>(Update {
                root: root.clone(),
                project_id,
                base: None,
                scope: Scope::Dependents,
                selector,
                options,
                only,
                tell_all: true,
            })
        });
        Ok(Plan { root, selector, options, save_as: save_as.transpose()? })
    }

    /// The project root that a request names.
    pub(super) fn project(&self, named: &str) -> Result<ProjectRoot, Status> {
        self.roots.project(named).map_err(|error| path_status("project_root", &error))
    }

    /// A stream's whole life. It ends when its reader goes, and then leaves nothing under way.
    async fn stream(&self, mut call: Call, files: Vec<proto::FileLocations>, plan: Plan, sender: Sender) {
        let mut tally = call.tally;
        let exported = call.within_deadline(async {
            tokio::select! {
                // Else a stream whose reader is gone would be noticed only with its next file.
                () = sender.closed() => Err(Status::cancelled("the caller has gone")),
                result = self.export_many(files, &plan, &sender, &mut tally) => result,
            }
        });
        let result = exported.await;
        call.tally = tally;
        let code = result.as_ref().map_or_else(Status::code, |()| tonic::Code::Ok);
        if let Err(status) = result {
            let _ = sender.send(Err(status)).await;
        }
        call.finish_stream(code);
    }

    async fn export_many(
        &self,
        files: Vec<proto::FileLocations>,
        plan: &Plan,
        sender: &Sender,
        tally: &mut super::call::Tally,
    ) -> Result<(), Status> {
        let begun = Instant::now();
        let Plan { root, selector, options, save_as } = plan;
        if let Some(update) = save_as {
            return Box::pin(self.export_and_save(update, sender, tally)).await;
        }
        let requests = match selector {
            Some(selector) if files.is_empty() => {
                self.exporter.whole_project(root, *selector).await.map_err(|error| lease_status(&error))?
            }
            _ => files.into_iter().map(|file| (file.path.clone(), file_request(file, *selector))).collect(),
        };
        let access = self.exporter.access(root, &requests, *options).await.map_err(|error| lease_status(&error))?;
        let (events, receiver) = mpsc::channel(1);
        let exporting = async {
            let progress = self.exporter.files(&access, requests, *options, &events).await;
            let _ = events.send(Event::Progress(progress)).await;
            drop(events);
        };
        let sending = async {
            // Gone with this block, so that the exporting ends if the sending did.
            let mut receiver = receiver;
            while let Some(event) = receiver.recv().await {
                if let Event::File { result, .. } = &event {
                    tally.add(result.as_ref());
                }
                self.send(sender, event_message(event)).await?;
            }
            Ok::<(), Status>(())
        };
        let ((), sent) = tokio::join!(exporting, sending);
        sent?;
        self.send(sender, Message::Summary(summary_message(tally, begun.elapsed()))).await
    }

    /// The same, with a snapshot saved of it.
    async fn export_and_save(
        &self,
        update: &Update,
        sender: &Sender,
        tally: &mut super::call::Tally,
    ) -> Result<(), Status> {
        let begun = Instant::now();
        let updater = self.updater()?;
        let (events, mut receiver) = mpsc::channel(1);
        let sending = async {
            while let Some(event) = receiver.recv().await {
                let Event::File { result, .. } = &event else { continue };
                tally.add(result.as_ref());
                self.send(sender, event_message(event)).await?;
            }
            Ok(())
        };
        let (made, ()) = tokio::try_join!(make(&updater, update, events), sending)?;
        let snapshot_id = made.snapshot.id;
        let summary = proto::ExportSummary { snapshot_id, ..summary_message(tally, begun.elapsed()) };
        self.send(sender, Message::Summary(summary)).await
    }

    /// Waits for the reader; a file too large for one message is replaced by an error.
    async fn send(&self, sender: &Sender, message: Message) -> Result<(), Status> {
        let mut message = message;
        if let Message::File(file) = &message
            && let Err(status) = self.fits(file)
        {
            message = Message::File(failed_file_message(file.path.clone(), &status));
        }
        let response = proto::ExportFilesResponse { result: Some(message) };
        sender.send(Ok(response)).await.map_err(|_| Status::cancelled("the caller has gone"))
    }

    /// Whether a file's answer fits into one message.
    pub(super) fn fits(&self, file: &proto::FileExport) -> Result<(), Status> {
        let length = file.encoded_len();
        if length.saturating_add(OVERHEAD) <= self.max_message_out {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "the file's answer has {length} bytes; messages have at most {}: ask for fewer locations at a time, or raise \
             the server's --max-message-out",
            self.max_message_out
        )))
    }
}

/// What a snapshot is saved of: one kind of names, in these files, or in all where none are named.
fn saved(files: &[proto::FileLocations], default: Option<Selector>) -> Result<(Selector, Option<Vec<String>>), Status> {
    let mut selectors = HashSet::new();
    let mut paths = HashSet::with_capacity(files.len());
    for (index, file) in files.iter().enumerate() {
        let field = |name: &str| format!("files[{index}].{name}");
        let of_disk = "a snapshot is of names on disk: leave it out, or do not save";
        for (name, is_set) in [
            ("locations", !file.locations.is_empty()),
            ("content", file.content.is_some()),
            ("expected_sha256", !file.expected_sha256.is_empty()),
        ] {
            if is_set {
                return Err(invalid(field(name), of_disk));
            }
        }
        if !paths.insert(file.path.clone()) {
            return Err(invalid(field("path"), format!("{:?} is named twice; a snapshot holds it once", file.path)));
        }
        selectors.insert(selector_of(file.selector).map_err(|reason| invalid(field("selector"), reason))?.or(default));
    }
    match selectors.into_iter().collect::<Vec<_>>()[..] {
        [] => default.map(|selector| (selector, None)),
        [selector] => selector.map(|selector| (selector, Some(paths.into_iter().collect()))),
        _ => return Err(invalid("save_as_project_id", "a snapshot has one selector: ask for the same in all files")),
    }
    .ok_or_else(|| invalid("default_selector", "say which names are saved: SELECTOR_DECLARATIONS or SELECTOR_NAMES"))
}
