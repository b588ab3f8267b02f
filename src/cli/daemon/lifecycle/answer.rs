//! Answers that may take long: meanwhile the client is sent progress, so that it knows that the daemon is alive.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::control::ControlReply;
use crate::cli::exit::CliResult;
use crate::types::Progress;

/// Does the work and reports upload progress at every tick, then sends the lines of the answer.
pub(super) async fn told(
    work: impl Future<Output = CliResult<Vec<String>>>,
    tick: Duration,
    progress: impl Fn() -> Progress,
    client: &mpsc::Sender<ControlReply>,
) -> CliResult {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = Box::pin(work);
    let lines = loop {
        tokio::select! {
            lines = &mut work => break lines?,
            // A client that does not read misses a report; one that is gone needs none.
            _ = ticks.tick() => drop(client.try_send(ControlReply::Progress(progress()))),
        }
    };
    for text in lines {
        // Fails only if the client is gone; its request is done all the same.
        drop(client.send(ControlReply::Said { text }).await);
    }
    Ok(())
}
