//! `s3vault doctor`

use super::ask::report_of;
use crate::cli::args::{DoctorArgs, Global};
use crate::cli::config::Config;
use crate::cli::doctor::{
    Findings, Places, Remark, look_at_bucket, look_at_daemons, look_at_machine, look_at_state,
};
use crate::cli::exit::CliResult;
use crate::cli::paths::UserPaths;
use crate::cli::registry::RunningDaemon;
use crate::cli::target::Target;
use crate::os;

/// Examines the machine, the state on its disk, the running daemons, and the buckets: the named one, or all known ones.
pub(crate) async fn doctor(global: &Global, paths: &UserPaths, args: &DoctorArgs) -> CliResult {
    let mut findings = Findings::default();
    let is_root = os::effective_ids().0 == 0;
    findings.add(&look_at_machine(&Places::of_this_machine(is_root)))?;
    findings.add(&look_at_state(&paths.state))?;
    let running: Vec<_> = RunningDaemon::all(&paths.running()).iter().map(report_of).collect();
    findings.add(&look_at_daemons(&running))?;
    for target in targets(global, paths, args, &mut findings)? {
        findings.add(&look_at_bucket(&target).await)?;
    }
    findings.verdict()
}

fn targets(
    global: &Global,
    paths: &UserPaths,
    args: &DoctorArgs,
    findings: &mut Findings,
) -> CliResult<Vec<Target>> {
    let shown = paths.config.display();
    let config = match Config::read(&paths.config) {
        Ok(config) => config,
        Err(failure) => {
            findings.add(&[Remark::fail(
                "configuration",
                failure.message,
                format!("edit {shown}"),
            )])?;
            Config::default()
        }
    };
    let choose = |bucket: Option<&str>| Target::choose(global, paths, &config, bucket, None);
    if let Some(bucket) = &args.bucket.bucket {
        return Ok(vec![choose(Some(bucket))?]);
    }
    let text = match config.vaults.len() {
        0 => format!("no vault is known ({shown}); s3vault doctor --bucket URL looks at a bucket"),
        1 => format!("{shown}, one vault"),
        many => format!("{shown}, {many} vaults"),
    };
    findings.add(&[Remark::ok("configuration", text)])?;
    config.vaults.iter().map(|known| Target::of_known(global, paths, known)).collect()
}
