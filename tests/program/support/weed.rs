//! SeaweedFS: one server for all tests that run at the same time, in any number of processes.
//!
//! The first test that needs it starts it. Each process holds a shared lock on the file `users` while it lives. A shell
//! beside the server tries to get the exclusive lock every second. When it has succeeded ten times in a row, nobody is
//! left: it kills the server by its pid and deletes its files. So the server ends after the tests, however they end.
//! Files: `target/tmp/weed-VERSION/`.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::bucket::{ACCESS_KEY, SECRET_KEY, TestBucket, block_on, create_bucket, test_client};
use super::tools::{free_ports, listens, tool, wait_for};

/// The shared server.
pub struct Weed {
    port: u16,
    _user: File,
}

/// The shared server, started if need be.
pub fn weed() -> &'static Weed {
    static WEED: OnceLock<Weed> = OnceLock::new();
    WEED.get_or_init(join_or_start)
}

impl Weed {
    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port on the loopback interface.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new bucket for one test, already used once; deleted when dropped.
    pub fn bucket(&self) -> TestBucket {
        TestBucket::new(&self.endpoint())
    }
}

fn join_or_start() -> Weed {
    let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("weed-4.48");
    fs::create_dir_all(&home).expect("target/tmp can be written");
    let open = |name: &str| {
        let path = home.join(name);
        File::options().create(true).append(true).open(path).expect("target/tmp can be written")
    };
    let user = open("users");
    user.lock_shared().expect("flock works");
    let starting = open("starting");
    starting.lock().expect("flock works");
    let port = running(&home).unwrap_or_else(|| start(&home));
    Weed { port, _user: user }
}

/// The port of the server, if it runs already.
fn running(home: &Path) -> Option<u16> {
    let state = fs::read_to_string(home.join("state")).ok()?;
    let (port, pid) = state.trim().split_once(' ')?;
    let port = port.parse().ok()?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    (command.contains("weed-4.48") && listens(port)).then_some(port)
}

/// Runs the server in a process group of its own, so that interrupting one test run does not interrupt it.
const SHELL: &str = r#"
exec 9>"$1/users"
setpriv --pdeathsig KILL "$2" server $3 </dev/null >"$1/log" 2>&1 9>&- &
weed=$!
echo "$weed" >"$1/pid.new" && mv "$1/pid.new" "$1/pid"
idle=0
while kill -0 "$weed" 2>/dev/null; do
  sleep 1
  if flock -n -x 9; then
    idle=$((idle + 1))
    # Keep the lock at the end: whoever comes now waits, and then starts another server.
    [ "$idle" -ge 10 ] && break
    flock -u 9
  else
    idle=0
  fi
done
kill -9 "$weed" 2>/dev/null
rm -rf "$1/data" "$1/state" "$1/pid"
"#;

/// Starts the server, and returns its port.
fn start(home: &Path) -> u16 {
    for name in ["data", "state", "pid"] {
        let path = home.join(name);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    let data = home.join("data");
    fs::create_dir_all(&data).expect("target/tmp can be written");
    let identities = format!(
        r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],
        "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
    );
    let config = home.join("s3.json");
    fs::write(&config, identities).expect("target/tmp can be written");
    let port = free_ports(&[0, 1, 2, 3, 10, 11, 12, 13]);
    let arguments = arguments(&data, &config, port);
    Command::new("sh")
        .args(["-c", SHELL, "weed-supervisor"])
        .arg(home)
        .arg(tool("S3VAULT_TEST_WEED", "weed-4.48"))
        .arg(arguments)
        // Each bucket has volumes of its own; the default of seven per bucket would be too many here.
        .env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "2")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh starts");
    let log = home.join("log");
    wait_for(&format!("SeaweedFS listens (see {})", log.display()), 180, || listens(port));
    let pid = fs::read_to_string(home.join("pid")).expect("the supervisor wrote it");
    let endpoint = format!("http://127.0.0.1:{port}");
    // It listens before it is usable.
    wait_for(&format!("SeaweedFS makes a bucket (see {})", log.display()), 180, || {
        block_on(create_bucket(&test_client(&endpoint), "warm-up")).is_ok()
    });
    let pid: u32 = pid.trim().parse().expect("a pid");
    fs::write(home.join("state"), format!("{port} {pid}\n")).expect("target/tmp can be written");
    port
}

fn arguments(data: &Path, config: &Path, port: u16) -> String {
    let (data, config) = (data.display(), config.display());
    assert!(!format!("{data}{config}").contains(' '), "the shell splits at spaces");
    let at = |offset: u16| port + offset;
    format!(
        "-dir={data} -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false \
         -master.port={} -master.port.grpc={} -master.volumeSizeLimitMB=1024 \
         -master.electionTimeout=1s -master.heartbeatInterval=100ms \
         -volume.port={} -volume.port.grpc={} -volume.max=0 -volume.preStopSeconds=0 \
         -filer -filer.port={} -filer.port.grpc={} -filer.localSocket={data}/filer.sock \
         -s3 -s3.port={} -s3.port.grpc={} -s3.port.iceberg=0 -s3.port.lance=0 -s3.config={config}",
        at(1),
        at(11),
        at(2),
        at(12),
        at(3),
        at(13),
        port,
        at(10)
    )
}
