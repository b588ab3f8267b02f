//! A passphrase from another program: a password manager, or the desktop's keyring. No shell is involved: the command
//! is split at spaces, and the words go to the program unchanged.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};

/// The most bytes of its output, as for a passphrase file.
const OUTPUT_MAX: u64 = 64 << 10;
/// How long it may take: a user may have to unlock their password manager.
const LIMIT: Duration = Duration::from_secs(120);
/// How often its end is checked for.
const LOOK: Duration = Duration::from_millis(10);

/// The command that asks the keyring for the passphrase of the vault at `place`.
pub(super) fn keyring(place: &str) -> Vec<String> {
    ["secret-tool", "lookup", "service", "s3vault", "vault", place].map(str::to_owned).to_vec()
}

/// The words of a command, split at white space. Quotes have no meaning.
pub(super) fn words(command: &str) -> Vec<String> {
    command.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Runs the command and returns its output without one final newline.
pub(super) fn output_of(words: &[String]) -> CliResult<Zeroizing<Vec<u8>>> {
    within(words, LIMIT)
}

fn within(words: &[String], limit: Duration) -> CliResult<Zeroizing<Vec<u8>>> {
    let [program, arguments @ ..] = words else {
        return Err(Failure::new(Exit::Usage, "--passphrase-command names no program"));
    };
    let failed = |what: String| {
        let text = format!(
            "no passphrase came from `{program}`: {what}; nothing was changed; run it by hand to see why (it is started \
             without a shell, its words split at blanks; put what needs more into a script)"
        );
        Failure::new(Exit::NoPassphrase, text)
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let Some(out) = child.stdout.take() else { return Err(failed("it has no output".to_owned())) };
    let (said, hear) = mpsc::channel();
    // The program may leave children behind that keep its output open, so the thread is not joined.
    let listen = move || drop(said.send(read_all(out)));
    let listener = std::thread::Builder::new().spawn(listen);
    listener.map_err(|error| failed(error.to_string()))?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < limit => std::thread::sleep(LOOK),
            Ok(None) => {
                // It may have ended just now; either way it is gone.
                drop(child.kill().and_then(|()| child.wait()));
                return Err(failed(format!("it did not end within {} s", limit.as_secs())));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    let left = limit.saturating_sub(begun.elapsed()).max(LOOK);
    let bytes =
        hear.recv_timeout(left).map_err(|_| failed("its output does not end".to_owned()))?;
    let bytes = bytes.map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > OUTPUT_MAX {
        return Err(failed("it printed over 64 KiB".to_owned()));
    }
    if !status.success() {
        return Err(failed(format!("it ended with {status}")));
    }
    let mut bytes = bytes;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(failed("it printed nothing".to_owned()));
    }
    Ok(bytes)
}

fn read_all(out: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // The buffer has its final size from the start, so that growing leaves no copy behind.
    let room = usize::try_from(OUTPUT_MAX).unwrap_or(usize::MAX).saturating_add(64);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    out.take(OUTPUT_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(command: &str, limit: Duration) -> (Exit, String) {
        let failure = within(&words(command), limit).map(|_| panic!("{command}")).unwrap_err();
        (failure.exit, failure.message)
    }

    #[test]
    fn what_a_program_prints_is_the_passphrase_and_no_shell_reads_it() {
        let got = |command: &str| within(&words(command), LIMIT).unwrap().to_vec();
        assert_eq!(got("echo  $HOME;  'a b'"), b"$HOME; 'a b'");
        assert_eq!(got("printf word\\n\\n"), b"word\n");
    }

    #[test]
    fn a_program_that_fails_hangs_or_says_nothing_or_too_much_is_refused_in_time() {
        let begun = Instant::now();
        for (command, why) in [
            ("", "names no program"),
            ("/nowhere/at/all", "No such file"),
            ("false", "exit status: 1"),
            ("true", "printed nothing"),
            ("head -c 70000 /dev/zero", "over 64 KiB"),
        ] {
            let (exit, message) = exit_of(command, LIMIT);
            assert!(matches!(exit, Exit::NoPassphrase | Exit::Usage), "{command}");
            assert!(message.contains(why), "{command}: {message}");
        }
        let (_, message) = exit_of("sleep 100", Duration::from_millis(200));
        assert!(message.contains("did not end"), "{message}");
        assert!(begun.elapsed() < Duration::from_secs(50));
    }
}
