//! What can go wrong with the store, sorted by what its user can do about it.
//!
//! Which status a caller gets is left to the faces.

use super::Key;

/// Why something could not be kept or read. No message holds a password.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is lost, unreachable or overloaded; later calls connect again by themselves.
    #[error("the store can't be reached: {0}; try again, and see that its database runs and lets pyrightd in")]
    Unavailable(String),
    /// There is no space. What was saved before is kept.
    #[error("the store's disk is full: {0}; nothing that was saved is lost: free some space, or delete snapshots")]
    Full(String),
    /// The schema is one that this version does not know.
    #[error(
        "the store has schema {0}, which this version of pyrightd does not know: run the newer version, or name another \
         store"
    )]
    Newer(i64),
    /// What is stored is not what was written.
    #[error("the store is damaged: {0}; restore it from a copy, or remove it and export anew")]
    Corrupt(String),
    /// The base is no longer the project's latest snapshot.
    #[error("the project's latest snapshot is {} by now: begin from that one", .latest.as_deref().unwrap_or("none"))]
    Conflict {
        /// The one that is.
        latest: Option<String>,
    },
    /// A snapshot's contents are neither given nor kept, since they were removed to keep the store small.
    #[error("the contents of {} files are no longer kept: export them again", .0.len())]
    Missing(Vec<Key>),
    /// There is no such snapshot.
    #[error("there is no snapshot {0}: it never was, or it was deleted")]
    NotFound(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        match error {
            Error::Database(error) => match error.code() {
                Some(code) if code.len() == 5 => of_postgres(&code, error.message()),
                Some(code) => of_sqlite(code.parse().unwrap_or(0), error.message()),
                None => Self::Unavailable(error.message().to_owned()),
            },
            // Its text could quote the URL.
            Error::Configuration(_) => Self::Invalid("the store's URL can't be understood".into()),
            Error::PoolTimedOut => Self::Unavailable("no connection in good time".into()),
            Error::RowNotFound | Error::ColumnNotFound(_) | Error::ColumnDecode { .. } | Error::Decode(_) => {
                Self::Corrupt(error.to_string())
            }
            Error::Migrate(error) => (*error).into(),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError;
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            // One that this version knows by another text was changed after this version was built.
            MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => Self::Newer(version),
            error => Self::Corrupt(error.to_string()),
        }
    }
}

/// By the class of its `SQLSTATE`.
fn of_postgres(code: &str, message: &str) -> StoreError {
    match code {
        "53100" => StoreError::Full(message.to_owned()),
        _ if code.starts_with("XX") || code.starts_with("42") => StoreError::Corrupt(message.to_owned()),
        // Data that it can't hold, such as a zero in a text, or a path too long for an index.
        _ if code.starts_with("22") || code.starts_with("54") => StoreError::Invalid(message.to_owned()),
        _ => StoreError::Unavailable(message.to_owned()),
    }
}

fn of_sqlite(code: i32, message: &str) -> StoreError {
    const IOERR_WRITE: i32 = 778;
    match (code & 0xff, code) {
        // A write that fails for a quota's or a limit's sake is told as the second.
        (13, _) | (_, IOERR_WRITE) => StoreError::Full(message.to_owned()),
        (1 | 11 | 26, _) => StoreError::Corrupt(message.to_owned()),
        (18, _) => StoreError::Invalid(message.to_owned()),
        _ => StoreError::Unavailable(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_says_what_can_be_done() {
        let name = |error: StoreError| format!("{error:?}").split('(').next().unwrap().to_owned();
        // A full disk, one that a limit makes full, another writer, a broken disk, a damaged file, one that is none.
        for (code, meaning) in [
            (13, "Full"),
            (778, "Full"),
            (5, "Unavailable"),
            (261, "Unavailable"),
            (266, "Unavailable"),
            (11, "Corrupt"),
            (267, "Corrupt"),
            (26, "Corrupt"),
        ] {
            assert_eq!(name(of_sqlite(code, "")), meaning, "{code}");
        }
        // A full disk, no more connections, a shutdown, a statement's and a lock's deadline, a password, damage, a
        // zero in a text.
        for (code, meaning) in [
            ("53100", "Full"),
            ("53300", "Unavailable"),
            ("57P01", "Unavailable"),
            ("57014", "Unavailable"),
            ("55P03", "Unavailable"),
            ("28P01", "Unavailable"),
            ("XX001", "Corrupt"),
            ("22021", "Invalid"),
        ] {
            assert_eq!(name(of_postgres(code, "")), meaning, "{code}");
        }
    }
}
