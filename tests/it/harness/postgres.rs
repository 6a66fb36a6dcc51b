//! A real PostgreSQL, from PyPI by its hash, on a socket of its own; gone with the process that started it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AnyConnection, Connection as _, Executor as _};

use super::repository;

/// A running PostgreSQL.
pub struct Postgres {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    folder: String,
}

impl Postgres {
    /// One of its own.
    pub fn start() -> Self {
        let installed = Command::new(repository().join("tests/postgres/install")).status().unwrap();
        assert!(installed.success(), "PostgreSQL could not be installed from PyPI");
        let mut command = Command::new(repository().join("tests/postgres/serve"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut postgres = Self { child, input, output, folder: String::new() };
        postgres.folder = postgres.line();
        postgres
    }

    /// Where a new, empty database of one that all tests share is.
    pub async fn database() -> String {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        tokio::task::spawn_blocking(|| SHARED.get_or_init(Self::start)).await.unwrap().new_database().await
    }

    /// Where a new, empty database is.
    pub async fn new_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&self.url("postgres")).await.unwrap();
        // Otherwise it copies by a checkpoint, which waits for all others.
        connection.execute(&*format!("CREATE DATABASE {name} STRATEGY wal_log")).await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://tests:tests@localhost/{database}?host={}", self.folder)
    }

    /// Ends it at once, as a crash does.
    pub fn stop(&mut self) {
        self.tell("stop");
    }

    /// Runs it again.
    pub fn resume(&mut self) {
        self.tell("start");
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        assert_eq!(self.line(), "done");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "PostgreSQL does not run");
        line.trim_end().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
