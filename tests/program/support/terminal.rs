//! A terminal with a user.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::home::{Home, PATIENCE, wait_until};

/// Questions whose answer is not echoed, and those whose answer is.
const HIDDEN: [&str; 3] = ["Passphrase ", "New passphrase ", "The same passphrase again"];
const SHOWN: [&str; 9] = [
    "Number [",
    "Directory [",
    "What is it to be called",
    "Type it back",
    "URL of the server",
    "Bucket: ",
    "Prefix within it",
    "Make this bucket?",
    "Will one machine alone",
];
/// Stands for an answer: the recovery key that was shown.
pub const RECOVERY_KEY: &str = "(the recovery key)";

/// How many characters a line of the screen has.
pub const COLUMNS: u16 = 80;

/// Whether the terminal echoes input.
fn echoes(terminal: &fs::File) -> bool {
    let settings = rustix::termios::tcgetattr(terminal).unwrap();
    settings.local_modes.contains(rustix::termios::LocalModes::ECHO)
}

fn recovery_key(said: &str) -> String {
    let after = said.split("Recovery key, shown only this once:").nth(1).unwrap_or_default();
    after.lines().nth(1).unwrap_or_default().trim().to_owned()
}

/// A command that runs on a terminal of its own.
struct AtTerminal {
    terminal: fs::File,
    child: Child,
}

fn begin(home: &Home, line: &str) -> AtTerminal {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = OsString::from_vec(ptsname(&master, Vec::new()).unwrap().into_bytes());
    let slave = fs::File::options();
    let slave = { slave }.read(true).write(true).custom_flags(libc::O_NOCTTY).open(name).unwrap();
    let inner = home.command(line.split_whitespace());
    // A screen of the usual size.
    let size = Winsize { ws_row: 24, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&slave, size).unwrap();
    // `setsid --ctty` makes it the controlling terminal of the command's new session.
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(inner.get_current_dir().unwrap_or(Path::new(".")));
    let copy = || slave.try_clone().unwrap();
    command.stdin(copy()).stdout(copy()).stderr(copy());
    AtTerminal { terminal: master.into(), child: command.spawn().unwrap() }
}

/// Whether output or the end comes before the test's patience ends.
fn is_ready(terminal: &fs::File, begun: &Instant) -> bool {
    let left = Timespec::try_from(PATIENCE.saturating_sub(begun.elapsed())).unwrap();
    poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&left)).unwrap() > 0
}

/// A user at a screen: when the text of each step shows, its function runs, and the keys that this returns are pressed.
pub fn looking_at(
    home: &Home,
    line: &str,
    steps: &[(&str, &dyn Fn() -> &'static str)],
) -> (i32, String) {
    let AtTerminal { mut terminal, mut child } = begin(home, line);
    let (mut said, mut seen) = (Vec::new(), 0);
    let mut left = steps.iter();
    let mut step = left.next();
    let mut buffer = [0; 4096];
    let begun = Instant::now();
    while is_ready(&terminal, &begun)
        && let Ok(length @ 1..) = terminal.read(&mut buffer)
    {
        said.extend_from_slice(&buffer[..length]);
        while let Some((what, act)) = step
            && String::from_utf8_lossy(&said[seen..]).contains(what)
        {
            seen = said.len();
            terminal.write_all(act().as_bytes()).unwrap();
            step = left.next();
        }
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    drop(terminal); // this ends whatever still runs there
    assert!(step.is_none(), "{:?} never showed in {said}", step.map(|(what, _)| what));
    (child.wait().unwrap().code().unwrap_or(-1), said)
}

/// A user who types `answers` one after the other, each when asked.
pub fn at_a_terminal(home: &Home, line: &str, answers: &[&str]) -> (i32, String) {
    let AtTerminal { terminal: mut master, mut child } = begin(home, line);
    let mut said = String::new();
    let mut left = answers.iter();
    // Byte by byte, so that partial lines are tested, too.
    let mut buffer = [0; 1];
    while let Ok(1..) = master.read(&mut buffer) {
        said.push(char::from(buffer[0]));
        // A question ends in ": " and waits; but an error message begins with "s3vault: ".
        let line = said.lines().next_back().unwrap_or_default();
        let asks = |questions: &[&str]| questions.iter().any(|question| line.starts_with(question));
        let is_hidden = asks(&HIDDEN);
        if said.ends_with(": ")
            && (is_hidden || asks(&SHOWN))
            && let Some(answer) = left.next()
        {
            let answer =
                if *answer == RECOVERY_KEY { recovery_key(&said) } else { (*answer).to_owned() };
            if is_hidden {
                // A real user is slower: the question appears before the echo is off.
                wait_until("the echo is off", || !echoes(&master));
            }
            writeln!(master, "{answer}").unwrap();
        }
    }
    (child.wait().unwrap().code().unwrap_or(-1), said)
}
