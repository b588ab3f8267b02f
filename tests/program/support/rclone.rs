//! `rclone serve s3`: a server that ignores the condition of a conditional put.

use std::fs::File;

use super::bucket::{ACCESS_KEY, SECRET_KEY, TestBucket};
use super::supervised::Supervised;
use super::tools::{free_ports, listens, tool, wait_for};

/// A server for one test; it ends when dropped.
pub struct Rclone {
    port: u16,
    _process: Supervised,
    _directory: tempfile::TempDir,
}

impl Rclone {
    /// Starts one.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = File::create(directory.path().join("log")).expect("a log");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("a directory");
        let port = free_ports(&[0]);
        let arguments = [
            "serve".to_owned(),
            "s3".to_owned(),
            "--config=/dev/null".to_owned(),
            format!("--addr=127.0.0.1:{port}"),
            format!("--auth-key={ACCESS_KEY},{SECRET_KEY}"),
            data.display().to_string(),
        ];
        let process =
            Supervised::start(&tool("S3VAULT_TEST_RCLONE", "rclone-1.75.2"), arguments, log);
        wait_for("rclone listens", 20, || listens(port));
        Self { port, _process: process, _directory: directory }
    }

    /// A bucket on it.
    pub fn bucket(&self) -> TestBucket {
        TestBucket::new(&format!("http://127.0.0.1:{}", self.port))
    }
}
