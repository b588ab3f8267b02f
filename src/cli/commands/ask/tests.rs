//! What a client is told after it lost the connection to its daemon.

use std::process::{Child, Command};

use super::super::umount;
use super::*;
use crate::os::{pid_namespace, started};

/// A process that stands for a daemon that does not listen.
fn daemon(dir: &std::path::Path) -> (Child, RunningDaemon) {
    let child = Command::new("sleep").arg("100").spawn().unwrap();
    let running = RunningDaemon {
        pid: child.id(),
        started: started(child.id()).unwrap(),
        namespace: pid_namespace(),
        boot: crate::os::boot_id(),
        mountpoint: Some("/m".into()),
        vault: "v".into(),
        bucket: "file:///x".into(),
        dir: dir.to_owned(),
        log: dir.join("daemon.log"),
        read_only: false,
        past: false,
        for_command: false,
    };
    (child, running)
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn who_lost_the_connection_hears_how_the_daemon_ended() {
    let dir = tempfile::tempdir().unwrap();
    for outcome in [Ok(()), Err(Failure::new(Exit::Unsent, "7 bytes are missing"))] {
        let (child, running) = daemon(dir.path());
        last::keep(&running, &outcome).unwrap();
        end(child);
        assert_eq!(umount::ends_well(&running), outcome.is_ok());
        assert_eq!(finish(&running, &ControlRequest::Umount { within: None }), outcome);
    }
}

#[test]
fn what_is_not_known_is_not_called_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (other, before) = daemon(dir.path());
    last::keep(&before, &Ok(())).unwrap();
    end(other);
    // The note of another daemon, and then a damaged one, say nothing about this one.
    for damaged in [false, true] {
        if damaged {
            std::fs::write(dir.path().join("last.json"), "").unwrap();
        }
        let (child, running) = daemon(dir.path());
        end(child);
        assert!(!umount::ends_well(&running));
        let failure = finish(&running, &ControlRequest::Umount { within: None }).unwrap_err();
        assert_eq!(failure.exit, Exit::Other);
        assert!(failure.message.contains("not known"), "{failure}");
    }
}

/// A kill can show as any of these, even before the process is gone.
#[test]
fn that_a_daemon_ended_is_seen_whatever_broke() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::ConnectionRefused,
    ] {
        let (child, running) = daemon(dir.path());
        let error = kind.into();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| has_ended(&running, &error));
            end(child);
            assert!(asked.join().unwrap(), "{kind}");
        });
    }
    // A daemon that hangs is not waited for.
    let (child, running) = daemon(dir.path());
    let begun = std::time::Instant::now();
    assert!(!has_ended(&running, &io::ErrorKind::TimedOut.into()));
    assert!(begun.elapsed() < END_WAIT);
    // A change that the daemon did not confirm is never reported as done, however well the daemon ended.
    last::keep(&running, &Ok(())).unwrap();
    end(child);
    let failure = change(&running, &ControlRequest::Unserve).unwrap_err();
    assert!(failure.message.contains("before it said"), "{failure}");
}
