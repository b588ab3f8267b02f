//! `s3vault doctor`: checks what a mount needs, and says how to fix what is missing.

mod bucket;
mod machine;
mod places;
mod remark;
mod state;

use super::exit::{CliResult, Exit, Failure};
use super::output;

pub(super) use bucket::look_at_bucket;
pub(super) use machine::{cannot_mount, look_at_machine};
pub(super) use places::Places;
pub(super) use remark::{Gravity, Remark};
pub(super) use state::{look_at_daemons, look_at_state};

/// The number of findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    seen: usize,
    warnings: usize,
    failures: usize,
}

impl Findings {
    /// Shows some findings and counts them.
    pub(super) fn add(&mut self, remarks: &[Remark]) -> CliResult {
        for remark in remarks {
            self.seen += 1;
            self.warnings += usize::from(remark.gravity == Gravity::Warn);
            self.failures += usize::from(remark.gravity == Gravity::Fail);
            output::show(&remark.line())?;
        }
        Ok(())
    }

    /// The overall result.
    pub(super) fn verdict(&self) -> CliResult {
        let Self { seen, warnings, failures } = self;
        if *failures > 0 {
            let text = format!(
                "{failures} of {seen} things do not work; nothing was changed; mend what says `fail`, and try again"
            );
            return Err(Failure::new(Exit::Other, text));
        }
        let but = match warnings {
            0 => String::new(),
            1 => ", with one warning".to_owned(),
            many => format!(", with {many} warnings"),
        };
        output::show(&format!("All that is needed works ({seen} things were looked at{but})."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_and_each_line_says_what_to_do() {
        let mut findings = Findings::default();
        findings
            .add(&[Remark::ok("clock", "right"), Remark::warn("swap", "in the clear", "mkswap")])
            .unwrap();
        findings.verdict().unwrap();
        let remark = Remark::fail("fuse", "no /dev/fuse", "modprobe fuse");
        let line = remark.line();
        assert!(line.starts_with("fail  fuse  ") && line.ends_with("do: modprobe fuse"), "{line}");
        findings.add(&[remark]).unwrap();
        assert!(findings.verdict().unwrap_err().message.starts_with("1 of 3 "));
    }
}
