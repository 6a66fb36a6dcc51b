//! The settings that Pyright takes on its command line alone: the Python version and platform.

use serde_json::json;

use super::process::Preload;
use crate::model::ProjectSettings;

const VARIABLE: &str = "PYRIGHTD_OVERRIDES";

/// A script that makes Pyright heed these settings; none where none of the two is set.
#[must_use]
pub fn preload(settings: &ProjectSettings) -> Option<Preload> {
    if settings.python_version.is_none() && settings.python_platform.is_none() {
        return None;
    }
    let overrides = json!({ "pythonVersion": settings.python_version, "pythonPlatform": settings.python_platform });
    Some(Preload {
        name: "overrides.cjs",
        text: include_str!("overrides.cjs"),
        variable: (VARIABLE, overrides.to_string().into()),
    })
}
