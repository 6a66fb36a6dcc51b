//! The bridge: a JavaScript package that Node loads before Pyright, to answer a whole file in one call.
//!
//! It also makes a caller's settings win over those of the project's own configuration. What is asked over it, and
//! what is kept of the answers, is left to `batch`.

use std::sync::OnceLock;

use serde_json::json;

use super::process::Preload;
use crate::model::{Digest, ProjectSettings};

/// The package's files; `main.cjs` is the one to load.
const FILES: &[(&str, &str)] = &[
    ("main.cjs", include_str!("bridge/main.cjs")),
    ("answers.cjs", include_str!("bridge/answers.cjs")),
    ("bundle.cjs", include_str!("bridge/bundle.cjs")),
    ("check.cjs", include_str!("bridge/check.cjs")),
    ("imports.cjs", include_str!("bridge/imports.cjs")),
    ("layers.cjs", include_str!("bridge/layers.cjs")),
    ("requests.cjs", include_str!("bridge/requests.cjs")),
    ("settings.cjs", include_str!("bridge/settings.cjs")),
    ("slices.cjs", include_str!("bridge/slices.cjs")),
];
const VARIABLE: &str = "PYRIGHTD_BRIDGE";

/// The text on which the bridge tries itself, as a document that is never on disk.
pub const SAMPLE: &str = include_str!("bridge/sample.py");

/// Of the whole package: another one may tell otherwise.
#[must_use]
pub fn digest() -> &'static Digest {
    static DIGEST: OnceLock<Digest> = OnceLock::new();
    DIGEST.get_or_init(|| Digest::of(FILES.iter().map(|(_, text)| *text).collect::<String>().as_bytes()))
}

/// What Node has to load for these settings, and to answer requests of our own; none where it has to do neither. `has_venv`
/// where the configuration names a virtual environment.
#[must_use]
pub fn preload(settings: &ProjectSettings, has_venv: bool, requests: bool) -> Option<Preload> {
    let ProjectSettings { python_version, python_platform, venv, extra_paths, stub_path } = settings;
    let is_set = has_venv || *settings != ProjectSettings::default();
    if !is_set && !requests {
        return None;
    }
    let settings = is_set.then(|| {
        json!({
            "pythonVersion": python_version,
            "pythonPlatform": python_platform,
            // Its packages are what the interpreter answers; see `interpreter`.
            "hasVenv": has_venv || venv.is_some(),
            "extraPaths": extra_paths,
            "stubPath": stub_path,
        })
    });
    let wanted = json!({ "settings": settings, "requests": requests });
    Some(Preload { folder: "bridge", files: FILES, variable: (VARIABLE, wanted.to_string().into()) })
}
