//! The same bytes get the same answer, whatever was asked before, by whom, and of which process.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use pyrightd::proto::export_files_response::Result as Message;
use pyrightd::proto::{Evaluation, ExportFilesRequest, FileLocations, InferredType, Selector};
use pyrightd::workspace::tree::{Place, Tree};

use crate::harness::{Server, is_batch, package, select, text};

/// What is said of a file's names, by path.
type Told = BTreeMap<String, Vec<InferredType>>;

/// The types of these files, or of all, in this order.
async fn told(server: &Server, root: &Path, files: Vec<FileLocations>) -> Told {
    let request = ExportFilesRequest {
        project_root: text(root),
        files,
        default_selector: Selector::Names.into(),
        ..ExportFilesRequest::default()
    };
    let files = server.files(request).await.unwrap().into_iter().filter_map(|message| match message {
        Message::File(file) => {
            assert_eq!(file.error, None, "{}", file.path);
            assert_eq!(file.evaluation(), Evaluation::Isolated);
            Some((file.path, file.types))
        }
        _ => None,
    });
    files.collect()
}

#[track_caller]
fn assert_same(expected: &Told, told: &Told) {
    for (path, types) in told {
        for (expected, told) in expected[path].iter().zip(types) {
            assert_eq!(expected, told, "{path}");
        }
        assert_eq!(expected[path].len(), types.len(), "{path}");
    }
}

fn sources(root: &Path) -> Vec<String> {
    let tree = Tree::scan(vec![Place { folder: root.to_owned(), packages: false }]);
    tree.sources().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()).collect()
}

fn shuffled<T: Clone + std::fmt::Debug>(items: &[T], runner: &mut TestRunner) -> Vec<T> {
    Just(items.to_vec()).prop_shuffle().new_tree(runner).unwrap().current()
}

/// Tells at most so many of a package's files, whatever they import.
async fn is_the_same_in_any_order(name: &str, most: usize) {
    if !is_batch() {
        return;
    }
    let root = package(name);
    let server = Server::start_with(&[&root], &["--store", "none"]);
    let mut runner = TestRunner::deterministic();
    let mut paths = shuffled(&sources(&root), &mut runner);
    paths.truncate(most);
    paths.sort();
    let files = paths.iter().map(|path| select(path, Selector::Names)).collect();
    let expected = told(&server, &root, files).await;
    assert!(expected.len() > 20);

    // In another order by a fresh process, where nothing is kept, by eight callers at once, each with files of its own.
    let fresh = Server::start_with(&[&root], &["--max-kept", "0", "--store", "none"]);
    let order = shuffled(&paths, &mut runner);
    let parts = order.chunks(order.len().div_ceil(8)).map(|part| {
        let files = part.iter().map(|path| select(path, Selector::Names)).collect();
        told(&fresh, &root, files)
    });
    let parts = futures_util::future::join_all(parts).await;
    assert_eq!(parts.iter().map(BTreeMap::len).sum::<usize>(), expected.len());
    for part in &parts {
        assert_same(&expected, part);
    }

    // A few places of a few files, of the process that is warm and of one that knows nothing.
    let cold = Server::start_with(&[&root], &["--store", "none"]);
    for path in shuffled(&paths, &mut runner).iter().take(8) {
        let types = &expected[path];
        let some: Vec<_> = shuffled(types, &mut runner).into_iter().take(5).collect();
        if some.is_empty() {
            continue;
        }
        let locations = some.iter().map(|inferred| inferred.location.unwrap()).collect();
        let file = FileLocations { path: path.clone(), locations, ..FileLocations::default() };
        for server in [&fresh, &cold] {
            assert_eq!(server.file(&root, file.clone()).await.unwrap().types, some, "{path}");
        }
    }
}

#[tokio::test]
async fn an_annotated_package_is_told_the_same_in_any_order() {
    is_the_same_in_any_order("rich", usize::MAX).await;
}

#[tokio::test]
async fn a_package_without_annotations_is_told_the_same_in_any_order() {
    is_the_same_in_any_order("networkx", 150).await;
}
