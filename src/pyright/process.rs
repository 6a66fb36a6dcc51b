//! One Pyright process: started in a group of its own, its standard error drained into the log, ended for good.
//!
//! What is said over its pipes is left to `session`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::install::Engine;
use super::interpreter;
use crate::workspace::environment::Environment;

/// The folder, below the temporary one, in which Pyright looks for cancellation files.
const CANCELLATION: &str = "python-languageserver-cancellation";
/// Its name there; each process has a temporary folder of its own, so that one name serves.
const CANCELLATION_NAME: &str = "pyrightd";
/// The longest line of standard error that is logged whole, in bytes.
const MAX_LINE: u64 = 2000;

/// Room for what lives as briefly as one file's evaluator; it saves a tenth of an export's time, see the README. Where
/// the heap is bounded, its bound counts.
const YOUNG_GENERATION: [&str; 2] = ["--min-semi-space-size=64", "--max-semi-space-size=128"];
/// Functions that are inferred within each other take more stack than Node's 984 KiB; systems grant 8 MiB.
const STACK: &str = "--stack-size=3900";

/// How long a process that has ended is waited for to be heard.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running process, not yet ended.
#[derive(Debug)]
pub struct Process {
    child: Box<dyn ChildWrapper>,
    id: u32,
    /// Ends with its standard error, and gives the last line of it.
    last_words: JoinHandle<String>,
    /// Its temporary files; removed with it.
    scratch: tempfile::TempDir,
}

/// How a process is to run.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What to run.
    pub engine: Engine,
    /// What its interpreter is to answer.
    pub environment: Environment,
    /// Upper bound of its heap, in MiB; none leaves it to Node.
    pub max_heap_mib: Option<u32>,
    /// What Node is to load first.
    pub preload: Option<Preload>,
}

/// A JavaScript package that Node loads before Pyright.
#[derive(Clone, Debug)]
pub struct Preload {
    /// Its folder's name.
    pub folder: &'static str,
    /// Its files' names and texts; the first is the one to load.
    pub files: &'static [(&'static str, &'static str)],
    /// The environment variable it reads, and the value.
    pub variable: (&'static str, OsString),
}

impl Process {
    /// Starts it. Its standard error goes to the log by a task on `tracker`.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn start(launch: &Launch, tracker: &TaskTracker) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let scratch = tempfile::Builder::new().prefix("pyrightd-engine-").tempdir()?;
        std::fs::create_dir_all(scratch.path().join(CANCELLATION).join(CANCELLATION_NAME))?;
        let standard_library = match &launch.environment.standard_library {
            Some(sources) => sources.clone(),
            None => blank_standard_library(&launch.engine, scratch.path())?,
        };
        let mut arguments: Vec<OsString> = Vec::new();
        match launch.max_heap_mib {
            Some(heap) => arguments.push(format!("--max-old-space-size={heap}").into()),
            None => arguments.extend(YOUNG_GENERATION.map(Into::into)),
        }
        arguments.push(STACK.into());
        if let Some(preload) = &launch.preload {
            let folder = scratch.path().join(preload.folder);
            std::fs::create_dir(&folder)?;
            for (name, text) in preload.files {
                std::fs::write(folder.join(name), text)?;
            }
            let (main, _) = preload.files[0];
            arguments.extend(["--require".into(), folder.join(main).into()]);
        }
        arguments.push(launch.engine.server.clone().into());
        arguments.push("--stdio".into());
        arguments.push(format!("--cancellationReceive=file:{CANCELLATION_NAME}").into());

        #[expect(clippy::disallowed_methods, reason = "this is the place where engines are started")]
        let mut command = Command::new(&launch.engine.node);
        command
            .args(arguments)
            // Nothing of the server's own environment reaches it, such as NODE_OPTIONS or PYTHONPATH.
            .env_clear()
            .env("TMPDIR", scratch.path())
            .env("HOME", scratch.path())
            .env(interpreter::VARIABLE, interpreter::answers(&launch.environment, standard_library))
            .envs(launch.preload.iter().map(|preload| (preload.variable.0, &preload.variable.1)))
            .current_dir(scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = CommandWrap::from(command).wrap(ProcessGroup::leader()).wrap(KillOnDrop).spawn()?;
        let id = child.id().unwrap_or_default();
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin().take(), child.stdout().take(), child.stderr().take())
        else {
            return Err(io::Error::other("the process has no pipes"));
        };
        let last_words = tracker.spawn(drain(stderr, id));
        Ok((Self { child, id, last_words, scratch }, stdin, stdout))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its temporary files; none of them is anything to tell of.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Where cancellation files for it are made.
    #[must_use]
    pub fn cancellation_folder(&self) -> PathBuf {
        self.scratch.path().join(CANCELLATION).join(CANCELLATION_NAME)
    }

    /// Waits for it to end by itself.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn wait(&mut self) {
        let _ = self.child.wait().await;
    }

    /// Ends it as [`Process::kill`] does, and gives the last line that it wrote to standard error.
    pub async fn last_words(mut self) -> Option<String> {
        self.end().await;
        let words = tokio::time::timeout(LAST_WORDS, self.last_words).await.ok()?.ok()?;
        (!words.is_empty()).then_some(words)
    }

    /// Ends it and all it started, and waits until it is gone.
    pub async fn kill(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, process = self.id, "the process was gone before it was killed");
        }
        self.wait().await;
    }
}

/// A process's resident memory in bytes; none where it can't be told.
#[must_use]
pub fn resident_bytes(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Makes a folder with an empty source for each of the engine's stubs of the standard library.
///
/// For a hover, Pyright looks for the source behind a stub, and where there is none it goes through all that the stub
/// imports, each time: without this, hovers take up to twenty times as long. Types come from the stubs in any case.
fn blank_standard_library(engine: &Engine, scratch: &Path) -> io::Result<PathBuf> {
    let blank = scratch.join("standard-library");
    let mut folders = vec![engine.standard_stubs()];
    while let Some(folder) = folders.pop() {
        let relative = folder.strip_prefix(engine.standard_stubs()).map_err(io::Error::other)?;
        let target = blank.join(relative);
        std::fs::create_dir_all(&target)?;
        // Another release may keep its stubs elsewhere; then there is nothing to be quick about.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let (Some(stem), Some("pyi")) = (path.file_stem(), path.extension().and_then(OsStr::to_str)) {
                std::fs::File::create(target.join(stem).with_extension("py"))?;
            }
        }
    }
    Ok(blank)
}

/// Reads to the end whatever comes, since a pipe that is full stops the process, and one that is closed can end it.
async fn drain(stderr: impl AsyncRead + Unpin, process: u32) -> String {
    let mut stderr = BufReader::new(stderr);
    let (mut line, mut last) = (Vec::new(), String::new());
    // A line that is too long comes in pieces.
    while let Ok(1..) = (&mut stderr).take(MAX_LINE).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::warn!(process, "engine: {text}");
        if !text.is_empty() {
            last = text;
        }
        line.clear();
    }
    last
}
