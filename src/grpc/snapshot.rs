//! `SnapshotService`: what is kept of projects, read, compared and deleted. No engine is asked.
//!
//! How snapshots come about is left to `update`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::iter::Peekable;
use std::pin::Pin;

use futures_util::stream::{self, Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::Services;
use super::call::{Call, Tally};
use super::convert::{
    change_message, delta_message, encoding_message, encoding_of, failed_file_message, file_request, file_status,
    invalid, lookup_status, no_snapshots, not_kept, other_form, recorded_message, snapshot_message, store_status,
    types_message,
};
use super::update::UpdateStream;
use crate::blocking::blocking;
use crate::export::{FileRequest, Places};
use crate::model::{Digest, FileTypes};
use crate::proto;
use crate::proto::delete_snapshots_request::Which;
use crate::proto::diff_snapshots_response::Result as Differs;
use crate::proto::get_snapshot_response::Result as Got;
use crate::proto::snapshot_ref::Ref;
use crate::proto::snapshot_service_server::SnapshotService;
use crate::snapshot::{Delta, Form, LookupError, Recorded, diff, look_up};
use crate::store::{Snapshot, SnapshotFile, Store, StoreError};

/// Files of a stream that wait for a slow reader.
const WAITING: usize = 2;
/// Changes of a stream that wait for a slow reader: they are small.
const WAITING_CHANGES: usize = 256;
/// Files that are read from the store ahead of the stream.
const READ_AHEAD: usize = 4;
/// Snapshots in a page, where the caller does not say.
const PAGE: u32 = 100;
/// Snapshots in a page at most.
const MAX_PAGE: u32 = 1000;

type Sender<M> = mpsc::Sender<Result<M, Status>>;
type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

#[tonic::async_trait]
impl SnapshotService for Services {
    type UpdateSnapshotStream = UpdateStream;
    async fn update_snapshot(
        &self,
        request: Request<proto::UpdateSnapshotRequest>,
    ) -> Result<Response<Self::UpdateSnapshotStream>, Status> {
        self.update(request)
    }

    type GetSnapshotStream = Messages<proto::GetSnapshotResponse>;
    async fn get_snapshot(
        &self,
        request: Request<proto::GetSnapshotRequest>,
    ) -> Result<Response<Self::GetSnapshotStream>, Status> {
        let mut call = Call::begin(self, "GetSnapshot", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root = named(request.snapshot.as_ref());
        let (sender, response) = messages(&call, WAITING);
        let (services, span) = (self.clone(), call.span());
        let work = async move {
            let mut tally = Tally::default();
            let result = call.while_read(&sender, services.get(request, &sender, &mut tally)).await;
            call.tally = tally;
            call.end_stream(&sender, result).await;
        };
        self.calls.spawn(work.instrument(span));
        Ok(response)
    }

    async fn list_snapshots(
        &self,
        request: Request<proto::ListSnapshotsRequest>,
    ) -> Result<Response<proto::ListSnapshotsResponse>, Status> {
        let mut call = Call::begin(self, "ListSnapshots", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root.clone_from(&request.project_id);
        let result = call.within_deadline(self.list(request)).await;
        call.finish(result)
    }

    async fn delete_snapshots(
        &self,
        request: Request<proto::DeleteSnapshotsRequest>,
    ) -> Result<Response<proto::DeleteSnapshotsResponse>, Status> {
        let mut call = Call::begin(self, "DeleteSnapshots", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root = match &request.which {
            Some(Which::SnapshotId(id)) => id.clone(),
            Some(Which::KeepLatest(keep)) => keep.project_id.clone(),
            None => String::new(),
        };
        let result = call.within_deadline(self.delete(request)).await;
        call.finish(result)
    }

    type DiffSnapshotsStream = Messages<proto::DiffSnapshotsResponse>;
    async fn diff_snapshots(
        &self,
        request: Request<proto::DiffSnapshotsRequest>,
    ) -> Result<Response<Self::DiffSnapshotsStream>, Status> {
        let mut call = Call::begin(self, "DiffSnapshots", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root = named(request.from.as_ref());
        let (sender, response) = messages(&call, WAITING_CHANGES);
        let (services, span) = (self.clone(), call.span());
        let work = async move {
            let mut tally = Tally::default();
            let comparing = Box::pin(services.compare(request, &sender, &mut tally));
            let result = call.while_read(&sender, comparing).await;
            call.tally = tally;
            call.end_stream(&sender, result).await;
        };
        self.calls.spawn(work.instrument(span));
        Ok(response)
    }

    async fn lookup_types(
        &self,
        request: Request<proto::LookupTypesRequest>,
    ) -> Result<Response<proto::LookupTypesResponse>, Status> {
        let mut call = Call::begin(self, "LookupTypes", &request).map_err(|status| *status)?;
        let request = request.into_inner();
        call.root = named(request.snapshot.as_ref());
        let mut tally = Tally::default();
        let result = call.within_deadline(self.look_up(request, &mut tally)).await;
        call.tally = tally;
        call.finish(result)
    }
}

impl Services {
    /// What is kept.
    pub(super) async fn store(&self) -> Result<Store, Status> {
        let results = self.results.as_ref().ok_or_else(not_kept)?;
        results.keeper().store().await.map_err(|error| store_status(&error))
    }

    async fn get(
        &self,
        request: proto::GetSnapshotRequest,
        sender: &Sender<proto::GetSnapshotResponse>,
        tally: &mut Tally,
    ) -> Result<(), Status> {
        let store = self.store().await?;
        let snapshot = snapshot_of(&store, "snapshot", request.snapshot).await?;
        let paths = (!request.paths.is_empty()).then_some(&request.paths[..]);
        let files = store.files(&snapshot.id, paths).await.map_err(|error| store_status(&error))?;
        let is_there = |path: &String| files.binary_search_by(|file| file.path.cmp(path)).is_ok();
        if let Some(path) = request.paths.iter().find(|path| !is_there(path)) {
            return Err(lookup_status(&LookupError::NoFile(path.clone())));
        }
        let id = snapshot.id.clone();
        let send = async |result| {
            let response = proto::GetSnapshotResponse { result: Some(result) };
            sender.send(Ok(response)).await.map_err(|_| Status::cancelled("the caller has gone"))
        };
        send(Got::Snapshot(snapshot_message(snapshot))).await?;
        let mut recorded = stream::iter(files)
            .map(|file| {
                let (store, id) = (store.clone(), id.clone());
                async move { (read(&store, &id, &file).await, file.path) }
            })
            .buffered(READ_AHEAD);
        while let Some((recorded, path)) = recorded.next().await {
            let recorded = whole(recorded)?;
            tally.add_recorded(recorded.as_ref().ok());
            let mut file = match recorded {
                Ok(recorded) => recorded_message(path, recorded),
                Err(status) => failed_file_message(path, &status),
            };
            if let Err(status) = self.fits(&file) {
                file = failed_file_message(file.path, &status);
            }
            send(Got::File(file)).await?;
        }
        Ok(())
    }

    async fn list(&self, request: proto::ListSnapshotsRequest) -> Result<proto::ListSnapshotsResponse, Status> {
        let proto::ListSnapshotsRequest { project_id, page_size, page_token } = request;
        let size = match u32::try_from(page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_) => return Err(invalid("page_size", "it is negative")),
        };
        let after = match page_token.as_str() {
            "" => None,
            token => Some(page_of(&project_id, token).ok_or_else(|| {
                invalid("page_token", "it is none that a page of this project's snapshots came with")
            })?),
        };
        let store = self.store().await?;
        let project = (!project_id.is_empty()).then_some(project_id.as_str());
        let page = store.list(project, size, after).await.map_err(|error| store_status(&error))?;
        Ok(proto::ListSnapshotsResponse {
            snapshots: page.snapshots.into_iter().map(snapshot_message).collect(),
            next_page_token: page.next.map(|number| page_token_of(&project_id, number)).unwrap_or_default(),
        })
    }

    async fn delete(&self, request: proto::DeleteSnapshotsRequest) -> Result<proto::DeleteSnapshotsResponse, Status> {
        let which = request.which.ok_or_else(|| invalid("which", "name a snapshot, or how many of a project stay"))?;
        let deleted = match which {
            Which::SnapshotId(id) => self.store().await?.delete(&id).await.map(|()| 1),
            Which::KeepLatest(keep) if keep.project_id.is_empty() => {
                return Err(invalid("keep_latest.project_id", "it is not set"));
            }
            Which::KeepLatest(keep) => self.store().await?.keep_latest(&keep.project_id, keep.count).await,
        };
        let deleted = deleted.map_err(|error| store_status(&error))?;
        Ok(proto::DeleteSnapshotsResponse { deleted: u32::try_from(deleted).unwrap_or(u32::MAX) })
    }

    async fn compare(
        &self,
        request: proto::DiffSnapshotsRequest,
        sender: &Sender<proto::DiffSnapshotsResponse>,
        tally: &mut Tally,
    ) -> Result<(), Status> {
        let store = self.store().await?;
        let from = snapshot_of(&store, "from", request.from).await?;
        let to = snapshot_of(&store, "to", request.to).await?;
        if from.project_id != to.project_id {
            let reason = format!("it is of the project {}, and from is of {}", to.project_id, from.project_id);
            return Err(invalid("to", reason));
        }
        if let Some(difference) = form_of(&from)?.difference(form_of(&to)?) {
            return Err(other_form(&difference));
        }
        let before = store.files(&from.id, None).await.map_err(|error| store_status(&error))?;
        let after = store.files(&to.id, None).await.map_err(|error| store_status(&error))?;
        let mut compared =
            stream::iter(Pairs { before: before.into_iter().peekable(), after: after.into_iter().peekable() })
                .map(|(before, after)| {
                    let (store, from, to) = (store.clone(), from.id.clone(), to.id.clone());
                    async move {
                        let path = before.as_ref().or(after.as_ref()).map(|file| file.path.clone()).unwrap_or_default();
                        let side = async |id: &str, file: Option<SnapshotFile>| match file {
                            Some(file) => read(&store, id, &file).await.map(Some),
                            None => Ok(None),
                        };
                        Ok::<_, StoreError>((path, side(&from, before).await?, side(&to, after).await?))
                    }
                })
                .buffered(READ_AHEAD);
        let send = async |result| {
            let response = proto::DiffSnapshotsResponse { result: Some(result) };
            sender.send(Ok(response)).await.map_err(|_| Status::cancelled("the caller has gone"))
        };
        let mut delta = Delta::default();
        while let Some(read) = compared.next().await {
            let (path, before, after) = read.map_err(|error| store_status(&error))?;
            tally.files += 1;
            let changes = blocking(move || {
                let changes = diff(before.as_ref(), after.as_ref());
                let delta = Delta::of(&changes);
                (changes.into_iter().map(|change| change_message(path.clone(), change)).collect::<Vec<_>>(), delta)
            });
            let (changes, of_file) = changes.await;
            delta = delta + of_file;
            for change in changes {
                send(Differs::Change(change)).await?;
            }
        }
        send(Differs::Stats(delta_message(delta))).await
    }

    async fn look_up(
        &self,
        request: proto::LookupTypesRequest,
        tally: &mut Tally,
    ) -> Result<proto::LookupTypesResponse, Status> {
        let encoding = encoding_of("position_encoding", request.position_encoding)?;
        if request.files.is_empty() {
            return Err(invalid("files", "name those to look up types in"));
        }
        let store = self.store().await?;
        let snapshot = snapshot_of(&store, "snapshot", request.snapshot).await?;
        let form = form_of(&snapshot)?;
        if encoding != form.encoding {
            let own = encoding_message(form.encoding).as_str_name();
            return Err(invalid("position_encoding", format!("the snapshot's columns are in {own}")));
        }
        let paths: Vec<String> = request.files.iter().map(|file| file.path.clone()).collect();
        let known = store.files(&snapshot.id, Some(&paths)).await.map_err(|error| store_status(&error))?;
        let known: HashMap<String, SnapshotFile> = known.into_iter().map(|file| (file.path.clone(), file)).collect();
        let (mut files, mut length) = (Vec::with_capacity(request.files.len()), 0);
        for file in request.files {
            let path = file.path.clone();
            let looked_up = match (file_request(file, None), known.get(&path)) {
                (Err(error), _) => Err(file_status(&error)),
                (Ok(_), None) => Err(lookup_status(&LookupError::NoFile(path.clone()))),
                (Ok(request), Some(file)) => whole(read(&store, &snapshot.id, file).await)?
                    .and_then(|recorded| select(recorded, &request, form).map_err(|error| lookup_status(&error))),
            };
            tally.files += 1;
            tally.failed_files += u32::from(looked_up.is_err());
            let message = match looked_up {
                Ok(file) => {
                    tally.cached_files += 1;
                    tally.add_types(&file.types);
                    proto::FileExport { cached: true, ..types_message(path, file) }
                }
                Err(status) => failed_file_message(path, &status),
            };
            length += message.encoded_len();
            if length > self.max_message_out {
                return Err(Status::resource_exhausted(format!(
                    "the answer would be larger than {} bytes: look up fewer locations at a time, or raise the server's \
                     --max-message-out",
                    self.max_message_out
                )));
            }
            files.push(message);
        }
        Ok(proto::LookupTypesResponse { files })
    }
}

/// What a caller asked for, of what is recorded of a file.
fn select(recorded: Recorded, request: &FileRequest, form: Form) -> Result<FileTypes, LookupError> {
    if request.content.is_some() {
        return Err(LookupError::Overlay);
    }
    let file = recorded.types()?;
    if let Some(expected) = &request.expected
        && !expected.eq_ignore_ascii_case(file.digest.as_str())
    {
        return Err(LookupError::DigestDiffers { actual: file.digest.as_str().to_owned() });
    }
    match &request.places {
        Places::At(places) => Ok(FileTypes { types: look_up(&file, places), ..file }),
        Places::Selected(selector) if *selector == form.selector => Ok(file),
        Places::Selected(_) => Err(LookupError::OtherSelector(form.selector)),
    }
}

/// A stream, and where its messages are put.
fn messages<M: Send + 'static>(call: &Call, waiting: usize) -> (Sender<M>, Response<Messages<M>>) {
    let (sender, receiver) = mpsc::channel(waiting);
    let mut response: Response<Messages<M>> = Response::new(Box::pin(ReceiverStream::new(receiver)));
    call.stamp(&mut response);
    (sender, response)
}

/// A reference's own words, for the log.
fn named(reference: Option<&proto::SnapshotRef>) -> String {
    match reference.and_then(|reference| reference.r#ref.as_ref()) {
        Some(Ref::SnapshotId(text) | Ref::ProjectId(text)) => text.clone(),
        None => String::new(),
    }
}

/// The snapshot that a field refers to.
async fn snapshot_of(store: &Store, field: &str, reference: Option<proto::SnapshotRef>) -> Result<Snapshot, Status> {
    match reference.and_then(|reference| reference.r#ref) {
        Some(Ref::SnapshotId(id)) => {
            let found = store.snapshot(&id).await.map_err(|error| store_status(&error))?;
            found.ok_or_else(|| store_status(&StoreError::NotFound(id)))
        }
        Some(Ref::ProjectId(project_id)) => {
            let found = store.latest(&project_id).await.map_err(|error| store_status(&error))?;
            found.ok_or_else(|| no_snapshots(&project_id))
        }
        None => Err(invalid(field, "name a snapshot, or a project for its latest one")),
    }
}

fn form_of(snapshot: &Snapshot) -> Result<Form, Status> {
    let damaged = || StoreError::Corrupt(format!("it is not known how the snapshot {} was exported", snapshot.id));
    Form::from_bytes(&snapshot.details).ok_or_else(|| store_status(&damaged()))
}

/// What a snapshot records of a file.
async fn read(store: &Store, snapshot: &str, file: &SnapshotFile) -> Result<Recorded, StoreError> {
    let Some(bytes) = store.get(&[file.key]).await?.remove(&file.key) else {
        return Err(store.lacking(snapshot).await);
    };
    let recorded = Recorded::from_bytes(&bytes);
    recorded.ok_or_else(|| StoreError::Corrupt(format!("what is kept of {} can't be understood", file.path)))
}

/// The same where one file's damage, which is the inner error, does not keep others from being told.
fn whole(read: Result<Recorded, StoreError>) -> Result<Result<Recorded, Status>, Status> {
    match read {
        Ok(recorded) => Ok(Ok(recorded)),
        Err(error @ StoreError::Corrupt(_)) => Ok(Err(store_status(&error))),
        Err(error) => Err(store_status(&error)),
    }
}

/// The files in which two snapshots differ, in the order of their paths, from their files in the same order.
struct Pairs<I: Iterator<Item = SnapshotFile>> {
    before: Peekable<I>,
    after: Peekable<I>,
}

impl<I: Iterator<Item = SnapshotFile>> Iterator for Pairs<I> {
    type Item = (Option<SnapshotFile>, Option<SnapshotFile>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.before.peek(), self.after.peek()) {
                (Some(before), Some(after)) => before.path.cmp(&after.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let before = if order.is_le() { self.before.next() } else { None };
            let after = if order.is_ge() { self.after.next() } else { None };
            // The same key is the same content, which need not be read.
            if before.as_ref().map(|file| file.key) != after.as_ref().map(|file| file.key) {
                return Some((before, after));
            }
        }
    }
}

/// Where a page of a project's snapshots begins, with a check that it is one.
fn page_token_of(project_id: &str, number: i64) -> String {
    let check = Digest::of(format!("{number:x} {project_id}").as_bytes());
    format!("{number:x}-{}", &check.as_str()[..16])
}

fn page_of(project_id: &str, token: &str) -> Option<i64> {
    let number = i64::from_str_radix(token.split_once('-')?.0, 16).ok()?;
    (page_token_of(project_id, number) == token).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;

    #[test]
    fn only_a_pages_own_token_leads_on() {
        let token = page_token_of("a", 17);
        assert_eq!(page_of("a", &token), Some(17));
        assert_eq!(page_of("b", &token), None);
        for wrong in
            ["", "-", "11", "11-", "x-0", &token.to_uppercase(), &format!("{token}0"), &token.replace("11", "12")]
        {
            assert_eq!(page_of("a", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn files_are_paired_by_their_paths_and_equal_ones_left_out() {
        let files = |files: &[(&str, u8)]| {
            let file = |&(path, key): &(&str, u8)| SnapshotFile { path: path.into(), key: Key([key; 32]), types: 0 };
            files.iter().map(file).collect::<Vec<_>>().into_iter().peekable()
        };
        let before = files(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        let pairs = Pairs { before, after: files(&[("b", 1), ("c", 2), ("e", 1)]) };
        let path = |file: Option<SnapshotFile>| file.map_or_else(String::new, |file| file.path);
        let pairs: Vec<_> = pairs.map(|(before, after)| [path(before), path(after)].join(" ")).collect();
        assert_eq!(pairs, ["a ", "c c", "d ", " e"]);
    }
}
