//! Snapshots and changes through the real port: read, listed, compared, looked up, deleted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use pyrightd::model;
use pyrightd::proto::delete_snapshots_request::Which;
use pyrightd::proto::detect_changes_request::Since;
use pyrightd::proto::diff_snapshots_response::Result as Differs;
use pyrightd::proto::export_files_response::Result as Exported;
use pyrightd::proto::get_snapshot_response::Result as Got;
use pyrightd::proto::snapshot_ref::Ref;
use pyrightd::proto::snapshot_service_client::SnapshotServiceClient;
use pyrightd::proto::{
    DeleteSnapshotsRequest, DeltaStats, Detail, DetectChangesRequest, DiffSnapshotsRequest, ExportFilesRequest,
    FileExport, FileLocations, GetSnapshotRequest, InferredType, KeepLatest, ListSnapshotsRequest, LookupTypesRequest,
    Outcome, Position, PositionEncoding, Selector, Snapshot, SnapshotRef, TypeChange,
};
use pyrightd::snapshot::{Form, Recorded};
use pyrightd::store::{Base, Key, Location, NewSnapshot, SnapshotFile, Store};
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::{RpcStatusExt as _, StatusExt as _};

use crate::harness::{Project, Server, at, engine_cache, place_of, select, text};

const FORM: Form = Form {
    selector: model::Selector::Names,
    encoding: model::Encoding::Utf16,
    details: model::Details { hover: false, documentation: false, definitions: false },
};

/// A server, and its store as another process that shares it sees it.
struct Kept {
    server: Server,
    store: Store,
    folder: tempfile::TempDir,
}

impl Kept {
    async fn start(roots: &[&Path], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = text(folder.path());
        let server = Server::start_with(roots, &[flags, &["--state-dir", &state]].concat());
        let store = Store::open(&Location::Sqlite(folder.path().to_owned()), None).await.unwrap();
        Self { server, store, folder }
    }

    async fn client(&self) -> SnapshotServiceClient<Channel> {
        SnapshotServiceClient::new(self.server.channel().await).max_decoding_message_size(usize::MAX)
    }

    /// Saves a snapshot of these files.
    async fn save(&self, project_id: &str, form: Form, files: &[(&str, Recorded)]) -> String {
        let mut contents = Vec::new();
        let mut listed = Vec::new();
        for (path, recorded) in files {
            let bytes = recorded.to_bytes();
            let key = Key(Sha256::digest(&bytes).into());
            let types = match recorded {
                Recorded::Types(file) => file.types.len() as u32,
                Recorded::Failed(_) => 0,
            };
            contents.push((key, bytes));
            listed.push(SnapshotFile { path: (*path).to_owned(), key, types });
        }
        let new = NewSnapshot {
            project_id: project_id.into(),
            engine: "pyright 1.2.3".into(),
            commit: Some("c0ffee".into()),
            details: form.to_bytes(),
            types: listed.iter().map(|file| u64::from(file.types)).sum(),
            files: listed,
            base: Base::Any,
        };
        self.store.save(new, contents).await.unwrap().id
    }

    /// Saves what the server exports of a whole project.
    async fn save_export(&self, project_id: &str, root: &Path) -> String {
        let files = self.export(root).await;
        let files: Vec<_> = files.iter().map(|file| (file.path.as_str(), recorded(file))).collect();
        self.save(project_id, FORM, &files).await
    }

    async fn export(&self, root: &Path) -> Vec<FileExport> {
        let selector = Selector::Names.into();
        let request = ExportFilesRequest { project_root: text(root), default_selector: selector, ..Default::default() };
        let file = |message| match message {
            Exported::File(file) => Some(file),
            _ => None,
        };
        let mut files: Vec<_> = self.server.files(request).await.unwrap().into_iter().filter_map(file).collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files
    }

    async fn get(&self, snapshot: SnapshotRef, paths: &[&str]) -> Result<(Snapshot, Vec<FileExport>), Status> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = GetSnapshotRequest { snapshot: Some(snapshot), paths };
        let mut stream = self.client().await.get_snapshot(request).await?.into_inner();
        let Some(Got::Snapshot(snapshot)) = stream.message().await?.unwrap().result else { panic!("it comes first") };
        let mut files = Vec::new();
        while let Some(message) = stream.message().await? {
            let Some(Got::File(file)) = message.result else { panic!("{message:?}") };
            files.push(file);
        }
        Ok((snapshot, files))
    }

    async fn diff(&self, from: SnapshotRef, to: SnapshotRef) -> Result<(Vec<TypeChange>, DeltaStats), Status> {
        let request = DiffSnapshotsRequest { from: Some(from), to: Some(to) };
        let mut stream = self.client().await.diff_snapshots(request).await?.into_inner();
        let (mut changes, mut stats) = (Vec::new(), None);
        while let Some(message) = stream.message().await? {
            assert!(stats.is_none(), "the totals come last");
            match message.result.unwrap() {
                Differs::Change(change) => changes.push(change),
                Differs::Stats(totals) => stats = Some(totals),
            }
        }
        Ok((changes, stats.unwrap()))
    }

    async fn look_up(&self, snapshot: SnapshotRef, files: Vec<FileLocations>) -> Result<Vec<FileExport>, Status> {
        let request = LookupTypesRequest { snapshot: Some(snapshot), files, ..Default::default() };
        Ok(self.client().await.lookup_types(request).await?.into_inner().files)
    }

    async fn list(&self, project_id: &str, size: i32, token: &str) -> Result<(Vec<String>, String), Status> {
        let request = ListSnapshotsRequest { project_id: project_id.into(), page_size: size, page_token: token.into() };
        let page = self.client().await.list_snapshots(request).await?.into_inner();
        Ok((page.snapshots.into_iter().map(|snapshot| snapshot.snapshot_id).collect(), page.next_page_token))
    }

    async fn delete(&self, which: Option<Which>) -> Result<u32, Status> {
        Ok(self.client().await.delete_snapshots(DeleteSnapshotsRequest { which }).await?.into_inner().deleted)
    }
}

async fn changes(server: &Server, root: &Path, since: Option<Since>) -> Result<(Vec<String>, Vec<String>), Status> {
    let request = DetectChangesRequest { project_root: text(root), since };
    let changes = server.projects().await.detect_changes(request).await?.into_inner();
    Ok((changes.changed, changes.deleted))
}

fn by_id(id: &str) -> SnapshotRef {
    SnapshotRef { r#ref: Some(Ref::SnapshotId(id.into())) }
}

fn latest(project_id: &str) -> SnapshotRef {
    SnapshotRef { r#ref: Some(Ref::ProjectId(project_id.into())) }
}

fn failed_on<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, word: &str) -> Status {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(word), "{status:?}");
    status
}

/// What a status says is not there.
fn missing(status: &Status) -> (String, String) {
    let resource = status.get_details_resource_info().unwrap();
    (resource.resource_type, resource.resource_name)
}

fn field(status: &Status) -> String {
    status.get_details_bad_request().unwrap().field_violations.remove(0).field
}

/// What an update records of an exported file.
fn recorded(file: &FileExport) -> Recorded {
    use pyrightd::proto::SymbolKind as Kind;
    let place = |at: Position| model::Position { line: at.line, character: at.character };
    let types = file.types.iter().map(|inferred| model::InferredType {
        location: place(inferred.location.unwrap()),
        outcome: if inferred.outcome() == Outcome::Typed { model::Outcome::Typed } else { model::Outcome::NoType },
        range: inferred
            .range
            .map(|range| model::Range { start: place(range.start.unwrap()), end: place(range.end.unwrap()) }),
        name: inferred.name.clone(),
        symbol: model::Symbol {
            kind: match inferred.kind() {
                Kind::Unspecified => model::SymbolKind::Unspecified,
                Kind::Variable => model::SymbolKind::Variable,
                Kind::Parameter => model::SymbolKind::Parameter,
                Kind::Function => model::SymbolKind::Function,
                Kind::Class => model::SymbolKind::Class,
                Kind::Module => model::SymbolKind::Module,
                kind => panic!("{kind:?} is in no test"),
            },
            type_text: inferred.r#type.clone(),
            ..model::Symbol::default()
        },
        definitions: Vec::new(),
    });
    let digest = model::Digest::from_hex(&file.sha256).unwrap();
    Recorded::Types(model::FileTypes { digest, types: types.collect(), evaluation: model::Evaluation::Isolated })
}

/// A file of such lines as `x:int`, each a variable from column 4 on.
fn lines(source: &str, lines: &[&str]) -> Recorded {
    let typed = |(line, text): (usize, &&str)| {
        let (name, text) = text.split_once(':').unwrap();
        let at = |character: usize| model::Position { line: line as u32, character: character as u32 };
        model::InferredType {
            location: at(4),
            outcome: model::Outcome::Typed,
            range: Some(model::Range { start: at(4), end: at(4 + name.len()) }),
            name: name.into(),
            symbol: model::Symbol {
                kind: model::SymbolKind::Variable,
                type_text: text.into(),
                ..model::Symbol::default()
            },
            definitions: Vec::new(),
        }
    };
    Recorded::Types(model::FileTypes {
        digest: model::Digest::of(source.as_bytes()),
        types: lines.iter().enumerate().map(typed).collect(),
        evaluation: model::Evaluation::Isolated,
    })
}

fn named_types(file: &FileExport) -> Vec<(&str, &str)> {
    file.types.iter().map(|inferred| (inferred.name.as_str(), inferred.r#type.as_str())).collect()
}

/// As `a.py ~x:int@0 x:str@3`.
fn told(changes: &[TypeChange]) -> Vec<String> {
    let word =
        |inferred: &InferredType| format!("{}:{}@{}", inferred.name, inferred.r#type, inferred.location.unwrap().line);
    let told = changes.iter().map(|change| match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("{} ~{} {}", change.path, word(before), word(after)),
        (Some(before), None) => format!("{} -{}", change.path, word(before)),
        (None, Some(after)) => format!("{} +{}", change.path, word(after)),
        (None, None) => panic!("{change:?}"),
    });
    told.collect()
}

type Bag = BTreeMap<(String, String, i32, String), i64>;

fn key(path: &str, inferred: &InferredType) -> (String, String, i32, String) {
    (path.into(), inferred.name.clone(), inferred.kind, inferred.r#type.clone())
}

/// Snapshots as the contract has them compared: per file, the multiset of types.
fn bag(files: &[FileExport]) -> Bag {
    let mut bag = Bag::new();
    for file in files {
        for inferred in file.types.iter().filter(|inferred| inferred.outcome() == Outcome::Typed) {
            *bag.entry(key(&file.path, inferred)).or_default() += 1;
        }
    }
    bag
}

fn apply(mut base: Bag, changes: &[TypeChange]) -> Bag {
    for change in changes {
        if let Some(before) = &change.before {
            let count = base.get_mut(&key(&change.path, before)).expect("what was removed was there");
            *count -= 1;
            assert!(*count >= 0, "{change:?}");
        }
        if let Some(after) = &change.after {
            *base.entry(key(&change.path, after)).or_default() += 1;
        }
    }
    base.retain(|_, count| *count > 0);
    base
}

#[tokio::test]
async fn a_snapshot_is_read_as_it_was_saved() {
    let kept = Kept::start(&[], &[]).await;
    let files = [
        ("b/c.py", lines("2", &["x:str"])),
        ("a.py", lines("1", &["x:int", "y:int"])),
        ("d.py", Recorded::Failed("it is not UTF-8".into())),
    ];
    let form = Form { details: model::Details { hover: true, ..FORM.details }, ..FORM };
    let old = kept.save("mine", form, &files).await;
    let new = kept.save("mine", FORM, &files[..1]).await;

    let (snapshot, found) = kept.get(by_id(&old), &[]).await.unwrap();
    assert_eq!((snapshot.snapshot_id.as_str(), snapshot.project_id.as_str()), (old.as_str(), "mine"));
    assert_eq!((snapshot.files, snapshot.types), (3, 3));
    assert_eq!((snapshot.engine.as_str(), snapshot.commit.as_str()), ("pyright 1.2.3", "c0ffee"));
    assert_eq!((snapshot.selector(), snapshot.position_encoding()), (Selector::Names, PositionEncoding::Utf16));
    assert_eq!(snapshot.details, [i32::from(Detail::Hover)]);
    assert!(snapshot.created_at.unwrap().seconds > 1_700_000_000);
    assert_eq!(found.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a.py", "b/c.py", "d.py"]);
    assert_eq!(named_types(&found[0]), [("x", "int"), ("y", "int")]);
    assert_eq!(found[0].sha256, model::Digest::of(b"1").as_str());
    assert!(found[0].cached && found[0].error.is_none());
    let error = found[2].error.as_ref().unwrap();
    assert_eq!(Code::from(error.code), Code::FailedPrecondition);
    assert!(error.message.contains("it is not UTF-8") && found[2].types.is_empty());

    let (snapshot, found) = kept.get(latest("mine"), &["b/c.py", "b/c.py"]).await.unwrap();
    assert_eq!((snapshot.snapshot_id, found.len()), (new, 1));

    let status = failed_on(kept.get(by_id(&old), &["a.py", "e.py"]).await, Code::NotFound, "e.py");
    assert_eq!(missing(&status), ("path".into(), "e.py".into()));
    let status = failed_on(kept.get(by_id("no such"), &[]).await, Code::NotFound, "no such");
    assert_eq!(missing(&status), ("snapshot".into(), "no such".into()));
    let status = failed_on(kept.get(latest("yours"), &[]).await, Code::NotFound, "yours");
    assert_eq!(missing(&status), ("project".into(), "yours".into()));
    let status = failed_on(kept.get(SnapshotRef::default(), &[]).await, Code::InvalidArgument, "snapshot");
    assert_eq!(field(&status), "snapshot");
    kept.server.wait_for_log(|line| line["method"] == "GetSnapshot" && line["code"] == "Ok" && line["files"] == 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_snapshot_is_a_stream_in_which_too_large_files_fail() {
    let kept = Kept::start(&[], &["--max-message-out", "20KB"]).await;
    let large: Vec<String> = (0..2000).map(|number| format!("x:int{number}")).collect();
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    let names: Vec<String> = (0..300).map(|number| format!("f{number:03}.py")).collect();
    let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), lines(name, &large[..100]))).collect();
    files.push(("f100a.py", lines("", &large)));
    let id = kept.save("mine", FORM, &files).await;
    let (_, found) = kept.get(by_id(&id), &[]).await.unwrap();
    assert_eq!(found.len(), 301);
    assert!(found.is_sorted_by(|one, other| one.path < other.path));
    let bad: Vec<_> = found.iter().filter(|file| file.error.is_some()).collect();
    assert_eq!((bad.len(), bad[0].path.as_str()), (1, "f100a.py"));
    assert_eq!(Code::from(bad[0].error.as_ref().unwrap().code), Code::ResourceExhausted);

    let looked_up = kept.look_up(by_id(&id), vec![select("f100a.py", Selector::Names)]).await;
    failed_on(looked_up, Code::ResourceExhausted, "--max-message-out");
    // A reader that goes leaves nothing behind.
    let request = GetSnapshotRequest { snapshot: Some(by_id(&id)), paths: Vec::new() };
    let mut stream = kept.client().await.get_snapshot(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(stream);
    kept.server.wait_for_log(|line| line["method"] == "GetSnapshot" && line["code"] == "Cancelled");
}

#[tokio::test]
async fn reading_a_snapshot_that_is_deleted_meanwhile_ends_with_a_word() {
    // More than what is on its way while nobody reads.
    const FILES: usize = 200;
    let kept = Kept::start(&[], &[]).await;
    let names: Vec<String> = (0..FILES).map(|number| format!("module{number}.py")).collect();
    let types: Vec<String> = (0..500).map(|number| format!("name{number}:int")).collect();
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), lines(name, &types))).collect();
    let id = kept.save("mine", FORM, &files).await;
    let request = GetSnapshotRequest { snapshot: Some(by_id(&id)), paths: Vec::new() };
    let mut stream = kept.client().await.get_snapshot(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    assert_eq!(kept.delete(Some(Which::SnapshotId(id.clone()))).await.unwrap(), 1);
    let mut read = 0;
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => read += 1,
            Ok(None) => break Ok(read),
            Err(status) => break Err(status),
        }
    };
    failed_on(ended, Code::NotFound, &id);
    assert!(read < FILES, "{read} files were told of");
}

#[tokio::test]
async fn snapshots_are_listed_in_pages_and_deleted() {
    let kept = Kept::start(&[], &[]).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.insert(0, kept.save("mine", FORM, &[("a.py", lines(&number.to_string(), &["x:int"]))]).await);
    }
    let other = kept.save("other", FORM, &[("a.py", lines("0", &["x:int"]))]).await;

    assert_eq!(kept.list("mine", 0, "").await.unwrap(), (ids.clone(), String::new()));
    assert_eq!(kept.list("", 9999, "").await.unwrap().0.len(), 6);
    assert_eq!(kept.list("none", 0, "").await.unwrap(), (Vec::new(), String::new()));
    let (first, token) = kept.list("mine", 2, "").await.unwrap();
    assert_eq!(first, ids[..2]);
    // What comes and goes meanwhile moves no other.
    let newest = kept.save("mine", FORM, &[("a.py", lines("9", &["x:int"]))]).await;
    assert_eq!(kept.delete(Some(Which::SnapshotId(ids[1].clone()))).await.unwrap(), 1);
    let (second, next) = kept.list("mine", 2, &token).await.unwrap();
    assert_eq!(second, ids[2..4]);
    assert_eq!(kept.list("mine", 2, &next).await.unwrap(), (ids[4..].to_vec(), String::new()));

    for (project, token) in [("other", token.as_str()), ("", &token), ("mine", "x"), ("mine", "1-0000000000000000")] {
        let status = failed_on(kept.list(project, 2, token).await, Code::InvalidArgument, "page_token");
        assert_eq!(field(&status), "page_token");
    }
    let status = failed_on(kept.list("mine", -1, "").await, Code::InvalidArgument, "page_size");
    assert_eq!(field(&status), "page_size");

    let gone = Some(Which::SnapshotId(ids[1].clone()));
    let status = failed_on(kept.delete(gone).await, Code::NotFound, &ids[1]);
    assert_eq!(missing(&status), ("snapshot".into(), ids[1].clone()));
    failed_on(kept.get(by_id(&ids[1]), &[]).await, Code::NotFound, &ids[1]);
    failed_on(kept.diff(by_id(&ids[1]), by_id(&newest)).await, Code::NotFound, &ids[1]);
    failed_on(kept.look_up(by_id(&ids[1]), vec![at("a.py", &[(0, 0)])]).await, Code::NotFound, &ids[1]);
    let keep = |project_id: &str, count| Some(Which::KeepLatest(KeepLatest { project_id: project_id.into(), count }));
    assert_eq!(kept.delete(keep("mine", 2)).await.unwrap(), 3);
    assert_eq!(kept.list("mine", 0, "").await.unwrap().0, [newest, ids[0].clone()]);
    assert_eq!(kept.delete(keep("mine", 0)).await.unwrap(), 2);
    assert_eq!(kept.delete(keep("mine", 0)).await.unwrap(), 0);
    failed_on(kept.get(latest("mine"), &[]).await, Code::NotFound, "mine");
    assert!(kept.get(by_id(&other), &[]).await.is_ok(), "another project's are left alone");
    assert_eq!(field(&failed_on(kept.delete(None).await, Code::InvalidArgument, "which")), "which");
    let status = failed_on(kept.delete(keep("", 1)).await, Code::InvalidArgument, "project_id");
    assert_eq!(field(&status), "keep_latest.project_id");
}

#[tokio::test]
async fn what_differs_between_exports_takes_one_to_the_other() {
    let source = "count = 1\n\n\ndef twice(number):\n    return number * count\n\n\ntotal = twice(2)\nother = total\n";
    let project = Project::new(&[
        ("a.py", source),
        ("b.py", "from a import total\nseen = total\n"),
        ("c.py", "gone = 1\n"),
        ("d.py", "left = 'x'\n"),
    ]);
    let root = project.root();
    let kept = Kept::start(&[&root], &[]).await;
    let first = kept.save_export("mine", &root).await;
    assert_eq!(kept.diff(by_id(&first), latest("mine")).await.unwrap(), (Vec::new(), DeltaStats::default()));

    project.write("a.py", format!("\n\n{source}"));
    let moved = kept.save_export("mine", &root).await;
    assert_ne!(moved, first);
    assert_eq!(kept.diff(by_id(&first), by_id(&moved)).await.unwrap(), (Vec::new(), DeltaStats::default()));

    project.write("a.py", source.replace("other", "renamed"));
    let renamed = kept.save_export("mine", &root).await;
    let (changes, stats) = kept.diff(by_id(&first), by_id(&renamed)).await.unwrap();
    let total = &kept.get(by_id(&first), &["a.py"]).await.unwrap().1[0];
    let int = crate::harness::type_of(total, "other").to_owned();
    assert_eq!(told(&changes), [format!("a.py -other:{int}@8"), format!("a.py +renamed:{int}@8")]);
    assert_eq!(stats, DeltaStats { added: 1, removed: 1, modified: 0 });

    project.write("a.py", source.replace("count = 1", "count = 1.5"));
    project.write("e.py", "come = 1\n");
    std::fs::remove_file(root.join("c.py")).unwrap();
    let typed = kept.save_export("mine", &root).await;
    let (changes, stats) = kept.diff(by_id(&first), latest("mine")).await.unwrap();
    let changes_told = told(&changes);
    assert!(
        changes_told.iter().any(|change| change.starts_with("a.py ~count:int@4 count:float@4")),
        "{changes_told:?}"
    );
    assert!(changes_told.iter().any(|change| change.starts_with("b.py ~seen:")), "{changes_told:?}");
    assert!(
        changes_told.contains(&"c.py -gone:Literal[1]@0".into())
            && changes_told.contains(&"e.py +come:Literal[1]@0".into())
    );
    assert!(!changes_told.iter().any(|change| change.starts_with("d.py")));
    assert!(changes.is_sorted_by(|one, other| one.path <= other.path));
    let count = |is: fn(&TypeChange) -> bool| changes.iter().filter(|change| is(change)).count() as u64;
    assert_eq!(stats.modified, count(|change| change.before.is_some() && change.after.is_some()));
    assert_eq!((stats.added, stats.removed), (1, 1));

    let ids = [&first, &moved, &renamed, &typed];
    for from in ids {
        for to in ids {
            let (base, new) = (kept.get(by_id(from), &[]).await.unwrap().1, kept.get(by_id(to), &[]).await.unwrap().1);
            let (changes, _) = kept.diff(by_id(from), by_id(to)).await.unwrap();
            assert_eq!(apply(bag(&base), &changes), bag(&new));
        }
    }
}

#[tokio::test]
async fn only_snapshots_of_a_kind_are_compared() {
    let kept = Kept::start(&[], &[]).await;
    let file = [("a.py", lines("1", &["x:int"]))];
    let mine = kept.save("mine", FORM, &file).await;
    let theirs = kept.save("theirs", FORM, &file).await;
    let status = failed_on(kept.diff(by_id(&mine), by_id(&theirs)).await, Code::InvalidArgument, "theirs");
    assert_eq!(field(&status), "to");
    let other = Form { selector: model::Selector::Declarations, encoding: model::Encoding::Utf8, ..FORM };
    let other = kept.save("mine", other, &file).await;
    let status = failed_on(kept.diff(by_id(&mine), by_id(&other)).await, Code::FailedPrecondition, "Declarations");
    assert!(status.message().contains("Utf8") && status.get_details_precondition_failure().is_some(), "{status:?}");
    let status = failed_on(kept.diff(by_id(&mine), SnapshotRef::default()).await, Code::InvalidArgument, "to");
    assert_eq!(field(&status), "to");
    let status = failed_on(kept.diff(SnapshotRef::default(), by_id(&mine)).await, Code::InvalidArgument, "from");
    assert_eq!(field(&status), "from");

    let failed = kept.save("mine", FORM, &[("a.py", Recorded::Failed("why".into()))]).await;
    let (changes, stats) = kept.diff(by_id(&mine), by_id(&failed)).await.unwrap();
    assert_eq!((told(&changes), stats.removed), (vec!["a.py -x:int@0".to_owned()], 1));
}

#[tokio::test]
async fn types_are_looked_up_as_they_are_exported() {
    let source = "class A:\n    total = 1\n\n\ndef f(n: int):\n    return A().total + n\n";
    let project = Project::new(&[("a.py", source), ("b.py", "x = 'é😀'; y = x\n")]);
    let root = project.root();
    let kept = Kept::start(&[&root], &[]).await;
    let id = kept.save_export("mine", &root).await;
    // At each place of the text, what is stored is what an export says.
    for (path, text) in [("a.py", source), ("b.py", "x = 'é😀'; y = x\n")] {
        let places: Vec<(u32, u32)> = (0..)
            .zip(text.lines())
            .flat_map(|(line, text)| (0..=text.encode_utf16().count() as u32).map(move |character| (line, character)))
            .collect();
        let stored = kept.look_up(by_id(&id), vec![at(path, &places)]).await.unwrap().remove(0);
        let live = kept.server.file(&root, at(path, &places)).await.unwrap();
        assert_eq!((&stored.path, &stored.sha256, stored.types.len()), (&live.path, &live.sha256, places.len()));
        assert!(stored.cached && stored.evaluation != 0);
        for (stored, live) in stored.types.iter().zip(&live.types).filter(|(_, live)| live.outcome != 3) {
            assert_eq!(stored, live);
        }
    }
    assert!(kept.server.close(&root).await.is_ok());

    // It is what was stored, whatever the disk says by now, and no engine is started for it.
    project.write("b.py", "");
    let all = kept.look_up(latest("mine"), vec![select("b.py", Selector::Names)]).await.unwrap().remove(0);
    assert_eq!(named_types(&all).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["x", "y", "x"]);
    assert!(kept.server.list().await.is_empty());

    let (line, character) = place_of(source, "total = 1");
    let place = [(line, character + 5), (line, character + 5), (99, 0)];
    let digest = |text: &str| model::Digest::of(text.as_bytes()).as_str().to_uppercase();
    let files = vec![
        FileLocations { expected_sha256: digest(source), ..at("a.py", &place) },
        FileLocations { expected_sha256: digest("other"), ..at("a.py", &place) },
        at("missing.py", &place),
        FileLocations { content: Some("x = 1\n".into()), ..at("a.py", &place) },
        FileLocations { path: "a.py".into(), ..Default::default() },
        select("a.py", Selector::Declarations),
        FileLocations { expected_sha256: "12".into(), ..at("a.py", &place) },
    ];
    let found = kept.look_up(by_id(&id), files).await.unwrap();
    let outcomes: Vec<_> = found[0].types.iter().map(|inferred| (inferred.name.as_str(), inferred.outcome())).collect();
    assert_eq!(outcomes, [("total", Outcome::Typed), ("total", Outcome::Typed), ("", Outcome::NoType)]);
    assert_eq!(found[0].types[1].location, Some(Position { line, character: character + 5 }));
    let bad = [
        (Code::FailedPrecondition, ""),
        (Code::NotFound, ""),
        (Code::InvalidArgument, "file.content"),
        (Code::InvalidArgument, "file.locations"),
        (Code::InvalidArgument, "file.selector"),
        (Code::InvalidArgument, "file.expected_sha256"),
    ];
    for (file, (code, field)) in found[1..].iter().zip(bad) {
        let error = file.error.as_ref().unwrap_or_else(|| panic!("{file:?}"));
        assert_eq!(Code::from(error.code), code, "{error:?}");
        assert!(file.types.is_empty());
        if !field.is_empty() {
            assert_eq!(error.get_details_bad_request().unwrap().field_violations[0].field, field);
        }
    }

    let mut request = LookupTypesRequest { snapshot: Some(by_id(&id)), ..Default::default() };
    let status = failed_on(kept.client().await.lookup_types(request.clone()).await, Code::InvalidArgument, "files");
    assert_eq!(field(&status), "files");
    request.files = vec![at("a.py", &[(0, 0)])];
    request.position_encoding = PositionEncoding::Utf8.into();
    let looked_up = kept.client().await.lookup_types(request.clone()).await;
    let status = failed_on(looked_up, Code::InvalidArgument, "POSITION_ENCODING_UTF16");
    assert_eq!(field(&status), "position_encoding");
    request.position_encoding = 77;
    let looked_up = kept.client().await.lookup_types(request.clone()).await;
    assert_eq!(field(&failed_on(looked_up, Code::InvalidArgument, "77")), "position_encoding");
    request.position_encoding = PositionEncoding::Utf16.into();
    assert!(kept.client().await.lookup_types(request).await.is_ok());
    failed_on(kept.look_up(SnapshotRef::default(), vec![at("a.py", &[])]).await, Code::InvalidArgument, "snapshot");
}

#[tokio::test]
async fn what_is_damaged_or_not_kept_says_so() {
    let kept = Kept::start(&[], &[]).await;
    let id = kept.save("mine", FORM, &[("a.py", lines("1", &["x:int"]))]).await;
    let new = |details: Vec<u8>, key| NewSnapshot {
        project_id: "mine".into(),
        engine: String::new(),
        commit: None,
        details,
        types: 0,
        files: vec![SnapshotFile { path: "a.py".into(), key, types: 0 }],
        base: Base::Any,
    };
    let key = Key([7; 32]);
    let content = kept.store.save(new(FORM.to_bytes(), key), vec![(key, b"\x09".to_vec())]).await.unwrap().id;
    let form = kept.store.save(new(Vec::new(), key), Vec::new()).await.unwrap().id;
    // One file's damage is its own.
    let got = kept.get(by_id(&content), &[]).await.unwrap().1;
    let looked_up = kept.look_up(by_id(&content), vec![at("a.py", &[(0, 0)])]).await.unwrap();
    for file in [&got[0], &looked_up[0]] {
        assert_eq!(Code::from(file.error.as_ref().unwrap().code), Code::DataLoss, "{file:?}");
    }
    failed_on(kept.diff(by_id(&id), by_id(&content)).await, Code::DataLoss, "a.py");
    failed_on(kept.diff(by_id(&id), by_id(&form)).await, Code::DataLoss, &form);
    assert_eq!(kept.list("mine", 0, "").await.unwrap().0.len(), 3);

    let project = Project::new(&[("a.py", "x = 1\n")]);
    let server = Server::start_with(&[&project.root()], &["--store", "none"]);
    let mut client = SnapshotServiceClient::new(server.channel().await);
    let snapshot = || Some(by_id("x"));
    let stream = client.get_snapshot(GetSnapshotRequest { snapshot: snapshot(), ..Default::default() }).await;
    let statuses = [
        stream.unwrap().into_inner().message().await.map(drop).unwrap_err(),
        client
            .diff_snapshots(DiffSnapshotsRequest { from: snapshot(), to: snapshot() })
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .map(drop)
            .unwrap_err(),
        client.list_snapshots(ListSnapshotsRequest::default()).await.map(drop).unwrap_err(),
        client
            .delete_snapshots(DeleteSnapshotsRequest { which: Some(Which::SnapshotId("x".into())) })
            .await
            .map(drop)
            .unwrap_err(),
        client
            .lookup_types(LookupTypesRequest {
                snapshot: snapshot(),
                files: vec![at("a.py", &[])],
                ..Default::default()
            })
            .await
            .map(drop)
            .unwrap_err(),
        changes(&server, &project.root(), Some(Since::SnapshotId("x".into()))).await.map(drop).unwrap_err(),
    ];
    for status in statuses {
        failed_on(Err::<(), _>(status), Code::FailedPrecondition, "--store none");
    }
}

fn git(root: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(root)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("LC_ALL", "C")])
        .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@b"), ("GIT_COMMITTER_NAME", "a")])
        .env("GIT_COMMITTER_EMAIL", "a@b")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn git_and_a_snapshot_say_alike_what_changed() {
    let project = Project::new(&[
        ("pyproject.toml", "[tool.pyright]\nexclude = ['generated']\n"),
        ("a.py", "x = 1\n"),
        ("package/b.pyi", "x: int\n"),
        ("package/gone.py", "x = 1\n"),
        ("renamed.py", "y = 1\n"),
        ("same.py", "x = 1\n"),
        ("generated/c.py", "x = 1\n"),
        ("node_modules/d.py", "x = 1\n"),
        ("notes.txt", "x\n"),
    ]);
    let root = project.root();
    git(&root, &["init", "--quiet", "--initial-branch=main"]);
    git(&root, &["add", "--all"]);
    git(&root, &["commit", "--quiet", "--message=x"]);
    let commit = git(&root, &["rev-parse", "HEAD"]);
    let kept = Kept::start(&[&root], &[]).await;
    let id = kept.save_export("mine", &root).await;
    let by_commit = async |commit: &str| changes(&kept.server, &root, Some(Since::Commit(commit.into()))).await;
    let by_snapshot = async |id: &str| changes(&kept.server, &root, Some(Since::SnapshotId(id.into()))).await;
    let nothing = (Vec::new(), Vec::new());
    assert_eq!(by_commit(&commit).await.unwrap(), nothing);
    assert_eq!(by_snapshot(&id).await.unwrap(), nothing);
    assert_eq!(changes(&kept.server, &root, None).await.unwrap(), nothing);

    for (name, text) in [
        ("a.py", "x = 2\n"),
        ("package/b.pyi", "x: str\n"),
        ("new.py", "x = 1\n"),
        ("generated/c.py", "x = 2\n"),
        ("generated/new.py", "x = 2\n"),
        ("node_modules/d.py", "x = 2\n"),
        ("notes.txt", "y\n"),
        ("pyproject.toml", "[tool.pyright]\nexclude = ['generated']\n# more\n"),
    ] {
        project.write(name, text);
    }
    std::fs::remove_file(root.join("package/gone.py")).unwrap();
    std::fs::rename(root.join("renamed.py"), root.join("package/other.py")).unwrap();
    let expected =
        (names(&["a.py", "new.py", "package/b.pyi", "package/other.py"]), names(&["package/gone.py", "renamed.py"]));
    assert_eq!(by_commit(&commit).await.unwrap(), expected);
    assert_eq!(by_snapshot(&id).await.unwrap(), expected);
    assert_eq!(changes(&kept.server, &root, None).await.unwrap(), expected);

    // What is no longer a source is no change of one.
    let configuration = std::fs::read(root.join("pyproject.toml")).unwrap();
    project.write("pyproject.toml", "[tool.pyright]\nexclude = ['generated', 'package']\n");
    let fewer = (names(&["a.py", "new.py"]), names(&["renamed.py"]));
    assert_eq!(by_commit(&commit).await.unwrap(), fewer);
    assert_eq!(by_snapshot(&id).await.unwrap(), fewer);
    project.write("pyproject.toml", configuration);

    git(&root, &["add", "--all"]);
    git(&root, &["commit", "--quiet", "--message=y"]);
    assert_eq!(changes(&kept.server, &root, None).await.unwrap(), nothing);
    assert_eq!(by_commit("HEAD~1").await.unwrap(), expected);
    assert_eq!(by_snapshot(&id).await.unwrap(), expected);

    // What could not be exported counts as changed, or as deleted where it is gone.
    let failed = || Recorded::Failed("why".into());
    let same = lines("x = 1\n", &["x:int"]);
    let files = [("same.py", same), ("a.py", failed()), ("nowhere.py", failed())];
    let id = kept.save("mine", FORM, &files).await;
    let (changed, deleted) = by_snapshot(&id).await.unwrap();
    assert!(changed.contains(&"a.py".into()) && !changed.contains(&"same.py".into()), "{changed:?}");
    assert_eq!(deleted, ["nowhere.py"]);

    let status = failed_on(by_commit("0123456789").await, Code::NotFound, "0123456789");
    assert_eq!(missing(&status), ("commit".into(), "0123456789".into()));
    assert_eq!(missing(&failed_on(by_snapshot("none").await, Code::NotFound, "none")).0, "snapshot");
    assert_eq!(field(&failed_on(by_commit("").await, Code::InvalidArgument, "commit")), "commit");
    let refused = changes(&kept.server, Path::new("/nowhere"), None).await;
    assert_eq!(field(&failed_on(refused, Code::PermissionDenied, "/nowhere")), "project_root");
    assert!(kept.folder.path().exists());
}

#[tokio::test]
async fn without_a_repository_only_a_snapshot_tells_what_changed() {
    let project = Project::new(&[("a.py", "x = 1\n")]);
    let root = project.root();
    let kept = Kept::start(&[&root], &[]).await;
    failed_on(changes(&kept.server, &root, None).await, Code::FailedPrecondition, "Git");
    let since = Some(Since::Commit("HEAD".into()));
    failed_on(changes(&kept.server, &root, since).await, Code::FailedPrecondition, "Git");
    let id = kept.save("elsewhere", FORM, &[("a.py", lines("x = 1\n", &[])), ("b.py", lines("", &[]))]).await;
    let changes = changes(&kept.server, &root, Some(Since::SnapshotId(id))).await.unwrap();
    assert_eq!(changes, (Vec::new(), names(&["b.py"])));
    assert!(kept.server.list().await.is_empty(), "no engine is needed to tell");
}

/// Runs the program on the server's store, in a process of its own, or by the server; what it prints, and how it ended.
fn pyrightd(arguments: &[&str]) -> (String, String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
    let output = command.arg("snapshot").args(arguments).arg("--cache-dir").arg(engine_cache()).output().unwrap();
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (printed(&output.stdout), printed(&output.stderr), output.status.success())
}

#[tokio::test]
async fn the_command_line_prints_and_deletes_snapshots() {
    let kept = Kept::start(&[], &[]).await;
    let files = [("a.py", lines("1", &["x:int", "y:int", "z:int"])), ("b.py", lines("2", &["x:str"]))];
    let old = kept.save("mine", FORM, &files).await;
    let files = [("a.py", lines("3", &["w:int", "x:float", "z:int"])), ("b.py", lines("2", &["x:str"]))];
    let new = kept.save("mine", FORM, &files).await;
    let state = text(kept.folder.path());
    let own = |arguments: &[&str]| pyrightd(&[arguments, &["--state-dir", &state]].concat());
    let by_server = |arguments: &[&str]| pyrightd(&[arguments, &["--server", &kept.server.address]].concat());

    let (listed, error, well) = own(&["list"]);
    assert!(well && error.is_empty(), "{error}");
    let rows: Vec<&str> = listed.lines().collect();
    assert!(rows.len() == 2 && rows[0].starts_with(&new) && rows[1].starts_with(&old), "{listed}");
    assert!(rows[0].contains(" 2 files ") && rows[0].contains(" 4 types ") && rows[0].ends_with("  mine"), "{listed}");
    let (listed, ..) = by_server(&["list", "mine", "--json"]);
    let first: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert_eq!((&first["snapshot_id"], &first["types"]), (&new.as_str().into(), &4.into()));

    let (shown, ..) = by_server(&["show", "mine", "a.py"]);
    assert!(
        shown.starts_with("a.py\n") && shown.contains("2:5  variable  x  float") && !shown.contains("b.py"),
        "{shown}"
    );
    let (shown, ..) = by_server(&["show", &old, "--json"]);
    assert_eq!(shown.lines().count(), 4);

    let differs = "a.py\n  ~ 2:5 x: int -> float\n  - 2:5 y: int\n  + 1:5 w: int\n\n1 added, 1 removed, 1 modified\n";
    let (printed, error, _) = by_server(&["diff", &old]);
    assert_eq!(printed, differs, "{error}");
    assert_eq!(by_server(&["diff", &old, &new]).0, differs);
    assert_eq!(by_server(&["diff", &new, "mine"]).0, "0 added, 0 removed, 0 modified\n");
    let (printed, ..) = by_server(&["diff", &old, "--json"]);
    let values: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((values.len(), &values[0]["before"]["type"]), (4, &"int".into()));
    assert_eq!(values[3]["stats"]["modified"], 1);

    let (found, ..) = by_server(&["lookup", "mine", "a.py", "2:5", "9:9"]);
    let rows: Vec<Vec<&str>> = found.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows, [vec!["2:5", "variable", "x", "float"], vec!["9:9", "(no", "type)"]]);
    let (_, error, well) = by_server(&["lookup", "mine", "c.py", "2:5"]);
    assert!(!well && error.contains("has no file c.py"), "{error}");
    for (arguments, word) in [
        (&["lookup", "mine", "a.py", "2"][..], "2 is not LINE:COL"),
        (&["show", "yours"], "no snapshot of the project yours"),
        (&["delete"], "required"),
        (&["delete", "--keep", "x", "mine"], "x is no number"),
        (&["update", "/nowhere"], "/nowhere"),
    ] {
        let (_, error, well) = by_server(arguments);
        assert!(!well && error.contains(word), "{error}");
    }
    assert_eq!(by_server(&["delete", &new]), (String::new(), "1 deleted\n".into(), true));
    assert_eq!(by_server(&["delete", "--keep", "0", "mine"]).1, "1 deleted\n");
    assert_eq!(by_server(&["list"]).0, "");
}
