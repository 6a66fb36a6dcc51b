//! What files depend on, as keys: from what the store knows of their imports, or else from an engine.
//!
//! Which files there are is told by a look; how digests of files become one for all that each imports, by `graph`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::graph::{self, Node};
use super::look::Look;
use super::{Results, key};
use crate::blocking::blocking;
use crate::model::Digest;
use crate::pyright::batch::{Extras, Imports};
use crate::pyright::session::Session;
use crate::store::{Key, StoreError};
use crate::workspace::parallel::in_parallel;
use crate::workspace::shape::Finder;

/// Files that an engine is asked about at once.
const ASKED: usize = 200;
/// What stands before a source that a stub stands for, among the files that a file imports.
const SOURCE: char = '~';

/// What a look's files depend on, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Keys(pub(super) HashMap<PathBuf, Depended>);

/// What a file depends on, as digests.
#[derive(Clone, Debug)]
pub(super) struct Depended {
    /// The file's own bytes.
    digest: Digest,
    /// All that its types depend on.
    types: [u8; 32],
    /// All that its documentation and definitions depend on, too.
    all: All,
}

/// All that something depends on.
#[derive(Clone, Copy, Debug)]
enum All {
    Found([u8; 32]),
    NotFound,
    NotSought,
}

impl Keys {
    /// The key of what is told of a file, in isolated evaluation, with this beside the types; none where it is not known.
    #[must_use]
    pub fn of(&self, path: &Path, extras: Extras) -> Option<Key> {
        let Extras { documentation, definitions } = extras;
        let Depended { types, all, .. } = self.0.get(path)?;
        let depended = match all {
            _ if !extras.reach_sources() => types,
            All::Found(all) => all,
            All::NotFound | All::NotSought => return None,
        };
        Some(key("result", &[depended, &[u8::from(documentation), u8::from(definitions)]]))
    }

    /// The digest of a file's bytes, where its types' key is known.
    #[must_use]
    pub fn digest(&self, path: &Path) -> Option<&Digest> {
        self.0.get(path).map(|depended| &depended.digest)
    }
}

/// Whose keys are sought.
#[derive(Clone, Copy, Debug)]
pub struct Sought<'a> {
    /// The files.
    pub files: &'a [PathBuf],
    /// Also the keys of what is told beside types.
    pub with_sources: bool,
    /// Files of which it is not known with which bytes they were told.
    pub spoilt: &'a HashSet<PathBuf>,
}

impl Results {
    /// The keys of files, as far as it is known what they import: from the store, or else from an engine.
    ///
    /// A file has none where its result can't be told from others, such as one that depends on a spoilt file. None at all
    /// where the project changed while the engine was asked.
    ///
    /// # Errors
    /// Those of the store. What an engine can't tell is not known, which is none.
    pub async fn keys(
        &self,
        look: &Arc<Look>,
        sought: Sought<'_>,
        engine: Option<&Arc<Session>>,
    ) -> Result<Option<Keys>, StoreError> {
        let Sought { files, with_sources, spoilt } = sought;
        let Some(common) = look.shared() else { return Ok(Some(Keys::default())) };
        let is_sought = |depended: &Depended| match depended.all {
            All::Found(_) => true,
            All::NotFound => !with_sources || engine.is_none(),
            All::NotSought => !with_sources,
        };
        let mut known = if spoilt.is_empty() { look.known(files, is_sought) } else { Keys::default() };
        let files: Vec<PathBuf> = files.iter().filter(|path| !known.0.contains_key(*path)).cloned().collect();
        if files.is_empty() {
            return Ok(Some(known));
        }
        let mut walk = Walk { look, spoilt, engine, nodes: HashMap::new(), new: Vec::new(), learnt: Vec::new() };
        self.walk(&mut walk, files.iter().cloned().collect(), HashSet::new(), false).await?;
        if with_sources {
            let sources = walk.nodes.values().flat_map(|node| &node.sources).cloned().collect();
            self.walk(&mut walk, HashSet::new(), sources, true).await?;
        }
        let Walk { nodes, mut new, learnt, .. } = walk;
        if !self.remember(look, learnt).await? {
            return Ok(None);
        }
        new.retain(|(path, node)| node.own.is_some() && look.is_sure_of(path));
        let is_all_lasting = spoilt.is_empty() && nodes.keys().all(|path| look.is_sure_of(path));
        let found = blocking(move || {
            let types = graph::digests(&nodes, false);
            let all = with_sources.then(|| graph::digests(&nodes, true));
            let found = files.into_iter().filter_map(|path| {
                let of_file = |digest: &[u8; 32]| key("file", &[&common, digest]).0;
                let depended = Depended {
                    digest: nodes.get(&path)?.digest.clone()?,
                    types: of_file(types.get(path.as_path())?),
                    all: match &all {
                        Some(all) => all.get(path.as_path()).map_or(All::NotFound, |all| All::Found(of_file(all))),
                        None => All::NotSought,
                    },
                };
                Some((path, depended))
            });
            Keys(found.collect())
        });
        let found = found.await;
        look.know(new.into_iter(), if is_all_lasting { &found } else { &known });
        known.0.extend(found.0);
        Ok(Some(known))
    }

    /// Adds these files to a walk, and all that they depend on. `sources` are those that stubs stand for.
    async fn walk(
        &self,
        walk: &mut Walk<'_>,
        mut wave: HashSet<PathBuf>,
        mut sources: HashSet<PathBuf>,
        with_sources: bool,
    ) -> Result<(), StoreError> {
        loop {
            wave.retain(|path| !walk.nodes.contains_key(path));
            sources.retain(|path| !walk.nodes.contains_key(path) && !wave.contains(path));
            if wave.is_empty() && sources.is_empty() {
                return Ok(());
            }
            let all = wave.iter().chain(&sources).cloned();
            let (unsure, wanted): (HashSet<_>, HashSet<_>) = all.partition(|path| walk.spoilt.contains(path));
            let (mut found, missing) = walk.look.nodes(wanted);
            let read = self.nodes(walk, missing, &sources).await?;
            walk.new.extend(read.iter().cloned());
            found.extend(unsure.into_iter().map(|path| (path, Arc::default())));
            found.extend(read);
            wave = found.iter().flat_map(|(_, node)| &node.imports).cloned().collect();
            sources = found.iter().flat_map(|(_, node)| &node.sources).filter(|_| with_sources).cloned().collect();
            walk.nodes.extend(found);
        }
    }

    /// What these files are, as far as their imports are known.
    async fn nodes(
        &self,
        walk: &mut Walk<'_>,
        files: Vec<PathBuf>,
        sources: &HashSet<PathBuf>,
    ) -> Result<Vec<(PathBuf, Arc<Node>)>, StoreError> {
        let look = walk.look;
        let Some(common) = look.shared().filter(|_| !files.is_empty()) else { return Ok(Vec::new()) };
        let now = Arc::clone(look);
        let files: Vec<File> = blocking(move || {
            let file = |path: &PathBuf| {
                let named = now.digest(path).map(|digest| {
                    let key = key("names", &[&common, now.name(path).as_bytes(), digest.as_str().as_bytes()]);
                    (digest, key)
                });
                File { path: path.clone(), named }
            };
            in_parallel(&files, file)
        })
        .await;

        // Which modules each names, then which files those are: that depends on what else there is.
        let names = self.remembered(files.iter().filter_map(File::key).collect()).await?;
        let mut found = self.found(look, &files, &names).await?;
        if let Some(engine) = walk.engine {
            let is_missing = |file: &&File| file.key().is_some_and(|key| !found.contains_key(&key));
            let missing: Vec<&File> = files.iter().filter(is_missing).collect();
            let told = tell_imports(engine, &missing, sources).await;
            learn(look, &missing, told, &mut found, &mut walk.learnt).await;
        }
        let node = |file: File| {
            let Found { own, code, mut imports, mut sources } =
                file.key().and_then(|key| found.get(&key).cloned()).unwrap_or_default();
            // They are the same for all, and known by Pyright's release.
            imports.retain(|path| !look.is_standard(path));
            sources.retain(|path| !look.is_standard(path));
            let digest = file.named.map(|(digest, _)| digest);
            (file.path, Arc::new(Node { digest, own, code, imports, sources }))
        };
        Ok(files.into_iter().map(node).collect())
    }

    /// Of the files whose modules are known, which files those are, by the key of the names.
    async fn found(
        &self,
        look: &Arc<Look>,
        files: &[File],
        names: &HashMap<Key, Arc<str>>,
    ) -> Result<HashMap<Key, Found>, StoreError> {
        let known: Vec<_> = files
            .iter()
            .filter_map(|file| Some((file.path.clone(), file.key()?, Arc::clone(names.get(&file.key()?)?))))
            .collect();
        let now = Arc::clone(look);
        let sought: Vec<(Key, Key, [u8; 32])> = blocking(move || {
            let mut finder = now.finder();
            let sought = |(path, key, names): (PathBuf, Key, Arc<str>)| {
                let (found, code) = found_keys(&now, &mut finder, &path, key, &names);
                (key, found, code)
            };
            known.into_iter().map(sought).collect()
        })
        .await;
        let found = self.remembered(sought.iter().map(|(_, found, _)| *found).collect()).await?;
        let found = sought.into_iter().filter_map(|(key, found_key, code)| {
            let mut files = Found { own: Some(found_key.0), code, ..Found::default() };
            for line in found.get(&found_key)?.lines() {
                match line.strip_prefix(SOURCE) {
                    Some(name) => files.sources.push(look.path(name)?),
                    None => files.imports.push(look.path(line)?),
                }
            }
            Some((key, files))
        });
        Ok(found.collect())
    }

    /// Keeps what was learnt of files' imports. False where it may be of other files than those that were looked at, since
    /// the project has changed; then nothing is kept.
    async fn remember(&self, look: &Arc<Look>, learnt: Vec<(Key, Arc<str>)>) -> Result<bool, StoreError> {
        if learnt.is_empty() {
            return Ok(true);
        }
        if !look.is_same(&*self.look_again(look).await) {
            return Ok(false);
        }
        let contents = learnt.iter().map(|(key, text)| (*key, text.as_bytes().to_vec())).collect();
        self.keeper.store().await?.put(contents).await?;
        for (key, text) in learnt {
            self.remembered.insert(key, text);
        }
        Ok(true)
    }

    /// Texts by their keys, from memory or else from the store.
    async fn remembered(&self, keys: Vec<Key>) -> Result<HashMap<Key, Arc<str>>, StoreError> {
        let mut texts: HashMap<Key, Arc<str>> = HashMap::with_capacity(keys.len());
        let mut missing = Vec::new();
        for key in keys {
            match self.remembered.get(&key) {
                Some(text) => drop(texts.insert(key, text)),
                None => missing.push(key),
            }
        }
        if !missing.is_empty() {
            for (key, bytes) in self.keeper.store().await?.get(&missing).await? {
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let text: Arc<str> = text.into();
                self.remembered.insert(key, Arc::clone(&text));
                texts.insert(key, text);
            }
        }
        Ok(texts)
    }
}

/// The files that keys are made of, as far as they are gone through.
struct Walk<'a> {
    look: &'a Arc<Look>,
    spoilt: &'a HashSet<PathBuf>,
    engine: Option<&'a Arc<Session>>,
    nodes: HashMap<PathBuf, Arc<Node>>,
    /// Those that the look did not know.
    new: Vec<(PathBuf, Arc<Node>)>,
    /// What an engine told of them, to be kept.
    learnt: Vec<(Key, Arc<str>)>,
}

/// The files that a file's modules are.
#[derive(Clone, Default)]
struct Found {
    /// Of the file's name, its bytes, and what its imports could find; none where that is not known.
    own: Option<[u8; 32]>,
    /// The same with its code for its bytes.
    code: [u8; 32],
    imports: Vec<PathBuf>,
    sources: Vec<PathBuf>,
}

/// A file, and the digest of its bytes with the key of the modules that they name; none where it can't be read.
struct File {
    path: PathBuf,
    named: Option<(Digest, Key)>,
}

impl File {
    fn key(&self) -> Option<Key> {
        self.named.as_ref().map(|(_, key)| *key)
    }
}

/// The key of the files that a file's modules are, and one of all that others can see of the file: its code instead of its
/// bytes. What is known of the modules that it names begins with that code's digest.
fn found_keys(
    look: &Look,
    finder: &mut Finder<'_, impl Fn(&Path) -> Option<Digest>>,
    path: &Path,
    names_key: Key,
    names: &str,
) -> (Key, [u8; 32]) {
    let (code, names) = names.split_once('\n').unwrap_or((names, ""));
    let candidates = Look::find(finder, path, names);
    let code = key("code", &[look.name(path).as_bytes(), code.as_bytes(), &candidates]);
    (key("found", &[&names_key.0, &candidates]), code.0)
}

/// Adds what an engine told of these files' imports, if it was told of the same bytes.
async fn learn(
    look: &Arc<Look>,
    files: &[&File],
    told: Vec<Imports>,
    found: &mut HashMap<Key, Found>,
    learnt: &mut Vec<(Key, Arc<str>)>,
) {
    let mut told: HashMap<PathBuf, Imports> = told.into_iter().map(|told| (told.path.clone(), told)).collect();
    let told = files.iter().filter_map(|file| {
        let (digest, key) = file.named.as_ref()?;
        let told = told.remove(&file.path)?;
        let is_same = look.is_engine(&file.path) || told.digest == *digest;
        is_same.then(|| (digest.clone(), *key, told))
    });
    let (told, now) = (told.collect::<Vec<_>>(), Arc::clone(look));
    let told: Vec<_> = blocking(move || {
        let mut finder = now.finder();
        let codes = in_parallel(&told, |(digest, _, told)| now.code(&told.path, digest));
        let found = |((_, key, told), code): ((Digest, Key, Imports), Option<Digest>)| {
            let Imports { path, names, files: imports, sources, .. } = told;
            let lines: Vec<&str> =
                std::iter::once(code.as_ref()?.as_str()).chain(names.iter().map(String::as_str)).collect();
            let names: Arc<str> = lines.join("\n").into();
            let (found_key, code) = found_keys(&now, &mut finder, &path, key, &names);
            let lines = imports.iter().map(|path| now.name(path));
            let lines = lines.chain(sources.iter().map(|path| format!("{SOURCE}{}", now.name(path))));
            let text: Arc<str> = lines.collect::<Vec<_>>().join("\n").into();
            Some((key, names, found_key, text, Found { own: Some(found_key.0), code, imports, sources }))
        };
        told.into_iter().zip(codes).filter_map(found).collect()
    })
    .await;
    for (key, names, found_key, text, files) in told {
        learnt.extend([(key, names), (found_key, text)]);
        found.insert(key, files);
    }
}

async fn tell_imports(engine: &Arc<Session>, files: &[&File], sources: &HashSet<PathBuf>) -> Vec<Imports> {
    let mut told = Vec::new();
    // So that it knows of all files that were looked at.
    if !files.is_empty() && engine.refresh().await.is_err() {
        return told;
    }
    for files in files.chunks(ASKED) {
        let paths = files.iter().map(|file| file.path.as_path());
        let (sources, files): (Vec<&Path>, Vec<&Path>) = paths.partition(|path| sources.contains(*path));
        match engine.imports(&files, &sources).await {
            Ok(more) => told.extend(more),
            Err(error) => {
                tracing::debug!(%error, "what files import is not known");
                break;
            }
        }
    }
    told
}
