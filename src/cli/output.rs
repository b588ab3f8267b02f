//! Prints what a command was asked for: a report, a key. If that cannot be written, the command fails. (Text that
//! accompanies an action, `say!`, may be lost: the exit code tells that the action is done.)

use std::io::{self, Write};

use super::exit::{CliResult, Exit, Failure};
use crate::os;
use crate::types::printable;

/// Writes the text and a newline.
pub(super) fn write(text: &str) -> io::Result<()> {
    if os::stdout_was_closed() {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let mut out = io::stdout().lock();
    out.write_all(printable(text).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes raw bytes.
pub(super) fn raw(bytes: &[u8]) -> CliResult {
    let written = match os::stdout_was_closed() {
        true => Err(io::Error::from_raw_os_error(libc::EBADF)),
        false => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
    };
    written.map_err(|error| failure(&error))
}

/// Prints a report. A reader that has seen enough (`| head`) is not a failure; a full disk or a closed output is.
pub(super) fn show(text: &str) -> CliResult {
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failure(&error)),
        _ => Ok(()),
    }
}

/// The failure if the output cannot be written.
pub(super) fn failure(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Other,
        format!(
            "the output cannot be written: {error}; give standard output a terminal, a pipe, or a file with room"
        ),
    )
}

/// A duration in words.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min", seconds / 60),
        6000..=259_199 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
