//! The connections, and all in which SQLite and PostgreSQL differ.
//!
//! Statements that both understand are left to `contents`, `snapshots` and `bound`.

use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use sqlx::any::{AnyArguments, AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _};

use super::StoreError;

/// For a connection; a database that can't be reached is told after it.
const CONNECT: Duration = Duration::from_secs(5);
/// For one call, all its statements and waits included.
const CALL: Duration = Duration::from_secs(30);
/// For another writer to end, which a call may wait for.
const WRITER: Duration = Duration::from_secs(20);
/// Connections at most.
const CONNECTIONS: u32 = 8;
/// The WAL is cut to this size once it is written back.
const WAL_BYTES: u32 = 4 << 20;
/// What a blob, a content and a snapshot's file take beside a blob's bytes in PostgreSQL, in rows and indexes.
const POSTGRES_OVERHEAD: (u32, u32, u32) = (200, 200, 110);

/// Where things are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder with an SQLite database in it, on a file system of this machine; it is made where it is missing.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by a URL that may hold a password.
    Postgres(String),
}

impl std::fmt::Debug for Location {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(folder) => formatter.debug_tuple("Sqlite").field(folder).finish(),
            Self::Postgres(_) => formatter.write_str("Postgres(..)"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Sqlite,
    Postgres,
}

/// Connections to a database with the newest schema.
#[derive(Debug)]
pub(super) struct Database {
    kind: Kind,
    pool: AnyPool,
}

impl Database {
    pub(super) async fn open(location: &Location) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (kind, url, _lock) = match location {
            Location::Sqlite(folder) => {
                let (url, lock) = prepare_folder(folder.clone()).await?;
                (Kind::Sqlite, url, Some(lock))
            }
            Location::Postgres(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                (Kind::Postgres, url.clone(), None)
            }
            Location::Postgres(_) => {
                return Err(StoreError::Invalid("a PostgreSQL store's URL begins with postgres://".into()));
            }
        };
        let options = AnyConnectOptions::from_str(&url)?.disable_statement_logging();
        // Not one of the pool's, which tries again where a connection can't be set up, and doesn't tell why.
        in_time(async {
            let connection = tokio::time::timeout(CONNECT, AnyConnection::connect_with(&options)).await;
            let mut connection = connection.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            connection.execute(sqlx::raw_sql(&kind.setup())).await?;
            kind.migrations().run_direct(&mut connection).await?;
            Ok(connection.close().await?)
        })
        .await?;
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .after_connect(move |connection, _| {
                Box::pin(async move { connection.execute(sqlx::raw_sql(&kind.setup())).await.map(|_| ()) })
            })
            .connect_lazy_with(options);
        Ok(Self { kind, pool })
    }

    /// A connection for reading.
    pub(super) async fn acquire(&self) -> Result<Held, StoreError> {
        Ok(Held(Some(self.pool.acquire().await?)))
    }

    /// A transaction for writing; there is one at a time.
    pub(super) async fn begin(&self) -> Result<Held, StoreError> {
        let mut held = self.acquire().await?;
        held.on().execute(sqlx::raw_sql(self.kind.begin())).await?;
        Ok(held)
    }

    /// Bytes in use, inside a transaction.
    pub(super) async fn used(&self, held: &mut Held) -> Result<u64, StoreError> {
        let used: i64 = sqlx::query_scalar(&self.kind.used()).fetch_one(held.on()).await?;
        Ok(u64::try_from(used).unwrap_or(0))
    }

    /// Gives the file system what was freed.
    pub(super) async fn shrink(&self) -> Result<(), StoreError> {
        if let Some(statements) = self.kind.shrink() {
            let mut held = self.acquire().await?;
            held.on().fetch_all(sqlx::raw_sql(statements)).await?;
            held.release();
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(CONNECT, self.pool.close()).await;
    }
}

/// A connection in the midst of a call. Dropped before its end, by an error, a deadline or a caller who left, it is
/// closed, which undoes its transaction, and which needs no answer from a database that may be lost.
pub(super) struct Held(Option<PoolConnection<Any>>);

impl Held {
    pub(super) fn on(&mut self) -> &mut AnyConnection {
        self.0.as_deref_mut().expect("it is there until it is released")
    }

    /// Gives it back for others.
    pub(super) fn release(mut self) {
        drop(self.0.take());
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.on().execute(sqlx::raw_sql("COMMIT")).await?;
        self.release();
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl Kind {
    /// What each new connection is told first.
    fn setup(self) -> String {
        match self {
            // The first takes effect only before anything is written.
            Self::Sqlite => format!(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; \
                 PRAGMA journal_size_limit = {WAL_BYTES}; PRAGMA foreign_keys = ON",
                WRITER.as_millis()
            ),
            Self::Postgres => {
                format!("SET statement_timeout = {}; SET lock_timeout = {}", CALL.as_millis(), WRITER.as_millis())
            }
        }
    }

    fn begin(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            // With one writer at a time, as with SQLite, nothing is removed that another is about to refer to.
            Self::Postgres => "BEGIN; SELECT pg_advisory_xact_lock(8097864533241)",
        }
    }

    fn used(self) -> Cow<'static, str> {
        match self {
            Self::Sqlite => "SELECT (page_count - freelist_count) * page_size \
                 FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
                .into(),
            // The files' own sizes tell of a removal only after PostgreSQL's own cleaning.
            Self::Postgres => {
                let (blob, content, file) = POSTGRES_OVERHEAD;
                format!(
                    "SELECT CAST((SELECT COALESCE(SUM(size + {blob}), 0) FROM blobs) \
                     + (SELECT COUNT(*) * {content} FROM contents) \
                     + (SELECT COALESCE(SUM(files * {file} + length(details)), 0) FROM snapshots) AS BIGINT)"
                )
                .into()
            }
        }
    }

    fn shrink(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => Some("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(PASSIVE)"),
            Self::Postgres => None,
        }
    }

    fn migrations(self) -> Migrator {
        let scripts = match self {
            Self::Sqlite => [
                (1, include_str!("migrations/sqlite/0001_snapshots.sql")),
                (2, include_str!("migrations/sqlite/0002_blobs.sql")),
            ],
            Self::Postgres => [
                (1, include_str!("migrations/postgres/0001_snapshots.sql")),
                (2, include_str!("migrations/postgres/0002_blobs.sql")),
            ],
        };
        let migration = |(version, script): (i64, &'static str)| {
            Migration::new(version, "".into(), MigrationType::Simple, script.into(), false)
        };
        Migrator { migrations: scripts.into_iter().map(migration).collect(), ..Migrator::DEFAULT }
    }
}

/// Makes the folder, and holds the only place in it for an opening: SQLite's change to a WAL and its migrations can't
/// be made by two at once. The lock ends with its file, or with the process.
async fn prepare_folder(folder: PathBuf) -> Result<(String, File), StoreError> {
    let prepared = tokio::task::spawn_blocking(move || {
        let failed = |error: &std::io::Error| {
            let text = format!("{}: {error}", folder.display());
            match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full(text),
                _ => StoreError::Unavailable(text),
            }
        };
        std::fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let folder = std::path::absolute(&folder).map_err(|error| failed(&error))?;
        let lock = lock(&folder.join("store.lock")).map_err(|error| failed(&error))?;
        let url = url::Url::from_file_path(folder.join("store.db")).ok();
        // Percent signs and the like are escaped by then, but what is no UTF-8 would not come through.
        let url = url.filter(|_| folder.to_str().is_some());
        let url = url.ok_or_else(|| StoreError::Invalid(format!("{} is no folder for a store", folder.display())))?;
        Ok((format!("sqlite://{}?mode=rwc", url.path()), lock))
    });
    prepared.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
}

fn lock(path: &Path) -> std::io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let end = Instant::now() + CALL;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A call never takes longer than its deadline.
pub(super) async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::Unavailable(format!("no answer within {} seconds", CALL.as_secs())));
    tokio::time::timeout(CALL, call).await.unwrap_or_else(late)
}

/// Such as `($3,$4),($5,$6)`; both databases number their parameters so.
pub(super) fn rows(first: usize, rows: usize, width: usize) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for row in 0..rows {
        let at = first + row * width;
        let _ = write!(text, "{}(${at}", if row == 0 { "" } else { "," });
        for column in 1..width {
            let _ = write!(text, ",${}", at + column);
        }
        text.push(')');
    }
    text
}

/// Such as `($3,$4,$5)`.
pub(super) fn list(first: usize, count: usize) -> String {
    rows(first, 1, count)
}

/// A statement that is not kept prepared, since its number of parameters differs from call to call.
pub(super) fn once(sql: &str) -> Query<'_, Any, AnyArguments<'_>> {
    sqlx::query(sql).persistent(false)
}
