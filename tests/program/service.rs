//! The program under systemd: its notifications, its units, and the jobs of `scripts/contrib/`.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::home::{Home, PATIENCE, signal};
use crate::support::{Manners, Strange, Uplink, noise, weed};

fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/contrib").join(name)
}

/// systemd's end of the notification socket.
struct Manager(UnixDatagram);

impl Manager {
    fn new(home: &Home) -> Self {
        let socket = UnixDatagram::bind(home.path("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self(socket)
    }

    /// Waits for a message that contains this.
    fn hears(&self, what: &str) -> String {
        let begun = Instant::now();
        let mut heard = Vec::new();
        while begun.elapsed() < PATIENCE {
            let mut buffer = [0; 4096];
            let Ok(length) = self.0.recv(&mut buffer) else { continue };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(what) {
                return text;
            }
            heard.push(text);
        }
        panic!("no {what} in {heard:?}");
    }
}

#[test]
fn systemd_is_told_when_it_is_usable_that_it_lives_and_that_it_needs_more_time() {
    let weed = weed();
    let bucket = weed.bucket();
    let proxy = Strange::start(weed.port(), Manners::default());
    let home = Home::for_bucket(&bucket).with("S3VAULT_PASSPHRASE", "correct horse");
    let line = format!("init --bucket {} --endpoint-url {}", bucket.url(), proxy.endpoint());
    home.type_in(&line).exits(0);
    let manager = Manager::new(&home);
    let socket = home.path("notify").display().to_string();
    let home = home.with("NOTIFY_SOCKET", &socket).with("WATCHDOG_USEC", "900000");
    // The task that sends the notifications panics once, and is restarted.
    let home = home.with("S3VAULT_PANIC", "telling the service manager,1");
    let mut front = home.spawn("mount vault --foreground --stop-timeout 5m --log-format json");
    let said = manager.hears("READY=1");
    let vault = home.path("vault");
    assert!(said.contains(&format!("is mounted at {}", vault.display())), "{said}");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    proxy.change(|manners| manners.uplink = Some(Uplink::Shared(1 << 20)));
    fs::write(vault.join("large"), noise(7, 6 << 20)).unwrap();
    signal(front.id(), Signal::TERM);
    manager.hears("STOPPING=1");
    let said = manager.hears("EXTEND_TIMEOUT_USEC=60000000");
    assert!(said.contains("not in the bucket yet"), "{said}");
    assert!(front.wait().unwrap().success());

    // Every line of the log is JSON, apart from the planted panic's message.
    let state = fs::read_dir(home.state()).unwrap().flatten().next().unwrap().path();
    let log = fs::read_to_string(state.join("daemon.log")).unwrap();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "mounted"), "{log}");
    assert!(
        lines
            .iter()
            .any(|line| line["level"] == "ERROR" && line["task"] == "telling the service manager")
    );
}

#[test]
fn the_units_are_as_systemd_wants_them() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    let home = Home::new();
    for (name, scope) in [("systemd", "--system"), ("systemd/user", "--user")] {
        let text = fs::read_to_string(contrib(name).join("s3vault@.service")).unwrap();
        let here = text.replace("/usr/local/bin/s3vault", env!("CARGO_BIN_EXE_s3vault"));
        assert!(here != text);
        // Its command line parses, though there is nothing to mount yet.
        let start = text.replace("\\\n", " ");
        let start = start.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let start = start.replace("%i", "backup").replace("%h", "/home").replace("%E", "/config");
        let words: Vec<_> = start.split_whitespace().skip(1).collect();
        home.run([words, vec!["--help"]].concat()).exits(0).says("Usage: s3vault mount");
        let unit = home.path(format!("{}-s3vault@.service", &scope[2..]));
        let unit = unit.with_file_name("s3vault@.service");
        fs::write(&unit, here).unwrap();
        let mut command = Command::new("systemd-analyze");
        command
            .args([scope, "--man=no", "verify"])
            .arg(&unit)
            .env("XDG_RUNTIME_DIR", home.path(""));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{scope}: {said}");
    }
}

fn run(home: &Home, script: &Path, arguments: &[&Path], environment: &[(&str, &str)]) -> Output {
    let bin = Path::new(env!("CARGO_BIN_EXE_s3vault")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let ours = home.command(["status"]);
    let mut command = Command::new(script);
    command.args(arguments).stdin(Stdio::null()).current_dir(home.path(""));
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("PATH", path).envs(environment.iter().copied());
    command.output().unwrap()
}

#[test]
fn the_jobs_back_up_into_a_vault_and_do_nothing_without_one() {
    let home = Home::new();
    fs::create_dir_all(home.path("data/sub")).unwrap();
    fs::write(home.path("data/sub/file"), noise(3, 200_000)).unwrap();
    fs::write(home.path("password"), "of restic").unwrap();
    let password = home.path("password").display().to_string();
    let environment = [
        ("RESTIC_PASSWORD_FILE", &*password),
        ("RESTIC_CACHE_DIR", "cache"),
        ("BORG_BASE_DIR", "."),
    ];
    let (vault, data) = (home.path("vault"), home.path("data"));
    fs::create_dir(&vault).unwrap();
    let jobs: Vec<_> = ["restic", "borg", "rsync"]
        .into_iter()
        .filter(|tool| Command::new(tool).arg("--version").output().is_ok())
        .map(|tool| (tool, contrib(&format!("{tool}-job"))))
        .collect();
    for (tool, job) in &jobs {
        let output = run(&home, job, &[&vault, &data], &environment);
        assert!(!output.status.success(), "{tool}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("no vault is mounted"), "{tool}: {said}");
        assert_eq!(fs::read_dir(&vault).unwrap().count(), 0, "{tool} wrote below the mountpoint");
    }
    home.type_in("mount vault").exits(0);
    for (tool, job) in &jobs {
        // Twice: the second run finds what the first made.
        for round in 0..2 {
            let output = run(&home, job, &[&vault, &data], &environment);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{tool}, {round}: {said}");
        }
        assert_eq!(home.status(&vault)["unsent_changes"], 0, "{tool}");
    }
    if jobs.iter().any(|(tool, _)| *tool == "rsync") {
        let copy = vault.join("mirror").join(data.strip_prefix("/").unwrap()).join("sub/file");
        assert!(fs::read(&copy).unwrap() == noise(3, 200_000));
        home.type_in("snapshot list").exits(0).says("mirror-");
    }
    for (tool, arguments) in [("restic", "check"), ("borg", "check")] {
        if jobs.iter().any(|(job, _)| *job == tool) {
            let mut command = Command::new(tool);
            command.arg(arguments).current_dir(home.path("")).envs(environment);
            command
                .env("RESTIC_REPOSITORY", vault.join("restic"))
                .env("BORG_REPO", vault.join("borg"));
            command
                .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
                .env("HOME", home.path(""));
            let output = command.stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    home.type_in("umount vault").exits(0);
}
