//! What a command prints because it was asked for it: a report, a key. When that cannot be written, the command fails.
//! (What goes with an action that is done, `say!`, may be lost: the action's exit code says that it is done.)

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::exit::{Exit, Failure, Outcome};

/// Whether this process was started without a standard output.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Rust puts /dev/null in the place of a standard descriptor that is closed, before `main`: after that, nobody can tell.
/// So it is looked at before that.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: fcntl(2) with F_GETFD takes two integers and changes nothing.
        if unsafe { libc::fcntl(1, libc::F_GETFD) } < 0 {
            CLOSED.store(true, Relaxed);
        }
    }
    look
};

/// Writes all of it and a newline, to the end.
pub(super) fn write(text: &str) -> io::Result<()> {
    if CLOSED.load(Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints a report. A reader that has seen enough (`| head`) is no failure; a full disk or a closed output is.
pub(super) fn show(text: &str) -> Outcome {
    match write(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failure(&error)),
        _ => Ok(()),
    }
}

/// The output cannot be written.
pub(super) fn failure(error: &io::Error) -> Failure {
    Failure::new(
        Exit::Other,
        format!(
            "the output cannot be written: {error}; give standard output a terminal, a pipe, or a file with room"
        ),
    )
}
