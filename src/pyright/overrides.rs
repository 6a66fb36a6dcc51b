//! A caller's settings, where they have to win over those of the project's own configuration.

use serde_json::json;

use super::process::Preload;
use crate::model::ProjectSettings;

const VARIABLE: &str = "PYRIGHTD_OVERRIDES";

/// A script that makes Pyright heed these settings; none where it has to heed none.
#[must_use]
pub fn preload(settings: &ProjectSettings) -> Option<Preload> {
    let ProjectSettings { python_version, python_platform, venv, extra_paths, stub_path } = settings;
    if *settings == ProjectSettings::default() {
        return None;
    }
    let overrides = json!({
        "pythonVersion": python_version,
        "pythonPlatform": python_platform,
        // Its packages are what the interpreter answers; see `interpreter`.
        "hasVenv": venv.is_some(),
        "extraPaths": extra_paths,
        "stubPath": stub_path,
    });
    Some(Preload {
        name: "overrides.cjs",
        text: include_str!("overrides.cjs"),
        variable: (VARIABLE, overrides.to_string().into()),
    })
}
