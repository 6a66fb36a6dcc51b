//! A real server on a free port, real projects, and real packages from PyPI.

pub mod fault;
pub mod postgres;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use pyrightd::proto::export_service_client::ExportServiceClient;
use pyrightd::proto::project_service_client::ProjectServiceClient;
use pyrightd::proto::{
    CloseProjectRequest, ExportFilesRequest, ExportLocationsRequest, ExportOptions, FileExport, FileLocations,
    InferredType, ListProjectsRequest, OpenProjectRequest, Position, Project as Listed, ProjectSettings, Selector,
    export_files_response,
};
use tonic::Status;
use tonic::transport::Channel;

/// Whether servers answer whole files in one call; `PYRIGHTD_ENGINE_MODE=hover` has all tests run without.
pub fn is_batch() -> bool {
    #[expect(clippy::disallowed_methods, reason = "servers take it from the environment too")]
    std::env::var_os("PYRIGHTD_ENGINE_MODE").is_none_or(|mode| mode != "hover")
}

/// Longer than anything here takes; what is waited for is a condition, and this only ends a wait that failed.
pub const LONG: Duration = Duration::from_secs(120);

/// The folder of a package from PyPI, as installed by its hash.
pub fn package(name: &str) -> PathBuf {
    let installed = Command::new(repository().join("tests/packages/install")).arg(name).status().unwrap();
    assert!(installed.success(), "{name} could not be installed from PyPI");
    repository().join("target/packages").join(name).canonicalize().unwrap()
}

/// This checkout.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the pinned engine is installed, once for all tests.
pub fn engine_cache() -> PathBuf {
    repository().join("target/engine")
}

/// A project of one's own, removed with this value.
pub struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// With these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        for (name, text) in files {
            project.write(name, text);
        }
        project
    }

    /// Its canonical root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// Writes one of its files.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// A running `pyrightd serve`, stopped with this value.
pub struct Server {
    child: Child,
    /// Such as `127.0.0.1:40123`.
    pub address: String,
    log: Arc<Log>,
    /// Its temporary files, and those of engines that were killed.
    _scratch: tempfile::TempDir,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<serde_json::Value>>,
    grown: Condvar,
}

impl Server {
    /// With these allowed roots.
    pub fn start(roots: &[&Path]) -> Self {
        Self::start_with(roots, &[])
    }

    /// With more flags.
    pub fn start_with(roots: &[&Path], flags: &[&str]) -> Self {
        Self::from_command(Self::command(roots, flags))
    }

    /// What [`Server::start_with`] runs.
    pub fn command(roots: &[&Path], flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyrightd"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--cache-dir"]);
        command.arg(engine_cache()).args(flags);
        for root in roots {
            command.arg("--allow-root").arg(root);
        }
        command
    }

    /// By a command that logs JSON to its standard error.
    pub fn from_command(mut command: Command) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        // What a test leaves under way at its end need not be waited for.
        let state = scratch.path().join("state");
        let defaults =
            [("TMPDIR", scratch.path()), ("PYRIGHTD_STATE_DIR", &state), ("PYRIGHTD_GRACE_PERIOD", Path::new("2s"))];
        for (name, value) in defaults {
            if command.get_envs().all(|(set, _)| set != name) {
                command.env(name, value);
            }
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Log>::default();
        let (stderr, writer) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(serde_json::Value::String(line));
                writer.lines.lock().unwrap().push(line);
                writer.grown.notify_all();
            }
        });
        let mut server = Self { child, address: String::new(), log, _scratch: scratch };
        let listening = server.wait_for_log(|line| line["message"] == "listening");
        server.address = listening["address"].as_str().unwrap().to_owned();
        server
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends it a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Every line of the log so far; a line that is no JSON is a string.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.log.lines.lock().unwrap().clone()
    }

    /// The first line of the log like this, waited for.
    pub fn wait_for_log(&self, like: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let end = Instant::now() + LONG;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| like(line)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no such line in the log: {lines:#?}");
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// A connection to it.
    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// A client for exports that takes answers of any size.
    pub async fn export(&self) -> ExportServiceClient<Channel> {
        ExportServiceClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    /// A client for projects.
    pub async fn projects(&self) -> ProjectServiceClient<Channel> {
        ProjectServiceClient::new(self.channel().await)
    }

    /// What is known of a project; none where it is not open.
    pub async fn listed(&self, root: &Path) -> Option<Listed> {
        self.list().await.into_iter().find(|project| project.project_root == text(root))
    }

    /// What is known of a project once it is like this.
    pub async fn listed_like(&self, root: &Path, like: impl Fn(&Listed) -> bool) -> Listed {
        eventually("the project's state", async || self.listed(root).await.filter(&like)).await
    }

    /// The types of one file.
    pub async fn file(&self, root: &Path, file: FileLocations) -> Result<FileExport, Status> {
        self.file_with(root, file, ExportOptions::default()).await
    }

    /// The types of one file, told as these options say.
    pub async fn file_with(
        &self,
        root: &Path,
        file: FileLocations,
        options: ExportOptions,
    ) -> Result<FileExport, Status> {
        let request = ExportLocationsRequest { project_root: text(root), file: Some(file), options: Some(options) };
        Ok(self.export().await.export_locations(request).await?.into_inner().file.unwrap())
    }

    /// Opens a project.
    pub async fn open(&self, root: &Path, settings: ProjectSettings) -> Result<Listed, Status> {
        let request = OpenProjectRequest { project_root: text(root), settings: Some(settings) };
        Ok(self.projects().await.open_project(request).await?.into_inner().project.unwrap())
    }

    /// Closes a project.
    pub async fn close(&self, root: &Path) -> Result<(), Status> {
        self.projects().await.close_project(CloseProjectRequest { project_root: text(root) }).await.map(|_| ())
    }

    /// The projects that are open.
    pub async fn list(&self) -> Vec<Listed> {
        self.projects().await.list_projects(ListProjectsRequest {}).await.unwrap().into_inner().projects
    }

    /// All messages of a stream of files, or the status it ended with.
    pub async fn files(&self, request: ExportFilesRequest) -> Result<Vec<export_files_response::Result>, Status> {
        let mut stream = self.export().await.export_files(request).await?.into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await? {
            messages.push(message.result.unwrap());
        }
        Ok(messages)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end, it takes its engines along.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
        }
        let end = Instant::now() + LONG;
        while Instant::now() < end {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a question comes to once it has an answer, asked again and again.
pub async fn eventually<T>(what: &str, question: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends a process a signal such as `KILL`.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success(), "{pid} was gone before it got SIG{name}");
}

/// Returns once a process runs no more, though its parent may not have heard of it yet.
pub async fn gone(pid: u32) {
    eventually(&format!("the end of {pid}"), async || (!is_running(pid)).then_some(())).await;
}

/// A path as a string.
pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A file and places in it.
pub fn at(path: &str, places: &[(u32, u32)]) -> FileLocations {
    let locations = places.iter().map(|&(line, character)| Position { line, character }).collect();
    FileLocations { path: path.into(), locations, ..FileLocations::default() }
}

/// A file and the places where these things stand first in its text; columns count UTF-16 units.
pub fn first(path: &str, source: &str, things: &[&str]) -> FileLocations {
    at(path, &things.iter().map(|thing| place_of(source, thing)).collect::<Vec<_>>())
}

/// Line and UTF-16 column at which something stands first in a text.
pub fn place_of(source: &str, thing: &str) -> (u32, u32) {
    let before = &source[..source.find(thing).unwrap_or_else(|| panic!("no {thing} in {source}"))];
    let line = before.rsplit('\n').next().unwrap();
    (before.matches('\n').count() as u32, line.encode_utf16().count() as u32)
}

/// A file and a selector.
pub fn select(path: &str, selector: Selector) -> FileLocations {
    FileLocations { path: path.into(), selector: selector.into(), ..FileLocations::default() }
}

/// The type of the first thing of this name.
pub fn type_of<'a>(file: &'a FileExport, name: &str) -> &'a str {
    &named(file, name).r#type
}

/// The first thing of this name.
pub fn named<'a>(file: &'a FileExport, name: &str) -> &'a InferredType {
    file.types.iter().find(|inferred| inferred.name == name).unwrap_or_else(|| panic!("no {name} in {file:#?}"))
}

/// Whether a process is there.
pub fn is_running(pid: u32) -> bool {
    // One that has ended and was not waited for yet counts as gone.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}
