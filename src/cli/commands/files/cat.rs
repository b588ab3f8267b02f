//! `s3vault cat`, and `get` to standard output.

use std::io::{self, Write};
use std::path::PathBuf;

use super::expand::expand;
use super::fetch::{FetchOutcome, fetch};
use super::session::{FilesPurpose, FilesSession};
use super::which::Meant;
use super::work::Work;
use crate::cli::args::Global;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::files_args::CatArgs;
use crate::cli::output;
use crate::cli::paths::UserPaths;
use crate::os;

/// Prints files.
pub(crate) async fn cat(global: &Global, paths: &UserPaths, args: &CatArgs) -> CliResult {
    let meant = Meant::of(paths, args.bucket.bucket.as_deref(), &args.paths)?;
    print(global, paths, &meant).await
}

/// Prints the paths one after the other.
pub(super) async fn print(global: &Global, paths: &UserPaths, meant: &Meant) -> CliResult {
    if os::stdout_was_closed() {
        return Err(output::failure(&io::Error::from_raw_os_error(libc::EBADF)));
    }
    FilesSession::with(global, paths, meant, FilesPurpose::Print, |session| {
        print_all(session, &meant.paths)
    })
    .await
}

fn print_all(session: &FilesSession, paths: &[PathBuf]) -> CliResult {
    let mut out = Printed { session, out: io::stdout().lock(), at: 0 };
    let work = Work::new(session, "cat", paths.len() == 1);
    let mut connection = session.connect()?;
    for path in paths {
        let shown = path.display().to_string();
        let Some(all) = work.heard(&shown, expand(&mut connection, path)) else { break };
        for path in all.unwrap_or_default() {
            let shown = path.display().to_string();
            out.at = 0;
            let fetched = fetch(&mut connection, &path, |offset, data| out.write(offset, data));
            let Some(Ok(fetched)) = work.heard(&shown, fetched.map(Ok)) else { break };
            let ended = match fetched {
                FetchOutcome::Whole(entry, _) => {
                    out.write(entry.size, &[]).and_then(|()| out.out.flush())
                }
                FetchOutcome::NotWritten(error) => Err(error),
                FetchOutcome::Failed(failure) => {
                    work.failed(&shown, failure);
                    continue;
                }
                FetchOutcome::Changed => {
                    let text = "it was changed while it was read, and what was printed is a mix of two versions; say it again";
                    work.failed(&shown, Failure::new(Exit::Other, text));
                    continue;
                }
            };
            match ended {
                Ok(()) => {}
                // The reader has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(output::failure(&error)),
            }
        }
    }
    work.outcome("printed", "the others were")
}

/// Standard output; holes are written as zeros.
struct Printed<'a> {
    session: &'a FilesSession,
    out: io::StdoutLock<'a>,
    at: u64,
}

impl Printed<'_> {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.session.begins();
        let zeros = [0; 4096];
        while self.at < offset {
            let length = (offset - self.at).min(zeros.len() as u64);
            self.out.write_all(&zeros[..usize::try_from(length).unwrap_or(zeros.len())])?;
            self.at += length;
        }
        self.out.write_all(data)?;
        self.at += data.len() as u64;
        Ok(())
    }
}
