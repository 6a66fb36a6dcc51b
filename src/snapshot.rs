//! Snapshots of a project's types: what is recorded of each file, and what differs between two.
//!
//! Pure data. Where they are kept is left to `store`, how they come about to `update`.

use serde::{Deserialize, Serialize};

use crate::model::{Details, Encoding, FileTypes, Selector};

/// What a snapshot records of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recorded {
    /// Its types.
    Types(FileTypes),
    /// Why it could not be exported.
    Failed(String),
}

/// How all of a snapshot's files were exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// Which names.
    pub selector: Selector,
    /// The unit of all columns.
    pub encoding: Encoding,
    /// What was returned beside the types.
    pub details: Details,
}

impl Recorded {
    /// As bytes to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// From the bytes that were stored; none where they are damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Form {
    /// As bytes to be stored.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        postcard::to_stdvec(&self).unwrap_or_default()
    }

    /// From the bytes that were stored; none where they are damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
