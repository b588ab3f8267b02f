//! One line of the report.

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gravity {
    /// As it should be.
    Ok,
    /// It works, but is not ideal.
    Warn,
    /// It does not work.
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    pub gravity: Gravity,
    /// What was checked.
    pub what: &'static str,
    pub text: String,
    /// What to do.
    pub mend: String,
}

impl Remark {
    pub(crate) fn ok(what: &'static str, text: impl Into<String>) -> Self {
        Self { gravity: Gravity::Ok, what, text: text.into(), mend: String::new() }
    }

    pub(crate) fn warn(
        what: &'static str,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { gravity: Gravity::Warn, what, text: text.into(), mend: mend.into() }
    }

    pub(crate) fn fail(
        what: &'static str,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { gravity: Gravity::Fail, ..Self::warn(what, text, mend) }
    }

    pub(crate) fn line(&self) -> String {
        let gravity = match self.gravity {
            Gravity::Ok => "ok",
            Gravity::Warn => "warn",
            Gravity::Fail => "fail",
        };
        let mend = match self.mend.as_str() {
            "" => String::new(),
            mend => format!("\n                       do: {mend}"),
        };
        format!("{gravity:<4}  {:<15}  {}{mend}", self.what, self.text)
    }
}
