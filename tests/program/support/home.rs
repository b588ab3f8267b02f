//! A user on a machine of their own: a home directory, a machine id, and the program as they would run it. Leaves no
//! mount and no process behind, even if the test fails.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::Signal;

use super::TestBucket;

/// How long anything may take before the test fails: many times what it needs, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The home directory of a user. Another one stands for another user on another machine.
pub struct Home {
    root: tempfile::TempDir,
    machine: String,
    variables: Vec<(String, String)>,
}

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

impl Done {
    /// Checks the exit code. An error must be one clear line.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.out, self.err);
        if code != 0 {
            let complaints = self.err.lines().filter(|line| line.starts_with("s3vault: ")).count();
            assert!(code == 2 || complaints == 1, "not one line:\n{}", self.err);
        }
        self
    }

    /// Checks that either output contains a text.
    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(
            self.out.contains(what) || self.err.contains(what),
            "no {what:?} in:\n{}{}",
            self.out,
            self.err
        );
        self
    }
}

impl Home {
    /// A new user on a new machine.
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("s3vault-home-").tempdir().expect("a directory");
        let machine = root.path().display().to_string();
        Self { root, machine, variables: Vec::new() }
    }

    /// A new user on a new machine who has the credentials of this bucket.
    pub fn for_bucket(bucket: &TestBucket) -> Self {
        let with = |home: Self, (name, value): (&str, String)| home.with(name, &value);
        bucket.environment().into_iter().fold(Self::new(), with)
    }

    /// Sets a variable in the environment of every command.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// A path below the home directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    /// The configuration's directory.
    pub fn config(&self) -> PathBuf {
        self.path(".config/s3vault")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.path(".local/state/s3vault")
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path(".local/share/s3vault")
    }

    /// A command for this user, without a terminal.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_s3vault"));
        command.args(arguments).current_dir(self.root.path());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let network = name.to_ascii_lowercase().ends_with("_proxy");
            let ours = ["S3VAULT_", "AWS_", "XDG_"].iter().any(|prefix| name.starts_with(prefix));
            if ours || network {
                command.env_remove(&*name);
            }
        }
        command.env("HOME", self.root.path()).env("S3VAULT_MACHINE_ID", &self.machine);
        // The output of these tests is discarded, and the key with it.
        command.env("S3VAULT_RECOVERY_FILE", "-");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Done {
        self.command(arguments).output().expect("the program runs").into()
    }

    /// Runs a line as typed; words are separated by spaces.
    pub fn type_in(&self, line: &str) -> Done {
        self.run(line.split_whitespace())
    }

    /// Starts the program, and leaves it running.
    pub fn spawn(&self, line: &str) -> Child {
        let mut command = self.command(line.split_whitespace());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
    }

    /// The output of `status --json` for the mount at `path`.
    pub fn status(&self, path: &Path) -> serde_json::Value {
        self.told(&[OsStr::new("status"), OsStr::new("--json"), path.as_os_str()])
    }

    /// The output of `status --json` for the only daemon that runs.
    pub fn only_status(&self) -> serde_json::Value {
        self.told(&[OsStr::new("status"), OsStr::new("--json")])
    }

    /// Repeats the command until the daemon answers: on a busy machine it may be silent for a while.
    fn told(&self, command: &[&OsStr]) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let done = self.run(command).exits(0);
            let value: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
            if value["mounts"][0]["state"] != "silent" || begun.elapsed() > PATIENCE {
                return value["mounts"][0].clone();
            }
        }
    }

    /// The daemon of the mount at `path`.
    pub fn daemon(&self, path: &Path) -> u32 {
        let pid = self.status(path)["pid"].as_u64().expect("a pid");
        u32::try_from(pid).expect("a pid")
    }

    /// The daemons of this home. Their command line names their mountpoint, which is below it.
    pub fn daemons(&self) -> Vec<u32> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let ours = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            matches!(words[..], [b"s3vault", b"daemon", mountpoint, ..]
                if mountpoint.starts_with(self.root.path().as_os_str().as_bytes()))
        };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(ours)
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for path in mounts_below(self.root.path()) {
            detach(&path);
        }
        let begun = Instant::now();
        loop {
            let daemons = self.daemons();
            if daemons.is_empty() || begun.elapsed() > PATIENCE {
                break;
            }
            for pid in daemons {
                signal(pid, Signal::KILL); // it was just seen to be ours
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for path in mounts_below(self.root.path()) {
            detach(&path);
        }
    }
}

/// What is mounted below a directory, innermost first.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let all = s3vault::testing::os::mounts().unwrap_or_default();
    let paths = all.into_iter().map(|mount| mount.path);
    let mut below: Vec<PathBuf> = paths.filter(|path| path.starts_with(directory)).collect();
    below.reverse();
    below
}

/// Unmounts lazily, as another user of the machine would.
pub fn detach(path: &Path) {
    if rustix::mount::unmount(path, UnmountFlags::DETACH).is_err() {
        let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(path).status();
    }
}

/// Sends a signal to a process of the test.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    let _ = rustix::process::kill_process(pid, signal); // it may be gone
}

/// Whether a process runs. A zombie does not, once the last of its threads has closed its files.
pub fn runs(pid: u32) -> bool {
    s3vault::testing::os::started(pid).is_some()
}

/// Waits until something holds, or fails the test.
#[track_caller]
pub fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
