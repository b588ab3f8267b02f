//! Answers to clients that may take long: progress meanwhile, so that a client knows that the daemon lives.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::control::ControlReply;
use crate::cli::exit::CliResult;
use crate::types::Progress;

/// Does the work, says how uploads fare at every tick, and then what the work says, line by line.
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
            // A client that does not read misses a reply; one that is gone needs none.
            _ = ticks.tick() => drop(client.try_send(ControlReply::Progress(progress()))),
        }
    };
    for text in lines {
        // Fails only when the client is gone: what it asked for is done.
        drop(client.send(ControlReply::Said { text }).await);
    }
    Ok(())
}
