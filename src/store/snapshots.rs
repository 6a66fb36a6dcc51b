//! Snapshots: which content each of a project's files had at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moka::sync::Cache;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use sqlx::query::Query;

use super::contents::{self, LOOKUP};
use super::database::{Held, in_time, list, once, rows};
use super::notes::Table;
use super::{Key, Store, StoreError, is_stale, now};

/// A snapshot to be saved.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// Whose it is.
    pub project_id: String,
    /// The engine and its configuration, on which types depend.
    pub engine: String,
    /// The project's commit, where it is a work tree.
    pub commit: Option<String>,
    /// What its user wants to know of it besides.
    pub details: Vec<u8>,
    /// Types of all files together.
    pub types: u64,
    /// Each path once, in any order.
    pub files: Vec<SnapshotFile>,
    /// What it was made from.
    pub base: Base,
}

/// Which snapshot has to be the project's latest for another to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Whichever.
    Any,
    /// This one, or none.
    Latest(Option<String>),
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotFile {
    /// As its user names it.
    pub path: String,
    /// Of its content.
    pub key: Key,
    /// Types in it.
    pub types: u32,
}

/// What is known of a saved snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Can't be guessed.
    pub id: String,
    /// Counts up with each snapshot of the store.
    pub number: i64,
    /// Whose it is.
    pub project_id: String,
    /// The engine and its configuration, on which types depend.
    pub engine: String,
    /// The project's commit, where it is a work tree.
    pub commit: Option<String>,
    /// As it was given.
    pub details: Vec<u8>,
    /// How many there are.
    pub files: u32,
    /// Types of all files together.
    pub types: u64,
    /// When it was saved, to the microsecond.
    pub created_at: SystemTime,
}

/// Some snapshots, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// At most as many as were asked for.
    pub snapshots: Vec<Snapshot>,
    /// Where the next page begins; none after the last.
    pub next: Option<i64>,
}

/// The files of snapshots that were saved or read of late, by their ids: a snapshot's never change. Whether it is still
/// there is left to the database.
#[derive(Clone, Debug)]
pub(super) struct Lists(Cache<String, Arc<[SnapshotFile]>>);

impl Default for Lists {
    fn default() -> Self {
        let weigher = |id: &String, files: &Arc<[SnapshotFile]>| {
            let paths: usize = files.iter().map(|file| file.path.len()).sum();
            u32::try_from(id.len() + paths + size_of_val(&**files)).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(LISTED).weigher(weigher).build())
    }
}

impl Lists {
    fn get(&self, id: &str) -> Option<Arc<[SnapshotFile]>> {
        self.0.get(id)
    }

    fn keep(&self, id: &str, mut files: Vec<SnapshotFile>) -> Arc<[SnapshotFile]> {
        files.sort_unstable();
        let files: Arc<[SnapshotFile]> = files.into();
        self.0.insert(id.to_owned(), Arc::clone(&files));
        files
    }
}

/// What is remembered of snapshots' files, in bytes.
const LISTED: u64 = 16 << 20;
const COLUMNS: &str = "number, id, project_id, engine, commit_id, details, files, types, created_at, used_at";

impl Store {
    /// Saves a snapshot together with those of its contents that may not be kept yet: both, or neither. Where the
    /// connection is lost at the very end, it may have been saved in spite of [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the base is not the project's latest; [`StoreError::Missing`] for files whose
    /// contents are neither given nor kept; [`StoreError::Invalid`] for a path that stands twice;
    /// [`StoreError::Unavailable`], [`StoreError::Full`] and [`StoreError::Corrupt`].
    pub async fn save(&self, new: NewSnapshot, contents: Vec<(Key, Vec<u8>)>) -> Result<Snapshot, StoreError> {
        check(&new)?;
        let mut packed = self.pack(contents).await?;
        let saved = in_time(async {
            let mut held = self.database.begin().await?;
            let latest = newest(&mut held, &new.project_id).await?.map(|(snapshot, _)| snapshot);
            if matches!(&new.base, Base::Latest(base) if base.as_ref() != latest.as_ref().map(|latest| &latest.id)) {
                return Err(StoreError::Conflict { latest: latest.map(|latest| latest.id) });
            }
            contents::write(&mut held, &mut packed).await?;
            let snapshot = insert(&mut held, &new).await?;
            let before = match &latest {
                Some(latest) => self.listed(&mut held, latest).await?,
                None => Arc::default(),
            };
            let mut others: HashSet<&SnapshotFile> = new.files.iter().collect();
            let gone: Vec<&str> = before.iter().filter(|file| !others.remove(file)).map(|file| &*file.path).collect();
            let mut listed = 0;
            if let Some(latest) = latest.filter(|_| gone.len() < before.len()) {
                listed += share_files(&mut held, &snapshot, &latest, &gone).await?;
            }
            for part in others.into_iter().collect::<Vec<_>>().chunks(LOOKUP) {
                listed += insert_files(&mut held, snapshot.number, part).await?;
            }
            if listed < u64::from(snapshot.files) {
                let keys: Vec<_> = new.files.iter().map(|file| file.key).collect::<HashSet<_>>().into_iter().collect();
                let known = contents::known(&mut held, &keys).await?;
                return Err(StoreError::Missing(keys.into_iter().filter(|key| !known.contains(key)).collect()));
            }
            held.commit().await?;
            Ok(snapshot)
        })
        .await?;
        self.lists.keep(&saved.id, new.files);
        self.trim().await;
        Ok(saved)
    }

    /// What is known of a snapshot; none where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Corrupt`].
    pub async fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, StoreError> {
        let found = in_time(async {
            let mut held = self.database.acquire().await?;
            let found = by_id(&mut held, id).await?;
            held.release();
            Ok(found)
        });
        Ok(self.used(found.await?))
    }

    /// The project's latest snapshot; none where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Corrupt`].
    pub async fn latest(&self, project_id: &str) -> Result<Option<Snapshot>, StoreError> {
        let found = in_time(async {
            let mut held = self.database.acquire().await?;
            let found = newest(&mut held, project_id).await?;
            held.release();
            Ok(found)
        });
        Ok(self.used(found.await?))
    }

    /// Snapshots of one project or of all, newest first, from where a page said that the next begins. What is saved
    /// or deleted meanwhile moves no other from its page. Does not count as use.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] and [`StoreError::Corrupt`].
    pub async fn list(&self, project_id: Option<&str>, size: u32, after: Option<i64>) -> Result<Page, StoreError> {
        let of_project = if project_id.is_some() { "AND project_id = $3" } else { "" };
        let sql =
            format!("SELECT {COLUMNS} FROM snapshots WHERE number < $1 {of_project} ORDER BY number DESC LIMIT $2");
        let size = size.max(1);
        in_time(async {
            let mut held = self.database.acquire().await?;
            let query = sqlx::query(&sql).bind(after.unwrap_or(i64::MAX)).bind(i64::from(size) + 1);
            let query = project_id.iter().fold(query, |query, project_id| query.bind(*project_id));
            let rows = query.fetch_all(held.on()).await?;
            held.release();
            let snapshots = rows.iter().map(|row| Ok(snapshot(row)?.0)).collect::<Result<Vec<_>, StoreError>>();
            let mut page = Page { snapshots: snapshots?, next: None };
            if page.snapshots.len() > size as usize {
                page.snapshots.truncate(size as usize);
                page.next = page.snapshots.last().map(|last| last.number);
            }
            Ok(page)
        })
        .await
    }

    /// A snapshot's files, or those of these paths that it has, in the order of their paths.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Unavailable`] and [`StoreError::Corrupt`].
    pub async fn files(&self, id: &str, paths: Option<&[String]>) -> Result<Vec<SnapshotFile>, StoreError> {
        let known = self.lists.get(id);
        let is_new = known.is_none() && paths.is_none();
        let read = in_time(async {
            let mut held = self.database.acquire().await?;
            let files = match (known, paths) {
                (Some(all), None) => all.to_vec(),
                (Some(all), Some(paths)) => paths.iter().filter_map(|path| find(&all, path)).cloned().collect(),
                (None, None) => read_files(&mut held, id, None).await?,
                (None, Some(paths)) => {
                    let mut files = Vec::with_capacity(paths.len());
                    for part in paths.chunks(LOOKUP) {
                        files.extend(read_files(&mut held, id, Some(part)).await?);
                    }
                    files
                }
            };
            // A snapshot that is still there now was whole while its files were read.
            let found = by_id(&mut held, id).await?;
            held.release();
            Ok((files, found))
        });
        let (mut files, found) = read.await?;
        self.used(found).ok_or_else(|| StoreError::NotFound(id.to_owned()))?;
        files.sort_unstable();
        files.dedup();
        if is_new {
            self.lists.keep(id, files.clone());
        }
        Ok(files)
    }

    /// The files of a snapshot that is there, in the order of their paths.
    async fn listed(&self, held: &mut Held, snapshot: &Snapshot) -> Result<Arc<[SnapshotFile]>, StoreError> {
        match self.lists.get(&snapshot.id) {
            Some(files) => Ok(files),
            None => Ok(self.lists.keep(&snapshot.id, read_files(held, &snapshot.id, None).await?)),
        }
    }

    /// Why contents of a snapshot are not there: they go only with the snapshots that refer to them.
    pub async fn lacking(&self, id: &str) -> StoreError {
        match self.snapshot(id).await {
            Ok(Some(_)) => StoreError::Corrupt(format!("the snapshot {id} lacks contents")),
            Ok(None) => StoreError::NotFound(id.to_owned()),
            Err(error) => error,
        }
    }

    /// Deletes a snapshot, and the contents that only it referred to.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Unavailable`], [`StoreError::Full`] and [`StoreError::Corrupt`].
    pub async fn delete(&self, id: &str) -> Result<(), StoreError> {
        in_time(async {
            let mut held = self.database.begin().await?;
            let (snapshot, _) = by_id(&mut held, id).await?.ok_or_else(|| StoreError::NotFound(id.to_owned()))?;
            remove(&mut held, snapshot.number).await?;
            held.commit().await?;
            self.database.shrink().await
        })
        .await
    }

    /// Deletes all but this many of a project's latest snapshots, as [`Store::delete`] does; returns how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`] and [`StoreError::Corrupt`].
    pub async fn keep_latest(&self, project_id: &str, count: u32) -> Result<u64, StoreError> {
        let sql = "SELECT number FROM snapshots WHERE project_id = $1 ORDER BY number DESC";
        in_time(async {
            let mut held = self.database.begin().await?;
            let numbers: Vec<i64> = sqlx::query_scalar(sql).bind(project_id).fetch_all(held.on()).await?;
            let old = numbers.get(count as usize..).unwrap_or_default();
            for number in old {
                remove(&mut held, *number).await?;
            }
            held.commit().await?;
            self.database.shrink().await?;
            Ok(old.len() as u64)
        })
        .await
    }

    /// Notes that a snapshot was used.
    fn used(&self, found: Option<(Snapshot, i64)>) -> Option<Snapshot> {
        let (snapshot, used_at) = found?;
        if is_stale(used_at) {
            self.note(Table::Snapshots, [snapshot.number]);
        }
        Some(snapshot)
    }
}

/// What the databases would refuse, or take for something else.
fn check(new: &NewSnapshot) -> Result<(), StoreError> {
    let mut paths = HashSet::new();
    let twice = new.files.iter().find(|file| !paths.insert(&file.path));
    if let Some(file) = twice {
        return Err(StoreError::Invalid(format!("{} stands twice in the snapshot", file.path)));
    }
    let texts = [&new.project_id, &new.engine].into_iter().chain(&new.commit).chain(paths);
    // PostgreSQL holds no zeros in texts.
    match texts.into_iter().find(|text| text.contains('\0')) {
        Some(text) => Err(StoreError::Invalid(format!("{text:?} has a zero character in it"))),
        None => Ok(()),
    }
}

async fn insert(held: &mut Held, new: &NewSnapshot) -> Result<Snapshot, StoreError> {
    let sql = format!(
        "INSERT INTO snapshots (id, project_id, engine, commit_id, details, files, types, created_at, used_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) RETURNING {COLUMNS}"
    );
    let row = sqlx::query(&sql)
        .bind(uuid::Uuid::now_v7().to_string())
        .bind(&new.project_id)
        .bind(&new.engine)
        .bind(new.commit.as_ref())
        .bind(&new.details[..])
        .bind(i64::try_from(new.files.len()).unwrap_or(i64::MAX))
        .bind(i64::try_from(new.types).unwrap_or(i64::MAX))
        .bind(now())
        .fetch_one(held.on())
        .await?;
    Ok(snapshot(&row)?.0)
}

/// Lists the files that another snapshot lists, without those of these paths. Returns how many that are.
async fn share_files(
    held: &mut Held,
    snapshot: &Snapshot,
    other: &Snapshot,
    without: &[&str],
) -> Result<u64, StoreError> {
    let all = "INSERT INTO snapshot_files (snapshot, entry) SELECT $1, entry FROM snapshot_files WHERE snapshot = $2";
    let all = sqlx::query(all).bind(snapshot.number).bind(other.number).execute(held.on()).await?;
    let mut listed = all.rows_affected();
    for part in without.chunks(LOOKUP) {
        let sql = format!(
            "DELETE FROM snapshot_files WHERE snapshot = $1 AND entry IN (SELECT entries.id FROM snapshot_files \
             JOIN entries ON entries.id = snapshot_files.entry \
             WHERE snapshot_files.snapshot = $1 AND entries.path IN {})",
            list(2, part.len())
        );
        let query = part.iter().fold(once(&sql).bind(snapshot.number), |query, path| query.bind(*path));
        listed -= query.execute(held.on()).await?.rows_affected();
    }
    Ok(listed)
}

/// A snapshot's files, or those of these paths, in no particular order.
async fn read_files(held: &mut Held, id: &str, paths: Option<&[String]>) -> Result<Vec<SnapshotFile>, StoreError> {
    let filter = paths.map_or_else(String::new, |paths| format!("AND entries.path IN {}", list(2, paths.len())));
    let sql = format!(
        "SELECT entries.path, contents.key, entries.types FROM snapshots \
         JOIN snapshot_files ON snapshot_files.snapshot = snapshots.number \
         JOIN entries ON entries.id = snapshot_files.entry \
         JOIN contents ON contents.id = entries.content WHERE snapshots.id = $1 {filter}"
    );
    let query = paths.into_iter().flatten().fold(once(&sql).bind(id), Query::bind);
    query.fetch_all(held.on()).await?.iter().map(file).collect()
}

fn find<'a>(files: &'a [SnapshotFile], path: &str) -> Option<&'a SnapshotFile> {
    files.binary_search_by(|file| file.path.as_str().cmp(path)).ok().map(|index| &files[index])
}

/// Returns how many of the files have a content.
async fn insert_files(held: &mut Held, number: i64, files: &[&SnapshotFile]) -> Result<u64, StoreError> {
    let given = format!("WITH given (path, key, types) AS (VALUES {})", rows(2, files.len(), 3));
    let share = format!(
        "{given} INSERT INTO entries (content, path, types) \
         SELECT contents.id, given.path, given.types FROM given JOIN contents ON contents.key = given.key \
         WHERE $1 = $1 ON CONFLICT DO NOTHING"
    );
    let list = format!(
        "{given} INSERT INTO snapshot_files (snapshot, entry) \
         SELECT $1, entries.id FROM given JOIN contents ON contents.key = given.key JOIN entries \
         ON entries.content = contents.id AND entries.path = given.path AND entries.types = given.types"
    );
    let mut listed = 0;
    for sql in [&share, &list] {
        let query = files.iter().fold(once(sql).bind(number), |query, file| {
            query.bind(&file.path).bind(&file.key.0[..]).bind(i64::from(file.types))
        });
        listed = query.execute(held.on()).await?.rows_affected();
    }
    Ok(listed)
}

/// Removes a snapshot, and what only it referred to, inside a transaction.
pub(super) async fn remove(held: &mut Held, number: i64) -> Result<(), StoreError> {
    let lone = "DELETE FROM entries WHERE id IN (SELECT entry FROM snapshot_files WHERE snapshot = $1) \
         AND NOT EXISTS (SELECT 1 FROM snapshot_files WHERE entry = entries.id AND snapshot <> $1) RETURNING content";
    let contents: Vec<i64> = sqlx::query_scalar(lone).bind(number).fetch_all(held.on()).await?;
    sqlx::query("DELETE FROM snapshots WHERE number = $1").bind(number).execute(held.on()).await?;
    contents::remove(held, &contents).await
}

async fn by_id(held: &mut Held, id: &str) -> Result<Option<(Snapshot, i64)>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE id = $1");
    sqlx::query(&sql).bind(id).fetch_optional(held.on()).await?.map(|row| snapshot(&row)).transpose()
}

async fn newest(held: &mut Held, project_id: &str) -> Result<Option<(Snapshot, i64)>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM snapshots WHERE project_id = $1 ORDER BY number DESC LIMIT 1");
    sqlx::query(&sql).bind(project_id).fetch_optional(held.on()).await?.map(|row| snapshot(&row)).transpose()
}

/// A path, the key of its content, and how many types there are.
fn file(row: &AnyRow) -> Result<SnapshotFile, StoreError> {
    let (key, types) = (contents::key(row.try_get(1)?)?, row.try_get::<i64, _>(2)?);
    Ok(SnapshotFile { path: row.try_get(0)?, key, types: u32::try_from(types).unwrap_or(0) })
}

/// A snapshot and when it was used last.
fn snapshot(row: &AnyRow) -> Result<(Snapshot, i64), StoreError> {
    let unsigned = |column: usize| Ok::<_, StoreError>(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0));
    let snapshot = Snapshot {
        number: row.try_get(0)?,
        id: row.try_get(1)?,
        project_id: row.try_get(2)?,
        engine: row.try_get(3)?,
        commit: row.try_get(4)?,
        details: row.try_get(5)?,
        files: u32::try_from(unsigned(6)?).unwrap_or(u32::MAX),
        types: unsigned(7)?,
        created_at: UNIX_EPOCH + Duration::from_micros(unsigned(8)?),
    };
    Ok((snapshot, row.try_get(9)?))
}
