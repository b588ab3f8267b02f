//! `s3vault man`

use clap::Command;
use clap_mangen::Man;

use super::completions::visible;
use crate::cli::args::ManArgs;
use crate::cli::exit::{CliResult, Exit, Failure};
use crate::cli::output;

/// The last section of each page.
const SEE_ALSO: &str = ".SH \"SEE ALSO\"\n\
    \\fBs3vault\\fR(1), \\fBs3vault\\-mount\\fR(1), \\fBs3vault\\-status\\fR(1), \\fBs3vault\\-doctor\\fR(1).\n\
    Exit codes, files and settings are in MANUAL.md, what a mount promises is in SEMANTICS.md, both beside the source.\n";

/// Prints a manual page.
pub(crate) fn man(args: &ManArgs) -> CliResult {
    let mut root = visible();
    root.build();
    let mut command = &root;
    for word in &args.command {
        let here = command.get_bin_name().unwrap_or("s3vault").to_owned();
        command = command.find_subcommand(word).ok_or_else(|| {
            let text =
                format!("{here} has no command {word:?}; see what there is with `{here} --help`");
            Failure::new(Exit::Usage, text)
        })?;
    }
    let page = page(command).map_err(|error| output::failure(&error))?;
    output::show(String::from_utf8_lossy(&page).trim_end())
}

fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or("s3vault").to_owned();
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let source = format!("s3vault {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name).source(source).manual("s3vault");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    page.extend_from_slice(section("EXAMPLES", &examples).as_bytes());
    page.extend_from_slice(SEE_ALSO.as_bytes());
    Ok(page)
}

/// A section of unfilled lines. None of them can start a roff request.
fn section(title: &str, text: &str) -> String {
    let lines = text.lines().skip(1).map(|line| {
        let line = line.trim().replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
        format!("\\&{line}\n")
    });
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!(".SH {title}\n.nf\n{lines}.fi\n") }
}
