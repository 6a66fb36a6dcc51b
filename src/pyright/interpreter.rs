//! Stands in for the Python interpreter that Pyright asks for its search paths.
//!
//! Pyright learns where packages are by running an interpreter. None of a project's must ever run, so that Pyright is
//! given this very program as the interpreter, with the answers in its environment. A side effect: types do not depend
//! on which Python the server's machine happens to have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::workspace::environment::Environment;

/// The environment variable that makes this program answer as an interpreter; its value is what it answers.
pub const VARIABLE: &str = "PYRIGHTD_INTERPRETER_ANSWERS";

#[derive(Serialize, Deserialize)]
struct Answers {
    path: Vec<PathBuf>,
    prefix: PathBuf,
    version: Option<[u32; 3]>,
}

/// What an interpreter of this environment, with this standard library, would answer.
#[must_use]
pub fn answers(environment: &Environment, standard_library: PathBuf) -> String {
    let answers = Answers {
        path: std::iter::once(standard_library).chain(environment.packages.iter().cloned()).collect(),
        prefix: environment.prefix.clone().unwrap_or_default(),
        version: environment.version,
    };
    serde_json::to_string(&answers).unwrap_or_default()
}

/// What to print for a call with this code (`-c`), given the variable's value; none where there is no answer.
///
/// Pyright asks two things: `sys.path` with `sys.prefix`, and `sys.version_info`.
#[must_use]
pub fn answer(variable: &str, arguments: &[String]) -> Option<String> {
    let answers: Answers = serde_json::from_str(variable).ok()?;
    let code = arguments.iter().skip_while(|argument| *argument != "-c").nth(1)?;
    if code.contains("sys.version_info") {
        let [major, minor, micro] = answers.version?;
        serde_json::to_string(&(major, minor, micro, "final", 0)).ok()
    } else if code.contains("sys.prefix") {
        let prefix = answers.prefix.to_string_lossy().into_owned();
        let path = answers.path.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let reply: BTreeMap<&str, serde_json::Value> = [("path", path.into()), ("prefix", prefix.into())].into();
        serde_json::to_string(&reply).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_what_pyright_asks_and_nothing_else() {
        let environment = Environment {
            prefix: Some("/v".into()),
            packages: vec!["/v/lib".into()],
            version: Some([3, 12, 4]),
            standard_library: None,
        };
        let variable = answers(&environment, "/s".into());
        let ask = |variable: &str, code: &str| answer(variable, &["-I".into(), "-c".into(), code.into()]);
        let paths = "import sys, json; json.dump(dict(path=sys.path, prefix=sys.prefix), sys.stdout)";
        let version = "import sys, json; json.dump(tuple(sys.version_info), sys.stdout)";
        assert_eq!(ask(&variable, paths).unwrap(), r#"{"path":["/s","/v/lib"],"prefix":"/v"}"#);
        assert_eq!(ask(&variable, version).unwrap(), r#"[3,12,4,"final",0]"#);
        assert_eq!(ask(&variable, "print(1)"), None);
        assert_eq!(answer(&variable, &["script.py".into()]), None);
        assert_eq!(ask(&answers(&Environment::default(), "/s".into()), version), None, "Pyright's default");
        assert_eq!(ask("garbage", version), None);
    }
}
