//! From files and what they import to one digest for each, of all that it can depend on.
//!
//! Pure: which files there are, and what they import, is told by the caller.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;
use sha2::{Digest as _, Sha256};

use crate::model::Digest;

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Of its bytes; none where it can't be read.
    pub(super) digest: Option<Digest>,
    /// Of its name, its bytes, and what its imports could find; none where that is not known.
    pub(super) own: Option<[u8; 32]>,
    /// The same with its code for its bytes.
    pub(super) code: [u8; 32],
    /// The files that it imports.
    pub(super) imports: Vec<PathBuf>,
    /// The sources that stubs among them stand for, or the file itself. No types are told of those.
    pub(super) sources: Vec<PathBuf>,
}

impl Node {
    /// What it depends on: where more than types is told, sources too.
    pub(super) fn others(&self, with_sources: bool) -> impl Iterator<Item = &PathBuf> {
        self.imports.iter().chain(self.sources.iter().filter(move |_| with_sources))
    }
}

/// Of each file, a digest of itself and of all that it imports, directly or through others. Where sources count, those do,
/// too, and all bytes of others; else only their code.
///
/// Files that import each other in a circle depend on the same. A file has none where something that it depends on is not
/// known.
pub(super) fn digests(nodes: &HashMap<PathBuf, Arc<Node>>, with_sources: bool) -> HashMap<&Path, [u8; 32]> {
    let mut graph = DiGraph::<&Path, ()>::with_capacity(nodes.len(), nodes.len() * 8);
    let indexes: HashMap<&Path, _> = nodes.keys().map(|path| (path.as_path(), graph.add_node(path))).collect();
    let mut unknown = vec![false; nodes.len()];
    for (path, node) in nodes {
        let from = indexes[path.as_path()];
        unknown[from.index()] |= node.own.is_none();
        for import in node.others(with_sources) {
            match indexes.get(import.as_path()) {
                Some(&to) => {
                    graph.add_edge(from, to, ());
                }
                None => unknown[from.index()] = true,
            }
        }
    }
    let circles = kosaraju_scc(&graph);
    let mut circle_of = vec![0; nodes.len()];
    for (number, circle) in circles.iter().enumerate() {
        for index in circle {
            circle_of[index.index()] = number;
        }
    }
    // Those that others import come first.
    let mut done: Vec<Option<[u8; 32]>> = Vec::with_capacity(circles.len());
    for (number, circle) in circles.iter().enumerate() {
        let is_known = circle.iter().all(|index| !unknown[index.index()]);
        let others = circle.iter().flat_map(|&index| graph.neighbors(index)).map(|other| circle_of[other.index()]);
        let others: Option<Vec<_>> = others.filter(|&other| other != number).map(|other| done[other]).collect();
        done.push(others.filter(|_| is_known).map(|mut others| {
            let of_node = |node: &Node| if with_sources { node.own } else { Some(node.code) };
            let mut own: Vec<_> = circle.iter().filter_map(|&index| of_node(&nodes[graph[index]])).collect();
            own.sort_unstable();
            others.sort_unstable();
            others.dedup();
            let mut hash = Sha256::new();
            for part in [own, others] {
                hash.update(part.len().to_be_bytes());
                for digest in part {
                    hash.update(digest);
                }
            }
            hash.finalize().into()
        }));
    }
    let known = graph.node_indices().filter_map(|index| {
        let path = graph[index];
        let mut hash = Sha256::new();
        hash.update(done[circle_of[index.index()]]?);
        hash.update(nodes[path].own?);
        Some((path, hash.finalize().into()))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of files that are named by letters; `a1>bc~d` is the first version of `a`, which imports `b` and `c`, of which
    /// one is a stub for `d`. What follows the version is no code, as in `a1#`.
    fn of(files: &[&str], with_sources: bool) -> HashMap<char, [u8; 32]> {
        let path = |name: char| PathBuf::from(name.to_string());
        let nodes = files.iter().map(|file| {
            let (head, others) = file.split_once('>').unwrap();
            let (imports, sources) = others.split_once('~').unwrap_or((others, ""));
            let [imports, sources] = [imports, sources].map(|names| names.chars().map(path).collect());
            let name = head.chars().next().unwrap();
            let own = (!head.ends_with('?')).then(|| Sha256::digest(head).into());
            let code = Sha256::digest(head.trim_end_matches('#')).into();
            (path(name), Arc::new(Node { digest: None, own, code, imports, sources }))
        });
        let nodes = nodes.collect();
        digests(&nodes, with_sources)
            .into_iter()
            .map(|(path, digest)| (path.to_str().unwrap().chars().next().unwrap(), digest))
            .collect()
    }

    /// The files whose digests differ.
    fn differ(one: &[&str], other: &[&str]) -> String {
        let (one, other) = (of(one, true), of(other, true));
        let mut names: Vec<char> = one.keys().chain(other.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter(|name| one.get(name) != other.get(name)).collect()
    }

    #[test]
    fn a_change_shows_in_all_that_depend_on_it_and_nowhere_else() {
        let files = ["a1>b", "b1>c", "c1>", "d1>c", "e1>"];
        assert_eq!(differ(&files, &files), "");
        assert_eq!(differ(&files, &["a1>b", "b1>c", "c2>", "d1>c", "e1>"]), "abcd");
        assert_eq!(differ(&files, &["a1>b", "b2>c", "c1>", "d1>c", "e1>"]), "ab");
        assert_eq!(differ(&files, &["a1>b", "b1>c", "c1>", "d1>e", "e1>"]), "d");
    }

    #[test]
    fn files_in_a_circle_depend_on_each_other_and_differ() {
        let files = ["a1>b", "b1>c", "c1>bd", "d1>", "e1>d"];
        assert_eq!(differ(&files, &["a1>b", "b1>c", "c2>bd", "d1>", "e1>d"]), "abc");
        assert_eq!(differ(&files, &["a1>b", "b1>c", "c1>bd", "d2>", "e1>d"]), "abcde");
        let found = of(&files, true);
        assert_ne!(found[&'b'], found[&'c']);
    }

    #[test]
    fn what_is_not_known_spoils_all_that_depends_on_it() {
        let found = of(&["a1>b", "b?>", "c1>d", "d1>", "e1>x"], true);
        let mut names: Vec<_> = found.into_keys().collect();
        names.sort_unstable();
        assert_eq!(names, ['c', 'd']);
    }

    #[test]
    fn sources_show_where_they_count() {
        let (one, other) = (["a1>b~s", "b1>", "s1>t", "t1>"], ["a1>b~s", "b1>", "s1>t", "t2>"]);
        assert_eq!(differ(&one, &other), "ast");
        assert_eq!(of(&one, false)[&'a'], of(&other, false)[&'a']);
        let unknown = ["a1>b~s", "b1>", "s?>"];
        assert!(of(&unknown, false).contains_key(&'a') && !of(&unknown, true).contains_key(&'a'));
    }

    #[test]
    fn of_others_only_code_shows_unless_more_than_types_is_told() {
        let (one, other) = (["a1>b", "b1>c", "c1>b"], ["a1>b", "b1#>c", "c1>b"]);
        let differ = |with_sources| {
            let (one, other) = (of(&one, with_sources), of(&other, with_sources));
            ['a', 'b', 'c'].map(|name| one[&name] != other[&name])
        };
        assert_eq!(differ(false), [false, true, false]);
        assert_eq!(differ(true), [true, true, true]);
    }

    #[test]
    fn a_long_chain_is_no_trouble() {
        let path = |at: usize| PathBuf::from(at.to_string());
        let node = |own, imports| Arc::new(Node { own: Some([own; 32]), imports, ..Node::default() });
        let mut nodes: HashMap<_, _> = (0..100_000).map(|at| (path(at), node(1, vec![path(at + 1)]))).collect();
        nodes.insert(path(100_000), node(2, Vec::new()));
        assert_eq!(digests(&nodes, true).len(), 100_001);
    }
}
