//! A child process that never outlives the test, even if the test is killed: a shell waits for the end of a pipe that
//! the test holds, and then kills the child by its pid.

use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

/// A supervised process; killed when dropped.
pub struct Supervised {
    shell: Child,
}

impl Supervised {
    /// Starts a program. Its output goes to `log`.
    pub fn start<A: AsRef<OsStr>>(
        program: &std::path::Path,
        arguments: impl IntoIterator<Item = A>,
        log: std::fs::File,
    ) -> Self {
        let script = r#""$@" </dev/null & child=$!; read -r _; kill -9 "$child""#;
        let shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a file's descriptor"))
            .stderr(log)
            .spawn()
            .expect("sh starts");
        Self { shell }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
