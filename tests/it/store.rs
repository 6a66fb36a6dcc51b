//! What is kept: one suite on SQLite and on a real PostgreSQL, then what can befall either.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use proptest::prelude::*;
use pyrightd::store::{Base, Key, Location, NewSnapshot, Snapshot, SnapshotFile, Store, StoreError};
use sqlx::migrate::{Migrate, Migration, MigrationType};
use sqlx::{AnyConnection, Connection as _, Executor as _};

use crate::harness::postgres::Postgres;

/// A new and empty place for a store.
struct Place {
    location: Location,
    url: String,
    folder: tempfile::TempDir,
}

impl Place {
    async fn sqlite() -> Self {
        sqlx::any::install_default_drivers();
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(folder.path().join("100 % kept?"));
        let url = format!("sqlite://{}/100%20%25%20kept%3F/store.db?mode=rwc", folder.path().display());
        Self { location, url, folder }
    }

    async fn postgres() -> Self {
        let url = Postgres::database().await;
        Self { location: Location::Postgres(url.clone()), url, folder: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Store {
        Store::open(&self.location, None).await.unwrap()
    }

    async fn connect(&self) -> AnyConnection {
        if let Location::Sqlite(folder) = &self.location {
            std::fs::create_dir_all(folder).unwrap();
        }
        AnyConnection::connect(&self.url).await.unwrap()
    }

    /// Does something to the database behind the store's back.
    async fn execute(&self, sql: &str) {
        self.connect().await.execute(sqlx::raw_sql(sql)).await.unwrap();
    }

    async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap()
    }

    /// As if nothing had been used for an hour.
    async fn age(&self) {
        let hour = 3_600_000_000_u64;
        self.execute(&format!("UPDATE contents SET used_at = used_at - {hour}")).await;
        self.execute(&format!("UPDATE snapshots SET used_at = used_at - {hour}")).await;
    }

    /// What the store takes, in files or as PostgreSQL counts it.
    async fn bytes(&self) -> i64 {
        match &self.location {
            Location::Sqlite(_) => {
                self.number("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").await
            }
            Location::Postgres(_) => {
                self.number(
                    "SELECT CAST(SUM(pg_total_relation_size(oid)) AS BIGINT) FROM pg_class \
                     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
                )
                .await
            }
        }
    }
}

fn key(number: u64) -> Key {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    Key(key)
}

/// Bytes that compress about as little as types do: a sixth.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 24);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes()[..4].iter().chain(b"a type as it prints "));
    }
    bytes.truncate(length);
    bytes
}

fn file(path: &str, content: u64) -> SnapshotFile {
    SnapshotFile { path: path.into(), key: key(content), types: 3 }
}

fn snapshot(project: &str, files: Vec<SnapshotFile>) -> NewSnapshot {
    NewSnapshot {
        project_id: project.into(),
        engine: "an engine".into(),
        commit: None,
        details: vec![0, 1, 255],
        types: 3 * files.len() as u64,
        files,
        base: Base::Any,
    }
}

/// Saves a snapshot with one file that has this content.
async fn save(store: &Store, project: &str, content: u64) -> Snapshot {
    let contents = vec![(key(content), bytes(content, 6000))];
    store.save(snapshot(project, vec![file("a.py", content)]), contents).await.unwrap()
}

async fn put(store: &Store, content: u64) {
    store.put(vec![(key(content), bytes(content, 6000))]).await.unwrap();
}

async fn has(store: &Store, content: u64) -> bool {
    store.contains(&[key(content)]).await.unwrap().contains(&key(content))
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(super::Place::sqlite().await).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test(super::Place::postgres().await).await; })*
        }
    };
}

on_both! {
    contents_are_kept_once_and_come_back
    what_several_keys_stand_for_is_stored_once
    what_is_removed_while_it_is_stored_anew_is_there
    many_contents_come_back_quickly
    a_damaged_content_is_told
    a_snapshot_comes_back_as_it_was_saved
    what_makes_no_sense_is_refused
    any_snapshot_comes_back
    a_snapshot_without_its_contents_is_not_saved
    of_two_on_one_base_one_is_told_of_the_other
    many_savers_on_one_store_lose_nothing
    snapshots_are_listed_newest_first_by_pages
    deleting_takes_along_what_nobody_else_refers_to
    only_the_latest_are_kept
    the_least_used_goes_first
    reads_count_as_use_once_a_minute
    what_is_used_is_noted_while_the_store_is_open
    a_project_s_latest_snapshot_stays_whatever_the_bound
    the_bound_holds_while_much_is_saved
    a_snapshot_after_a_small_change_costs_little
    two_may_open_at_once
    a_store_with_the_first_schema_is_brought_up_to_date
    a_store_of_a_newer_version_is_refused
    a_killed_process_leaves_whole_snapshots
    processes_share_a_store
    a_call_that_is_dropped_leaves_nothing_behind
}

async fn contents_are_kept_once_and_come_back(place: Place) {
    let store = place.open().await;
    assert_eq!(store.get(&[]).await.unwrap(), HashMap::new());
    store.put(Vec::new()).await.unwrap();
    let large = bytes(3, 20 << 20);
    store.put(vec![(key(1), b"one".to_vec()), (key(2), vec![]), (key(1), b"other".to_vec())]).await.unwrap();
    store.put(vec![(key(1), b"another".to_vec()), (key(3), large.clone())]).await.unwrap();
    let wanted = HashMap::from([(key(1), b"one".to_vec()), (key(2), vec![]), (key(3), large)]);
    assert!(store.get(&[key(1), key(2), key(3), key(4)]).await.unwrap() == wanted);
    assert_eq!(store.contains(&[key(4), key(2)]).await.unwrap(), HashSet::from([key(2)]));
    for table in ["contents", "blobs"] {
        assert_eq!(place.number(&format!("SELECT COUNT(*) FROM {table}")).await, 3, "{table}");
    }
    store.close().await;
    assert_eq!(place.open().await.get(&[key(1)]).await.unwrap()[&key(1)], b"one");
}

async fn what_several_keys_stand_for_is_stored_once(place: Place) {
    let store = place.open().await;
    let content = bytes(1, 100_000);
    let save = async |project: &str, number| {
        let contents = vec![(key(number), content.clone()), (key(number + 10), content.clone())];
        store.save(snapshot(project, vec![file("a.py", number)]), contents).await.unwrap()
    };
    let (one, other) = (save("p", 1).await, save("q", 2).await);
    store.put(vec![(key(3), content.clone()), (key(4), b"another".to_vec())]).await.unwrap();
    let blobs = "SELECT COUNT(*) FROM blobs";
    assert_eq!(place.number(blobs).await, 2);
    let wanted: HashMap<_, _> = [1, 2, 3, 11, 12].map(|number| (key(number), content.clone())).into();
    assert!(store.get(&[1, 2, 3, 11, 12].map(key)).await.unwrap() == wanted);
    store.delete(&one.id).await.unwrap();
    assert!(!has(&store, 1).await && store.get(&[key(2)]).await.unwrap()[&key(2)] == content);
    // As keeping within the bound does.
    place.execute("DELETE FROM contents WHERE id NOT IN (SELECT content FROM entries)").await;
    store.delete(&other.id).await.unwrap();
    assert_eq!(place.number(blobs).await, 1);
}

async fn what_is_removed_while_it_is_stored_anew_is_there(place: Place) {
    let store = place.open().await;
    for round in 0..100 {
        let content = vec![(key(round), b"the same".to_vec())];
        let saved = store.save(snapshot("p", vec![file("a.py", round)]), content).await.unwrap();
        let again = key(1000 + round);
        let (put, deleted) = tokio::join!(store.put(vec![(again, b"the same".to_vec())]), store.delete(&saved.id));
        put.unwrap();
        deleted.unwrap();
        assert_eq!(store.get(&[again]).await.unwrap().get(&again), Some(&b"the same".to_vec()), "round {round}");
        // Then it goes with the next.
        store.save(snapshot("q", vec![file("a.py", 1000 + round)]), vec![]).await.unwrap();
        store.keep_latest("q", 0).await.unwrap();
        assert_eq!(place.number("SELECT COUNT(*) FROM blobs").await, 0, "round {round}");
    }
}

async fn many_contents_come_back_quickly(place: Place) {
    let store = place.open().await;
    let contents: Vec<_> = (0..900).map(|number| (key(number), bytes(number, 56_000))).collect();
    store.put(contents.clone()).await.unwrap();
    let keys: Vec<_> = (0..1000).map(key).collect();
    let looked_up = async || {
        let begun = Instant::now();
        assert_eq!(store.contains(&keys).await.unwrap().len(), 900);
        begun.elapsed()
    };
    let read = async || {
        let begun = Instant::now();
        assert_eq!(store.get(&keys).await.unwrap().len(), 900);
        begun.elapsed()
    };
    let (mut lookups, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        lookups.push(looked_up().await);
        reads.push(read().await);
    }
    println!("1000 keys {:?}, 900 contents {:?}, {} bytes", lookups, reads, place.bytes().await);
    let streamed: HashMap<_, _> = store.stream(&keys).try_collect().await.unwrap();
    assert!(streamed == contents.into_iter().collect());
    // What a slow and busy machine takes, without optimization; the figures are for who looks.
    assert!(*reads.iter().min().unwrap() < Duration::from_secs(2), "{reads:?}");
    assert!(*lookups.iter().min().unwrap() < Duration::from_millis(200), "{lookups:?}");
}

async fn a_damaged_content_is_told(place: Place) {
    let store = place.open().await;
    put(&store, 1).await;
    put(&store, 2).await;
    let other = "(SELECT data FROM blobs WHERE length = 6001)";
    store.put(vec![(key(3), bytes(3, 6001))]).await.unwrap();
    place.execute(&format!("UPDATE blobs SET data = {other} WHERE id = (SELECT MIN(id) FROM blobs)")).await;
    let error = store.get(&[key(1), key(2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert_eq!(store.get(&[key(2)]).await.unwrap().len(), 1);
}

async fn a_snapshot_comes_back_as_it_was_saved(place: Place) {
    let store = place.open().await;
    assert_eq!(store.latest("p").await.unwrap(), None);
    assert_eq!(store.snapshot("none").await.unwrap(), None);
    assert!(matches!(store.files("none", None).await, Err(StoreError::NotFound(id)) if id == "none"));

    put(&store, 1).await;
    let files = vec![file("b.py", 1), file("ä/é.py", 2), file("B.py", 1), file("a b.py", 2)];
    let new = NewSnapshot { commit: Some("c0ffee".into()), types: 1 << 40, ..snapshot("p", files.clone()) };
    let saved = store.save(new.clone(), vec![(key(2), b"two".to_vec())]).await.unwrap();
    let found = store.snapshot(&saved.id).await.unwrap().unwrap();
    assert_eq!(found, saved);
    assert_eq!((&found.commit, found.types, found.files), (&new.commit, new.types, 4));
    assert_eq!((found.project_id, found.engine, found.details), (new.project_id, new.engine, new.details));
    assert!(saved.created_at.elapsed().unwrap() < Duration::from_secs(60));

    let mut sorted = files.clone();
    sorted.sort();
    assert_eq!(store.files(&saved.id, None).await.unwrap(), sorted);
    let some = ["b.py".to_owned(), "none.py".into(), "a b.py".into(), "b.py".into()];
    assert_eq!(store.files(&saved.id, Some(&some)).await.unwrap(), [files[3].clone(), files[0].clone()]);
    assert_eq!(store.files(&saved.id, Some(&[])).await.unwrap(), []);
    assert_eq!(store.get(&[key(2)]).await.unwrap()[&key(2)], b"two");

    let empty = store.save(snapshot("p", vec![]), vec![]).await.unwrap();
    assert_eq!(store.files(&empty.id, None).await.unwrap(), []);
    assert_eq!(store.latest("p").await.unwrap(), Some(empty));
    assert_eq!(store.latest("q").await.unwrap(), None);
}

async fn what_makes_no_sense_is_refused(place: Place) {
    let store = place.open().await;
    put(&store, 1).await;
    let zero = snapshot("p\0q", vec![]);
    for new in [zero, snapshot("p", vec![file("a.py", 1), file("a.py", 1)]), snapshot("p", vec![file("a\0.py", 1)])] {
        let error = store.save(new, vec![]).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
    }
    let _ = store.latest("p\0q").await;
    assert_eq!(store.latest("p").await.unwrap(), None);
}

async fn any_snapshot_comes_back(place: Place) {
    let store = place.open().await;
    let files = prop::collection::btree_map("[a-zß/ %'\"$\\\\]{1,60}", (0..40_u64, any::<u32>()), 0..60);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let runtime = tokio::runtime::Handle::current();
    let run = || {
        runner.run(&(files, any::<Vec<u8>>(), any::<Option<u16>>()), |(files, details, commit)| {
            let files: Vec<_> = files
                .into_iter()
                .map(|(path, (content, types))| SnapshotFile { path, key: key(content), types })
                .collect();
            let contents = files.iter().map(|file| (file.key, file.key.0.repeat(9))).collect();
            let commit = commit.map(|commit| commit.to_string());
            let new = NewSnapshot { details, commit, ..snapshot("p", files.clone()) };
            runtime.block_on(async {
                let saved = store.save(new.clone(), contents).await.unwrap();
                assert_eq!((&saved.details, &saved.commit), (&new.details, &new.commit));
                assert_eq!(store.latest("p").await.unwrap().as_ref(), Some(&saved));
                assert_eq!(store.files(&saved.id, None).await.unwrap(), files);
                let keys: Vec<_> = files.iter().map(|file| file.key).collect();
                for (key, content) in store.get(&keys).await.unwrap() {
                    assert_eq!(content, key.0.repeat(9));
                }
            });
            Ok(())
        })
    };
    tokio::task::block_in_place(run).unwrap();
}

async fn a_snapshot_without_its_contents_is_not_saved(place: Place) {
    let store = place.open().await;
    let first = save(&store, "p", 1).await;
    let files = vec![file("a.py", 1), file("b.py", 2), file("c.py", 3), file("d.py", 3)];
    let error = store.save(snapshot("p", files), vec![(key(2), b"two".to_vec())]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Missing(keys) if *keys == [key(3)]), "{error}");
    assert_eq!(store.latest("p").await.unwrap(), Some(first));
    assert!(!has(&store, 2).await, "half of it was kept");
    save(&store, "p", 3).await;
}

async fn of_two_on_one_base_one_is_told_of_the_other(place: Place) {
    let (one, other) = (place.open().await, place.open().await);
    let mut base = None;
    for round in 0..20 {
        let new = NewSnapshot { base: Base::Latest(base.clone()), ..snapshot("p", vec![file("a.py", round)]) };
        let contents = || vec![(key(round), bytes(round, 100))];
        let (first, second) = tokio::join!(one.save(new.clone(), contents()), other.save(new.clone(), contents()));
        let (saved, refused) = if first.is_ok() { (first, second) } else { (second, first) };
        let saved = saved.unwrap().id;
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Conflict { latest: Some(latest) } if *latest == saved),
            "{saved}: {refused}"
        );
        base = Some(saved);
    }
    assert_eq!(one.latest("p").await.unwrap().map(|snapshot| snapshot.id), base);
    let stale = NewSnapshot { base: Base::Latest(None), ..snapshot("p", vec![]) };
    assert!(matches!(one.save(stale, vec![]).await, Err(StoreError::Conflict { .. })));
    assert_eq!(place.number("SELECT COUNT(*) FROM snapshots").await, 20);
}

async fn many_savers_on_one_store_lose_nothing(place: Place) {
    let stores = [place.open().await, Store::open(&place.location, Some(200_000)).await.unwrap()];
    let mut savers = tokio::task::JoinSet::new();
    for saver in 0..8_u64 {
        let store = stores[saver as usize % 2].clone();
        savers.spawn(async move {
            for round in 0..10 {
                let project = format!("p{saver}");
                put(&store, 500 + round).await;
                let saved = save(&store, &project, saver * 10 + round).await;
                assert_eq!(store.files(&saved.id, None).await.unwrap(), [file("a.py", saver * 10 + round)]);
                assert_eq!(store.get(&[key(saver * 10 + round)]).await.unwrap().len(), 1);
                store.keep_latest(&project, 2).await.unwrap();
            }
        });
    }
    savers.join_all().await;
    for saver in 0..8 {
        let latest = stores[0].latest(&format!("p{saver}")).await.unwrap().unwrap();
        assert_eq!(stores[0].files(&latest.id, None).await.unwrap(), [file("a.py", saver * 10 + 9)]);
    }
}

async fn snapshots_are_listed_newest_first_by_pages(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.insert(0, save(&store, "p", number % 2).await.id);
        save(&store, "q", 1).await;
    }
    let (mut listed, mut after) = (Vec::new(), None);
    for (length, change) in [(3, true), (3, false), (1, false)] {
        let page = store.list(Some("p"), 3, after).await.unwrap();
        assert_eq!(page.snapshots.len(), length);
        listed.extend(page.snapshots.into_iter().map(|snapshot| snapshot.id));
        after = page.next;
        if change {
            // Neither moves those on later pages.
            save(&store, "p", 1).await;
            store.delete(listed.last().unwrap()).await.unwrap();
        }
    }
    assert_eq!((listed, after), (ids, None));
    let all = store.list(None, 100, None).await.unwrap();
    assert_eq!((all.snapshots.len(), all.next), (14, None));
    assert!(all.snapshots.is_sorted_by(|one, next| one.number > next.number));
    assert!(store.list(Some("none"), 0, None).await.unwrap().snapshots.is_empty());
}

async fn deleting_takes_along_what_nobody_else_refers_to(place: Place) {
    let store = place.open().await;
    put(&store, 9).await;
    let contents = |numbers: &[u64]| numbers.iter().map(|number| (key(*number), bytes(*number, 100))).collect();
    let one = snapshot("p", vec![file("a.py", 1), file("b.py", 2)]);
    let one = store.save(one, contents(&[1, 2])).await.unwrap();
    let two = snapshot("p", vec![file("a.py", 1), file("b.py", 3)]);
    let two = store.save(two, contents(&[3])).await.unwrap();
    let other = store.save(snapshot("q", vec![file("x.py", 3)]), vec![]).await.unwrap();
    store.delete(&one.id).await.unwrap();
    assert!(matches!(store.delete(&one.id).await, Err(StoreError::NotFound(id)) if id == one.id));
    assert_eq!([has(&store, 1).await, has(&store, 2).await, has(&store, 3).await], [true, false, true]);
    assert_eq!(store.files(&two.id, None).await.unwrap(), [file("a.py", 1), file("b.py", 3)]);
    store.delete(&two.id).await.unwrap();
    assert_eq!([has(&store, 1).await, has(&store, 3).await, has(&store, 9).await], [false, true, true]);
    assert_eq!(store.files(&other.id, None).await.unwrap(), [file("x.py", 3)]);
    store.delete(&other.id).await.unwrap();
    for table in ["snapshots", "snapshot_files", "entries"] {
        assert_eq!(place.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
    }
}

async fn only_the_latest_are_kept(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.insert(0, save(&store, "p", number).await.id);
        save(&store, "q", 50).await;
    }
    assert_eq!(store.keep_latest("p", 9).await.unwrap(), 0);
    assert_eq!(store.keep_latest("p", 2).await.unwrap(), 3);
    let left = store.list(Some("p"), 9, None).await.unwrap().snapshots;
    assert_eq!(left.iter().map(|snapshot| &snapshot.id).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    assert_eq!(store.keep_latest("p", 0).await.unwrap(), 2);
    assert_eq!(store.list(None, 99, None).await.unwrap().snapshots.len(), 5);
    for table in ["contents", "blobs"] {
        assert_eq!(place.number(&format!("SELECT COUNT(*) FROM {table}")).await, 1, "{table}");
    }
}

/// A bound that is reached as soon as something is kept beside this.
async fn at_its_bound(place: &Place, store: &Store) -> Store {
    store.close().await;
    let used = match &place.location {
        Location::Sqlite(_) => place.bytes().await,
        Location::Postgres(_) => {
            place
                .number(
                    "SELECT CAST((SELECT SUM(size + 200) FROM blobs) + (SELECT COUNT(*) * 200 FROM contents) \
                     + (SELECT COALESCE(SUM(files * 110 + length(details)), 0) FROM snapshots) AS BIGINT)",
                )
                .await
        }
    };
    Store::open(&place.location, Some(used.unsigned_abs() + 300)).await.unwrap()
}

async fn the_least_used_goes_first(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for (project, number) in [("p", 0), ("q", 1), ("p", 2), ("q", 3), ("p", 4)] {
        ids.push(save(&store, project, number).await.id);
    }
    for number in 10..14 {
        put(&store, number).await;
    }
    place.age().await;
    // By now the first are used last: a content by itself, and a snapshot.
    store.get(&[key(10)]).await.unwrap();
    store.files(&ids[0], None).await.unwrap();
    let store = at_its_bound(&place, &store).await;
    // Contents alone, then snapshots that are not their projects' latest; those of `r` are used after all these.
    let order = [11, 12, 13, 10, 1, 2, 0, 3, 4];
    let there = async || {
        let there = store.contains(&order.map(key)).await.unwrap();
        order.into_iter().filter(|number| there.contains(&key(*number))).collect::<Vec<_>>()
    };
    assert_eq!(there().await, order);
    for number in 100..160 {
        save(&store, "r", number).await;
        let left = there().await;
        assert!(order.ends_with(&left), "{left:?}");
    }
    assert_eq!(there().await, [3, 4]);
    assert_eq!(store.snapshot(&ids[0]).await.unwrap(), None);
}

async fn reads_count_as_use_once_a_minute(place: Place) {
    let saved = save(&place.open().await, "p", 1).await;
    let used = "SELECT (SELECT MAX(used_at) FROM contents) + (SELECT MAX(used_at) FROM snapshots)";
    let use_all = async || {
        let store = place.open().await;
        store.get(&[key(1)]).await.unwrap();
        store.files(&saved.id, None).await.unwrap();
        store.latest("p").await.unwrap();
        // What was used is noted by then.
        store.close().await;
        place.number(used).await
    };
    let fresh = place.number(used).await;
    assert_eq!(use_all().await, fresh, "what was saved just now was noted again");
    place.age().await;
    let noted = use_all().await;
    assert!(noted > fresh);
    assert_eq!(use_all().await, noted);
}

async fn what_is_used_is_noted_while_the_store_is_open(place: Place) {
    let store = place.open().await;
    put(&store, 1).await;
    place.age().await;
    let used = "SELECT MAX(used_at) FROM contents";
    let aged = place.number(used).await;
    store.get(&[key(1)]).await.unwrap();
    while place.number(used).await == aged {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_project_s_latest_snapshot_stays_whatever_the_bound(place: Place) {
    let store = Store::open(&place.location, Some(1)).await.unwrap();
    let saved = save(&store, "p", 1).await;
    put(&store, 2).await;
    let other = save(&store, "q", 3).await;
    let next = save(&store, "p", 4).await;
    for (snapshot, content) in [(other, 3), (next, 4)] {
        assert_eq!(store.files(&snapshot.id, None).await.unwrap(), [file("a.py", content)]);
        assert!(has(&store, content).await);
    }
    assert_eq!([has(&store, 1).await, has(&store, 2).await], [false, false]);
    assert_eq!(store.snapshot(&saved.id).await.unwrap(), None);
}

async fn the_bound_holds_while_much_is_saved(place: Place) {
    let max = 2 << 20;
    let store = Store::open(&place.location, Some(max)).await.unwrap();
    for round in 0..12 {
        let numbers = || round * 100..round * 100 + 60;
        let contents = numbers().map(|number| (key(number), bytes(number, 60_000))).collect();
        let files = numbers().map(|number| file(&format!("{number}.py"), number)).collect();
        store.save(snapshot("p", files), contents).await.unwrap();
        let kept = place.number("SELECT CAST(SUM(size) AS BIGINT) FROM blobs").await.unsigned_abs();
        assert!(kept < max, "{kept} in round {round}");
        if matches!(place.location, Location::Sqlite(_)) {
            let taken = place.bytes().await.unsigned_abs();
            assert!(taken <= max, "{taken} in round {round}");
        }
    }
    let latest = store.latest("p").await.unwrap().unwrap();
    assert_eq!(store.files(&latest.id, None).await.unwrap().len(), 60);
    if let Location::Sqlite(folder) = &place.location {
        store.close().await;
        let size = std::fs::metadata(folder.join("store.db")).unwrap().len();
        assert!(size <= max, "the file has {size} bytes");
    }
}

async fn a_snapshot_after_a_small_change_costs_little(place: Place) {
    let store = place.open().await;
    let name = |number| format!("some/folders/deep/in/a/package/module_{number}.py");
    let mut files: Vec<_> = (0..900).map(|number| file(&name(number), number)).collect();
    let contents = (0..900).map(|number| (key(number), bytes(number, 45_000))).collect();
    store.save(snapshot("p", files.clone()), contents).await.unwrap();
    let whole = place.bytes().await;
    let rounds = 10;
    for round in 0..rounds {
        files[10] = file(&name(10), 1000 + round);
        let contents = vec![(key(1000 + round), bytes(1000 + round, 45_000))];
        store.save(snapshot("p", files.clone()), contents).await.unwrap();
    }
    let each = (place.bytes().await - whole) / rounds as i64;
    println!("{whole} bytes, and {each} for each snapshot after a change");
    assert!(whole > 7_000_000 && each * 50 < whole, "{whole} bytes, and {each} for each snapshot after a change");
}

async fn two_may_open_at_once(place: Place) {
    let opened = futures_util::future::join_all((0..4).map(|_| Store::open(&place.location, None))).await;
    for (number, store) in opened.into_iter().enumerate() {
        save(&store.unwrap(), "p", number as u64).await;
    }
    assert_eq!(place.number("SELECT COUNT(*) FROM snapshots").await, 4);
}

/// Applies this by the way of all migrations.
async fn migrate(place: &Place, version: i64, script: &str) {
    let migration = Migration::new(version, "".into(), MigrationType::Simple, script.to_owned().into(), false);
    let mut connection = place.connect().await;
    connection.ensure_migrations_table().await.unwrap();
    Migrate::apply(&mut connection, &migration).await.unwrap();
}

async fn a_store_with_the_first_schema_is_brought_up_to_date(place: Place) {
    let script = match place.location {
        Location::Sqlite(_) => include_str!("../../src/store/migrations/sqlite/0001_snapshots.sql"),
        Location::Postgres(_) => include_str!("../../src/store/migrations/postgres/0001_snapshots.sql"),
    };
    migrate(&place, 1, script).await;
    let mut connection = place.connect().await;
    let (packed, content) = (zstd::bulk::compress(b"types", 1).unwrap(), key(1).0);
    let insert = "INSERT INTO contents (key, length, size, used_at, data) VALUES ($1, 5, 14, 1, $2)";
    sqlx::query(insert).bind(&content[..]).bind(&packed[..]).execute(&mut connection).await.unwrap();
    let insert = "INSERT INTO snapshots \
         (id, project_id, engine, commit_id, details, files, types, created_at, used_at) \
         VALUES ('old', 'p', 'an engine', NULL, $1, 1, 3, 1600000000000000, 1600000000000000)";
    sqlx::query(insert).bind(&b"details"[..]).execute(&mut connection).await.unwrap();
    for insert in [
        "INSERT INTO entries (content, path, types) SELECT id, 'a.py', 3 FROM contents",
        "INSERT INTO snapshot_files (snapshot, entry) SELECT number, entries.id FROM snapshots, entries",
    ] {
        connection.execute(insert).await.unwrap();
    }
    connection.close().await.unwrap();

    let store = place.open().await;
    let old = store.latest("p").await.unwrap().unwrap();
    assert_eq!((&old.id[..], &old.details[..], old.types), ("old", &b"details"[..], 3));
    assert_eq!(store.files("old", None).await.unwrap(), [file("a.py", 1)]);
    assert_eq!(store.get(&[key(1)]).await.unwrap()[&key(1)], b"types");
    let next = NewSnapshot { base: Base::Latest(Some("old".into())), ..snapshot("p", vec![file("b.py", 1)]) };
    store.save(next, vec![]).await.unwrap();
    // What it has by another name is stored again, and goes like any other.
    store.put(vec![(key(2), b"types".to_vec())]).await.unwrap();
    assert_eq!(place.number("SELECT COUNT(*) FROM blobs").await, 2);
    store.keep_latest("p", 0).await.unwrap();
    assert_eq!([has(&store, 1).await, has(&store, 2).await], [false, true]);
    assert_eq!(place.number("SELECT COUNT(*) FROM blobs").await, 1);
}

async fn a_store_of_a_newer_version_is_refused(place: Place) {
    let saved = save(&place.open().await, "p", 1).await;
    migrate(&place, 9999, "CREATE TABLE from_the_future (id INTEGER)").await;
    let error = Store::open(&place.location, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer(9999)), "{error}");
    place.execute("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    assert_eq!(place.open().await.latest("p").await.unwrap(), Some(saved));
}

const CHILD: &str = "PYRIGHTD_TEST_STORE";

/// Another process that saves snapshots, each of two files with contents of their own, until it is killed or can't.
#[tokio::test]
#[ignore = "run by others as a process of its own"]
async fn child() {
    let Ok(location) = std::env::var(CHILD) else { return };
    let location =
        if location.starts_with('/') { Location::Sqlite(location.into()) } else { Location::Postgres(location) };
    let store = Store::open(&location, Some(3 << 20)).await.unwrap();
    let begun = store.latest("p").await.unwrap().map_or(0, |latest| latest.number.unsigned_abs());
    for round in begun + 1.. {
        let numbers = [round * 2, round * 2 + 1];
        let files = numbers.map(|number| file(&format!("{number}.py"), number)).to_vec();
        let contents = numbers.map(|number| (key(number), bytes(number, 300_000))).to_vec();
        match store.save(snapshot("p", files), contents).await {
            Ok(saved) => println!("SAVED {}", saved.id),
            Err(error) => return println!("failed {error:?}: {error}"),
        }
    }
}

fn start_child(place: &Place, limit: &str) -> Child {
    let location = match &place.location {
        Location::Sqlite(folder) => folder.to_str().unwrap(),
        Location::Postgres(url) => url,
    };
    // Ignored, the signal at a file's limit of size leaves the write to fail.
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\"");
    Command::new("bash")
        .args(["-c", &script, "bash"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::child", "--ignored", "--nocapture"])
        .env(CHILD, location)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The next snapshot that a child says it has saved.
fn saved(lines: &mut impl Iterator<Item = String>) -> Option<String> {
    lines.find_map(|line| Some(line.split_once("SAVED ")?.1.to_owned()))
}

/// Every snapshot that is there is there with all its contents.
async fn check(store: &Store) -> u64 {
    let mut snapshots = 0;
    for saved in store.list(None, 10_000, None).await.unwrap().snapshots {
        let files = store.files(&saved.id, None).await.unwrap();
        let keys: Vec<_> = files.iter().map(|file| file.key).collect();
        let contents = store.get(&keys).await.unwrap();
        assert_eq!((files.len(), contents.len()), (2, 2), "{saved:?}");
        for file in files {
            let number = file.path.trim_end_matches(".py").parse().unwrap();
            assert!(contents[&file.key] == bytes(number, 300_000), "{saved:?}");
        }
        snapshots += 1;
    }
    snapshots
}

async fn a_killed_process_leaves_whole_snapshots(place: Place) {
    use std::io::BufRead as _;
    let mut last = String::new();
    for round in 0..8_u32 {
        let mut child = start_child(&place, "unlimited");
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        last = saved(&mut lines).unwrap_or_else(|| panic!("nothing was saved in round {round}"));
        // Anywhere in what it does.
        std::thread::sleep(Duration::from_micros(u64::from(round) * 7_919 + 311));
        child.kill().unwrap();
        child.wait().unwrap();
        while let Some(next) = saved(&mut lines) {
            last = next;
        }
        let store = place.open().await;
        assert!(check(&store).await > 0);
        // It may have been killed after it saved and before it said so.
        let since = store.latest("p").await.unwrap().unwrap();
        assert!(since.id >= last, "{} was told as saved, and {} is the latest", last, since.id);
        store.close().await;
    }
    assert!(!last.is_empty());
    if matches!(place.location, Location::Sqlite(_)) {
        assert_eq!(place.number("SELECT COUNT(*) FROM pragma_foreign_key_check").await, 0);
        assert_eq!(place.number("SELECT COUNT(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'").await, 0);
    }
}

async fn processes_share_a_store(place: Place) {
    use std::io::BufRead as _;
    let mut children = [start_child(&place, "unlimited"), start_child(&place, "unlimited")];
    for child in &mut children {
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for _ in 0..15 {
            assert!(saved(&mut lines).is_some(), "a process could not save");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(check(&place.open().await).await > 0);
}

async fn a_call_that_is_dropped_leaves_nothing_behind(place: Place) {
    let store = place.open().await;
    let first = save(&store, "p", 1).await;
    for round in 0..20_u64 {
        let numbers = || 100..140;
        let files = numbers().map(|number| file(&format!("{number}.py"), number)).collect();
        let contents = numbers().map(|number| (key(number), bytes(number, 20_000))).collect();
        let save = store.save(snapshot("q", files), contents);
        if let Ok(saved) = tokio::time::timeout(Duration::from_millis(round * 3), save).await {
            store.delete(&saved.unwrap().id).await.unwrap();
        }
    }
    // Either all of it or nothing, and the store is nobody's.
    for saved in store.list(Some("q"), 100, None).await.unwrap().snapshots {
        assert_eq!(store.files(&saved.id, None).await.unwrap().len(), 40);
        store.delete(&saved.id).await.unwrap();
    }
    save(&store, "p", 2).await;
    assert_eq!(store.files(&first.id, None).await.unwrap(), [file("a.py", 1)]);
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() {
    let place = Place::sqlite().await;
    let kept = save(&place.open().await, "before", 1 << 40).await;
    // In kilobytes; its own bound would never be reached.
    let output = start_child(&place, "1500").wait_with_output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("failed Full("), "{printed}");
    let saved = printed.lines().filter_map(|line| Some(line.split_once("SAVED ")?.1)).next_back().unwrap();
    let store = place.open().await;
    assert_eq!(store.latest("p").await.unwrap().unwrap().id, saved);
    assert!(store.get(&[key(1 << 40)]).await.unwrap()[&key(1 << 40)] == bytes(1 << 40, 6000));
    store.delete(&kept.id).await.unwrap();
    assert!(check(&store).await > 0);
    save(&store, "p", 1 << 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_told_in_time_and_used_again_once_it_is_back() {
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let location = Location::Postgres(postgres.new_database().await);
    let store = Store::open(&location, None).await.unwrap();
    let saved = save(&store, "p", 1).await;
    let saver = {
        let store = store.clone();
        tokio::spawn(async move {
            loop {
                let contents = vec![(key(2), bytes(2, 1_000_000))];
                if let Err(error) = store.save(snapshot("q", vec![file("a.py", 2)]), contents).await {
                    return error;
                }
            }
        })
    };
    tokio::task::block_in_place(|| postgres.stop());
    let begun = Instant::now();
    let errors = [
        saver.await.unwrap(),
        store.latest("p").await.unwrap_err(),
        store.get(&[key(1)]).await.unwrap_err(),
        store.save(snapshot("p", vec![]), vec![]).await.unwrap_err(),
        Store::open(&location, None).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    tokio::task::block_in_place(|| postgres.resume());
    assert_eq!(store.latest("p").await.unwrap(), Some(saved));
    save(&store, "p", 3).await;
    assert!(store.list(Some("q"), 10_000, None).await.unwrap().snapshots.iter().all(|saved| saved.files == 1));
}

#[tokio::test]
async fn a_database_that_never_answers_is_told_in_time() {
    // Connections to it wait for a word that nobody says.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let location = Location::Postgres(format!("postgres://tests@{}/tests", silent.local_addr().unwrap()));
    let begun = Instant::now();
    let error = Store::open(&location, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn no_error_tells_the_password() {
    let place = Place::postgres().await;
    let store = format!("{:?}", place.open().await);
    assert!(!store.contains("tests:tests"), "{store}");
    let url = place.url.replace("tests:tests@", "tests:s3cret@");
    let nowhere = "postgres://tests:s3cret@127.0.0.1:1/none".to_owned();
    for url in [url, nowhere, "postgres://tests:s3cret@[broken".into(), "mysql://tests:s3cret@host/".into()] {
        let location = Location::Postgres(url);
        let error = Store::open(&location, None).await.unwrap_err();
        let told = format!("{error} {error:?} {location:?}");
        assert!(!told.contains("s3cret"), "{told}");
        assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Invalid(_)), "{told}");
    }
}

#[tokio::test]
async fn a_place_that_can_hold_no_store_is_told() {
    let place = Place::sqlite().await;
    std::fs::write(place.folder.path().join("file"), "").unwrap();
    let below_a_file = Location::Sqlite(place.folder.path().join("file/store"));
    assert!(matches!(Store::open(&below_a_file, None).await, Err(StoreError::Unavailable(_))));
    let Location::Sqlite(folder) = &place.location else { unreachable!() };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("store.db"), "no database at all, but text".repeat(100)).unwrap();
    let error = Store::open(&place.location, None).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    assert!(Path::exists(&folder.join("store.db")));
}

/// Servers run calls on whichever thread is free, so that this has to compile.
#[allow(dead_code)]
fn every_call_may_move_between_threads(store: &Store) {
    fn moves(_: impl Send) {}
    moves((store.contains(&[]), store.get(&[]), store.stream(&[]), store.put(vec![])));
    moves((store.save(snapshot("", vec![]), vec![]), store.snapshot(""), store.latest(""), store.list(None, 1, None)));
    moves((store.files("", None), store.delete(""), store.keep_latest("", 1), store.close()));
    moves(Store::open(&Location::Postgres(String::new()), None));
}
